//! Groups E and I: what Tower requires of a middleware, poll by poll, and the stacks that it is part of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, Ready, pending, ready},
    marker::PhantomData,
    panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use support::{Answer, BUCKET, FakeMds, Inner, Reply, Script, TraceTap, auth_error, get, send};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    limit::{ConcurrencyLimit, ConcurrencyLimitLayer},
    load::Constant,
    load_shed::{LoadShed, error::Overloaded},
    retry::{Policy, Retry},
    service_fn,
    steer::Steer,
    util::{BoxCloneService, BoxCloneSyncService},
};
use tower_scoped_auth::{
    Audience, Destinations, ResponseFuture, RetryUnauthorized, ScopedAuth, ScopedAuthLayer, Scopes,
    Token, TokenCache, TokenRequest, source, test_util::TestClock,
};
use tower_test::mock;
use tracing::{Instrument, Span};

type Mock = mock::Mock<Request<()>, Response<()>>;
type MockHandle = mock::Handle<Request<()>, Response<()>>;

const EVIL: &str = "https://evil.example/";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn cache(source: &Script) -> TokenCache {
    TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap()
}

fn auth(source: &Script) -> ScopedAuthLayer {
    ScopedAuthLayer::from_cache(cache(source))
}

/// A layer that already has its token.
async fn warm(source: &Script) -> ScopedAuthLayer {
    let cache = cache(source);
    let request = TokenRequest::access_token(Scopes::default());
    cache.token(&request).await.unwrap();
    ScopedAuthLayer::from_cache(cache)
}

/// `tok-1`, `tok-2`, …, each after this long.
fn slow(after: Duration) -> Script {
    Script::new(move |call| Answer::token(format!("tok-{}", call.number), 3599).after(after))
        .with_timeout(secs(60))
}

/// Would a clone of `service` be ready now? Leaves `service` as it is.
fn has_room<S: Service<Request<()>> + Clone>(service: &S) -> bool {
    let mut clone = service.clone();
    let mut task = task::spawn(());
    task.enter(|cx, _| clone.poll_ready(cx)).is_ready()
}

async fn made_ready<S: Service<Request<()>, Error: std::fmt::Debug>>(service: &mut S) -> &mut S {
    ServiceExt::ready(service).await.unwrap()
}

fn limited(inner: &Inner) -> ConcurrencyLimit<Inner> {
    ConcurrencyLimitLayer::new(1).layer(inner.clone())
}

// Cancellation.

