//! Groups C, D, J and L over real sockets: what a metadata server can do wrong, and what the effect is.
//!
//! A *cold* client has no token: its caller waits for the attempt that succeeds. A *warm* one has a
//! token that is due for a refresh: its callers must not notice anything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    collections::HashSet,
    error::Error,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::{FutureExt, future::join_all};
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::{client::legacy, rt::TokioExecutor};
use support::{
    BUCKET, FakeMds, Inner, Reply, TraceTap, auth_error, get, send,
    troubles::{self, INTERNAL, SECRET, Trouble, answer, busy, raw},
};
use tokio::{
    net::TcpSocket,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt};
use tower_scoped_auth::{
    AuthError, Destinations, MetadataServer, ScopedAuth, ScopedAuthLayer, Scopes, Token,
    TokenCache, TokenCacheBuilder, TokenRequest, TokenSource, TokenStatus, source,
    test_util::TestClock,
};

const LINE: &str = "GET /computeMetadata/v1/instance/service-accounts/default/token HTTP/1.1";

/// No scenario here takes longer.
const LONG: Duration = Duration::from_secs(20);

/// What a machine that is busy with thirty other things may add to a wait. The opposite of what is
/// asserted would take even longer.
const SLACK: Duration = Duration::from_secs(3);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn good(n: usize) -> Reply {
    Reply::token(&format!("tok-{n}"), 3599)
}

async fn eventually(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LONG, "never came: {what}");
        sleep(millis(5)).await;
    }
}

/// One attempt, without a cache around it.
async fn fetch(source: &MetadataServer) -> Result<Token, AuthError> {
    let request = TokenRequest::access_token(Scopes::default());
    timeout(LONG, source.fetch(request)).await.unwrap()
}

fn at(addr: SocketAddr) -> MetadataServer {
    let builder = MetadataServer::builder().endpoint(addr.to_string());
    builder.build().unwrap()
}

/// The first fetch goes to one server, all others to another.
fn moving(from: MetadataServer, to: MetadataServer) -> impl TokenSource {
    let moved = AtomicBool::new(false);
    source::from_fn(move |request| {
        let source = if moved.swap(true, Ordering::SeqCst) {
            to.clone()
        } else {
            from.clone()
        };
        async move { source.fetch(request).await }
    })
}

struct Client {
    cache: TokenCache,
    clock: TestClock,
    inner: Inner,
    service: ScopedAuth<Inner>,
}

impl Client {
    fn of(source: impl TokenSource) -> Self {
        Self::with(source, |builder| builder)
    }

    fn with<S: TokenSource>(
        source: S,
        settings: impl FnOnce(TokenCacheBuilder<S>) -> TokenCacheBuilder<S>,
    ) -> Self {
        let clock = TestClock::new();
        let builder = TokenCache::builder(source).clock(clock.clone());
        let cache = settings(builder).build().unwrap();
        let inner = Inner::new();
        let service = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
        Self {
            cache,
            clock,
            inner,
            service,
        }
    }

    /// Sends one request; returns the token that it carried.
    async fn send(&self) -> Result<String, AuthError> {
        match timeout(secs(40), send(&self.service, BUCKET))
            .await
            .unwrap()
        {
            Ok(_) => Ok(self.inner.last_token().unwrap()),
            Err(error) => Err(auth_error(&error).clone()),
        }
    }

    /// Gets the first token, and makes it due for a refresh at once: 179 s of it are left.
    async fn warm_up(&self) {
        assert_eq!(self.send().await.unwrap(), "tok-1");
        self.clock.suspend(secs(3599 - 179));
    }

    /// Sends requests at an even pace: each goes out when it is first polled, and succeeds.
    async fn unnoticed(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        loop {
            let sent = send(&self.service, BUCKET).now_or_never();
            sent.expect("a request had to wait").unwrap();
            if done() {
                return;
            }
            assert!(begun.elapsed() < LONG, "never came: {what}");
            sleep(millis(20)).await;
        }
    }

    fn status(&self) -> TokenStatus {
        let request = TokenRequest::access_token(Scopes::default());
        self.cache.status(&request)
    }

    fn last_error(&self) -> Option<AuthError> {
        self.status().last_error().cloned()
    }

    /// The tokens that requests carried.
    fn used(&self) -> HashSet<String> {
        self.inner.tokens().into_iter().collect()
    }
}

fn set(tokens: &[&str]) -> HashSet<String> {
    tokens.iter().map(|token| (*token).to_owned()).collect()
}

/// `trouble` is the first answer: the second attempt, which is due within a second, serves the caller.
async fn cold(what: &str, trouble: Reply, attempt: Duration) {
    let mds = FakeMds::start(move |n| if n == 1 { trouble.clone() } else { good(n) });
    let client = Client::with(mds.source(), |builder| builder.attempt_timeout(attempt));
    assert_eq!(client.send().await.expect(what), "tok-2", "{what}");
    assert_eq!(mds.connections(), 2, "{what}");
    // The schedule allows a second at most; the rest is for a busy machine.
    let gap = mds.times()[1] - mds.times()[0];
    assert!(gap < attempt + secs(1) + SLACK, "{what}: {gap:?}");
}

