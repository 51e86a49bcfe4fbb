//! One token request's slot, together with what fills it: the source, the clock, the runtime.
//!
//! This is where the slot's decision becomes a task, and where a request reads the clock and looks up its
//! runtime.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify};

use super::{
    clock::Moment,
    current::Memo,
    fetcher::Fetcher,
    flight::{Queued, serve_line},
    foreign::contained,
    meters::TokenMeter,
    rate::COME_BACK,
    request::TokenRequest,
    slot::{Allowance, Ask, Launch, Slot, Step},
    stamp::Imprint,
    status::TokenStatus,
    value::Token,
};
use crate::destination::OriginId;

/// What every request reads comes first, in one cache line: with many token requests in use, each further
/// line of each of them is one more to load.
#[repr(C, align(64))]
pub(crate) struct Supply {
    fetcher: Arc<Fetcher>,
    /// When it was last asked for, in monotonic nanoseconds; maintained by the cache.
    pub(crate) used: AtomicI64,
    slot: Slot,
    request: TokenRequest,
    meter: TokenMeter,
    /// Notified when an attempt has ended, for those who keep the token fresh.
    landed: Arc<Notify>,
}

impl Supply {
    pub(crate) fn new(request: TokenRequest, fetcher: Arc<Fetcher>) -> Self {
        let slot = Slot::new(fetcher.limits);
        let used = AtomicI64::new(fetcher.clock.now().mono);
        let meter = fetcher.meters.token(&request);
        Self {
            request,
            slot,
            fetcher,
            meter,
            landed: Arc::new(Notify::new()),
            used,
        }
    }

    pub(crate) fn request(&self) -> &TokenRequest {
        &self.request
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    #[inline]
    pub(crate) fn now(&self) -> Moment {
        self.fetcher.clock.now()
    }

    pub(crate) fn landed(&self) -> Arc<Notify> {
        Arc::clone(&self.landed)
    }

    pub(super) fn note_landing(&self) {
        // Wakers are foreign code, and this may be called while a panic unwinds.
        contained(|| self.landed.notify_waiters());
    }

    pub(crate) fn status(&self) -> TokenStatus {
        let now = self.now();
        self.report_left(now);
        TokenStatus::new(Some(self.slot.glance()), self.fetcher.source.active(), now)
    }

    /// Takes `token` out of service if it is still the one in service.
    pub(crate) fn invalidate(&self, token: &Token) -> bool {
        let done = self.slot.invalidate(token);
        if done {
            self.report_left(self.now());
        }
        done
    }

    /// The time that the current token has left, which is also reported to the metrics.
    pub(crate) fn report_left(&self, now: Moment) -> Option<Duration> {
        let left = self.slot.glance().left(now);
        self.meter.left(left, now.to_system_time());
        left
    }

    /// Marks the supply as asked for. Written at most once a second, or its cache line would travel
    /// between the cores with every request.
    pub(crate) fn touch(&self, now: i64) {
        const GRAIN: i64 = 1_000_000_000;
        if now.saturating_sub(self.used.load(Ordering::Relaxed)) > GRAIN {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// An imprint of the stamp of a token that needs no decision.
    // Always inlined: as a call it takes 17 more instructions (`benches/instructions`).
    #[inline(always)]
    pub(crate) fn warm(&self, memo: &mut Memo) -> Option<Imprint> {
        self.slot.warm(memo, self.now())
    }

    /// An imprint of a stamp that can be used at once. Begins a refresh if one is due.
    pub(crate) fn stamp(
        self: &Arc<Self>,
        now: Moment,
        origin: Option<OriginId>,
    ) -> Option<Imprint> {
        match self.slot.peek(now) {
            Some(imprint) => Some(imprint),
            None => self.stale(now, origin),
        }
    }

    #[cold]
    fn stale(self: &Arc<Self>, now: Moment, origin: Option<OriginId>) -> Option<Imprint> {
        let runtime = Handle::try_current();
        let allowance = self.allowance(runtime.is_ok(), now);
        let (imprint, launch) = self.slot.stale(now, origin, allowance)?;
        if let (Some(launch), Ok(runtime)) = (launch, runtime) {
            self.launch(launch, now, &runtime);
        }
        Some(imprint)
    }

    /// One look by a request that may have to wait; launches what the slot decided.
    pub(crate) fn look(
        self: &Arc<Self>,
        ask: &mut Ask,
        now: Moment,
        waker: &Waker,
        waited: Duration,
    ) -> Step {
        let runtime = Handle::try_current();
        let allowance = self.allowance(runtime.is_ok(), now);
        let (step, launch) = self.slot.look(ask, now, waker, allowance, waited);
        if let (Some(launch), Ok(runtime)) = (launch, runtime) {
            self.launch(launch, now, &runtime);
        }
        step
    }

    /// Begins a refresh if one is due; returns how long to leave the slot alone.
    pub(crate) fn tend(self: &Arc<Self>, runtime: &Handle) -> Duration {
        let now = self.now();
        self.report_left(now);
        let allowance = self.allowance(true, now);
        if let Some(launch) = self.slot.tend(now, allowance) {
            self.launch(launch, now, runtime);
        }
        let pause = self.slot.next_due(now).saturating_sub(now.mono);
        let pause = Duration::from_nanos(pause.max(0).unsigned_abs());
        match allowance {
            // Due, but it could not begin. Come back at a random time: if all came back at once, as many would
            // find no room again.
            Allowance::Needed | Allowance::Queued if pause.is_zero() => {
                COME_BACK.mul_f64(0.5 + fastrand::f64() / 2.0)
            }
            _ => pause,
        }
    }

    /// What may begin now. Those already queued come first: a turn that was not given back is noticed here,
    /// and whoever notices must not take it for itself.
    fn allowance(&self, has_runtime: bool, now: Moment) -> Allowance {
        serve_line(&self.fetcher, now);
        self.fetcher.allowance(has_runtime, now)
    }

    fn launch(self: &Arc<Self>, launch: Launch, now: Moment, runtime: &Handle) {
        if let Some(superseded) = launch.supersedes {
            superseded.abort();
        }
        if launch.ahead {
            self.fetcher.refreshes.charge(now.mono);
        }
        drop(launch.freed);
        let queued = Queued::new(launch.id, self, runtime.clone());
        self.fetcher.turns.enter(queued);
        serve_line(&self.fetcher, now);
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        if let Some(flight) = self.slot.close() {
            flight.abort();
            serve_line(&self.fetcher, self.now());
        }
    }
}
