//! Group A: when a token is refreshed, and which one a request carries. Virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{collections::HashSet, time::Duration};

use futures_util::FutureExt;
use support::{Answer, BUCKET, Inner, Script, get, send};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, Service, ServiceExt};
use tower_scoped_auth::{ScopedAuth, ScopedAuthLayer, TokenCache, test_util::TestClock};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn client(source: &Script, inner: &Inner) -> ScopedAuth<Inner> {
    let cache = TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap();
    ScopedAuthLayer::from_cache(cache).layer(inner.clone())
}

/// Requests at an even pace from now on; each must be answered before the next is due. Returns how
/// many had to wait.
async fn traffic(client: &ScopedAuth<Inner>, every: Duration, span: Duration) -> usize {
    let begun = Instant::now();
    let mut waited = 0;
    while begun.elapsed() < span {
        let next = Instant::now() + every;
        let mut ready = client.clone();
        ServiceExt::<http::Request<()>>::ready(&mut ready)
            .await
            .unwrap();
        let mut response = std::pin::pin!(ready.call(get(BUCKET)));
        if let Some(response) = response.as_mut().now_or_never() {
            response.unwrap();
        } else {
            waited += 1;
            response.await.unwrap();
        }
        sleep_until(next).await;
    }
    waited
}

#[tokio::test(start_paused = true)]
async fn s002_one_fetch_serves_everyone() {
    let (source, inner) = (Script::tokens(3599), Inner::new());
    let client = client(&source, &inner);
    let waited = traffic(&client, Duration::from_millis(330), secs(3300)).await;
    assert_eq!(source.calls(), 1);
    assert_eq!(inner.calls(), 10_000);
    assert_eq!(inner.tokens().into_iter().collect::<HashSet<_>>().len(), 1);
    assert_eq!(waited, 1, "the first");
}

#[tokio::test(start_paused = true)]
async fn s003_refreshed_early_and_nobody_waits() {
    let source = Script::new(|call| {
        let answer = Answer::token(format!("tok-{}", call.number), 3599);
        if call.number == 2 {
            answer.after(secs(5))
        } else {
            answer
        }
    })
    .with_timeout(secs(10));
    let inner = Inner::new();
    let client = client(&source, &inner);
    send(&client, BUCKET).await.unwrap();
    sleep(secs(3300)).await;
    let waited = traffic(&client, Duration::from_millis(10), secs(300)).await;
    assert_eq!(waited, 0);
    let times = source.times();
    assert_eq!(times.len(), 2);
    assert!(
        (3599 - 230..=3599 - 180).contains(&times[1].as_secs()),
        "{times:?}"
    );
    let tokens = inner.tokens();
    let swap = tokens.iter().position(|token| token == "tok-2").unwrap();
    assert!(tokens[..swap].iter().all(|token| token == "tok-1"));
    assert!(tokens[swap..].iter().all(|token| token == "tok-2"));
}

#[tokio::test(start_paused = true)]
async fn s005_life_counts_from_when_the_fetch_was_sent() {
    let source = Script::new(|call| {
        let after = if call.number == 1 {
            secs(20)
        } else {
            Duration::ZERO
        };
        Answer::token(format!("tok-{}", call.number), 60).after(after)
    })
    .with_timeout(secs(30));
    let inner = Inner::new();
    let client = client(&source, &inner);
    let begun = Instant::now();
    send(&client, BUCKET).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 20);
    assert_eq!(inner.last_token().unwrap(), "tok-1");
    // 40 s after the answer, 60 s after the question.
    sleep_until(begun + secs(60)).await;
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.last_token().unwrap(), "tok-2");
}

/// A day of steady traffic against a server that hands out one token until `remint_at` is left.
async fn a_day(remint_at: u64, every: Duration) -> (Script, Inner, usize) {
    let (source, inner) = (Script::minting(remint_at), Inner::new());
    let client = client(&source, &inner);
    let waited = traffic(&client, every, secs(24 * 3600)).await;
    (source, inner, waited)
}