/// `trouble` is the answer when the token is due: that token is used until the next attempt's is there.
/// Returns the error of the attempt.
async fn warm(what: &str, trouble: Reply, attempt: Duration) -> AuthError {
    let mds = FakeMds::start(move |n| if n == 2 { trouble.clone() } else { good(n) });
    let client = Client::with(mds.source(), |builder| builder.attempt_timeout(attempt));
    client.warm_up().await;
    let failed = || client.last_error().is_some();
    client.unnoticed(what, failed).await;
    assert_eq!(client.used(), set(&["tok-1"]), "{what}");
    let error = client.last_error().unwrap();
    let healed = || client.last_error().is_none();
    client.unnoticed(what, healed).await;
    assert_eq!(client.send().await.unwrap(), "tok-3", "{what}");
    assert_eq!(client.used(), set(&["tok-1", "tok-3"]), "{what}");
    for seen in client.inner.seen() {
        assert_eq!(seen.headers.len(), 1, "{what}: one header, and no `x-evil`");
    }
    assert_eq!(mds.connections(), 3, "{what}");
    error
}

/// Each trouble as the one bad answer, cold and warm.
async fn each(troubles: impl IntoIterator<Item = Trouble>) -> Vec<AuthError> {
    each_within(secs(3), troubles).await
}

/// The same with a shorter attempt timeout: for answers that do not end.
async fn each_within(
    attempt: Duration,
    troubles: impl IntoIterator<Item = Trouble>,
) -> Vec<AuthError> {
    let both = |(what, trouble): Trouble| async move {
        let cold = cold(what, trouble.clone(), attempt);
        tokio::join!(cold, warm(what, trouble, attempt)).1
    };
    join_all(troubles.into_iter().map(both)).await
}

/// Display and Debug of the error and of every source behind it.
fn texts(error: &AuthError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(" {error} {error:?} {error:#?}"));
        next = error.source();
    }
    text
}

/// Not even eight characters of the secret, and nothing from a body.
fn assert_discreet(what: &str, text: &str) {
    for part in SECRET.as_bytes().windows(8) {
        let part = std::str::from_utf8(part).unwrap();
        assert!(!text.contains(part), "{what}: {part:?} in {text}");
    }
    assert!(!text.contains(INTERNAL), "{what}: {text}");
}

/// A socket that refuses connections, and whose port nobody else can get.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

#[tokio::test]
async fn s037_a_refused_connection_says_connect_and_is_tried_again() {
    let (_socket, addr) = refusing();
    let cold = async {
        // Attempts start at 0, after 0.5 to 1 s, after 1 to 2 s more; the fourth not before 3.5 s.
        let client = Client::with(at(addr), |builder| builder.max_wait(millis(3_250)));
        let begun = Instant::now();
        let error = client.send().await.unwrap_err();
        assert!(begun.elapsed() >= millis(3_250), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < secs(30), "{:?}", begun.elapsed());
        assert!(error.is_connect() && error.is_transient());
        assert!(!error.is_timeout() && !error.is_response() && error.status().is_none());
        // The third is due at 3 s at the latest.
        assert!((2..=3).contains(&error.attempts()), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("connect") && text.contains(&addr.to_string()),
            "{text}"
        );
    };
    let warm = async {
        let mds = FakeMds::start(good);
        let client = Client::of(moving(mds.source(), at(addr)));
        client.warm_up().await;
        let thrice = || {
            client
                .last_error()
                .is_some_and(|error| error.attempts() == 3)
        };
        client.unnoticed("three failures", thrice).await;
        assert!(client.last_error().unwrap().is_connect());
        assert_eq!(client.used(), set(&["tok-1"]));
    };
    tokio::join!(cold, warm);
}

#[tokio::test]
async fn s038_a_reset_is_tried_again() {
    let cold_at_accept = async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mds = FakeMds::start_on(listener, 1, good);
        let client = Client::of(mds.source());
        assert_eq!(client.send().await.unwrap(), "tok-1");
        assert_eq!((mds.connections(), mds.token_requests()), (2, 1));
    };
    let warm_at_accept = async {
        let first = FakeMds::start(good);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mds = FakeMds::start_on(listener, 1, |_| good(2));
        let client = Client::of(moving(first.source(), mds.source()));
        client.warm_up().await;
        client
            .unnoticed("the failure", || client.last_error().is_some())
            .await;
        assert!(client.last_error().unwrap().is_connect());
        client
            .unnoticed("the next token", || client.last_error().is_none())
            .await;
        assert_eq!(client.send().await.unwrap(), "tok-2");
        assert_eq!((mds.connections(), mds.token_requests()), (2, 1));
    };
    let later = each(troubles::resets());
    let ((), (), errors) = tokio::join!(cold_at_accept, warm_at_accept, later);
    assert!(errors.iter().all(AuthError::is_connect), "{errors:?}");
}

#[tokio::test]
async fn s039_a_truncated_body_is_tried_again() {
    let errors = each(troubles::truncated()).await;
    assert!(errors.iter().all(AuthError::is_transient), "{errors:?}");
}

