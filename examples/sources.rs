//! One program for Google Cloud and for a laptop: `cargo run --example sources`.
//!
//! The metadata server where there is one, else `gcloud`, else a token from a file, else a fixed one.
//! Here, on loopback: first there is no metadata server, then there is one.

use std::{path::PathBuf, time::Duration};

use http::{Request, Response};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_scoped_auth::{
    MetadataServer, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, TokenSource,
    emulator::Emulator,
    source,
    sources::{FirstOf, Fixed, GcloudCli, TokenFile},
};

/// What a program would write: sources that exist in different places, in order.
fn somewhere(metadata_server: &str, gcloud: &str) -> Result<FirstOf, BoxError> {
    let metadata_server = MetadataServer::builder()
        .endpoint(metadata_server)
        .build()?;
    let gcloud = GcloudCli::builder().program(gcloud).build()?;
    let file = TokenFile::new(PathBuf::from("/var/run/secrets/no-such-folder/token"));
    Ok(FirstOf::new(metadata_server)
        .or(gcloud)
        .or(file)
        .or(Fixed::new("for-development")))
}

async fn send_one(source: impl TokenSource) -> Result<(), BoxError> {
    let cache = TokenCache::new(source);
    let request = TokenRequest::access_token(Scopes::default());
    println!(
        "  asked for: {request}; source: {}",
        cache.status(&request).source()
    );

    // Any client; this one shows whether there is a token, but never the token.
    let api = service_fn(|request: Request<()>| async move {
        let stamped = request.headers().contains_key(http::header::AUTHORIZATION);
        println!("  {} stamped: {stamped}", request.uri());
        Ok::<_, BoxError>(Response::new(()))
    });
    let client = ServiceBuilder::new()
        .layer(ScopedAuthLayer::from_cache(cache.clone()))
        .service(api);
    client
        .oneshot(Request::get("https://storage.googleapis.com/bucket").body(())?)
        .await?;
    println!("  answered by: {}", cache.status(&request).source());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    println!("nothing there:");
    // Nobody listens on the discard port, and no program is called `no-such-gcloud`.
    send_one(somewhere("127.0.0.1:9", "no-such-gcloud")?).await?;

    println!("a metadata server:");
    let mds = Emulator::builder().start().await?;
    send_one(somewhere(&mds.endpoint(), "no-such-gcloud")?).await?;

    println!("the same, through Tower's own middleware:");
    let slow_or_not = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(2))
        .service(service_fn(move |request: TokenRequest| {
            let source = slow_or_not.clone();
            async move { source.fetch(request).await }
        }));
    send_one(source::from_service(service)).await
}
