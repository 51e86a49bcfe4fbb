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

/// Sends requests at an even pace from now on; each must be answered before the next is due. Returns
/// how many had to wait.
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
    // 40 s after the response, 60 s after the request.
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
#[ignore = "the full size of s007 and s008: ten requests a second"]
async fn s007_s008_at_ten_requests_a_second() {
    for remint_at in [300, 240] {
        let (source, inner, waited) = a_day(remint_at, Duration::from_millis(100)).await;
        assert!(source.calls() <= 27, "{}", source.calls());
        let tokens = inner.tokens().into_iter().collect::<HashSet<_>>();
        assert_eq!(tokens.len(), source.calls(), "no fetch in vain");
        assert_eq!(waited, 1, "the first");
    }
}

#[tokio::test(start_paused = true)]
async fn s009_a_server_that_remints_at_30_s_is_not_stormed() {
    let (source, _, waited) = a_day(30, Duration::from_millis(500)).await;
    assert_eq!(waited, 1, "the first");
    let times = source.times();
    let hour = times.windows(46).find(|w| w[45] - w[0] < secs(3600));
    assert!(hour.is_none(), "46 within an hour: {hour:?}");
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

    // How far into its 20 seconds a token is sent: its name is the time when it was asked for.
    let source = Script::new(|call| Answer::token(call.at.as_millis().to_string(), 20));
    let begun = Instant::now();
    let inner = Inner::answering(move |seen| {
        let asked = Duration::from_millis(seen.token().unwrap().parse().unwrap());
        let age = begun.elapsed().saturating_sub(asked);
        assert!(age < secs(20), "{age:?} old");
        http::StatusCode::OK
    });
    let client = self::client(&source, &inner);
    assert_eq!(
        traffic(&client, Duration::from_millis(100), secs(600)).await,
        1,
        "the first"
    );
    // And after pauses as long as a token's life.
    for _ in 0..10 {
        sleep(secs(20)).await;
        send(&client, BUCKET).await.unwrap();
    }
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

#[tokio::test(start_paused = true)]
async fn s013_in_the_guard_band_a_request_waits_a_little_for_the_refresh() {
    for (works, after) in [
        (true, Duration::from_millis(50)),
        (false, Duration::from_millis(50)),
        // Longer than an attempt may take.
        (false, secs(1_000_000)),
    ] {
        let source = Script::new(move |call| match call.number {
            1 => Answer::token("tok-1", 3599),
            _ if call.at < secs(3590) => Answer::failure("broken"),
            _ if works => Answer::token("tok-2", 3599).after(after),
            _ => Answer::failure("still broken").after(after),
        });
        let inner = Inner::new();
        let client = client(&source, &inner);
        let begun = Instant::now();
        send(&client, BUCKET).await.unwrap();
        sleep_until(begun + secs(3580)).await;
        send(&client, BUCKET).await.unwrap();
        sleep_until(begun + secs(3590)).await;
        let failed = source.calls();
        assert!(failed >= 2, "refreshes have failed until now");
        let asked = Instant::now();
        send(&client, BUCKET).await.unwrap();
        assert_eq!(source.calls(), failed + 1);
        let (token, took) = (inner.last_token().unwrap(), asked.elapsed());
        if works {
            assert_eq!((token.as_str(), took), ("tok-2", after));
        } else {
            assert_eq!(token, "tok-1");
            // A timer may fire a millisecond late.
            let most = after.min(secs(3)) + Duration::from_millis(2);
            assert!(took <= most, "{took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s013_that_wait_is_not_cut_by_a_shorter_max_wait() {
    for max_wait in [30, 1, 0] {
        let source = Script::new(|call| match call.number {
            1 => Answer::token("tok-1", 60),
            _ => Answer::token("tok-2", 60).after(secs(2)),
        });
        let cache = TokenCache::builder(source)
            .clock(TestClock::new())
            .max_wait(secs(max_wait));
        let inner = Inner::new();
        let client = ScopedAuthLayer::from_cache(cache.build().unwrap()).layer(inner.clone());
        // Once it has been fetched, the first one serves those who cannot wait, too.
        while send(&client, BUCKET).await.is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(secs(55)).await;
        // Another future in the same task also wakes the request.
        let asked = Instant::now();
        let beside = sleep(Duration::from_millis(1500));
        let (sent, ()) = tokio::join!(send(&client, BUCKET), beside);
        sent.unwrap();
        assert_eq!(asked.elapsed(), secs(2), "{max_wait}");
        assert_eq!(inner.last_token().unwrap(), "tok-2", "{max_wait}");
    }
}

#[tokio::test(start_paused = true)]
async fn s014_a_refresh_that_hangs_across_the_expiry() {
    let source = Script::new(|call| match call.at.as_secs() {
        0 => Answer::token("tok-1", 3599),
        1..3601 => Answer::hang(),
        _ => Answer::token("tok-2", 3599),
    });
    let inner = Inner::new();
    let client = client(&source, &inner);
    let begun = Instant::now();
    send(&client, BUCKET).await.unwrap();
    sleep_until(begun + secs(3399)).await;
    // Before the guard band nobody waits, and within it nobody waits for a source that hangs.
    assert_eq!(
        traffic(&client, Duration::from_millis(100), secs(200)).await,
        0
    );
    assert!(inner.tokens().iter().all(|token| token == "tok-1"));
    sleep_until(begun + secs(3599)).await;
    let mut tasks = Vec::new();
    for _ in 0..500 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            send(&client, BUCKET).await.map(drop)
        }));
        sleep(Duration::from_millis(4)).await;
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(begun.elapsed() <= secs(3601 + 11), "{:?}", begun.elapsed());
    assert_eq!(
        inner
            .tokens()
            .iter()
            .filter(|token| *token == "tok-2")
            .count(),
        500
    );
    assert_eq!(source.peak(), 1);
}

#[tokio::test(start_paused = true)]
async fn s015_after_ten_idle_hours_one_fetch() {
    let (source, inner) = (Script::tokens(3599), Inner::new());
    let client = client(&source, &inner);
    send(&client, BUCKET).await.unwrap();
    sleep(secs(36_000)).await;
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.tokens(), ["tok-1", "tok-2"]);
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s016_a_thousand_processes_spread_their_refreshes() {
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..1_000 {
        let source = Script::tokens(3599);
        let client = client(&source, &Inner::new());
        send(&client, BUCKET).await.unwrap();
        clients.push((source, client));
    }
    sleep_until(begun + secs(3365)).await;
    while begun.elapsed() < secs(3430) {
        for (_, client) in clients.iter().filter(|(source, _)| source.calls() < 2) {
            send(client, BUCKET).await.unwrap();
        }
        sleep(Duration::from_millis(100)).await;
    }
    let mut starts: Vec<_> = clients
        .iter()
        .map(|(source, _)| {
            assert_eq!(source.calls(), 2);
            source.times()[1]
        })
        .collect();
    starts.sort_unstable();
    let span = starts[999] - starts[0];
    assert!(span >= secs(30), "{span:?}");
    let crowd = starts.windows(101).find(|w| w[100] - w[0] < secs(1));
    assert!(crowd.is_none(), "101 within a second: {crowd:?}");
}

#[tokio::test(start_paused = true)]
async fn s017_jitter_is_drawn_once_per_token() {
    let source = Script::new(|call| {
        let after = if call.number == 2 {
            secs(9)
        } else {
            Duration::ZERO
        };
        Answer::token(format!("tok-{}", call.number), 3599).after(after)
    })
    .with_timeout(secs(20));
    let inner = Inner::new();
    let client = client(&source, &inner);
    send(&client, BUCKET).await.unwrap();
    sleep(secs(3374)).await;
    traffic(&client, Duration::from_millis(4), secs(40)).await;
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s018_hostile_settings_are_refused_or_harmless() {
    let builder = || TokenCache::builder(Script::tokens(3600)).clock(TestClock::new());
    let refused = [
        builder().refresh_lead(Duration::ZERO),
        builder().refresh_lead(Duration::MAX),
        builder().attempt_timeout(Duration::ZERO),
        builder().attempt_timeout(Duration::MAX),
        builder().max_wait(Duration::MAX),
        builder().max_tokens(0),
    ];
    for builder in refused {
        assert_eq!(builder.build().unwrap_err().to_string().lines().count(), 1);
    }
    // A lead of twice the life is cut to half of it; one shorter than the guard band cuts that to half of it.
    for lead in [secs(7200), secs(1)] {
        let (source, inner) = (Script::tokens(3600), Inner::new());
        let cache = TokenCache::builder(source.clone())
            .clock(TestClock::new())
            .refresh_lead(lead)
            .build()
            .unwrap();
        let client = ScopedAuthLayer::from_cache(cache).layer(inner);
        traffic(&client, secs(1), secs(3600)).await;
        assert!(source.calls() <= 3, "{}", source.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn s019_a_long_life_is_used() {
    let (source, inner) = (Script::tokens(43_200), Inner::new());
    let client = client(&source, &inner);
    traffic(&client, secs(10), secs(42_900)).await;
    assert_eq!(source.calls(), 1);
    traffic(&client, secs(10), secs(300)).await;
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s021_the_same_token_with_a_later_expiry_lives_longer() {
    let source = Script::new(|_| Answer::token("tok-1", 600));
    let inner = Inner::new();
    let cache = TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap();
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(inner);
    assert_eq!(traffic(&client, secs(1), secs(6000)).await, 1, "the first");
    assert!(source.calls() <= 6000 / 300 + 1, "{}", source.calls());
    let status = cache.status(&tower_scoped_auth::TokenRequest::access_token(
        Default::default(),
    ));
    assert_eq!(status.generation(), 1, "no change is announced");
}

#[tokio::test(start_paused = true)]
async fn s021_a_life_that_began_short_has_the_lead_of_a_long_one_once_it_is_long() {
    let source = Script::new(|call| match call.number {
        1 => Answer::token("same", 12),
        2 => Answer::token("same", 3599),
        _ => Answer::token("next", 3599),
    });
    let inner = Inner::new();
    let client = client(&source, &inner);
    let begun = Instant::now();
    traffic(&client, secs(1), secs(10)).await;
    assert_eq!(source.calls(), 2);
    let end = Duration::from_secs(3599) + source.times()[1];
    sleep_until(begun + end - secs(230)).await;
    assert_eq!(traffic(&client, secs(1), secs(50)).await, 0);
    assert_eq!(source.calls(), 3, "as any token of an hour");
    assert_eq!(inner.last_token().unwrap(), "next");
}

#[tokio::test(start_paused = true)]
async fn s022_a_token_without_expiry_is_fetched_again_within_the_hour() {
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = calls.clone();
    let source = tower_scoped_auth::source::from_fn(move |_: tower_scoped_auth::TokenRequest| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async { Ok::<_, std::io::Error>(tower_scoped_auth::Token::without_expiry("tok")) }
    });
    let cache = TokenCache::builder(source)
        .clock(TestClock::new())
        .build()
        .unwrap();
    let client = ScopedAuthLayer::from_cache(cache).layer(Inner::new());
    assert_eq!(traffic(&client, secs(1), secs(3600)).await, 1, "the first");
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 2);
}
