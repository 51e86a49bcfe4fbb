//! A request that may have to wait: what it needs, and what it is told each time it looks.

use std::{sync::Arc, task::Waker, time::Duration};

use super::{
    Slot,
    drive::{Allowance, Drive, Launch, NEAR},
    state::State,
};
use crate::{
    error::AuthError,
    token::{
        clock::{Moment, nanos},
        lease::Lease,
        rejection::Asker,
        schedule::Phase,
        waiters::Ticket,
    },
};

/// The longest a request that *could* go out with the live token waits for a better one.
pub(super) const BETTER_WAIT: Duration = Duration::from_secs(3);

/// A request's business with the slot, from its first look to its last.
#[derive(Debug)]
pub(crate) struct Ask {
    asker: Option<Asker>,
    /// This request was answered 401 with the token in service: any other is better.
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

/// What to do now.
pub(crate) enum Step {
    Use(Arc<Lease>),
    Fail(AuthError),
    /// Look again at the latest at this monotonic time; a wake-up may come before.
    Wait {
        until: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// Serve at once, and see to a refresh, which is early enough at any time soon.
    Refresh,
    /// Serve at once, and see to another token: somebody else was answered 401 with this one.
    Replace,
    /// Worth waiting a little for another one.
    Better,
    /// There is none to use.
    Token,
}

impl Ask {
    pub(crate) fn new(asker: Option<Asker>, rejected: bool) -> Self {
        Self {
            asker,
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
        let by_us = self.rejected || lease.is_rejected_by(self.asker);
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
    /// `waited` is how long the request has waited by its own timer's clock, should ours stand still.
    pub(crate) fn look(
        &self,
        ask: &mut Ask,
        now: Moment,
        waker: &Waker,
        allowance: Allowance,
        waited: Duration,
    ) -> (Step, Option<Launch>) {
        // Cloned before the lock is taken, and what is left here is dropped after it is given back.
        let (mut waker, mut left) = (Some(waker.clone()), None);
        let mut state = self.lock();
        let lease = self.current.load_full();
        let held = lease.clone();
        let (step, launch) = self.decide(&mut state, ask, lease, now, allowance, waited);
        let step = match step {
            Step::Wait { .. } => match state.waiters.register(&mut ask.ticket, &mut waker) {
                Ok(()) => step,
                // No room to wait for a better one.
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

    pub(super) fn decide(
        &self,
        state: &mut State,
        ask: &mut Ask,
        lease: Option<Arc<Lease>>,
        now: Moment,
        allowance: Allowance,
        waited: Duration,
    ) -> (Step, Option<Launch>) {
        let arrival = *ask.arrival.get_or_insert(Arrival {
            at: now.mono,
            verdicts: state.verdicts,
            patient: state.failed_dry == 0,
        });
        let judged = state.verdicts != arrival.verdicts;
        let need = ask.need(lease.as_deref(), now);
        match (need, lease) {
            (Need::Nothing, Some(lease)) => (Step::Use(lease), None),
            (Need::Refresh | Need::Replace, Some(lease)) => {
                let launch = self
                    .drive(state, Some(&lease), now, need, allowance)
                    .begun();
                (Step::Use(lease), launch)
            }
            (Need::Better, Some(lease)) => {
                let until = arrival.at.saturating_add(nanos(BETTER_WAIT));
                let in_time = waited < BETTER_WAIT && now.mono < until;
                if judged || !in_time || !allowance.covers(need) {
                    return (Step::Use(lease), None);
                }
                // A source that hangs is not worth waiting for while there is a token to send.
                let hangs = state
                    .trouble
                    .as_ref()
                    .is_some_and(|trouble| trouble.error.is_timeout());
                let expires = now.mono.saturating_add(now.until(lease.edges().expires));
                match self.drive(state, Some(&lease), now, need, allowance) {
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
                if !allowance.covers(need) {
                    return (Step::Fail(AuthError::no_runtime()), None);
                }
                let deadline = arrival.at.saturating_add(nanos(self.limits.max_wait));
                if waited >= self.limits.max_wait || now.mono >= deadline {
                    // With a `max_wait` of zero nobody waits, and a fetch begins for those who come later.
                    let launch = self
                        .drive(state, lease.as_deref(), now, need, allowance)
                        .begun();
                    let error = state.waited_in_vain(self.limits.max_wait);
                    return (Step::Fail(error), launch);
                }
                let known = state.trouble.as_ref().map(|trouble| trouble.error.clone());
                if let (false, true, Some(error)) = (arrival.patient, judged, &known) {
                    return (Step::Fail(error.clone()), None);
                }
                let driven = self.drive(state, lease.as_deref(), now, need, allowance);
                match (driven, known) {
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
                        let overdue = self.limits.overdue_at(now);
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
