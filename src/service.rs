//! `ScopedAuth<S>`: checks the destination, then stamps and calls if there is a token, or waits for
//! one.
//!
//! Passes readiness through and never waits in `poll_ready`: a token failure is an error response, not
//! an unready service.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use crate::{
    error::BoxError,
    future::ResponseFuture,
    policy::{Decision, Policy},
    request::{AuthRequest, AuthResponse},
    token::current::Memo,
};

/// Stamps requests with a bearer token; made by [`ScopedAuthLayer`](crate::ScopedAuthLayer).
///
/// # Readiness
///
/// The service is ready when the inner service is; a missing token never makes it unready. With a live
/// token, `call` stamps the request and calls the inner service at once. Without one, the response
/// future waits for it (see [`TokenCache::token`](crate::TokenCache::token) for how long), and
/// meanwhile **holds the inner service's reservation**: the permit of a `ConcurrencyLimit`, the slot in
/// a `Buffer`. Dropping the future releases it.
///
/// # Expiry
///
/// No request is handed to the inner service with a token past the moment its fetch was sent plus
/// `expires_in`, by the monotonic or the wall clock. Suspend, clock jumps and slow fetches are included.
///
/// What delays the request after that (a queue in the inner service, a slow connect) uses up the time
/// that the token has left. In the last ten seconds of its life, requests wait up to 3 s for a newer
/// token first, so a delay has ten seconds where the token's life allows. See
/// [placement](crate::guide::placement).
///
/// # Errors
///
/// [`tower::BoxError`]: the inner service's own error, unchanged, or an [`AuthError`](crate::AuthError)
/// if the request was not sent.
#[derive(Clone)]
pub struct ScopedAuth<S> {
    inner: S,
    policy: Arc<Policy>,
    memo: Memo,
}

impl<S> ScopedAuth<S> {
    pub(crate) fn new(inner: S, policy: Arc<Policy>) -> Self {
        Self {
            inner,
            policy,
            memo: Memo::default(),
        }
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service. Requests sent through it directly are not
    /// stamped.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Consumes this service, returning the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R> Service<R> for ScopedAuth<S>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    S::Response: AuthResponse,
    R: AuthRequest,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut request: R) -> Self::Future {
        match self.policy.stamp(&mut request, &mut self.memo) {
            Some(watch) => ResponseFuture::sent(self.inner.call(request), Some(watch)),
            None => self.decide(request),
        }
    }
}

impl<S: Clone> ScopedAuth<S> {
    /// Kept off the hot path: code that a typical request does not run should not sit between code that
    /// it does.
    #[inline(never)]
    fn decide<R>(&mut self, mut request: R) -> ResponseFuture<S, R>
    where
        S: Service<R>,
        R: AuthRequest,
    {
        let watch = match self.policy.decide(&mut request) {
            Decision::Stamped(watch) => Some(watch),
            Decision::Pass => None,
            Decision::Wait(wait) => {
                return ResponseFuture::waiting(wait, self.take_ready_inner(), request);
            }
            Decision::Refuse(error) => {
                self.policy.note_refusal();
                // `call` consumes the readiness, even if the inner service is not called.
                drop(self.take_ready_inner());
                return ResponseFuture::failed(error);
            }
        };
        ResponseFuture::sent(self.inner.call(request), watch)
    }

    /// The instance that was made ready goes with the request; the clone, which is not ready, stays.
    fn take_ready_inner(&mut self) -> S {
        let not_ready_inner = self.inner.clone();
        mem::replace(&mut self.inner, not_ready_inner)
    }
}

impl<S: fmt::Debug> fmt::Debug for ScopedAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedAuth")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