#[tokio::test(start_paused = true)]
async fn s007_a_server_that_remints_at_300_s_is_asked_27_times_a_day() {
    let (source, inner, waited) = a_day(300, Duration::from_millis(500)).await;
    assert!(source.calls() <= 27, "{}", source.calls());
    let tokens = inner.tokens().into_iter().collect::<HashSet<_>>();
    assert_eq!(tokens.len(), source.calls(), "no fetch in vain");
    assert_eq!(waited, 1, "the first");
}

#[tokio::test(start_paused = true)]
async fn s008_a_server_that_remints_at_240_s_is_asked_27_times_a_day() {
    let (source, inner, waited) = a_day(240, Duration::from_millis(500)).await;
    assert!(source.calls() <= 27, "{}", source.calls());
    let tokens = inner.tokens().into_iter().collect::<HashSet<_>>();
    assert_eq!(tokens.len(), source.calls(), "no fetch in vain");
    assert_eq!(waited, 1, "the first");
}

#[tokio::test(start_paused = true)]
async fn s009_a_server_that_remints_at_30_s_is_not_stormed() {
    let (source, _, waited) = a_day(30, Duration::from_millis(500)).await;
    assert_eq!(waited, 1, "the first");
    let times = source.times();
    assert!(times.len() <= 24 * 45, "{}", times.len());
    let gaps = times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect::<Vec<_>>();
    assert!(
        gaps.iter().all(|gap| *gap >= secs(1)),
        "{:?}",
        gaps.iter().min()
    );
    let inside = gaps
        .iter()
        .filter(|gap| **gap < secs(300))
        .collect::<Vec<_>>();
    let mean = inside.iter().copied().sum::<Duration>() / inside.len() as u32;
    assert!(mean >= secs(5), "{mean:?}");
}

#[tokio::test(start_paused = true)]
async fn s010_a_first_token_inside_the_window_is_served_without_a_storm() {
    let source = Script::new(|call| {
        let now = call.at.as_secs();
        if now < 170 {
            Answer::token("tok-1", 200 - now)
        } else {
            Answer::token("tok-2", 3599)
        }
    });
    let inner = Inner::new();
    let client = client(&source, &inner);
    let waited = traffic(&client, Duration::from_millis(1), secs(200)).await;
    assert_eq!(waited, 1, "the first");
    assert!(source.calls() <= 40, "{}", source.calls());
    assert_eq!(inner.last_token().unwrap(), "tok-2");
}

#[tokio::test(start_paused = true)]
async fn s011_lives_shorter_than_the_lead() {
    let (source, inner) = (Script::tokens(60), Inner::new());
    let client = client(&source, &inner);
    let waited = traffic(&client, Duration::from_millis(100), secs(600)).await;
    assert_eq!(waited, 1, "the first");
    assert!((10..=40).contains(&source.calls()), "{}", source.calls());
}

#[tokio::test(start_paused = true)]
async fn s012_one_second_tokens_do_not_spin() {
    let (source, inner) = (Script::tokens(1), Inner::new());
    let client = client(&source, &inner);
    traffic(&client, Duration::from_millis(10), secs(60)).await;
    assert!(source.calls() <= 66, "{}", source.calls());
}

#[tokio::test(start_paused = true)]
async fn s020_a_worse_token_never_replaces_a_better_one() {
    let source = Script::new(|call| match call.number {
        1 => Answer::token("tok-1", 200),
        2 => Answer::token("tok-2", 0),
        3 => Answer::token("bad token", 3599),
        4 => Answer::token("tok-4", 10),
        _ => Answer::token("tok-5", 3599),
    });
    let inner = Inner::new();
    let client = client(&source, &inner);
    assert_eq!(
        traffic(&client, Duration::from_millis(100), secs(190)).await,
        1
    );
    let tokens = inner.tokens().into_iter().collect::<HashSet<_>>();
    assert_eq!(
        tokens,
        HashSet::from(["tok-1".to_owned(), "tok-5".to_owned()])
    );
    let times = source.times();
    assert!(
        times[1..]
            .windows(2)
            .all(|pair| pair[1] - pair[0] <= secs(10)),
        "{times:?}"
    );
}
