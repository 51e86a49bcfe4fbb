//! 100,000 first requests at once, the metadata server answering in 200 ms: this crate beside
//! google-cloud-auth, by turns, in one process.
//!
//! `cargo run --release --bin herd` in this folder.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    convert::Infallible,
    future::{Future, Ready, ready},
    sync::atomic::{AtomicIsize, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use google_cloud_auth::credentials::mds;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use tower::{Layer, Service, ServiceExt};
use tower_scoped_auth::{
    MetadataServer, ScopedAuthLayer,
    emulator::{Emulator, Fault},
};

const REQUESTS: usize = 100_000;
const DELAY: Duration = Duration::from_millis(200);
const ROUNDS: usize = 5;

/// Live bytes and their peak.
struct Tap;
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

unsafe impl GlobalAlloc for Tap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size().cast_signed();
        PEAK.fetch_max(LIVE.fetch_add(size, Ordering::Relaxed) + size, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static TAP: Tap = Tap;

/// Ready at once; drops the request.
#[derive(Clone)]
struct Sink;

impl Service<Request<()>> for Sink {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(request.headers().contains_key(AUTHORIZATION));
        ready(Ok(Response::new(())))
    }
}

fn get() -> Request<()> {
    Request::get("https://storage.googleapis.com/bucket").body(()).expect("valid")
}

/// Time beyond the server's 200 ms, peak heap per request, token requests.
async fn round<F, T>(mds: &Emulator, one: impl Fn() -> F) -> (Duration, isize, u64)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    mds.fault(Fault::delay(DELAY).forever());
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..REQUESTS).map(|_| tokio::spawn(one())).collect();
    for task in tasks {
        task.await.expect("no request fails");
    }
    let took = begun.elapsed().saturating_sub(DELAY);
    let peak = PEAK.load(Ordering::Relaxed) - before;
    (took, peak / REQUESTS.cast_signed(), mds.token_requests())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    println!("{REQUESTS} first requests, the metadata server answers in {DELAY:?}\n");
    println!("| round | crate | beyond the 200 ms | bytes per waiter, task included | token requests |");
    println!("| --- | --- | --- | --- | --- |");
    for number in 1..=ROUNDS {
        let mds = Emulator::builder().start().await.expect("a port");
        let source = MetadataServer::builder().endpoint(mds.endpoint()).build().expect("valid");
        let client = ScopedAuthLayer::new(source).layer(Sink);
        let ours = round(&mds, || {
            let client = client.clone();
            async move { client.oneshot(get()).await.expect("a token") }
        });
        report(number, "tower-scoped-auth", ours.await);

        let mds = Emulator::builder().start().await.expect("a port");
        let builder = mds::Builder::default().with_endpoint(mds.endpoint());
        let credentials = builder.build_access_token_credentials().expect("valid");
        let theirs = round(&mds, || {
            let credentials = credentials.clone();
            async move {
                let token = credentials.access_token().await.expect("a token");
                let mut request = get();
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.token)).expect("valid");
                value.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, value);
                Sink.oneshot(request).await
            }
        });
        report(number, "google-cloud-auth", theirs.await);
    }
}

fn report(number: usize, name: &str, (took, bytes, requests): (Duration, isize, u64)) {
    println!("| {number} | {name} | {:.3} s | {bytes} | {requests} |", took.as_secs_f64());
}
