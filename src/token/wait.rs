//! `Acquire`: a request that has to wait for its token.
//!
//! A future that looks at the slot, sleeps until the time that the slot named or a wake-up, and looks
//! again. It owns the timer; what to wait for, and how long, is decided by the slot. Dropping it takes
//! the request off the list and stops nothing: the fetch continues for later callers.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    lease::Lease,
    meters::{Meters, Waiting},
    slot::{Ask, Step},
    supply::Supply,
    timer::timed,
};
use crate::{destination::OriginId, error::AuthError};

pin_project! {
    /// Resolves to a live token, or to the reason why there is none.
    pub(crate) struct Acquire {
        supply: Arc<Supply>,
        ask: Ask,
        #[pin]
        timer: Option<Sleep>,
        // When the timer is set to fire, in the slot's time.
        alarm: i64,
        // When it began to wait, by Tokio's clock, in case the slot's clock stands still.
        since: Option<Instant>,
        waiting: Option<Waiting>,
    }

    impl PinnedDrop for Acquire {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.supply.slot().leave(this.ask);
        }
    }
}

/// The minimum delay of a timer. Otherwise a reading of a coarse clock just short of the alarm would
/// cause a busy loop.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

impl Acquire {
    /// `rejected`: this request was answered with 401 while carrying the token in service.
    pub(crate) fn new(supply: Arc<Supply>, origin: Option<OriginId>, rejected: bool) -> Self {
        let ask = Ask::new(origin, rejected);
        Self {
            supply,
            ask,
            timer: None,
            alarm: i64::MIN,
            since: None,
            waiting: None,
        }
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.supply.fetcher().meters
    }
}

impl Future for Acquire {
    type Output = Result<Arc<Lease>, AuthError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let now = this.supply.now();
            let waited = this.since.map_or(Duration::ZERO, |since| since.elapsed());
            let until = match this.supply.look(this.ask, now, cx.waker(), waited) {
                Step::Use(lease) => return Poll::Ready(Ok(lease)),
                Step::Fail(error) => return starve(this.supply, error),
                Step::Wait { until } => until,
            };
            if this.timer.is_none() || *this.alarm != until {
                let wait =
                    Duration::from_nanos(until.saturating_sub(now.mono).max(0).unsigned_abs());
                let begun = Instant::now();
                let at = begun + wait.max(SHORTEST_SLEEP);
                this.waiting
                    .get_or_insert_with(|| this.supply.fetcher().meters.waiting());
                this.since.get_or_insert(begun);
                match this.timer.as_mut().as_pin_mut() {
                    Some(timer) => timer.reset(at),
                    None => match timed(|| sleep_until(at)) {
                        Ok(timer) => this.timer.set(Some(timer)),
                        Err(error) => return starve(this.supply, error),
                    },
                }
                *this.alarm = until;
            }
            if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                ready!(timer.poll(cx));
            }
            // The timer fired: if the slot names the same time again, it has to be set again.
            *this.alarm = i64::MIN;
        }
    }
}

fn starve<T>(supply: &Supply, error: AuthError) -> Poll<Result<T, AuthError>> {
    supply.fetcher().meters.starved();
    Poll::Ready(Err(error))
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("request", self.supply.request())
            .finish_non_exhaustive()
    }
}
