//! `MetadataServer`: tokens from the Google Cloud metadata server.
//!
//! | file | its job |
//! | --- | --- |
//! | `endpoint.rs` | which address: text to host and port |
//! | `exchange.rs` | one HTTP exchange over one connection, bounded in bytes |
//! | `meter.rs` | counts the bytes of that connection |
//! | `query.rs` | pure: scopes to a query value |
//! | `answer.rs` | pure: a body's bytes to a token, or what is wrong with them |
//! | `advice.rs` | pure: what a status means here, and what to do about it |

mod advice;
mod answer;
mod endpoint;
mod exchange;
mod meter;
mod query;

use std::{env, fmt, time::Duration};

use self::endpoint::Endpoint;
use crate::{
    config_error::ConfigError,
    error::AuthError,
    token::{request::TokenRequest, source::TokenSource, value::Token},
};

/// Tokens from the [metadata server] of Cloud Run, GKE, GCE and their kin.
///
/// One fetch is one connection: it asks, reads, closes. No proxy is used and no redirect followed,
/// whatever the environment says; none of the caller's headers goes along. Head and body together
/// may take 64 KiB, the whole exchange 3 s. The answer must be a 200 with `Metadata-Flavor: Google`
/// and the JSON of a bearer token; anything else is a failed attempt that the cache repeats, with an
/// error that says what to check.
///
/// `expires_in` is an integer above 0; a fraction is rounded down, a string of digits is accepted,
/// more than 24 h is taken as 24 h. `access_token` has 1 to 8,192 characters of RFC 6750's
/// `b64token`. `token_type` is `Bearer`, in any case. JSON with a member twice is refused.
///
/// Proxy variables are ignored, and so is `GCE_METADATA_HOST` except by [`from_env`](Self::from_env).
///
/// [metadata server]: https://cloud.google.com/compute/docs/metadata/overview
#[derive(Clone)]
pub struct MetadataServer {
    endpoint: Endpoint,
    account: String,
    flavor_required: bool,
}

/// Configures a [`MetadataServer`]; made by [`MetadataServer::builder`].
#[derive(Clone, Debug, Default)]
pub struct MetadataServerBuilder {
    endpoint: Option<(&'static str, String)>,
    account: Option<String>,
    flavor_optional: bool,
}

/// The variable Google's own libraries read, too.
const HOST_VARIABLE: &str = "GCE_METADATA_HOST";

/// Google's libraries give the whole exchange 3 s (Python) or less.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// The instance's own service account.
const DEFAULT_ACCOUNT: &str = "default";

impl MetadataServer {
    /// The metadata server at its well-known address, `169.254.169.254`, default account.
    ///
    /// By IP, not by name: no resolver, and no search domain that answers in its place.
    pub fn new() -> Self {
        Self {
            endpoint: Endpoint::well_known(),
            account: DEFAULT_ACCOUNT.to_owned(),
            flavor_required: true,
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

    /// Another address, another account.
    pub fn builder() -> MetadataServerBuilder {
        MetadataServerBuilder::default()
    }
}

impl MetadataServerBuilder {
    /// The server's address: `host`, `host:port` or `http://host:port`; port 80 if none is given.
    ///
    /// An IPv6 address stands in brackets. It beats the environment, which is not read here.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(("metadata server endpoint", endpoint.into()));
        self
    }

    /// The service account: `default`, or an e-mail address attached to the instance.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Accepts answers without `Metadata-Flavor: Google`.
    ///
    /// For stand-ins that forget the header. Only together with [`endpoint`](Self::endpoint): at the
    /// well-known address, an answer without it is not the metadata server's.
    pub fn flavor_optional(mut self) -> Self {
        self.flavor_optional = true;
        self
    }

    /// Builds the source. Opens no connection.
    ///
    /// # Errors
    ///
    /// A malformed endpoint or account, or [`flavor_optional`](Self::flavor_optional) without an
    /// endpoint.
    pub fn build(self) -> Result<MetadataServer, ConfigError> {
        if self.flavor_optional && self.endpoint.is_none() {
            let reason = "the Metadata-Flavor header is optional at an explicit endpoint only";
            return Err(ConfigError::new(
                "metadata server",
                "flavor_optional",
                reason,
            ));
        }
        let endpoint = match self.endpoint {
            Some((what, endpoint)) => Endpoint::parse(what, &endpoint)?,
            None => Endpoint::well_known(),
        };
        let account = match self.account {
            Some(account) => checked_account(account)?,
            None => DEFAULT_ACCOUNT.to_owned(),
        };
        Ok(MetadataServer {
            endpoint,
            account,
            flavor_required: !self.flavor_optional,
        })
    }
}

impl TokenSource for MetadataServer {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        let Some(scopes) = request.scopes() else {
            return Err(advice::unsupported("ID tokens"));
        };
        let mut path = format!("{ACCOUNTS}/{}/token", self.account);
        if !scopes.is_empty() {
            path.push_str("?scopes=");
            path.push_str(&query::scopes(scopes));
        }
        let answer = exchange::get(&self.endpoint, &path, self.flavor_required).await?;
        answer::access_token(&answer)
    }

    fn attempt_timeout(&self) -> Duration {
        ATTEMPT_TIMEOUT
    }

    fn name(&self) -> &'static str {
        "metadata-server"
    }
}

const ACCOUNTS: &str = "/computeMetadata/v1/instance/service-accounts";

/// An account becomes one segment of a path: no character that could make it anything else.
fn checked_account(account: String) -> Result<String, ConfigError> {
    const WHAT: &str = "service account";
    const LONGEST: usize = 320;

    let allowed =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+' | ':');
    if let Some(at) = account.chars().position(|c| !allowed(c)) {
        let reason = "expected \"default\" or the account's e-mail address";
        return Err(ConfigError::new(WHAT, &account, reason).at(at));
    }
    let reason = if account.is_empty() {
        "it is empty; leave it out for the default account"
    } else if account.len() > LONGEST {
        "it is longer than an e-mail address can be (320 characters)"
    } else if account.chars().all(|c| c == '.') {
        "expected \"default\" or the account's e-mail address"
    } else {
        return Ok(account);
    };
    Err(ConfigError::new(WHAT, &account, reason))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s164_an_account_is_one_path_segment() {
        for account in ["default", "sa@p.iam.gserviceaccount.com", "a-b_c@d.e"] {
            assert_eq!(checked_account(account.to_owned()).unwrap(), account);
        }
        for (account, at) in [
            ("../../attributes/x", Some(2)),
            ("default/token?scopes=", Some(7)),
            ("a b", Some(1)),
            ("%2e%2e", Some(0)),
            ("a\r\nb", Some(1)),
            ("é@x", Some(0)),
            ("..", None),
            (".", None),
            ("", None),
        ] {
            let error = checked_account(account.to_owned()).unwrap_err();
            assert_eq!(error.position(), at, "{error}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
        assert!(checked_account("a".repeat(321)).is_err());
    }

    #[test]
    fn the_flavor_is_optional_at_an_explicit_endpoint_only() {
        assert!(MetadataServer::builder().flavor_optional().build().is_err());
        assert!(
            MetadataServer::builder()
                .endpoint("localhost")
                .flavor_optional()
                .build()
                .is_ok()
        );
    }
}
