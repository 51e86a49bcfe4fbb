//! Scopes that a metadata server ignores, and the universe that it is in: over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::time::Duration;

use futures_util::FutureExt;
use support::{FakeMds, Reply, TraceTap};
use tower_scoped_auth::{
    AuthError, Destinations, MetadataServer, Scopes, TokenCache, TokenRequest,
    emulator::{Emulator, Fault},
    test_util::TestClock,
};

const READ: &str = "https://www.googleapis.com/auth/devstorage.read_only";
const WRITE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A virtual machine with these scopes: the scopes that are asked for are ignored.
fn machine(scopes: &[&str]) -> Emulator {
    let builder = Emulator::builder().honour_scopes(false);
    builder
        .scopes(scopes.iter().copied())
        .start_blocking()
        .unwrap()
}

fn verifying(endpoint: String) -> MetadataServer {
    MetadataServer::builder()
        .endpoint(endpoint)
        .verify_scopes(true)
        .build()
        .unwrap()
}

/// A cache that does not time out: these tests count requests.
fn patient(source: MetadataServer) -> TokenCache {
    const LONG: Duration = Duration::from_secs(120);
    let cache = TokenCache::builder(source)
        .attempt_timeout(LONG)
        .max_wait(LONG);
    cache.clock(TestClock::new()).build().unwrap()
}

