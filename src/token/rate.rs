//! How many refreshes of tokens that are still good begin in a second, over all slots of a cache.
//!
//! Tokens that were fetched together come due together, and jitter spreads them over half a minute: ten
//! thousand would be three hundred a second. None of them is urgent, so they are also held to a rate,
//! for which the time before anybody has to wait has room for some thirty thousand (with the default lead).
//! What somebody waits for is not held to it.
//!
//! Knows times; does not know what begins.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

/// With [`AT_ONCE`], at most 183 in any second. To the 200 of `reliability` scenario 168 there is room for
/// threads that look at the same moment.
const INTERVAL: i64 = 6_000_000;

/// That many may begin at the same moment, after a pause: as many as may run at once.
const AT_ONCE: i64 = 16;

/// When to come back, at the latest, for those who found no room and are not reminded by the next request.
pub(crate) const COME_BACK: Duration = Duration::from_secs(1);

/// The generic cell rate algorithm: one number, which is when the refreshes that have begun would have
/// ended if they had kept their distance.
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

    /// May another one begin at `now`, in monotonic nanoseconds?
    ///
    /// It is asked before it is known whether one will: threads that ask at the same moment may begin
    /// one more each.
    pub(crate) fn has_room(&self, now: i64) -> bool {
        let ahead = self.spoken_for.load(Ordering::Relaxed).saturating_sub(now);
        // Further ahead than a burst it can only be where the clock has gone back.
        ahead <= INTERVAL * (AT_ONCE - 1) || ahead > INTERVAL * AT_ONCE
    }

    /// One has begun. What was begun beyond the room there was is made up for at most by a burst's time.
    pub(crate) fn charge(&self, now: i64) {
        let most = now.saturating_add(INTERVAL * AT_ONCE);
        let after = |spoken_for: i64| Some(spoken_for.max(now).saturating_add(INTERVAL).min(most));
        // It orders nothing, and the update is never refused.
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
