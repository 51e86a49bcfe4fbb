//! The two clocks that a token's life is measured on.
//!
//! A lease ends at the *earlier* of its monotonic and its wall-clock deadline. The monotonic clock
//! cannot be set, but it stands still while the machine sleeps; the wall clock runs through a suspend,
//! but anybody can set it. Relying on either alone would hand out dead tokens (`reliability` scenarios
//! 105 and 106).
//!
//! This module reads clocks and compares readings. It knows nothing of tokens, schedules or timers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "test-util")]
use crate::test_util::TestClock;

/// Where the cache reads the time.
///
/// [`Clock::system`] is the default. With the feature `test-util`, a `TestClock` converts into a
/// `Clock`.
#[derive(Clone, Debug, Default)]
pub struct Clock(Kind);

#[derive(Clone, Debug, Default)]
enum Kind {
    #[default]
    System,
    #[cfg(feature = "test-util")]
    Test(TestClock),
}

impl Clock {
    /// The operating system's clocks.
    ///
    /// On Linux these are the coarse clocks, which have a resolution of about 4 ms and a third of the
    /// cost (tokens live for minutes). Elsewhere they are those of `std`.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    // Read once per request. Without the attribute it was not inlined, and the call plus returning the
    // reading through memory took 8 instructions of 50 (`benches/instructions`).
    #[inline(always)]
    pub(crate) fn now(&self) -> Moment {
        match &self.0 {
            Kind::System => system_now(),
            #[cfg(feature = "test-util")]
            Kind::Test(clock) => clock.now(),
        }
    }
}

#[cfg(feature = "test-util")]
impl From<TestClock> for Clock {
    fn from(clock: TestClock) -> Self {
        Self(Kind::Test(clock))
    }
}

/// One reading of both clocks, or a deadline on both, in nanoseconds.
///
/// `mono` counts from an arbitrary origin, `wall` from 1970 and may be negative. Signed 64-bit
/// nanoseconds reach 292 years either way; all arithmetic saturates there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) mono: i64,
    pub(crate) wall: i64,
}

impl Moment {
    /// Earlier than every reading.
    pub(crate) const PAST: Self = Self {
        mono: i64::MIN,
        wall: i64::MIN,
    };

    pub(crate) fn plus(self, by: Duration) -> Self {
        let by = nanos(by);
        Self {
            mono: self.mono.saturating_add(by),
            wall: self.wall.saturating_add(by),
        }
    }

    pub(crate) fn minus(self, by: Duration) -> Self {
        let by = nanos(by);
        Self {
            mono: self.mono.saturating_sub(by),
            wall: self.wall.saturating_sub(by),
        }
    }

    /// True while neither clock has reached `deadline`.
    pub(crate) fn is_before(self, deadline: Self) -> bool {
        self.mono < deadline.mono && self.wall < deadline.wall
    }

    /// Nanoseconds to `deadline` by whichever clock is closer to it; negative once it has passed.
    pub(crate) fn until(self, deadline: Self) -> i64 {
        let mono = deadline.mono.saturating_sub(self.mono);
        let wall = deadline.wall.saturating_sub(self.wall);
        mono.min(wall)
    }

    /// The wall-clock reading as the standard library's type.
    pub(crate) fn to_system_time(self) -> SystemTime {
        let distance = Duration::from_nanos(self.wall.unsigned_abs());
        let moved = if self.wall < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        };
        moved.unwrap_or(UNIX_EPOCH)
    }
}

/// Converts `by` to nanoseconds, saturating at the maximum of an `i64`.
pub(crate) fn nanos(by: Duration) -> i64 {
    i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970, negative before it.
pub(crate) fn wall_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => nanos(before.duration()).saturating_neg(),
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn system_now() -> Moment {
    use rustix::time::{ClockId, clock_gettime};

    let read = |id| {
        let time = clock_gettime(id);
        // Wraps in the year 2262. Saturating would add a third to the cost of a reading.
        time.tv_sec
            .wrapping_mul(1_000_000_000)
            .wrapping_add(time.tv_nsec)
    };
    Moment {
        mono: read(ClockId::MonotonicCoarse),
        wall: read(ClockId::RealtimeCoarse),
    }
}

#[cfg(not(target_os = "linux"))]
fn system_now() -> Moment {
    portable_now()
}

/// Reads both clocks through `std` alone.
#[cfg(any(not(target_os = "linux"), test))]
fn portable_now() -> Moment {
    use std::{sync::OnceLock, time::Instant};

    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let mono = nanos(ORIGIN.get_or_init(Instant::now).elapsed());
    Moment {
        mono,
        wall: wall_nanos(SystemTime::now()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_portable_clocks_agree_with_the_coarse_ones() {
        let (first, coarse) = (portable_now(), system_now());
        let last = portable_now();
        assert!(last.mono >= first.mono);
        // The resolution of the coarse clock, plus whatever the scheduler adds.
        assert!((coarse.wall - first.wall).abs() < nanos(Duration::from_secs(5)));
    }

    #[test]
    fn the_closer_clock_decides() {
        let now = Moment { mono: 0, wall: 0 };
        let deadline = now.plus(SECOND);
        assert!(now.is_before(deadline));
        assert!(
            !Moment {
                mono: 0,
                wall: deadline.wall
            }
            .is_before(deadline)
        );
        assert!(
            !Moment {
                mono: deadline.mono,
                wall: 0
            }
            .is_before(deadline)
        );
        assert_eq!(
            Moment {
                mono: 400_000_000,
                wall: 0
            }
            .until(deadline),
            600_000_000
        );
    }

    #[test]
    fn s109_times_before_1970_and_endless_durations_saturate() {
        let before = UNIX_EPOCH - SECOND;
        assert_eq!(wall_nanos(before), -1_000_000_000);
        let moment = Moment {
            mono: 0,
            wall: wall_nanos(before),
        };
        assert_eq!(moment.to_system_time(), before);
        assert_eq!(
            moment.plus(Duration::MAX).plus(Duration::MAX).mono,
            i64::MAX
        );
        assert!(
            moment
                .minus(Duration::MAX)
                .minus(Duration::MAX)
                .is_before(moment)
        );
    }
}
