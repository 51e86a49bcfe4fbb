//! `MetadataServer`: tokens from the Google Cloud metadata server.
//!
//! | file | its job |
//! | --- | --- |
//! | `builder.rs` | the source's settings, each checked |
//! | `endpoint.rs` | the address: text to host and port |
//! | `exchange.rs` | one HTTP exchange over one connection, bounded in bytes |
//! | `limited.rs` | counts the bytes of that connection |
//! | `entry.rs`, `query.rs` | pure: a request to a path, scopes and audiences to query values |
//! | `answer.rs`, `id_token.rs` | pure: a body's bytes to a token, or to what is wrong with them |
//! | `granted.rs` | pure: does the instance have these scopes? |
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

/// Tokens from the [metadata server] of Cloud Run, GKE, GCE and similar platforms.
///
/// One fetch is one connection, closed after the response. No proxy is used and no redirect followed,
/// whatever the environment says; none of the caller's headers are sent. Head and body together may
/// take 64 KiB, the whole exchange 3 s. The response must be a 200 with `Metadata-Flavor: Google` and
/// either the JSON of a bearer token or an ID token. Anything else is a failed attempt, which the cache
/// repeats; its error says what to check.
///
/// `expires_in` is an integer above 0; a fraction is rounded down, a string of digits is accepted, and
/// more than 24 h is taken as 24 h. `access_token` has 1 to 8,192 characters of RFC 6750's `b64token`.
/// `token_type` is `Bearer`, in any case. JSON with a duplicate member is refused.
///
/// An ID token is the bare text of a JWT of at most 8,192 characters. It lives until its `exp`, by the
/// wall clock and by the server's own (`Date`), and is asked for again within 24 h. It is not verified:
/// that is up to its receiver.
///
/// # Scopes that are ignored
///
/// Serverless platforms and GKE with Workload Identity grant the requested scopes. Compute Engine, and
/// GKE without Workload Identity, accept them but ignore them: every token has the scopes that the
/// instance was given. If a response shows that this is the case (by its `Server` header), one `WARN`
/// event per source reports it; no extra request is made for this.
/// [`verify_scopes`](MetadataServerBuilder::verify_scopes) makes missing scopes an error.
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
    /// Whether the warning that scopes are ignored was already logged, by this source or a clone.
    warned: Arc<AtomicBool>,
}

/// The variable that Google's own libraries also read.
const HOST_VARIABLE: &str = "GCE_METADATA_HOST";

/// Google's libraries give the whole exchange 3 s (Python) or less.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

impl MetadataServer {
    /// Creates a source for the metadata server at its well-known address, `169.254.169.254`.
    ///
    /// It uses the default account. The address is an IP address, not a name, so neither a resolver nor
    /// a search domain is involved.
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

    /// Like [`new`](Self::new), but uses the address in `GCE_METADATA_HOST` if that is set.
    ///
    /// # Errors
    ///
    /// The variable is set to something that is not `host`, `host:port` or `http://host:port`. The
    /// empty string is an error as well, never a silent fallback to the real server.
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

    /// Returns the domain of the universe that this instance is in.
    ///
    /// It is meant for [`Destinations::universe`](crate::Destinations::universe), and is
    /// `googleapis.com` unless the instance belongs to a sovereign cloud.
    ///
    /// Each call is one exchange of at most 3 s. The result does not change while the instance runs, so
    /// call this once and keep it. If the server does not have the path, or has nothing at it, the
    /// universe is `googleapis.com`.
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
    /// The server cannot be reached, takes longer than 3 s, responds with anything but 200 and 404, or
    /// responds without `Metadata-Flavor: Google` (unless that is
    /// [optional](MetadataServerBuilder::flavor_optional)); the response is not a domain name; or there
    /// is no Tokio runtime, or one without time or I/O. In none of these cases is anything inferred or
    /// remembered: call again.
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
        // without them, Tokio's timers and sockets panic.
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
            // First, so that no token is minted only to be discarded.
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

    /// Logged once: the instance's scopes do not change between fetches.
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

    /// Returns a builder, to choose another address or account.
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
