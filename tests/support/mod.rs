//! What the scenarios are built from: a scripted metadata server, a scripted source, an inner service
//! that insists on Tower's contract, a log that records everything, and tests in their own process.
//!
//! Time in scripted tests is Tokio's, paused; only tests in real time use sockets.

// Each test target uses its own part of it.
#![allow(dead_code, unused_imports, unreachable_pub)]

pub mod child;
pub mod clients;
pub mod crypto;
pub mod fake_mds;
pub mod folder;
pub mod inner;
pub mod jwt;
pub mod script;
pub mod stamped;
pub mod tls;
pub mod trace;
pub mod troubles;

use http::Request;
use tower::{BoxError, Service, ServiceExt};
use tower_scoped_auth::{AuthError, ScopedAuth};

pub use self::{
    crypto::crypto_provider,
    fake_mds::{FakeMds, Reply},
    folder::Folder,
    inner::{Inner, Mirror},
    jwt::{jwt, jwt_for},
    script::{Answer, Script},
    tls::tls,
    trace::{EventTap, TraceTap},
};

/// A URL that the default destinations allow.
pub const BUCKET: &str = "https://storage.googleapis.com/bucket/object";

pub fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// Sends one request through a clone, as Tower requires: ready first.
pub async fn send<S>(client: &ScopedAuth<S>, uri: &str) -> Result<S::Response, BoxError>
where
    ScopedAuth<S>: Service<Request<()>, Response = S::Response, Error = BoxError> + Clone,
    S: Service<Request<()>>,
{
    client.clone().oneshot(get(uri)).await
}

/// This crate's error inside a service's error.
pub fn auth_error(error: &BoxError) -> &AuthError {
    error
        .downcast_ref()
        .unwrap_or_else(|| panic!("not an AuthError: {error:?}"))
}
