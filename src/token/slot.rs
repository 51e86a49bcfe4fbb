//! The slot: the token in service, at most one fetch in flight, and everyone who waits for it.
//!
//! Here the two roads meet. Requests look at the lease without a lock; only when there is something
//! to decide do they take the state's mutex. The slot decides and remembers. It starts nothing: a
//! fetch is launched by whoever received a [`Launch`] (see [`crate::token::supply`]), timers belong
//! to the waiters (see [`crate::token::wait`]). It never reads a clock, and knows no source, no
//! runtime, no HTTP.
//!
//! # States
//!
//! ```text
//!                begin (due, nothing in flight)
//!        ┌────────────────────────────────────────────┐
//!        │                                            v
//!     RESTING                                     IN FLIGHT(id)
//!        ^   finish(id): publish or note the failure, │  │
//!        │   wake everyone                            │  │ takeover (no verdict by ATTEMPT + 1 s):
//!        ├────────────────────────────────────────────┤  │ abort the task, begin id + 1
//!        │   abandon(id): its task was dropped,       │  └──> IN FLIGHT(id + 1)
//!        │   wake everyone, one of them begins anew   │
//!        └────────────────────────────────────────────┘
//! ```
//!
//! What holds in every state, and is checked by loom (`slot_model.rs`):
//!
//! - At most one flight has the current id. A verdict with an older id (a superseded flight that
//!   came back after all) may still publish a better token, and changes nothing else.
//! - A lease is published before anyone is woken, and a waiter looks and registers in one critical
//!   section: a wake-up can be neither lost nor early.
//! - Wakers are called, and dropped, outside the lock.
//! - No user code runs under the lock, so a poisoned mutex says nothing about the data: it is used
//!   as it is.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::{Duration, SystemTime},
};

use tokio::task::AbortHandle;

use super::{
    clock::{Moment, nanos},
    current::{Current, Memo},
    lease::{Asker, Lease, Stamp},
    schedule::{Edges, Pace, Phase},
    sync::{AtomicI64, Mutex, MutexGuard, PoisonError},
    value::Token,
    waiters::{Ticket, Waiters},
};
use crate::error::{AuthError, Kind};

/// The durations a slot goes by; validated by the cache's builder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) lead: Duration,
    /// One attempt, from connecting to the last byte.
    pub(crate) attempt: Duration,
    /// The longest a request waits when there is no usable token.
    pub(crate) max_wait: Duration,
}

/// A flight without a verdict for this much longer than an attempt may take is taken over.
const TAKEOVER_GRACE: Duration = Duration::from_secs(1);

/// The longest a request that *could* go out with the live token waits for a better one.
const BETTER_WAIT: Duration = Duration::from_secs(3);

/// After a failure, a request waits for the next attempt only if it starts within this.
const NEAR: Duration = Duration::from_secs(1);

pub(crate) struct Slot {
    current: Current,
    /// Until then (monotonic nanoseconds) a request with a live token need not take the lock: there
    /// is nothing to begin. A hint; the state decides.
    quiet_until: AtomicI64,
    state: Mutex<State>,
    limits: Limits,
}

struct State {
    flight: Option<Flight>,
    waiters: Waiters,
    pace: Pace,
    /// Flights begun; the id of the next one.
    flights: u64,
    /// Attempts that came to an end.
    verdicts: u64,
    /// Verdicts in a row that failed when there was no usable token at the start of the attempt.
    failed_dry: u32,
    /// Flights in a row whose task was dropped without a verdict.
    abandoned: u32,
    generation: u64,
    /// The application took the token out of service; the next one may be fetched at once.
    invalidated: bool,
    trouble: Option<Trouble>,
}

struct Flight {
    id: u64,
    started: i64,
    dry: bool,
    abort: Option<AbortHandle>,
}

/// What has been going wrong since the last success.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) error: AuthError,
    pub(crate) since: SystemTime,
}

/// Permission, and duty, to start exactly one fetch.
#[derive(Debug)]
#[must_use = "a flight that is never launched blocks its slot until it is taken over"]
pub(crate) struct Launch {
    pub(crate) id: u64,
    /// The task of the flight this one takes over from; to be aborted outside the lock.
    pub(crate) supersedes: Option<AbortHandle>,
}

/// A request's business with the slot, from its first look to its last.
#[derive(Debug)]
pub(crate) struct Ask {
    asker: Option<Asker>,
    /// This request was refused with the token in service: any other is better.
    refused: bool,
    arrival: Option<Arrival>,
    ticket: Option<Ticket>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: i64,
    verdicts: u64,
    patient: bool,
}

