//! `TokenStatus`: what a health check may know about a token. A snapshot, without the token.

use std::time::{Duration, SystemTime};

use super::{clock::Moment, schedule::Phase, slot::Glance};
use crate::error::AuthError;

/// A snapshot of the state of one [`TokenRequest`](crate::TokenRequest)'s token.
///
/// Returned by [`TokenCache::status`](crate::TokenCache::status). With the feature `serde` it can be
/// serialised, for example as the response of a health endpoint. In JSON:
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
/// `failing_since` is in seconds since the Unix epoch; both are `null` unless the last attempt failed.
/// Fields may be added.
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

/// The phase of its life that a token is in.
///
/// With the feature `serde` it is serialised as its name in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// There has been no token yet, or it was invalidated.
    Empty,
    /// Valid, and not yet due for a refresh.
    Fresh,
    /// Valid, and due for a refresh (or rejected by a destination).
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

    /// The number of consecutive failed attempts.
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

    /// The token's state: fresh, stale, expired, or empty.
    pub fn state(&self) -> TokenState {
        self.state
    }

    /// True if requests can be sent now: there is a token and it has not expired.
    pub fn is_live(&self) -> bool {
        matches!(self.state, TokenState::Fresh | TokenState::Stale)
    }

    /// Time left until the token expires, by whichever clock is closer to expiry. `None` without a live
    /// token.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The number of different tokens that have been in service, counted from 1.
    ///
    /// 0 before the first token, and after an invalidation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// True if a fetch is in flight.
    pub fn is_refreshing(&self) -> bool {
        self.refreshing
    }

    /// The number of requests waiting for the token.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Why the last attempt failed; `None` once one has succeeded.
    pub fn last_error(&self) -> Option<&AuthError> {
        self.last_error.as_ref()
    }

    /// The wall-clock time since which every attempt has failed; `None` once one has succeeded.
    pub fn failing_since(&self) -> Option<SystemTime> {
        self.failing_since
    }

    /// The name of the source, such as `"metadata-server"`.
    ///
    /// For several sources (`sources::FirstOf`), the name of the one that answered.
    pub fn source(&self) -> &str {
        self.source
    }
}
