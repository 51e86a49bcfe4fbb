//! A Tower layer that stamps outgoing HTTP requests with a bearer token.
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
mod request;
mod retry;
mod service;
mod sources;
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
pub use sources::metadata::{MetadataServer, MetadataServerBuilder};
pub use token::{
    cache::{TokenCache, TokenCacheBuilder},
    clock::Clock,
    request::{Audience, Scopes, TokenRequest},
    source::{self, TokenSource},
    status::{TokenState, TokenStatus},
    value::Token,
};