/// The first attempt's failure, as health checks see it; nobody waits for a second attempt.
async fn first_failure(cache: &TokenCache, request: &TokenRequest) -> AuthError {
    let first = cache.token(request).now_or_never();
    assert!(first.is_none(), "it has to be fetched");
    loop {
        if let Some(error) = cache.status(request).last_error() {
            return error.clone();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn wanted(scopes: &[&str]) -> TokenRequest {
    TokenRequest::access_token(Scopes::new(scopes).unwrap())
}

fn asked_for_scopes(mds: &Emulator) -> usize {
    let requests = mds.requests();
    requests
        .iter()
        .filter(|request| request.uri().path().ends_with("/scopes"))
        .count()
}

#[tokio::test]
async fn s165_missing_scopes_are_an_error_that_names_them_and_no_token_is_minted() {
    let mds = machine(&[READ, "https://www.googleapis.com/auth/userinfo.email"]);
    let cache = patient(verifying(mds.endpoint()));
    let error = first_failure(&cache, &wanted(&[READ, WRITE])).await;
    let text = error.to_string();
    assert!(text.contains(WRITE) && !text.contains(READ), "{text}");
    assert!(text.contains("--scopes") && !error.is_transient(), "{text}");
    assert_eq!(mds.token_requests(), 0);

    // Scopes that the machine has pass, and so does leaving the choice to the machine.
    cache.token(&wanted(&[READ])).await.unwrap();
    let before = asked_for_scopes(&mds);
    cache.token(&wanted(&[])).await.unwrap();
    assert_eq!((mds.token_requests(), asked_for_scopes(&mds)), (2, before));
}

#[tokio::test]
async fn cloud_platform_covers_all() {
    let mds = machine(&[CLOUD]);
    let cache = patient(verifying(mds.endpoint()));
    cache.token(&wanted(&[READ, WRITE])).await.unwrap();
    assert_eq!((asked_for_scopes(&mds), mds.token_requests()), (1, 1));
}

#[tokio::test]
async fn a_list_that_cannot_be_had_is_an_ordinary_failed_attempt() {
    let mds = machine(&[READ]);
    let source = verifying(mds.endpoint());
    let cache = patient(source);
    let request = wanted(&[READ]);
    mds.fault(Fault::status(500).on_path("/scopes"));
    mds.fault(Fault::reset().on_path("/scopes"));
    let token = cache.token(&request).await.unwrap();
    assert_eq!((asked_for_scopes(&mds), mds.token_requests()), (3, 1));

    // A refresh that fails because of this costs no live token, and says what failed.
    mds.fault(Fault::status(503).on_path("/scopes").forever());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_500)).await;
    tokio::time::resume();
    while cache.status(&request).last_error().is_none() {
        let live = cache
            .token(&request)
            .now_or_never()
            .expect("at once")
            .unwrap();
        assert_eq!(live.expose_secret(), token.expose_secret());
        tokio::task::yield_now().await;
    }
    let status = cache.status(&request);
    let error = status.last_error().unwrap();
    assert_eq!(error.status(), Some(503));
    assert!(error.to_string().contains("its scopes"), "{error}");
}

#[tokio::test]
async fn scopes_that_are_given_later_are_found_without_building_anything_anew() {
    let mds = FakeMds::start(|n| match n {
        1 => Reply::ok(format!("{READ}\n")),
        2 => Reply::ok(format!("{READ}\n{WRITE}\n")),
        _ => Reply::token("tok", 3599),
    });
    let cache = patient(verifying(mds.endpoint()));
    let token = cache.token(&wanted(&[READ, WRITE])).await.unwrap();
    assert_eq!((token.expose_secret(), mds.connections()), ("tok", 3));
}

#[tokio::test]
async fn s042_one_limit_covers_both_exchanges() {
    let mds = FakeMds::start(|n| {
        let reply = match n % 2 {
            1 => Reply::ok(format!("{READ}\n")),
            _ => Reply::token("too late", 3599),
        };
        reply.after(Duration::from_millis(700))
    });
    let cache = TokenCache::builder(verifying(mds.endpoint()))
        .attempt_timeout(Duration::from_secs(1))
        .max_wait(Duration::from_millis(1_300))
        .build()
        .unwrap();
    let error = cache.token(&wanted(&[READ])).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn s165_ignored_scopes_are_one_warning_per_source_and_no_request() {
    let (tap, _guard) = TraceTap::install();
    let mds = machine(&[READ]);
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .build()
        .unwrap();
    let cache = patient(source.clone());
    cache.token(&wanted(&[])).await.unwrap();
    assert_eq!(tap.count("WARN"), 0, "nothing was asked for");
    for request in [wanted(&[WRITE]), wanted(&[CLOUD]), wanted(&[WRITE])] {
        let token = cache.token(&request).await.unwrap();
        cache.invalidate(&token);
    }
    patient(source).token(&wanted(&[WRITE])).await.unwrap();
    assert_eq!(tap.count("WARN"), 1, "{}", tap.text());
    let text = tap.text();
    let line = text.lines().find(|line| line.contains("WARN")).unwrap();
    assert!(
        line.contains("verify_scopes") && line.contains(WRITE),
        "{line}"
    );
    assert_eq!((asked_for_scopes(&mds), mds.connections()), (0, 5));
}

#[tokio::test]
async fn where_scopes_count_and_where_they_are_verified_nothing_is_said() {
    let (tap, _guard) = TraceTap::install();
    let serverless = Emulator::builder().scopes([CLOUD]).start().await.unwrap();
    let plain = MetadataServer::builder()
        .endpoint(serverless.endpoint())
        .build()
        .unwrap();
    patient(plain).token(&wanted(&[READ])).await.unwrap();
    let machine = machine(&[READ]);
    let cache = patient(verifying(machine.endpoint()));
    cache.token(&wanted(&[READ])).await.unwrap();
    // A server that does not say what it is is not suspected.
    let silent = FakeMds::healthy();
    patient(silent.source())
        .token(&wanted(&[READ]))
        .await
        .unwrap();
    assert_eq!(tap.count("WARN"), 0, "{}", tap.text());
}

#[tokio::test]
async fn the_universe_is_asked_for_and_becomes_a_destination() {
    for domain in ["googleapis.com", "apis.example.cloud"] {
        let mds = Emulator::builder()
            .universe_domain(domain)
            .start()
            .await
            .unwrap();
        let source = MetadataServer::builder()
            .endpoint(mds.endpoint())
            .build()
            .unwrap();
        let found = source.universe_domain().await.unwrap();
        assert_eq!(found, domain);
        Destinations::universe(&found).unwrap();
        assert_eq!(
            mds.requests()[0].uri(),
            "/computeMetadata/v1/universe/universe-domain"
        );
    }
}

#[tokio::test]
async fn no_universe_is_the_default_one_and_trouble_is_an_error_each_time() {
    let mds = Emulator::builder()
        .universe_domain("apis.example.cloud")
        .start()
        .await
        .unwrap();
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .build()
        .unwrap();
    let universe = "/universe-domain";
    mds.fault(Fault::status(404).on_path(universe));
    mds.fault(Fault::body("").on_path(universe));
    mds.fault(Fault::body("\n").on_path(universe));
    for _ in 0..3 {
        assert_eq!(source.universe_domain().await.unwrap(), "googleapis.com");
    }
    mds.fault(Fault::status(503).on_path(universe));
    mds.fault(Fault::cut_in_head().on_path(universe));
    mds.fault(Fault::without_flavor().on_path(universe));
    mds.fault(Fault::body("<html>portal</html>").on_path(universe));
    let mut errors = Vec::new();
    for _ in 0..4 {
        errors.push(source.universe_domain().await.unwrap_err());
    }
    assert_eq!(errors[0].status(), Some(503));
    assert!(errors[1].is_connect() && errors[2].is_response() && errors[3].is_response());
    assert!(!errors[3].to_string().contains("portal"));
    assert_eq!(
        source.universe_domain().await.unwrap(),
        "apis.example.cloud"
    );
}

#[test]
fn s042_s091_the_universe_is_asked_for_within_three_seconds_and_in_a_runtime() {
    let mds = Emulator::builder().start_blocking().unwrap();
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .build()
        .unwrap();
    let error = source
        .universe_domain()
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("Tokio runtime"), "{error}");
    mds.fault(Fault::hang().on_every_path());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let error = runtime.block_on(source.universe_domain()).unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[test]
fn s091_the_universe_asked_for_in_a_runtime_without_time_or_io_is_an_error() {
    let mds = Emulator::builder().start_blocking().unwrap();
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .build()
        .unwrap();
    type Enable = fn(&mut tokio::runtime::Builder) -> &mut tokio::runtime::Builder;
    let halves: [Enable; 2] = [
        tokio::runtime::Builder::enable_io,
        tokio::runtime::Builder::enable_time,
    ];
    for enable in halves {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = enable(&mut builder).build().unwrap();
        let error = runtime.block_on(source.universe_domain()).unwrap_err();
        assert!(error.to_string().contains("time and I/O"), "{error}");
    }
}

#[tokio::test]
async fn a_404_that_is_not_the_metadata_server_s_names_no_universe() {
    let bare = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let mds = FakeMds::start(move |_| Reply::Raw(bare.into()));
    let error = mds.source().universe_domain().await.unwrap_err();
    assert!(error.is_response(), "{error}");
    assert!(error.to_string().contains("Metadata-Flavor"), "{error}");
    let lenient = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .flavor_optional()
        .build()
        .unwrap();
    assert_eq!(lenient.universe_domain().await.unwrap(), "googleapis.com");
}
