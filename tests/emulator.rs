//! The emulator over real sockets: the protocol's rules, its tokens, and each fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tower_scoped_auth::{
    MetadataServer, Scopes, TokenCache, TokenRequest,
    emulator::{Emulator, Fault},
};

const ACCOUNT: &str = "/computeMetadata/v1/instance/service-accounts/default";

fn start() -> Emulator {
    Emulator::builder().start_blocking().unwrap()
}

/// Sends a request unchanged and reads until the server closes.
fn raw(mds: &Emulator, request: &str) -> String {
    let mut stream = TcpStream::connect(mds.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn request(mds: &Emulator, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    let host = mds.host();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
    let answer = raw(mds, &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

fn get(mds: &Emulator, path: &str) -> (u16, String, String) {
    request(mds, "GET", path, "Metadata-Flavor: Google\r\n")
}

fn token(mds: &Emulator, query: &str) -> (String, u64) {
    let (status, _, body) = get(mds, &format!("{ACCOUNT}/token{query}"));
    assert_eq!(status, 200);
    let json: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["token_type"], "Bearer");
    (
        json["access_token"].as_str().unwrap().to_owned(),
        json["expires_in"].as_u64().unwrap(),
    )
}

#[test]
fn the_flavor_is_demanded_and_returned() {
    let mds = start();
    let path = format!("{ACCOUNT}/email");
    let (status, head, body) = request(&mds, "GET", &path, "");
    assert_eq!(status, 403);
    assert!(body.contains(r#"Missing required header "Metadata-Flavor": "Google""#));
    assert!(head.contains("Metadata-Flavor: Google"));
    assert_eq!(
        request(&mds, "GET", &path, "Metadata-Flavor: Goggle\r\n").0,
        404
    );
    let proxied = "Metadata-Flavor: Google\r\nX-Forwarded-For: 1.2.3.4\r\n";
    assert_eq!(request(&mds, "GET", &path, proxied).0, 403);
    let (status, head, _) = get(&mds, "/computeMetadata/v1/nothing");
    assert_eq!(status, 404);
    assert!(head.contains("Metadata-Flavor: Google"), "on errors, too");
    let (status, head, body) = request(&mds, "GET", "/", "");
    assert_eq!(
        (status, body.as_str()),
        (200, "computeMetadata/\n"),
        "detection needs no flavor"
    );
    assert!(head.contains("Metadata-Flavor: Google"));
}

#[test]
fn other_methods_are_not_allowed() {
    let mds = start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let headers = "Metadata-Flavor: Google\r\nContent-Length: 0\r\n";
        assert_eq!(
            request(&mds, method, &format!("{ACCOUNT}/token"), headers).0,
            405
        );
    }
    let (status, head, body) = request(
        &mds,
        "HEAD",
        &format!("{ACCOUNT}/email"),
        "Metadata-Flavor: Google\r\n",
    );
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(
        head.contains("ETag: ") && !head.contains("Content-Length: 0"),
        "{head}"
    );
}

#[test]
fn values_and_listings() {
    let mds = Emulator::builder()
        .project_id("my-project")
        .email("me@my-project.iam.gserviceaccount.com")
        .scopes(["a", "b"])
        .universe_domain("example.com")
        .start_blocking()
        .unwrap();
    let body = |path: &str| {
        let (status, _, body) = get(&mds, &format!("/computeMetadata/v1/{path}"));
        assert_eq!(status, 200, "{path}");
        body
    };
    assert_eq!(body("project/project-id"), "my-project");
    assert!(body("project/numeric-project-id").parse::<u64>().is_ok());
    assert_eq!(body("universe/universe-domain"), "example.com");
    let email = body("instance/service-accounts/default/email");
    assert_eq!(email, "me@my-project.iam.gserviceaccount.com");
    assert_eq!(
        body(&format!("instance/service-accounts/{email}/scopes")),
        "a\nb\n"
    );
    assert_eq!(
        body("instance/service-accounts/default/aliases"),
        "default\n"
    );
    assert_eq!(
        body("instance/service-accounts/"),
        format!("{email}/\ndefault/\n")
    );
    let account = body("instance/service-accounts/default/?recursive=true");
    let account: Value = serde_json::from_str(&account).unwrap();
    assert_eq!(account["email"], email);
    assert_eq!(account["scopes"], serde_json::json!(["a", "b"]));
    assert_eq!(account["aliases"], serde_json::json!(["default"]));
    let project: Value = serde_json::from_str(&body("project/?recursive=true")).unwrap();
    assert_eq!(project["projectId"], "my-project");
}

#[test]
fn paths_are_taken_literally() {
    let mds = start();
    let (status, head, _) = get(&mds, ACCOUNT);
    assert_eq!(status, 301);
    assert!(
        head.contains(&format!("Location: {}{ACCOUNT}/\r\n", mds.endpoint())),
        "{head}"
    );
    for path in [
        "/computeMetadata//v1/project/project-id",
        "//computeMetadata/v1/project/project-id",
        "/computeMetadata/v1/universe/universe_domain",
        "/computeMetadata/v1/instance/service-accounts/other@x/token",
        "/computeMetadata/v1/project/project-id/",
        "/computeMetadata/v2/",
        "/nothing",
    ] {
        assert_eq!(get(&mds, path).0, 404, "{path}");
    }
    assert_eq!(get(&mds, &format!("{ACCOUNT}/identity")).0, 400);
    assert_eq!(mds.identity_requests(), 1);
}

/// The response to `identity?…`, and its claims.
fn identity(mds: &Emulator, query: &str) -> (String, Value) {
    // Asked for first, so that the key is there: on a busy machine, making it may outlast a request.
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&mds.jwks()).unwrap();
    let (status, head, body) = get(mds, &format!("{ACCOUNT}/identity?{query}"));
    assert_eq!(status, 200, "{head}");
    assert_eq!(body, body.trim(), "a bare token");
    let key = jsonwebtoken::decode_header(&body).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&key).unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::RS256);
    rules.validate_aud = false;
    rules.set_issuer(&["https://accounts.google.com"]);
    let claims = jsonwebtoken::decode::<Value>(&body, &key, &rules).unwrap();
    (body, claims.claims)
}

fn names(claims: &Value) -> Vec<&str> {
    claims
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn id_tokens_say_what_googles_say_and_verify_against_the_published_keys() {
    let mds = start();
    let (standard, claims) = identity(&mds, "audience=https%3A%2F%2Fa.run.app");
    assert_eq!(claims["aud"], "https://a.run.app");
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert!((3600..=3601).contains(&life), "{life}");
    let always = ["aud", "azp", "exp", "iat", "iss", "jti", "sub"];
    assert_eq!(names(&claims), always, "no e-mail address, as on GCE");

    let (full, claims) = identity(&mds, "audience=https%3A%2F%2Fa.run.app&format=full");
    let mut expected = [&always[..], &["email", "email_verified", "google"]].concat();
    expected.sort_unstable();
    assert_eq!(names(&claims), expected);
    let email = get(&mds, &format!("{ACCOUNT}/email")).2;
    assert_eq!(
        (&claims["email"], &claims["email_verified"]),
        (&email.into(), &true.into())
    );
    assert!(
        claims["google"]["compute_engine"]
            .get("license_id")
            .is_none()
    );
    let (licensed, claims) = identity(&mds, "audience=b&format=full&licenses=TRUE");
    assert!(claims["google"]["compute_engine"]["license_id"].is_array());

    // Cached by audience and format, like access tokens by scopes.
    assert_eq!(
        identity(&mds, "format=standard&audience=https://a.run.app").0,
        standard
    );
    assert_eq!(
        identity(&mds, "audience=https://a.run.app&format=full").0,
        full
    );
    assert_eq!(
        identity(&mds, "licenses=true&format=full&audience=b").0,
        licensed
    );
    assert!(mds.is_valid(&full));
    assert_eq!(mds.generation_of(&licensed), Some(3));
    mds.rotate();
    assert_ne!(
        identity(&mds, "audience=https://a.run.app&format=full").0,
        full
    );
    assert_eq!((mds.identity_requests(), mds.token_requests()), (7, 0));
    assert_eq!(get(&mds, &format!("{ACCOUNT}/identity?audience=")).0, 400);
}

#[test]
fn keys_are_published_where_google_does_and_are_the_emulators_own() {
    let (mds, other) = (start(), start());
    assert_ne!(mds.jwks(), other.jwks());
    let path = mds.jwks_url().replace(&mds.endpoint(), "");
    let (status, head, body) = request(&mds, "GET", &path, "");
    assert_eq!((status, &body), (200, &mds.jwks()));
    assert!(!head.contains("Metadata-Flavor"), "no metadata: {head}");
}

#[test]
fn the_server_header_says_whether_scopes_count() {
    for (honour, server) in [(true, "Serverless"), (false, "VM")] {
        let mds = Emulator::builder()
            .honour_scopes(honour)
            .start_blocking()
            .unwrap();
        let head = get(&mds, &format!("{ACCOUNT}/token")).1;
        assert!(
            head.contains(&format!("Server: Metadata Server for {server}\r\n")),
            "{head}"
        );
    }
}

#[test]
fn one_token_per_scope_set_until_it_is_reminted() {
    let mds = Emulator::builder()
        .token_lifetime(Duration::from_secs(4))
        .remint_at(Duration::from_secs(2))
        .start_blocking()
        .unwrap();
    let begun = Instant::now();
    let (first, left) = token(&mds, "");
    assert!(left <= 4);
    let (scoped, _) = token(&mds, "?scopes=a%2Cb");
    assert_ne!(scoped, first);
    assert_eq!(token(&mds, "?scopes=b,a").0, scoped);
    assert_eq!(token(&mds, "").0, first);
    assert_eq!(
        (mds.generation_of(&first), mds.generation_of(&scoped)),
        (Some(1), Some(2))
    );
    assert!(mds.is_valid(&first) && !mds.is_valid("other"));
    // It expires in real time: the emulator's clock is the machine's.
    while token(&mds, "").0 == first {
        assert!(begun.elapsed() < Duration::from_secs(4));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(mds.is_valid(&first), "what was handed out keeps its life");

    let gce = Emulator::builder()
        .honour_scopes(false)
        .start_blocking()
        .unwrap();
    assert_eq!(token(&gce, "?scopes=a").0, token(&gce, "").0);
}

#[test]
fn rotate_revoke_and_expire() {
    let mds = start();
    let (first, _) = token(&mds, "");
    mds.revoke(&first);
    assert!(!mds.is_valid(&first));
    assert_eq!(token(&mds, "").0, first, "a revoked token is answered on");
    mds.rotate();
    let (second, _) = token(&mds, "");
    assert_ne!(second, first);
    mds.expire_now();
    assert!(!mds.is_valid(&second));
    assert_ne!(token(&mds, "").0, second);
    assert_eq!(mds.token_requests(), 4);
    assert!(mds.connections() >= 4);
    assert_eq!(mds.requests().len(), 4);
    assert_eq!(mds.requests()[0].uri().path(), format!("{ACCOUNT}/token"));
    assert!(mds.requests()[0].head().ends_with(b"\r\n\r\n"));
}

#[test]
fn faults_answer_once_each_and_in_order() {
    let mds = start();
    let path = format!("{ACCOUNT}/token");
    mds.fault(Fault::status(429).retry_after("7").with_body("slow down"));
    mds.fault(Fault::body("<html>"));
    mds.fault(Fault::redirect(302, "http://evil.example/"));
    mds.fault(Fault::without_flavor());
    let (status, head, body) = get(&mds, &path);
    assert_eq!((status, body.as_str()), (429, "slow down"));
    assert!(head.contains("Retry-After: 7"));
    assert_eq!(get(&mds, &format!("{ACCOUNT}/email")).0, 200, "tokens only");
    assert_eq!(get(&mds, &path).2, "<html>");
    let (status, head, _) = get(&mds, &path);
    assert_eq!(status, 302);
    assert!(head.contains("Location: http://evil.example/"));
    let (status, head, _) = get(&mds, &path);
    assert_eq!(status, 200);
    assert!(!head.contains("Metadata-Flavor"));
    assert!(get(&mds, &path).1.contains("Metadata-Flavor: Google"));
}

#[test]
fn faults_break_connections() {
    let mds = start();
    let request = format!("GET {ACCOUNT}/token HTTP/1.1\r\nMetadata-Flavor: Google\r\n\r\n");
    mds.fault(Fault::cut_before_head());
    assert_eq!(raw(&mds, &request), "");
    mds.fault(Fault::cut_in_head());
    let cut = raw(&mds, &request);
    assert!(
        cut.starts_with("HTTP/1.1 200") && !cut.contains("\r\n\r\n"),
        "{cut}"
    );
    mds.fault(Fault::cut_in_body());
    let cut = raw(&mds, &request);
    let body = cut.split_once("\r\n\r\n").unwrap().1;
    assert!(
        cut.contains("Content-Length: 500") && body.len() == 18,
        "{cut}"
    );
    mds.fault(Fault::raw("nonsense"));
    assert_eq!(raw(&mds, &request), "nonsense");

    mds.fault(Fault::reset());
    let mut stream = TcpStream::connect(mds.addr()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    mds.fault(Fault::endless_body());
    let mut stream = TcpStream::connect(mds.addr()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_exact(&mut vec![0; 1_000_000]).unwrap();
}

#[test]
fn faults_for_a_time_and_for_ever_until_healed() {
    let mds = start();
    let path = format!("{ACCOUNT}/token");
    mds.fault(Fault::status(503).forever());
    assert!((0..20).all(|_| get(&mds, &path).0 == 503));
    mds.heal();
    assert_eq!(get(&mds, &path).0, 200);
    mds.fault(Fault::status(404).times(2).on_every_path());
    assert_eq!(
        (get(&mds, "/").0, get(&mds, &path).0, get(&mds, "/").0),
        (404, 404, 200)
    );
    mds.fault(Fault::status(500).on_path("/email"));
    mds.fault(Fault::status(502));
    assert_eq!(
        get(&mds, &format!("{ACCOUNT}/identity?audience=a")).0,
        502,
        "a token, too"
    );
    let email = format!("{ACCOUNT}/email");
    assert_eq!((get(&mds, &email).0, get(&mds, &email).0), (500, 200));
    mds.fault(Fault::status(503).for_duration(Duration::from_millis(50)));
    assert_eq!(get(&mds, &path).0, 503);
    let begun = Instant::now();
    while get(&mds, &path).0 == 503 {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn dropping_it_closes_what_hangs() {
    let mds = start();
    mds.fault(Fault::hang());
    let mut stream = TcpStream::connect(mds.addr()).unwrap();
    stream
        .write_all(
            format!("GET {ACCOUNT}/token HTTP/1.1\r\nMetadata-Flavor: Google\r\n\r\n").as_bytes(),
        )
        .unwrap();
    while mds.token_requests() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(mds.open_connections(), 1);
    let addr = mds.addr();
    drop(mds);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "closed");
    assert!(TcpStream::connect(addr).is_err(), "nobody listens");
}

#[test]
fn bad_settings_and_busy_ports_are_errors() {
    let builder = Emulator::builder;
    let error = builder()
        .token_lifetime(Duration::from_millis(999))
        .start_blocking()
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(builder().email("no-address").start_blocking().is_err());
    assert!(builder().email("a/b@c").start_blocking().is_err());
    let mds = start();
    let error = builder().bind(mds.addr()).start_blocking().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn the_metadata_client_gets_along_with_it() {
    let mds = Emulator::builder().start().await.unwrap();
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .account("default")
        .build();
    let cache = TokenCache::new(source.unwrap());
    assert_eq!(mds.token_requests(), 0);
    mds.fault(Fault::delay(Duration::from_millis(50)));
    let scopes = Scopes::new(["https://www.googleapis.com/auth/drive"]).unwrap();
    for request in [Scopes::default(), scopes].map(TokenRequest::access_token) {
        let token = cache.token(&request).await.unwrap();
        assert!(mds.is_valid(token.expose_secret()));
        assert!(!format!("{mds:?} {:?}", mds.requests()).contains(token.expose_secret()));
    }
    assert_eq!((mds.token_requests(), mds.peak_token_requests()), (2, 1));
}
