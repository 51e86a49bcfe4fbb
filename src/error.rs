//! `AuthError`: why a request could not be stamped, or a token not be had.
//!
//! One opaque type with a private kind and public predicates, cloneable because one failed attempt
//! answers many waiters. It holds statuses, counts, hosts and reasons. It never holds a token or a
//! byte of a response body, so that it can be logged as it is.

use std::{error::Error, fmt, iter::successors, sync::Arc, time::Duration};

use http::header::MaxSizeReached;

use crate::text;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a request was not stamped, or a token could not be had.
///
/// The service's error type is [`tower::BoxError`]; its own failures downcast to this one, those of
/// the service inside come through as they were.
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

/// A foreign source's error may be its own cause, or a whole page of HTML.
const MOST_CAUSES: usize = 8;
const LONGEST_LINE: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The token must not go where the request goes.
    Destination,
    /// What was asked for cannot be asked of this source, or not for this request.
    Request,
    /// No connection to the metadata server, or it broke off.
    Connect,
    Timeout,
    /// The metadata server answered with this status.
    #[cfg_attr(not(feature = "metadata"), allow(dead_code))]
    Status(u16),
    /// An answer that is not from a metadata server, or not a usable token.
    Response,
    /// A custom source's own error.
    Source,
    Panic,
    /// There is no Tokio runtime to fetch on.
    Runtime,
    /// Too many requests are waiting already.
    Overload,
}

impl Kind {
    /// Its name in events and metrics. Stable: dashboards are built on it.
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

/// The reasons an attempt at a token can fail for.
#[cfg(feature = "metrics")]
pub(crate) const REASONS: [&str; 7] = [
    "request", "connect", "timeout", "status", "response", "source", "panic",
];

impl AuthError {
    /// The request's destination may not see the token: nothing was sent, nothing was fetched.
    pub fn is_destination(&self) -> bool {
        self.failure.kind == Kind::Destination
    }

    /// Trying again later can succeed: the failure is the token source's, not the request's.
    pub fn is_transient(&self) -> bool {
        !matches!(
            self.failure.kind,
            Kind::Destination | Kind::Request | Kind::Runtime
        )
    }

    /// The source did not answer in time.
    pub fn is_timeout(&self) -> bool {
        self.failure.kind == Kind::Timeout
    }

    /// The metadata server could not be reached, or the connection broke off.
    pub fn is_connect(&self) -> bool {
        self.failure.kind == Kind::Connect
    }

    /// The answer was not a metadata server's, or not a usable token.
    pub fn is_response(&self) -> bool {
        self.failure.kind == Kind::Response
    }

    /// Too many requests were waiting for the same token already.
    pub fn is_overload(&self) -> bool {
        self.failure.kind == Kind::Overload
    }

    /// The HTTP status the metadata server answered with, if that was the trouble.
    pub fn status(&self) -> Option<u16> {
        match self.failure.kind {
            Kind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// How many attempts in a row had failed when this error was handed out; 0 if none was made.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long the server asked to be left alone (`Retry-After`), or a source of one's own
    /// ([`TokenSource::retry_after`](crate::TokenSource::retry_after)); uncapped.
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

    /// What a source returned: one of ours comes back as it is, anything else is wrapped.
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

    /// A token was there, and cannot be used: a contradiction in our own books, never seen so far.
    pub(crate) fn gone() -> Self {
        Self::new(Kind::Source, "the token went away before it could be used")
    }

    /// A failure that was put together from others.
    pub(crate) fn gathered(kind: Kind, message: String, retry_after: Option<Duration>) -> Self {
        Self::build(kind, message, retry_after, None)
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.failure.kind.reason()
    }

    /// The error and its causes, on one line of bounded length, for a log or a health check.
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
