//! `TokenSource`: where tokens come from.
//!
//! A source answers one question: a token for this request, now. Caching, pacing and retrying are all
//! the cache's job, not the source's. The private twin trait at the end of the file lets one cache type
//! hold any source.

use std::{fmt, future::Future, pin::Pin, time::Duration};

pub use super::from_service::{FromService, from_service};
use super::{request::TokenRequest, value::Token};
use crate::error::{AuthError, BoxError};

/// Fetches one token.
///
/// ```
/// use std::time::Duration;
/// use tower_scoped_auth::{Token, TokenRequest, TokenSource};
///
/// struct MyVault;
///
/// impl TokenSource for MyVault {
///     type Error = std::io::Error;
///
///     async fn fetch(&self, request: TokenRequest) -> Result<Token, Self::Error> {
///         Ok(Token::new("secret", Duration::from_secs(3600)))
///     }
/// }
/// ```
///
/// The cache runs at most one call per [`TokenRequest`] at a time, in a separate task. (A call that
/// blocks its thread for more than a second beyond the timeout is considered lost, and `fetch` is
/// called again.) It drops the future when it takes longer than
/// [`attempt_timeout`](Self::attempt_timeout), or when nobody who could want the token is left. Every
/// error or panic is a failed attempt, which is repeated at a pace that the cache keeps. An
/// [`AuthError`](crate::AuthError) is passed on as it is; any other error becomes the `source()` of
/// one.
///
/// A token's life is counted from the moment `fetch` was called.
pub trait TokenSource: Send + Sync + 'static {
    /// The error of a failed fetch. Its `Display` and `Debug` reach logs: keep secrets out of it.
    type Error: Into<Box<dyn std::error::Error + Send + Sync>>;

    /// Fetches a token for `request`.
    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<Token, Self::Error>> + Send;

    /// The longest that one [`fetch`](Self::fetch) may take. Default: 10 s.
    ///
    /// Read once, when the cache is built.
    fn attempt_timeout(&self) -> Duration {
        DEFAULT_ATTEMPT_TIMEOUT
    }

    /// How long to wait before asking again after `error`, such as the value of a `Retry-After`.
    /// Default: `None`.
    ///
    /// The wait applies to the same [`TokenRequest`], both to refreshes and to waiting requests; other
    /// token requests keep their own pace. It is capped at 60 s and at the expiry of the token in
    /// service, and the cache's own pace still applies. For an [`AuthError`] this method's answer is
    /// ignored, because the error carries its own value. A source that wraps one of this crate's
    /// sources passes that value on by returning the error itself.
    fn retry_after(&self, error: &Self::Error) -> Option<Duration> {
        let _not_said = error;
        None
    }

    /// A short name for logs and [`TokenStatus`](crate::TokenStatus), such as `"metadata-server"`.
    ///
    /// Read once, when the cache is built.
    fn name(&self) -> &'static str {
        "custom"
    }

    /// The [`name`](Self::name) of the source that currently answers, for a source made of several
    /// others. Default: its own name.
    ///
    /// Read on every call of [`TokenCache::status`](crate::TokenCache::status).
    fn active(&self) -> &'static str {
        self.name()
    }
}

/// Sources may sign in somewhere or start a process; the metadata server overrides this with 3 s.
const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates a source from a closure that returns a future.
///
/// ```
/// use std::time::Duration;
/// use tower_scoped_auth::{ScopedAuthLayer, Token, TokenRequest, source};
///
/// let auth = ScopedAuthLayer::new(source::from_fn(|request: TokenRequest| async move {
///     Ok::<_, std::io::Error>(Token::new("secret", Duration::from_secs(3600)))
/// }));
/// # let _ = auth;
/// ```
pub fn from_fn<F, Fut, E>(fetch: F) -> FromFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    FromFn { fetch }
}

/// The source returned by [`from_fn`].
#[derive(Clone)]
pub struct FromFn<F> {
    fetch: F,
}

impl<F, Fut, E> TokenSource for FromFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, E>> + Send,
    E: Into<BoxError>,
{
    type Error = E;

    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<Token, Self::Error>> + Send {
        (self.fetch)(request)
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}

impl<T: TokenSource + ?Sized> TokenSource for std::sync::Arc<T> {
    type Error = T::Error;

    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<Token, Self::Error>> + Send {
        T::fetch(self, request)
    }

    fn attempt_timeout(&self) -> Duration {
        T::attempt_timeout(self)
    }

    fn retry_after(&self, error: &Self::Error) -> Option<Duration> {
        T::retry_after(self, error)
    }

    fn name(&self) -> &'static str {
        T::name(self)
    }

    fn active(&self) -> &'static str {
        T::active(self)
    }
}

/// What [`DynSource::fetch`] returns.
pub(crate) type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Token, AuthError>> + Send + 'a>>;

/// An object-safe `TokenSource`: one box per fetch, that is, about one per hour.
pub(crate) trait DynSource: Send + Sync {
    fn fetch(&self, request: TokenRequest) -> Fetching<'_>;

    fn active(&self) -> &'static str;
}

impl<T: TokenSource> DynSource for T {
    fn fetch(&self, request: TokenRequest) -> Fetching<'_> {
        Box::pin(async move {
            let result = TokenSource::fetch(self, request).await;
            result.map_err(|error| {
                let retry_after = self.retry_after(&error);
                AuthError::from_source(error.into(), retry_after)
            })
        })
    }

    fn active(&self) -> &'static str {
        TokenSource::active(self)
    }
}
