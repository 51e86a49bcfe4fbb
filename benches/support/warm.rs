//! A warm request: the service it goes to, the request, and the single poll that must be enough.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response};
use tower::Service;
use tower_scoped_auth::{Scopes, Token, TokenCache, TokenRequest, source};

/// Ready at once; drops the request.
#[derive(Clone)]
pub struct Sink;

impl<R> Service<R> for Sink {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}

/// A parsed URI and three headers.
pub fn request<B>(body: B) -> Request<B> {
    Request::get("https://storage.googleapis.com/storage/v1/b/bucket/o")
        .header("accept", "application/json")
        .header("user-agent", "bench")
        .header("x-goog-api-client", "bench/1")
        .body(body)
        .expect("valid")
}

/// Drives a request from readiness to the response and its drop. A warm request waits for nothing.
#[inline]
pub fn drive<R, S: Service<R>>(service: &mut S, request: R) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = pin!(service.call(request));
    // Dropped in place: looking at the response would move it.
    assert!(
        future.as_mut().poll(&mut context).is_ready(),
        "a warm request waits"
    );
}

/// The same, but returns the response.
#[inline]
pub fn exchange<R, S: Service<R>>(service: &mut S, request: R) -> S::Response {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = pin!(service.call(request));
    match future.as_mut().poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(_)) => panic!("a warm request fails"),
        Poll::Pending => panic!("a warm request waits"),
    }
}

/// As long as a real token.
pub fn secret() -> String {
    "x".repeat(1024)
}

/// Different scopes for each number.
pub fn scopes(number: usize) -> Scopes {
    Scopes::new([format!("https://www.googleapis.com/auth/bench-{number}")]).expect("valid")
}

/// A cache that holds a token for each of the requests.
pub fn warm_cache(requests: &[TokenRequest]) -> TokenCache {
    let source = source::from_fn(|_: TokenRequest| async {
        Ok::<_, Infallible>(Token::new(secret(), Duration::from_secs(86_400)))
    });
    let cache = TokenCache::builder(source)
        .max_tokens(1_000)
        .build()
        .expect("in range");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for request in requests {
        runtime.block_on(cache.token(request)).expect("a token");
    }
    cache
}
