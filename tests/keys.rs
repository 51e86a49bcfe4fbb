//! Group L: each request gets the token for what it asked for, and is not affected by others' trouble.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use support::{Answer, BUCKET, Inner, Mirror, Script, get, send};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_scoped_auth::{
    Audience, Destinations, ScopedAuth, ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest,
    test_util::TestClock,
};

fn cache(source: Script) -> TokenCache {
    TokenCache::builder(source)
        .clock(TestClock::new())
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn s167_what_a_layer_holds_is_never_forgotten() {
    let source = Script::tokens(3599);
    let cache = TokenCache::builder(source.clone()).max_tokens(1);
    let cache = cache.clock(TestClock::new()).build().unwrap();
    let held = ScopedAuthLayer::from_cache(cache.clone())
        .scopes(Scopes::new(["held"]).unwrap())
        .layer(Inner::new());
    send(&held, BUCKET).await.unwrap();
    for name in ["one", "other", "one"] {
        let scopes = Scopes::new([name]).unwrap();
        let asked = TokenRequest::access_token(scopes);
        cache.token(&asked).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let before = source.calls();
    assert_eq!(before, 1 + 3, "the others make room for each other");
    send(&held, BUCKET).await.unwrap();
    assert_eq!(source.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn s167_a_token_in_use_until_its_layer_went_is_not_the_one_idle_for_longest() {
    let asked = |name: &str| TokenRequest::access_token(Scopes::new([name]).unwrap());
    let cache = TokenCache::builder(Script::tokens(3599)).max_tokens(2);
    let cache = cache.clock(TestClock::new()).build().unwrap();
    let layered = ScopedAuthLayer::from_cache(cache.clone()).scopes(Scopes::new(["held"]).unwrap());
    let client = layered.layer(Inner::new());
    send(&client, BUCKET).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    cache.token(&asked("idle")).await.unwrap();
    sleep(Duration::from_secs(1000)).await;
    send(&client, BUCKET).await.unwrap();
    drop((client, layered));
    cache.token(&asked("new")).await.unwrap();
    assert!(cache.status(&asked("held")).is_live());
    assert!(!cache.status(&asked("idle")).is_live());
}

#[tokio::test(start_paused = true)]
async fn per_origin_audiences_are_asked_for_by_origin_and_only_where_allowed() {
    let source = Script::new(|call| {
        let audience = call
            .request
            .audience()
            .and_then(Audience::as_str)
            .unwrap()
            .to_owned();
        Answer::token(audience.replace([':', '/'], "-"), 3599)
    });
    let inner = Inner::new();
    let client = ScopedAuthLayer::from_cache(cache(source.clone()))
        .audience(Audience::per_origin())
        .destinations(Destinations::only(["https://*.run.app"]).unwrap())
        .layer(inner.clone());
    for _ in 0..2 {
        for uri in [
            "https://A.run.app/x",
            "https://a.run.app:443/y",
            "https://b.run.app",
        ] {
            send(&client, uri).await.unwrap();
        }
    }
    assert!(send(&client, "https://c.example/").await.is_err());
    let (a, b) = ("https---a.run.app", "https---b.run.app");
    assert_eq!(inner.tokens(), [a, a, b, a, a, b]);
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s165_a_request_brings_its_own_scopes_or_audience() {
    let source = Script::new(|call| {
        let scopes = call
            .request
            .scopes()
            .map(|scopes| scopes.iter().collect::<Vec<_>>().join("+"));
        let audience = call
            .request
            .audience()
            .and_then(Audience::as_str)
            .map(str::to_owned);
        Answer::token(format!("for-{}", scopes.or(audience).unwrap()), 3599)
    });
    let inner = Inner::new();
    let client = ScopedAuthLayer::from_cache(cache(source.clone()))
        .scopes(Scopes::new(["layer"]).unwrap())
        .layer(inner.clone());
    let send = async |client: &ScopedAuth<Inner>, change: &dyn Fn(&mut http::Extensions)| {
        let mut request = get(BUCKET);
        change(request.extensions_mut());
        client.clone().oneshot(request).await.unwrap();
    };
    send(&client, &|_| {}).await;
    send(&client, &|e| {
        drop(e.insert(Scopes::new(["b", "a"]).unwrap()))
    })
    .await;
    send(&client, &|e| {
        drop(e.insert(Scopes::new(["a", "b", "a"]).unwrap()))
    })
    .await;
    send(&client, &|e| drop(e.insert(Audience::new("aud").unwrap()))).await;
    assert_eq!(
        inner.tokens(),
        ["for-layer", "for-a+b", "for-a+b", "for-aud"]
    );
    assert_eq!(source.calls(), 3, "s160: one key per set");
}

#[test]
fn s162_a_scope_set_that_fails_delays_no_other() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    { runtime }
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            let source = Script::new(|call| match call.request.scopes().unwrap().iter().next() {
                Some("x") => Answer::failure("403"),
                _ => Answer::token("tok", 60),
            });
            let cache = cache(source.clone());
            let of = |scope| TokenRequest::access_token(Scopes::new([scope]).unwrap());
            let begun = tokio::time::Instant::now();
            while begun.elapsed() < Duration::from_secs(600) {
                let _ = cache.token(&of("x")).now_or_never();
                for scope in ["y", "z"] {
                    let asked = tokio::time::Instant::now();
                    cache.token(&of(scope)).await.unwrap();
                    assert!(asked.elapsed() < Duration::from_millis(10));
                }
                sleep(Duration::from_millis(500)).await;
            }
            assert!(cache.status(&of("x")).last_error().is_some());
            assert!(cache.status(&of("y")).last_error().is_none());
        });
}

#[tokio::test(start_paused = true)]
async fn s160_a_set_is_one_key_however_it_is_written() {
    let source = Script::tokens(3599);
    let cache = cache(source.clone());
    for scopes in [&["a", "b"][..], &["b", "a"], &["a", "b", "a"]] {
        let client = ScopedAuthLayer::from_cache(cache.clone())
            .scopes(Scopes::new(scopes).unwrap())
            .layer(Inner::new());
        send(&client, BUCKET).await.unwrap();
    }
    assert_eq!((source.calls(), cache.len()), (1, 1));
}

/// Sends many requests, each for one of 100 scope sets, some of which lose their token meanwhile.
async fn cross_talk(tasks: usize, requests: usize) {
    let source = tower_scoped_auth::source::from_fn(|request: TokenRequest| async move {
        let name = request.scopes().unwrap().iter().next().unwrap().to_owned();
        Ok::<_, std::io::Error>(Token::new(name, Duration::from_secs(fastrand::u64(1..100))))
    });
    let cache = TokenCache::new(source);
    let sets: Arc<Vec<Scopes>> = Arc::new(
        (0..100)
            .map(|n| Scopes::new([format!("set-{n}")]).unwrap())
            .collect(),
    );
    let tasks = (0..tasks).map(|_| {
        let (cache, sets) = (cache.clone(), Arc::clone(&sets));
        let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Mirror);
        tokio::spawn(async move {
            for _ in 0..requests {
                let number = fastrand::usize(0..sets.len());
                let mut request = get(BUCKET);
                request.extensions_mut().insert(sets[number].clone());
                let response = client.clone().oneshot(request).await.unwrap();
                assert_eq!(response.into_body(), format!("Bearer set-{number}"));
                if fastrand::u16(..) < 8 {
                    let wanted = TokenRequest::access_token(sets[number].clone());
                    let token = cache.token(&wanted).await.unwrap();
                    assert_eq!(token.expose_secret(), format!("set-{number}"));
                    cache.invalidate(&token);
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn s161_no_cross_talk_between_scope_sets() {
    cross_talk(8, 5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[ignore = "the full size of s161: a million requests"]
async fn s161_no_cross_talk_in_a_million_requests() {
    cross_talk(8, 125_000).await;
}
