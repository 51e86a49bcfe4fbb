//! Group F, and what is left when handles are dropped: real runtimes, real sockets, real time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    ops::Range,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::join_all};
use support::{Answer, BUCKET, FakeMds, Inner, Reply, Script, TraceTap, send};
use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_scoped_auth::{
    Audience, AuthError, ScopedAuth, ScopedAuthLayer, Scopes, Token, TokenCache, TokenCacheBuilder,
    TokenRequest, test_util::TestClock,
};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// The first token lives a second, the later ones an hour; fetching each takes `delay`.
fn short_then_long(delay: Duration) -> FakeMds {
    FakeMds::start(move |n| {
        Reply::token(&format!("tok-{n}"), if n == 1 { 1 } else { 3599 }).after(delay)
    })
}

fn client(mds: &FakeMds, inner: &Inner) -> ScopedAuth<Inner> {
    ScopedAuthLayer::new(mds.source()).layer(inner.clone())
}

/// Waits until the condition holds; panics after ten seconds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn s084_a_service_outlives_its_runtime() {
    let (mds, inner) = (short_then_long(Duration::ZERO), Inner::new());
    let client = client(&mds, &inner);
    let first = current_thread();
    first.block_on(send(&client, BUCKET)).unwrap();
    drop(first);
    thread::sleep(Duration::from_millis(1_050)); // the token's second
    current_thread().block_on(send(&client, BUCKET)).unwrap();
    assert_eq!(inner.tokens(), ["tok-1", "tok-2"]);
    assert_eq!(mds.token_requests(), 2);
}

#[test]
fn s085_the_runtime_that_fetched_is_alive_but_idle() {
    let (mds, inner) = (short_then_long(Duration::ZERO), Inner::new());
    let client = client(&mds, &inner);
    let idle = current_thread();
    idle.block_on(send(&client, BUCKET)).unwrap();
    thread::sleep(Duration::from_millis(1_050));
    current_thread().block_on(send(&client, BUCKET)).unwrap();
    assert_eq!(inner.last_token().unwrap(), "tok-2");
    drop(idle);
}

#[test]
fn s085_the_runtime_falls_idle_in_the_middle_of_its_fetch() {
    let (mds, inner) = (short_then_long(Duration::from_millis(100)), Inner::new());
    // A short attempt timeout, so that the takeover (an attempt plus a second) comes soon.
    let cache = TokenCache::builder(mds.source()).attempt_timeout(Duration::from_millis(300));
    let client = ScopedAuthLayer::from_cache(cache.build().unwrap()).layer(inner.clone());
    let idle = current_thread();
    // One poll spawns the fetch; nobody drives it from here on.
    idle.block_on(async {
        assert!(send(&client, BUCKET).now_or_never().is_none());
    });
    let begun = Instant::now();
    current_thread().block_on(send(&client, BUCKET)).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    drop(idle);
}

/// Fetches that may run at once.
const TURNS: usize = 16;

/// The first calls hang, as many as may run at once; the others are answered.
fn all_turns_hang() -> Script {
    all_turns_hang_then_order().0
}

/// The same; also returns the keys of the other calls, in order.
fn all_turns_hang_then_order() -> (Script, Arc<Mutex<Vec<usize>>>) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let source = Script::new(move |call| {
        if call.number <= TURNS {
            return Answer::hang();
        }
        let scopes = call.request.scopes().unwrap();
        let key = scopes.iter().next().unwrap().parse().unwrap();
        seen.lock().unwrap().push(key);
        Answer::token("tok", 3599)
    });
    (source, order)
}

fn impatient(source: &Script) -> TokenCacheBuilder<Script> {
    TokenCache::builder(source.clone()).attempt_timeout(Duration::from_millis(300))
}

fn numbered(key: usize) -> TokenRequest {
    TokenRequest::access_token(Scopes::new([key.to_string()]).unwrap())
}

/// Asks for each key and leaves. On return, a fetch has begun for each, as far as there are turns.
async fn ask_and_leave(keys: usize, cache: &TokenCache, source: &Script) {
    for key in 0..keys {
        assert!(cache.token(&numbered(key)).now_or_never().is_none());
    }
    while source.calls() < TURNS {
        tokio::task::yield_now().await;
    }
}

/// A runtime on which that has happened. After that, nobody drives it.
fn fall_idle_with(keys: usize, cache: &TokenCache, source: &Script) -> Runtime {
    let idle = current_thread();
    idle.block_on(ask_and_leave(keys, cache, source));
    idle
}

/// Asks for all of these keys at once, and returns the results.
async fn ask_for_all(keys: usize, cache: &TokenCache) -> Vec<Result<Token, AuthError>> {
    let all = (0..keys).map(|key| async move { cache.token(&numbered(key)).await });
    join_all(all).await
}

