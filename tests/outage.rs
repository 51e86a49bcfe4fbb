//! Group D: the token source fails and comes back. Virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::time::Duration;

use support::{Answer, BUCKET, Inner, Script, TraceTap, auth_error, send};
use tokio::time::{Instant, sleep, sleep_until};
use tower::Layer;
use tower_scoped_auth::{
    ScopedAuth, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, TokenState, test_util::TestClock,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cache(source: &Script) -> TokenCache {
    TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap()
}

fn client(source: &Script, inner: &Inner) -> ScopedAuth<Inner> {
    ScopedAuthLayer::from_cache(cache(source)).layer(inner.clone())
}

/// Fails during this span of seconds, and is well before and after.
fn down(from: u64, until: u64) -> Script {
    Script::new(move |call| {
        if (secs(from)..secs(until)).contains(&call.at) {
            Answer::failure("down")
        } else {
            Answer::token(format!("tok-{}", call.number), 3599)
        }
    })
}

/// How a request fared: when it was sent, how long it took, whether it went out.
struct Met {
    at: Duration,
    took: Duration,
    ok: bool,
}

/// Sends a request every `every` until `until` after `begun`; requests that wait overlap.
async fn traffic(
    client: &ScopedAuth<Inner>,
    begun: Instant,
    every: Duration,
    until: Duration,
) -> Vec<Met> {
    let mut tasks = Vec::new();
    while begun.elapsed() < until {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let asked = Instant::now();
            let ok = send(&client, BUCKET).await.is_ok();
            Met {
                at: asked - begun,
                took: asked.elapsed(),
                ok,
            }
        }));
        sleep(every).await;
    }
    let mut met = Vec::new();
    for task in tasks {
        met.push(task.await.unwrap());
    }
    met
}

#[tokio::test(start_paused = true)]
async fn s065_an_outage_while_a_token_is_valid_is_not_noticed() {
    let (source, inner) = (down(3369, 3594), Inner::new());
    let client = client(&source, &inner);
    let begun = Instant::now();
    send(&client, BUCKET).await.unwrap();
    sleep_until(begun + secs(3360)).await;
    let met = traffic(&client, begun, Duration::from_millis(100), secs(3700)).await;
    assert!(met.iter().all(|met| met.ok));
    let outside_guard = |met: &&Met| !(secs(3589)..secs(3594)).contains(&met.at);
    assert!(
        met.iter()
            .filter(outside_guard)
            .all(|met| met.took.is_zero())
    );
    // In the guard band a request waits for an attempt, and this source fails at once.
    assert!(met.iter().all(|met| met.took < Duration::from_millis(10)));
    assert_eq!(
        inner.last_token().unwrap(),
        format!("tok-{}", source.calls())
    );
}

#[tokio::test(start_paused = true)]
async fn s066_an_outage_across_the_expiry_heals_within_11_s() {
    let (source, inner) = (down(3369, 3719), Inner::new());
    let client = client(&source, &inner);
    let begun = Instant::now();
    send(&client, BUCKET).await.unwrap();
    sleep_until(begun + secs(3360)).await;
    let met = traffic(&client, begun, Duration::from_millis(100), secs(3740)).await;
    let first_error = met.iter().find(|met| !met.ok).unwrap();
    assert!(first_error.at >= secs(3599), "{:?}", first_error.at);
    let healed = |met: &&Met| met.ok && met.at + met.took >= secs(3719);
    let healed = met
        .iter()
        .filter(healed)
        .map(|met| met.at + met.took)
        .min()
        .unwrap();
    assert!(healed <= secs(3719 + 11), "{healed:?}");
    assert!(met.iter().filter(|met| met.at > healed).all(|met| met.ok));
}

