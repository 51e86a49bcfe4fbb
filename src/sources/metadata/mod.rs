//! `MetadataServer`: tokens from the Google Cloud metadata server.
//!
//! | file | its job |
//! | --- | --- |
//! | `builder.rs` | the source's settings, each checked |
//! | `endpoint.rs` | which address: text to host and port |
//! | `exchange.rs` | one HTTP exchange over one connection, bounded in bytes |
//! | `limited.rs` | counts the bytes of that connection |
//! | `entry.rs`, `query.rs` | pure: what is asked to a path, scopes and audiences to query values |
//! | `answer.rs`, `id_token.rs` | pure: a body's bytes to a token, or what is wrong with them |
//! | `granted.rs` | pure: are these scopes among those of the instance? |
//! | `universe.rs` | pure: a body's bytes to a domain |
//! | `advice.rs` | pure: what a status means here, and what to do about it |

mod advice;
mod answer;
mod builder;
mod endpoint;
mod entry;
mod exchange;
mod granted;
mod id_token;
mod limited;
mod query;
mod universe;

use std::{
    env, fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::timeout};

pub use self::builder::MetadataServerBuilder;
use self::{
    builder::DEFAULT_ACCOUNT,
    endpoint::Endpoint,
    entry::{Entry, IdTokenForm},
    exchange::Answer,
};
use crate::{
    config_error::ConfigError,
    error::{AuthError, Kind},
    token::{
        attempt::caught,
        events::TARGET,
        request::{Audience, Scopes, TokenRequest},
        source::TokenSource,
        value::Token,
    },
};

/// Tokens from the [metadata server] of Cloud Run, GKE, GCE and their kin.
///
/// One fetch is one connection: it asks, reads, closes. No proxy is used and no redirect followed,
/// whatever the environment says; none of the caller's headers goes along. Head and body together
/// may take 64 KiB, the whole exchange 3 s. The answer must be a 200 with `Metadata-Flavor: Google`
/// and the JSON of a bearer token, or an ID token; anything else is a failed attempt that the cache repeats, with an
/// error that says what to check.
///
/// `expires_in` is an integer above 0; a fraction is rounded down, a string of digits is accepted,
/// more than 24 h is taken as 24 h. `access_token` has 1 to 8,192 characters of RFC 6750's
/// `b64token`. `token_type` is `Bearer`, in any case. JSON with a member twice is refused.
///
/// An ID token is the bare text of a JWT of at most 8,192 characters. It lives until its `exp`, by the
/// wall clock and by the server's own (`Date`), and is asked for again within 24 h. It is not
/// verified: that is for whoever receives it.
///
/// # Scopes that are ignored
///
/// Serverless platforms and GKE with Workload Identity grant the scopes that are asked for. Compute
/// Engine, and GKE without Workload Identity, take them and ignore them: every token has the scopes
/// that the instance was given. Where the answer shows that this is so (its `Server` header says
/// which of the two it comes from), one `WARN` event per source says it; nothing more is asked for
/// that. [`verify_scopes`](MetadataServerBuilder::verify_scopes) makes it an error if scopes are
/// missing.
///
/// Proxy variables are ignored, and so is `GCE_METADATA_HOST` except by [`from_env`](Self::from_env).
///
/// [metadata server]: https://cloud.google.com/compute/docs/metadata/overview
#[derive(Clone)]
pub struct MetadataServer {
    endpoint: Endpoint,
    account: String,
    flavor_required: bool,
    id_tokens: IdTokenForm,
    verify_scopes: bool,
    /// That scopes are ignored here was said already, by this source or a clone.
    warned: Arc<AtomicBool>,
}

/// The variable Google's own libraries read, too.
const HOST_VARIABLE: &str = "GCE_METADATA_HOST";

/// Google's libraries give the whole exchange 3 s (Python) or less.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

impl MetadataServer {
    /// The metadata server at its well-known address, `169.254.169.254`, default account.
    ///
    /// By IP, not by name: no resolver, and no search domain that answers in its place.
    pub fn new() -> Self {
        Self {
            endpoint: Endpoint::well_known(),
            account: DEFAULT_ACCOUNT.to_owned(),
            flavor_required: true,
            id_tokens: IdTokenForm {
                full: true,
                licenses: false,
            },
            verify_scopes: false,
            warned: Arc::default(),
        }
    }

