//! Whether a fetch may start now, and who starts it: at most one is in flight, and no attempt starts
//! before its time.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::task::AbortHandle;

use super::{
    Limits, Slot,
    ask::Need,
    state::{Flight, State},
};
use crate::token::{
    clock::{Moment, nanos},
    lease::Lease,
    schedule::Phase,
    turns::Turn,
};

/// A flight without a verdict this much longer than an attempt may take is taken over.
const TAKEOVER_GRACE: Duration = Duration::from_secs(1);

/// After a failure, a request waits for the next attempt only if it starts within this.
pub(super) const NEAR: Duration = Duration::from_secs(1);

/// What a caller may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// There is no runtime to fetch on.
    Nothing,
    /// What is needed now, but it will queue: the maximum number of fetches is already running.
    Queued,
    /// What is needed now; enough refreshes ahead of time have started.
    Needed,
    Anything,
}

impl Allowance {
    pub(super) fn covers(self, need: Need) -> bool {
        match need {
            Need::Nothing => false,
            // The token is still valid.
            Need::Refresh => self == Self::Anything,
            Need::Replace | Need::Better | Need::Token => self != Self::Nothing,
        }
    }
}

/// The permission, and obligation, to start exactly one fetch.
#[derive(Debug)]
#[must_use = "a flight that is never launched blocks its slot until it is taken over"]
pub(crate) struct Launch {
    pub(crate) id: u64,
    /// It refreshes a token that is still valid, and so counts towards the rate of such refreshes.
    pub(crate) ahead: bool,
    /// The task of the flight that this one takes over from; to be aborted outside the lock.
    pub(crate) supersedes: Option<AbortHandle>,
    /// That flight's turn; to be given back outside the lock.
    pub(crate) freed: Option<Turn>,
}

/// Why a flight must not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Another flight has taken its place.
    Flight,
    /// Its turn was taken away, because it did not start in time.
    Turn,
}

pub(super) enum Drive {
    InFlight { until: i64 },
    Begun(Launch),
    Later { at: i64 },
}

impl Drive {
    pub(super) fn begun(self) -> Option<Launch> {
        match self {
            Self::Begun(launch) => Some(launch),
            Self::InFlight { .. } | Self::Later { .. } => None,
        }
    }
}

impl Limits {
    /// When a flight that departs at `now` may be taken over.
    pub(crate) fn overdue_at(&self, now: Moment) -> i64 {
        now.mono.saturating_add(self.takeover_after())
    }

    fn takeover_after(&self) -> i64 {
        nanos(self.attempt.saturating_add(TAKEOVER_GRACE))
    }
}

impl Slot {
    /// Ensures that a fetch is in flight, if one is allowed for this need.
    pub(super) fn drive(
        &self,
        state: &mut State,
        lease: Option<&Lease>,
        now: Moment,
        need: Need,
        allowance: Allowance,
    ) -> Drive {
        if let Some(flight) = &state.flight {
            let until = self.overdue_at(flight);
            if now.mono < until {
                return Drive::InFlight { until };
            }
            if !flight.cleared && allowance == Allowance::Queued {
                // It is queued. A flight that took over would have to queue behind it.
                let until = now.mono.saturating_add(nanos(NEAR));
                return Drive::InFlight { until };
            }
        } else {
            let at = state.next(lease, now);
            if now.mono < at {
                return Drive::Later { at };
            }
        }
        if !allowance.covers(need) {
            return Drive::Later {
                at: now.mono.saturating_add(nanos(NEAR)),
            };
        }
        let mut superseded = state.flight.take();
        let after = match &superseded {
            // It was no attempt: the previous one is the one before it.
            Some(flight) if !flight.departed => flight.after,
            _ => state.pace.last_start(),
        };
        let id = state.flights;
        state.flights = id.wrapping_add(1);
        let dry = lease.is_none_or(|lease| lease.edges().phase(now) == Phase::Expired);
        state.flight = Some(Flight {
            id,
            started: now.mono,
            cleared: false,
            departed: false,
            dry,
            abort: None,
            turn: None,
            after,
        });
        state.pace.started(now);
        self.note_quiet(state, lease, now);
        Drive::Begun(Launch {
            id,
            ahead: need == Need::Refresh,
            supersedes: superseded.as_mut().and_then(|flight| flight.abort.take()),
            freed: superseded.and_then(|flight| flight.turn),
        })
    }

    /// Flight `id` has its turn, and is about to take off. Returns false if it was taken over while it
    /// was queued: the turn is given back.
    pub(crate) fn clear(&self, id: u64, now: Moment, turn: Option<Turn>) -> bool {
        let mut state = self.lock();
        let Some(flight) = state.flight.as_mut().filter(|flight| flight.id == id) else {
            return false;
        };
        flight.cleared = true;
        flight.turn = turn;
        self.start(&mut state, now);
        true
    }

    /// The task of flight `id` runs, and is about to ask: its time counts from now.
    pub(crate) fn depart(&self, id: u64, now: Moment) -> Result<(), Missed> {
        let mut state = self.lock();
        let Some(flight) = state.flight.as_mut().filter(|flight| flight.id == id) else {
            return Err(Missed::Flight);
        };
        if let Some(turn) = &flight.turn
            && !turn.extend(self.limits.overdue_at(now))
        {
            return Err(Missed::Turn);
        }
        flight.departed = true;
        self.start(&mut state, now);
        Ok(())
    }

    fn start(&self, state: &mut State, now: Moment) {
        if let Some(flight) = &mut state.flight {
            flight.started = now.mono;
        }
        state.pace.started(now);
        self.note_quiet(state, self.current.load().as_deref(), now);
    }

    pub(super) fn note_quiet(&self, state: &State, lease: Option<&Lease>, now: Moment) {
        let until = match &state.flight {
            Some(flight) => self.overdue_at(flight),
            None => state.next(lease, now),
        };
        self.quiet_until.store(until, Ordering::Relaxed);
    }

    pub(super) fn overdue_at(&self, flight: &Flight) -> i64 {
        flight.started.saturating_add(self.limits.takeover_after())
    }
}
