//! What the process around the crate decides: its variables, its runtimes or lack of them, its end.
//!
//! Variables belong to a whole process, so each scenario starts this test binary again, for one test,
//! with the variables it is about. That test then takes the other branch of its function.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    ffi::{OsStr, OsString},
    future::Future,
    net::TcpListener,
    process::Output,
    time::{Duration, Instant, SystemTime},
};

use futures_util::FutureExt;
use support::{
    BUCKET, FakeMds, Inner, Reply,
    child::{end, rerun, told},
    send,
};
use tokio::{
    net::TcpSocket,
    runtime::{Builder, Handle, Runtime},
    time::sleep,
};
use tower::Layer;
use tower_scoped_auth::{
    MetadataServer, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, TokenSource, TokenState,
    test_util::TestClock,
};

const METADATA_HOST: &str = "GCE_METADATA_HOST";

const PROXIES: [&str; 6] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// No child takes longer.
const LONG: Duration = Duration::from_secs(20);

fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Runs this test in a process of its own, which must end successfully.
fn child(
    test: &str,
    tell: &str,
    variables: impl IntoIterator<Item = (&'static str, OsString)>,
) -> Output {
    let mut command = rerun(test, tell);
    for name in PROXIES
        .into_iter()
        .chain(["no_proxy", "NO_PROXY", METADATA_HOST])
    {
        command.env_remove(name);
    }
    end(command.envs(variables).spawn().unwrap(), LONG)
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let limited = async { tokio::time::timeout(LONG, future).await.unwrap() };
    current_thread().block_on(limited)
}

/// The token that a request carries when sent through a layer around this source.
fn token_from(source: MetadataServer) -> String {
    let inner = Inner::new();
    let client = ScopedAuthLayer::new(source).layer(inner.clone());
    block_on(send(&client, BUCKET)).unwrap();
    inner.last_token().unwrap()
}

#[test]
fn s001_construction_is_inert() {
    let Some(endpoint) = told() else {
        let refusing = current_thread().block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            socket
        });
        let mds = FakeMds::healthy();
        let nobody = refusing.local_addr().unwrap().to_string();
        for endpoint in [&nobody, &mds.endpoint()] {
            let variable = (METADATA_HOST, endpoint.into());
            child("s001_construction_is_inert", endpoint, [variable]);
        }
        assert_eq!(mds.connections(), 0);
        return;
    };
    assert!(Handle::try_current().is_err());
    let before = resources();
    let begun = Instant::now();
    let source = MetadataServer::builder()
        .endpoint(endpoint)
        .build()
        .unwrap();
    let cache = TokenCache::builder(source.clone()).build().unwrap();
    let built = [
        ScopedAuthLayer::new(source).layer(Inner::new()),
        ScopedAuthLayer::from_cache(cache.clone()).layer(Inner::new()),
        ScopedAuthLayer::new(MetadataServer::from_env().unwrap()).layer(Inner::new()),
        ScopedAuthLayer::new(MetadataServer::new()).layer(Inner::new()),
    ];
    let clones = built.clone();
    let took = begun.elapsed();
    assert!(took < millis(50), "{took:?}");
    assert_eq!(resources(), before);
    let status = cache.status(&TokenRequest::access_token(Scopes::default()));
    assert_eq!(
        (status.state(), status.is_refreshing()),
        (TokenState::Empty, false)
    );
    drop((built, clones, cache));
    assert_eq!(resources(), before);
}

/// Open files and threads of this process.
#[cfg(target_os = "linux")]
fn resources() -> (usize, usize) {
    let count = |what| std::fs::read_dir(what).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[cfg(not(target_os = "linux"))]
fn resources() {}

#[test]
fn s051_proxy_variables_mean_nothing() {
    if told().is_some() {
        assert_eq!(token_from(MetadataServer::from_env().unwrap()), "tok-1");
        support::crypto_provider();
        // A client that does obey them, or the variables would prove nothing.
        let response = block_on(reqwest::get("http://somewhere.invalid/control")).unwrap();
        assert!(response.status().is_success());
        return;
    }
    let mds = FakeMds::start(|n| Reply::token(&format!("tok-{n}"), 3599));
    let proxy = FakeMds::healthy();
    let url = OsString::from(format!("http://{}", proxy.endpoint()));
    let proxies = PROXIES.map(|name| (name, url.clone()));
    let host = (METADATA_HOST, mds.endpoint().into());
    child(
        "s051_proxy_variables_mean_nothing",
        "",
        proxies.into_iter().chain([host]),
    );
    assert_eq!(mds.token_requests(), 1);
    assert_eq!(proxy.connections(), 1, "the control's");
    assert!(proxy.requests()[0].contains("/control"));
}

#[test]
fn s063_the_metadata_host_is_used_or_is_an_error() {
    const TEST: &str = "s063_the_metadata_host_is_used_or_is_an_error";

    match told().as_deref() {
        Some("used") => {
            assert_eq!(token_from(MetadataServer::from_env().unwrap()), "tok");
            // Only those who ask for it get it.
            let explicit = MetadataServer::builder().endpoint("192.0.2.7");
            for (deaf, address) in [
                (MetadataServer::new(), "\"169.254.169.254\""),
                (
                    MetadataServer::builder().build().unwrap(),
                    "\"169.254.169.254\"",
                ),
                (explicit.build().unwrap(), "\"192.0.2.7\""),
            ] {
                assert!(format!("{deaf:?}").contains(address), "{deaf:?}");
            }
            return;
        }
        Some("refused") => {
            let error = MetadataServer::from_env().unwrap_err();
            assert_eq!(error.what(), METADATA_HOST);
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            return;
        }
        Some("unset") => {
            let source = MetadataServer::from_env().unwrap();
            assert!(
                format!("{source:?}").contains("\"169.254.169.254\""),
                "{source:?}"
            );
            return;
        }
        Some(other) => panic!("{other}"),
        None => {}
    }

    let mds = FakeMds::start(|_| Reply::token("tok", 3599));
    let endpoint = mds.endpoint();
    let port = endpoint.rsplit_once(':').unwrap().1;
    let used = [
        endpoint.clone(),
        format!("http://{endpoint}"),
        format!("http://{endpoint}/"),
        format!("{endpoint}/"),
        format!("localhost:{port}"),
    ];
    for host in &used {
        child(TEST, "used", [(METADATA_HOST, host.into())]);
    }
    assert_eq!(mds.token_requests(), used.len());

    // Where there is no IPv6, the module's own tests still check what the text means.
    if let Ok(listener) = TcpListener::bind("[::1]:0") {
        let mds = FakeMds::start_on(listener, 0, |_| Reply::token("tok", 3599));
        assert!(mds.endpoint().starts_with("[::1]:"));
        child(TEST, "used", [(METADATA_HOST, mds.endpoint().into())]);
        assert_eq!(mds.token_requests(), 1);
    }

    let connections = mds.connections();
    let refused = [
        String::new(),
        " ".to_owned(),
        "host:-1".to_owned(),
        "a b".to_owned(),
        format!("https://{endpoint}"),
        format!("{endpoint}/computeMetadata"),
        format!("user@{endpoint}"),
        format!("{endpoint}\r\nX-Evil: 1"),
        format!("{endpoint}0000"),
    ];
    for host in refused {
        child(TEST, "refused", [(METADATA_HOST, host.into())]);
    }
    #[cfg(unix)]
    {
        let garbled: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"127.0.0.1\xff");
        child(TEST, "refused", [(METADATA_HOST, garbled.to_owned())]);
    }
    assert_eq!(mds.connections(), connections);
    child(TEST, "unset", []);
}

