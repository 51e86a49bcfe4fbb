//! One client, two services, an ID token for each: `cargo run --example id_token`.
//!
//! The services stand in for Cloud Run's: each accepts only tokens that were made for its own URL, and
//! verifies them as it would there, against the issuer's published keys. Everything is on loopback;
//! the issuer is the emulator. On Google Cloud, the keys are at
//! `https://www.googleapis.com/oauth2/v3/certs`, and `MetadataServer::new()` is all that is needed.

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::Value;
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_scoped_auth::{
    Audience, AuthError, Destinations, MetadataServer, ScopedAuth, ScopedAuthLayer,
    emulator::Emulator,
};

type Hyper = Client<HttpConnector, Empty<Bytes>>;

fn hyper() -> Hyper {
    Client::builder(TokioExecutor::new()).build_http()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mds = Emulator::builder().start().await?;
    let orders = service("orders", mds.jwks_url()).await?;
    let stock = service("stock", mds.jwks_url()).await?;

    let source = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
    let auth = ScopedAuthLayer::new(source)
        .audience(Audience::per_origin())
        .destinations(Destinations::only([&orders, &stock])?);
    let client = ServiceBuilder::new().layer(auth).service(hyper());

    for url in [&orders, &stock, &orders] {
        let (status, body) = call(&client, url, None).await?;
        println!("{status} {body}");
        expect(status == StatusCode::OK, "a token for its own URL is taken")?;
    }
    println!("ID tokens fetched: {}", mds.identity_requests());
    expect(mds.identity_requests() == 2, "one token per service")?;

    // A token for one service is of no use at the other, as a request that chooses the wrong one shows.
    let (status, body) = call(&client, &stock, Some(Audience::new(&orders)?)).await?;
    println!("{status} {body}");
    expect(
        status == StatusCode::UNAUTHORIZED,
        "a token for another URL is refused",
    )?;

    // And no token goes where none should.
    match call(&client, "http://127.0.0.1:1/", None).await {
        Err(error) if error.downcast_ref().is_some_and(AuthError::is_destination) => {
            println!("refused: {error}");
            Ok(())
        }
        Err(error) => Err(error),
        Ok(_) => Err("a token left for somewhere else".into()),
    }
}

async fn call(
    client: &ScopedAuth<Hyper>,
    url: &str,
    audience: Option<Audience>,
) -> Result<(StatusCode, String), BoxError> {
    let mut request = http::Request::get(url).body(Empty::new())?;
    if let Some(audience) = audience {
        request.extensions_mut().insert(audience);
    }
    let response = client.clone().oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Starts a service and returns its URL. It lives until the runtime ends.
async fn service(name: &'static str, jwks_url: String) -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let own_url = url.clone();
    let app = Router::new().fallback(move |headers: HeaderMap| {
        let (jwks_url, own_url) = (jwks_url.clone(), own_url.clone());
        async move {
            match verify(&headers, &jwks_url, &own_url).await {
                Ok(email) => (StatusCode::OK, format!("{name}: welcome, {email}")),
                Err(why) => (StatusCode::UNAUTHORIZED, format!("{name}: no, {why}")),
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

/// Checks signature, issuer, audience and expiry. A real service keeps the keys for as long as
/// `Cache-Control` says.
async fn verify(headers: &HeaderMap, jwks_url: &str, own_url: &str) -> Result<String, BoxError> {
    let header = headers.get(AUTHORIZATION).ok_or("a token is missing")?;
    let token = header
        .to_str()?
        .strip_prefix("Bearer ")
        .ok_or("not a bearer token")?;
    let keys = hyper()
        .get(jwks_url.parse()?)
        .await?
        .into_body()
        .collect()
        .await?
        .to_bytes();
    let keys: JwkSet = serde_json::from_slice(&keys)?;
    let kid = jsonwebtoken::decode_header(token)?
        .kid
        .ok_or("no key is named")?;
    let key = DecodingKey::from_jwk(keys.find(&kid).ok_or("the key is unknown")?)?;
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_issuer(&["https://accounts.google.com"]);
    rules.set_audience(&[own_url]);
    rules.set_required_spec_claims(&["aud", "exp", "iss"]);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &rules)?.claims;
    let email = claims.get("email").and_then(Value::as_str);
    Ok(email.ok_or("it names no e-mail address")?.to_owned())
}

fn expect(held: bool, what: &str) -> Result<(), BoxError> {
    match held {
        true => Ok(()),
        false => Err(format!("not so: {what}").into()),
    }
}
