//! A Tower service as a token source. This lets Tower's own middleware (timeouts, limits, filters,
//! tracing) wrap whatever fetches tokens.

use std::{
    fmt,
    future::{Future, poll_fn},
    sync::{Mutex, PoisonError},
};

use tower_service::Service;

use super::{request::TokenRequest, source::TokenSource, value::Token};
use crate::error::BoxError;

/// Creates a source from a Tower service of [`TokenRequest`]s.
///
/// Each fetch clones the service, waits until that clone is ready, and calls it. An error from either
/// step is the attempt's error. Pacing and retrying remain the cache's job: the attempts of a retry
/// layer around the service multiply with the cache's. The error carries no `Retry-After`; to provide
/// one, wrap the source in a type that implements [`TokenSource::retry_after`].
///
/// ```
/// use std::{io, time::Duration};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_scoped_auth::{ScopedAuthLayer, Token, TokenRequest, TokenSource, source, sources::Fixed};
///
/// // A closure turns any source into a service.
/// let vault = Fixed::new("secret");
/// let service = service_fn(move |request: TokenRequest| {
///     let vault = vault.clone();
///     async move { vault.fetch(request).await }
/// });
/// let service = ServiceBuilder::new()
///     .timeout(Duration::from_secs(2))
///     .service(service);
/// let auth = ScopedAuthLayer::new(source::from_service(service));
/// # let _ = auth;
/// ```
pub fn from_service<S>(service: S) -> FromService<S>
where
    S: Service<TokenRequest, Response = Token> + Clone + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send,
{
    FromService {
        service: Mutex::new(service),
    }
}

/// The source returned by [`from_service`].
pub struct FromService<S> {
    /// The original, which is only ever cloned. The lock allows services that are not `Sync`
    /// (`BoxCloneService`).
    service: Mutex<S>,
}

impl<S> FromService<S>
where
    S: Clone,
{
    fn copy(&self) -> S {
        // A clone that panicked has not changed anything.
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        service.clone()
    }
}

impl<S> TokenSource for FromService<S>
where
    S: Service<TokenRequest, Response = Token> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Error = S::Error;

    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<Token, Self::Error>> + Send {
        let mut service = self.copy();
        async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        }
    }

    fn name(&self) -> &'static str {
        "service"
    }
}

impl<S: Clone> Clone for FromService<S> {
    fn clone(&self) -> Self {
        Self {
            service: Mutex::new(self.copy()),
        }
    }
}

impl<S> fmt::Debug for FromService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromService").finish_non_exhaustive()
    }
}