#[test]
fn s093_the_process_ends_while_a_fetch_hangs() {
    const TEST: &str = "s093_the_process_ends_while_a_fetch_hangs";

    if let Some(told) = told() {
        let runtime = match told.rsplit_once(' ').unwrap().1 {
            "threads" => Runtime::new().unwrap(),
            _ => current_thread(),
        };
        if told.starts_with("cold") {
            runtime.block_on(begin_a_fetch());
        } else {
            runtime.block_on(begin_a_refresh());
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        println!("\nmain returns at {}", now.unwrap().as_nanos());
        return;
    }
    for told in ["cold thread", "cold threads", "warm thread", "warm threads"] {
        let output = child(TEST, told, []);
        let ended = SystemTime::now();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{told}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let returned = stdout
            .lines()
            .find_map(|line| line.strip_prefix("main returns at "));
        let returned = Duration::from_nanos(returned.unwrap().parse().unwrap());
        let ended = ended.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let took = ended.saturating_sub(returned);
        assert!(took < millis(500), "{told}: {took:?}");
    }
}

/// Returns while a request is waiting for a token that does not come.
async fn begin_a_fetch() {
    let mds = FakeMds::start(|_| Reply::Hang);
    let client = ScopedAuthLayer::new(mds.source()).layer(Inner::new());
    tokio::spawn(async move { send(&client, BUCKET).await });
    while mds.token_requests() == 0 {
        sleep(millis(5)).await;
    }
}

/// Returns while a refresh is hanging.
async fn begin_a_refresh() {
    let mds = FakeMds::start(|n| match n {
        1 => Reply::token("tok-1", 3599),
        _ => Reply::Hang,
    });
    let clock = TestClock::new();
    let cache = TokenCache::builder(mds.source())
        .clock(clock.clone())
        .build()
        .unwrap();
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Inner::new());
    send(&client, BUCKET).await.unwrap();
    clock.suspend(Duration::from_secs(3599 - 179));
    while mds.token_requests() < 2 {
        send(&client, BUCKET).now_or_never().unwrap().unwrap();
        sleep(millis(5)).await;
    }
    let request = TokenRequest::access_token(Scopes::default());
    assert!(cache.status(&request).is_refreshing());
    // `main` returns with everything still in use, as in a server that was told to stop.
    std::mem::forget((cache, client));
}

#[cfg(target_os = "linux")]
#[test]
fn s052_a_huge_answer_takes_no_memory() {
    const MOST_KIB: u64 = 4 * 1024;

    if told().is_some() {
        let source = MetadataServer::from_env().unwrap();
        let fetch = || block_on(source.fetch(TokenRequest::access_token(Scopes::default())));
        fetch().unwrap();
        let before = peak_kib();
        for _ in 0..4 {
            let error = fetch().unwrap_err();
            assert!(error.to_string().contains("too large"), "{error}");
        }
        let grown = peak_kib() - before;
        assert!(grown < MOST_KIB, "{grown} KiB");
        return;
    }
    let head = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
    let block = vec![b' '; 0x10000];
    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend(&block);
    chunk.extend(b"\r\n");
    for (first, again) in [
        ("Content-Length: 209715200\r\n\r\n", block),
        ("Transfer-Encoding: chunked\r\n\r\n", chunk),
    ] {
        let mds = FakeMds::start(move |n| match n {
            1 => Reply::token("tok-1", 3599),
            _ => Reply::Endless(format!("{head}{first}").into_bytes(), again.clone()),
        });
        let host = (METADATA_HOST, mds.endpoint().into());
        child("s052_a_huge_answer_takes_no_memory", "", [host]);
        assert_eq!(mds.token_requests(), 5);
    }
}

/// The peak memory of this process.
#[cfg(target_os = "linux")]
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.parse().unwrap()
}
