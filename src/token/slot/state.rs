//! What the slot's mutex guards. Plain data: the only thing it decides is when the next attempt may
//! start.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::AbortHandle;

use crate::{
    error::{AuthError, Kind},
    token::{
        clock::Moment, lease::Lease, schedule::Pace, turns::Turn, value::Token, waiters::Waiters,
    },
};

pub(super) struct State {
    pub(super) flight: Option<Flight>,
    pub(super) waiters: Waiters,
    pub(super) pace: Pace,
    /// Number of flights begun; the ID of the next one.
    pub(super) flights: u64,
    /// Number of attempts that ended.
    pub(super) verdicts: u64,
    /// Consecutive failed verdicts of attempts that started without a usable token.
    pub(super) failed_dry: u32,
    /// Consecutive flights whose task was dropped without a verdict.
    pub(super) abandoned: u32,
    pub(super) generation: u64,
    /// The application took the token out of service; the next one may be fetched at once.
    pub(super) invalidated: bool,
    pub(super) refused: Option<Refused>,
    pub(super) trouble: Option<Trouble>,
}

pub(super) struct Flight {
    pub(super) id: u64,
    /// The latest of when it was begun, got its turn, and departed.
    pub(super) started: i64,
    /// It got its turn. Until then it is queued for one.
    pub(super) cleared: bool,
    /// Its task ran, and asked the source.
    pub(super) departed: bool,
    pub(super) dry: bool,
    pub(super) abort: Option<AbortHandle>,
    /// Its turn. Kept here, because a task in a runtime that is not running gives nothing back.
    pub(super) turn: Option<Turn>,
    /// The start of the previous attempt.
    pub(super) after: Moment,
}

/// A token that was taken out of service during a fetch: requests sent before that may still be
/// answered with it.
pub(super) struct Refused {
    pub(super) token: Token,
    /// The first flight that was begun afterwards.
    pub(super) until: u64,
}

/// What has gone wrong since the last success.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) error: AuthError,
    pub(crate) since: SystemTime,
}

/// What a slot shows to a health check.
pub(crate) struct Glance {
    pub(crate) lease: Option<Arc<Lease>>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) in_flight: bool,
    pub(crate) waiting: usize,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            flight: None,
            waiters: Waiters::default(),
            pace: Pace::new(),
            flights: 0,
            verdicts: 0,
            failed_dry: 0,
            abandoned: 0,
            generation: 0,
            invalidated: false,
            refused: None,
            trouble: None,
        }
    }

    /// When the next attempt may start as of `now`, in monotonic nanoseconds.
    pub(super) fn next(&self, lease: Option<&Lease>, now: Moment) -> i64 {
        let out_of_favour = self.invalidated || lease.is_some_and(Lease::is_rejected);
        if out_of_favour && self.pace.is_even() {
            return i64::MIN;
        }
        self.pace.next(lease.map(Lease::edges), now)
    }

    /// True if flight `id` was begun before this token was taken out of service.
    pub(super) fn has_refused(&self, token: &Token, id: u64) -> bool {
        self.refused
            .as_ref()
            .is_some_and(|refused| id < refused.until && refused.token.same_secret(token))
    }

    pub(super) fn waited_in_vain(&self, waited: Duration) -> AuthError {
        match &self.trouble {
            Some(trouble) => trouble.error.clone().after_waiting(waited),
            None => {
                let reason = "no token: the source has not answered yet";
                AuthError::new(Kind::Timeout, reason).after_waiting(waited)
            }
        }
    }
}
