//! The warm path allocates nothing, a clone allocates nothing, and a body of any length passes through.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tower::{Layer, Service};
use tower_scoped_auth::{
    Destinations, ScopedAuth, ScopedAuthLayer, Token, TokenCache, TokenRequest, source,
};

/// Counts this thread's allocations and live bytes.
struct Tap;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

#[allow(unsafe_code)]
// SAFETY: every call is passed on unchanged to the system allocator.
unsafe impl GlobalAlloc for Tap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        LIVE.set(LIVE.get() + layout.size().cast_signed());
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size().cast_signed());
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static TAP: Tap = Tap;

/// Ready at once, allocates nothing, gives the request back.
#[derive(Clone)]
struct Echo;

impl<B> Service<Request<B>> for Echo {
    type Response = Response<Request<B>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(Response::new(request)))
    }
}

async fn warm(destinations: Destinations) -> ScopedAuth<Echo> {
    let source = source::from_fn(|_: TokenRequest| async {
        Ok::<_, Infallible>(Token::new("x".repeat(1024), Duration::from_secs(3600)))
    });
    let cache = TokenCache::new(source);
    let layer = ScopedAuthLayer::from_cache(cache).destinations(destinations);
    let mut client = layer.layer(Echo);
    // The first request fetches; the second gives this thread its number.
    for _ in 0..2 {
        client.call(request(())).await.unwrap();
    }
    client
}

/// Has room for the header: growing the header map does not count against this crate.
fn request<B>(body: B) -> Request<B> {
    let mut request = Request::get("https://storage.googleapis.com/bucket")
        .body(body)
        .unwrap();
    request.headers_mut().reserve(8);
    request
        .headers_mut()
        .insert(AUTHORIZATION, HeaderValue::from_static("x"));
    request.headers_mut().remove(AUTHORIZATION);
    request
}

#[tokio::test]
async fn s130_a_warm_request_allocates_nothing() {
    let many = (0..100).map(|n| format!("https://*.host-{n}.example"));
    let many = Destinations::only(many.chain(["https://*.googleapis.com".to_owned()])).unwrap();
    for destinations in [
        Destinations::google_apis(),
        many,
        Destinations::danger_trust_inner(),
    ] {
        let mut client = warm(destinations).await;
        let requests: Vec<_> = (0..1_000).map(|_| request(())).collect();
        let mut context = Context::from_waker(Waker::noop());
        let before = COUNT.get();
        let mut stamped = 0;
        for request in requests {
            let ready = Service::<Request<()>>::poll_ready(&mut client, &mut context);
            assert!(matches!(ready, Poll::Ready(Ok(()))));
            let mut response = std::pin::pin!(client.call(request));
            match response.as_mut().poll(&mut context) {
                Poll::Ready(Ok(response)) => {
                    let headers = response.body().headers();
                    stamped += usize::from(headers[AUTHORIZATION].is_sensitive());
                }
                _ => panic!("a warm request waits"),
            }
        }
        assert_eq!(COUNT.get() - before, 0, "allocations of 1,000 requests");
        assert_eq!(stamped, 1_000);
    }
}

#[tokio::test]
async fn s119_a_million_clones_allocate_nothing() {
    let client = warm(Destinations::google_apis()).await;
    let before = COUNT.get();
    for _ in 0..1_000_000 {
        drop(client.clone());
    }
    assert_eq!(COUNT.get() - before, 0);
}

#[tokio::test]
async fn s127_a_body_of_a_gibibyte_passes_through() {
    const CHUNK: usize = 1024 * 1024;
    static ZEROES: [u8; CHUNK] = [0; CHUNK];
    let mut client = warm(Destinations::google_apis()).await;
    let frames = (0..1024).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&ZEROES))));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let before = LIVE.get();
    let response = client.call(request(body)).await.unwrap();
    let mut body = response.into_body().into_body();
    let (mut bytes, mut most) = (0_u64, 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len() as u64;
        most = most.max(LIVE.get() - before);
    }
    assert_eq!(bytes, 1 << 30);
    assert!(most < 1 << 20, "{most} bytes");
}
