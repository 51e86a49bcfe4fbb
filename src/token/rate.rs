//! How many refreshes of still valid tokens start per second, across all slots of a cache.
//!
//! Tokens fetched together come due together, and jitter spreads them over half a minute: ten thousand
//! would be three hundred a second. None of them is urgent, so they are also limited to a rate at which
//! the time before anybody has to wait has room for some thirty thousand (with the default lead).
//! Fetches that somebody waits for are not limited.
//!
//! Knows times; does not know what starts.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

/// Together with [`AT_ONCE`], at most 183 in any second. The margin to the 200 of `reliability`
/// scenario 168 is for threads that look at the same moment.
const INTERVAL: i64 = 6_000_000;

/// How many may start at the same moment after a pause: as many as may run at once.
const AT_ONCE: i64 = 16;

/// When to look again, at the latest, for those who found no room and are not triggered by a next
/// request.
pub(crate) const COME_BACK: Duration = Duration::from_secs(1);

/// The generic cell rate algorithm. Its single number is the time at which the refreshes that have
/// started would have ended, had they kept their distance.
#[derive(Debug)]
pub(crate) struct Rate {
    spoken_for: AtomicI64,
}

impl Rate {
    pub(crate) fn new() -> Self {
        Self {
            spoken_for: AtomicI64::new(i64::MIN),
        }
    }

    /// May another one start at `now`, in monotonic nanoseconds?
    ///
    /// This is asked before it is known whether one will start, so threads that ask at the same moment
    /// may start one more each.
    pub(crate) fn has_room(&self, now: i64) -> bool {
        let ahead = self.spoken_for.load(Ordering::Relaxed).saturating_sub(now);
        // It can be further ahead than a burst only if the clock has gone back.
        ahead <= INTERVAL * (AT_ONCE - 1) || ahead > INTERVAL * AT_ONCE
    }

    /// Records a start. Starts beyond the available room are made up for by at most a burst's time.
    pub(crate) fn charge(&self, now: i64) {
        let most = now.saturating_add(INTERVAL * AT_ONCE);
        let after = |spoken_for: i64| Some(spoken_for.max(now).saturating_add(INTERVAL).min(most));
        // It orders nothing, and the update never fails.
        let _ = self
            .spoken_for
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_few_at_once_are_not_held_up() {
        let rate = Rate::new();
        for _ in 0..AT_ONCE {
            assert!(rate.has_room(0));
            rate.charge(0);
        }
        assert!(!rate.has_room(0));
        assert!(!rate.has_room(INTERVAL - 1));
        assert!(rate.has_room(INTERVAL));
    }

    #[test]
    fn what_could_not_be_held_back_holds_nothing_back_for_long() {
        let rate = Rate::new();
        for _ in 0..10_000 {
            rate.charge(0);
        }
        assert!(!rate.has_room(0));
        assert!(rate.has_room(SECOND / 10));
    }

    #[test]
    fn a_clock_that_goes_back_closes_nothing() {
        let rate = Rate::new();
        rate.charge(3_600 * SECOND);
        assert!(rate.has_room(0));
        rate.charge(0);
        assert!(rate.has_room(SECOND));
    }

    proptest! {
        #[test]
        fn s168_never_more_than_two_hundred_in_a_second(
            steps in prop::collection::vec((0..30_000_000_i64, 1..60_usize), 1..200)
        ) {
            let rate = Rate::new();
            let (mut now, mut begun) = (0, Vec::new());
            for (step, wishes) in steps {
                now += step;
                for _ in 0..wishes {
                    if rate.has_room(now) {
                        rate.charge(now);
                        begun.push(now);
                    }
                }
            }
            for window in begun.windows(201) {
                prop_assert!(window[200] - window[0] >= SECOND);
            }
        }
    }
}
