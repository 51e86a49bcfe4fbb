//! `GcloudCliBuilder`: the settings of a gcloud source, each checked.

use std::{
    ffi::{OsStr, OsString},
    time::Duration,
};

use super::GcloudCli;
use crate::config_error::ConfigError;

/// Configures a [`GcloudCli`]; made by [`GcloudCli::builder`].
#[derive(Clone, Debug, Default)]
pub struct GcloudCliBuilder {
    program: Option<OsString>,
    account: Option<String>,
    impersonate: Option<String>,
    ignore_audience: bool,
    timeout: Option<Duration>,
}

/// On Windows it is a batch file, which is not found without its extension.
pub(super) const PROGRAM: &str = if cfg!(windows) {
    "gcloud.cmd"
} else {
    "gcloud"
};

/// gcloud starts Python and may sign in over the network: 1 to 5 s on a laptop, more on a busy one.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

impl GcloudCliBuilder {
    /// Sets the program to run: a path, or a name to look up on `PATH`.
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = Some(program.as_ref().to_owned());
        self
    }

    /// Sets the account to use (`--account`) instead of the active one.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Sets the service account to impersonate (`--impersonate-service-account`).
    ///
    /// The logged-in account needs `roles/iam.serviceAccountTokenCreator` on it.
    pub fn impersonate(mut self, account: impl Into<String>) -> Self {
        self.impersonate = Some(account.into());
        self
    }

    /// Asks for ID tokens without the audience, which user accounts cannot choose.
    ///
    /// The token's audience is then gcloud's own client ID, whatever was asked for. Cloud Run accepts
    /// such a token; other receivers do not. For development only: a receiver could replay the token
    /// elsewhere.
    pub fn ignore_audience(mut self) -> Self {
        self.ignore_audience = true;
        self
    }

    /// Sets the longest that one run may take. Default: 15 s; from 1 ms to 5 min.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Builds the source. Runs nothing.
    ///
    /// # Errors
    ///
    /// The program is empty, an account is not an e-mail address, or the timeout is out of range.
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

/// The account becomes the value of an option, so only characters of an e-mail address are allowed.
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

#[cfg(test)]
mod tests {
    use super::*;

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
