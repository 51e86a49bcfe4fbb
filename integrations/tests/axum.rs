//! axum as the caller's server: its handlers call an API with the stamped client in their state.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tower::{BoxError, Layer, ServiceExt};
use tower_scoped_auth::{
    AuthError, Destinations, MetadataServer, ScopedAuth, ScopedAuthLayer, Scopes, TokenCache,
    TokenRequest, emulator::Emulator,
};
use tower_scoped_auth_integrations::api;

type Upstream = ScopedAuth<Client<HttpConnector, Body>>;

#[derive(Clone)]
struct App {
    upstream: Upstream,
    origin: Arc<str>,
    tokens: TokenCache,
}

/// Fetches from the API. Failing to get a token is the gateway's fault, not the caller's.
async fn bucket(State(app): State<App>) -> Result<Response, (StatusCode, String)> {
    let gone = |error: BoxError| match error.downcast_ref::<AuthError>() {
        Some(auth) if auth.is_transient() => (StatusCode::SERVICE_UNAVAILABLE, auth.to_string()),
        _ => (StatusCode::BAD_GATEWAY, error.to_string()),
    };
    let uri: Uri = format!("{}/bucket", app.origin)
        .parse()
        .map_err(|error: http::uri::InvalidUri| gone(error.into()))?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    // A clone per request: cheap, and each has its own readiness.
    let response = app.upstream.clone().oneshot(request).await.map_err(gone)?;
    Ok(response.into_response())
}

async fn health(State(app): State<App>) -> Json<Value> {
    let status = app
        .tokens
        .status(&TokenRequest::access_token(Scopes::default()));
    Json(json!({ "token": status.is_live(), "generation": status.generation() }))
}

struct Stage {
    mds: Arc<Emulator>,
    front: String,
}

async fn stage() -> Result<Stage, BoxError> {
    let mds = Arc::new(Emulator::builder().start().await?);
    let origin = api::serve(
        &mds,
        Router::new().route("/bucket", get(|| async { "objects" })),
    )
    .await?;
    let tokens = TokenCache::new(MetadataServer::builder().endpoint(mds.endpoint()).build()?);
    let auth =
        ScopedAuthLayer::from_cache(tokens.clone()).destinations(Destinations::only([&origin])?);
    let app = App {
        upstream: auth.layer(Client::builder(TokioExecutor::new()).build_http()),
        origin: origin.into(),
        tokens,
    };
    let front = Router::new()
        .route("/", get(bucket))
        .route("/health", get(health))
        .with_state(app);
    let front = api::open(front).await?;
    Ok(Stage { mds, front })
}

async fn ask(url: String) -> Result<(u16, String), BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let response = client.get(url.parse()?).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[tokio::test]
async fn handlers_share_one_token() -> Result<(), BoxError> {
    let Stage { mds, front } = stage().await?;
    let cold = ask(format!("{front}/health")).await?;
    assert_eq!(cold, (200, r#"{"generation":0,"token":false}"#.to_owned()));

    let answers = join_all((0..100).map(|_| ask(front.clone()))).await;
    for answer in answers {
        assert_eq!(answer?, (200, "objects".to_owned()));
    }
    assert_eq!(mds.token_requests(), 1);

    let warm = ask(format!("{front}/health")).await?;
    assert_eq!(warm, (200, r#"{"generation":1,"token":true}"#.to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_401_from_the_api_costs_one_request() -> Result<(), BoxError> {
    let Stage { mds, front } = stage().await?;
    assert_eq!(ask(front.clone()).await?.0, 200);
    mds.expire_now();
    // The 401 is passed on; the next request waits for another token.
    assert_eq!(ask(front.clone()).await?.0, 401);
    assert_eq!(ask(front).await?, (200, "objects".to_owned()));
    Ok(())
}
