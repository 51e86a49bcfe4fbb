//! Sources that depend on nothing outside the process: `Fixed`, `FirstOf`, and Tower services as sources.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    fmt, future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use support::{Answer, BUCKET, Inner, Script, auth_error, send};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_scoped_auth::{
    Audience, AuthError, ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest, TokenSource,
    source,
    sources::{FirstOf, Fixed},
    test_util::TestClock,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn scoped(scope: &str) -> TokenRequest {
    TokenRequest::access_token(Scopes::new([scope]).unwrap())
}

fn any() -> TokenRequest {
    TokenRequest::access_token(Scopes::default())
}

/// Busy at first, and says how long.
struct Busy(Duration, Script);

impl TokenSource for Busy {
    type Error = BoxError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, BoxError> {
        self.1.fetch(request).await.map_err(Into::into)
    }

    fn retry_after(&self, error: &BoxError) -> Option<Duration> {
        error.to_string().contains("busy").then_some(self.0)
    }
}

/// The time from the first attempt to the second, with or without a token to send meanwhile.
async fn second_attempt(source: impl TokenSource, script: &Script, warm: bool) -> Duration {
    let clock = TestClock::new();
    let cache = TokenCache::builder(source).clock(clock).build().unwrap();
    if warm {
        cache.token(&any()).await.unwrap();
        sleep(seconds(3_450)).await;
    }
    let failed = usize::from(warm);
    while script.calls() < failed + 2 {
        let _ = cache.token(&any()).await;
        sleep(Duration::from_millis(10)).await;
    }
    let times = script.times();
    times[failed + 1] - times[failed]
}

