//! Group G: foreign code panics, and this crate goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use http::StatusCode;
use support::{Answer, BUCKET, Inner, Script, TraceTap, auth_error, send};
use tokio::time::{Instant, sleep, sleep_until};
use tower::Layer;
use tower_scoped_auth::{
    ScopedAuthLayer, Token, TokenCache, TokenRequest, TokenSource,
    sources::{FirstOf, Fixed},
    test_util::TestClock,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn layer(source: impl TokenSource) -> ScopedAuthLayer {
    let cache = TokenCache::builder(source)
        .clock(TestClock::new())
        .build()
        .unwrap();
    ScopedAuthLayer::from_cache(cache)
}

/// Panics while `now` is set: before it returns a future, or inside the future.
struct Panics {
    inside: bool,
    now: Arc<AtomicBool>,
    good: Script,
}

impl TokenSource for Panics {
    type Error = support::script::ScriptError;

    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<Token, Self::Error>> + Send {
        if !self.inside && self.now.load(Ordering::SeqCst) {
            panic!("out of luck");
        }
        async move {
            tokio::task::yield_now().await;
            if self.now.load(Ordering::SeqCst) {
                panic!("out of luck");
            }
            self.good.fetch(request).await
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s095_a_source_that_panics_at_first() {
    for inside in [false, true] {
        let now = Arc::new(AtomicBool::new(true));
        let source = Panics {
            inside,
            now: now.clone(),
            good: Script::tokens(3599),
        };
        let client = layer(source).layer(Inner::new());
        let begun = Instant::now();
        let error = send(&client, BUCKET).await.unwrap_err();
        assert!(begun.elapsed() <= secs(30), "{:?}", begun.elapsed());
        assert!(
            auth_error(&error).to_string().contains("panicked"),
            "{error}"
        );
        now.store(false, Ordering::SeqCst);
        let healed = Instant::now();
        while send(&client, BUCKET).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
        assert!(healed.elapsed() <= secs(11), "{:?}", healed.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn s096_a_source_that_panics_in_a_refresh() {
    let (tap, _guard) = TraceTap::install();
    let now = Arc::new(AtomicBool::new(false));
    let source = Panics {
        inside: true,
        now: now.clone(),
        good: Script::tokens(3599),
    };
    let inner = Inner::new();
    let client = layer(source).layer(inner.clone());
    let begun = Instant::now();
    send(&client, BUCKET).await.unwrap();
    now.store(true, Ordering::SeqCst);
    sleep_until(begun + secs(3420)).await;
    for _ in 0..5 {
        send(&client, BUCKET)
            .now_or_never()
            .expect("nobody waits")
            .unwrap();
        sleep(secs(1)).await;
    }
    assert!(tap.text().contains("out of luck"), "{}", tap.text());
    assert_eq!(tap.count("ERROR"), 1, "{}", tap.text());
    now.store(false, Ordering::SeqCst);
    for _ in 0..20 {
        send(&client, BUCKET).await.unwrap();
        sleep(secs(1)).await;
    }
    assert_eq!(inner.last_token().unwrap(), "tok-2");
}

#[tokio::test(start_paused = true)]
async fn s100_whatever_panics_around_us_leaves_nothing_poisoned() {
    // The inner service.
    let bad = Arc::new(AtomicBool::new(true));
    let flag = bad.clone();
    let inner = Inner::answering(move |_| {
        assert!(!flag.load(Ordering::SeqCst), "inner panics");
        StatusCode::OK
    });
    let client = layer(Script::tokens(3599)).layer(inner.clone());
    for _ in 0..10 {
        let unwound = AssertUnwindSafe(send(&client, BUCKET)).catch_unwind().await;
        assert!(unwound.is_err());
    }
    // A subscriber, while it is told about an attempt.
    let failing = Script::new(|call| match call.at.as_secs() {
        0..10 => Answer::failure("broken"),
        _ => Answer::token("tok", 3599),
    });
    let other = layer(failing).layer(Inner::new());
    {
        let _guard = tracing::subscriber::set_default(PanickingSubscriber);
        let _ = AssertUnwindSafe(send(&other, BUCKET)).catch_unwind().await;
        sleep(secs(10)).await;
    }
    // A waker, when the token arrives.
    let slow = Script::new(|_| Answer::token("tok", 3599).after(secs(1)));
    let third = layer(slow).layer(Inner::new());
    {
        let mut request = Box::pin(send(&third, BUCKET));
        poll_to_panic_later(request.as_mut());
        let waiting = tokio::spawn({
            let third = third.clone();
            async move { send(&third, BUCKET).await.map(drop) }
        });
        sleep(secs(2)).await;
        waiting.await.unwrap().unwrap();
    }
    bad.store(false, Ordering::SeqCst);
    for client in [&client, &other, &third] {
        for _ in 0..1_000 {
            send(client, BUCKET).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s100_a_waker_of_keep_fresh_that_panics_is_nobody_elses_trouble() {
    let (tap, _guard) = TraceTap::install();
    let slow = Script::new(|_| Answer::token("tok", 3599).after(secs(1)));
    let cache = TokenCache::builder(slow).clock(TestClock::new());
    let request = TokenRequest::access_token(Default::default());
    let cache = cache.build().unwrap();
    let mut kept = Box::pin(cache.keep_fresh(&request));
    poll_to_panic_later(kept.as_mut());
    cache.token(&request).await.unwrap();
    sleep(secs(1)).await;
    assert!(tap.text().contains("token fetched"), "{}", tap.text());
}

/// Panics when it is dropped, unless the thread is already panicking.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a destructor panics");
    }
}

/// Hangs, and panics when it is abandoned.
struct Hangs;

impl TokenSource for Hangs {
    type Error = Infallible;

    async fn fetch(&self, _: TokenRequest) -> Result<Token, Infallible> {
        let _bomb = Bomb;
        std::future::pending().await
    }

    fn attempt_timeout(&self) -> Duration {
        secs(1)
    }
}

#[tokio::test(start_paused = true)]
async fn s095_a_source_that_panics_when_it_is_given_up_has_failed() {
    let (tap, _guard) = TraceTap::install();
    let client = layer(Hangs).layer(Inner::new());
    let error = send(&client, BUCKET).await.unwrap_err();
    assert!(error.to_string().contains("within 1s"), "{error}");
    // The second request already knows of the failure.
    let asked = Instant::now();
    send(&client, BUCKET).await.unwrap_err();
    assert!(asked.elapsed() < secs(3), "{:?}", asked.elapsed());
    assert!(tap.text().contains("a destructor panics"), "{}", tap.text());

    let others = FirstOf::new(Hangs).or(Fixed::new("tok"));
    let inner = Inner::new();
    let client = layer(others).layer(inner.clone());
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.last_token().unwrap(), "tok");
}

#[tokio::test(start_paused = true)]
async fn s100_a_subscriber_that_panics_over_a_source_that_panics_ends_an_attempt_not_the_process() {
    let now = Arc::new(AtomicBool::new(true));
    let source = Panics {
        inside: true,
        now: now.clone(),
        good: Script::tokens(3599),
    };
    let client = layer(source).layer(Inner::new());
    {
        let _guard = tracing::subscriber::set_default(PanickingSubscriber);
        let error = send(&client, BUCKET).await.unwrap_err();
        let error = auth_error(&error).to_string();
        assert!(error.contains("the token source panicked"), "{error}");
    }
    now.store(false, Ordering::SeqCst);
    sleep(secs(10)).await;
    send(&client, BUCKET).await.unwrap();
}

/// Polls once, pending, with a waker that panics.
fn poll_to_panic_later(future: Pin<&mut impl Future>) {
    let waker = std::task::Waker::from(Arc::new(PanickingWaker));
    let poll = future.poll(&mut std::task::Context::from_waker(&waker));
    assert!(poll.is_pending());
}

struct PanickingWaker;

impl std::task::Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

struct PanickingSubscriber;

impl tracing::Subscriber for PanickingSubscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_scoped_auth")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        panic!("a subscriber panics");
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn s102_a_source_that_blocks_its_thread_blocks_no_warm_request() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let release = Arc::new(AtomicBool::new(false));
    let blocked = Arc::new(AtomicBool::new(false));
    let (hold, at) = (release.clone(), blocked.clone());
    let source = tower_scoped_auth::source::from_fn(move |request: TokenRequest| {
        let (hold, at) = (hold.clone(), at.clone());
        async move {
            if request.scopes().is_some_and(|scopes| !scopes.is_empty()) {
                at.store(true, Ordering::SeqCst);
                while !hold.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
            }
            Ok::<_, Infallible>(Token::new("tok", secs(3599)))
        }
    });
    let cache = TokenCache::new(source);
    let inner = Inner::new();
    let warm = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
    let scopes = tower_scoped_auth::Scopes::new(["slow"]).unwrap();
    let slow = ScopedAuthLayer::from_cache(cache)
        .scopes(scopes)
        .layer(inner);
    runtime.block_on(send(&warm, BUCKET)).unwrap();
    let waiting = runtime.spawn(async move { send(&slow, BUCKET).await.map(drop) });
    while !blocked.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    // One worker spins; this thread drives what follows.
    for _ in 0..1_000 {
        runtime.block_on(send(&warm, BUCKET)).unwrap();
    }
    release.store(true, Ordering::SeqCst);
    runtime.block_on(waiting).unwrap().unwrap();
}
