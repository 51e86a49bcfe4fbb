//! ID tokens over real sockets: from the metadata server to services that verify them.
//!
//! The metadata server is the emulator, whose tokens verify against its published keys; or, where it has
//! to misbehave, one that sends what a test says. The services are axum's, one port each, as Cloud Run
//! services have one origin each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::time::{Duration, SystemTime};

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use support::{FakeMds, Inner, Reply, auth_error, send};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};
use tower_scoped_auth::{
    Audience, AuthError, Destinations, MetadataServer, ScopedAuth, ScopedAuthLayer, Scopes, Token,
    TokenCache, TokenRequest,
    emulator::{Emulator, EmulatorBuilder, Fault},
    test_util::TestClock,
};

type Hyper = Client<HttpConnector, Empty<Bytes>>;

fn hyper() -> Hyper {
    Client::builder(TokioExecutor::new()).build_http()
}

fn source(mds: &Emulator) -> MetadataServer {
    MetadataServer::builder()
        .endpoint(mds.endpoint())
        .build()
        .unwrap()
}

/// An emulator that has made its key. That is slow on machines that run many tests at once, and these
/// tests count requests, none of which may time out.
fn emulator(builder: EmulatorBuilder) -> Emulator {
    let mds = builder.start_blocking().unwrap();
    mds.jwks();
    mds
}

/// A cache that does not time out, for the same reason.
fn patient(source: MetadataServer) -> TokenCache {
    const LONG: Duration = Duration::from_secs(120);
    let cache = TokenCache::builder(source)
        .attempt_timeout(LONG)
        .max_wait(LONG);
    cache.build().unwrap()
}

