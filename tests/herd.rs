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
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use support::{Answer, BUCKET, Inner, Mirror, Script, send};
use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_scoped_auth::{
    ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest, source, test_util::TestClock,
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

/// Tokens as long as real ones, so that a torn one would show: the generation, repeated.
fn spelled(generation: usize) -> String {
    format!("{generation:08}").repeat(100)
}

/// The generation; panics if any part of the value is from another token.
fn generation(value: &http::HeaderValue) -> usize {
    let text = value.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let generation = text[..8].parse().unwrap();
    assert_eq!(text, spelled(generation), "torn");
    generation
}

/// Swaps tokens by the clock of a paused runtime, while each thread sends `requests` requests.
fn swaps(swaps: usize, threads: usize, requests: usize) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let source = {
        let number = AtomicUsize::new(0);
        source::from_fn(move |_: TokenRequest| {
            let number = number.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                let life = Duration::from_secs(3600);
                Ok::<_, std::io::Error>(Token::new(spelled(number), life))
            }
        })
    };
    let cache = {
        let _inside = runtime.enter();
        let clock = TestClock::new();
        TokenCache::builder(source).clock(clock).build().unwrap()
    };
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Mirror);
    let wanted = TokenRequest::access_token(Scopes::default());
    runtime.block_on(cache.token(&wanted)).unwrap();
    let (sending, seen) = (AtomicUsize::new(threads), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // The paused clock applies here too; the other thread does the fetches.
                let _inside = runtime.enter();
                let mut last = 0;
                for sent in 0.. {
                    let known = cache.status(&wanted).generation() as usize;
                    // A stale token is as good as a fresh one: nobody ever waits.
                    let response = send(&client, BUCKET).now_or_never().expect("at once");
                    let generation = generation(response.unwrap().body());
                    assert!(generation >= last, "{generation} after {last}");
                    last = generation;
                    if sent < requests {
                        continue;
                    }
                    // After the required number of requests, go on until the last swap.
                    if known >= swaps {
                        break;
                    }
                    thread::sleep(Duration::from_micros(100));
                }
                seen.fetch_max(last, Ordering::SeqCst);
                sending.fetch_sub(1, Ordering::SeqCst);
            });
        }
        // From the first moment of a token's refresh window, requests begin the next fetch.
        while sending.load(Ordering::SeqCst) > 0 {
            let before = cache.status(&wanted).generation();
            if before as usize >= swaps {
                thread::yield_now();
                continue;
            }
            runtime.block_on(async {
                tokio::time::advance(Duration::from_secs(3500)).await;
                while cache.status(&wanted).generation() == before {
                    // Without a timer, so that the clock does not advance by itself.
                    tokio::task::yield_now().await;
                }
            });
        }
    });
    assert!(seen.into_inner() >= swaps);
}

#[test]
fn s006_no_thread_sees_an_older_token_after_a_newer_one() {
    swaps(1_000, 8, 2_000);
}

#[test]
#[ignore = "the full size of s006: a million requests on each of 8 threads"]
fn s006_eight_million_requests() {
    swaps(1_000, 8, 1_000_000);
}

#[test]
fn s026_ten_thousand_requests_at_the_expiry() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetches);
    // The first token lives a second, the later ones an hour.
    let source = source::from_fn(move |_: TokenRequest| {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let life = Duration::from_secs(if number == 1 { 1 } else { 3600 });
            Ok::<_, std::io::Error>(Token::new(format!("tok-{number}"), life))
        }
    });
    let cache = TokenCache::new(source);
    let inner = Inner::new();
    let client = ScopedAuthLayer::from_cache(cache).layer(inner.clone());
    let runtime = workers(2);
    runtime.block_on(send(&client, BUCKET)).unwrap();
    thread::sleep(Duration::from_millis(1_010)); // its one second
    let barrier = Arc::new(Barrier::new(8));
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
                let results = handle.block_on(futures_util::future::join_all(requests));
                assert!(results.iter().all(Result::is_ok));
                results.len()
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
    assert_eq!(fetches.load(Ordering::SeqCst), 2, "one for all of them");
    assert!(inner.tokens()[1..].iter().all(|token| token == "tok-2"));
    assert_eq!(inner.calls(), 10_001);
}

#[test]
fn s027_traffic_while_a_refresh_is_slow() {
    let runtime = workers(2);
    let _inside = runtime.enter();
    let source = Script::new(|call| match call.number {
        1 => Answer::token("tok-1", 3599),
        _ => Answer::token("tok-2", 3599).after(Duration::from_secs(2)),
    });
    let (clock, inner) = (TestClock::new(), Inner::new());
    let cache = TokenCache::builder(source.clone()).clock(clock.clone());
    let client = ScopedAuthLayer::from_cache(cache.build().unwrap()).layer(inner.clone());
    runtime.block_on(send(&client, BUCKET)).unwrap();
    // In the refresh window, with three minutes left.
    clock.suspend(Duration::from_secs(3599 - 180));
    let stop = Instant::now() + Duration::from_millis(2_500);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _inside = runtime.enter();
                while Instant::now() < stop {
                    let sent = send(&client, BUCKET).now_or_never();
                    sent.expect("a request had to wait").unwrap();
                    // Up to ten thousand a second, which leaves time for whatever else is running.
                    thread::sleep(Duration::from_micros(300));
                }
            });
        }
    });
    let begun = Instant::now();
    while inner.last_token().unwrap() != "tok-2" {
        assert!(begun.elapsed() < Duration::from_secs(5));
        runtime.block_on(send(&client, BUCKET)).unwrap();
    }
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
    chaos(4, Duration::from_secs(3));
}

#[test]
#[ignore = "the full size of s035: a minute on 8 threads"]
fn s035_for_a_minute() {
    chaos(8, Duration::from_secs(60));
}

fn chaos(threads: usize, span: Duration) {
    let runtime = workers(threads);
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
    let stop = Instant::now() + span;
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
    // Tokens live 2.2 s: stale from 1.1 s on, in the guard band from 0.55 s before their end.
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
    // Meanwhile, requests that other threads drive go on.
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
