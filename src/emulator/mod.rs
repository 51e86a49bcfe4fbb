//! An in-process metadata server, for tests, examples and local development (feature `emulator`).
//!
//! It is faithful to the protocol of the real one as clients see it: which headers it wants and
//! sends, which paths there are, that it answers the same token until little of its life is left.
//! And it fails on demand ([`Fault`]), which the real one does not.
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
//! `wait_for_change`, attributes, https. It is no security boundary: whoever reaches its port gets its
//! tokens. Access tokens are random and open nothing; ID tokens are signed with a key of the
//! emulator's own, and verify against [`Emulator::jwks`] only.
//!
//! | file | its job |
//! | --- | --- |
//! | `builder.rs` | settings, checked |
//! | `server.rs` | thread, sockets, connections; acts on faults |
//! | `head.rs`, `target.rs` | a request's bytes, path and query, taken apart |
//! | `routes.rs`, `site.rs`, `mint.rs` | pure: rules, values, tokens |
//! | `identity.rs`, `key.rs` | an ID token's claims; the key that signs them |
//! | `answer.rs` | an answer, and its bytes |
//! | `relay.rs` | real tokens, in place of the mint's |
//! | `fault.rs`, `record.rs` | what goes wrong; what came |

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
/// It lives on a thread of its own, so it works from any runtime, paused ones included, and from
/// none. Dropping it closes its sockets and ends the thread before it returns.
#[must_use = "it stops when it is dropped"]
pub struct Emulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _server: Server,
}

impl Emulator {
    /// Settings, all of which have defaults.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::new()
    }

    /// `http://127.0.0.1:PORT`, for `MetadataServerBuilder::endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// `127.0.0.1:PORT`, for `GCE_METADATA_HOST`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of a path, which starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Requests for access tokens so far, those that met a fault included.
    pub fn token_requests(&self) -> u64 {
        self.shared.counts.tokens.load(Ordering::SeqCst)
    }

    /// The most requests for access tokens that were being answered at once.
    pub fn peak_token_requests(&self) -> usize {
        self.shared.counts.tokens_peak.load(Ordering::SeqCst)
    }

    /// Requests for ID tokens so far.
    pub fn identity_requests(&self) -> u64 {
        self.shared.counts.identities.load(Ordering::SeqCst)
    }

    /// The keys to verify ID tokens with, as a JWK set (RFC 7517).
    ///
    /// There is one RSA key, which no two emulators share. It is made when first needed: by a request
    /// for an ID token, which then takes about a tenth of a second of a processor longer, or here.
    pub fn jwks(&self) -> String {
        self.shared.routes.jwks()
    }

    /// Where a server finds [`jwks`](Self::jwks): Google's own path, `/oauth2/v3/certs`.
    pub fn jwks_url(&self) -> String {
        self.url(KEYS)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.counts.connections.load(Ordering::SeqCst)
    }

    /// Connections open at the moment.
    pub fn open_connections(&self) -> usize {
        self.shared.counts.open.load(Ordering::SeqCst)
    }

    /// The last 1,024 requests, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().records.list()
    }

    /// Which mint a token is, counted from 1 over tokens of all kinds; what one can show of a token without showing it.
    pub fn generation_of(&self, secret: &str) -> Option<u64> {
        self.shared.lock().mint.generation_of(secret)
    }

    /// Minted here, not expired, not revoked: what a Google API would check.
    pub fn is_valid(&self, secret: &str) -> bool {
        self.shared.lock().mint.is_valid(secret, Instant::now())
    }

    /// The next request gets a new token; those handed out keep their lives.
    pub fn rotate(&self) {
        self.shared.lock().mint.rotate();
    }

    /// This token is no longer [valid](Self::is_valid). It is answered on, as the real server does,
    /// which is not told of a revocation either.
    pub fn revoke(&self, secret: &str) {
        self.shared.lock().mint.revoke(secret);
    }

    /// Ends the life of all tokens minted so far.
    pub fn expire_now(&self) {
        self.shared.lock().mint.expire_all();
    }

    /// Installs a fault, after those installed before.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.install(fault, Instant::now());
    }

    /// Removes all faults. What hangs already goes on hanging.
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
