//! s069: whatever the metadata server did, requests succeed again 11 s after it has recovered, and
//! nothing has to be rebuilt for that.
//!
//! Each failure comes from a real server: in real time for as long as a test may take; then the error
//! of one exchange is repeated in virtual time, until the back-off is at its longest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use support::{BUCKET, FakeMds, Inner, Reply, send, troubles};
use tokio::{
    net::TcpSocket,
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};
use tower::Layer;
use tower_scoped_auth::{
    AuthError, MetadataServer, ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest,
    TokenSource, source, test_util::TestClock,
};

const HEALED: Duration = Duration::from_secs(11);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn wanted() -> TokenRequest {
    TokenRequest::access_token(Scopes::default())
}

fn at(addr: SocketAddr) -> MetadataServer {
    let builder = MetadataServer::builder().endpoint(addr.to_string());
    builder.build().unwrap()
}

/// A socket that refuses connections, and whose port nobody else can get.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

fn good(n: usize) -> Reply {
    Reply::token(&format!("tok-{n}"), 3599)
}

/// Sends requests through one service until one goes out: not before the end of the trouble, which
/// began for all services at the same time, but soon after.
async fn heals(
    what: &str,
    source: MetadataServer,
    attempt: Duration,
    begun: Instant,
    trouble: Duration,
) {
    let cache = TokenCache::builder(source).attempt_timeout(attempt).build();
    let cache = cache.unwrap();
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Inner::new());
    let sent = async {
        while let Err(error) = send(&client, BUCKET).await {
            let error = support::auth_error(&error);
            assert!(error.is_transient(), "{what}: {error}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    let sent = timeout(trouble + 2 * HEALED, sent).await;
    assert!(sent.is_ok(), "{what}: never healed");
    let took = begun.elapsed();
    assert!(took >= trouble, "{what}: it never failed");
    assert!(took < trouble + HEALED, "{what}: {took:?}");
    assert!(cache.status(&wanted()).last_error().is_none(), "{what}");
}

/// All troubles at the same time.
async fn all_heal(attempt: Duration, trouble: Duration) {
    let begun = Instant::now();
    let scripted = troubles::all().into_iter().map(|(what, reply)| async move {
        // The first request fails even if the machine is so busy that it comes after the trouble.
        let mds = FakeMds::start(move |n| match n == 1 || begun.elapsed() < trouble {
            true => reply.clone(),
            false => good(n),
        });
        heals(what, mds.source(), attempt, begun, trouble).await;
        assert!(mds.connections() >= 2, "{what}");
    });
    let reset_at_once = async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mds = FakeMds::start_on(listener, 2, good);
        heals(
            "reset at once",
            mds.source(),
            attempt,
            begun,
            Duration::ZERO,
        )
        .await;
        assert!(mds.connections() >= 3);
    };
    let refused = async {
        let (socket, addr) = refusing();
        let server = async {
            sleep(trouble.saturating_sub(begun.elapsed())).await;
            let listener = socket.listen(64).unwrap().into_std().unwrap();
            listener.set_nonblocking(false).unwrap();
            FakeMds::start_on(listener, 0, good)
        };
        tokio::join!(server, heals("refused", at(addr), attempt, begun, trouble));
    };
    tokio::join!(join_all(scripted), reset_at_once, refused);
}

/// Both times are long compared with what an attempt takes here, even with sixty servers on a busy machine.
#[tokio::test]
async fn s069_every_failure_heals() {
    all_heal(secs(2), Duration::from_millis(1_500)).await;
}

#[tokio::test]
#[ignore = "the full size of s069: half a minute of trouble, in real time"]
async fn s069_every_failure_heals_after_half_a_minute() {
    all_heal(secs(3), secs(30)).await;
}

fn runtime(paused: bool) -> Runtime {
    let builder = Builder::new_current_thread();
    { builder }
        .enable_all()
        .start_paused(paused)
        .build()
        .unwrap()
}

/// The error that an exchange with such a server ends with.
async fn failure((what, reply): troubles::Trouble) -> (&'static str, AuthError) {
    let mds = FakeMds::start(move |_| reply.clone());
    let cache = TokenCache::builder(mds.source())
        .attempt_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let wanted = wanted();
    let verdict = async {
        loop {
            if let Some(error) = cache.status(&wanted).last_error() {
                return error.clone();
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        error = verdict => (what, error),
        _ = cache.token(&wanted) => panic!("{what}: it is no failure"),
    }
}

/// Half a minute of this failure in virtual time, then a token.
async fn heals_after_half_a_minute(what: &str, error: AuthError) {
    const TROUBLE: Duration = Duration::from_secs(30);

    let begun = tokio::time::Instant::now();
    let source = source::from_fn(move |_| {
        let error = error.clone();
        async move {
            match begun.elapsed() < TROUBLE {
                true => Err(error),
                false => Ok(Token::new("tok", secs(3599))),
            }
        }
    });
    let cache = TokenCache::builder(source).clock(TestClock::new()).build();
    let client = ScopedAuthLayer::from_cache(cache.unwrap()).layer(Inner::new());
    while send(&client, BUCKET).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let took = begun.elapsed();
    assert!(
        took >= TROUBLE && took <= TROUBLE + HEALED,
        "{what}: {took:?}"
    );
}

#[test]
fn s069_every_failure_heals_however_long_it_lasted() {
    let failures = runtime(false).block_on(async {
        let (socket, addr) = refusing();
        let refused = at(addr).fetch(wanted()).await.unwrap_err();
        drop(socket);
        let mut failures = join_all(troubles::all().into_iter().map(failure)).await;
        failures.push(("refused", refused));
        failures
    });
    assert!(failures.len() > 80, "{}", failures.len());
    for (what, error) in failures {
        runtime(true).block_on(heals_after_half_a_minute(what, error));
    }
}
