//! `GcloudCli`: tokens from the `gcloud` command, for machines without a metadata server.
//!
//! | file | its job |
//! | --- | --- |
//! | `builder.rs` | the source's settings, each checked |
//! | `command.rs` | pure: the command line for a request |
//! | `run.rs` | one program, bounded in bytes, killed when nobody waits for it |
//! | `complaint.rs` | pure: what it wrote to stderr, without anything that could be a secret |

mod builder;
mod command;
mod complaint;
mod run;

use std::{ffi::OsString, fmt, time::Duration};

pub use self::builder::GcloudCliBuilder;
use self::{
    builder::{PROGRAM, TIMEOUT},
    run::{Fault, Output},
};
use super::reading::{jwt, plain};
use crate::{
    error::{AuthError, Kind},
    token::{request::TokenRequest, source::TokenSource, value::Token},
};

/// Tokens from the Google Cloud CLI, for local development with the logged-in account.
///
/// One fetch is one run of `gcloud auth print-access-token` (with `--scopes` if scopes are asked for),
/// or of `gcloud auth print-identity-token --audiences=...` for an ID token. Nothing is read from
/// gcloud's own files. The program gets no input and is told not to prompt. Its output is bounded. It
/// is killed, together with the programs it started (on Unix), when it takes longer than
/// [`timeout`](GcloudCliBuilder::timeout) or nobody wants its token any more.
///
/// - **Life.** gcloud does not say how long an access token lives. It returns the one it holds as long
///   as that is valid for another 300 s, so a token is used for 240 s ([`LIFETIME`](Self::LIFETIME))
///   from when gcloud was started; gcloud is asked again after half of that. An ID token lives until
///   its `exp`.
/// - **Scopes.** gcloud honours them for user accounts (from its own short list) and service account
///   keys; for other accounts it ignores them, with a warning that nobody sees.
/// - **Audiences.** User accounts cannot choose one: gcloud refuses. Impersonate a service account
///   ([`impersonate`](GcloudCliBuilder::impersonate)), or see
///   [`ignore_audience`](GcloudCliBuilder::ignore_audience).
/// - **Errors** carry the end of what gcloud wrote to stderr, its `ERROR:` line first, without words
///   that could be a token.
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

impl GcloudCli {
    /// How long an access token is used: a minute less than gcloud guarantees.
    pub const LIFETIME: Duration = Duration::from_secs(240);

    /// Creates a source that runs the `gcloud` found on `PATH`, with the account that is active there.
    pub fn new() -> Self {
        Self {
            program: PROGRAM.into(),
            account: None,
            impersonate: None,
            ignore_audience: false,
            timeout: TIMEOUT,
        }
    }

    /// Returns a builder, to choose another program or account.
    pub fn builder() -> GcloudCliBuilder {
        GcloudCliBuilder::default()
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
            let token = Token::new(text, Self::LIFETIME);
            return Ok(token.refresh_in(Self::LIFETIME / 2));
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