#[test]
fn s085_runtimes_that_fall_idle_keep_no_turn() {
    let source = all_turns_hang();
    let cache = impatient(&source).build().unwrap();
    let idle = fall_idle_with(TURNS, &cache, &source);
    // Whoever asks takes over, and gets a turn for it.
    for one in current_thread().block_on(ask_for_all(2 * TURNS, &cache)) {
        one.unwrap();
    }
    assert_eq!(source.calls(), 3 * TURNS);
    drop(idle);
}

#[test]
fn s085_a_runtime_that_falls_idle_keeps_no_turn_from_other_keys() {
    let source = all_turns_hang();
    let cache = impatient(&source).max_wait(Duration::from_secs(3));
    let cache = cache.build().unwrap();
    let idle = fall_idle_with(TURNS, &cache, &source);
    current_thread()
        .block_on(cache.token(&numbered(1_000)))
        .unwrap();
    drop(idle);
}

#[test]
fn s085_who_stands_in_line_for_a_runtime_that_fell_idle_swallows_no_turn() {
    const KEYS: usize = 40;

    let source = all_turns_hang();
    let cache = impatient(&source).max_wait(Duration::from_secs(3));
    let cache = cache.build().unwrap();
    let idle = fall_idle_with(KEYS, &cache, &source);
    let (begun, lively) = (Instant::now(), current_thread());
    while lively
        .block_on(ask_for_all(KEYS, &cache))
        .iter()
        .any(Result::is_err)
    {
        // An attempt plus a second for each 16 of them.
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    drop(idle);
}

/// The request that notices that turns were not given back is the one that has waited longest, and it keeps
/// its place.
#[test]
fn s085_who_notices_keeps_its_place_in_the_line() {
    let (source, order) = all_turns_hang_then_order();
    let cache = impatient(&source).build().unwrap();
    let idle = fall_idle_with(TURNS, &cache, &source);
    current_thread().block_on(async {
        let mut asked = Vec::new();
        for key in 100..132 {
            let cache = cache.clone();
            asked.push(tokio::spawn(async move {
                cache.token(&numbered(key)).await.map(drop)
            }));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for one in asked {
            one.await.unwrap().unwrap();
        }
    });
    assert!(order.lock().unwrap().iter().copied().eq(100..132));
    drop(idle);
}

/// Overdue turns do not mean that their runtime is not running.
#[test]
fn s085_a_stall_of_the_only_runtime_changes_nothing_in_its_line() {
    const IN_LINE: Range<usize> = TURNS..2 * TURNS;

    let (source, order) = all_turns_hang_then_order();
    let cache = impatient(&source).build().unwrap();
    current_thread().block_on(async {
        ask_and_leave(2 * TURNS, &cache, &source).await;
        // Longer than an attempt plus a second.
        thread::sleep(Duration::from_millis(1_500));
        cache.token(&numbered(1_000)).await.unwrap();
    });
    let fetched = order.lock().unwrap();
    assert!(fetched.iter().copied().eq(IN_LINE.chain([1_000])));
}

#[test]
fn s086_a_runtime_that_goes_takes_the_expirys_own_attempt_not_with_it() {
    let script = Script::new(|call| match call.number {
        1 => Answer::token("tok-1", 3599),
        2 => Answer::failure("busy"),
        3 => Answer::hang(),
        _ => Answer::token("tok-2", 3599),
    });
    let script = script.with_retry_after(Duration::from_secs(60));
    let clock = TestClock::new();
    let cache = TokenCache::builder(script.clone()).clock(clock.clone());
    let (cache, wanted) = (cache.build().unwrap(), numbered(0));
    let stays = current_thread();
    stays.block_on(cache.token(&wanted)).unwrap();
    // Attempts are a second apart.
    thread::sleep(Duration::from_millis(1_050));
    clock.suspend(Duration::from_secs(3_500));
    stays.block_on(async {
        cache.token(&wanted).await.unwrap();
        while cache.status(&wanted).last_error().is_none() {
            tokio::task::yield_now().await;
        }
    });
    clock.suspend(Duration::from_secs(100));
    let goes = current_thread();
    goes.block_on(async {
        // The next attempt begins a second after the one that failed.
        let asked = tokio::time::timeout(Duration::from_millis(1_500), cache.token(&wanted));
        asked.await.unwrap_err();
    });
    assert_eq!(script.calls(), 3);
    drop(goes);
    let begun = Instant::now();
    stays.block_on(cache.token(&wanted)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(11));
}

#[test]
fn s084_three_thousand_in_line_for_a_runtime_that_has_gone() {
    const KEYS: usize = 3_000;

    let source = all_turns_hang();
    let cache = TokenCache::builder(source.clone()).max_tokens(KEYS);
    let cache = cache.build().unwrap();
    // Each is dropped as it is spawned, one after the other, on one stack.
    drop(fall_idle_with(KEYS, &cache, &source));
    for one in current_thread().block_on(ask_for_all(KEYS, &cache)) {
        one.unwrap();
    }
}

#[test]
fn keep_fresh_without_a_runtime_ends_and_says_so() {
    let (tap, _guard) = TraceTap::install();
    let (source, tried) = (
        Script::tokens(3599),
        TokenRequest::access_token(Scopes::default()),
    );
    let cache = TokenCache::new(source.clone());
    let ends = |request: &TokenRequest| cache.keep_fresh(request).now_or_never().is_some();
    assert!(ends(&tried), "no runtime");
    let bare = Builder::new_current_thread().build().unwrap();
    bare.block_on(async { assert!(ends(&tried), "no timers") });
    current_thread().block_on(async {
        let nobodys = TokenRequest::id_token(Audience::per_origin());
        assert!(ends(&nobodys), "no source can be asked");
        assert!(!ends(&tried));
    });
    assert_eq!(tap.count("WARN"), 3, "{}", tap.text());
    assert_eq!(
        cache.len(),
        1,
        "nothing is remembered for what cannot be asked"
    );
}

#[test]
fn without_timers_a_refresh_is_a_failed_attempt() {
    let (source, clock) = (Script::tokens(3599), TestClock::new());
    let cache = TokenCache::builder(source.clone()).clock(clock.clone());
    let (cache, inner) = (cache.build().unwrap(), Inner::new());
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
    current_thread().block_on(send(&client, BUCKET)).unwrap();
    clock.suspend(Duration::from_secs(3_500)); // good for another 99 s, and due
    let bare = Builder::new_current_thread().build().unwrap();
    let wanted = TokenRequest::access_token(Scopes::default());
    // Attempts are a second apart, which no timer can wait for here.
    eventually("a failed attempt", || {
        bare.block_on(async {
            send(&client, BUCKET).await.unwrap();
            tokio::task::yield_now().await;
        });
        cache.status(&wanted).last_error().is_some()
    });
    let error = cache.status(&wanted).last_error().unwrap().to_string();
    assert!(error.contains("runtime"), "{error}");
    assert_eq!(source.calls(), 1);
}

#[test]
fn s086_a_runtime_is_shut_down_in_the_middle_of_its_fetch() {
    // All tokens live long: it is a matter of chance whether the server has seen the first request when its
    // runtime goes, and so is which request it counts as the first.
    let slow = |n| Reply::token(&format!("tok-{n}"), 3599).after(Duration::from_secs(1));
    let (mds, inner) = (FakeMds::start(slow), Inner::new());
    let client = client(&mds, &inner);
    let (first, second) = (multi_thread(), multi_thread());
    let on_first = {
        let client = client.clone();
        first.spawn(async move { send(&client, BUCKET).await.map(drop) })
    };
    eventually("the fetch is on its way", || mds.connections() == 1);
    let others = (0..10).map(|_| {
        let client = client.clone();
        second.spawn(async move { send(&client, BUCKET).await.map(drop) })
    });
    let others = others.collect::<Vec<_>>();
    first.shutdown_background();
    for result in second.block_on(join_all(others)) {
        result.unwrap().unwrap();
    }
    assert!(second.block_on(on_first).is_err(), "gone with its runtime");
    assert!(mds.token_requests() <= 2);
}

#[test]
fn s087_a_hundred_runtimes_one_after_the_other() {
    let (mds, inner) = (FakeMds::healthy(), Inner::new());
    let client = client(&mds, &inner);
    for _ in 0..100 {
        current_thread().block_on(send(&client, BUCKET)).unwrap();
    }
    assert_eq!(inner.calls(), 100);
    assert_eq!(mds.token_requests(), 1);
}

#[test]
fn s088_two_live_runtimes_at_once() {
    let (mds, inner) = (
        FakeMds::start(|n| {
            Reply::token(&format!("tok-{n}"), 3599).after(Duration::from_millis(200))
        }),
        Inner::new(),
    );
    let client = client(&mds, &inner);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                multi_thread().block_on(async {
                    let requests = (0..50_000).map(|_| send(&client, BUCKET));
                    assert!(join_all(requests).await.iter().all(Result::is_ok));
                });
            });
        }
    });
    assert_eq!(inner.calls(), 100_000);
    assert_eq!(mds.token_requests(), 1);
}

