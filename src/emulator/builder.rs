//! `EmulatorBuilder`: what the emulated machine is, and how its tokens live. Checks, then starts.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    Emulator,
    fault::Faults,
    mint::Mint,
    record::{Observer, RecordedRequest, Records},
    relay::Relay,
    routes::Routes,
    server::{Counts, Server, Shared, State},
    site::Site,
};
use crate::{config_error::ConfigError, token::cache::TokenCache};

/// Configures an [`Emulator`]; made by [`Emulator::builder`].
#[derive(Clone, Debug)]
pub struct EmulatorBuilder {
    lifetime: Duration,
    remint_at: Duration,
    bind: SocketAddr,
    site: Site,
    tokens: Option<TokenCache>,
    exposed: bool,
    observer: Option<Observer>,
}

/// What an access token's life is on Google Cloud, give or take a second.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// GCE's habit; serverless platforms have 240 s.
const DEFAULT_REMINT_AT: Duration = Duration::from_secs(300);

/// `expires_in` is written in whole seconds.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);

impl EmulatorBuilder {
    pub(super) fn new() -> Self {
        Self {
            lifetime: DEFAULT_LIFETIME,
            remint_at: DEFAULT_REMINT_AT,
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            site: Site::default(),
            tokens: None,
            exposed: false,
            observer: None,
        }
    }

    /// How long a token lives from when it is minted, ID tokens included. Default: 3,600 s; at least 1 s.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The same token is answered until this much of its life is left. Default: 300 s, as on GCE;
    /// at most half the lifetime, whatever is given.
    pub fn remint_at(mut self, left: Duration) -> Self {
        self.remint_at = left;
        self
    }

    /// Where to listen. Default: a free port of `127.0.0.1`.
    pub fn bind(mut self, addr: SocketAddr) -> Self {
        self.bind = addr;
        self
    }

    /// The project's id. Default: `test-project`.
    pub fn project_id(mut self, id: impl Into<String>) -> Self {
        self.site.project_id = id.into();
        self
    }

    /// The default service account's e-mail address.
    pub fn email(mut self, email: impl Into<String>) -> Self {
        self.site.email = email.into();
        self
    }

    /// What `…/scopes` lists. Default: `cloud-platform` and `userinfo.email`.
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.site.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// What `universe/universe-domain` says. Default: `googleapis.com`.
    pub fn universe_domain(mut self, domain: impl Into<String>) -> Self {
        self.site.universe_domain = domain.into();
        self
    }

    /// Whether `?scopes=` makes a token of its own, as on Cloud Run (the default), or is accepted
    /// and ignored, as on GCE. The `Server` header of every answer says which it is, as there.
    pub fn honour_scopes(mut self, honour: bool) -> Self {
        self.site.honour_scopes = honour;
        self
    }

    /// Serves this cache's tokens, with what is left of their lives, in place of random ones.
    ///
    /// For local development with one's own account: programs that know only the metadata server get
    /// real tokens from it. They are real: whoever reaches the port can use them, every user of the
    /// machine included. So they are served on loopback only, and only to requests whose `Host` is an
    /// address or a metadata server's name (a web page could be made to come from elsewhere).
    ///
    /// When the cache has no token the answer is 503, with the error as its body. Lifetime, rotation
    /// and revocation of this emulator do not touch such tokens, and
    /// [`generation_of`](Emulator::generation_of) knows none of them.
    pub fn tokens_from(mut self, cache: TokenCache) -> Self {
        self.tokens = Some(cache);
        self
    }

    /// Serves real tokens to whoever reaches the address, not on loopback only: everybody on that
    /// network can then do what the tokens allow. An error at the start without
    /// [`tokens_from`](Self::tokens_from).
    pub fn danger_serve_real_tokens_to_the_network(mut self) -> Self {
        self.exposed = true;
        self
    }

    /// Calls `told` with each request and the status of its answer, on the server's own thread.
    ///
    /// Requests that end without an answer (some faults) are not told of.
    pub fn on_answer(
        mut self,
        told: impl Fn(&RecordedRequest, u16) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Some(Observer::new(told));
        self
    }

    /// Starts the server on a thread of its own. Needs no runtime.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a lifetime below 1 s, an e-mail address that is none, real tokens on an
    /// address that is not loopback, or leave to serve real tokens where there are none; otherwise what the operating system says, such as that the
    /// address is in use.
    pub fn start_blocking(self) -> io::Result<Emulator> {
        self.check()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let state = State {
            mint: Mint::new(self.lifetime, self.remint_at),
            faults: Faults::default(),
            records: Records::default(),
        };
        let shared = Arc::new(Shared {
            routes: Routes::new(self.site),
            state: Mutex::new(state),
            counts: Counts::default(),
            relay: self.tokens.map(|cache| Relay::new(cache, self.exposed)),
            observer: self.observer,
        });
        let (server, addr) = Server::start(self.bind, Arc::clone(&shared))?;
        Ok(Emulator {
            addr,
            shared,
            _server: server,
        })
    }

    /// [`start_blocking`](Self::start_blocking), which does not block for long, for `async` code.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn start(self) -> io::Result<Emulator> {
        self.start_blocking()
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.lifetime < SHORTEST_LIFETIME {
            let given = format!("{:?}", self.lifetime);
            return Err(ConfigError::new(
                "token lifetime",
                &given,
                "it must be at least 1 s",
            ));
        }
        if self.exposed && self.tokens.is_none() {
            let reason = "there are no real tokens to serve: say tokens_from, or leave this out";
            let setting = "danger_serve_real_tokens_to_the_network";
            return Err(ConfigError::new("emulator", setting, reason));
        }
        if self.tokens.is_some() && !self.bind.ip().is_loopback() && !self.exposed {
            let reason = "real tokens are served on a loopback address only";
            return Err(ConfigError::new("address", &self.bind.to_string(), reason));
        }
        let email = &self.site.email;
        let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | '?' | '#' | '%');
        if let Some(at) = email.chars().position(odd) {
            let reason = "this character cannot stand in a path segment";
            return Err(ConfigError::new("service account e-mail", email, reason).at(at));
        }
        if !email.contains('@') {
            let reason = "expected an e-mail address";
            return Err(ConfigError::new("service account e-mail", email, reason));
        }
        Ok(())
    }
}
