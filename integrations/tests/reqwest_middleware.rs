//! reqwest-middleware: the layer around its client, and the layer as one of its middlewares.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::{Router, routing::get};
use http::Extensions;
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next, Result};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_scoped_auth::{
    AuthError, Destinations, MetadataServer, ScopedAuthLayer, emulator::Emulator,
};
use tower_scoped_auth_integrations::api;

/// The layer in a chain of middlewares: inside those added before it, outside those added after.
///
/// `Next` is Tower's inner service under another name, so the layer wraps it, anew for each
/// request. That costs one allocation; the cache belongs to the layer, and all requests share it.
struct Stamp(ScopedAuthLayer);

#[async_trait::async_trait]
impl Middleware for Stamp {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let next = service_fn(|request| {
            let (next, mut extensions) = (next.clone(), extensions.clone());
            async move { next.run(request, &mut extensions).await }
        });
        let sent = self.0.layer(next).oneshot(request).await;
        sent.map_err(|error| match error.downcast::<Error>() {
            Ok(theirs) => *theirs,
            Err(error) => match error.downcast::<AuthError>() {
                Ok(ours) => Error::middleware(*ours),
                Err(other) => Error::Middleware(anyhow::anyhow!(other)),
            },
        })
    }
}

/// Sends a request again after a 401, as a retrying middleware does.
struct Twice {
    sent: Arc<AtomicU32>,
}

#[async_trait::async_trait]
impl Middleware for Twice {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let again = request.try_clone();
        self.sent.fetch_add(1, Ordering::Relaxed);
        let response = next.clone().run(request, extensions).await?;
        match again {
            Some(again) if response.status() == 401 => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                next.run(again, extensions).await
            }
            _ => Ok(response),
        }
    }
}

struct Stage {
    mds: Arc<Emulator>,
    url: String,
    auth: ScopedAuthLayer,
}

async fn stage() -> std::result::Result<Stage, BoxError> {
    let mds = Arc::new(Emulator::builder().start().await?);
    let origin = api::serve(
        &mds,
        Router::new().route("/bucket", get(|| async { "objects" })),
    )
    .await?;
    let source = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
    let auth = ScopedAuthLayer::new(source).destinations(Destinations::only([&origin])?);
    let url = format!("{origin}/bucket");
    Ok(Stage { mds, url, auth })
}

#[tokio::test]
async fn around_the_client_with_its_middlewares() -> std::result::Result<(), BoxError> {
    let Stage { mds, url, auth } = stage().await?;
    let sent = Arc::new(AtomicU32::new(0));
    let inner: ClientWithMiddleware = ClientBuilder::new(Client::new())
        .with(Twice {
            sent: Arc::clone(&sent),
        })
        .build();
    let client = auth.layer(inner);
    for _ in 0..3 {
        let request = Request::new(reqwest::Method::GET, url.parse()?);
        let response = client.clone().oneshot(request).await?;
        assert_eq!(response.text().await?, "objects");
    }
    assert_eq!((sent.load(Ordering::Relaxed), mds.token_requests()), (3, 1));

    // The retry is inside the layer, so it carries the token that was refused: the wrong order.
    mds.expire_now();
    let request = Request::new(reqwest::Method::GET, url.parse()?);
    let response = client.oneshot(request).await?;
    assert_eq!(
        (response.status().as_u16(), sent.load(Ordering::Relaxed)),
        (401, 5)
    );
    Ok(())
}

#[tokio::test]
async fn as_a_middleware_inside_one_that_retries() -> std::result::Result<(), BoxError> {
    let Stage { mds, url, auth } = stage().await?;
    let sent = Arc::new(AtomicU32::new(0));
    let client = ClientBuilder::new(Client::new())
        .with(Twice {
            sent: Arc::clone(&sent),
        })
        .with(Stamp(auth))
        .build();
    for _ in 0..3 {
        assert_eq!(client.get(&url).send().await?.text().await?, "objects");
    }
    assert_eq!((sent.load(Ordering::Relaxed), mds.token_requests()), (3, 1));

    // Each attempt is stamped anew.
    mds.expire_now();
    let response = client.get(&url).send().await?;
    assert_eq!(
        (response.status().as_u16(), sent.load(Ordering::Relaxed)),
        (200, 5)
    );

    // A request that the layer refuses fails with the layer's own error.
    let error = client.get("http://example.com/").send().await.unwrap_err();
    let Error::Middleware(error) = error else {
        panic!("sent: {error}");
    };
    assert!(error.downcast_ref().is_some_and(AuthError::is_destination));
    Ok(())
}
