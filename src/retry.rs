//! `RetryUnauthorized`: one retry after a 401, built on tower's own retry layer.
//!
//! Sits above the auth layer. A mark in the response's extensions tells it that our token was rejected,
//! and it leaves a mark on the request that is sent again. The stamping itself is the layer's, as on
//! the first attempt.

use std::future::{Ready, ready};

use http::{Request, Response};
use tower::retry::Policy;

use crate::request::sealed::Incoming;

/// In a response's extensions: the request carried our token and was answered with 401.
#[derive(Clone, Copy)]
pub(crate) struct Rejected;

/// In a request's extensions: a request with the same content was answered with 401 while carrying the
/// token in service, so waiting for another token is worthwhile.
#[derive(Clone, Copy)]
pub(crate) struct SentAgain;

/// A [`tower::retry::Policy`] that resends a request once if its token was rejected.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_scoped_auth::{MetadataServer, RetryUnauthorized, ScopedAuthLayer};
///
/// # fn wrap<S: Clone>(client: S) {
/// let client = ServiceBuilder::new()
///     .retry(RetryUnauthorized::new())
///     .layer(ScopedAuthLayer::new(MetadataServer::new()))
///     .service(client);
/// # }
/// ```
///
/// Only a request that [`ScopedAuth`](crate::ScopedAuth) below stamped, and that was answered with 401,
/// is repeated, and only once: the second response is returned whatever it is. The retry waits up to
/// 3 s for a token other than the rejected one; if none is available, it is sent with the current one.
///
/// A request can only be repeated if its body is `Clone`, which single-use bodies are not. With
/// `reqwest`, whose requests say at run time whether they can be cloned, a request with a streaming
/// body is sent once. A 401 from another origin, to which `reqwest` followed a redirect without our
/// token, is not retried. (If that origin redirects back to the first, the response looks like one from
/// the first origin. Where this matters, configure `reqwest` not to follow redirects.)
///
/// A failed gRPC call is an HTTP 200, so `grpc-status: 16` is not seen here.
#[derive(Clone, Debug, Default)]
pub struct RetryUnauthorized {
    spent: bool,
}

impl RetryUnauthorized {
    /// Creates a policy that retries once.
    pub fn new() -> Self {
        Self::default()
    }

    fn decide<R: Incoming>(&mut self, response: &mut R) -> Option<Ready<()>> {
        let rejected = response.extensions_mut().remove::<Rejected>().is_some();
        if !rejected || self.spent {
            return None;
        }
        self.spent = true;
        Some(ready(()))
    }
}

impl<B, T, E> Policy<Request<B>, Response<T>, E> for RetryUnauthorized
where
    B: Clone,
{
    type Future = Ready<()>;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<Response<T>, E>,
    ) -> Option<Self::Future> {
        let again = self.decide(result.as_mut().ok()?)?;
        request.extensions_mut().insert(SentAgain);
        Some(again)
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

#[cfg(feature = "reqwest")]
impl<E> Policy<reqwest::Request, reqwest::Response, E> for RetryUnauthorized {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _request: &mut reqwest::Request,
        result: &mut Result<reqwest::Response, E>,
    ) -> Option<Self::Future> {
        // No mark on the request: reqwest has no place for one. The layer recognises it by its origin.
        self.decide(result.as_mut().ok()?)
    }

    fn clone_request(&mut self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }
}
