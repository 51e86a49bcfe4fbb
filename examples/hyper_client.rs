//! A hyper-util client that stamps its requests: `cargo run --example hyper_client`.
//!
//! Everything is on loopback: the metadata server is the emulator, the API a server that checks
//! tokens. On Google Cloud, `MetadataServer::new()` is all that is needed.

mod common;

use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_scoped_auth::{
    AuthError, Destinations, MetadataServer, ScopedAuthLayer, emulator::Emulator,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mds = Arc::new(Emulator::builder().start().await?);
    let api = common::serve(Arc::clone(&mds)).await?;

    let source = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
    let auth =
        ScopedAuthLayer::new(source).destinations(Destinations::only([format!("http://{api}")])?);
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let client = ServiceBuilder::new().layer(auth).service(hyper);

    for _ in 0..3 {
        let request = Request::get(format!("http://{api}/bucket")).body(Empty::new())?;
        let response = client.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{status}, token no. {}", String::from_utf8_lossy(&body));
    }
    println!("token requests: {}", mds.token_requests());

    // The token does not go anywhere else.
    let elsewhere = Request::get("https://example.com/").body(Empty::new())?;
    match client.oneshot(elsewhere).await {
        Err(error) if error.downcast_ref().is_some_and(AuthError::is_destination) => {
            println!("refused: {error}");
            Ok(())
        }
        Err(error) => Err(error),
        Ok(_) => Err("the token left for example.com".into()),
    }
}
