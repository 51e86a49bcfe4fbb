//! `Flight`: one attempt, as a task.
//!
//! It waits for one of the cache's permits, calls the source once under a time limit, and reports. It
//! holds the supply weakly, so that dropping the last handle ends it. If its runtime drops it instead, it
//! tells the slot, and a waiter flies in its place.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

use tokio::{runtime::Handle, task::AbortHandle, time::Instant};

use super::{events, fetcher::Fetcher, request::TokenRequest, supply::Supply};

pub(super) struct Flight {
    id: u64,
    supply: Weak<Supply>,
    fetcher: Arc<Fetcher>,
    /// Nothing is to be reported any more.
    landed: bool,
}

impl Flight {
    pub(super) fn new(id: u64, supply: &Arc<Supply>, fetcher: &Arc<Fetcher>) -> Self {
        Self {
            id,
            supply: Arc::downgrade(supply),
            fetcher: Arc::clone(fetcher),
            landed: false,
        }
    }

    pub(super) fn take_off(self, request: TokenRequest, runtime: &Handle) -> AbortHandle {
        // `spawn` does not carry the caller's span along: the fetch is nobody's in particular.
        runtime.spawn(self.fly(request)).abort_handle()
    }

    async fn fly(mut self, request: TokenRequest) {
        let fetcher = Arc::clone(&self.fetcher);
        let permit = fetcher.permit().await;
        let (sent, begun) = (fetcher.clock.now(), Instant::now());
        let departed = self
            .supply
            .upgrade()
            .map(|supply| supply.slot().depart(self.id, sent, permit));
        if !matches!(departed, Some(Ok(()))) {
            // Nobody wants it any more, or another one flies in its place.
            self.landed = true;
            return;
        }
        let result = fetcher.attempt(request).await;
        // By a clock with a finer grain than ours: it is for people only.
        let (now, took) = (fetcher.clock.now(), begun.elapsed());
        self.landed = true;
        let Some(supply) = self.supply.upgrade() else {
            return;
        };
        let result = result.map(|token| (token, sent));
        let number = supply.slot().glance().failures().saturating_add(1);
        let verdict = supply.slot().finish(self.id, result, now, fastrand::f64());
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
        supply
            .slot()
            .abandon(self.id, supply.now(), fastrand::f64());
        supply.note_landing();
        // It may be a panic that drops this: a second one, of a subscriber, would end the process.
        let _ = catch_unwind(AssertUnwindSafe(|| events::abandoned(&supply)));
    }
}