/// What to do now.
pub(crate) enum Step {
    Use(Arc<Lease>),
    Fail(AuthError),
    /// Look again at the latest at this monotonic time; a wake-up may come before.
    Wait {
        until: i64,
    },
}

/// How an attempt changed what the slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new token is in service.
    Published { generation: u64 },
    /// The same token lives longer than thought.
    Extended,
    /// Nothing better than what there was.
    Unchanged,
}

/// What became of an attempt, for whoever reports it.
pub(crate) struct Verdict {
    pub(crate) result: Result<Outcome, AuthError>,
    /// Nanoseconds until the next attempt may start.
    pub(crate) pause: i64,
    /// A usable token is in service.
    pub(crate) live: bool,
}

/// What a slot shows to a health check.
pub(crate) struct Glance {
    pub(crate) lease: Option<Arc<Lease>>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) in_flight: bool,
    pub(crate) waiting: usize,
}

enum Need {
    Nothing,
    /// Serve at once, and see to a refresh.
    Refresh,
    /// Worth waiting a little for another one.
    Better,
    /// There is none to use.
    Token,
}

enum Drive {
    InFlight { until: i64 },
    Begun(Launch),
    Later { at: i64 },
}

impl Ask {
    pub(crate) fn new(asker: Option<Asker>, refused: bool) -> Self {
        Self {
            asker,
            refused,
            arrival: None,
            ticket: None,
        }
    }

    fn need(&self, lease: Option<&Lease>, now: Moment) -> Need {
        let Some(lease) = lease else {
            return Need::Token;
        };
        let phase = lease.edges().phase(now);
        if phase == Phase::Expired {
            return Need::Token;
        }
        let rejected = lease.is_rejected();
        if rejected && (self.refused || lease.is_rejected_by(self.asker)) || phase == Phase::Guard {
            return Need::Better;
        }
        if rejected || phase == Phase::Stale {
            Need::Refresh
        } else {
            Need::Nothing
        }
    }
}

