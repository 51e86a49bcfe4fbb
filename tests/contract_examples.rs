//! The contract: what users write must compile as it stands, and run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::HeaderMap};
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::crypto_provider;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_scoped_auth::{
    Audience, Destinations, MetadataServer, RetryUnauthorized, ScopedAuthLayer, Scopes, Token,
    TokenCache, TokenRequest, TokenState, emulator::Emulator, source, test_util::TestClock,
};

type Done = Result<(), BoxError>;

const READ_ONLY: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// Answers 200 to a valid token, and 401 to anything else.
async fn api(mds: &Arc<Emulator>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mds = Arc::clone(mds);
    let app = Router::new().fallback(move |headers: HeaderMap| {
        let token = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let valid = token.and_then(|value| value.strip_prefix("Bearer "));
        let valid = valid.is_some_and(|token| mds.is_valid(token));
        async move {
            if valid {
                StatusCode::OK
            } else {
                StatusCode::UNAUTHORIZED
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    addr
}

fn emulated(mds: &Emulator) -> MetadataServer {
    MetadataServer::builder()
        .endpoint(mds.endpoint())
        .build()
        .unwrap()
}

#[tokio::test]
async fn example_1_reqwest() -> Done {
    crypto_provider();
    let mds = Arc::new(Emulator::builder().start().await?);
    let addr = api(&mds).await;
    // As written, but without the requests, because the destination is a real host.
    let auth = ScopedAuthLayer::new(MetadataServer::from_env()?).scopes(Scopes::new([READ_ONLY])?);
    let _client = ServiceBuilder::new()
        .layer(auth)
        .service(reqwest::Client::new());

    let auth = ScopedAuthLayer::new(emulated(&mds))
        .scopes(Scopes::new([READ_ONLY])?)
        .destinations(Destinations::only([format!("http://{addr}")])?);
    let client = ServiceBuilder::new()
        .layer(auth)
        .service(reqwest::Client::new());
    let request = reqwest::Request::new(reqwest::Method::GET, format!("http://{addr}/").parse()?);
    let response = client.clone().oneshot(request).await?;
    assert_eq!(response.status(), 200);
    let uri = mds.requests()[0].uri().to_string();
    assert!(
        uri.ends_with(
            "/token?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdevstorage.read_only"
        )
    );
    Ok(())
}

#[tokio::test]
async fn example_2_hyper_util() -> Done {
    let _as_written = ScopedAuthLayer::new(MetadataServer::new())
        .destinations(Destinations::google_apis().and(["https://*.run.app/"])?);
    let mds = Arc::new(Emulator::builder().start().await?);
    let addr = api(&mds).await;
    let hyper_util_legacy_client =
        Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let auth = ScopedAuthLayer::new(emulated(&mds)).destinations(Destinations::only([
        "https://*.run.app".to_owned(),
        format!("http://{addr}"),
    ])?);
    let client = ServiceBuilder::new()
        .layer(auth)
        .service(hyper_util_legacy_client);
    let request = http::Request::get(format!("http://{addr}/")).body(Empty::new())?;
    let response = client.clone().oneshot(request).await?;
    assert_eq!(response.status(), 200);
    response.into_body().collect().await?;
    Ok(())
}

#[tokio::test]
async fn example_3_a_closure() -> Done {
    let auth = ScopedAuthLayer::new(source::from_fn(|request: TokenRequest| async move {
        let _ = request;
        Ok::<_, std::io::Error>(Token::new("secret", std::time::Duration::from_secs(3600)))
    }));
    let client =
        ServiceBuilder::new()
            .layer(auth)
            .service_fn(|request: http::Request<()>| async move {
                assert_eq!(request.headers()["authorization"], "Bearer secret");
                Ok::<_, std::convert::Infallible>(http::Response::new(()))
            });
    client
        .oneshot(http::Request::get("https://storage.googleapis.com/").body(())?)
        .await?;
    Ok(())
}

#[tokio::test]
async fn example_4_one_cache() -> Done {
    let mds = Emulator::builder().start().await?;
    let cache = TokenCache::new(emulated(&mds));
    let _storage = ScopedAuthLayer::from_cache(cache.clone()).scopes(Scopes::new([
        "https://www.googleapis.com/auth/devstorage.read_write",
    ])?);
    let _run = ScopedAuthLayer::from_cache(cache.clone())
        .audience(Audience::new("https://my-service-abc.a.run.app")?)
        .destinations(Destinations::only(["https://*.a.run.app"])?);
    let request = TokenRequest::access_token(Scopes::default());
    let token = cache.token(&request).await?;
    assert!(mds.is_valid(token.expose_secret()));
    assert!(!format!("{token:?}").contains(token.expose_secret()));
    assert_eq!(cache.status(&request).state(), TokenState::Fresh);
    assert!(cache.status(&request).expires_in().unwrap() > Duration::from_secs(3500));
    assert!(cache.invalidate(&token));
    assert!(
        !cache.invalidate(&token),
        "only if it is still the current one"
    );
    let status = cache.status(&request);
    assert_eq!(status.state(), TokenState::Empty);
    assert!(status.last_error().is_none() && status.failing_since().is_none());
    Ok(())
}

#[tokio::test]
async fn example_5_the_emulator() -> Done {
    let mds = Emulator::builder()
        .token_lifetime(std::time::Duration::from_secs(3600))
        .start()
        .await?;
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .account("default")
        .build()?;
    assert_eq!(mds.token_requests(), 0);
    TokenCache::new(source)
        .token(&TokenRequest::access_token(Scopes::default()))
        .await?;
    assert_eq!(mds.token_requests(), 1);
    Ok(())
}

#[tokio::test]
async fn example_6_one_retry_after_a_401() -> Done {
    let mds = Arc::new(Emulator::builder().start().await?);
    let addr = api(&mds).await;
    let auth = ScopedAuthLayer::new(emulated(&mds))
        .destinations(Destinations::only([format!("http://{addr}")])?);
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let client = ServiceBuilder::new()
        .retry(RetryUnauthorized::new())
        .layer(auth)
        .service(client);
    let get = || {
        http::Request::get(format!("http://{addr}/"))
            .body(Empty::new())
            .unwrap()
    };
    assert_eq!(client.clone().oneshot(get()).await?.status(), 200);
    mds.expire_now();
    assert_eq!(client.clone().oneshot(get()).await?.status(), 200);
    assert_eq!(mds.token_requests(), 2);
    Ok(())
}

#[test]
fn example_9_the_check_by_itself() -> Done {
    let uri = "https://storage.googleapis.com/bucket".parse()?;
    Destinations::google_apis().check(&uri)?;
    let elsewhere = "https://storage.example/bucket".parse()?;
    let error = Destinations::google_apis().check(&elsewhere).unwrap_err();
    assert!(error.is_destination());
    Ok(())
}

#[tokio::test]
async fn example_7_no_host_at_this_level() -> Done {
    let mds = Emulator::builder().start().await?;
    let auth = ScopedAuthLayer::new(MetadataServer::new())
        .destinations(Destinations::inner_origin("https://pubsub.googleapis.com")?);
    let any = Destinations::danger_trust_inner();
    let _as_written = auth.destinations(any);
    let auth = ScopedAuthLayer::new(emulated(&mds))
        .destinations(Destinations::inner_origin("https://pubsub.googleapis.com")?);
    let client =
        ServiceBuilder::new()
            .layer(auth)
            .service_fn(|request: http::Request<()>| async move {
                assert!(request.headers()["authorization"].is_sensitive());
                Ok::<_, std::convert::Infallible>(http::Response::new(()))
            });
    client
        .oneshot(http::Request::post("/grpc.health.v1.Health/Check").body(())?)
        .await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn example_8_time_in_tests() -> Done {
    let source = source::from_fn(|_: TokenRequest| async {
        Ok::<_, std::io::Error>(Token::new("secret", Duration::from_secs(3600)))
    });
    let clock = TestClock::new();
    let cache = TokenCache::builder(source).clock(clock.clone()).build()?;
    let request = TokenRequest::access_token(Scopes::default());
    cache.token(&request).await?;
    clock.suspend(std::time::Duration::from_secs(7200));
    assert_eq!(cache.status(&request).state(), TokenState::Expired);
    cache.token(&request).await?;
    clock.set_wall(std::time::SystemTime::UNIX_EPOCH);
    assert_eq!(cache.status(&request).state(), TokenState::Fresh);
    Ok(())
}
