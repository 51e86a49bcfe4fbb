//! `TokenStatus`: what a health check may know about one token. A snapshot, without the token.

use std::time::{Duration, SystemTime};

use super::{clock::Moment, schedule::Phase, slot::Glance};
use crate::error::AuthError;

/// The state of one [`TokenRequest`](crate::TokenRequest)'s token, as
/// [`TokenCache::status`](crate::TokenCache::status) found it.
///
/// With the feature `serde` it can be serialised, as the answer of a health endpoint. In JSON:
///
/// ```json
/// {
///   "state": "stale",
///   "expires_in_seconds": 212,
///   "generation": 3,
///   "refreshing": false,
///   "waiting": 0,
///   "last_error": "cannot connect to the metadata server at metadata.google.internal: …",
///   "failing_since": 1767225600,
///   "source": "metadata-server"
/// }
/// ```
///
/// `state` is `"empty"`, `"fresh"`, `"stale"` or `"expired"`. `expires_in_seconds` is rounded down, and
/// `null` without a live token. `last_error` is the error and its causes on one line, and
/// `failing_since` is in seconds since 1970; both are `null` unless the last attempt failed. Fields may
/// be added.
#[derive(Clone, Debug)]
pub struct TokenStatus {
    state: TokenState,
    expires_in: Option<Duration>,
    generation: u64,
    refreshing: bool,
    waiting: usize,
    last_error: Option<AuthError>,
    failing_since: Option<SystemTime>,
    source: &'static str,
}

/// Where in its life a token is.
///
/// With the feature `serde` it serialises as its name in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// There has been no token yet, or it was invalidated.
    Empty,
    /// Good, and not yet due for a refresh.
    Fresh,
    /// Good, and due for a refresh (or rejected by a destination).
    Stale,
    /// Past its expiry: requests wait or fail.
    Expired,
}

impl Glance {
    /// Time left until the token in service expires.
    pub(crate) fn left(&self, now: Moment) -> Option<Duration> {
        let left = now.until(self.lease.as_ref()?.edges().expires);
        (left > 0).then(|| Duration::from_nanos(left.unsigned_abs()))
    }

    /// Attempts in a row that have failed.
    pub(crate) fn failures(&self) -> u32 {
        let trouble = self.trouble.as_ref();
        trouble.map_or(0, |trouble| trouble.error.attempts())
    }
}

impl TokenStatus {
    pub(crate) fn new(glance: Option<Glance>, source: &'static str, now: Moment) -> Self {
        let empty = Glance {
            lease: None,
            trouble: None,
            in_flight: false,
            waiting: 0,
        };
        let glance = glance.unwrap_or(empty);
        let expires_in = glance.left(now);
        let Glance {
            lease,
            trouble,
            in_flight,
            waiting,
        } = glance;
        let state = match &lease {
            None => TokenState::Empty,
            Some(lease) => match lease.edges().phase(now) {
                Phase::Expired => TokenState::Expired,
                Phase::Fresh if !lease.is_rejected() => TokenState::Fresh,
                Phase::Fresh | Phase::Stale | Phase::Guard => TokenState::Stale,
            },
        };
        let (last_error, failing_since) = match trouble {
            Some(trouble) => (Some(trouble.error), Some(trouble.since)),
            None => (None, None),
        };
        Self {
            state,
            expires_in,
            generation: lease.as_ref().map_or(0, |lease| lease.generation()),
            refreshing: in_flight,
            waiting,
            last_error,
            failing_since,
            source,
        }
    }

    /// Fresh, stale, expired, or empty.
    pub fn state(&self) -> TokenState {
        self.state
    }

    /// Requests can go out now: there is a token and it has not expired.
    pub fn is_live(&self) -> bool {
        matches!(self.state, TokenState::Fresh | TokenState::Stale)
    }

    /// Time left until the token expires, by the clock that is closer to it. `None` without a live
    /// token.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// Counts the different tokens that have been in service, from 1; 0 while there was none, and
    /// after an invalidation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A fetch is in flight.
    pub fn is_refreshing(&self) -> bool {
        self.refreshing
    }

    /// How many requests wait for the token.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Why the last attempt failed; `None` once one has succeeded.
    pub fn last_error(&self) -> Option<&AuthError> {
        self.last_error.as_ref()
    }

    /// Since when every attempt has failed, by the wall clock; `None` once one has succeeded.
    pub fn failing_since(&self) -> Option<SystemTime> {
        self.failing_since
    }

    /// The name of the source, such as `"metadata-server"`.
    ///
    /// Of several sources (`sources::FirstOf`), the one that was found to answer.
    pub fn source(&self) -> &str {
        self.source
    }
}
