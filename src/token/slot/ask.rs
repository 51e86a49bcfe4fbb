//! A request that may have to wait: what it needs, and what it is told each time it looks.

use std::{sync::Arc, task::Waker, time::Duration};

use super::{
    Slot,
    drive::{Allowance, Drive, Launch, NEAR},
    state::State,
};
use crate::{
    destination::OriginId,
    error::AuthError,
    token::{
        clock::{Moment, nanos},
        lease::Lease,
        schedule::Phase,
        waiters::Ticket,
    },
};

/// The longest a request that *could* go out with the live token waits for a better one.
pub(super) const BETTER_WAIT: Duration = Duration::from_secs(3);

/// A request's dealings with the slot, from its first look to its last.
#[derive(Debug)]
pub(crate) struct Ask {
    origin: Option<OriginId>,
    /// This request was answered with 401 while carrying the token in service: any other is better.
    rejected: bool,
    arrival: Option<Arrival>,
    ticket: Option<Ticket>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) at: i64,
    pub(super) verdicts: u64,
    pub(super) patient: bool,
}

/// The circumstances of a look.
#[derive(Clone, Copy, Debug)]
struct Look {
    now: Moment,
    allowance: Allowance,
    /// By its own timer's clock.
    waited: Duration,
}

/// What to do now.
pub(crate) enum Step {
    Use(Arc<Lease>),
    Fail(AuthError),
    /// Look again at this monotonic time at the latest; a wake-up may come earlier.
    Wait {
        until: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// Serve at once, and start a refresh, which is not urgent.
    Refresh,
    /// Serve at once, and fetch another token: someone else was answered with 401 while carrying this
    /// one.
    Replace,
    /// Worth waiting a little for another one.
    Better,
    /// There is no usable token.
    Token,
}

impl Ask {
    pub(crate) fn new(origin: Option<OriginId>, rejected: bool) -> Self {
        Self {
            origin,
            rejected,
            arrival: None,
            ticket: None,
        }
    }

    pub(super) fn need(&self, lease: Option<&Lease>, now: Moment) -> Need {
        let Some(lease) = lease else {
            return Need::Token;
        };
        let phase = lease.edges().phase(now);
        if phase == Phase::Expired {
            return Need::Token;
        }
        let rejected = lease.is_rejected();
        let by_us = self.rejected || lease.is_rejected_by(self.origin);
        if rejected && by_us || phase == Phase::Guard {
            return Need::Better;
        }
        match phase {
            _ if rejected => Need::Replace,
            Phase::Stale => Need::Refresh,
            Phase::Fresh | Phase::Guard | Phase::Expired => Need::Nothing,
        }
    }
}

impl Slot {
    /// One look by a request that may have to wait. Registers `waker` if the answer is to wait.
    ///
    /// `waited` is how long the request has waited by its own timer's clock, in case ours stands still.
    pub(crate) fn look(
        &self,
        ask: &mut Ask,
        now: Moment,
        waker: &Waker,
        allowance: Allowance,
        waited: Duration,
    ) -> (Step, Option<Launch>) {
        // Cloned before the lock is taken; what is left here is dropped after it is released.
        let (mut waker, mut left) = (Some(waker.clone()), None);
        let mut state = self.lock();
        let lease = self.current.load_full();
        let held = lease.clone();
        let look = Look {
            now,
            allowance,
            waited,
        };
        let (step, launch) = self.decide(&mut state, ask, lease, look);
        let step = match step {
            Step::Wait { .. } => match state.waiters.register(&mut ask.ticket, &mut waker) {
                Ok(()) => step,
                // There is no room to wait for a better one.
                Err(full) => held
                    .filter(|held| held.edges().phase(now) != Phase::Expired)
                    .map_or(Step::Fail(full), Step::Use),
            },
            Step::Use(_) | Step::Fail(_) => {
                left = state.waiters.remove(&mut ask.ticket);
                step
            }
        };
        drop(state);
        drop((waker, left));
        (step, launch)
    }

    /// The request behind `ask` is gone.
    pub(crate) fn leave(&self, ask: &mut Ask) {
        if ask.ticket.is_some() {
            let waker = self.lock().waiters.remove(&mut ask.ticket);
            drop(waker);
        }
    }

    fn decide(
        &self,
        state: &mut State,
        ask: &mut Ask,
        lease: Option<Arc<Lease>>,
        look: Look,
    ) -> (Step, Option<Launch>) {
        let arrival = *ask.arrival.get_or_insert(Arrival {
            at: look.now.mono,
            verdicts: state.verdicts,
            patient: state.failed_dry == 0,
        });
        let need = ask.need(lease.as_deref(), look.now);
        match (need, lease) {
            (Need::Nothing, Some(lease)) => (Step::Use(lease), None),
            (Need::Refresh | Need::Replace, Some(lease)) => {
                let launch = self.drive_for(state, Some(&lease), need, look).begun();
                (Step::Use(lease), launch)
            }
            (Need::Better, Some(lease)) => self.better_or(state, lease, arrival, look),
            (Need::Token, lease) | (_, lease @ None) => {
                self.any(state, lease.as_deref(), arrival, look)
            }
        }
    }