impl Slot {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            flight: None,
            waiters: Waiters::default(),
            pace: Pace::new(),
            flights: 0,
            verdicts: 0,
            failed_dry: 0,
            abandoned: 0,
            generation: 0,
            invalidated: false,
            trouble: None,
        };
        Self {
            current: Current::empty(),
            quiet_until: AtomicI64::new(i64::MIN),
            state: Mutex::new(state),
            limits,
        }
    }

    /// The stamp of a token about which there is nothing to decide. No lock, no allocation.
    #[inline]
    pub(crate) fn warm(&self, memo: &mut Memo, now: Moment) -> Option<Arc<Stamp>> {
        self.current.warm(memo, now)
    }

    /// The token about which there is nothing to decide.
    pub(crate) fn warm_token(&self, now: Moment) -> Option<Token> {
        let lease = self.current.load();
        lease
            .as_ref()
            .filter(|lease| lease.is_unquestioned(now))
            .map(|lease| lease.token().clone())
    }

    /// The stamp of a token that is due for a refresh but good to be sent, and the refresh to launch
    /// if it is this caller's turn.
    pub(crate) fn stale(
        &self,
        now: Moment,
        asker: Option<Asker>,
        can_launch: bool,
    ) -> Option<(Arc<Stamp>, Option<Launch>)> {
        let lease = self.current.load();
        let held = lease.as_ref()?;
        match Ask::new(asker, false).need(Some(held), now) {
            Need::Nothing | Need::Refresh => {}
            Need::Better | Need::Token => return None,
        }
        let stamp = Arc::clone(held.stamp()?);
        if !can_launch || now.mono < self.quiet_until.load(Ordering::Relaxed) {
            return Some((stamp, None));
        }
        Some((stamp, self.tend(now, true)))
    }

    /// Begins a refresh if one is due and nobody else flies: for those who do not wait for it.
    pub(crate) fn tend(&self, now: Moment, can_launch: bool) -> Option<Launch> {
        let mut state = self.lock();
        let lease = self.current.load();
        match Ask::new(None, false).need(lease.as_deref(), now) {
            Need::Nothing => None,
            Need::Refresh | Need::Better | Need::Token => self
                .drive(&mut state, lease.as_deref(), now, can_launch)
                .begun(),
        }
    }

    /// One look by a request that may have to wait. Registers `waker` if the answer is to wait.
    ///
    /// `timed_out` is the caller's own timer saying that it has waited as long as it may.
    pub(crate) fn look(
        &self,
        ask: &mut Ask,
        now: Moment,
        waker: &Waker,
        can_launch: bool,
        timed_out: bool,
    ) -> (Step, Option<Launch>) {
        let mut replaced = None;
        let (step, launch) = {
            let mut state = self.lock();
            let lease = self.current.load_full();
            let (step, launch) = self.decide(&mut state, ask, lease, now, can_launch, timed_out);
            match step {
                Step::Wait { .. } => match state.waiters.register(&mut ask.ticket, waker) {
                    Ok(old) => {
                        replaced = old;
                        (step, launch)
                    }
                    Err(full) => (Step::Fail(full), launch),
                },
                Step::Use(_) | Step::Fail(_) => {
                    replaced = state.waiters.remove(&mut ask.ticket);
                    (step, launch)
                }
            }
        };
        drop(replaced);
        (step, launch)
    }

    /// The request behind `ask` is gone.
    pub(crate) fn leave(&self, ask: &mut Ask) {
        if ask.ticket.is_some() {
            let waker = self.lock().waiters.remove(&mut ask.ticket);
            drop(waker);
        }
    }

    /// The task of flight `id` can be stopped by `abort`.
    pub(crate) fn attach(&self, id: u64, abort: AbortHandle) {
        let mut state = self.lock();
        // Otherwise it came to its verdict, or was taken over, before it could be attached.
        if let Some(flight) = state.flight.as_mut().filter(|flight| flight.id == id) {
            flight.abort = Some(abort);
        }
    }

    /// Flight `id` ended: `result` is the token and the moment its request was sent, or the failure.
    pub(crate) fn finish(
        &self,
        id: u64,
        result: Result<(Token, Moment), AuthError>,
        now: Moment,
        draw: f64,
    ) -> Verdict {
        let (verdict, woken) = {
            let mut state = self.lock();
            let flight = state.flight.take_if(|flight| flight.id == id);
            let refused = state.invalidated || self.holds_rejected();
            let result =
                result.and_then(|(token, sent)| self.accept(&mut state, token, sent, now, draw));
            let result = match flight {
                Some(flight) => state.conclude(
                    &flight,
                    result,
                    self.is_unquestioned(now),
                    refused,
                    now,
                    draw,
                ),
                // Superseded: a better token is welcome, a failure is old news.
                None => result,
            };
            let lease = self.current.load();
            let edges = lease.as_ref().map(|lease| lease.edges());
            let verdict = Verdict {
                result,
                pause: state.next(lease.as_deref()).saturating_sub(now.mono).max(0),
                live: edges.is_some_and(|edges| edges.phase(now) != Phase::Expired),
            };
            self.note_quiet(&state, lease.as_deref());
            (verdict, state.waiters.drain())
        };
        wake_all(woken);
        verdict
    }

    /// The task of flight `id` was dropped without a verdict: somebody else must fly.
    pub(crate) fn abandon(&self, id: u64, now: Moment, draw: f64) {
        let woken = {
            let mut state = self.lock();
            if state.flight.take_if(|flight| flight.id == id).is_none() {
                return;
            }
            state.abandoned = state.abandoned.saturating_add(1);
            // Once is a runtime that went away. A runtime that drops every task it is given must
            // not be asked in a tight loop.
            if state.abandoned > 1 {
                state.pace.failed(now.mono, None, draw);
            }
            self.note_quiet(&state, self.current.load().as_deref());
            state.waiters.drain()
        };
        wake_all(woken);
    }

    /// Takes `token` out of service if it is still the one in service.
    pub(crate) fn invalidate(&self, token: &Token) -> bool {
        let mut state = self.lock();
        let held = self.current.load();
        if !held
            .as_ref()
            .is_some_and(|lease| lease.token().same_secret(token))
        {
            return false;
        }
        state.invalidated = true;
        self.current.store(None);
        true
    }

    pub(crate) fn glance(&self) -> Glance {
        let state = self.lock();
        Glance {
            lease: self.current.load_full(),
            trouble: state.trouble.clone(),
            in_flight: state.flight.is_some(),
            waiting: state.waiters.len(),
        }
    }

    /// The earliest time (monotonic nanoseconds) at which somebody should look at this slot again in
    /// order to keep its token fresh.
    pub(crate) fn next_due(&self, now: Moment) -> i64 {
        let state = self.lock();
        let lease = self.current.load();
        let next = match &state.flight {
            Some(flight) => self.overdue_at(flight),
            None => state.next(lease.as_deref()),
        };
        match lease.as_ref().filter(|lease| lease.is_unquestioned(now)) {
            Some(lease) => next.max(
                now.mono
                    .saturating_add(now.until(lease.edges().fresh_until)),
            ),
            None => next,
        }
    }

    /// Nobody is left who could want the token: the task in flight, if any, is to be stopped.
    pub(crate) fn close(&mut self) -> Option<AbortHandle> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.flight.take().and_then(|flight| flight.abort)
    }

    fn decide(
        &self,
        state: &mut State,
        ask: &mut Ask,
        lease: Option<Arc<Lease>>,
        now: Moment,
        can_launch: bool,
        timed_out: bool,
    ) -> (Step, Option<Launch>) {
        let arrival = *ask.arrival.get_or_insert(Arrival {
            at: now.mono,
            verdicts: state.verdicts,
            patient: state.failed_dry == 0,
        });
        let judged = state.verdicts != arrival.verdicts;
        match (ask.need(lease.as_deref(), now), lease) {
            (Need::Nothing, Some(lease)) => (Step::Use(lease), None),
            (Need::Refresh, Some(lease)) => {
                let launch = self.drive(state, Some(&lease), now, can_launch).begun();
                (Step::Use(lease), launch)
            }
            (Need::Better, Some(lease)) => {
                let until = arrival.at.saturating_add(nanos(BETTER_WAIT));
                if timed_out || judged || !can_launch || now.mono >= until {
                    return (Step::Use(lease), None);
                }
                // A source that hangs is not worth waiting for while there is a token to send.
                let hangs = state
                    .trouble
                    .as_ref()
                    .is_some_and(|trouble| trouble.error.is_timeout());
                let expires = now.mono.saturating_add(now.until(lease.edges().expires));
                match self.drive(state, Some(&lease), now, can_launch) {
                    Drive::Later { .. } => (Step::Use(lease), None),
                    drive if hangs => (Step::Use(lease), drive.begun()),
                    drive => (
                        Step::Wait {
                            until: until.min(expires),
                        },
                        drive.begun(),
                    ),
                }
            }
            (Need::Token, lease) | (_, lease @ None) => {
                if !can_launch {
                    return (Step::Fail(AuthError::no_runtime()), None);
                }
                let deadline = arrival.at.saturating_add(nanos(self.limits.max_wait));
                if timed_out || now.mono >= deadline {
                    // Who may not wait at all still sees to a token for those who come later.
                    let launch = self.drive(state, lease.as_deref(), now, can_launch).begun();
                    let error = state.waited_in_vain(self.limits.max_wait);
                    return (Step::Fail(error), launch);
                }
                let known = state.trouble.as_ref().map(|trouble| trouble.error.clone());
                if let (false, true, Some(error)) = (arrival.patient, judged, &known) {
                    return (Step::Fail(error.clone()), None);
                }
                match (self.drive(state, lease.as_deref(), now, can_launch), known) {
                    (Drive::Later { at }, Some(error))
                        if !arrival.patient && at.saturating_sub(now.mono) > nanos(NEAR) =>
                    {
                        (Step::Fail(error), None)
                    }
                    (Drive::Later { at }, _) => (
                        Step::Wait {
                            until: at.min(deadline),
                        },
                        None,
                    ),
                    (Drive::InFlight { until }, _) => (
                        Step::Wait {
                            until: until.min(deadline),
                        },
                        None,
                    ),
                    (Drive::Begun(launch), _) => {
                        let overdue = now.mono.saturating_add(self.takeover_after());
                        (
                            Step::Wait {
                                until: overdue.min(deadline),
                            },
                            Some(launch),
                        )
                    }
                }
            }
        }
    }

    /// Sees to it that a fetch is in flight, if one may be.
    fn drive(
        &self,
        state: &mut State,
        lease: Option<&Lease>,
        now: Moment,
        can_launch: bool,
    ) -> Drive {
        if let Some(flight) = &state.flight {
            let until = self.overdue_at(flight);
            if now.mono < until {
                return Drive::InFlight { until };
            }
        } else {
            let at = state.next(lease);
            if now.mono < at {
                return Drive::Later { at };
            }
        }
        if !can_launch {
            return Drive::Later {
                at: now.mono.saturating_add(nanos(NEAR)),
            };
        }
        let superseded = state.flight.take();
        let id = state.flights;
        state.flights = id.wrapping_add(1);
        let dry = lease.is_none_or(|lease| lease.edges().phase(now) == Phase::Expired);
        state.flight = Some(Flight {
            id,
            started: now.mono,
            dry,
            abort: None,
        });
        state.pace.started(now.mono);
        self.note_quiet(state, lease);
        Drive::Begun(Launch {
            id,
            supersedes: superseded.and_then(|flight| flight.abort),
        })
    }

    /// Puts `token` into service if it is better than what there is.
    fn accept(
        &self,
        state: &mut State,
        token: Token,
        sent: Moment,
        now: Moment,
        draw: f64,
    ) -> Result<Outcome, AuthError> {
        let edges = Edges::of(&token, sent, self.limits.lead, draw);
        if edges.phase(now) == Phase::Expired {
            let reason = "the token source returned a token that has already expired";
            return Err(AuthError::new(Kind::Response, reason));
        }
        let longer = |held: &Lease| now.until(edges.expires) > now.until(held.edges().expires);
        let lease = match self.current.load_full() {
            Some(held) if held.token().same_secret(&token) => {
                if !longer(&held) {
                    return Ok(Outcome::Unchanged);
                }
                let revived = held.edges().phase(now) == Phase::Expired;
                let edges = if revived {
                    edges
                } else {
                    held.edges().moved_to(edges.expires)
                };
                self.current.store(Some(Arc::new(held.with_edges(edges))));
                return Ok(Outcome::Extended);
            }
            // A live token that nobody refused yields only to one that lives longer.
            Some(held) if !held.is_rejected() && !longer(&held) => return Ok(Outcome::Unchanged),
            _ => Lease::new(token, state.generation.wrapping_add(1), edges),
        };
        let Some(lease) = lease else {
            let reason = "the token source returned a token that cannot stand in a header: it is empty, or has a character that is not visible ASCII";
            return Err(AuthError::new(Kind::Response, reason));
        };
        state.generation = lease.generation();
        state.invalidated = false;
        // Published here, before anyone is woken.
        self.current.store(Some(Arc::new(lease)));
        Ok(Outcome::Published {
            generation: state.generation,
        })
    }

    fn note_quiet(&self, state: &State, lease: Option<&Lease>) {
        let until = match &state.flight {
            Some(flight) => self.overdue_at(flight),
            None => state.next(lease),
        };
        self.quiet_until.store(until, Ordering::Relaxed);
    }

    fn holds_rejected(&self) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|lease| lease.is_rejected())
    }

    fn is_unquestioned(&self, now: Moment) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|lease| lease.is_unquestioned(now))
    }

    fn overdue_at(&self, flight: &Flight) -> i64 {
        flight.started.saturating_add(self.takeover_after())
    }

    fn takeover_after(&self) -> i64 {
        nanos(self.limits.attempt.saturating_add(TAKEOVER_GRACE))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Books the verdict of the current flight.
    fn conclude(
        &mut self,
        flight: &Flight,
        result: Result<Outcome, AuthError>,
        unquestioned: bool,
        refused: bool,
        now: Moment,
        draw: f64,
    ) -> Result<Outcome, AuthError> {
        self.verdicts = self.verdicts.wrapping_add(1);
        self.abandoned = 0;
        match result {
            Ok(outcome) => {
                self.failed_dry = 0;
                self.trouble = None;
                // A token fetched because the last one was refused keeps the slow pace, or two
                // tokens that are both refused would follow each other without a pause.
                if unquestioned && !refused {
                    self.pace.progressed(now.mono);
                } else {
                    self.pace.stalled(now.mono, draw);
                }
                Ok(outcome)
            }
            Err(error) => {
                if flight.dry {
                    self.failed_dry = self.failed_dry.saturating_add(1);
                }
                self.pace.failed(now.mono, error.retry_after(), draw);
                let error = error.with_attempts(self.pace.failures());
                let since = self.trouble.as_ref().map(|trouble| trouble.since);
                let since = since.unwrap_or_else(|| now.to_system_time());
                self.trouble = Some(Trouble {
                    error: error.clone(),
                    since,
                });
                Err(error)
            }
        }
    }

    /// When the next attempt may start, in monotonic nanoseconds.
    fn next(&self, lease: Option<&Lease>) -> i64 {
        let refused = self.invalidated || lease.is_some_and(Lease::is_rejected);
        if refused && self.pace.is_even() {
            return i64::MIN;
        }
        self.pace.next(lease.map(Lease::edges))
    }

    fn waited_in_vain(&self, waited: Duration) -> AuthError {
        match &self.trouble {
            Some(trouble) => trouble.error.clone().after_waiting(waited),
            None => {
                let reason = "no token: the source has not answered yet";
                AuthError::new(Kind::Timeout, reason).after_waiting(waited)
            }
        }
    }
}

impl Drive {
    fn begun(self) -> Option<Launch> {
        match self {
            Self::Begun(launch) => Some(launch),
            Self::InFlight { .. } | Self::Later { .. } => None,
        }
    }
}

/// A waker is foreign code. If one panics, the others must be woken all the same.
fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}
