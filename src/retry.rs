//! `RetryUnauthorized`: one retry after a 401, composed from tower's own retry layer.
//!
//! Sees responses from above the layer, knows from a mark in their extensions that it was our token
//! that was rejected, and leaves a mark on the request that goes again. The stamping itself is the
//! layer's, as on the first way.

use std::future::{Ready, ready};

use http::{Request, Response};
use tower::retry::Policy;

use crate::request::sealed::Incoming;

/// In a response's extensions: the request carried our token, and was answered 401.
#[derive(Clone, Copy)]
pub(crate) struct Rejected;

/// In a request's extensions: a request with the same content was answered 401 with the token that was
/// in service, so another one is worth waiting for.
#[derive(Clone, Copy)]
pub(crate) struct SentAgain;

/// A [`tower::retry::Policy`]: sends a request once more if its token was rejected.
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
/// Only a request that [`ScopedAuth`](crate::ScopedAuth) below stamped, and that was answered 401,
/// is repeated, and once: the second answer is returned whatever it is. It waits up to 3 s for a
/// token other than the rejected one; if there is none to be had, it goes with what there is.
///
/// A body has to be `Clone` for its request to be repeatable, which bodies that can be sent only
/// once are not. For `reqwest`, whose requests say at run time whether they can be cloned, one with
/// a streaming body is sent once; and a 401 of another origin, to which `reqwest` followed a redirect
/// without our token, repeats nothing. (If that one sends it back again, the answer looks like that of the
/// first: where this matters, give `reqwest` the policy to follow no redirects.)
///
/// A failed gRPC call is an HTTP 200: `grpc-status: 16` is not seen here.
#[derive(Clone, Debug, Default)]
pub struct RetryUnauthorized {
    spent: bool,
}

impl RetryUnauthorized {
    /// One retry.
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
        // No mark on the request: reqwest has no place for it. The layer knows by the origin.
        self.decide(result.as_mut().ok()?)
    }

    fn clone_request(&mut self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }
}
