//! One service, used again and again without being cloned: it never relies on what it remembers of its
//! last token for longer than that is true.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use support::{Answer, BUCKET, Inner, Script, auth_error, get};
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_scoped_auth::{
    ScopedAuth, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, test_util::TestClock,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct World {
    clock: TestClock,
    cache: TokenCache,
    inner: Inner,
    client: ScopedAuth<Inner>,
}

impl World {
    fn new(source: Script, inner: Inner) -> Self {
        let clock = TestClock::new();
        let builder = TokenCache::builder(source).clock(clock.clone());
        let cache = builder.build().unwrap();
        let client = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
        Self {
            clock,
            cache,
            inner,
            client,
        }
    }

    async fn call(&mut self, request: Request<()>) -> Result<Response<()>, BoxError> {
        let client: &mut ScopedAuth<Inner> =
            ServiceExt::<Request<()>>::ready(&mut self.client).await?;
        client.call(request).await
    }

    /// [`send`](Self::send), twice: the first request waits for its token; only the second leaves the
    /// service with something to remember.
    async fn send_twice(&mut self) -> Result<String, BoxError> {
        self.send().await?;
        self.send().await
    }

    /// Sends one request through the one instance; returns the token it carried.
    async fn send(&mut self) -> Result<String, BoxError> {
        self.call(get(BUCKET)).await?;
        let seen = self.inner.seen();
        Ok(seen.last().unwrap().token().unwrap().to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn it_follows_each_refresh() {
    let mut world = World::new(Script::tokens(600), Inner::new());
    let mut tokens = Vec::new();
    for _ in 0..600 {
        tokens.push(world.send().await.unwrap());
        sleep(secs(10)).await;
    }
    tokens.dedup();
    let expected: Vec<_> = (1..=tokens.len()).map(|n| format!("tok-{n}")).collect();
    assert_eq!(tokens, expected, "each token once, in order");
    assert!((10..=20).contains(&tokens.len()), "{tokens:?}");
}

#[tokio::test(start_paused = true)]
async fn s004_it_does_not_send_what_has_expired() {
    let source = Script::new(|call| match call.number {
        1 => Answer::token("tok-1", 600),
        _ => Answer::failure("gone"),
    });
    let mut world = World::new(source, Inner::new());
    for _ in 0..600 {
        assert_eq!(world.send().await.unwrap(), "tok-1");
        sleep(secs(1)).await;
    }
    let error = world.send().await.unwrap_err();
    assert!(auth_error(&error).is_transient(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn s106_it_notices_that_the_machine_slept() {
    let mut world = World::new(Script::tokens(3599), Inner::new());
    assert_eq!(world.send_twice().await.unwrap(), "tok-1");
    world.clock.suspend(secs(7200));
    assert_eq!(world.send().await.unwrap(), "tok-2");
}

#[tokio::test(start_paused = true)]
async fn s073_it_lets_go_of_an_invalidated_token() {
    let mut world = World::new(Script::tokens(3599), Inner::new());
    assert_eq!(world.send_twice().await.unwrap(), "tok-1");
    let request = TokenRequest::access_token(Scopes::default());
    let token = world.cache.token(&request).await.unwrap();
    assert!(world.cache.invalidate(&token));
    assert_eq!(world.send().await.unwrap(), "tok-2");
}

#[tokio::test(start_paused = true)]
async fn s149_it_asks_anew_after_a_401() {
    let revoked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&revoked);
    let inner = Inner::answering(move |seen| {
        if seen.token() == Some("tok-1") && flag.load(Ordering::SeqCst) {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        }
    });
    let mut world = World::new(Script::tokens(3599), inner);
    assert_eq!(world.send_twice().await.unwrap(), "tok-1");
    revoked.store(true, Ordering::SeqCst);
    assert_eq!(world.send().await.unwrap(), "tok-1", "it cannot know yet");
    assert_eq!(world.send().await.unwrap(), "tok-2");
    assert_eq!(world.send().await.unwrap(), "tok-2");
}

#[tokio::test(start_paused = true)]
async fn a_longer_life_of_the_same_token_is_used() {
    // The server hands out the same secret with a later expiry.
    let mut world = World::new(Script::new(|_| Answer::token("same", 600)), Inner::new());
    for _ in 0..300 {
        assert_eq!(world.send().await.unwrap(), "same");
        sleep(secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s142_the_callers_own_header_comes_back_out() {
    let mut world = World::new(Script::tokens(3599), Inner::new());
    world.send().await.unwrap();
    let mut request = get(BUCKET);
    for own in ["Bearer mine", "Basic other"] {
        request
            .headers_mut()
            .append("authorization", own.parse().unwrap());
    }
    world.call(request).await.unwrap();
    let seen = world.inner.seen();
    let values: Vec<_> = seen[1].headers.get_all("authorization").iter().collect();
    assert_eq!(values, ["Bearer mine"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_room_for_a_header_is_an_error() {
    let mut world = World::new(Script::tokens(3599), Inner::new());
    world.send().await.unwrap();
    let mut request = get(BUCKET);
    let full = (0..40_000).any(|n| {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        let value = http::HeaderValue::from_static("");
        request.headers_mut().try_insert(name, value).is_err()
    });
    assert!(full, "a header map has a largest size");
    let error = world.call(request).await.unwrap_err();
    assert!(!auth_error(&error).is_transient(), "{error}");
    assert!(error.to_string().contains("headers"), "{error}");
}