#[tokio::test]
async fn s040_a_slow_answer_in_time_is_an_answer() {
    const SLOW: Duration = Duration::from_millis(2_500);

    let cold = async {
        let mds = FakeMds::start(|n| good(n).after(SLOW));
        let client = Client::of(mds.source());
        let begun = Instant::now();
        assert_eq!(client.send().await.unwrap(), "tok-1");
        assert!(begun.elapsed() >= SLOW);
        assert_eq!(mds.connections(), 1);
    };
    let warm = async {
        let mds = FakeMds::start(|n| if n == 1 { good(n) } else { good(n).after(SLOW) });
        let client = Client::of(mds.source());
        client.warm_up().await;
        client
            .unnoticed("the next token", || client.status().generation() == 2)
            .await;
        assert!(client.last_error().is_none());
        assert_eq!(client.send().await.unwrap(), "tok-2");
        assert_eq!(mds.connections(), 2);
    };
    tokio::join!(cold, warm);
}

#[tokio::test]
async fn s042_a_silent_server_ends_the_attempt_at_3_s() {
    let cold = async {
        let mds = FakeMds::start(|_| Reply::Hang);
        let client = Client::with(mds.source(), |builder| builder.max_wait(secs(5)));
        let begun = Instant::now();
        let attempt = async {
            eventually("the first verdict", || client.last_error().is_some()).await;
            let took = begun.elapsed();
            assert!(took >= secs(3) && took < secs(3) + SLACK, "{took:?}");
            assert!(client.last_error().unwrap().is_timeout());
            eventually("the connection's end", || mds.open() == 0).await;
        };
        let caller = async {
            let error = client.send().await.unwrap_err();
            let took = begun.elapsed();
            assert!(took >= secs(5) && took < secs(5) + SLACK, "{took:?}");
            assert!(error.is_timeout() && error.is_transient(), "{error}");
            assert_eq!(error.attempts(), 1);
        };
        tokio::join!(attempt, caller);
        assert_eq!(mds.connections(), 2, "the second attempt is under way");
        assert!(mds.peak() <= 2, "{}", mds.peak());
    };
    let warm = async {
        let mds = FakeMds::start(|n| if n == 2 { Reply::Hang } else { good(n) });
        let client = Client::of(mds.source());
        client.warm_up().await;
        client
            .unnoticed("the attempt", || mds.connections() == 2)
            .await;
        let asked = mds.times()[1];
        client
            .unnoticed("the verdict", || client.last_error().is_some())
            .await;
        let took = asked.elapsed();
        assert!(took >= millis(2_900) && took < secs(3) + SLACK, "{took:?}");
        assert!(client.last_error().unwrap().is_timeout());
        client
            .unnoticed("the next token", || client.last_error().is_none())
            .await;
        assert_eq!(client.used(), set(&["tok-1", "tok-3"]));
        assert!(mds.peak() <= 2, "{}", mds.peak());
    };
    // The default is the source's own: 3 s.
    assert_eq!(MetadataServer::new().attempt_timeout(), secs(3));
    tokio::join!(cold, warm);
}

#[tokio::test]
async fn s042_a_server_that_stalls_or_trickles_ends_the_attempt_as_well() {
    let errors = each_within(secs(1), troubles::stalls()).await;
    assert!(errors.iter().all(AuthError::is_timeout), "{errors:?}");
}

/// A listener that never accepts, with its queue full: packets are dropped, as on a dead route.
#[cfg(target_os = "linux")]
struct BlackHole {
    _listener: tokio::net::TcpListener,
    _queue: Vec<TcpStream>,
    addr: SocketAddr,
}

