//! `Flight`: one attempt, as a task.
//!
//! It is queued for one of the cache's turns, then runs on the runtime of whoever began it: calls the source
//! once under a time limit, and reports. It holds the supply weakly, so that dropping the last handle ends
//! it. If its runtime drops it instead, or runs it too late, it tells the slot, and a waiter begins another
//! flight.

use std::{
    cell::Cell,
    sync::{Arc, Weak},
};

use tokio::{runtime::Handle, time::Instant};

use super::{
    clock::Moment, events, fetcher::Fetcher, foreign::contained, request::TokenRequest,
    slot::Missed, supply::Supply,
};

/// A flight that has no turn yet.
pub(crate) struct Queued {
    id: u64,
    supply: Weak<Supply>,
    runtime: Handle,
}

pub(super) struct Flight {
    id: u64,
    supply: Weak<Supply>,
    fetcher: Arc<Fetcher>,
    /// Nothing is left to report.
    landed: bool,
}

impl Queued {
    pub(super) fn new(id: u64, supply: &Arc<Supply>, runtime: Handle) -> Self {
        let supply = Arc::downgrade(supply);
        Self {
            id,
            supply,
            runtime,
        }
    }
}

/// Starts queued flights in order, as long as there are turns.
///
/// Call it whenever a turn was given back, and whenever somebody looks: that is when a turn that was not
/// given back in time is noticed.
pub(super) fn serve_line(fetcher: &Arc<Fetcher>, now: Moment) {
    // A runtime that has shut down drops a task as it is spawned. Its destructor would serve the next in the
    // queue, and so on, one level of recursion deeper each time.
    let Some(_serving) = Serving::begin(fetcher) else {
        return;
    };
    let until = fetcher.limits.overdue_at(now);
    while let Some((queued, turn)) = fetcher.turns.next(now.mono, until) {
        let Queued {
            id,
            supply,
            runtime,
        } = queued;
        let Some(supply) = supply.upgrade() else {
            continue;
        };
        // Otherwise another flight has taken its place.
        if supply.slot().clear(id, now, Some(turn)) {
            let flight = Flight {
                id,
                supply: Arc::downgrade(&supply),
                fetcher: Arc::clone(fetcher),
                landed: false,
            };
            // `spawn` does not carry the caller's span along: the fetch belongs to no request in particular.
            let task = runtime.spawn(flight.fly(supply.request().clone()));
            supply.slot().attach(id, task.abort_handle());
        }
    }
}

thread_local! {
    /// The fetcher whose queue this thread is serving, as an address that is never dereferenced; 0 for none.
    static SERVED: Cell<usize> = const { Cell::new(0) };
}

/// While this exists, its thread is serving a queue.
struct Serving {
    before: usize,
}

impl Serving {
    /// `None` if this thread is already serving this fetcher's queue.
    fn begin(fetcher: &Arc<Fetcher>) -> Option<Self> {
        let this = Arc::as_ptr(fetcher).addr();
        let before = SERVED.replace(this);
        // Not `then_some`, which would always construct one, and drop it.
        (before != this).then(|| Self { before })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVED.set(self.before);
    }
}

impl Flight {
    async fn fly(mut self, request: TokenRequest) {
        let fetcher = Arc::clone(&self.fetcher);
        let (sent, begun) = (fetcher.clock.now(), Instant::now());
        let departed = self
            .supply
            .upgrade()
            .map(|supply| supply.slot().depart(self.id, sent));
        match departed {
            Some(Ok(())) => {}
            // The runtime did not get to it in time.
            Some(Err(Missed::Turn)) => return,
            // Nobody wants the token any more, or another flight has taken its place.
            Some(Err(Missed::Flight)) | None => {
                self.landed = true;
                return;
            }
        }
        let result = fetcher.attempt(request).await;
        // By a clock with a finer resolution than ours: this is only for people to read.
        let (now, took) = (fetcher.clock.now(), begun.elapsed());
        self.landed = true;
        let Some(supply) = self.supply.upgrade() else {
            return;
        };
        let result = result.map(|token| (token, sent));
        let number = supply.slot().glance().failures().saturating_add(1);
        let verdict = supply.slot().finish(self.id, result, now, fastrand::f64());
        serve_line(&fetcher, now);
        supply.note_landing();
        events::attempt(&supply, number, &verdict, took, now);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let Some(supply) = self.supply.upgrade() else {
            return;
        };
        let now = supply.now();
        supply.slot().abandon(self.id, now, fastrand::f64());
        serve_line(&self.fetcher, now);
        supply.note_landing();
        // A panic may be dropping this: a second one, in a subscriber, would abort the process.
        contained(|| events::abandoned(&supply));
    }
}
