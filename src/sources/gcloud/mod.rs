//! `GcloudCli`: tokens from the `gcloud` command, for machines without a metadata server.
//!
//! | file | its job |
//! | --- | --- |
//! | `run.rs` | one program, bounded in bytes, killed when nobody waits for it |
//! | `complaint.rs` | pure: what it wrote to stderr, without what could be a secret |

mod complaint;
mod run;

use std::{
    ffi::{OsStr, OsString},
    fmt,
    time::Duration,
};

use self::run::{Fault, Output};
use super::{jwt, plain};
use crate::{
    config_error::ConfigError,
    error::{AuthError, Kind},
    token::{request::TokenRequest, source::TokenSource, value::Token},
};

/// Tokens from the Google Cloud CLI: local development with the account one is logged in with.
///
/// One fetch is one run of `gcloud auth print-access-token` (with `--scopes` if scopes are asked
/// for), or of `gcloud auth print-identity-token --audiences=...` for an ID token. Nothing is read
/// from gcloud's own files. The program gets no input and is told to ask no questions. What it
/// prints is bounded; it is killed, with the programs it started (on Unix), when it takes longer
/// than [`timeout`](GcloudCliBuilder::timeout) or nobody wants its token any more.
///
/// - **Life.** gcloud does not say how long an access token lives. It hands out the one it holds as
///   long as that is good for another 300 s, so a token is used for 240 s
///   ([`LIFETIME`](Self::LIFETIME)) from when gcloud was started; gcloud is asked again after half
///   of that. An ID token lives until its `exp`.
/// - **Scopes.** gcloud honours them for user accounts (from a short list of its own) and service
///   account keys; for other accounts it ignores them, with a warning that nobody sees.
/// - **Audiences.** User accounts cannot choose one: gcloud refuses. Impersonate a service account
///   ([`impersonate`](GcloudCliBuilder::impersonate)), or see
///   [`ignore_audience`](GcloudCliBuilder::ignore_audience).
/// - **Errors** carry the end of what gcloud wrote to stderr, its `ERROR:` line first, without
///   words that could be a token.
///
/// ```no_run
/// use tower_scoped_auth::{ScopedAuthLayer, sources::GcloudCli};
///
/// let auth = ScopedAuthLayer::new(GcloudCli::new());
/// # let _ = auth;
/// ```
#[derive(Clone)]
pub struct GcloudCli {
    program: OsString,
    account: Option<String>,
    impersonate: Option<String>,
    ignore_audience: bool,
    timeout: Duration,
}

/// Configures a [`GcloudCli`]; made by [`GcloudCli::builder`].
#[derive(Clone, Debug, Default)]
pub struct GcloudCliBuilder {
    program: Option<OsString>,
    account: Option<String>,
    impersonate: Option<String>,
    ignore_audience: bool,
    timeout: Option<Duration>,
}

/// On Windows it is a batch file, which is not found without its ending.
const PROGRAM: &str = if cfg!(windows) {
    "gcloud.cmd"
} else {
    "gcloud"
};

/// It starts Python and may sign in over the network: 1 to 5 s on a laptop, more on a busy one.
const TIMEOUT: Duration = Duration::from_secs(15);

const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

impl GcloudCli {
    /// How long an access token is used: a minute less than gcloud promises.
    pub const LIFETIME: Duration = Duration::from_secs(240);

    /// `gcloud` as found on `PATH`, with the account that is active there.
    pub fn new() -> Self {
        Self {
            program: PROGRAM.into(),
            account: None,
            impersonate: None,
            ignore_audience: false,
            timeout: TIMEOUT,
        }
    }

    /// Another program, another account.
    pub fn builder() -> GcloudCliBuilder {
        GcloudCliBuilder::default()
    }