#[test]
fn s089_a_fetch_does_not_hold_up_its_thread() {
    let (mds, inner) = (
        FakeMds::start(|_| Reply::token("tok-1", 3599).after(Duration::from_millis(300))),
        Inner::new(),
    );
    let client = client(&mds, &inner);
    let local = tokio::task::LocalSet::new();
    local.block_on(&current_thread(), async {
        let request =
            tokio::task::spawn_local(async move { send(&client, BUCKET).await.map(drop) });
        let (fired, timer) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            fired.send(()).unwrap();
        });
        timer.await.unwrap();
        assert!(
            !request.is_finished(),
            "the timer went off while the fetch was under way"
        );
        request.await.unwrap().unwrap();
    });
}

#[test]
fn s091_a_warm_token_needs_no_runtime() {
    let (mds, inner) = (FakeMds::healthy(), Inner::new());
    let client = client(&mds, &inner);
    current_thread().block_on(send(&client, BUCKET)).unwrap();
    let request = send(&client, BUCKET).now_or_never().expect("at once");
    request.unwrap();
    assert_eq!(inner.calls(), 2);
}

#[test]
fn without_a_runtime_a_cold_request_is_an_error() {
    let (mds, inner) = (FakeMds::healthy(), Inner::new());
    let client = client(&mds, &inner);
    let error = send(&client, BUCKET)
        .now_or_never()
        .expect("at once")
        .unwrap_err();
    let error = support::auth_error(&error);
    assert!(
        !error.is_transient() && error.to_string().contains("runtime"),
        "{error}"
    );
    // A runtime without timers does not count either.
    let bare = Builder::new_current_thread().build().unwrap();
    let error = bare.block_on(send(&client, BUCKET)).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    current_thread().block_on(send(&client, BUCKET)).unwrap();
}