#[cfg(target_os = "linux")]
impl BlackHole {
    fn open() -> Self {
        let (socket, addr) = refusing();
        let listener = socket.listen(0).unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, millis(200)) {
            queue.push(stream);
            assert!(queue.len() < 100, "the queue never fills");
        }
        Self {
            _listener: listener,
            _queue: queue,
            addr,
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn s043_a_black_hole_ends_the_attempt_at_3_s() {
    let hole = BlackHole::open();
    let cold = async {
        let client = Client::with(at(hole.addr), |builder| builder.max_wait(secs(4)));
        let begun = Instant::now();
        let attempt = async {
            eventually("the verdict", || client.last_error().is_some()).await;
            let took = begun.elapsed();
            assert!(took >= secs(3) && took < secs(3) + SLACK, "{took:?}");
        };
        let (error, ()) = tokio::join!(client.send(), attempt);
        assert!(error.unwrap_err().is_timeout());
    };
    let warm = async {
        let mds = FakeMds::start(good);
        let source = moving(mds.source(), at(hole.addr));
        let client = Client::with(source, |builder| builder.attempt_timeout(secs(3)));
        client.warm_up().await;
        client
            .unnoticed("the attempt", || client.status().is_refreshing())
            .await;
        let begun = Instant::now();
        client
            .unnoticed("the verdict", || client.last_error().is_some())
            .await;
        assert!(begun.elapsed() < secs(3) + SLACK, "{:?}", begun.elapsed());
        assert!(client.last_error().unwrap().is_timeout());
        assert_eq!(client.used(), set(&["tok-1"]));
    };
    tokio::join!(cold, warm);
}

#[tokio::test]
async fn s045_four_server_errors_and_then_a_token() {
    let cold = |status: u16| async move {
        let mds = FakeMds::start(move |n| match n {
            1..=4 => Reply::status(status, "", "later"),
            _ => good(n),
        });
        let client = Client::of(mds.source());
        let begun = Instant::now();
        assert_eq!(client.send().await.unwrap(), "tok-5", "{status}");
        assert!(
            begun.elapsed() < secs(20),
            "{status}: {:?}",
            begun.elapsed()
        );
        assert_eq!(mds.connections(), 5, "{status}");
    };
    let warm = |status: u16| async move {
        let mds = FakeMds::start(move |n| match n {
            2..=5 => Reply::status(status, "", "later"),
            _ => good(n),
        });
        let client = Client::of(mds.source());
        client.warm_up().await;
        client
            .unnoticed("the failure", || client.last_error().is_some())
            .await;
        assert_eq!(client.last_error().unwrap().status(), Some(status));
        client
            .unnoticed("the next token", || client.last_error().is_none())
            .await;
        assert_eq!(client.send().await.unwrap(), "tok-6", "{status}");
        assert_eq!(client.used(), set(&["tok-1", "tok-6"]), "{status}");
        assert_eq!(mds.connections(), 6, "{status}");
    };
    let both = |status| async move { tokio::join!(cold(status), warm(status)) };
    join_all([500, 502, 503, 504, 408].map(both)).await;
}

/// Busy once, cold (the first request) or warm (the second). Returns the time from then to the next
/// request, and the time at which that came.
async fn gap_after(cold: bool, trouble: impl Fn() -> Reply + Send + Sync + 'static) -> Gap {
    let busy = if cold { 1 } else { 2 };
    let mds = FakeMds::start(move |n| if n == busy { trouble() } else { good(n) });
    let client = Client::of(mds.source());
    if !cold {
        client.warm_up().await;
        client
            .unnoticed("the failure", || client.last_error().is_some())
            .await;
        assert_eq!(client.last_error().unwrap().status(), Some(429));
        client
            .unnoticed("the next token", || client.last_error().is_none())
            .await;
    }
    let next = format!("tok-{}", busy + 1);
    assert_eq!(client.send().await.unwrap(), next);
    assert_eq!(mds.connections(), busy + 1);
    let times = mds.times();
    Gap {
        took: times[busy] - times[busy - 1],
        at: SystemTime::now() - times[busy].elapsed(),
    }
}

struct Gap {
    took: Duration,
    at: SystemTime,
}

/// In seconds and as a date; both run at the same time, because each takes as long as it says.
#[tokio::test]
async fn s046_retry_after_is_kept_to_the_second() {
    let seconds = |cold| async move {
        let gap = gap_after(cold, || busy("7")).await.took;
        assert!(gap >= secs(7) && gap < secs(7) + SLACK, "{cold}: {gap:?}");
    };
    let date = |cold| async move {
        let date = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH));
        let said = Arc::clone(&date);
        let trouble = move || {
            let text = httpdate::fmt_http_date(SystemTime::now() + secs(7));
            // Rounded to whole seconds, as in the header.
            *said.lock().unwrap() = httpdate::parse_http_date(&text).unwrap();
            busy(&text)
        };
        let again = gap_after(cold, trouble).await.at;
        let date = *date.lock().unwrap();
        // The wall clock may be adjusted by a few milliseconds meanwhile.
        assert!(again + millis(50) >= date, "{cold}: {again:?} {date:?}");
        assert!(again < date + SLACK, "{cold}: {again:?} {date:?}");
    };
    tokio::join!(seconds(true), seconds(false), date(true), date(false));
}

#[tokio::test]
async fn s046_a_malformed_retry_after_is_none() {
    let one = |(header, cold): (&'static str, bool)| async move {
        let gap = gap_after(cold, move || busy(header)).await.took;
        assert!(
            gap >= millis(500) && gap < secs(1) + SLACK,
            "{header:?}, {cold}: {gap:?}"
        );
    };
    let headers = ["-1", "abc", "1e18", "", "7.5", "7, 8"];
    let both = headers.map(|header| [(header, true), (header, false)]);
    join_all(both.into_iter().flatten().map(one)).await;
}

#[tokio::test]
async fn s046_a_retry_after_that_is_over_asks_for_no_haste() {
    let one = |(header, cold): (&'static str, bool)| async move {
        let gap = gap_after(cold, move || busy(header)).await.took;
        assert!(gap >= millis(500), "{header:?}, {cold}: {gap:?}");
    };
    let headers = ["0", "Thu, 01 Jan 1970 00:00:00 GMT"];
    let both = headers.map(|header| [(header, true), (header, false)]);
    join_all(both.into_iter().flatten().map(one)).await;
}

#[tokio::test]
async fn s046_the_expiry_is_worth_an_attempt_whatever_retry_after_says() {
    let mds = FakeMds::start(|n| match n {
        1 => Reply::token("tok-1", 3),
        2 => busy("3600"),
        _ => good(n),
    });
    let client = Client::of(mds.source());
    let begun = Instant::now();
    assert_eq!(client.send().await.unwrap(), "tok-1");
    // It is fresh for half of its life. From then on requests carry it, and ask for another.
    client
        .unnoticed("the failure", || client.last_error().is_some())
        .await;
    assert_eq!(client.last_error().unwrap().retry_after(), Some(secs(3600)));
    let nearly = || begun.elapsed() > millis(2_900);
    client.unnoticed("the last moment", nearly).await;
    assert_eq!(mds.connections(), 2);
    sleep(millis(3_100).saturating_sub(begun.elapsed())).await;
    assert_eq!(client.send().await.unwrap(), "tok-3");
    let third = mds.times()[2] - begun;
    assert!(third >= secs(3) && third < secs(3) + SLACK, "{third:?}");
}

