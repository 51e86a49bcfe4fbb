//! A reqwest client that stamps its requests: `cargo run --example reqwest_client`.
//!
//! `reqwest::Client` is a Tower service; the layer goes around it. Everything is on loopback, as in
//! `hyper_client`.

mod common;

use std::sync::Arc;

use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_scoped_auth::{
    Destinations, MetadataServer, RetryUnauthorized, ScopedAuthLayer, Scopes, emulator::Emulator,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mds = Arc::new(Emulator::builder().start().await?);
    let api = common::serve(Arc::clone(&mds)).await?;

    let source = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
    let auth = ScopedAuthLayer::new(source)
        .scopes(Scopes::new([
            "https://www.googleapis.com/auth/devstorage.read_only",
        ])?)
        .destinations(Destinations::only([format!("http://{api}")])?);
    let mut client = ServiceBuilder::new()
        // Retries once, with another token, if the token was refused.
        .retry(RetryUnauthorized::new())
        .layer(auth)
        .service(reqwest::Client::new());

    let url: reqwest::Url = format!("http://{api}/bucket").parse()?;
    let get = || reqwest::Request::new(reqwest::Method::GET, url.clone());
    let response = client.ready().await?.call(get()).await?;
    println!(
        "{}, token no. {}",
        response.status(),
        response.text().await?
    );

    // The token is revoked: the server answers 401, and the retry carries a new one.
    mds.expire_now();
    let response = client.ready().await?.call(get()).await?;
    println!(
        "{}, token no. {}, after a retry",
        response.status(),
        response.text().await?
    );
    println!("token requests: {}", mds.token_requests());
    Ok(())
}