#[tokio::test(start_paused = true)]
async fn s046_a_source_of_ones_own_says_when_to_come_back() {
    for warm in [false, true] {
        let script = || {
            Script::new(move |call| match call.number - usize::from(warm) {
                1 => Answer::failure("busy"),
                _ => Answer::token("tok", 3599),
            })
        };
        let (busy, plain) = (script(), script());
        let told = Arc::new(Busy(seconds(12), busy.clone()));
        let gap = second_attempt(told, &busy, warm).await;
        assert!(gap >= seconds(12) && gap < seconds(13), "{warm}: {gap:?}");
        // As with any other error: at the cache's own pace.
        let gap = second_attempt(plain.clone(), &plain, warm).await;
        assert!(
            gap <= seconds(1) + Duration::from_millis(20),
            "{warm}: {gap:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn s046_what_a_source_says_is_bounded_wherever_it_stands() {
    let minute = seconds(60);
    for (said, least, most) in [
        (Duration::ZERO, Duration::from_millis(500), seconds(1)),
        (Duration::MAX, minute, minute),
    ] {
        for behind_another in [false, true] {
            let script = Script::new(|call| match call.number {
                1 => Answer::failure("busy"),
                _ => Answer::token("tok", 3599),
            });
            let busy = Busy(said, script.clone());
            let gap = if behind_another {
                let empty = Script::new(|_| Answer::failure("empty"));
                second_attempt(FirstOf::new(empty).or(busy), &script, false).await
            } else {
                second_attempt(busy, &script, false).await
            };
            assert!(gap >= least, "{said:?}: {gap:?}");
            assert!(gap <= most + Duration::from_millis(20), "{said:?}: {gap:?}");
        }
    }
}

/// Adds a remark to every error, and panics on one.
struct Wrapper(FirstOf);

impl TokenSource for Wrapper {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        self.0.fetch(request).await
    }

    fn retry_after(&self, error: &AuthError) -> Option<Duration> {
        assert!(!error.to_string().contains("boom"));
        Some(seconds(30))
    }
}

#[tokio::test(start_paused = true)]
async fn s046_an_error_of_this_crate_has_its_own_and_a_panic_over_one_is_a_failed_attempt() {
    let script = |reason: &'static str| {
        Script::new(move |call| match call.number {
            1 => Answer::failure(reason),
            _ => Answer::token("tok", 3599),
        })
    };
    for (reason, most) in [("busy", 12), ("boom", 1)] {
        let script = script(reason);
        let inner = FirstOf::new(Busy(seconds(12), script.clone()));
        let gap = second_attempt(Wrapper(inner), &script, false).await;
        assert!(
            gap <= seconds(most) + Duration::from_millis(20),
            "{reason}: {gap:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn s042_an_attempt_takes_ten_seconds_if_the_source_does_not_say() {
    let source = source::from_fn(|_: TokenRequest| future::pending::<Result<Token, BoxError>>());
    let cache = TokenCache::builder(source).clock(TestClock::new());
    let cache = cache.build().unwrap();
    let waiting = cache.clone();
    let waiting = tokio::spawn(async move { waiting.token(&any()).await });
    sleep(Duration::from_millis(9_900)).await;
    assert!(cache.status(&any()).last_error().is_none());
    sleep(Duration::from_millis(200)).await;
    let error = cache.status(&any()).last_error().cloned().unwrap();
    assert!(error.is_timeout(), "{error}");
    assert!(waiting.await.unwrap().is_err());
}

/// A script with a name of its own.
struct Named(&'static str, Script);

impl TokenSource for Named {
    type Error = BoxError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, BoxError> {
        self.1.fetch(request).await.map_err(Into::into)
    }

    fn attempt_timeout(&self) -> Duration {
        seconds(3)
    }

    fn name(&self) -> &'static str {
        self.0
    }
}

fn answers(name: &'static str) -> (Named, Script) {
    plays(name, move |_| Answer::token(name, 3600))
}

fn fails(name: &'static str) -> (Named, Script) {
    plays(name, move |_| Answer::failure(&format!("{name} is down")))
}

fn plays(
    name: &'static str,
    play: impl Fn(support::script::Call) -> Answer + Send + Sync + 'static,
) -> (Named, Script) {
    let script = Script::new(play);
    (Named(name, script.clone()), script)
}

/// On Tokio's clock, which is paused in most tests here.
fn cached(source: impl TokenSource) -> TokenCache {
    waiting(source, seconds(30))
}

fn waiting(source: impl TokenSource, max_wait: Duration) -> TokenCache {
    let builder = TokenCache::builder(source).clock(TestClock::new());
    builder.max_wait(max_wait).build().unwrap()
}

// Fixed

#[tokio::test(start_paused = true)]
async fn a_fixed_token_answers_everything() {
    let inner = Inner::new();
    let client = ScopedAuthLayer::new(Fixed::new("constant")).layer(inner.clone());
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.seen()[0].token(), Some("constant"));

    let cache = cached(Fixed::new("constant"));
    let id = TokenRequest::id_token(Audience::new("https://a").unwrap());
    for request in [any(), scoped("a"), id] {
        let token = cache.token(&request).await.unwrap();
        assert_eq!(token.expose_secret(), "constant");
    }
    assert_eq!(cache.status(&any()).source(), "fixed");
    assert!(!format!("{:?}", Fixed::new("constant")).contains("constant"));
}

#[tokio::test(start_paused = true)]
async fn a_fixed_token_for_one_request_refuses_others() {
    let cache = cached(Fixed::new("constant").only(scoped("a")));
    assert!(cache.token(&scoped("a")).await.is_ok());
    let cache = waiting(
        Fixed::new("constant").only(scoped("a")),
        Duration::from_millis(50),
    );
    let error = cache.token(&scoped("b")).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_token_can_end() {
    let past = SystemTime::now() - seconds(1);
    let cache = waiting(
        Fixed::expiring_at("constant", past),
        Duration::from_millis(50),
    );
    assert!(cache.token(&any()).await.unwrap_err().is_response());
    let cache = cached(Fixed::expiring_at("constant", past + seconds(100)));
    cache.token(&any()).await.unwrap();
    assert!(cache.status(&any()).expires_in().unwrap() <= seconds(99));
}

// FirstOf

#[tokio::test(start_paused = true)]
async fn the_first_that_answers_is_the_one() {
    let (down, down_script) = fails("down");
    let (up, up_script) = answers("up");
    let (spare, spare_script) = answers("spare");
    let cache = cached(FirstOf::new(down).or(up).or(spare));
    assert_eq!(cache.status(&any()).source(), "first-of");

    assert_eq!(cache.token(&any()).await.unwrap().expose_secret(), "up");
    assert_eq!(cache.status(&any()).source(), "up");
    for scope in ["a", "b", "c"] {
        let token = cache.token(&scoped(scope)).await.unwrap();
        assert_eq!(token.expose_secret(), "up");
    }
    let calls = [&down_script, &up_script, &spare_script].map(Script::calls);
    assert_eq!(calls, [1, 4, 0]);
}

#[tokio::test(start_paused = true)]
async fn it_never_becomes_somebody_else() {
    let (first, first_script) = plays("first", |call| match call.number {
        1 => Answer::token("first", 60),
        2..=40 => Answer::failure("gone"),
        _ => Answer::token("first-again", 3600),
    });
    let (second, second_script) = answers("second");
    let cache = cached(FirstOf::new(first).or(second));
    cache.token(&any()).await.unwrap();
    let mut failures = 0;
    let again = loop {
        sleep(seconds(5)).await;
        match cache.token(&any()).await {
            Ok(token) if token.expose_secret() == "first" => {}
            Ok(token) => break token,
            Err(error) => {
                failures += 1;
                assert!(format!("{error:?}").contains("gone"), "{error:?}");
            }
        }
        assert_eq!(cache.status(&any()).source(), "first");
    };
    assert_eq!(again.expose_secret(), "first-again");
    assert!(failures > 0 && first_script.calls() > 40);
    assert_eq!(second_script.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn all_reasons_are_told() {
    let (one, _) = fails("one");
    let (two, _) = fails("two");
    let sources = FirstOf::new(one)
        .or(two)
        .or(Fixed::new("x").only(scoped("a")));
    let error = sources.fetch(any()).await.unwrap_err();
    assert!(error.is_transient());
    let text = error.to_string();
    for part in [
        "one: ",
        "one is down",
        "two: ",
        "two is down",
        "fixed: ",
        "another request",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(text.lines().count(), 1);

    let refuses = || Fixed::new("x").only(scoped("a"));
    let sources = FirstOf::new(refuses()).or(refuses());
    assert!(!sources.fetch(any()).await.unwrap_err().is_transient());
    assert_eq!(format!("{sources:?}").matches("fixed").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_has_its_own_time() {
    let (hangs, _) = plays("hangs", |_| Answer::hang());
    let (up, _) = plays("up", |_| Answer::token("up", 3600).after(seconds(2)));
    let sources = FirstOf::new(hangs).or(up);
    // Plus a moment each, so that the last one's time is up before the time for all of them.
    let moments = Duration::from_millis(200);
    assert_eq!(sources.attempt_timeout(), seconds(6) + moments);
    let begun = Instant::now();
    let cache = cached(sources);
    assert_eq!(cache.token(&any()).await.unwrap().expose_secret(), "up");
    assert_eq!(begun.elapsed().as_secs(), 5);

    let (hangs, _) = plays("hangs", |_| Answer::hang());
    let error = FirstOf::new(hangs).fetch(any()).await.unwrap_err();
    assert!(
        error.to_string().contains("did not answer within 3s"),
        "{error}"
    );

    let many = (0..200).fold(FirstOf::new(answers("x").0), |all, _| {
        all.or(answers("x").0)
    });
    assert_eq!(many.attempt_timeout(), seconds(300), "what a cache allows");
    assert!(TokenCache::builder(many).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_is_one_that_fails() {
    let panics = source::from_fn(|_| async {
        assert!(future::ready(false).await, "boom");
        Ok::<_, BoxError>(Token::new("never", seconds(1)))
    });
    let panics_at_once = source::from_fn(|_| {
        assert!(std::hint::black_box(false), "boom");
        future::ready(Ok::<_, BoxError>(Token::new("never", seconds(1))))
    });
    let sources = FirstOf::new(panics).or(panics_at_once).or(Fixed::new("up"));
    let token = sources.fetch(any()).await.unwrap();
    assert_eq!(token.expose_secret(), "up");
}

/// A token that a cache would refuse is no reason to choose the source that returned it.
#[tokio::test(start_paused = true)]
async fn a_dead_token_is_not_chosen() {
    let past = SystemTime::now() - seconds(1);
    for dead in [
        Fixed::new(""),
        Fixed::new("two words"),
        Fixed::expiring_at("old", past),
    ] {
        let sources = FirstOf::new(dead.clone());
        let error = sources.fetch(any()).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(
            error.to_string().contains("it returned a token that"),
            "{error}"
        );

        let sources = FirstOf::new(dead).or(answers("up").0);
        let cache = cached(sources);
        assert_eq!(cache.token(&any()).await.unwrap().expose_secret(), "up");
        assert_eq!(cache.status(&any()).source(), "up");
    }
}

/// Two requests search at the same time, and would choose differently.
#[tokio::test(start_paused = true)]
async fn two_searches_agree() {
    // For `b`, the first source answers, but late.
    let (first, _) = plays("first", |call| {
        if call.request == scoped("b") {
            Answer::token("first", 3600).after(seconds(2))
        } else {
            Answer::failure("not for this one")
        }
    });
    let (second, _) = plays("second", |_| {
        Answer::token("second", 3600).after(seconds(1))
    });
    let cache = cached(FirstOf::new(first).or(second));
    let (request_a, request_b) = (scoped("a"), scoped("b"));
    let (a, b) = tokio::join!(cache.token(&request_a), cache.token(&request_b));
    assert_eq!(a.unwrap().expose_secret(), "second");
    assert_eq!(b.unwrap().expose_secret(), "second");
    assert_eq!(cache.status(&any()).source(), "second");
}

#[tokio::test(start_paused = true)]
async fn inside_each_other_the_innermost_is_shown() {
    let inside = FirstOf::new(fails("down").0).or(answers("up").0);
    let sources = Arc::new(FirstOf::new(fails("out").0).or(inside));
    let cache = cached(Arc::clone(&sources));
    cache.token(&any()).await.unwrap();
    assert_eq!(cache.status(&any()).source(), "up");
    assert_eq!(sources.name(), "first-of");
}

// Services

/// Insists on Tower's contract: a clone is not ready, `poll_ready` makes it ready, `call` uses that up.
struct Strict {
    ready: bool,
    pending: usize,
    calls: Arc<AtomicUsize>,
}

impl Strict {
    fn new() -> Self {
        Self {
            ready: false,
            pending: 2,
            calls: Arc::default(),
        }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            pending: 2,
            calls: Arc::clone(&self.calls),
        }
    }
}

impl Service<TokenRequest> for Strict {
    type Response = Token;
    type Error = Unwell;
    type Future = future::Ready<Result<Token, Unwell>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unwell>> {
        if self.pending > 0 {
            self.pending -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without being ready"
        );
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        future::ready(if request == scoped("sick") {
            Err(Unwell)
        } else {
            Ok(Token::new(format!("tok-{number}"), seconds(60)))
        })
    }
}

#[derive(Debug)]
struct Unwell;

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unwell")
    }
}

impl std::error::Error for Unwell {}

/// The service's own error inside a cache's.
fn is_unwell(error: &AuthError) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<Unwell>())
}

#[tokio::test(start_paused = true)]
async fn a_service_is_made_ready_and_then_called() {
    let service = Strict::new();
    let calls = Arc::clone(&service.calls);
    let cache = cached(source::from_service(service));
    for number in 1..=5 {
        let token = cache.token(&any()).await.unwrap();
        assert_eq!(token.expose_secret(), format!("tok-{number}"));
        sleep(seconds(61)).await;
    }
    assert_eq!(calls.load(Ordering::Relaxed), 5);
    assert_eq!(cache.status(&any()).source(), "service");
}

#[tokio::test(start_paused = true)]
async fn what_a_service_fails_with_is_passed_on() {
    let source = source::from_service(Strict::new());
    let cache = waiting(source.clone(), Duration::from_millis(50));
    let error = cache.token(&scoped("sick")).await.unwrap_err();
    assert!(is_unwell(&error), "{error:?}");
    assert!(source.fetch(any()).await.is_ok());

    #[derive(Clone)]
    struct NeverReady;
    impl Service<TokenRequest> for NeverReady {
        type Response = Token;
        type Error = Unwell;
        type Future = future::Pending<Result<Token, Unwell>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unwell>> {
            Poll::Ready(Err(Unwell))
        }

        fn call(&mut self, _: TokenRequest) -> Self::Future {
            panic!("called after it said that it cannot be")
        }
    }
    assert!(source::from_service(NeverReady).fetch(any()).await.is_err());

    // An error of this crate comes out unchanged.
    let refuses = Fixed::new("x").only(scoped("a"));
    let service = service_fn(move |request| {
        let refuses = refuses.clone();
        async move { refuses.fetch(request).await }
    });
    let cache = waiting(source::from_service(service), Duration::from_millis(50));
    assert!(!cache.token(&any()).await.unwrap_err().is_transient());
}

#[tokio::test(start_paused = true)]
async fn towers_middleware_wraps_a_source() {
    let (script, calls) = plays("slow", |call| match call.number {
        1 => Answer::token("late", 3600).after(seconds(5)),
        _ => Answer::token("in-time", 3600),
    });
    let script = Arc::new(script);
    let service = service_fn(move |request: TokenRequest| {
        let script = Arc::clone(&script);
        async move { script.fetch(request).await }
    });
    let service = ServiceBuilder::new()
        .concurrency_limit(1)
        .timeout(seconds(1))
        .map_request(|request: TokenRequest| request)
        .service(service)
        // The type is neither `Sync` nor nameable.
        .boxed_clone();
    let inner = Inner::new();
    let cache = cached(source::from_service(service));
    let client = ScopedAuthLayer::from_cache(cache).layer(inner.clone());
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.seen()[0].token(), Some("in-time"));
    assert_eq!(calls.calls(), 2, "the first was stopped by the timeout");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_never_ready_is_a_timeout() {
    let service = ServiceBuilder::new()
        .layer(tower::limit::GlobalConcurrencyLimitLayer::new(0))
        .service(Strict::new());
    let cache = waiting(source::from_service(service), seconds(15));
    let layer = ScopedAuthLayer::from_cache(cache);
    let error = send(&layer.layer(Inner::new()), BUCKET).await.unwrap_err();
    assert!(auth_error(&error).is_timeout(), "{error}");
}
