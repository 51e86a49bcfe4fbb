//! Whether a request is stamped, for a layer that holds a token. Also used by the fuzz target `destinations`.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use tower::{BoxError, Service};
use tower_scoped_auth::{ScopedAuth, Scopes, Token, TokenCache, TokenRequest, source};

/// A cache that holds a token, which outlives any test.
pub fn warm_cache() -> TokenCache {
    let cache = TokenCache::new(source::from_fn(|_: TokenRequest| async {
        Ok::<_, Infallible>(Token::new("t", Duration::from_secs(10_000_000)))
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let request = TokenRequest::access_token(Scopes::default());
    runtime.unwrap().block_on(cache.token(&request)).unwrap();
    cache
}

/// Answers whether the request carried a token.
#[derive(Clone)]
pub struct Stamped;

impl<R: Headers> Service<R> for Stamped {
    type Response = Response<bool>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        ready(Ok(Response::new(
            request.headers().contains_key(AUTHORIZATION),
        )))
    }
}

pub trait Headers {
    fn headers(&self) -> &HeaderMap;
}

impl Headers for Request<()> {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

impl Headers for reqwest::Request {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

/// A request with a token at hand is sent, with or without it, in one poll.
pub fn stamps<R>(service: &mut ScopedAuth<Stamped>, request: R) -> bool
where
    ScopedAuth<Stamped>: Service<R, Response = Response<bool>, Error = BoxError>,
{
    let mut context = Context::from_waker(Waker::noop());
    let mut future = pin!(service.call(request));
    match future.as_mut().poll(&mut context) {
        Poll::Ready(Ok(response)) => response.into_body(),
        other => panic!("waits or fails: {other:?}"),
    }
}
