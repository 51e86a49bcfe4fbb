//! Several processes, and the end of one: a herd that starts at the same moment, and a server that is
//! told to stop while it is still serving. Real processes, real sockets, real time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    BUCKET, FakeMds, Inner, Reply,
    child::{end, rerun, told},
    send,
};
use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_scoped_auth::{MetadataServer, ScopedAuth, ScopedAuthLayer};

/// No child takes longer.
const LONG: Duration = Duration::from_secs(90);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn client(endpoint: &str) -> ScopedAuth<Inner> {
    let source = MetadataServer::builder().endpoint(endpoint).build();
    ScopedAuthLayer::new(source.unwrap()).layer(Inner::new())
}

/// Reads a child's output until it prints this line.
fn wait_for(child: &mut Child, line: &str) {
    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
    let mut read = String::new();
    while read.trim_end() != line {
        read.clear();
        let bytes = stdout.read_line(&mut read).unwrap();
        assert!(bytes > 0, "it ended before it was {line}");
    }
    // Nothing was printed after it, so nothing is lost with the buffer.
    assert!(stdout.buffer().is_empty());
}

/// Serves ten at a time and answers 429 to the rest.
fn limited() -> FakeMds {
    let serving = Arc::new(AtomicUsize::new(0));
    FakeMds::start(move |_| {
        let before = serving.fetch_add(1, Ordering::SeqCst);
        // Each connection has a thread of its own; a token takes this long.
        if before < 10 {
            thread::sleep(Duration::from_millis(50));
        }
        serving.fetch_sub(1, Ordering::SeqCst);
        match before {
            0..10 => Reply::token("tok", 3599),
            _ => Reply::status(429, "", "slow down"),
        }
    })
}

/// Starts many processes, all of which send their first request when the last of them is up.
fn herd(test: &str, processes: usize) {
    if let Some(endpoint) = told() {
        let client = client(&endpoint);
        println!("\nready");
        // Ends when the parent closes it.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        let served = async {
            while send(&client, BUCKET).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        return runtime().block_on(served);
    }
    let mds = limited();
    let mut children: Vec<_> = (0..processes)
        .map(|_| {
            let mut command = rerun(test, &mds.endpoint());
            command.stdin(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in &mut children {
        wait_for(child, "ready");
    }
    assert_eq!(mds.connections(), 0);
    let begun = Instant::now();
    for child in &mut children {
        drop(child.stdin.take());
    }
    for child in children {
        end(child, LONG);
    }
    let (took, asked) = (begun.elapsed(), mds.token_requests());
    println!("{processes} processes: all served after {took:?}, {asked} token requests");
    assert!(took <= Duration::from_secs(60), "{took:?}");
    // Five per process, as 1,000 for 200.
    assert!((processes..=5 * processes).contains(&asked), "{asked}");
}

#[test]
fn s174_thirty_processes_at_one_limited_server() {
    herd("s174_thirty_processes_at_one_limited_server", 30);
}

#[test]
#[ignore = "the full size of s174: 200 processes"]
fn s174_two_hundred_processes_at_one_limited_server() {
    herd("s174_two_hundred_processes_at_one_limited_server", 200);
}

/// A server that SIGTERM tells to stop, and that drains for longer than its token lives.
#[cfg(unix)]
#[test]
fn s094_after_sigterm_requests_are_served_to_the_end_of_the_drain() {
    const TEST: &str = "s094_after_sigterm_requests_are_served_to_the_end_of_the_drain";
    const LIFE: Duration = Duration::from_secs(2);
    const DRAIN: Duration = Duration::from_secs(3);

    if let Some(endpoint) = told() {
        let inner = Inner::new();
        let source = MetadataServer::builder().endpoint(endpoint).build();
        let client = ScopedAuthLayer::new(source.unwrap()).layer(inner.clone());
        runtime().block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut signal = signal(SignalKind::terminate()).unwrap();
            send(&client, BUCKET).await.unwrap();
            println!("\nready");
            signal.recv().await.unwrap();
            let told_to_stop = Instant::now();
            while told_to_stop.elapsed() < DRAIN {
                send(&client, BUCKET).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert_eq!(inner.tokens().first().unwrap(), "tok-1");
        assert_eq!(inner.last_token().unwrap(), "tok-2");
        return;
    }
    let mds = FakeMds::start(|n| match n {
        1 => Reply::token("tok-1", LIFE.as_secs()),
        _ => Reply::token(&format!("tok-{n}"), 3599),
    });
    let mut child = rerun(TEST, &mds.endpoint()).spawn().unwrap();
    wait_for(&mut child, "ready");
    let mut kill = std::process::Command::new("kill");
    let killed = kill.args(["-TERM", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
    end(child, LONG);
    assert_eq!(mds.token_requests(), 2);
}

#[test]
fn s098_there_is_no_tls_to_set_up() {
    use tokio_rustls::rustls::crypto::CryptoProvider;
    use tower_scoped_auth::{Token, TokenCache, TokenRequest, source};

    const TEST: &str = "s098_there_is_no_tls_to_set_up";

    let Some(endpoint) = told() else {
        let mds = FakeMds::healthy();
        let output = end(rerun(TEST, &mds.endpoint()).spawn().unwrap(), LONG);
        assert_eq!(mds.token_requests(), 1);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("no provider is installed"), "{stderr}");
        return;
    };
    assert!(CryptoProvider::get_default().is_none());
    // The metadata server's source needs no crypto provider.
    let plain = client(&endpoint);
    runtime().block_on(send(&plain, BUCKET)).unwrap();
    // A source that does need one panics without it, which is a failed attempt: the caller gets an error.
    let needy = source::from_fn(|_: TokenRequest| async {
        let provider = CryptoProvider::get_default().expect("no provider is installed");
        Ok::<_, std::io::Error>(Token::new(format!("{provider:?}"), Duration::from_secs(60)))
    });
    let cache = TokenCache::builder(needy).max_wait(Duration::from_millis(100));
    let client = ScopedAuthLayer::from_cache(cache.build().unwrap()).layer(Inner::new());
    let error = runtime().block_on(send(&client, BUCKET)).unwrap_err();
    let error = support::auth_error(&error);
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("panicked"), "{error}");
}