    fn arguments(&self, request: &TokenRequest) -> Result<Vec<String>, AuthError> {
        let mut arguments = vec!["auth".to_owned()];
        if let Some(scopes) = request.scopes() {
            arguments.push("print-access-token".to_owned());
            if !scopes.is_empty() {
                let scopes: Vec<&str> = scopes.iter().collect();
                arguments.push(format!("--scopes={}", scopes.join(",")));
            }
        } else if let Some(audience) = request.audience().and_then(|audience| audience.as_str()) {
            arguments.push("print-identity-token".to_owned());
            if !self.ignore_audience {
                // gcloud reads a list.
                if audience.contains(',') {
                    let reason = "gcloud takes no audience with a comma in it";
                    return Err(AuthError::new(Kind::Request, reason));
                }
                arguments.push(format!("--audiences={audience}"));
            }
            if self.impersonate.is_some() {
                // Receivers such as IAP want the claim; only an impersonated account can have it.
                arguments.push("--include-email".to_owned());
            }
        }
        if let Some(account) = &self.account {
            arguments.push(format!("--account={account}"));
        }
        if let Some(account) = &self.impersonate {
            arguments.push(format!("--impersonate-service-account={account}"));
        }
        Ok(arguments)
    }

    /// What was run, for errors.
    fn command(&self, arguments: &[String]) -> String {
        let program: String = self.program.to_string_lossy().chars().take(200).collect();
        let subcommand = arguments.get(..2).unwrap_or_default().join(" ");
        format!("{program:?} {subcommand}")
    }
}

impl GcloudCliBuilder {
    /// The program to run: a path, or a name to be found on `PATH`.
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = Some(program.as_ref().to_owned());
        self
    }

    /// The account to use (`--account`) instead of the active one.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// The service account to impersonate (`--impersonate-service-account`).
    ///
    /// The account one is logged in with needs `roles/iam.serviceAccountTokenCreator` on it.
    pub fn impersonate(mut self, account: impl Into<String>) -> Self {
        self.impersonate = Some(account.into());
        self
    }

    /// Asks for ID tokens without the audience, which user accounts cannot choose.
    ///
    /// The token's audience is then gcloud's own client ID, whatever was asked for. Cloud Run
    /// accepts such a token, other receivers do not. For development only: a receiver could show
    /// the token elsewhere.
    pub fn ignore_audience(mut self) -> Self {
        self.ignore_audience = true;
        self
    }

    /// The longest one run may take. Default: 15 s; from 1 ms to 5 min.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Builds the source. Runs nothing.
    ///
    /// # Errors
    ///
    /// An empty program, an account that is not an e-mail address, a timeout out of range.
    pub fn build(self) -> Result<GcloudCli, ConfigError> {
        let program = self.program.unwrap_or_else(|| PROGRAM.into());
        if program.is_empty() {
            let reason = "it is empty; leave it out for the one on PATH";
            return Err(ConfigError::new("gcloud program", "", reason));
        }
        for account in [&self.account, &self.impersonate].into_iter().flatten() {
            check_account(account)?;
        }
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        if !(Duration::from_millis(1)..=LONGEST_TIMEOUT).contains(&timeout) {
            let reason = "it must be between 1 ms and 5 min";
            return Err(ConfigError::new(
                "gcloud timeout",
                &format!("{timeout:?}"),
                reason,
            ));
        }
        Ok(GcloudCli {
            program,
            account: self.account,
            impersonate: self.impersonate,
            ignore_audience: self.ignore_audience,
            timeout,
        })
    }
}

impl TokenSource for GcloudCli {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        let arguments = self.arguments(&request)?;
        let output = match run::run(&self.program, &arguments).await {
            Ok(output) => output,
            Err(fault) => return Err(explain(fault, &self.command(&arguments))),
        };
        if !output.status.success() {
            return Err(refused(&output, &self.command(&arguments)));
        }
        let wrong = |reason: &str| {
            let command = self.command(&arguments);
            let reason = format!("what {command} printed is not a usable token: {reason}");
            AuthError::new(Kind::Response, reason)
        };
        let text = plain::token(output.stdout()).map_err(wrong)?;
        if request.scopes().is_some() {
            return Ok(Token::new(text, Self::LIFETIME));
        }
        match jwt::expiry(text) {
            Ok(expiry) => Ok(Token::expiring_at(text, expiry)),
            Err(jwt::Fault::NotJwt) => Err(wrong("it is not a JWT")),
            Err(jwt::Fault::NoExpiry | jwt::Fault::BadExpiry) => {
                Err(wrong("it does not say when it expires (exp)"))
            }
        }
    }

    fn attempt_timeout(&self) -> Duration {
        self.timeout
    }

    fn name(&self) -> &'static str {
        "gcloud"
    }
}

