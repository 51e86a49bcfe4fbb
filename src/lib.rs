//! A Tower layer that stamps outgoing HTTP requests with a bearer token.
//!
//! The token comes from a [source](TokenSource), first of all the Google Cloud [metadata
//! server](MetadataServer). It is held in one place for all clones, refreshed before it expires, and
//! sent only to the [destinations](Destinations) it is scoped to.
//!
//! ```
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_scoped_auth::{ScopedAuthLayer, Token, TokenRequest, source};
//! # use std::{convert::Infallible, time::Duration};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! // Any client that is a Tower service; see below for hyper-util, reqwest and tonic.
//! let client = service_fn(|request: http::Request<()>| async move {
//!     assert_eq!(request.headers()["authorization"], "Bearer secret");
//!     Ok::<_, Infallible>(http::Response::new(()))
//! });
//! let auth = ScopedAuthLayer::new(source::from_fn(|_: TokenRequest| async {
//!     Ok::<_, Infallible>(Token::new("secret", Duration::from_secs(3600)))
//! }));
//! let client = ServiceBuilder::new().layer(auth).service(client);
//!
//! let request = http::Request::get("https://storage.googleapis.com/bucket").body(())?;
//! client.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Each client
//!
//! With hyper-util's client, the destinations said out loud:
//!
//! ```no_run
//! use http_body_util::Empty;
//! use hyper::body::Bytes;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::ServiceBuilder;
//! use tower_scoped_auth::{Destinations, MetadataServer, ScopedAuthLayer};
//!
//! # fn example() -> Result<(), tower::BoxError> {
//! let auth = ScopedAuthLayer::new(MetadataServer::new())
//!     .destinations(Destinations::only(["https://*.run.app", "http://127.0.0.1:8080"])?);
//! let hyper = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
//! let client = ServiceBuilder::new().layer(auth).service(hyper);
//! # Ok(())
//! # }
//! ```
//!
//! With reqwest (feature `reqwest`), whose client is a service of `reqwest::Request`:
//!
#![cfg_attr(feature = "reqwest", doc = "```no_run")]
#![cfg_attr(not(feature = "reqwest"), doc = "```ignore")]
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_scoped_auth::{MetadataServer, ScopedAuthLayer, Scopes};
//!
//! # async fn example(request: reqwest::Request) -> Result<(), tower::BoxError> {
//! let auth = ScopedAuthLayer::new(MetadataServer::from_env()?) // honours GCE_METADATA_HOST
//!     .scopes(Scopes::new(["https://www.googleapis.com/auth/devstorage.read_only"])?);
//! let client = ServiceBuilder::new().layer(auth).service(reqwest::Client::new());
//! let response = client.clone().oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! With tonic, whose channel adds its origin inside, so that requests have no host at this level:
//!
//! ```no_run
//! use tower::ServiceBuilder;
//! use tower_scoped_auth::{Destinations, MetadataServer, ScopedAuthLayer};
//!
//! # async fn example(channel: tonic::transport::Channel) {
//! let auth = ScopedAuthLayer::new(MetadataServer::new())
//!     .destinations(Destinations::trust_inner());
//! let channel = ServiceBuilder::new().layer(auth).service(channel);
//! # }
//! ```
//!
//! # Where to place the layer
//!
//! Inside retry and redirect layers: each try then carries the token of its moment, and each hop of a
//! redirect is judged by where it goes. A header that is put on above a redirect layer travels along.
//!
//! Readiness is the inner service's own. Token trouble never makes a service unready or dead; it is
//! the *response* that is an error. A request that waits for a token waits in its response future and
//! **holds the inner service's reservation meanwhile**: the permit of a `ConcurrencyLimit`, the place
//! in a `Buffer`. The wait is bounded ([`TokenCacheBuilder::max_wait`]), and dropping the future ends it.
//!
//! # Per request
//!
//! [`Scopes`] or an [`Audience`] in the extensions of an `http::Request` override the layer's choice.
//! reqwest does not show its requests' extensions (0.13). There, use a layer per choice
//! [from one cache](ScopedAuthLayer::from_cache), or give the layer requests of `http`, which become
//! reqwest's further in (with feature `filter` of tower):
//!
#![cfg_attr(feature = "reqwest", doc = "```no_run")]
#![cfg_attr(not(feature = "reqwest"), doc = "```ignore")]
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//! use tower_scoped_auth::{Audience, Destinations, MetadataServer, ScopedAuthLayer};
//!
//! # async fn example() -> Result<(), BoxError> {
//! let auth = ScopedAuthLayer::new(MetadataServer::new())
//!     .audience(Audience::per_origin())
//!     .destinations(Destinations::only(["https://*.run.app"])?);
//! let client = ServiceBuilder::new()
//!     .layer(auth)
//!     .filter(|request: http::Request<reqwest::Body>| {
//!         reqwest::Request::try_from(request).map_err(BoxError::from)
//!     })
//!     .service(reqwest::Client::new());
//!
//! let request = http::Request::get("https://my-service-abc.a.run.app/")
//!     .extension(Audience::new("an audience of its own")?)
//!     .body(reqwest::Body::default())?;
//! let response = client.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! The service's error is [`tower::BoxError`]. Failures of this crate downcast to [`AuthError`], which
//! says whether trying again can help; errors of the inner service come through as they were.
//!
//! # Platforms and runtimes
//!
//! Fetching needs a Tokio runtime, of any flavour; the caller's is used. A service may outlive the
//! runtime that fetched its token, and one `static` service may serve many runtimes. A request that
//! finds a live token needs no runtime at all.
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `metadata` | yes | [`MetadataServer`] |
//! | `token-file` | yes | `sources::TokenFile` |
//! | `gcloud` | | `sources::GcloudCli` |
//! | `google-cloud-auth` | | `sources::application_default`, and Google's credentials as sources |
//! | `reqwest` | | the layer around `reqwest::Client` |
//! | `emulator` | | `emulator`: a metadata server in-process |
//! | `test-util` | | `test_util`: a clock that tests can move |
//! | `metrics` | | counters, gauges and a histogram through the `metrics` facade |
//! | `serde` | | [`TokenStatus`] as the JSON of a health endpoint |
//!
//! # What it does not do
//!
//! It asks for tokens; it does not log in. It runs nothing in the background on its own: see
//! [`TokenCache::keep_fresh`]. It does not look at gRPC statuses. It does not coordinate processes.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod config_error;
mod destination;
#[cfg(feature = "emulator")]
pub mod emulator;
mod error;
mod future;
mod layer;
mod policy;
mod quota_project;
mod request;
mod retry;
mod service;
pub mod sources;
#[cfg(feature = "test-util")]
pub mod test_util;
mod token;

pub use config_error::ConfigError;
pub use destination::Destinations;
pub use error::AuthError;
pub use future::ResponseFuture;
pub use layer::ScopedAuthLayer;
pub use request::{AuthRequest, AuthResponse};
pub use retry::RetryUnauthorized;
pub use service::ScopedAuth;
#[cfg(feature = "metadata")]
pub use sources::{MetadataServer, MetadataServerBuilder};
pub use token::{
    cache::{TokenCache, TokenCacheBuilder},
    clock::Clock,
    request::{Audience, Scopes, TokenRequest},
    source::{self, TokenSource},
    status::{TokenState, TokenStatus},
    value::Token,
};

#[cfg(all(
    doctest,
    feature = "metadata",
    feature = "reqwest",
    feature = "emulator"
))]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;

#[cfg(all(doctest, feature = "metadata", feature = "gcloud"))]
#[doc = include_str!("../docs/sources.md")]
struct SourcesDoctests;