#[test]
fn s094_requests_are_served_to_the_end_of_a_drain() {
    let (mds, inner) = (short_then_long(Duration::ZERO), Inner::new());
    let client = client(&mds, &inner);
    let runtime = multi_thread();
    runtime.block_on(send(&client, BUCKET)).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let draining = runtime.spawn(async move {
        // The signal came; requests go on for longer than the token lives.
        stopped.await.unwrap();
        for _ in 0..24 {
            send(&client, BUCKET).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    stop.send(()).unwrap();
    runtime.block_on(draining).unwrap();
    assert_eq!(inner.last_token().unwrap(), "tok-2");
}

#[test]
fn s081_everything_is_dropped_in_the_middle_of_a_fetch() {
    let (mds, inner) = (FakeMds::start(|_| Reply::Hang), Inner::new());
    let client = client(&mds, &inner);
    let runtime = multi_thread();
    let request = {
        let client = client.clone();
        runtime.spawn(async move { send(&client, BUCKET).await.map(drop) })
    };
    eventually("the fetch hangs", || mds.requests().len() == 1);
    request.abort();
    drop(client);
    let begun = Instant::now();
    eventually("the connection is closed", || mds.open() == 0);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn s080_nothing_runs_once_everything_is_dropped() {
    let source = Script::new(|call| Answer::token(format!("tok-{}", call.number), 300));
    let cache = TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap();
    let client = ScopedAuthLayer::from_cache(cache).layer(Inner::new());
    send(&client, BUCKET).await.unwrap();
    let handle = tokio::runtime::Handle::current();
    let tasks = handle.metrics().num_alive_tasks();
    assert_eq!(tasks, 0, "lazy: nothing runs in the background");
    drop(client);
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(handle.metrics().num_alive_tasks(), 0);
    assert_eq!(source.calls(), 1);
}

#[test]
fn s036_a_source_that_asks_through_the_service_it_feeds() {
    let (sender, receiver) = mpsc::channel::<ScopedAuth<Inner>>();
    let receiver = std::sync::Mutex::new(Some(receiver));
    let own = std::sync::OnceLock::new();
    let source = tower_scoped_auth::source::from_fn(move |_: tower_scoped_auth::TokenRequest| {
        let client = own
            .get_or_init(|| receiver.lock().unwrap().take().unwrap().recv().unwrap())
            .clone();
        async move {
            send(&client, BUCKET).await?;
            Ok::<_, tower::BoxError>(tower_scoped_auth::Token::new("t", Duration::from_secs(60)))
        }
    });
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let cache = TokenCache::builder(source)
            .clock(TestClock::new())
            .build()
            .unwrap();
        let client = ScopedAuthLayer::from_cache(cache).layer(Inner::new());
        sender.send(client.clone()).unwrap();
        let begun = tokio::time::Instant::now();
        let error = send(&client, BUCKET).await.unwrap_err();
        assert!(support::auth_error(&error).is_timeout(), "{error}");
        assert!(
            begun.elapsed() <= Duration::from_secs(31),
            "{:?}",
            begun.elapsed()
        );
    });
}