#[tokio::test(start_paused = true)]
async fn s075_dropped_before_the_first_poll() {
    let (source, inner) = (slow(millis(300)), Inner::new());
    let limit = limited(&inner);
    let mut client = auth(&source).layer(limit.clone());
    made_ready(&mut client).await;
    assert!(!has_room(&limit));
    let response = client.call(get(BUCKET));
    drop(response);
    assert!(has_room(&limit), "the reservation is released");
    sleep(secs(1)).await;
    assert_eq!(inner.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn s076_dropped_while_waiting_for_the_token() {
    let (source, inner) = (slow(millis(300)), Inner::new());
    let limit = limited(&inner);
    let mut client = auth(&source).layer(limit.clone());
    let mut response = task::spawn(made_ready(&mut client).await.call(get(BUCKET)));
    assert_pending!(response.poll());
    assert!(!has_room(&limit));
    drop(response);
    assert!(has_room(&limit), "in the same tick");
    sleep(millis(301)).await;
    assert_eq!((source.calls(), inner.calls()), (1, 0));

    let mut response = task::spawn(made_ready(&mut client).await.call(get(BUCKET)));
    assert_ready_ok!(response.poll());
    assert_eq!(source.calls(), 1, "the fetch went on");
    assert_eq!(inner.tokens(), ["tok-1"]);
}

/// Counts drops.
struct Bell(Arc<AtomicUsize>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn s078_dropped_after_inner_was_called() {
    let (called, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (calls, drops) = (Arc::clone(&called), Arc::clone(&dropped));
    let inner = service_fn(move |_: Request<()>| {
        calls.fetch_add(1, Ordering::SeqCst);
        let bell = Bell(Arc::clone(&drops));
        async move {
            let _bell = bell;
            pending::<Result<Response<()>, Infallible>>().await
        }
    });
    let mut client = auth(&slow(millis(300))).layer(inner);
    for (number, way) in ["cold", "warm"].into_iter().enumerate() {
        let mut response = task::spawn(made_ready(&mut client).await.call(get(BUCKET)));
        assert_pending!(response.poll());
        sleep(millis(301)).await;
        assert_pending!(response.poll());
        assert_eq!(called.load(Ordering::SeqCst), number + 1, "{way}");
        assert_eq!(dropped.load(Ordering::SeqCst), number, "{way}");
        drop(response);
        assert_eq!(dropped.load(Ordering::SeqCst), number + 1, "{way}");
    }
}

// Readiness.

#[tokio::test(start_paused = true)]
async fn s112_strict_inner() {
    let (source, inner) = (slow(millis(300)), Inner::new());
    let client = auth(&source).layer(inner.clone());
    for way in ["cold", "warm"] {
        let requests = (0..250).map(|_| send(&client, BUCKET));
        for result in join_all(requests).await {
            result.unwrap_or_else(|error| panic!("{way}: {error}"));
        }
        // One instance over and over, with refusals in between.
        let mut one = client.clone();
        for _ in 0..250 {
            made_ready(&mut one)
                .await
                .call(get(EVIL))
                .await
                .unwrap_err();
            made_ready(&mut one).await.call(get(BUCKET)).await.unwrap();
        }
    }
    assert_eq!((source.calls(), inner.calls()), (1, 1_000));
}

#[tokio::test(start_paused = true)]
async fn s112_one_instance_may_have_many_requests_waiting() {
    let (source, inner) = (slow(millis(300)), Inner::new());
    let mut client = auth(&source).layer(inner.clone());
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(made_ready(&mut client).await.call(get(BUCKET)));
    }
    for result in join_all(waiting).await {
        result.unwrap();
    }
    assert_eq!((source.calls(), inner.calls()), (1, 100));
}

#[tokio::test(start_paused = true)]
async fn s113_readiness_passes_through() {
    for layer in [
        auth(&Script::tokens(3599)),
        warm(&Script::tokens(3599)).await,
    ] {
        let (mock, mut handle): (Mock, MockHandle) = mock::pair();
        handle.allow(0);
        let mut client = layer.layer(mock);
        let (mut a, mut b) = (task::spawn(()), task::spawn(()));
        assert_pending!(a.enter(|cx, _| client.poll_ready(cx)));
        assert_pending!(b.enter(|cx, _| client.poll_ready(cx)));
        handle.allow(1);
        assert!(b.is_woken(), "the task that polled last");
        assert!(!a.is_woken());
        assert_ready_ok!(b.enter(|cx, _| client.poll_ready(cx)));
    }
}

#[tokio::test(start_paused = true)]
async fn s114_token_trouble_never_kills_the_service() {
    let source = Script::new(|call| {
        if call.at < secs(60) {
            Answer::failure("down")
        } else {
            Answer::token("tok-1", 3599)
        }
    });
    let inner = Inner::new();
    let mut client = auth(&source).layer(inner.clone());
    let begun = Instant::now();
    let mut errors = 0;
    while begun.elapsed() < secs(71) {
        assert!(has_room(&client), "ready, at {:?}", begun.elapsed());
        match made_ready(&mut client).await.call(get(BUCKET)).await {
            Ok(_) => break,
            Err(error) => {
                assert!(auth_error(&error).is_transient());
                errors += 1;
            }
        }
        sleep(millis(250)).await;
    }
    assert!(errors > 2, "{errors}");
    assert_eq!(inner.tokens(), ["tok-1"], "the same instance, healed");
}

#[tokio::test(start_paused = true)]
async fn s114_an_inner_that_fails_to_get_ready_is_passed_on() {
    for layer in [
        auth(&Script::tokens(3599)),
        warm(&Script::tokens(3599)).await,
    ] {
        let (mock, mut handle): (Mock, MockHandle) = mock::pair();
        let mut client = layer.layer(mock);
        handle.send_error("inner is broken");
        let mut task = task::spawn(());
        let error = assert_ready_err!(task.enter(|cx, _| client.poll_ready(cx)));
        assert_eq!(error.to_string(), "inner is broken");
    }
}

#[tokio::test(start_paused = true)]
async fn s115_at_most_one_inner_call() {
    let inner = Inner::new();
    let limit = limited(&inner);

    // Cold, then warm.
    let mut client = auth(&slow(millis(300))).layer(limit.clone());
    for calls in 1..=2 {
        let mut response = task::spawn(made_ready(&mut client).await.call(get(BUCKET)));
        let _ = response.poll();
        sleep(millis(301)).await;
        if calls == 1 {
            assert!(response.is_woken());
            assert_ready_ok!(response.poll());
        }
        assert_eq!(inner.calls(), calls);
        drop(response);
        assert!(has_room(&limit));
    }

    // No token can be fetched.
    let hopeless = Script::new(|_| Answer::failure("down"));
    let mut client = auth(&hopeless).layer(limit.clone());
    let mut response = task::spawn(made_ready(&mut client).await.call(get(BUCKET)));
    assert_pending!(response.poll());
    let begun = Instant::now();
    let error = loop {
        if let Poll::Ready(result) = response.poll() {
            break result.unwrap_err();
        }
        assert!(!has_room(&limit));
        assert!(begun.elapsed() <= secs(31));
        sleep(secs(1)).await;
    };
    assert!(auth_error(&error).is_transient());
    assert!(has_room(&limit), "free, and the future not even dropped");
    drop(response);

    // Not an allowed destination.
    let refused = made_ready(&mut client).await.call(get(EVIL));
    assert!(has_room(&limit), "free, and the future not even polled");
    refused.await.unwrap_err();
    assert_eq!(inner.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s116_ready_without_call_leaks_no_permit() {
    let limit = limited(&Inner::new());
    let buffer = Buffer::new(Inner::new(), 2);
    for layer in [
        auth(&Script::tokens(3599)),
        warm(&Script::tokens(3599)).await,
    ] {
        for _ in 0..3 {
            let mut client = layer.layer(limit.clone());
            for _ in 0..3 {
                made_ready(&mut client).await;
            }
            assert!(!has_room(&limit));
            drop(client);
            assert!(has_room(&limit));

            let mut clients = [layer.layer(buffer.clone()), layer.layer(buffer.clone())];
            for client in &mut clients {
                for _ in 0..3 {
                    made_ready(client).await;
                }
            }
            assert!(!has_room(&buffer), "two places, both taken");
            drop(clients);
            assert!(has_room(&buffer));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_outside_is_held_during_the_wait_for_a_token_as_well() {
    let limit = ConcurrencyLimitLayer::new(1);
    let limit = limit.layer(auth(&slow(secs(10))).layer(Inner::new()));
    let mut response = task::spawn(limit.clone().oneshot(get(BUCKET)));
    assert_pending!(response.poll());
    sleep(secs(9)).await;
    assert!(!has_room(&limit));
    sleep(millis(1_001)).await;
    assert_ready_ok!(response.poll());
    drop(response);
    assert!(has_room(&limit));
}

/// What the documentation of `ScopedAuth` says under "Readiness".
#[tokio::test(start_paused = true)]
async fn s117_a_request_that_waits_for_its_token_holds_the_permit() {
    let (source, inner) = (slow(secs(10)), Inner::new());
    let limit = limited(&inner);
    let mut client = auth(&source).layer(limit.clone());
    let mut first = task::spawn(made_ready(&mut client).await.call(get(BUCKET)));
    assert_pending!(first.poll());
    sleep(millis(100)).await;
    assert!(!has_room(&limit), "held");
    assert!(!has_room(&client), "for its clones as well");
    drop(first);
    assert!(has_room(&limit), "until the future goes");

    let mut second = task::spawn(made_ready(&mut client).await.call(get(BUCKET)));
    assert_pending!(second.poll());
    assert!(!has_room(&limit));
    sleep(secs(10)).await;
    assert_ready_ok!(second.poll());
    drop(second);
    assert!(has_room(&limit), "or is done");
}

#[tokio::test(start_paused = true)]
async fn s118_no_self_deadlock() {
    let inner = Inner::new();
    let limit = limited(&inner);
    let through = limit.clone();
    let source = source::from_fn(move |_: TokenRequest| {
        let through = through.clone();
        async move {
            through.oneshot(get("https://tokens.example/")).await?;
            Ok::<_, BoxError>(Token::new("tok-1", secs(3599)))
        }
    });
    let cache = TokenCache::builder(source)
        .clock(TestClock::new())
        .build()
        .unwrap();
    let client = ScopedAuthLayer::from_cache(cache).layer(limit.clone());
    let begun = Instant::now();
    let error = send(&client, BUCKET).await.unwrap_err();
    assert!(auth_error(&error).is_timeout(), "{error}");
    assert!(begun.elapsed() <= secs(30), "{:?}", begun.elapsed());
    // With the permit free, the source gets through.
    sleep(secs(11)).await;
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.last_token().unwrap(), "tok-1");
}

#[tokio::test(start_paused = true)]
async fn s119_a_clone_is_ready_after_its_own_poll_ready_only() {
    let source = Script::tokens(3599);
    let mut client = warm(&source).await.layer(Inner::new());
    made_ready(&mut client).await;
    let mut clone = client.clone();
    let unready = catch_unwind(AssertUnwindSafe(|| drop(clone.call(get(BUCKET)))));
    let message = *unready.unwrap_err().downcast::<&'static str>().unwrap();
    assert_eq!(message, "called without being ready");
    client.call(get(BUCKET)).await.unwrap();
    made_ready(&mut clone)
        .await
        .call(get(BUCKET))
        .await
        .unwrap();
    assert_eq!(source.calls(), 1, "clones share the token");
}

// Errors.

#[derive(Debug, PartialEq)]
struct Boom(u32);

impl std::fmt::Display for Boom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "boom {}", self.0)
    }
}

impl std::error::Error for Boom {}

#[tokio::test(start_paused = true)]
async fn s120_an_inner_error_comes_back_as_it_was() {
    let inner = service_fn(|_: Request<()>| async { Err::<Response<()>, _>(Boom(7)) });
    let mut client = auth(&slow(millis(300))).layer(inner);
    for way in ["cold", "warm"] {
        let result = made_ready(&mut client).await.call(get(BUCKET)).await;
        let error = result.unwrap_err().downcast::<Boom>().expect(way);
        assert_eq!(*error, Boom(7));
    }
    // A boxed error is not boxed again.
    let inner =
        service_fn(|_: Request<()>| async { Err::<Response<()>, BoxError>(Boom(8).into()) });
    let error = auth(&Script::tokens(60))
        .layer(inner)
        .oneshot(get(BUCKET))
        .await
        .unwrap_err();
    assert_eq!(*error.downcast::<Boom>().unwrap(), Boom(8));
}

#[tokio::test]
async fn s120_token_errors_say_what_they_are() {
    let mds = FakeMds::start(|_| Reply::status(503, "", "internal-secret"));
    // Longer than one exchange takes on a machine that is busy with other work.
    let cache = TokenCache::builder(mds.source())
        .max_wait(millis(1500))
        .build()
        .unwrap();
    let client = ScopedAuthLayer::from_cache(cache).layer(Inner::new());
    let error = send(&client, BUCKET).await.unwrap_err();
    let error = auth_error(&error);
    assert!(error.is_transient() && !error.is_destination(), "{error}");
    assert_eq!(error.status(), Some(503));
    assert!(error.attempts() >= 1);

    let error = send(&client, EVIL).await.unwrap_err();
    let error = auth_error(&error);
    assert!(error.is_destination() && !error.is_transient(), "{error}");
    assert_eq!((error.status(), error.attempts()), (None, 0));
}

// Under other middleware.

#[tokio::test(start_paused = true)]
async fn s121_load_shed_outside_sheds_for_inner_never_for_the_token() {
    let (mock, mut handle): (Mock, MockHandle) = mock::pair();
    handle.allow(0);
    let shed = LoadShed::new(auth(&Script::tokens(3599)).layer(mock));
    let error = shed.oneshot(get(BUCKET)).await.unwrap_err();
    assert!(error.is::<Overloaded>(), "{error}");

    let inner = Inner::new();
    let shed = LoadShed::new(auth(&slow(secs(2))).layer(inner.clone()));
    let requests = (0..100).map(|_| shed.clone().oneshot(get(BUCKET)));
    for result in join_all(requests).await {
        result.unwrap();
    }
    assert_eq!(inner.calls(), 100);
}

#[tokio::test(start_paused = true)]
async fn s123_buffer_outside() {
    let (source, inner) = (slow(millis(300)), Inner::new());
    let buffer = Buffer::new(auth(&source).layer(inner.clone()), 10);
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..100 {
        tasks.push(tokio::spawn(buffer.clone().oneshot(get(BUCKET))));
    }
    sleep(millis(100)).await;
    for task in &tasks[50..] {
        task.abort();
    }
    for task in tasks.drain(..50) {
        task.await.unwrap().unwrap();
    }
    assert!(begun.elapsed() <= secs(1), "{:?}", begun.elapsed());
    sleep(secs(10)).await;
    assert_eq!((source.calls(), inner.calls()), (1, 50));
}

/// Retries a request once after a 503, by which time another token is in place.
#[derive(Clone)]
struct Swap {
    cache: TokenCache,
    spent: bool,
}

impl Policy<Request<()>, Response<()>, BoxError> for Swap {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _request: &mut Request<()>,
        result: &mut Result<Response<()>, BoxError>,
    ) -> Option<Self::Future> {
        let unavailable = result.as_ref().ok()?.status() == StatusCode::SERVICE_UNAVAILABLE;
        if !unavailable || std::mem::replace(&mut self.spent, true) {
            return None;
        }
        let cache = self.cache.clone();
        Some(Box::pin(async move {
            let request = TokenRequest::access_token(Scopes::default());
            let token = cache.token(&request).await.unwrap();
            assert!(cache.invalidate(&token));
            cache.token(&request).await.unwrap();
        }))
    }

    fn clone_request(&mut self, request: &Request<()>) -> Option<Request<()>> {
        let mut clone = get("/");
        *clone.uri_mut() = request.uri().clone();
        *clone.headers_mut() = request.headers().clone();
        Some(clone)
    }
}

#[tokio::test(start_paused = true)]
async fn s125_retry_outside_stamps_each_attempt_anew() {
    let source = Script::tokens(3599);
    let cache = cache(&source);
    for replace in [false, true] {
        let inner = Inner::answering(|seen| match seen.token().unwrap() {
            "tok-1" | "tok-3" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        });
        let mut layer = ScopedAuthLayer::from_cache(cache.clone());
        let mut request = get(BUCKET);
        if replace {
            layer = layer.replace_authorization();
            let theirs = HeaderValue::from_static("Bearer theirs");
            request.headers_mut().insert("authorization", theirs);
            let token = TokenRequest::access_token(Scopes::default());
            let token = cache.token(&token).await.unwrap();
            assert!(cache.invalidate(&token));
        }
        let swap = Swap {
            cache: cache.clone(),
            spent: false,
        };
        let client = Retry::new(swap, layer.layer(inner.clone()));
        let response = client.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let expected = if replace {
            ["tok-3", "tok-4"]
        } else {
            ["tok-1", "tok-2"]
        };
        assert_eq!(inner.tokens(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_outside_and_inside() {
    let inner = Inner::new();
    let client = ServiceBuilder::new()
        .timeout(millis(100))
        .layer(auth(&slow(millis(300))))
        .timeout(secs(1))
        .service(inner.clone());
    let error = client.clone().oneshot(get(BUCKET)).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    sleep(millis(300)).await;
    client.oneshot(get(BUCKET)).await.unwrap();
    assert_eq!(inner.tokens(), ["tok-1"]);
}

#[tokio::test(start_paused = true)]
async fn rate_limit_outside_and_behind_a_buffer_inside() {
    let inner = Inner::new();
    let begun = Instant::now();
    let mut outside = ServiceBuilder::new()
        .rate_limit(2, secs(1))
        .layer(auth(&Script::tokens(3599)))
        .service(inner.clone());
    for _ in 0..6 {
        made_ready(&mut outside)
            .await
            .call(get(BUCKET))
            .await
            .unwrap();
    }
    assert_eq!(begun.elapsed().as_secs(), 2, "{:?}", begun.elapsed());

    // A `RateLimit` is not `Clone`, hence the `Buffer`.
    let begun = Instant::now();
    let inside = ServiceBuilder::new()
        .layer(auth(&slow(millis(300))))
        .buffer(10)
        .rate_limit(2, secs(1))
        .service(inner.clone());
    let requests = (0..6).map(|_| inside.clone().oneshot(get(BUCKET)));
    for result in join_all(requests).await {
        result.unwrap();
    }
    assert_eq!(begun.elapsed().as_secs(), 2, "{:?}", begun.elapsed());
    assert_eq!(inner.calls(), 12);
}

// What a token has left where its request arrives.

/// Each token is named after the time at which it expires, in milliseconds since the source was made.
fn named_after_their_expiry(life: Duration, latency: Duration) -> Script {
    Script::new(move |call| {
        let expires = call.at + life;
        Answer::token(expires.as_millis().to_string(), life.as_secs()).after(latency)
    })
}

/// Records the requests that pass one place in a stack. Must be made at the same time as the source.
#[derive(Clone)]
struct Checkpoint {
    begun: Instant,
    seen: Arc<Mutex<Vec<Passage>>>,
}

/// Milliseconds since the test began. The expiry is the one in the token's name.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Passage {
    at: i64,
    expires: i64,
}

impl Passage {
    fn left(self) -> i64 {
        self.expires - self.at
    }
}

impl Checkpoint {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            seen: Arc::default(),
        }
    }

    /// For `ServiceBuilder::map_request`, which calls it when the service is called.
    fn note(&self) -> impl Fn(Request<()>) -> Request<()> + Clone + use<> {
        let Self { begun, seen } = self.clone();
        move |request| {
            let value = request.headers()["authorization"].to_str().unwrap();
            let at = i64::try_from(begun.elapsed().as_millis()).unwrap();
            let expires = value.strip_prefix("Bearer ").unwrap().parse().unwrap();
            seen.lock().unwrap().push(Passage { at, expires });
            request
        }
    }

    fn passages(&self) -> Vec<Passage> {
        self.seen.lock().unwrap().clone()
    }

    fn only(&self) -> Passage {
        let passages = self.passages();
        assert_eq!(passages.len(), 1, "{passages:?}");
        passages[0]
    }

    fn expired(&self) -> usize {
        let passages = self.passages();
        passages
            .iter()
            .filter(|passage| passage.left() <= 0)
            .count()
    }
}

/// A client that connects first: it sends a request this long after it was handed over.
fn connecting<S>(
    takes: Duration,
    client: S,
) -> impl Service<
    Request<()>,
    Response = Response<()>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<()>, Infallible>> + Send,
> + Clone
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send>
        + Clone
        + Send,
{
    service_fn(move |request| {
        let client = client.clone();
        async move {
            sleep(takes).await;
            client.oneshot(request).await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_queue_inside_delivers_short_lived_tokens_after_their_expiry() {
    let source = named_after_their_expiry(secs(3), Duration::ZERO);
    let (handed_over, arrived, inner) = (Checkpoint::new(), Checkpoint::new(), Inner::new());
    let client = ServiceBuilder::new()
        .layer(auth(&source))
        .map_request(handed_over.note())
        .buffer(20)
        .rate_limit(2, secs(1))
        .map_request(arrived.note())
        .service(inner.clone());
    let requests = (0..20).map(|_| client.clone().oneshot(get(BUCKET)));
    for result in join_all(requests).await {
        result.unwrap();
    }
    let all_at_once = [Passage {
        at: 0,
        expires: 3_000,
    }; 20];
    assert_eq!(handed_over.passages(), all_at_once, "all of them in time");
    let passages = arrived.passages();
    assert_eq!((passages.len(), inner.calls()), (20, 20));
    // Two in each second; those of the seconds 0, 1 and 2 are in time.
    assert_eq!(arrived.expired(), 14, "{passages:?}");
    assert_eq!(passages[19].left(), -6_000, "{passages:?}");
    assert_eq!(source.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_outside_never_delivers_an_expired_token() {
    let source = named_after_their_expiry(secs(3), Duration::ZERO);
    let (arrived, inner) = (Checkpoint::new(), Inner::new());
    let client = ServiceBuilder::new()
        .buffer(20)
        .rate_limit(2, secs(1))
        .layer(auth(&source))
        .map_request(arrived.note())
        .service(inner.clone());
    let requests = (0..20).map(|_| client.clone().oneshot(get(BUCKET)));
    for result in join_all(requests).await {
        result.unwrap();
    }
    let passages = arrived.passages();
    assert_eq!((passages.len(), inner.calls()), (20, 20));
    assert_eq!(arrived.expired(), 0, "{passages:?}");
    // Two in each second. The first request that finds its token two seconds old starts a refresh and is
    // sent with the old one, which has a second left.
    let seconds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    let expiries = [3, 3, 3, 5, 5, 7, 7, 9, 9, 11];
    let expected = seconds.into_iter().zip(expiries);
    let expected: Vec<_> = expected
        .flat_map(|(at, expires)| {
            [Passage {
                at: at * 1_000,
                expires: expires * 1_000,
            }; 2]
        })
        .collect();
    assert_eq!(passages, expected);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_inside_makes_requests_wait_before_they_are_stamped() {
    let source = named_after_their_expiry(secs(3), Duration::ZERO);
    let (arrived, inner) = (Checkpoint::new(), Inner::new());
    let client = ServiceBuilder::new()
        .layer(auth(&source))
        .concurrency_limit(1)
        .map_request(arrived.note())
        // Each request takes a second from when it arrives.
        .map_future(|response| async {
            sleep(secs(1)).await;
            response.await
        })
        .service(inner);
    let requests = (0..20).map(|_| client.clone().oneshot(get(BUCKET)));
    for result in join_all(requests).await {
        result.unwrap();
    }
    let passages = arrived.passages();
    assert_eq!(passages.len(), 20);
    assert!(passages[19].at >= 19_000, "one at a time: {passages:?}");
    assert_eq!(arrived.expired(), 0, "{passages:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_outlives_the_token_delivers_every_request_after_its_expiry() {
    let source = named_after_their_expiry(secs(3), Duration::ZERO);
    let (handed_over, arrived, inner) = (Checkpoint::new(), Checkpoint::new(), Inner::new());
    let wire = ServiceBuilder::new()
        .map_request(arrived.note())
        .service(inner);
    let client = ServiceBuilder::new()
        .layer(auth(&source))
        .map_request(handed_over.note())
        .service(connecting(secs(7), wire));
    let mut requests = Vec::new();
    for _ in 0..20 {
        requests.push(tokio::spawn(client.clone().oneshot(get(BUCKET))));
        sleep(millis(500)).await;
    }
    for request in requests {
        request.await.unwrap().unwrap();
    }
    let (before, after) = (handed_over.passages(), arrived.passages());
    assert_eq!((before.len(), after.len()), (20, 20));
    assert_eq!(handed_over.expired(), 0, "{before:?}");
    assert_eq!(arrived.expired(), 20, "{after:?}");
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!(
            after.expires, before.expires,
            "it is sent as it was stamped"
        );
        assert_eq!(after.at, before.at + 7_000);
    }
    // The first request had all three seconds, so it is the least late.
    assert_eq!(arrived.passages()[0].left(), -4_000);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_arrived_expired_is_repeated_with_a_new_token_after_its_401() {
    let source = named_after_their_expiry(secs(3), Duration::ZERO);
    let (arrived, begun) = (Checkpoint::new(), Instant::now());
    let server = Inner::answering(move |seen| {
        let expires = seen.token().unwrap().parse().unwrap();
        if begun.elapsed() < millis(expires) {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        }
    });
    let wire = ServiceBuilder::new()
        .map_request(arrived.note())
        .service(server);
    // The connection is reused for the second try.
    let connected = Arc::new(AtomicUsize::new(0));
    let client = ServiceBuilder::new()
        .retry(RetryUnauthorized::new())
        .layer(auth(&source))
        .service(service_fn(move |request| {
            let (connected, wire) = (Arc::clone(&connected), wire.clone());
            async move {
                if connected.fetch_add(1, Ordering::SeqCst) == 0 {
                    sleep(secs(7)).await;
                }
                wire.oneshot(request).await
            }
        }));
    let response = client.oneshot(get(BUCKET)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let left: Vec<_> = arrived.passages().into_iter().map(Passage::left).collect();
    assert_eq!(left, [-4_000, 3_000]);
}

/// The first token is fetched at once, and one request is sent at `sent` milliseconds, to a client that
/// takes `delay` to connect. Returns what left the layer, and what arrived.
async fn one_request(source: &Script, sent: i64, delay: Duration) -> (Passage, Passage) {
    let (handed_over, arrived) = (Checkpoint::new(), Checkpoint::new());
    let wire = ServiceBuilder::new()
        .map_request(arrived.note())
        .service(Inner::new());
    let layer = warm(source).await;
    let client = ServiceBuilder::new()
        .layer(layer)
        .map_request(handed_over.note())
        .service(connecting(delay, wire));
    sleep_until(handed_over.begun + millis(sent.try_into().unwrap())).await;
    client.oneshot(get(BUCKET)).await.unwrap();
    (handed_over.only(), arrived.only())
}

#[tokio::test(start_paused = true)]
async fn with_a_newer_token_within_3_s_no_delay_of_up_to_ten_seconds_delivers_an_expired_one() {
    // The last thirty seconds of life and one after it in quarters, and each millisecond around the
    // start of the guard.
    let steps = (-4..=120).map(|quarter| quarter * 250);
    let steps = steps.chain(9_990..=10_010);
    let times: Vec<i64> = steps.map(|before| 3_600_000 - before).collect();
    for latency in [0, 50, 2_900].map(millis) {
        for delay in [0, 2_500, 5_000, 7_500, 9_999, 10_000].map(millis) {
            let mut least = i64::MAX;
            let (mut old, mut new) = (0, 0);
            for &sent in &times {
                let source = named_after_their_expiry(secs(3600), latency);
                let (handed_over, arrived) = one_request(&source, sent, delay).await;
                let case =
                    format!("{latency:?}, {delay:?}, {sent} ms: {handed_over:?}, {arrived:?}");
                assert!(arrived.left() > 0, "{case}");
                let waited = handed_over.at - sent;
                if arrived.expires == 3_600_000 {
                    assert_eq!(waited, 0, "{case}");
                    least = least.min(arrived.left());
                    old += 1;
                } else {
                    assert!(waited <= 3_000, "{case}");
                    new += 1;
                }
            }
            // The first token is sent as long as more than the guard's ten seconds are left.
            let last = 10_001 - i64::try_from(delay.as_millis()).unwrap();
            assert_eq!((least, old, new), (last, 90, 56), "{latency:?}, {delay:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_less_than_47_seconds_leave_between_a_fifth_and_a_quarter_of_their_life() {
    for (seconds, least, most) in [
        (47, 10_000, 10_000),
        (46, 9_857, 10_000),
        (20, 4_285, 5_000),
        (3, 642, 750),
    ] {
        let source = || named_after_their_expiry(secs(seconds), Duration::ZERO);
        let life = i64::try_from(seconds).unwrap() * 1_000;
        // Each token draws the start of its refresh anew.
        for sent in (0..life + 1_000).step_by(50) {
            let delay = millis(least);
            let (handed_over, arrived) = one_request(&source(), sent, delay).await;
            assert!(
                arrived.left() > 0,
                "{sent} ms: {handed_over:?}, {arrived:?}"
            );
        }
        let sent = life - most - 1;
        let (handed_over, _) = one_request(&source(), sent, Duration::ZERO).await;
        assert_eq!(handed_over.left(), most + 1, "the first token, at once");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_newer_token_a_delay_inside_may_outlive_the_last_seconds_of_the_token() {
    let broken = Script::new(|call| match call.number {
        1 => Answer::token("3600000", 3600),
        _ => Answer::failure("broken"),
    });
    arrives_late(&broken).await;
    // A server that does not mint another token before the first has expired.
    let same = Script::new(|call| Answer::token("3600000", 3600 - call.at.as_secs()));
    arrives_late(&same).await;
}

async fn arrives_late(source: &Script) {
    let (handed_over, arrived) = one_request(source, 3_595_000, secs(7)).await;
    assert_eq!(handed_over.left(), 5_000, "valid, and sent at once");
    assert_eq!(arrived.left(), -2_000);
    assert_eq!(source.calls(), 2, "it was asked for a newer one");
}

#[tokio::test(start_paused = true)]
async fn steer_chooses_between_layers_of_one_cache() {
    let source = Script::new(|call| {
        let kind = if call.request.audience().is_some() {
            "id"
        } else {
            "access"
        };
        Answer::token(kind, 3599)
    });
    let (cache, inner) = (cache(&source), Inner::new());
    let storage = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
    let run = ScopedAuthLayer::from_cache(cache)
        .audience(Audience::new("https://a.run.app").unwrap())
        .destinations(Destinations::only(["https://*.run.app"]).unwrap())
        .layer(inner.clone());
    let pick = |request: &Request<()>, _: &[_]| {
        usize::from(request.uri().host().unwrap().ends_with("run.app"))
    };
    let mut client = Steer::new([storage, run], pick);
    for uri in [BUCKET, "https://a.run.app/"] {
        made_ready(&mut client).await.call(get(uri)).await.unwrap();
    }
    assert_eq!(inner.tokens(), ["access", "id"]);
}

#[tokio::test(start_paused = true)]
async fn balance_over_stamped_endpoints() {
    let (source, inner) = (slow(millis(300)), Inner::new());
    let layer = auth(&source);
    let endpoints = (0..3).map(|load| Constant::new(layer.layer(inner.clone()), load));
    let mut client = Balance::new(ServiceList::new::<Request<()>>(
        endpoints.collect::<Vec<_>>(),
    ));
    for _ in 0..30 {
        made_ready(&mut client)
            .await
            .call(get(BUCKET))
            .await
            .unwrap();
    }
    assert_eq!((source.calls(), inner.calls()), (1, 30));

    // And in the other order: one stamp for whichever endpoint is picked.
    let endpoints = (0..3).map(|load| Constant::new(inner.clone(), load));
    let balance = Balance::new(ServiceList::new::<Request<()>>(
        endpoints.collect::<Vec<_>>(),
    ));
    let client = layer.layer(Buffer::new(balance, 10));
    client.oneshot(get(BUCKET)).await.unwrap();
    assert_eq!((source.calls(), inner.calls()), (1, 31));
}

#[tokio::test(start_paused = true)]
async fn boxed_and_cloned() {
    let (source, inner) = (slow(millis(300)), Inner::new());
    let layer = auth(&source);
    let boxed = BoxCloneService::new(layer.layer(inner.clone()));
    boxed.clone().oneshot(get(BUCKET)).await.unwrap();
    let shared = BoxCloneSyncService::new(layer.layer(inner.clone()));
    shared.clone().oneshot(get(BUCKET)).await.unwrap();
    // The layer around a box, as when a client's type is to be erased.
    layer.layer(boxed).oneshot(get(BUCKET)).await.unwrap();
    assert_eq!((source.calls(), inner.calls()), (1, 3));
}

// What passes through.

/// Neither `Clone` nor `Sync` nor `Default`.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    _not_sync: PhantomData<std::cell::Cell<()>>,
}

impl Frames {
    fn of(chunks: &[&'static str], trailer: &'static str) -> Self {
        let chunks = chunks
            .iter()
            .map(|chunk| Frame::data(Bytes::from_static(chunk.as_bytes())));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", HeaderValue::from_static(trailer));
        Self {
            frames: chunks.chain([Frame::trailers(trailers)]).collect(),
            _not_sync: PhantomData,
        }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frames.pop_front().map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.frames.iter().filter_map(Frame::data_ref);
        SizeHint::with_exact(data.map(|data| data.len() as u64).sum())
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Marker(u8);

/// All that can be seen of a message: lines of the head, then the body, frame by frame.
fn transcript(version: Version, headers: &HeaderMap, mut body: Frames) -> Vec<String> {
    let mut lines = vec![format!("{version:?}")];
    for (name, value) in headers.iter().filter(|(name, _)| *name != "authorization") {
        lines.push(format!("{name}: {value:?}"));
    }
    lines.push(format!("{:?}", body.size_hint()));
    let mut task = task::spawn(());
    while let Poll::Ready(Some(frame)) = task.enter(|cx, _| Pin::new(&mut body).poll_frame(cx)) {
        lines.push(format!("{frame:?}"));
    }
    lines
}

fn duplicated() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-b", "1"),
        ("cookie", "a=1"),
        ("x-b", "2"),
        ("x-a", "3"),
        ("x-b", "1"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

fn question() -> Request<Frames> {
    let mut request = Request::new(Frames::of(&["one", "", "three"], "asked"));
    *request.method_mut() = Method::from_bytes(b"BREW").unwrap();
    *request.uri_mut() = "https://storage.googleapis.com:443/a%2Fb//c?x=1&x=2"
        .parse()
        .unwrap();
    *request.version_mut() = Version::HTTP_10;
    *request.headers_mut() = duplicated();
    request.extensions_mut().insert(Marker(1));
    request
}

fn answer() -> Response<Frames> {
    let mut response = Response::new(Frames::of(&["four"], "answered"));
    *response.status_mut() = StatusCode::IM_A_TEAPOT;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = duplicated();
    response.extensions_mut().insert(Marker(2));
    response
}

#[tokio::test(start_paused = true)]
async fn s127_nothing_else_changes() {
    let came = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&came);
    let inner = service_fn(move |request: Request<Frames>| {
        record.lock().unwrap().push(request);
        ready(Ok::<_, Infallible>(answer()))
    });
    let mut client = auth(&slow(millis(300))).layer(inner);
    for way in ["cold", "warm"] {
        client.ready().await.unwrap();
        let response = client.call(question()).await.unwrap();
        let (came, _) = came
            .lock()
            .unwrap()
            .pop()
            .map(Request::into_parts)
            .map_or_else(
                || panic!("{way}: no request"),
                |(head, body)| {
                    let (sent, sent_body) = question().into_parts();
                    assert_eq!(
                        (&head.method, &head.uri),
                        (&sent.method, &sent.uri),
                        "{way}"
                    );
                    assert_eq!(head.extensions.len(), 1, "{way}");
                    assert_eq!(head.extensions.get::<Marker>(), Some(&Marker(1)), "{way}");
                    assert_eq!(
                        transcript(head.version, &head.headers, body),
                        transcript(sent.version, &sent.headers, sent_body),
                        "{way}"
                    );
                    (head, ())
                },
            );
        assert_eq!(came.headers["authorization"], "Bearer tok-1");

        let (head, body) = response.into_parts();
        let (sent, sent_body) = answer().into_parts();
        assert_eq!(head.status, sent.status, "{way}");
        assert_eq!(head.extensions.len(), 1, "{way}");
        assert_eq!(head.extensions.get::<Marker>(), Some(&Marker(2)), "{way}");
        assert_eq!(
            transcript(head.version, &head.headers, body),
            transcript(sent.version, &sent.headers, sent_body),
            "{way}"
        );
    }
}

// Bounds: this either compiles or does not.

fn is_sendable<T: Send>(value: T) -> T {
    value
}

fn is_sound<T: Send + Sync + Clone + UnwindSafe + RefUnwindSafe>(value: T) -> T {
    value
}

#[tokio::test(start_paused = true)]
async fn s103_auto_traits() {
    #[derive(Clone)]
    struct Plain;

    impl Service<Request<Frames>> for Plain {
        type Response = Response<Frames>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Frames>, Infallible>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Request<Frames>) -> Self::Future {
            ready(Ok(answer()))
        }
    }

    fn is_static_future<F: Future + Send + 'static>(future: F) -> F {
        future
    }

    let layer = is_sound(auth(&Script::tokens(3599)));
    let mut client: ScopedAuth<Plain> = is_sound(layer.layer(Plain));
    client.ready().await.unwrap();
    let future: ResponseFuture<Plain, Request<Frames>> = client.call(question());
    is_static_future(is_sendable(future)).await.unwrap();
}

#[tokio::test]
async fn s128_bounds() {
    fn is_client<R, S>(service: S) -> S
    where
        S: Service<R, Error = BoxError, Future: Send + 'static> + Clone + Send + 'static,
    {
        service
    }

    // Bodies that are only a `Body`, an inner service that is not `Sync`.
    let not_sync = Mutex::new(0);
    let not_sync = Arc::new(not_sync);
    let inner = service_fn(move |_: Request<Frames>| {
        let _moved = &not_sync;
        async { Ok::<_, Infallible>(answer()) }
    });
    let layer = auth(&Script::tokens(3599));
    is_client::<Request<Frames>, _>(layer.layer(inner));

    // tonic
    let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let trusting = layer
        .clone()
        .destinations(Destinations::danger_trust_inner());
    let channel = is_client::<Request<tonic::body::Body>, _>(trusting.layer(channel));
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let unreachable = health.check(tonic_health::pb::HealthCheckRequest::default());
    assert!(unreachable.await.is_err());

    // hyper-util
    let connector = hyper_util::client::legacy::connect::HttpConnector::new();
    let executor = hyper_util::rt::TokioExecutor::new();
    let hyper = hyper_util::client::legacy::Client::builder(executor)
        .build::<_, http_body_util::Empty<Bytes>>(connector);
    is_client::<Request<http_body_util::Empty<Bytes>>, _>(layer.layer(hyper));

    // reqwest
    support::crypto_provider();
    is_client::<reqwest::Request, _>(layer.layer(reqwest::Client::new()));
}

#[tokio::test]
async fn s128_inside_an_axum_handler() {
    use axum::{Router, extract::State, routing};

    type Client = ScopedAuth<Inner>;

    async fn fetch(State(client): State<Client>) -> Result<String, StatusCode> {
        let response = client.oneshot(get(BUCKET)).await;
        let status = response.map_err(|_| StatusCode::BAD_GATEWAY)?.status();
        Ok(status.as_str().to_owned())
    }

    let inner = Inner::new();
    let client = auth(&Script::tokens(3599)).layer(inner.clone());
    let app = Router::new()
        .route("/", routing::get(fetch))
        .with_state(client);
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "200");
    assert_eq!(inner.tokens(), ["tok-1"]);
}

// Spans and the warm path.

fn span_name() -> Option<&'static str> {
    Span::current().metadata().map(tracing::Metadata::name)
}

#[tokio::test(start_paused = true)]
async fn s129_inner_runs_in_the_callers_span_and_the_fetch_does_not() {
    let (tap, _guard) = TraceTap::install();
    let (fetched_in, called_in) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
    let note = Arc::clone(&fetched_in);
    let source = Script::new(move |call| {
        note.lock().unwrap().push(span_name());
        Answer::token(format!("tok-{}", call.number), 3599).after(millis(300))
    });
    let note = Arc::clone(&called_in);
    let inner = service_fn(move |_: Request<()>| {
        note.lock().unwrap().push(span_name());
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let client = auth(&source).layer(inner);

    // A caller that leaves while the fetch goes on: its span closes with it.
    let impatient = client.clone().oneshot(get(BUCKET));
    let impatient = impatient.instrument(tracing::info_span!("impatient"));
    tokio::time::timeout(millis(100), impatient)
        .await
        .unwrap_err();
    assert!(tap.text().contains("impatient: "), "the span was recorded");
    let closed = |name: &str| {
        let text = tap.text();
        text.lines()
            .any(|line| line.contains(name) && line.contains(": close"))
    };
    assert!(closed("impatient"), "{}", tap.text());

    for caller in [tracing::info_span!("cold"), tracing::info_span!("warm")] {
        client
            .clone()
            .oneshot(get(BUCKET))
            .instrument(caller)
            .await
            .unwrap();
    }
    assert!(closed("cold") && closed("warm"));
    assert_eq!(*fetched_in.lock().unwrap(), [None]);
    assert_eq!(*called_in.lock().unwrap(), [Some("cold"), Some("warm")]);
}

#[tokio::test(start_paused = true)]
async fn s130_the_warm_path_is_immediate() {
    let inner = Inner::new();
    let mut client = warm(&Script::tokens(3599)).await.layer(inner.clone());
    let response = made_ready(&mut client).await.call(get(BUCKET));
    assert_eq!(inner.calls(), 1, "in `call` already");
    assert_ready!(task::spawn(response).poll()).unwrap();
}
