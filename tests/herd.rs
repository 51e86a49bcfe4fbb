//! Groups A and B on real threads: many callers at one moment, and tokens that change under them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use support::{Answer, BUCKET, Inner, Script, send};
use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_scoped_auth::{
    ScopedAuth, ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest, source,
};

fn workers(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

/// `1`, `2`, …: a token's text is its generation.
fn counting(life: Duration, delay: Duration) -> (Arc<AtomicUsize>, TokenCache) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetches);
    let source = source::from_fn(move |_: TokenRequest| {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            tokio::time::sleep(delay).await;
            Ok::<_, std::io::Error>(Token::new(number.to_string(), life))
        }
    });
    (fetches, TokenCache::new(source))
}

#[test]
fn s006_no_thread_sees_an_older_token_after_a_newer_one() {
    let (fetches, cache) = counting(Duration::from_secs(3600), Duration::ZERO);
    let request = TokenRequest::access_token(Scopes::default());
    let runtime = workers(2);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Checked);
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let generation = client.get_ref().send(&client, &runtime);
                    assert!(generation >= last, "{generation} after {last}");
                    last = generation;
                }
                assert!(last > 1);
            });
        }
        // Each swap by hand; the slot paces those that follow each other without a pause.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let token = runtime.block_on(cache.token(&request)).unwrap();
            cache.invalidate(&token);
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(fetches.load(Ordering::SeqCst) > 1);
}

/// Reads the generation out of the header it was sent.
#[derive(Clone, Default)]
struct Checked;

impl Checked {
    fn send(&self, client: &ScopedAuth<Self>, runtime: &Runtime) -> usize {
        *runtime.block_on(send(client, BUCKET)).unwrap().body()
    }
}

impl tower::Service<http::Request<()>> for Checked {
    type Response = http::Response<usize>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<()>) -> Self::Future {
        let value = request.headers()["authorization"].to_str().unwrap();
        let generation = value.strip_prefix("Bearer ").unwrap().parse().unwrap();
        std::future::ready(Ok(http::Response::new(generation)))
    }
}

#[test]
fn s026_ten_thousand_requests_at_the_expiry() {
    let (fetches, cache) = counting(Duration::from_secs(1), Duration::from_millis(50));
    let inner = Inner::new();
    let client = ScopedAuthLayer::from_cache(cache).layer(inner.clone());
    let runtime = workers(2);
    runtime.block_on(send(&client, BUCKET)).unwrap();
    thread::sleep(Duration::from_millis(1_010)); // its one second
    let barrier = Arc::new(Barrier::new(8));
    let begun = Instant::now();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (client, barrier, handle) = (
                client.clone(),
                Arc::clone(&barrier),
                runtime.handle().clone(),
            );
            thread::spawn(move || {
                barrier.wait();
                let requests = (0..1_250).map(|_| send(&client, BUCKET));
                handle
                    .block_on(futures_util::future::join_all(requests))
                    .len()
            })
        })
        .collect();
    assert_eq!(
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<usize>(),
        10_000
    );
    // The new token lives a second as well; a slow machine may see it out.
    let most = 2 + begun.elapsed().as_millis() as usize / 500;
    assert!(fetches.load(Ordering::SeqCst) <= most, "{fetches:?}");
    assert_eq!(inner.calls(), 10_001);
}

#[test]
fn s027_traffic_while_a_refresh_is_slow() {
    let runtime = workers(2);
    let _inside = runtime.enter();
    // Two seconds are stale after one; the refresh takes half a second.
    let source = Script::new(|call| match call.number {
        1 => Answer::token("tok-1", 2),
        _ => Answer::token("tok-2", 3599).after(Duration::from_millis(500)),
    });
    let inner = Inner::new();
    let client = ScopedAuthLayer::new(source.clone()).layer(inner.clone());
    runtime.block_on(send(&client, BUCKET)).unwrap();
    let stop = Instant::now() + Duration::from_millis(1_800);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while Instant::now() < stop {
                    runtime.block_on(send(&client, BUCKET)).unwrap();
                }
            });
        }
    });
    assert_eq!(inner.last_token().unwrap(), "tok-2");
    assert_eq!((source.peak(), source.calls()), (1, 2));
}

#[test]
fn s034_the_token_is_there_before_anyone_is_woken() {
    let (fetches, cache) = counting(Duration::from_secs(3600), Duration::from_millis(100));
    let client = ScopedAuthLayer::from_cache(cache).layer(Inner::new());
    let runtime = workers(2);
    let tasks: Vec<_> = (0..1_000)
        .map(|_| {
            let client = client.clone();
            runtime.spawn(async move {
                send(&client, BUCKET).await.unwrap();
                send(&client, BUCKET)
                    .now_or_never()
                    .expect("at once")
                    .unwrap();
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn s035_the_source_is_never_entered_twice() {
    let runtime = workers(4);
    let _inside = runtime.enter();
    let source = Script::new(|call| {
        let after = Duration::from_millis(fastrand::u64(0..5));
        if fastrand::u8(0..3) == 0 {
            Answer::failure("chaos").after(after)
        } else {
            Answer::token(format!("tok-{}", call.number), fastrand::u64(1..4)).after(after)
        }
    });
    let cache = TokenCache::new(source.clone());
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Inner::new());
    let request = TokenRequest::access_token(Scopes::default());
    let stop = Instant::now() + Duration::from_secs(3);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (client, cache, request) = (client.clone(), cache.clone(), request.clone());
            runtime.spawn(async move {
                while Instant::now() < stop {
                    let patience = Duration::from_millis(fastrand::u64(0..10));
                    let _ = tokio::time::timeout(patience, send(&client, BUCKET)).await;
                    if fastrand::u8(0..50) == 0
                        && let Some(Ok(token)) = cache.token(&request).now_or_never()
                    {
                        cache.invalidate(&token);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    assert_eq!(source.peak(), 1);
    assert!(source.calls() > 1);
}

#[test]
fn s023_an_executor_that_starved_through_the_refresh_catches_up() {
    let runtime = workers(2);
    let _inside = runtime.enter();
    // 2.2 s: stale from 1.1 s on, in the guard band from 0.55 s before its end.
    let source = source::from_fn({
        let number = AtomicUsize::new(0);
        move |_: TokenRequest| {
            let number = number.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                let life = Duration::from_millis(if number == 1 { 2_200 } else { 3_600_000 });
                Ok::<_, std::io::Error>(Token::new(format!("tok-{number}"), life))
            }
        }
    });
    let inner = Inner::new();
    let client = ScopedAuthLayer::new(source).layer(inner.clone());
    runtime.block_on(send(&client, BUCKET)).unwrap();
    let until = Instant::now() + Duration::from_millis(1_500);
    let spins: Vec<_> = (0..2)
        .map(|_| {
            runtime.spawn(async move {
                while Instant::now() < until {
                    std::hint::spin_loop()
                }
            })
        })
        .collect();
    // Requests that are driven by other threads go on meanwhile.
    while Instant::now() < until {
        runtime.block_on(send(&client, BUCKET)).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    for spin in spins {
        runtime.block_on(spin).unwrap();
    }
    let free = Instant::now();
    while inner.last_token().unwrap() != "tok-2" {
        runtime.block_on(send(&client, BUCKET)).unwrap();
        assert!(free.elapsed() < Duration::from_secs(1));
    }
    let tokens = inner.tokens().into_iter().collect::<HashSet<_>>();
    assert_eq!(
        tokens,
        HashSet::from(["tok-1".to_owned(), "tok-2".to_owned()])
    );
}