    /// Like [`new`](Self::new), but at the address in `GCE_METADATA_HOST` if that is set.
    ///
    /// # Errors
    ///
    /// The variable is set to something that is not `host`, `host:port` or `http://host:port`. The
    /// empty string is an error as well, never a silent return to the real server.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut builder = Self::builder();
        match env::var(HOST_VARIABLE) {
            Ok(host) => builder.endpoint = Some((HOST_VARIABLE, host)),
            Err(env::VarError::NotPresent) => {}
            Err(env::VarError::NotUnicode(host)) => {
                let reason = "it is not valid UTF-8";
                return Err(ConfigError::new(
                    HOST_VARIABLE,
                    &host.to_string_lossy(),
                    reason,
                ));
            }
        }
        builder.build()
    }

    /// The domain of the universe this instance is in, for
    /// [`Destinations::universe`](crate::Destinations::universe): `googleapis.com`, unless it belongs
    /// to a sovereign cloud.
    ///
    /// One exchange of at most 3 s, each time it is called; the answer does not change while the
    /// instance runs, so ask once and keep it. A server that has no such path, or nothing at it, is
    /// one of `googleapis.com`.
    ///
    /// ```no_run
    /// use tower_scoped_auth::{Destinations, MetadataServer, ScopedAuthLayer};
    ///
    /// # async fn example() -> Result<(), tower::BoxError> {
    /// let source = MetadataServer::new();
    /// let universe = source.universe_domain().await?;
    /// let auth = ScopedAuthLayer::new(source).destinations(Destinations::universe(universe)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The server cannot be reached, takes longer than 3 s, answers anything but 200 and 404, answers
    /// either without `Metadata-Flavor: Google` (unless that is
    /// [optional](MetadataServerBuilder::flavor_optional)), or what it says is no domain name; also,
    /// there is no Tokio runtime, or one without time or I/O. Nothing is concluded from any of
    /// these, and nothing remembered: call again.
    pub async fn universe_domain(&self) -> Result<String, AuthError> {
        if Handle::try_current().is_err() {
            return Err(AuthError::no_runtime());
        }
        let exchange = async {
            let answer = timeout(ATTEMPT_TIMEOUT, self.get(Entry::UniverseDomain)).await;
            answer.unwrap_or_else(|_elapsed| {
                let reason =
                    format!("the metadata server did not answer within {ATTEMPT_TIMEOUT:?}");
                Err(AuthError::new(Kind::Timeout, reason))
            })
        };
        // The only way to find out whether the runtime was built with `enable_time` and `enable_io`:
        // Tokio's timers and sockets panic without.
        match caught(exchange, |_| Err(AuthError::no_runtime())).await {
            Ok(answer) => universe::domain(&answer.body),
            Err(error) if error.status() == Some(404) => Ok(universe::DEFAULT.to_owned()),
            Err(error) => Err(error),
        }
    }

    async fn access_token(
        &self,
        request: &TokenRequest,
        scopes: &Scopes,
    ) -> Result<Token, AuthError> {
        if self.verify_scopes && !scopes.is_empty() {
            // First, so that no token is minted that will not be used.
            let granted = self.get(Entry::Scopes).await?;
            granted::check(scopes, &granted.body)?;
        }
        let answer = self.get(Entry::AccessToken(scopes)).await?;
        let token = answer::access_token(&answer.body)?;
        if answer.of_a_machine && !scopes.is_empty() && !self.verify_scopes {
            self.warn_of_ignored_scopes(request);
        }
        Ok(token)
    }

    async fn id_token(&self, audience: &str) -> Result<Token, AuthError> {
        let answer = self.get(Entry::IdToken(audience, self.id_tokens)).await?;
        id_token::id_token(&answer.body, answer.date)
    }

    async fn get(&self, entry: Entry<'_>) -> Result<Answer, AuthError> {
        exchange::get(&self.endpoint, &self.account, entry, self.flavor_required).await
    }

    /// Once: what the instance has does not change from fetch to fetch.
    #[cold]
    fn warn_of_ignored_scopes(&self, request: &TokenRequest) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                name: "scopes_ignored", target: TARGET,
                source = self.name(),
                %request,
                "scopes are ignored by this metadata server: tokens have those of the instance; \
                 verify_scopes makes missing ones an error",
            );
        }
    }

    /// Another address, another account.
    pub fn builder() -> MetadataServerBuilder {
        MetadataServerBuilder::default()
    }
}

impl TokenSource for MetadataServer {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        request.check()?;
        match request.audience().and_then(Audience::as_str) {
            Some(audience) => self.id_token(audience).await,
            None => {
                let none = Scopes::default();
                let scopes = request.scopes().unwrap_or(&none);
                self.access_token(&request, scopes).await
            }
        }
    }

    fn attempt_timeout(&self) -> Duration {
        ATTEMPT_TIMEOUT
    }

    fn retry_after(&self, error: &AuthError) -> Option<Duration> {
        error.retry_after()
    }

    fn name(&self) -> &'static str {
        "metadata-server"
    }
}

impl Default for MetadataServer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MetadataServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataServer")
            .field("endpoint", &self.endpoint.authority())
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}
