//! Time in tests: a clock that a test can move by hand (feature `test-util`).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::token::clock::{Moment, nanos, wall_nanos};

/// A pair of clocks that follows Tokio's clock, so that a paused runtime controls both.
///
/// The monotonic clock is [`tokio::time::Instant`]; the wall clock starts at the real time of
/// construction and advances with it. [`suspend`](Self::suspend) and [`set_wall`](Self::set_wall) move
/// the wall clock only. Clones share one pair of clocks.
///
/// Create it inside the runtime whose clock it should follow.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tower_scoped_auth::{Scopes, Token, TokenCache, TokenRequest, source, test_util::TestClock};
///
/// let clock = TestClock::new();
/// let source = source::from_fn(|_: TokenRequest| async {
///     Ok::<_, std::io::Error>(Token::new("secret", Duration::from_secs(3600)))
/// });
/// let cache = TokenCache::builder(source).clock(clock.clone()).build()?;
/// let request = TokenRequest::access_token(Scopes::default());
/// cache.token(&request).await?;
///
/// clock.suspend(Duration::from_secs(7200));
/// assert!(cache.status(&request).expires_in().is_none(), "the machine slept past its expiry");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TestClock {
    hands: Arc<Hands>,
}

struct Hands {
    origin: Instant,
    /// The wall-clock reading at `origin`, in nanoseconds since 1970.
    wall_at_origin: AtomicI64,
}

impl TestClock {
    /// Creates a clock whose wall clock starts at the real time.
    pub fn new() -> Self {
        let wall_at_origin = AtomicI64::new(wall_nanos(SystemTime::now()));
        Self {
            hands: Arc::new(Hands {
                origin: Instant::now(),
                wall_at_origin,
            }),
        }
    }

    /// Simulates a suspend: monotonic time stands still while the wall clock advances by `slept`.
    pub fn suspend(&self, slept: Duration) {
        let _ =
            self.hands
                .wall_at_origin
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |wall| {
                    Some(wall.saturating_add(nanos(slept)))
                });
    }

    /// Sets the wall clock to `time`; monotonic time is unaffected.
    pub fn set_wall(&self, time: SystemTime) {
        let at_origin = wall_nanos(time).saturating_sub(self.mono());
        self.hands
            .wall_at_origin
            .store(at_origin, Ordering::Release);
    }

    /// Returns the wall-clock reading.
    pub fn wall(&self) -> SystemTime {
        self.now().to_system_time()
    }

    pub(crate) fn now(&self) -> Moment {
        let mono = self.mono();
        let wall = self
            .hands
            .wall_at_origin
            .load(Ordering::Acquire)
            .saturating_add(mono);
        Moment { mono, wall }
    }

    fn mono(&self) -> i64 {
        nanos(Instant::now().saturating_duration_since(self.hands.origin))
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.now();
        f.debug_struct("TestClock")
            .field("mono", &now.mono)
            .field("wall", &now.wall)
            .finish()
    }
}
