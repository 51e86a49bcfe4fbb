//! The meters with the feature `metrics`. Names, labels and meanings: docs/observability.md.
//!
//! Handles that every request uses are prepared once per cache: one addition per request, and no
//! lookup. For events that happen about once an hour (a fetch, a 401) the recorder is looked up each
//! time.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::{
    Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::{
    error::REASONS,
    token::{events::outcome, request::TokenRequest},
};

const FETCHES: &str = "scoped_auth_fetches_total";
const FETCH_DURATION: &str = "scoped_auth_fetch_duration_seconds";
const SECONDS_LEFT: &str = "scoped_auth_token_seconds_left";
const EXPIRY: &str = "scoped_auth_token_expiry_timestamp_seconds";
const WAITING: &str = "scoped_auth_waiting_requests";
const STAMPED: &str = "scoped_auth_stamped_requests_total";
const REFUSED: &str = "scoped_auth_refused_requests_total";
const STARVED: &str = "scoped_auth_starved_requests_total";
const REJECTED: &str = "scoped_auth_rejected_requests_total";

/// The maximum number of token requests of one cache that ever get their own gauges. An application has
/// a handful of layers; audiences derived from requests are unbounded, and each would be a permanent
/// time series.
const LABELLED: usize = 32;

/// The meters of one cache.
pub(crate) struct Meters {
    source: &'static str,
    /// A handle holds the recorder's own type, about which nothing is known; it only counts.
    requests: AssertUnwindSafe<Requests>,
    /// Kept by name: a token request that is forgotten and returns keeps its series.
    labelled: Mutex<HashSet<String>>,
}

struct Requests {
    stamped: Counter,
    refused: Counter,
    starved: Counter,
    waiting: Gauge,
}

/// The meter of one token request. Dropping it writes nothing: another cache with the same source and
/// request may be writing to the same series.
pub(crate) struct TokenMeter(Option<AssertUnwindSafe<Lifetime>>);

struct Lifetime {
    left: Gauge,
    expiry: Gauge,
}

/// Counts 401s. Copied with every stamped request, so it holds no reference count.
#[derive(Clone, Copy)]
pub(crate) struct Rejections(&'static str);

/// Counts one waiting request for as long as it lives.
pub(crate) struct Waiting(AssertUnwindSafe<Gauge>);

impl Meters {
    /// Registers every series with constant labels, so that the first failure is a step from 0 to 1 and
    /// not a series that starts at 1.
    pub(crate) fn new(source: &'static str) -> Self {
        describe();
        for success in outcome::SUCCESSES {
            fetches(source, success, "").increment(0);
        }
        fetches(source, outcome::ABANDONED, "").increment(0);
        for reason in REASONS {
            fetches(source, outcome::FAILED, reason).increment(0);
        }
        counter!(REJECTED, "source" => source).increment(0);
        let requests = Requests {
            stamped: counter!(STAMPED, "source" => source),
            refused: counter!(REFUSED, "source" => source),
            starved: counter!(STARVED, "source" => source),
            waiting: gauge!(WAITING, "source" => source),
        };
        Self {
            source,
            requests: AssertUnwindSafe(requests),
            labelled: Mutex::default(),
        }
    }

    pub(crate) fn token(&self, request: &TokenRequest) -> TokenMeter {
        let request = request.to_string();
        {
            // No panic can leave the set half changed.
            let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
            if labelled.len() >= LABELLED && !labelled.contains(&request) {
                return TokenMeter(None);
            }
            labelled.insert(request.clone());
        }
        TokenMeter(Some(AssertUnwindSafe(Lifetime {
            left: gauge!(SECONDS_LEFT, "source" => self.source, "request" => request.clone()),
            expiry: gauge!(EXPIRY, "source" => self.source, "request" => request),
        })))
    }

    /// A request is sent with our token.
    #[inline]
    pub(crate) fn stamped(&self) {
        self.requests.stamped.increment(1);
    }

    /// A request is not sent: its destination may not receive the token, or no audience fits it.
    #[cold]
    pub(crate) fn refused(&self) {
        self.requests.refused.increment(1);
    }

    /// A request fails for lack of a token.
    #[cold]
    pub(crate) fn starved(&self) {
        self.requests.starved.increment(1);
    }

    pub(crate) fn waiting(&self) -> Waiting {
        self.requests.waiting.increment(1.0);
        Waiting(AssertUnwindSafe(self.requests.waiting.clone()))
    }

    #[inline]
    pub(crate) fn rejections(&self) -> Rejections {
        Rejections(self.source)
    }

    /// An attempt ended, or was dropped (`took` is `None`).
    pub(crate) fn fetched(
        &self,
        outcome: &'static str,
        reason: &'static str,
        took: Option<Duration>,
    ) {
        fetches(self.source, outcome, reason).increment(1);
        if let Some(took) = took {
            histogram!(FETCH_DURATION, "source" => self.source, "outcome" => outcome).record(took);
        }
    }
}

fn fetches(source: &'static str, outcome: &'static str, reason: &'static str) -> Counter {
    counter!(FETCHES, "source" => source, "outcome" => outcome, "reason" => reason)
}

impl TokenMeter {
    /// This much of the token's life is left, at this wall-clock time.
    pub(crate) fn left(&self, left: Option<Duration>, wall: SystemTime) {
        if let Some(lifetime) = &self.0 {
            lifetime.left.set(left.unwrap_or_default());
            let expiry =
                left.and_then(|left| wall.checked_add(left)?.duration_since(UNIX_EPOCH).ok());
            lifetime.expiry.set(expiry.unwrap_or_default());
        }
    }
}

impl Rejections {
    #[cold]
    pub(crate) fn note(self) {
        counter!(REJECTED, "source" => self.0).increment(1);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

fn describe() {
    describe_counter!(
        FETCHES,
        Unit::Count,
        "Fetches of a token, by outcome and reason of failure"
    );
    describe_histogram!(
        FETCH_DURATION,
        Unit::Seconds,
        "How long a fetch of a token took"
    );
    describe_gauge!(
        SECONDS_LEFT,
        Unit::Seconds,
        "Life left of the token in service when last looked at"
    );
    describe_gauge!(
        EXPIRY,
        Unit::Seconds,
        "When the token in service expires, in Unix time"
    );
    describe_gauge!(WAITING, Unit::Count, "Requests that wait for a token");
    describe_counter!(STAMPED, Unit::Count, "Requests sent with a token");
    describe_counter!(
        REFUSED,
        Unit::Count,
        "Requests not sent because of where they were to go"
    );
    describe_counter!(
        STARVED,
        Unit::Count,
        "Requests not sent for want of a token"
    );
    describe_counter!(
        REJECTED,
        Unit::Count,
        "Requests sent with a token and answered 401"
    );
}
