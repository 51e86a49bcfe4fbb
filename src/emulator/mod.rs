//! An in-process metadata server, for tests, examples and local development (feature `emulator`).
//!
//! It follows the protocol of the real server as clients see it: which headers it requires and sends,
//! which paths exist, and that it returns the same token until little of its lifetime is left. It can
//! also fail on demand ([`Fault`]), which the real one cannot.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tower_scoped_auth::{MetadataServer, Scopes, TokenCache, TokenRequest};
//! use tower_scoped_auth::emulator::{Emulator, Fault};
//!
//! let mds = Emulator::builder().token_lifetime(Duration::from_secs(3600)).start().await?;
//! let source = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
//! let cache = TokenCache::new(source);
//!
//! mds.fault(Fault::status(503)); // once; the cache tries again
//! let token = cache.token(&TokenRequest::access_token(Scopes::default())).await?;
//! assert_eq!(mds.generation_of(token.expose_secret()), Some(1));
//! assert_eq!(mds.token_requests(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! Programs in other languages reach it through `GCE_METADATA_HOST`, with [`Emulator::host`].
//!
//! # What it does not do
//!
//! `wait_for_change`, attributes and https are not supported. It is no security boundary: anyone who
//! can reach its port can get its tokens. Access tokens are random and of no use anywhere; ID tokens
//! are signed with the emulator's own key, and verify against [`Emulator::jwks`] only.
//!
//! | file | its job |
//! | --- | --- |
//! | `builder.rs` | settings, checked |
//! | `server.rs` | thread, sockets, connections; acts on faults |
//! | `head.rs`, `target.rs` | parse a request's bytes, path and query |
//! | `routes.rs`, `site.rs`, `mint.rs` | pure: rules, values, tokens |
//! | `identity.rs`, `key.rs` | an ID token's claims; the key that signs them |
//! | `answer.rs` | a response and its bytes |
//! | `relay.rs` | real tokens instead of the mint's |
//! | `fault.rs`, `record.rs` | injected failures; recorded requests |

mod answer;
mod builder;
mod fault;
mod head;
mod identity;
mod key;
mod mint;
mod record;
mod relay;
mod routes;
mod server;
mod site;
mod target;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

pub use self::{builder::EmulatorBuilder, fault::Fault, record::RecordedRequest};
use self::{
    routes::KEYS,
    server::{Server, Shared},
};

/// A metadata server that runs until it is dropped.
///
/// It runs on its own thread, so it works from any runtime, including a paused one, and without a
/// runtime. Dropping it closes its sockets and waits for the thread to end.
#[must_use = "it stops when it is dropped"]
pub struct Emulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _server: Server,
}

impl Emulator {
    /// Returns a builder; all settings have defaults.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::new()
    }

    /// Returns `http://127.0.0.1:PORT`, for `MetadataServerBuilder::endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns `127.0.0.1:PORT`, for `GCE_METADATA_HOST`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// Returns the address that the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the URL of a path, which must start with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The number of requests for access tokens so far, including those that met a fault.
    pub fn token_requests(&self) -> u64 {
        self.shared.counts.tokens.load(Ordering::SeqCst)
    }

    /// The largest number of requests for access tokens that were being answered at once.
    pub fn peak_token_requests(&self) -> usize {
        self.shared.counts.tokens_peak.load(Ordering::SeqCst)
    }

    /// The number of requests for ID tokens so far.
    pub fn identity_requests(&self) -> u64 {
        self.shared.counts.identities.load(Ordering::SeqCst)
    }

    /// Returns the keys to verify ID tokens with, as a JWK set (RFC 7517).
    ///
    /// There is one RSA key, unique to this emulator. It is generated on first use, either here or by a
    /// request for an ID token, which then takes about a tenth of a second of CPU time longer.
    pub fn jwks(&self) -> String {
        self.shared.routes.jwks()
    }

    /// Returns the URL that serves [`jwks`](Self::jwks), with Google's own path, `/oauth2/v3/certs`.
    pub fn jwks_url(&self) -> String {
        self.url(KEYS)
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.counts.connections.load(Ordering::SeqCst)
    }

    /// The number of connections currently open.
    pub fn open_connections(&self) -> usize {
        self.shared.counts.open.load(Ordering::SeqCst)
    }

    /// Returns the last 1,024 requests, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().records.list()
    }

    /// Returns a token's generation: its sequence number, from 1, over tokens of all kinds.
    ///
    /// This identifies a token without showing it.
    pub fn generation_of(&self, secret: &str) -> Option<u64> {
        self.shared.lock().mint.generation_of(secret)
    }

    /// True if a token was minted here, and is neither expired nor revoked: what a Google API would
    /// check.
    pub fn is_valid(&self, secret: &str) -> bool {
        self.shared.lock().mint.is_valid(secret, Instant::now())
    }

    /// Makes the next request get a new token; those handed out keep their lifetimes.
    pub fn rotate(&self) {
        self.shared.lock().mint.rotate();
    }

    /// Makes this token no longer [valid](Self::is_valid).
    ///
    /// It is still served: the real server is not told of a revocation either.
    pub fn revoke(&self, secret: &str) {
        self.shared.lock().mint.revoke(secret);
    }

    /// Expires all tokens minted so far.
    pub fn expire_now(&self) {
        self.shared.lock().mint.expire_all();
    }

    /// Installs a fault, after those installed before.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.install(fault, Instant::now());
    }

    /// Removes all faults. Requests that already hang keep hanging.
    pub fn heal(&self) {
        self.shared.lock().faults.clear();
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("addr", &self.addr)
            .field("token_requests", &self.token_requests())
            .finish_non_exhaustive()
    }
}