/// A service that accepts ID tokens for its own origin, from Google's issuer, that verify against the
/// keys published at `jwks_url`. Answers with the token's e-mail address, or 401 and the reason.
async fn service(jwks_url: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let audience = origin.clone();
    let app = Router::new().fallback(move |headers: HeaderMap| {
        let (jwks_url, audience) = (jwks_url.clone(), audience.clone());
        async move {
            match verify(&headers, &jwks_url, &audience).await {
                Ok(email) => (StatusCode::OK, email),
                Err(reason) => (StatusCode::UNAUTHORIZED, reason.to_string()),
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    origin
}

async fn verify(headers: &HeaderMap, jwks_url: &str, audience: &str) -> Result<String, BoxError> {
    let token = headers.get(AUTHORIZATION).ok_or("no token")?.to_str()?;
    let token = token.strip_prefix("Bearer ").ok_or("no bearer token")?;
    let keys = hyper().get(jwks_url.parse()?).await?;
    let keys: JwkSet = serde_json::from_slice(&keys.into_body().collect().await?.to_bytes())?;
    let kid = jsonwebtoken::decode_header(token)?.kid.ok_or("no kid")?;
    let key = DecodingKey::from_jwk(keys.find(&kid).ok_or("unknown key")?)?;
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&[audience]);
    rules.set_issuer(&["https://accounts.google.com"]);
    rules.set_required_spec_claims(&["aud", "exp", "iss"]);
    let claims = jsonwebtoken::decode::<serde_json::Value>(token, &key, &rules)?.claims;
    Ok(claims["email"]
        .as_str()
        .ok_or("no e-mail address")?
        .to_owned())
}

async fn get(client: &ScopedAuth<Hyper>, uri: &str) -> Result<(u16, String), BoxError> {
    let request = Request::get(uri).body(Empty::new())?;
    answer(client.clone().oneshot(request).await?).await
}

async fn answer<B>(response: http::Response<B>) -> Result<(u16, String), BoxError>
where
    B: hyper::body::Body,
    B::Error: Into<BoxError>,
{
    let status = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(Into::into)?
        .to_bytes();
    Ok((status, String::from_utf8(body.to_vec())?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_many_services_one_verified_token_each() {
    let mds = emulator(Emulator::builder().email("me@p.iam.gserviceaccount.com"));
    let mut origins = Vec::new();
    for _ in 0..4 {
        origins.push(service(mds.jwks_url()).await);
    }
    let cache = patient(source(&mds));
    let (forbidden, allowed) = origins.split_last().unwrap();
    let client = ScopedAuthLayer::from_cache(cache.clone())
        .audience(Audience::per_origin())
        .destinations(Destinations::only(allowed).unwrap())
        .layer(hyper());

    let requests = (0..60).map(|n| {
        let (client, origin) = (client.clone(), origins[n % 3].clone());
        tokio::spawn(async move { get(&client, &format!("{origin}/{n}?x=y")).await })
    });
    for request in requests.collect::<Vec<_>>() {
        let (status, body) = request.await.unwrap().unwrap();
        assert_eq!((status, &*body), (200, "me@p.iam.gserviceaccount.com"));
    }
    assert_eq!(mds.identity_requests(), 3, "one per origin");
    assert_eq!(cache.len(), 3);

    let error = get(&client, forbidden).await.unwrap_err();
    assert!(auth_error(&error).is_destination(), "{error}");
    assert_eq!(
        (mds.identity_requests(), cache.len()),
        (3, 3),
        "nothing was asked"
    );
    let uris: Vec<String> = mds.requests().iter().map(|r| r.uri().to_string()).collect();
    for origin in allowed {
        let encoded = origin.replace(':', "%3A").replace('/', "%2F");
        let asked = format!("/identity?audience={encoded}&format=full");
        assert_eq!(
            uris.iter().filter(|uri| uri.ends_with(&asked)).count(),
            1,
            "{uris:?}"
        );
    }
}

#[tokio::test]
async fn a_token_for_one_service_is_refused_by_another_and_by_strangers() {
    let mds = emulator(Emulator::builder());
    let stranger = emulator(Emulator::builder());
    let (a, b) = (
        service(mds.jwks_url()).await,
        service(stranger.jwks_url()).await,
    );
    let client = |audience: &str| {
        ScopedAuthLayer::from_cache(patient(source(&mds)))
            .audience(Audience::new(audience).unwrap())
            .destinations(Destinations::only([&a, &b]).unwrap())
            .layer(hyper())
    };
    assert_eq!(get(&client(&a), &a).await.unwrap().0, 200);
    let wrong = get(&client("https://other.run.app"), &a).await.unwrap();
    assert_eq!(wrong, (401, "InvalidAudience".to_owned()));
    assert_eq!(
        get(&client(&b), &b).await.unwrap(),
        (401, "unknown key".to_owned())
    );
    // Without the e-mail address, as Identity-Aware Proxy would see it.
    let standard = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .standard_id_tokens();
    let client = ScopedAuthLayer::from_cache(patient(standard.build().unwrap()))
        .audience(Audience::per_origin())
        .destinations(Destinations::only([&a]).unwrap())
        .layer(hyper());
    assert_eq!(
        get(&client, &a).await.unwrap(),
        (401, "no e-mail address".to_owned())
    );
}

#[tokio::test]
async fn s165_a_request_brings_its_own_audience_or_scopes_over_real_sockets() {
    let mds = emulator(Emulator::builder());
    let (a, b) = (service(mds.jwks_url()).await, service(mds.jwks_url()).await);
    let client = ScopedAuthLayer::from_cache(patient(source(&mds)))
        .audience(Audience::new(&a).unwrap())
        .destinations(Destinations::only([&a, &b]).unwrap())
        .layer(hyper());
    let send = async |uri: &str, change: &dyn Fn(&mut http::Extensions)| {
        let mut request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        change(request.extensions_mut());
        let response = client.clone().oneshot(request).await.unwrap();
        answer(response).await.unwrap()
    };
    assert_eq!(send(&a, &|_| {}).await.0, 200);
    assert_eq!(send(&b, &|_| {}).await, (401, "InvalidAudience".to_owned()));
    let own = Audience::new(&b).unwrap();
    assert_eq!(send(&b, &|e| drop(e.insert(own.clone()))).await.0, 200);
    assert_eq!(
        send(&b, &|e| drop(e.insert(Audience::per_origin())))
            .await
            .0,
        200
    );
    assert_eq!(
        mds.identity_requests(),
        2,
        "the origin and its text are one audience"
    );
    // An access token is not a JWT.
    let scopes = Scopes::new(["https://www.googleapis.com/auth/drive"]).unwrap();
    let (status, reason) = send(&b, &|e| drop(e.insert(scopes.clone()))).await;
    assert_eq!((status, mds.token_requests()), (401, 1), "{reason}");
    let asked = mds.requests().iter().any(|request| {
        request.uri().query() == Some("scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdrive")
    });
    assert!(asked);
}

/// `reqwest::Request` gives no access to its extensions. An `http::Request` in front of it does.
#[tokio::test]
async fn s165_requests_of_reqwest_choose_as_http_requests() {
    support::crypto_provider();
    let mds = emulator(Emulator::builder());
    let (a, b) = (service(mds.jwks_url()).await, service(mds.jwks_url()).await);
    let auth = ScopedAuthLayer::from_cache(patient(source(&mds)))
        .audience(Audience::new(&a).unwrap())
        .destinations(Destinations::only([&a, &b]).unwrap());
    let reqwest = || reqwest::Client::builder().no_proxy().build().unwrap();

    let plain = ServiceBuilder::new().layer(auth.clone()).service(reqwest());
    let request = reqwest::Request::new(reqwest::Method::GET, a.parse().unwrap());
    assert_eq!(plain.oneshot(request).await.unwrap().status(), 200);

    let choosing = ServiceBuilder::new()
        .layer(auth)
        .filter(|request: Request<reqwest::Body>| {
            reqwest::Request::try_from(request).map_err(BoxError::from)
        })
        .service(reqwest());
    let request = Request::get(&b)
        .extension(Audience::new(&b).unwrap())
        .body(reqwest::Body::default())
        .unwrap();
    assert_eq!(choosing.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(mds.identity_requests(), 2);
}

#[tokio::test]
async fn s167_origins_are_bounded_like_all_keys() {
    let mds = emulator(Emulator::builder());
    let cache = TokenCache::builder(source(&mds))
        .attempt_timeout(Duration::from_secs(120))
        .max_tokens(8)
        .build()
        .unwrap();
    let inner = Inner::new();
    let client = ScopedAuthLayer::from_cache(cache.clone())
        .audience(Audience::per_origin())
        .destinations(Destinations::only(["https://*.run.app"]).unwrap())
        .layer(inner.clone());
    for n in 0..40 {
        send(&client, &format!("https://s{n}.run.app/"))
            .await
            .unwrap();
        send(&client, &format!("https://s{n}.elsewhere.app/"))
            .await
            .unwrap_err();
        assert!(cache.len() <= 8);
    }
    let tokens = inner.tokens();
    assert_eq!(tokens.len(), 40);
    for (n, token) in tokens.iter().enumerate() {
        assert_eq!(
            claims(token)["aud"],
            format!("https://s{n}.run.app"),
            "its own token"
        );
    }
    assert_eq!(mds.identity_requests(), 40);
}

fn claims(token: &str) -> serde_json::Value {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap());
    serde_json::from_slice(&claims.unwrap()).unwrap()
}

/// A JWT with a made-up signature that expires this many seconds after the start of 1970.
fn jwt(name: &str, exp: u64) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"alg":"RS256","typ":"JWT"}"#);
    format!(
        "{header}.{}.{}",
        part(&format!(r#"{{"exp":{exp}}}"#)),
        part(name)
    )
}

fn in_seconds(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs() + seconds
}

fn wanted() -> TokenRequest {
    TokenRequest::id_token(Audience::new("https://a.run.app").unwrap())
}

/// The first attempt's failure, as health checks see it; nobody waits for a second attempt.
async fn first_failure(cache: &TokenCache) -> AuthError {
    let first = cache.token(&wanted()).now_or_never();
    assert!(first.is_none(), "it has to be fetched");
    loop {
        if let Some(error) = cache.status(&wanted()).last_error() {
            return error.clone();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_newline_after_the_token_is_not_part_of_it() {
    let token = jwt("a", in_seconds(3600));
    let body = format!("{token}\n");
    let mds = FakeMds::start(move |_| Reply::ok(&body));
    let cache = patient(mds.source());
    let got = cache.token(&wanted()).await.unwrap();
    assert_eq!(got.expose_secret(), token);
    let status = cache.status(&wanted());
    let left = status.expires_in().unwrap().as_secs();
    assert!((3500..=3600).contains(&left), "{left}");
    let head = &mds.requests()[0];
    let line = "GET /computeMetadata/v1/instance/service-accounts/default/identity?\
                audience=https%3A%2F%2Fa.run.app&format=full HTTP/1.1\r\n";
    assert!(head.starts_with(line), "{head}");
}

#[tokio::test]
async fn licences_are_asked_for_where_the_builder_says_so() {
    let mds = emulator(Emulator::builder());
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .licenses(true);
    let cache = patient(source.build().unwrap());
    let token = cache.token(&wanted()).await.unwrap();
    let claims = claims(token.expose_secret());
    assert!(claims["google"]["compute_engine"]["license_id"].is_array());
}

#[tokio::test]
async fn s133_refusals_say_what_to_do_and_never_what_came() {
    for (status, says) in [
        (400, "audience"),
        (403, "workloadIdentityUser"),
        (404, "iam.gke.io/gcp-service-account"),
        (500, "iam.gke.io/gcp-service-account"),
    ] {
        let mds = FakeMds::start(move |_| Reply::status(status, "", "some-secret-in-a-body"));
        let error = first_failure(&patient(mds.source())).await;
        let text = format!("{error} {error:?}");
        assert_eq!(error.status(), Some(status));
        assert!(
            text.contains(says) && text.contains("https://a.run.app"),
            "{text}"
        );
        assert!(!text.contains("some-secret"), "{text}");
        assert!(error.is_transient(), "no status is terminal");
    }
    let expired = jwt("some-secret", in_seconds(0) - 60);
    let long = jwt(&"x".repeat(9_000), in_seconds(60));
    let bodies = [
        "ya29.some-secret-access-token".to_owned(),
        r#"{"access_token":"some-secret","expires_in":3599,"token_type":"Bearer"}"#.to_owned(),
        "<html>some-secret</html>".to_owned(),
        String::new(),
        expired,
        long,
    ];
    for body in bodies {
        let served = body.clone();
        let mds = FakeMds::start(move |_| Reply::ok(&served));
        let error = first_failure(&patient(mds.source())).await;
        let text = format!("{error} {error:?}");
        assert!(error.is_response(), "{text}");
        assert!(
            !text.contains("some-secret") && !text.contains("eyJ"),
            "{text}"
        );
        assert!(!text.contains("xxxx"), "{text}");
    }
}

#[tokio::test]
async fn a_bad_answer_costs_no_live_token_and_heals() {
    let mds = emulator(Emulator::builder());
    let cache = patient(source(&mds));
    mds.fault(Fault::status(404));
    mds.fault(Fault::body("nonsense"));
    // Two failed attempts, then a token, for the request that waited.
    let first = cache.token(&wanted()).await.unwrap();
    assert_eq!(mds.identity_requests(), 3);
    assert!(mds.is_valid(first.expose_secret()));
    assert!(cache.invalidate(&first));
    mds.rotate();
    let second = cache.token(&wanted()).await.unwrap();
    assert_ne!(first.expose_secret(), second.expose_secret());
}

#[tokio::test]
async fn s106_an_id_token_ends_with_its_exp_when_the_machine_slept() {
    let mds = FakeMds::start(|n| Reply::ok(jwt(&n.to_string(), in_seconds(3600 * n as u64))));
    let clock = TestClock::new();
    let cache = TokenCache::builder(mds.source())
        .clock(clock.clone())
        .build()
        .unwrap();
    let first = cache.token(&wanted()).await.unwrap();
    assert_eq!(
        cache.token(&wanted()).await.unwrap().expose_secret(),
        first.expose_secret()
    );
    clock.suspend(Duration::from_secs(3601));
    assert!(cache.status(&wanted()).expires_in().is_none());
    let second = cache.token(&wanted()).await.unwrap();
    assert_ne!(second.expose_secret(), first.expose_secret());
    assert_eq!(mds.connections(), 2);
}

#[tokio::test]
async fn s105_a_slow_wall_clock_prolongs_no_id_token() {
    // By the server's clock the token has a minute left; by ours, which is two hours slow, two hours.
    let reply = |n: usize| {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let date = format!("Date: {date}\r\n");
        Reply::status(200, &date, jwt(&n.to_string(), in_seconds(60)))
    };
    let mds = FakeMds::start(reply);
    let clock = TestClock::new();
    clock.set_wall(SystemTime::now() - Duration::from_secs(7200));
    let cache = TokenCache::builder(mds.source())
        .clock(clock)
        .build()
        .unwrap();
    let first = cache.token(&wanted()).await.unwrap();
    let left = cache.status(&wanted()).expires_in().unwrap();
    assert!(left <= Duration::from_secs(60), "{left:?}");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(cache.status(&wanted()).expires_in().is_none());
    tokio::time::resume();
    let second = cache.token(&wanted()).await.unwrap();
    assert_ne!(second.expose_secret(), first.expose_secret());
}

#[tokio::test]
async fn an_audience_without_an_origin_is_refused_before_anything_is_asked() {
    let mds = FakeMds::healthy();
    let request = TokenRequest::id_token(Audience::per_origin());
    let error = patient(mds.source()).token(&request).await.unwrap_err();
    assert!(error.to_string().contains("per_origin"), "{error}");
    let direct: Result<Token, AuthError> =
        tower_scoped_auth::TokenSource::fetch(&mds.source(), request).await;
    assert!(direct.unwrap_err().to_string().contains("per_origin"));
    assert_eq!(mds.connections(), 0);
}
