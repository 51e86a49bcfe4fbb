//! A Tower layer that stamps outgoing HTTP requests with a bearer token.
//!
//! The token comes from a [source](TokenSource), most commonly the Google Cloud metadata server
//! ([`MetadataServer`]). It is held in one place and shared by all clones, refreshed before it expires,
//! and sent only to the [destinations](Destinations) it is scoped to.
//!
//! ```
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_scoped_auth::{ScopedAuthLayer, Token, TokenRequest, source};
//! # use std::{convert::Infallible, time::Duration};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! // Any client that is a Tower service: hyper-util's, reqwest's, tonic's.
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
//! By default the token goes only to Google APIs, over https; use [`Destinations`] to allow others. The
//! statements on this page are tested. The guide names the tests beside each statement; those for this
//! page are in [placement](guide::placement), [what happens when](guide::what_happens) and
//! [sources](guide::sources).
//!
//! # The guide
//!
//! [Each client](guide::clients) (hyper-util, reqwest, tonic, axum),
//! [integrations](guide::integrations) (kube, object_store, reqwest-middleware),
//! [platforms](guide::platforms), [sources](guide::sources),
//! [local development](guide::local_development), [testing](guide::testing),
//! [observability](guide::observability), [custom sources](guide::custom_sources),
//! [migration](guide::migration), [what happens when](guide::what_happens),
//! [what it costs](guide::what_it_costs), [a fleet on a node](guide::fleet),
//! [limitations](guide::limitations), [mTLS and bound tokens](guide::mtls_and_bound_tokens), the
//! [threat model](guide::threat_model), and [how it works inside](guide::inside).
//!
//! # Where to place the layer
//!
//! Place it inside retry and redirect layers, so that each attempt carries the token current at that
//! moment and each redirect hop is checked against its own destination. A header added above a redirect
//! layer travels along with the redirect.
//!
//! Place it inside queues and limits as well (`Buffer`, `RateLimit`, `ConcurrencyLimit`): a request that
//! waits below the layer already carries its token. No request is handed to the inner service with a
//! token past the moment its fetch was sent plus `expires_in`, by the monotonic or the wall clock. What
//! delays a request after that, such as a slow connect, has ten seconds where the token's life allows: in
//! the last ten seconds of a token, requests wait for a newer one first.
//!
//! Readiness is that of the inner service; if no token can be obtained, it is the *response* that is an
//! error. A request that waits for a token waits in its response future and meanwhile **holds the inner
//! service's reservation**: the permit of a `ConcurrencyLimit`, the slot in a `Buffer`. See
//! [placement](guide::placement) for details.
//!
//! # Per request
//!
//! [`Scopes`] or an [`Audience`] in the extensions of an `http::Request` override the layer's choice.
//!
//! # Errors
//!
//! The service's error is [`tower::BoxError`]. This crate's own failures downcast to [`AuthError`],
//! which says whether retrying can help; errors from the inner service are passed through unchanged.
//!
//! # Runtimes
//!
//! Fetching needs a Tokio runtime of any flavour; the caller's is used. A service may outlive the
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
//! It asks for tokens; it does not log in. It runs nothing in the background unless you spawn
//! [`TokenCache::keep_fresh`]. It does not look at gRPC statuses. It does not coordinate processes.
//! [Limitations](guide::limitations) covers all of these, and what to do instead.
//!
#![cfg_attr(
    not(feature = "metadata"),
    doc = "[`MetadataServer`]: https://docs.rs/tower-scoped-auth/latest/tower_scoped_auth/sources/struct.MetadataServer.html"
)]
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
pub mod guide;
mod layer;
mod policy;
mod quota_project;
mod request;
mod retry;
mod service;
pub mod sources;
#[cfg(feature = "test-util")]
pub mod test_util;
mod text;
mod token;
mod watch;

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
    cache::TokenCache,
    cache_builder::TokenCacheBuilder,
    clock::Clock,
    request::{Audience, Scopes, TokenRequest},
    source::{self, TokenSource},
    status::{TokenState, TokenStatus},
    value::Token,
};

// `google-cloud-auth` enables reqwest with TLS but without a crypto provider. A client then needs one
// installed, which the README's examples should not have to show.
#[cfg(all(
    doctest,
    feature = "metadata",
    feature = "reqwest",
    feature = "emulator",
    not(feature = "google-cloud-auth")
))]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
