//! Groups B and E: one fetch however many callers there are, and what happens to it when they leave.

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
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use support::{Answer, BUCKET, FakeMds, Inner, Reply, Script, auth_error, send};
use tokio::time::{Instant, sleep, timeout};
use tower::Layer;
use tower_scoped_auth::{ScopedAuth, ScopedAuthLayer, TokenCache, test_util::TestClock};

fn layer(source: &Script) -> ScopedAuthLayer {
    let cache = TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap();
    ScopedAuthLayer::from_cache(cache)
}

/// `tok-1`, `tok-2`, …, each after this many milliseconds.
fn slow(milliseconds: u64) -> Script {
    Script::new(move |call| {
        Answer::token(format!("tok-{}", call.number), 3599)
            .after(Duration::from_millis(milliseconds))
    })
}

/// Sends this many requests at once; fails if one of them does.
fn burst(client: &ScopedAuth<Inner>, requests: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let one = || {
        let client = client.clone();
        tokio::spawn(async move {
            send(&client, BUCKET).await.unwrap();
        })
    };
    (0..requests).map(|_| one()).collect()
}

async fn join(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s025_hundred_thousand_first_requests() {
    let mds = FakeMds::start(|n| {
        Reply::token(&format!("tok-{n}"), 3599).after(Duration::from_millis(200))
    });
    let inner = Inner::new();
    let client = ScopedAuthLayer::new(mds.source()).layer(inner.clone());
    join(burst(&client, 100_000)).await;
    assert_eq!(mds.token_requests(), 1);
    assert_eq!(inner.calls(), 100_000);
    assert!(inner.tokens().iter().all(|token| token == "tok-1"));
}

#[tokio::test(start_paused = true)]
async fn s028_one_failure_answers_everyone() {
    let source = Script::new(|_| Answer::failure("broken").after(Duration::from_millis(50)));
    let client = layer(&source).layer(Inner::new());
    let requests = (0..1_000).map(|_| send(&client, BUCKET));
    let results = join_all(requests).await;
    let causes = results.into_iter().map(|result| {
        let error = result.unwrap_err();
        std::error::Error::source(support::auth_error(&error))
            .unwrap()
            .to_string()
    });
    assert!(causes.into_iter().all(|cause| cause == "broken"));
    assert!(source.calls() <= 10, "{}", source.calls());
}

/// A minute of `per_second` concurrent requests a second, none of which can get a token.
async fn failing(per_second: usize) {
    let source = Script::new(|_| Answer::failure("broken"));
    let client = layer(&source).layer(Inner::new());
    // Of the first requests, which came before any attempt had failed, and of the others.
    let slowest = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let failed = Arc::new(AtomicUsize::new(0));
    for tick in 0..600 {
        let slowest = &slowest[usize::from(tick > 0)];
        for _ in 0..per_second / 10 {
            let (client, slowest, failed) = (client.clone(), slowest.clone(), failed.clone());
            tokio::spawn(async move {
                let asked = Instant::now();
                let result = send(&client, BUCKET).await;
                failed.fetch_add(usize::from(result.is_err()), Ordering::Relaxed);
                let took = u64::try_from(asked.elapsed().as_millis()).unwrap();
                slowest.fetch_max(took, Ordering::Relaxed);
            });
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(source.calls() <= 20, "{}", source.calls());
    sleep(Duration::from_secs(31)).await;
    let failed = failed.load(Ordering::Relaxed);
    assert_eq!(failed, 60 * per_second, "all are answered");
    let [first, others] = slowest.map(|slowest| slowest.load(Ordering::Relaxed));
    assert!(first <= 30_010, "{first} ms");
    // One more attempt, which was due within a second.
    assert!(others <= 1_010, "{others} ms");
}

#[tokio::test(start_paused = true)]
async fn s029_after_a_failure_requests_fail_at_once_and_attempts_keep_their_pace() {
    failing(1_000).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "the full size of s029"]
async fn s029_at_ten_thousand_requests_a_second() {
    failing(10_000).await;
}

#[tokio::test(start_paused = true)]
async fn s030_clones_and_services_of_one_layer_share() {
    let source = slow(100);
    let layer = layer(&source);
    let inner = Inner::new();
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let service = layer.layer(inner.clone());
        for _ in 0..100 {
            tasks.extend(burst(&service.clone(), 1));
        }
    }
    join(tasks).await;
    assert_eq!(source.calls(), 1);
    assert_eq!(inner.calls(), 300);
}

#[tokio::test(start_paused = true)]
async fn s032_the_last_waiter_to_come_takes_nobody_along() {
    let source = slow(300);
    let inner = Inner::new();
    let client = layer(&source).layer(inner.clone());
    let begun = Instant::now();
    let mut tasks = burst(&client, 1_000);
    sleep(Duration::from_millis(100)).await;
    tasks.pop().unwrap().abort();
    join(tasks).await;
    assert!(
        begun.elapsed() <= Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((source.calls(), inner.calls()), (1, 999));
}

#[tokio::test(start_paused = true)]
async fn s074_impatient_callers_make_progress() {
    let source = slow(300);
    let inner = Inner::new();
    let client = layer(&source).layer(inner.clone());
    let mut succeeded = Vec::new();
    for _ in 0..20 {
        let result = timeout(Duration::from_millis(100), send(&client, BUCKET)).await;
        succeeded.push(result.is_ok_and(|result| result.is_ok()));
    }
    let first = succeeded.iter().position(|done| *done).unwrap();
    assert!((2..=4).contains(&first), "{succeeded:?}");
    assert!(succeeded[first..].iter().all(|done| *done));
    assert_eq!(source.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn s077_the_first_may_go_and_so_may_all() {
    let source = slow(300);
    let inner = Inner::new();
    let client = layer(&source).layer(inner.clone());
    let mut tasks = burst(&client, 1_000);
    sleep(Duration::from_millis(100)).await;
    tasks.remove(0).abort();
    join(tasks).await;
    assert_eq!((source.calls(), inner.calls()), (1, 999));

    let source = slow(300);
    let inner = Inner::new();
    let client = layer(&source).layer(inner.clone());
    let tasks = burst(&client, 10);
    sleep(Duration::from_millis(100)).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    sleep(Duration::from_secs(10)).await;
    send(&client, BUCKET).await.unwrap();
    assert_eq!((source.calls(), inner.calls()), (1, 1), "the fetch went on");
}

#[tokio::test(start_paused = true)]
async fn s031_layers_built_apart_fetch_apart() {
    let source = slow(100);
    let (one, other) = (layer(&source), layer(&source));
    send(&one.layer(Inner::new()), BUCKET).await.unwrap();
    send(&other.layer(Inner::new()), BUCKET).await.unwrap();
    assert_eq!(source.calls(), 2, "as TokenCache's documentation says");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_wait_fails_and_the_fetch_goes_on() {
    let source = Script::new(|call| {
        Answer::token(format!("tok-{}", call.number), 3599).after(Duration::from_millis(50))
    });
    let cache = TokenCache::builder(source.clone())
        .max_wait(Duration::ZERO)
        .build()
        .unwrap();
    let inner = Inner::new();
    let client = ScopedAuthLayer::from_cache(cache).layer(inner.clone());
    for _ in 0..3 {
        let error = send(&client, BUCKET).await.unwrap_err();
        assert!(auth_error(&error).is_transient(), "{error}");
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.seen()[0].token(), Some("tok-1"));
    assert_eq!(source.calls(), 1);
}