fn explain(fault: Fault, command: &str) -> AuthError {
    match fault {
        Fault::NotStarted(error) => {
            let reason = format!(
                "cannot run {command}: install the Google Cloud CLI, or say where it is \
                 (GcloudCli::builder().program(...))"
            );
            AuthError::caused(Kind::Source, reason, error)
        }
        Fault::TooMuch => {
            let reason = format!("{command} printed far more than a token; it was stopped");
            AuthError::new(Kind::Response, reason)
        }
        Fault::Broken(error) => {
            AuthError::caused(Kind::Source, format!("lost touch with {command}"), error)
        }
    }
}

fn refused(output: &Output, command: &str) -> AuthError {
    let status = output.status;
    let reason = match complaint::summary(output.stderr(), output.stdout()) {
        Some(complaint) => format!("{command} failed ({status}): {complaint}"),
        None => format!("{command} failed ({status}); run it by hand to see why"),
    };
    AuthError::new(Kind::Source, reason)
}

/// It becomes the value of an option; what an e-mail address can have.
fn check_account(account: &str) -> Result<(), ConfigError> {
    const WHAT: &str = "gcloud account";
    const LONGEST: usize = 320;

    let allowed = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+' | ':' | '\'')
    };
    if let Some(at) = account.chars().position(|c| !allowed(c)) {
        let reason = "expected the account's e-mail address";
        return Err(ConfigError::new(WHAT, account, reason).at(at));
    }
    if account.is_empty() || account.len() > LONGEST {
        let reason = "expected the account's e-mail address, of 1 to 320 characters";
        return Err(ConfigError::new(WHAT, account, reason));
    }
    Ok(())
}

impl Default for GcloudCli {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for GcloudCli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcloudCli")
            .field("program", &self.program)
            .field("account", &self.account)
            .field("impersonate", &self.impersonate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::request::{Audience, Scopes};

    #[test]
    fn what_is_run() {
        let plain = GcloudCli::new();
        let joined = |source: &GcloudCli, request: &TokenRequest| {
            source.arguments(request).unwrap().join(" ")
        };
        let any = TokenRequest::access_token(Scopes::default());
        let two = TokenRequest::access_token(Scopes::new(["b", "a"]).unwrap());
        let id = TokenRequest::id_token(Audience::new("https://a.run.app").unwrap());
        assert_eq!(joined(&plain, &any), "auth print-access-token");
        assert_eq!(joined(&plain, &two), "auth print-access-token --scopes=a,b");
        assert_eq!(
            joined(&plain, &id),
            "auth print-identity-token --audiences=https://a.run.app"
        );
        let other = GcloudCli::builder().account("me@x.y").impersonate("sa@p");
        let other = other.build().unwrap();
        assert_eq!(
            joined(&other, &id),
            "auth print-identity-token --audiences=https://a.run.app --include-email \
             --account=me@x.y --impersonate-service-account=sa@p"
        );
        let lax = GcloudCli::builder().ignore_audience().build().unwrap();
        assert_eq!(joined(&lax, &id), "auth print-identity-token");
        let list = TokenRequest::id_token(Audience::new("a,b").unwrap());
        assert!(!plain.arguments(&list).unwrap_err().is_transient());
    }

    #[test]
    fn what_cannot_mean_anything_is_an_error_at_build() {
        let builder = GcloudCli::builder;
        assert!(builder().program("").build().is_err());
        assert!(builder().timeout(Duration::ZERO).build().is_err());
        assert!(builder().timeout(Duration::from_secs(301)).build().is_err());
        for account in ["", "a b", "a\n", "a,b", "\u{e9}@x", &"a".repeat(321)] {
            assert!(builder().account(account).build().is_err());
            assert!(builder().impersonate(account).build().is_err());
        }
    }
}
