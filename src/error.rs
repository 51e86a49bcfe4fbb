//! `AuthError`: why a request could not be stamped, or a token could not be obtained.
//!
//! One opaque type with a private kind and public predicates, cloneable because one failed attempt
//! answers many waiters. It holds statuses, counts, hosts and reasons. It never holds a token or a byte
//! of a response body, so it can be logged as it is.

use std::{error::Error, fmt, iter::successors, sync::Arc, time::Duration};

use http::header::MaxSizeReached;

use crate::text;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The reason a request was not stamped, or a token could not be obtained.
///
/// The service's error type is [`tower::BoxError`]. Its own failures downcast to this type; errors from
/// the inner service are passed through unchanged.
///
/// ```
/// use tower_scoped_auth::AuthError;
///
/// fn explain(error: &tower::BoxError) -> String {
///     match error.downcast_ref::<AuthError>() {
///         Some(auth) if auth.is_destination() => format!("not allowed: {auth}"),
///         Some(auth) if auth.is_transient() => format!("try later: {auth}"),
///         _ => error.to_string(),
///     }
/// }
/// # explain(&"boom".into());
/// ```
#[derive(Clone)]
pub struct AuthError {
    failure: Arc<Failure>,
    attempts: u32,
    waited: Option<Duration>,
}

struct Failure {
    kind: Kind,
    message: String,
    retry_after: Option<Duration>,
    cause: Option<BoxError>,
}

/// A foreign source's error may be its own cause, or contain a whole page of HTML.
const MOST_CAUSES: usize = 8;
const LONGEST_LINE: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request's destination may not receive the token.
    Destination,
    /// The source, or this request, does not allow asking for this token.
    Request,
    /// The metadata server could not be reached, or the connection broke.
    Connect,
    Timeout,
    /// The metadata server answered with this status.
    #[cfg_attr(not(feature = "metadata"), allow(dead_code))]
    Status(u16),
    /// The answer is not from a metadata server, or is not a usable token.
    Response,
    /// A custom source's own error.
    Source,
    Panic,
    /// There is no Tokio runtime to fetch on.
    Runtime,
    /// Too many requests are already waiting.
    Overload,
}

impl Kind {
    /// The name in events and metrics. Stable: dashboards depend on it.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Request => "request",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::Response => "response",
            Self::Source => "source",
            Self::Panic => "panic",
            Self::Runtime => "runtime",
            Self::Overload => "overload",
        }
    }
}

/// The reasons for which an attempt to fetch a token can fail.
#[cfg(feature = "metrics")]
pub(crate) const REASONS: [&str; 7] = [
    "request", "connect", "timeout", "status", "response", "source", "panic",
];

impl AuthError {
    /// True if the request's destination may not receive the token. Nothing was sent, nothing was
    /// fetched.
    pub fn is_destination(&self) -> bool {
        self.failure.kind == Kind::Destination
    }

    /// True if trying again later can succeed: the token source failed, or too many requests are waiting
    /// for it; the request itself is fine.
    pub fn is_transient(&self) -> bool {
        !matches!(
            self.failure.kind,
            Kind::Destination | Kind::Request | Kind::Runtime
        )
    }

    /// True if the source did not answer in time.
    pub fn is_timeout(&self) -> bool {
        self.failure.kind == Kind::Timeout
    }

    /// True if the metadata server could not be reached, or the connection broke.
    pub fn is_connect(&self) -> bool {
        self.failure.kind == Kind::Connect
    }

    /// True if the answer was not from a metadata server, or was not a usable token.
    pub fn is_response(&self) -> bool {
        self.failure.kind == Kind::Response
    }

    /// True if too many requests were already waiting for the same token.
    pub fn is_overload(&self) -> bool {
        self.failure.kind == Kind::Overload
    }

    /// The HTTP status that the metadata server answered with, if that was the failure.
    pub fn status(&self) -> Option<u16> {
        match self.failure.kind {
            Kind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The number of consecutive attempts that had failed when this error was returned; 0 if none was
    /// made.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long to wait before asking again, as requested by the server (`Retry-After`) or by a custom
    /// source ([`TokenSource::retry_after`](crate::TokenSource::retry_after)); uncapped.
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure.retry_after
    }
}

impl AuthError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::build(kind, message.into(), None, None)
    }

    pub(crate) fn caused(
        kind: Kind,
        message: impl Into<String>,
        cause: impl Into<BoxError>,
    ) -> Self {
        Self::build(kind, message.into(), None, Some(cause.into()))
    }

    /// Converts a source's error: one of ours is returned as it is, anything else is wrapped.
    pub(crate) fn from_source(error: BoxError, retry_after: Option<Duration>) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(theirs) => {
                let message = "the token source failed".to_owned();
                Self::build(Kind::Source, message, retry_after, Some(theirs))
            }
        }
    }

    #[cfg(feature = "metadata")]
    pub(crate) fn status_of(status: u16, message: String, retry_after: Option<Duration>) -> Self {
        Self::build(Kind::Status(status), message, retry_after, None)
    }

    pub(crate) fn no_runtime() -> Self {
        Self::new(
            Kind::Runtime,
            "no Tokio runtime: fetching a token needs one with time and I/O enabled; \
             only a request that finds a live token can do without",
        )
    }

    pub(crate) fn too_many_headers(full: MaxSizeReached) -> Self {
        let reason = "the request has more headers than can be sent";
        Self::caused(Kind::Request, reason, full)
    }

    /// A token was there but cannot be used: an internal inconsistency, never seen so far.
    pub(crate) fn gone() -> Self {
        Self::new(Kind::Source, "the token went away before it could be used")
    }

    /// A failure assembled from several others.
    pub(crate) fn gathered(kind: Kind, message: String, retry_after: Option<Duration>) -> Self {
        Self::build(kind, message, retry_after, None)
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.failure.kind.reason()
    }

    /// The error and its causes on one line of bounded length, for a log or a health check.
    pub(crate) fn on_one_line(&self) -> String {
        let causes = successors(Some(self as &dyn Error), |&error| error.source());
        let texts: Vec<_> = causes.take(MOST_CAUSES).map(ToString::to_string).collect();
        text::on_one_line(&texts.join(": "), LONGEST_LINE)
    }

    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    pub(crate) fn after_waiting(mut self, waited: Duration) -> Self {
        self.waited = Some(waited);
        self
    }

    fn build(
        kind: Kind,
        message: String,
        retry_after: Option<Duration>,
        cause: Option<BoxError>,
    ) -> Self {
        let failure = Arc::new(Failure {
            kind,
            message,
            retry_after,
            cause,
        });
        Self {
            failure,
            attempts: 0,
            waited: None,
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.failure.message)?;
        match (self.attempts, self.waited) {
            (0, None) => Ok(()),
            (1, None) => f.write_str(" (1 attempt)"),
            (attempts, None) => write!(f, " ({attempts} attempts)"),
            (attempts, Some(waited)) => {
                write!(
                    f,
                    " (gave up after {} s, attempts: {attempts})",
                    waited.as_secs()
                )
            }
        }
    }
}

impl fmt::Debug for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthError")
            .field("kind", &self.failure.kind)
            .field("message", &self.failure.message)
            .field("attempts", &self.attempts)
            .field("retry_after", &self.failure.retry_after)
            .field("source", &self.failure.cause)
            .finish()
    }
}

impl Error for AuthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failure
            .cause
            .as_ref()
            .map(|cause| &**cause as &(dyn Error + 'static))
    }
}
