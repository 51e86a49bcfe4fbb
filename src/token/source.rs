//! `TokenSource`: where tokens come from.
//!
//! A source answers one question: a token for this request, now. It keeps no cache, no pace and no
//! retries; all of that is the cache's. The private twin at the end of the file is what lets one
//! cache type hold any source.

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
/// The cache calls it at most once at a time per [`TokenRequest`] (one that blocks its thread for longer than
/// an attempt and a second is taken to be gone, and is called again), from a task of its own, and drops
/// the future when it takes longer than [`attempt_timeout`](Self::attempt_timeout) or when nobody is
/// left who could want the token. Every error is a failed attempt that is tried again, at a pace the
/// cache keeps; so is a panic. An [`AuthError`](crate::AuthError) comes out as it is, any other
/// error becomes the `source()` of one.
///
/// A token's life is counted from the moment `fetch` was called.
pub trait TokenSource: Send + Sync + 'static {
    /// What can go wrong. Its `Display` and `Debug` reach logs: keep secrets out of it.
    type Error: Into<Box<dyn std::error::Error + Send + Sync>>;

    /// A token for `request`, from wherever this source gets it.
    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<Token, Self::Error>> + Send;

    /// The longest one [`fetch`](Self::fetch) may take. Default: 10 s.
    ///
    /// Read once, when the cache is built.
    fn attempt_timeout(&self) -> Duration {
        DEFAULT_ATTEMPT_TIMEOUT
    }

    /// How long not to ask again after `error`: what a `Retry-After` said, say. Default: not said.
    ///
    /// Kept to for the same [`TokenRequest`], by refreshes and by requests that wait alike; others keep a pace
    /// of their own. To 60 s at most, and not past the expiry of the token in service; the cache's pace holds as
    /// well. For an [`AuthError`] the answer is not used: it has its own, which a source that wraps one of this
    /// crate's hands on by handing on the error.
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

    /// The [`name`](Self::name) of the source that answers at the moment, for a source made of
    /// several others. Default: its own.
    ///
    /// Read whenever [`TokenCache::status`](crate::TokenCache::status) is.
    fn active(&self) -> &'static str {
        self.name()
    }
}

/// Sources may sign in somewhere or start a process; the metadata server, with its 3 s, says so.
const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A source made of a closure that returns a future.
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

/// The source that [`from_fn`] makes.
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

/// `TokenSource` as an object: one box per fetch, about one an hour.
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