    /// Waits a little for a better token than `lease`, which may still be sent.
    fn better_or(
        &self,
        state: &mut State,
        lease: Arc<Lease>,
        arrival: Arrival,
        look: Look,
    ) -> (Step, Option<Launch>) {
        let Look { now, waited, .. } = look;
        let until = arrival.at.saturating_add(nanos(BETTER_WAIT));
        let in_time = waited < BETTER_WAIT && now.mono < until;
        if arrival.was_judged(state) || !in_time || !look.allowance.covers(Need::Better) {
            return (Step::Use(lease), None);
        }
        // A source that hangs is not worth waiting for while there is a token to send.
        let hangs = state
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.error.is_timeout());
        match self.drive_for(state, Some(&lease), Need::Better, look) {
            Drive::Later { .. } => (Step::Use(lease), None),
            drive if hangs => (Step::Use(lease), drive.begun()),
            drive => {
                let expires = now.mono.saturating_add(now.until(lease.edges().expires));
                let until = until.min(expires);
                (Step::Wait { until }, drive.begun())
            }
        }
    }

    /// Waits for a token, because there is none to send. `expired` is the previous one.
    fn any(
        &self,
        state: &mut State,
        expired: Option<&Lease>,
        arrival: Arrival,
        look: Look,
    ) -> (Step, Option<Launch>) {
        if !look.allowance.covers(Need::Token) {
            return (Step::Fail(AuthError::no_runtime()), None);
        }
        let Look { now, waited, .. } = look;
        let max_wait = self.limits.max_wait;
        let deadline = arrival.at.saturating_add(nanos(max_wait));
        if waited >= max_wait || now.mono >= deadline {
            // With a `max_wait` of zero nobody waits, and a fetch starts for later callers.
            let launch = self.drive_for(state, expired, Need::Token, look).begun();
            return (Step::Fail(state.waited_in_vain(max_wait)), launch);
        }
        let known = state.trouble.as_ref().map(|trouble| trouble.error.clone());
        let impatient = known.filter(|_| !arrival.patient);
        if let Some(error) = &impatient
            && arrival.was_judged(state)
        {
            return (Step::Fail(error.clone()), None);
        }
        let (at, launch) = match (self.drive_for(state, expired, Need::Token, look), impatient) {
            (Drive::Later { at }, Some(error)) if at.saturating_sub(now.mono) > nanos(NEAR) => {
                return (Step::Fail(error), None);
            }
            (Drive::Later { at } | Drive::InFlight { until: at }, _) => (at, None),
            (Drive::Begun(launch), _) => (self.limits.overdue_at(now), Some(launch)),
        };
        let until = at.min(deadline);
        (Step::Wait { until }, launch)
    }

    fn drive_for(&self, state: &mut State, lease: Option<&Lease>, need: Need, look: Look) -> Drive {
        self.drive(state, lease, look.now, need, look.allowance)
    }
}

impl Arrival {
    /// True if an attempt has ended since.
    fn was_judged(&self, state: &State) -> bool {
        state.verdicts != self.verdicts
    }
}

#[cfg(all(test, not(scoped_auth_loom)))]
mod tests {
    use super::*;
    use crate::token::{slot::Limits, value::Token};

    #[test]
    fn s175_who_finds_no_room_to_wait_goes_with_the_token_there_is() {
        const LIFE: Duration = Duration::from_secs(60);

        let limits = Limits {
            lead: Duration::from_secs(20),
            attempt: Duration::from_secs(3),
            max_wait: Duration::from_secs(30),
        };
        let slot = Slot::new(limits);
        let at = |seconds: u64| Moment {
            mono: nanos(Duration::from_secs(seconds)),
            wall: nanos(Duration::from_secs(seconds)),
        };
        let look = |now| {
            let mut ask = Ask::new(None, false);
            slot.look(
                &mut ask,
                now,
                Waker::noop(),
                Allowance::Anything,
                Duration::ZERO,
            )
        };
        let (_, launch) = look(at(0));
        let token = Ok((Token::new("tok", LIFE), at(0)));
        let _ = slot.finish(launch.unwrap().id, token, at(0), 0.0);
        while slot
            .lock()
            .waiters
            .register(&mut None, &mut Some(Waker::noop().clone()))
            .is_ok()
        {}

        let (step, launch) = look(at(55));
        assert!(matches!(step, Step::Use(_)), "its last ten seconds");
        assert!(launch.is_some(), "and another one is fetched");
        let (step, _) = look(at(61));
        assert!(matches!(step, Step::Fail(error) if error.is_overload()));
    }
}
