//! An attempt that ended, or was dropped before it could: what it changes, and who is woken.

use std::{sync::Arc, task::Waker};

use super::{
    Slot,
    state::{Flight, State, Trouble},
};
use crate::{
    error::{AuthError, Kind},
    token::{
        clock::Moment,
        foreign::contained,
        lease::Lease,
        schedule::{Edges, Phase},
        value::Token,
    },
};

/// How an attempt changed what the slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new token is in service.
    Published,
    /// The same token, which lives longer than was known.
    Extended,
    /// Nothing better than before.
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

impl Slot {
    /// Flight `id` ended: `result` is the token and the moment its request was sent, or the failure.
    pub(crate) fn finish(
        &self,
        id: u64,
        result: Result<(Token, Moment), AuthError>,
        now: Moment,
        draw: f64,
    ) -> Verdict {
        let (verdict, woken, _dropped_unlocked) = {
            let mut state = self.lock();
            let flight = state.flight.take_if(|flight| flight.id == id);
            let out_of_favour = state.invalidated || self.holds_rejected();
            let result = result.and_then(|(token, sent)| {
                if state.has_refused(&token, id) {
                    return Ok(Outcome::Unchanged);
                }
                self.accept(&mut state, token, sent, now, draw)
            });
            // Kept until the lock is released: dropping the last error may run the source's code.
            let past = state.trouble.clone();
            let result = match &flight {
                Some(flight) => state.conclude(
                    flight,
                    result,
                    self.is_unquestioned(now),
                    out_of_favour,
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
                pause: state
                    .next(lease.as_deref(), now)
                    .saturating_sub(now.mono)
                    .max(0),
                live: edges.is_some_and(|edges| edges.phase(now) != Phase::Expired),
            };
            self.note_quiet(&state, lease.as_deref(), now);
            (verdict, state.waiters.drain(), (flight, past))
        };
        wake_all(woken);
        verdict
    }

    /// The task of flight `id` was dropped without a verdict: somebody else must begin a flight.
    pub(crate) fn abandon(&self, id: u64, now: Moment, draw: f64) {
        let (woken, _dropped_unlocked) = {
            let mut state = self.lock();
            let Some(flight) = state.flight.take_if(|flight| flight.id == id) else {
                return;
            };
            state.abandoned = state.abandoned.saturating_add(1);
            // Once means that a runtime went away. A runtime that drops every task it is given must
            // not be retried in a tight loop.
            if state.abandoned > 1 {
                state.pace.failed(now.mono, None, draw);
            } else {
                state.pace.not_made(flight.after);
            }
            self.note_quiet(&state, self.current.load().as_deref(), now);
            (state.waiters.drain(), flight)
        };
        wake_all(woken);
    }

    /// Puts `token` into service if it is better than the current one.
    pub(super) fn accept(
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
                    held.edges().extended(&token, sent, self.limits.lead)
                };
                self.current.store(Some(Arc::new(held.with_edges(edges))));
                return Ok(Outcome::Extended);
            }
            // A live token that was not rejected is replaced only by one that lives longer.
            Some(held) if !held.is_rejected() && !longer(&held) => return Ok(Outcome::Unchanged),
            _ => Lease::new(token, state.generation.wrapping_add(1), edges),
        };
        let Some(lease) = lease else {
            let reason = "the token source returned a token that cannot stand in a header: it is empty, or has a character that is not visible ASCII";
            return Err(AuthError::new(Kind::Response, reason));
        };
        state.generation = lease.generation();
        state.invalidated = false;
        state.refused = None;
        // Published here, before anyone is woken.
        self.current.store(Some(Arc::new(lease)));
        Ok(Outcome::Published)
    }

    pub(super) fn holds_rejected(&self) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|lease| lease.is_rejected())
    }
}

impl State {
    /// Records the verdict of the current flight.
    pub(super) fn conclude(
        &mut self,
        flight: &Flight,
        result: Result<Outcome, AuthError>,
        unquestioned: bool,
        out_of_favour: bool,
        now: Moment,
        draw: f64,
    ) -> Result<Outcome, AuthError> {
        self.verdicts = self.verdicts.wrapping_add(1);
        self.abandoned = 0;
        match result {
            Ok(outcome) => {
                self.failed_dry = 0;
                self.trouble = None;
                // A token that replaces a rejected or invalidated one keeps the slow pace, or two tokens
                // that are both answered 401 would follow each other without a pause.
                if unquestioned && !out_of_favour {
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
}

/// A waker is foreign code. If one panics, the others must still be woken.
fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        contained(|| waker.wake());
    }
}