#[tokio::test(start_paused = true)]
async fn s067_an_old_failure_is_not_an_answer() {
    let (source, inner) = (down(0, 300), Inner::new());
    let client = client(&source, &inner);
    let begun = Instant::now();
    let met = traffic(&client, begun, Duration::from_millis(10), secs(320)).await;
    let failed_late = met.iter().filter(|met| !met.ok && met.at > secs(31));
    assert!(
        failed_late.clone().all(|met| met.took <= secs(1)),
        "fail fast"
    );
    assert!(failed_late.count() > 10_000);
    assert!(
        met.iter()
            .all(|met| met.ok || met.at + met.took <= secs(311))
    );
    // Each failure handed out is from an attempt at most 10 s (plus an attempt) ago.
    let times = source.times();
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] <= secs(13)),
        "{times:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn s068_a_day_without_the_source() {
    let day = 24 * 3600;
    let (source, inner) = (down(0, day), Inner::new());
    let client = client(&source, &inner);
    let begun = Instant::now();
    while begun.elapsed() < secs(day) {
        let _ = send(&client, BUCKET).await;
        sleep(Duration::from_millis(250)).await;
    }
    assert!(
        (8_000..=17_500).contains(&source.calls()),
        "{}",
        source.calls()
    );
    while send(&client, BUCKET).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() <= secs(day + 11), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s070_a_source_that_fails_every_other_time() {
    let source = Script::new(|call| {
        if call.number % 2 == 0 {
            Answer::failure("flapping")
        } else {
            Answer::token(format!("tok-{}", call.number), 3599)
        }
    });
    let inner = Inner::new();
    let client = client(&source, &inner);
    let begun = Instant::now();
    while begun.elapsed() < secs(24 * 3600) {
        send(&client, BUCKET).await.unwrap();
        sleep(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s072_the_status_tells_of_the_trouble_and_forgets_it() {
    let source = down(3369, 3500);
    let cache = cache(&source);
    let request = TokenRequest::access_token(Scopes::default());
    assert_eq!(cache.status(&request).state(), TokenState::Empty);
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Inner::new());
    let begun = Instant::now();
    send(&client, BUCKET).await.unwrap();
    let fresh = cache.status(&request);
    assert_eq!(fresh.state(), TokenState::Fresh);
    assert!(fresh.last_error().is_none());
    assert!(fresh.expires_in().unwrap() > secs(3590));
    sleep_until(begun + secs(3450)).await;
    for _ in 0..10 {
        send(&client, BUCKET).await.unwrap();
        sleep(secs(1)).await;
    }
    let stale = cache.status(&request);
    assert_eq!(stale.state(), TokenState::Stale);
    assert!(stale.failing_since().is_some());
    assert!(stale.last_error().is_some_and(|error| error.is_transient()));
    sleep_until(begun + secs(3511)).await;
    send(&client, BUCKET).await.unwrap();
    sleep(secs(1)).await;
    let healed = cache.status(&request);
    assert_eq!(healed.state(), TokenState::Fresh, "{healed:?}");
    assert!(healed.last_error().is_none() && healed.failing_since().is_none());
}

#[tokio::test(start_paused = true)]
async fn s073_an_invalidated_token_is_fetched_anew() {
    let source = Script::tokens(3599);
    let (cache, inner) = (cache(&source), Inner::new());
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
    let request = TokenRequest::access_token(Scopes::default());
    send(&client, BUCKET).await.unwrap();
    let token = cache.token(&request).await.unwrap();
    assert!(cache.invalidate(&token));
    send(&client, BUCKET).await.unwrap();
    assert!(
        !cache.invalidate(&token),
        "compare and clear: it is no longer the current one"
    );
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.tokens(), ["tok-1", "tok-2", "tok-2"]);
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s073_an_invalidated_token_does_not_come_back_with_what_was_asked_for_before() {
    let source = Script::new(|call| match call.number {
        1 => Answer::token("bad", 60),
        2 => Answer::token("bad", 3000).after(secs(2)),
        _ => Answer::token("good", 3599),
    });
    let (cache, inner) = (cache(&source), Inner::new());
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
    let request = TokenRequest::access_token(Scopes::default());
    let bad = cache.token(&request).await.unwrap();
    sleep(secs(40)).await;
    send(&client, BUCKET).await.unwrap();
    sleep(secs(1)).await;
    assert_eq!(source.calls(), 2, "a refresh is under way");
    assert!(cache.invalidate(&bad));
    let asked = Instant::now();
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.tokens(), ["bad", "good"]);
    assert!(asked.elapsed() <= secs(1 + 2), "{:?}", asked.elapsed());

    // If a fetch that began afterwards returns the same token, the server means it.
    let good = cache.token(&request).await.unwrap();
    assert!(cache.invalidate(&good));
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.last_token().unwrap(), "good");
}

#[tokio::test(start_paused = true)]
async fn s064_an_outage_is_logged_by_the_attempt_not_by_the_request() {
    let (tap, _guard) = TraceTap::install();
    let source = down(0, 4000);
    let client = client(&source, &Inner::new());
    let begun = Instant::now();
    while begun.elapsed() < secs(3600) {
        for _ in 0..10 {
            let error = send(&client, BUCKET).await.unwrap_err();
            assert!(auth_error(&error).is_transient());
        }
        sleep(Duration::from_millis(500)).await;
    }
    assert!(
        tap.count("WARN") <= source.calls(),
        "{} of {}",
        tap.count("WARN"),
        source.calls()
    );
    assert!(tap.count("WARN") >= source.calls() - 1);
    assert!(tap.count("ERROR") <= 361, "{}", tap.count("ERROR"));
    assert!(tap.count("ERROR") >= 100, "{}", tap.count("ERROR"));
}
