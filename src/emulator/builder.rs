//! `EmulatorBuilder`: the emulated machine and the lifetime of its tokens. Checks, then starts.

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

/// The lifetime of an access token on Google Cloud, give or take a second.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// As on GCE; serverless platforms use 240 s.
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

    /// Sets how long a token lives after it is minted, ID tokens included. Default: 3,600 s; at least
    /// 1 s.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets how much lifetime must be left for a token to be served again. Default: 300 s, as on GCE.
    ///
    /// A token with this much or less left is replaced. The value is capped at half the lifetime.
    pub fn remint_at(mut self, left: Duration) -> Self {
        self.remint_at = left;
        self
    }

    /// Sets where to listen. Default: a free port of `127.0.0.1`.
    pub fn bind(mut self, addr: SocketAddr) -> Self {
        self.bind = addr;
        self
    }

    /// Sets the project's ID. Default: `test-project`.
    pub fn project_id(mut self, id: impl Into<String>) -> Self {
        self.site.project_id = id.into();
        self
    }

    /// Sets the default service account's e-mail address.
    pub fn email(mut self, email: impl Into<String>) -> Self {
        self.site.email = email.into();
        self
    }

    /// Sets what `…/scopes` lists. Default: `cloud-platform` and `userinfo.email`.
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.site.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the value of `universe/universe-domain`. Default: `googleapis.com`.
    pub fn universe_domain(mut self, domain: impl Into<String>) -> Self {
        self.site.universe_domain = domain.into();
        self
    }

    /// Sets whether `?scopes=` mints a separate token, as on Cloud Run (the default), or is accepted
    /// and ignored, as on GCE. As on the real servers, the `Server` header of every response says
    /// which.
    pub fn honour_scopes(mut self, honour: bool) -> Self {
        self.site.honour_scopes = honour;
        self
    }

    /// Serves this cache's tokens, with their remaining lifetime, instead of random ones.
    ///
    /// For local development with your own account: programs that know only the metadata server get
    /// real tokens from it. Anyone who can reach the port can use them, including every user of the
    /// machine. They are therefore served on loopback only, and only to requests whose `Host` is an
    /// address or a metadata server's name (a web page could be made to appear to come from elsewhere).
    ///
    /// If the cache has no token, the response is a 503 with the error as its body. Lifetime, rotation
    /// and revocation of this emulator do not affect such tokens, and
    /// [`generation_of`](Emulator::generation_of) does not know them.
    pub fn tokens_from(mut self, cache: TokenCache) -> Self {
        self.tokens = Some(cache);
        self
    }

    /// Serves real tokens to anyone who can reach the address, not on loopback only.
    ///
    /// Everybody on that network can then do what the tokens allow. Without
    /// [`tokens_from`](Self::tokens_from), this is an error at the start.
    pub fn danger_serve_real_tokens_to_the_network(mut self) -> Self {
        self.exposed = true;
        self
    }

    /// Calls `told` with each request and the status of its response, on the server's own thread.
    ///
    /// It is not called for requests that end without a response (some faults).
    pub fn on_answer(
        mut self,
        told: impl Fn(&RecordedRequest, u16) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Some(Observer::new(told));
        self
    }

    /// Starts the server on a separate thread. Needs no runtime.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a lifetime below 1 s, an invalid e-mail address, real tokens on an address
    /// that is not loopback, or permission to serve real tokens where there are none. Otherwise the
    /// operating system's error, such as that the address is in use.
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

    /// Like [`start_blocking`](Self::start_blocking), for `async` code. It does not block for long.
    ///
    /// # Errors
    ///
    /// The same as for [`start_blocking`](Self::start_blocking).
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