#[tokio::test]
async fn s047_no_status_is_terminal() {
    let one = |status: u16| async move {
        const TROUBLE: Duration = Duration::from_secs(5);
        let begun = Instant::now();
        let mds = FakeMds::start(move |n| {
            if begun.elapsed() < TROUBLE {
                Reply::status(status, "", "not yet")
            } else {
                good(n)
            }
        });
        let client = Client::of(mds.source());
        client
            .send()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(mds.connections() >= 4, "{status}: it failed at first");
        assert!(begun.elapsed() >= TROUBLE);
        assert!(
            begun.elapsed() < TROUBLE + secs(11),
            "{status}: {:?}",
            begun.elapsed()
        );
    };
    join_all([400, 401, 403, 404].map(one)).await;
}

#[tokio::test]
async fn s048_the_error_says_what_to_check_and_attempts_slow_down() {
    let one = |(status, hints): (u16, &'static [&'static str])| async move {
        let mds = FakeMds::start(move |_| Reply::status(status, "", INTERNAL));
        let client = Client::with(mds.source(), |builder| builder.max_wait(millis(3_250)));
        let error = client.send().await.unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert!((2..=3).contains(&error.attempts()), "{error}");
        assert!(mds.connections() <= 3);
        let text = error.to_string();
        assert!(text.contains(&status.to_string()), "{text}");
        assert!(hints.iter().all(|hint| text.contains(hint)), "{text}");
        // A request that comes now gets the known answer, or that of an attempt within a second.
        let begun = Instant::now();
        let error = client.send().await.unwrap_err();
        assert!(begun.elapsed() < secs(1) + SLACK, "{:?}", begun.elapsed());
        assert_eq!(error.status(), Some(status));
    };
    join_all([
        one((404, &["service account", "scopes"])),
        one((403, &["workloadIdentityUser", "service account"])),
    ])
    .await;
}

/// Repeats the server's error to a cache in virtual time.
#[test]
fn s048_attempts_settle_at_12_a_minute() {
    let runtime = |paused| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        { runtime }
            .enable_all()
            .start_paused(paused)
            .build()
            .unwrap()
    };
    for status in [403, 404] {
        let error = runtime(false).block_on(async {
            let mds = FakeMds::start(move |_| Reply::status(status, "", INTERNAL));
            fetch(&mds.source()).await.unwrap_err()
        });
        assert_eq!(error.status(), Some(status));
        runtime(true).block_on(async {
            let begun = tokio::time::Instant::now();
            let times = Arc::new(Mutex::new(Vec::new()));
            let calls = Arc::clone(&times);
            let source = source::from_fn(move |_| {
                calls.lock().unwrap().push(begun.elapsed());
                let error = error.clone();
                async move { Err::<Token, _>(error) }
            });
            let client = Client::of(source);
            while begun.elapsed() < secs(600) {
                let error = client.send().await.unwrap_err();
                assert_eq!(error.status(), Some(status));
                sleep(millis(100)).await;
            }
            let times = times.lock().unwrap();
            let settled = times.iter().position(|at| *at > secs(30)).unwrap();
            for minute in times[settled..].windows(13) {
                let span = minute[12] - minute[0];
                assert!(span > secs(60), "{status}: 13 attempts within {span:?}");
            }
            assert!(times.len() > 60, "they go on: {}", times.len());
        });
    }
}

#[tokio::test]
async fn s049_another_server_is_not_the_metadata_server() {
    let errors = each(troubles::strangers()).await;
    for (error, stranger) in errors.iter().zip([true, true, true, false]) {
        assert!(error.is_response() && error.status().is_none(), "{error}");
        let text = error.to_string();
        assert_eq!(text.contains("not a metadata server"), stranger, "{text}");
        assert_discreet("another server", &texts(error));
    }
}

