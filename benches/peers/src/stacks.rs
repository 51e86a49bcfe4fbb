//! Each peer around the same service, warm, with its token fetched from the same server.
//!
//! Notes on individual peers:
//!
//! - gcp_auth's metadata provider has the server's address built in, and cannot be pointed elsewhere.
//!   Two others are measured instead: its own `CustomServiceAccount`, with a key made here and our
//!   token endpoint; and [`MetadataLike`], modelled here on its metadata provider (a
//!   `tokio::sync::RwLock<Arc<Token>>`, its own `Token` and its expiry check, its own boxing trait).
//! - kube-client's `AuthLayer` is built from a token file, its only refreshing source that needs no
//!   server.
//! - gcloud-sdk's layer also sets a user agent and `x-goog-api-client`.

use std::{io::Write, net::SocketAddr, sync::Arc};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use gcloud_sdk::{GoogleAuthHeaders, GoogleAuthMiddlewareLayer};
use gcp_auth::TokenProvider;
use google_cloud_auth::credentials::mds;
use http::{HeaderValue, Request, header::AUTHORIZATION};
use kube_client::{Config, client::ConfigExt};
use tokio::sync::RwLock;
use tower::{BoxError, Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_scoped_auth::{MetadataServer, ScopedAuthLayer};

use crate::{
    by_hand::{ByHand, GcpAuth, GoogleHeaders, GoogleToken},
    secret,
    sink::Body,
};

fn metadata(addr: SocketAddr) -> mds::Builder {
    mds::Builder::default().with_endpoint(format!("http://{addr}"))
}

/// Sets a constant header by hand.
#[derive(Clone)]
pub struct Floor<S> {
    inner: S,
    value: HeaderValue,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Floor<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        request
            .headers_mut()
            .insert(AUTHORIZATION, self.value.clone());
        self.inner.call(request)
    }
}

pub fn floor<S>(inner: S) -> Floor<S> {
    let value = HeaderValue::from_str(&format!("Bearer {}", secret())).expect("valid");
    Floor { inner, value }
}

pub fn constant<S>(inner: S) -> <AddAuthorizationLayer as Layer<S>>::Service {
    AddAuthorizationLayer::bearer(&secret())
        .as_sensitive(true)
        .layer(inner)
}

pub fn this_crate<S>(inner: S, addr: SocketAddr) -> tower_scoped_auth::ScopedAuth<S> {
    let source = MetadataServer::builder()
        .endpoint(addr.to_string())
        .build()
        .expect("valid");
    ScopedAuthLayer::new(source).layer(inner)
}

/// The type of kube-client's layer cannot be named outside that crate.
pub fn kube<S>(inner: S) -> impl Service<Request<Body>, Error = BoxError>
where
    S: Service<Request<Body>, Response = http::Response<Body>, Error = BoxError>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(secret().as_bytes()).expect("written");
    let (_file, path) = file.keep().expect("kept: it is read again every minute");
    let mut config = Config::new(http::Uri::from_static("https://storage.googleapis.com"));
    config.auth_info.token_file = Some(path.to_string_lossy().into_owned());
    let layer = config.auth_layer().expect("valid").expect("a token file");
    layer.layer(inner)
}

pub fn gcloud_sdk<S>(
    inner: S,
    addr: SocketAddr,
) -> <GoogleAuthMiddlewareLayer as Layer<S>>::Service {
    let credentials = metadata(addr).build().expect("valid");
    let headers = GoogleAuthHeaders::from(credentials);
    let layer = GoogleAuthMiddlewareLayer::new(headers, None).expect("valid");
    layer.layer(inner)
}

pub fn google_headers<S>(inner: S, addr: SocketAddr) -> ByHand<S, GoogleHeaders> {
    let stamp = GoogleHeaders(metadata(addr).build().expect("valid"));
    ByHand { inner, stamp }
}

pub fn google_token<S>(inner: S, addr: SocketAddr) -> ByHand<S, GoogleToken> {
    let credentials = metadata(addr).build_access_token_credentials();
    let stamp = GoogleToken(credentials.expect("valid"));
    ByHand { inner, stamp }
}

/// gcp_auth's own provider whose token endpoint can be chosen.
pub fn gcp_auth_service_account<S>(inner: S, addr: SocketAddr) -> ByHand<S, GcpAuth> {
    let key = serde_json::json!({
        "type": "service_account",
        "project_id": "bench",
        "private_key": private_key(),
        "client_email": "bench@bench.iam.gserviceaccount.com",
        "token_uri": format!("http://{addr}/token"),
    });
    let provider = gcp_auth::CustomServiceAccount::from_json(&key.to_string()).expect("valid");
    let stamp = GcpAuth(Arc::new(provider));
    ByHand { inner, stamp }
}

/// Made once and kept next to the program: how long it takes to find a key is random, and would be
/// counted in a run's instructions.
fn private_key() -> String {
    let program = std::env::current_exe().expect("a program");
    let file = program.with_file_name("bench-key.pem");
    if let Ok(kept) = std::fs::read_to_string(&file) {
        return kept;
    }
    let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der<'_> = key.as_der().expect("a key");
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let begin = "-----BEGIN PRIVATE KEY-----";
    let pem = format!("{begin}\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    std::fs::write(file, &pem).expect("written");
    pem
}

/// Keeps and hands out a token the way gcp_auth's metadata provider does.
struct MetadataLike {
    token: RwLock<Arc<gcp_auth::Token>>,
}

pub fn gcp_auth_metadata_like<S>(inner: S) -> ByHand<S, GcpAuth> {
    let token = serde_json::json!({ "access_token": secret(), "expires_in": 3600 });
    let token = serde_json::from_value(token).expect("valid");
    let provider = MetadataLike {
        token: RwLock::new(Arc::new(token)),
    };
    let stamp = GcpAuth(Arc::new(provider));
    ByHand { inner, stamp }
}

#[async_trait::async_trait]
impl TokenProvider for MetadataLike {
    async fn token(&self, _: &[&str]) -> Result<Arc<gcp_auth::Token>, gcp_auth::Error> {
        let token = self.token.read().await.clone();
        if token.has_expired() {
            return Err(gcp_auth::Error::Str("no bench takes an hour"));
        }
        Ok(token)
    }

    async fn project_id(&self) -> Result<Arc<str>, gcp_auth::Error> {
        Ok(Arc::from("bench"))
    }
}
