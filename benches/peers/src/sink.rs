//! The inner service, and the request sent to it. Its body and error types are ones that every peer
//! accepts.

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::Empty;
use tower::{BoxError, Service};

pub type Body = Empty<Bytes>;

/// Ready at once; drops the request.
#[derive(Clone)]
pub struct Sink;

impl Service<Request<Body>> for Sink {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(Body::new())))
    }
}

/// Ready at once; fails unless the request carries the token that the server gave out.
#[derive(Clone)]
pub struct Check;

impl Service<Request<Body>> for Check {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let values: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
        assert_eq!(
            values,
            [&format!("Bearer {}", crate::secret())],
            "what was sent"
        );
        ready(Ok(Response::new(Body::new())))
    }
}

/// A parsed URI and three headers.
pub fn request() -> Request<Body> {
    Request::get("https://storage.googleapis.com/storage/v1/b/bucket/o")
        .header("accept", "application/json")
        .header("user-agent", "bench")
        .header("x-goog-api-client", "bench/1")
        .body(Body::new())
        .expect("valid")
}

/// Drives a request from readiness to the response and its drop. A warm request waits for nothing.
#[inline]
pub fn drive<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = pin!(service.call(request));
    // Dropped in place: looking at the response would move it.
    assert!(
        future.as_mut().poll(&mut context).is_ready(),
        "a warm request waits"
    );
}