#[tokio::test]
async fn s050_redirects_are_not_followed() {
    let elsewhere = Arc::new(FakeMds::healthy());
    let redirect = |status: u16| {
        let location = format!("Location: http://{}/token\r\n", elsewhere.endpoint());
        Reply::status(status, &location, "")
    };
    let statuses = [301, 302, 303, 307, 308];
    let errors = each(statuses.map(|status| ("a redirect", redirect(status)))).await;
    for (error, status) in errors.iter().zip(statuses) {
        assert_eq!(error.status(), Some(status));
        assert!(error.to_string().contains("redirect"), "{error}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn s052_a_huge_answer_is_not_read() {
    // The kernel buffers some megabytes that the server writes and nobody reads.
    const BUFFERED: usize = 8 * 1024 * 1024;

    let head = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
    let endless =
        |first: &str, again: Vec<u8>| Reply::Endless(format!("{head}{first}").into_bytes(), again);
    let mut chunk = b"4000\r\n".to_vec();
    chunk.extend([b' '; 0x4000]);
    chunk.extend(b"\r\n");
    let spaces = vec![b' '; 0x4000];
    for (what, reply) in [
        (
            "200 MiB",
            endless("Content-Length: 209715200\r\n\r\n", spaces.clone()),
        ),
        ("no length", endless("\r\n", spaces)),
        (
            "endless chunks",
            endless("Transfer-Encoding: chunked\r\n\r\n", chunk),
        ),
        ("an endless header", endless("X: ", vec![b'x'; 0x4000])),
        (
            "endless interim answers",
            Reply::Endless(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)),
        ),
    ] {
        let mds = FakeMds::start(move |_| reply.clone());
        let error = fetch(&mds.source()).await.unwrap_err();
        assert!(error.is_response(), "{what}: {error}");
        assert!(error.to_string().contains("too large"), "{what}: {error}");
        eventually("the connection's end", || mds.open() == 0).await;
        assert!(
            mds.most_written() < BUFFERED,
            "{what}: {}",
            mds.most_written()
        );
    }

    // The limit is 64 KiB, head included.
    let padded = |size: usize, length: bool| {
        let token = r#"{"access_token":"a","expires_in":9,"token_type":"Bearer"}"#;
        let pad = |head: &str| token.len() + size.saturating_sub(head.len() + token.len());
        let mut answer = format!("{head}\r\n");
        if length {
            // A placeholder with as many digits as the length.
            answer = format!("{head}Content-Length: 00000\r\n\r\n");
            answer = answer.replace("00000", &format!("{:05}", pad(&answer)));
        }
        let width = pad(&answer);
        answer.push_str(&format!("{token:<width$}"));
        assert_eq!(answer.len(), size);
        answer
    };
    for length in [true, false] {
        let answers = [0, 1].map(|more| padded(64 * 1024 - 1 + more * 2, length));
        let mds = FakeMds::start(move |n| raw(answers[n - 1].clone()));
        let token = fetch(&mds.source()).await.unwrap();
        assert_eq!(token.expose_secret(), "a");
        let error = fetch(&mds.source()).await.unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }
}

#[tokio::test]
async fn s052_a_huge_answer_is_a_failure_like_any_other() {
    let errors = each(troubles::huge()).await;
    assert!(errors.iter().all(AuthError::is_response), "{errors:?}");
}

#[tokio::test]
async fn s054_garbage_is_a_failure_like_any_other() {
    let errors = each(troubles::garbage()).await;
    assert!(errors.iter().all(AuthError::is_response), "{errors:?}");
}

#[tokio::test]
async fn s057_expires_in_table() {
    const DAY: u64 = 24 * 3600;
    let accepted = [
        ("3599", 3599),
        ("1", 1),
        ("\"3599\"", 3599),
        ("3599.0", 3599),
        ("3599.9", 3599),
        ("3.6e3", 3600),
        ("86401", DAY),
        ("2147483648", DAY),
        ("9007199254740992", DAY),
        ("9223372036854775807", DAY),
        ("18446744073709551615", DAY),
        ("1e300", DAY),
    ];
    let mds = FakeMds::start(move |n| answer("\"a\"", accepted[n - 1].0, "\"Bearer\""));
    for (json, seconds) in accepted {
        let token = fetch(&mds.source()).await.expect(json);
        assert_eq!(token.lifetime(), Some(secs(seconds)), "{json}");
    }
    // A clamped token is served, and is good for a day.
    let mds = FakeMds::start(|_| answer("\"a\"", "18446744073709551615", "\"Bearer\""));
    let client = Client::of(mds.source());
    assert_eq!(client.send().await.unwrap(), "a");
    let left = client.status().expires_in().unwrap();
    assert!(left <= secs(DAY) && left > secs(DAY - 60), "{left:?}");

    let errors = each(troubles::lives()).await;
    assert!(errors.iter().all(AuthError::is_response), "{errors:?}");
}

#[tokio::test]
async fn s058_access_token_table() {
    let longest = "x".repeat(8_192);
    let accepted = ["a", "A-Z.a_z~0+9/x==", "ya29.c.b0Aaek", &longest];
    for token in accepted {
        let json = format!("\"{token}\"");
        let mds = FakeMds::start(move |_| answer(&json, "3599", "\"Bearer\""));
        let client = Client::of(mds.source());
        assert_eq!(client.send().await.unwrap(), token);
    }

    // `each` checks that nothing but `tok-1` and `tok-3` is ever sent.
    let errors = each(troubles::tokens()).await;
    assert!(errors.iter().all(AuthError::is_response), "{errors:?}");
}

#[tokio::test]
async fn s059_token_type_table() {
    for kind in ["Bearer", "bearer", "BEARER"] {
        let json = format!("\"{kind}\"");
        let mds = FakeMds::start(move |_| answer("\"a\"", "3599", &json));
        let client = Client::of(mds.source());
        client.send().await.unwrap();
        let sent = client.inner.seen().pop().unwrap();
        assert_eq!(sent.headers[header::AUTHORIZATION], "Bearer a", "{kind}");
    }
    let errors = each(troubles::kinds()).await;
    assert!(errors.iter().all(AuthError::is_response), "{errors:?}");
}

/// The lines of a request's head, including the last, empty one.
fn lines(head: &str) -> Vec<&str> {
    head.strip_suffix("\r\n").unwrap().split("\r\n").collect()
}

/// What every request to the metadata server looks like, whatever caused it.
fn assert_plain(mds: &FakeMds) {
    let host = format!("Host: {}", mds.endpoint());
    for head in mds.requests() {
        let mut lines = lines(&head);
        assert_eq!(lines.remove(0), LINE);
        lines.sort_unstable();
        // Neither a length nor an encoding: there is no body.
        assert_eq!(lines, ["", &host, "Metadata-Flavor: Google"]);
    }
}

#[tokio::test]
async fn s062_the_request_is_the_documented_one() {
    let mds = FakeMds::healthy();
    let client = Client::of(mds.source());
    client.send().await.unwrap();
    assert_eq!(mds.token_requests(), 1);
    assert_plain(&mds);
}

#[tokio::test]
async fn s144_nothing_of_the_callers_request_goes_to_the_metadata_server() {
    let mds = FakeMds::start(|n| {
        if n == 1 {
            Reply::status(503, "", "")
        } else {
            good(n)
        }
    });
    let cache = TokenCache::new(mds.source());
    let inner = Inner::new();
    let client = ScopedAuthLayer::from_cache(cache)
        .replace_authorization()
        .layer(inner.clone());
    let mut request = get(BUCKET);
    for (name, value) in [
        ("authorization", SECRET),
        ("proxy-authorization", SECRET),
        ("cookie", "session=1"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        (
            "x-cloud-trace-context",
            "105445aa7843bc8bf206b12000100000/1;o=1",
        ),
        ("x-forwarded-for", "10.0.0.1"),
        ("user-agent", "caller/1.0"),
        ("x-goog-user-project", "p"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    client.oneshot(request).await.unwrap();
    assert_eq!(inner.last_token().unwrap(), "tok-2");
    assert_eq!(inner.seen()[0].headers["cookie"], "session=1");
    assert_eq!(mds.token_requests(), 2);
    assert_plain(&mds);
}

#[tokio::test]
async fn s159_scopes_on_the_wire() {
    for (scopes, query) in [
        (&["a", "b"][..], "?scopes=a%2Cb"),
        (&["b", "a", "a"], "?scopes=a%2Cb"),
        (&[], ""),
        (&["a&x=1", "a#"], "?scopes=a%23%2Ca%26x%3D1"),
        (
            &["https://www.googleapis.com/auth/drive"],
            "?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdrive",
        ),
    ] {
        let mds = FakeMds::healthy();
        let client = ScopedAuthLayer::new(mds.source())
            .scopes(Scopes::new(scopes).unwrap())
            .layer(Inner::new());
        send(&client, BUCKET).await.unwrap();
        let line = LINE.replace("/token", &format!("/token{query}"));
        let requests = mds.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(lines(&requests[0])[0], line);
    }
}

#[tokio::test]
async fn s165_a_requests_own_scopes_reach_the_wire() {
    let mds = FakeMds::healthy();
    let client = ScopedAuthLayer::new(mds.source())
        .scopes(Scopes::new(["the-layers"]).unwrap())
        .layer(Inner::new());
    for own in [None, Some(["b", "a"]), Some(["a", "b"])] {
        let mut request = get(BUCKET);
        if let Some(own) = own {
            request.extensions_mut().insert(Scopes::new(own).unwrap());
        }
        client.clone().oneshot(request).await.unwrap();
    }
    let requests = mds.requests();
    let asked = requests.iter().map(|head| lines(head)[0]);
    let wanted = ["the-layers", "a%2Cb"];
    let wanted = wanted.map(|scopes| LINE.replace("/token", &format!("/token?scopes={scopes}")));
    assert_eq!(asked.collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn s164_an_account_is_one_segment_of_the_path() {
    let mds = FakeMds::healthy();
    let with = |account: &str| {
        let builder = MetadataServer::builder().endpoint(mds.endpoint());
        builder.account(account).build()
    };
    let accounts = ["default", "sa@p.iam.gserviceaccount.com"];
    for account in accounts {
        let client = Client::of(with(account).unwrap());
        client.send().await.unwrap();
    }
    for account in [
        "../../attributes/x",
        "default/token?scopes=",
        "a b",
        "%2e%2e",
        "..",
        "",
        "a\r\nX-Evil: 1",
        "default#",
    ] {
        let error = with(account).expect_err(account);
        assert_eq!(error.what(), "service account");
    }
    let paths = accounts.map(|account| LINE.replace("default", account));
    let requests = mds.requests();
    let seen = requests.iter().map(|head| lines(head)[0]);
    assert_eq!(seen.collect::<Vec<_>>(), paths);
}

#[tokio::test]
async fn s133_s134_no_error_and_no_log_repeats_what_came() {
    let (tap, _guard) = TraceTap::install();
    let one = |(what, reply): (&'static str, Reply)| async move {
        let mds = FakeMds::start(move |_| reply.clone());
        // The source's own error, and the one that a waiting caller gets.
        let request = TokenRequest::access_token(Scopes::default());
        let source = mds.source();
        let direct = timeout(millis(300), source.fetch(request));
        if let Ok(result) = direct.await {
            assert_discreet(what, &texts(&result.expect_err(what)));
        }
        let client = Client::with(mds.source(), |builder| {
            builder.attempt_timeout(millis(300)).max_wait(millis(400))
        });
        let error = client.send().await.expect_err(what);
        assert_discreet(what, &texts(&error));
        assert_discreet(what, &format!("{:?} {:#?}", client.status(), client.cache));
        // The wait may have ended before the attempt did.
        eventually(what, || client.last_error().is_some()).await;
        assert_discreet(what, &texts(&client.last_error().unwrap()));
    };
    let troubles = troubles::telling();
    let failures = troubles.len();
    join_all(troubles.into_iter().map(one)).await;
    assert!(tap.count("WARN") >= failures, "{}", tap.count("WARN"));
    assert_discreet("the log", &tap.text());
}

#[tokio::test]
async fn s148_no_token_starts_a_header_or_a_request() {
    let evil = [
        "a\r\nX-Evil: 1",
        "a\nX-Evil: 1",
        "a\r\n\r\nGET /x-evil HTTP/1.1\r\nHost: x\r\n\r\n",
        "a\0",
        "a\u{7f}",
        "",
        "tökén",
    ];
    let api = FakeMds::start(|_| Reply::ok("fine"));
    let origin = format!("http://{}", api.endpoint());
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let client = |cache| {
        ScopedAuthLayer::from_cache(cache)
            .destinations(Destinations::only([&origin]).unwrap())
            .layer(http.clone())
    };
    let request = || Request::get(&origin).body(Empty::new()).unwrap();
    fn patient(source: impl TokenSource) -> TokenCache {
        let builder = TokenCache::builder(source).max_wait(secs(5));
        builder.build().unwrap()
    }

    // From the metadata server, and from a source that lets anything through.
    let one = async |token: &'static str| {
        let json = serde_json::to_string(token).unwrap();
        let mds = FakeMds::start(move |_| answer(&json, "3599", "\"Bearer\""));
        let careless = source::from_fn(move |_| async move {
            Ok::<_, std::io::Error>(Token::new(token, Duration::from_secs(3599)))
        });
        let (from_mds, from_source) = tokio::join!(
            client(patient(mds.source())).oneshot(request()),
            client(patient(careless)).oneshot(request()),
        );
        for result in [from_mds, from_source] {
            let error = result.unwrap_err();
            assert!(auth_error(&error).is_response(), "{token:?}: {error}");
        }
    };
    join_all(evil.map(one)).await;
    assert_eq!(api.connections(), 0);

    let mds = FakeMds::start(good);
    client(patient(mds.source()))
        .oneshot(request())
        .await
        .unwrap();
    let requests = api.requests();
    assert_eq!(requests.len(), 1);
    let authorization = lines(&requests[0])
        .into_iter()
        .filter(|line| line.to_ascii_lowercase().starts_with("authorization:"))
        .collect::<Vec<_>>();
    assert_eq!(authorization.len(), 1);
    assert!(
        authorization[0].ends_with(": Bearer tok-1"),
        "{authorization:?}"
    );
}

#[tokio::test]
async fn s044_a_name_that_does_not_resolve_is_a_failed_attempt_like_others() {
    // A label that is too long for DNS: the resolver refuses it without asking a server.
    let name = "a".repeat(64);
    let source = MetadataServer::builder().endpoint(name).build().unwrap();
    let cache = TokenCache::builder(source)
        .max_wait(Duration::from_secs(2))
        .build()
        .unwrap();
    let wanted = TokenRequest::access_token(Scopes::default());
    let error = cache.token(&wanted).await.unwrap_err();
    assert!(error.is_connect() && error.is_transient(), "{error:?}");
    assert!(
        error.attempts() >= 2,
        "resolved anew by each attempt: {error:?}"
    );
}

#[tokio::test]
async fn s071_the_server_behind_the_name_is_another_one_from_now_on() {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };
    let serve = |listener: TcpListener, name: &'static str| {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            drop(listener);
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let body =
                format!(r#"{{"access_token":"{name}","expires_in":3599,"token_type":"Bearer"}}"#);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        })
    };
    let there = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = there.local_addr().unwrap().port();
    let first = serve(there, "tok-there");
    let source = MetadataServer::builder()
        .endpoint(format!("localhost:{port}"))
        .build()
        .unwrap();
    let cache = TokenCache::new(source);
    let wanted = TokenRequest::access_token(Scopes::default());
    let token = cache.token(&wanted).await.unwrap();
    assert_eq!(token.expose_secret(), "tok-there");
    first.join().unwrap();
    cache.invalidate(&token);
    // At first there is no server; a little later there is another one.
    let waiting = tokio::spawn({
        let (cache, wanted) = (cache.clone(), wanted.clone());
        async move { cache.token(&wanted).await }
    });
    while cache.status(&wanted).last_error().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = serve(TcpListener::bind(("127.0.0.1", port)).unwrap(), "tok-here");
    let begun = std::time::Instant::now();
    assert_eq!(waiting.await.unwrap().unwrap().expose_secret(), "tok-here");
    assert!(
        begun.elapsed() <= Duration::from_secs(11),
        "{:?}",
        begun.elapsed()
    );
    second.join().unwrap();
}
