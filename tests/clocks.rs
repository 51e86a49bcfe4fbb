//! Group H: clocks that jump, and machines that sleep. Virtual time with two clocks, monotonic and wall.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::time::{Duration, SystemTime};

use support::{Answer, BUCKET, Inner, Script, send};
use tokio::time::{Instant, sleep, sleep_until};
use tower::Layer;
use tower_scoped_auth::{
    ScopedAuth, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, TokenState, test_util::TestClock,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct World {
    clock: TestClock,
    source: Script,
    inner: Inner,
    cache: TokenCache,
    client: ScopedAuth<Inner>,
}

impl World {
    fn new(source: Script) -> Self {
        let (clock, inner) = (TestClock::new(), Inner::new());
        let cache = TokenCache::builder(source.clone())
            .clock(clock.clone())
            .build()
            .unwrap();
        let client = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
        Self {
            clock,
            source,
            inner,
            cache,
            client,
        }
    }

    async fn send(&self) {
        send(&self.client, BUCKET).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn s104_the_wall_clock_jumps_forward() {
    let world = World::new(Script::tokens(3599));
    world.send().await;
    world.clock.set_wall(world.clock.wall() + secs(7200));
    for _ in 0..1_000 {
        world.send().await;
        sleep(secs(1)).await;
    }
    assert_eq!(world.source.calls(), 2, "one fetch for the jump");
}

#[tokio::test(start_paused = true)]
async fn s105_the_wall_clock_jumps_back() {
    let world = World::new(Script::tokens(3599));
    let begun = Instant::now();
    world.send().await;
    world.clock.set_wall(world.clock.wall() - secs(7200));
    sleep_until(begun + secs(3599)).await;
    world.send().await;
    assert_eq!(world.inner.tokens(), ["tok-1", "tok-2"]);
}

#[tokio::test(start_paused = true)]
async fn s106_the_machine_sleeps_for_two_hours() {
    let world = World::new(Script::tokens(3599));
    world.send().await;
    world.clock.suspend(secs(7200));
    for _ in 0..100 {
        world.send().await;
    }
    assert_eq!(world.source.calls(), 2);
    assert!(
        world.inner.tokens()[1..]
            .iter()
            .all(|token| token == "tok-2")
    );
}

#[tokio::test(start_paused = true)]
async fn s106_the_expiry_is_worth_an_attempt_when_the_machine_slept_across_it() {
    for retry_after in [None, Some(secs(60))] {
        let mut script = Script::new(|call| match call.number {
            2 => Answer::failure("busy"),
            number => Answer::token(format!("tok-{number}"), 3599),
        });
        if let Some(wait) = retry_after {
            script = script.with_retry_after(wait);
        }
        let (clock, inner) = (TestClock::new(), Inner::new());
        let cache = TokenCache::builder(script.clone())
            .clock(clock.clone())
            .build()
            .unwrap();
        let client = ScopedAuthLayer::from_cache(cache).layer(inner.clone());
        send(&client, BUCKET).await.unwrap();
        sleep(secs(3500)).await;
        send(&client, BUCKET).await.unwrap();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(script.calls(), 2, "a refresh that failed");
        clock.suspend(secs(7200));
        let woke = Instant::now();
        send(&client, BUCKET).await.unwrap();
        assert!(
            woke.elapsed() <= secs(1),
            "{retry_after:?}: {:?}",
            woke.elapsed()
        );
        assert_eq!(inner.last_token().unwrap(), "tok-3");
    }
}

#[tokio::test(start_paused = true)]
async fn s107_without_traffic_keep_fresh_notices_within_30_s() {
    let world = World::new(Script::tokens(3599));
    let request = TokenRequest::access_token(Scopes::default());
    tokio::spawn(world.cache.keep_fresh(&request));
    sleep(secs(100)).await;
    assert_eq!(world.source.calls(), 1, "fetched without a request");
    world.clock.suspend(secs(7200));
    assert_eq!(world.cache.status(&request).state(), TokenState::Expired);
    sleep(secs(30)).await;
    assert_eq!(world.cache.status(&request).state(), TokenState::Fresh);
    assert_eq!(world.source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s108_the_machine_sleeps_in_the_middle_of_a_fetch() {
    let source = Script::new(|call| {
        let after = if call.number == 1 {
            secs(1)
        } else {
            Duration::ZERO
        };
        Answer::token(format!("tok-{}", call.number), 3599).after(after)
    });
    let world = World::new(source);
    let client = world.client.clone();
    let request = tokio::spawn(async move { send(&client, BUCKET).await.map(drop) });
    sleep(Duration::from_millis(500)).await;
    world.clock.suspend(secs(7200));
    request.await.unwrap().unwrap();
    assert_eq!(
        world.inner.tokens(),
        ["tok-2"],
        "the first answer was two hours old"
    );
    assert_eq!(world.source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s109_a_wall_clock_before_1970() {
    let world = World::new(Script::tokens(3599));
    for wall in [
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH - secs(100_000),
    ] {
        world.clock.set_wall(wall);
        let begun = Instant::now();
        while begun.elapsed() < secs(7200) {
            world.send().await;
            sleep(secs(10)).await;
        }
        world
            .cache
            .status(&TokenRequest::access_token(Scopes::default()));
    }
    assert!(world.source.calls() <= 6, "{}", world.source.calls());
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_keeps_a_token_fresh_and_ends_with_the_last_handle() {
    let World {
        clock: _clock,
        source,
        inner: _inner,
        cache,
        client,
    } = World::new(Script::tokens(3599));
    let request = TokenRequest::access_token(Scopes::default());
    let task = tokio::spawn(cache.keep_fresh(&request));
    let begun = Instant::now();
    while begun.elapsed() < secs(24 * 3600) {
        sleep(secs(60)).await;
        assert!(cache.status(&request).is_live());
    }
    assert!(source.calls() <= 27, "{}", source.calls());
    drop(client);
    assert!(!task.is_finished());
    drop(cache);
    let ended = Instant::now();
    task.await.unwrap();
    assert!(ended.elapsed() <= secs(1), "{:?}", ended.elapsed());
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_goes_through_an_outage_at_its_own_pace() {
    let source = Script::new(|call| {
        if (secs(100)..secs(5000)).contains(&call.at) {
            Answer::failure("down")
        } else {
            Answer::token(format!("tok-{}", call.number), 3599)
        }
    });
    let world = World::new(source);
    let request = TokenRequest::access_token(Scopes::default());
    let begun = Instant::now();
    tokio::spawn(world.cache.keep_fresh(&request));
    sleep_until(begun + secs(4999)).await;
    assert!(!world.cache.status(&request).is_live());
    sleep_until(begun + secs(5011)).await;
    assert!(world.cache.status(&request).is_live());
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_follows_the_pace_of_failures_not_the_patience_for_an_attempt() {
    let source = Script::new(|call| match call.number {
        1..=3 => Answer::failure("out"),
        number => Answer::token(format!("tok-{number}"), 3599),
    });
    // Fails at once, although an attempt may take five minutes.
    let source = source.with_timeout(secs(300));
    let cache = TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap();
    let request = TokenRequest::access_token(Scopes::default());
    let begun = Instant::now();
    tokio::spawn(cache.keep_fresh(&request));
    while !cache.status(&request).is_live() {
        sleep(Duration::from_millis(50)).await;
        assert!(
            begun.elapsed() < secs(8),
            "at most 1 + 2 + 4 s: {:?}",
            source.calls()
        );
    }
    assert_eq!(source.calls(), 4);
}
