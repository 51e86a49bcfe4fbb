//! `MetadataServerBuilder`: the settings of a metadata server source, each checked.

use std::sync::Arc;

use super::{MetadataServer, endpoint::Endpoint, entry::IdTokenForm};
use crate::config_error::ConfigError;

/// Configures a [`MetadataServer`]; made by [`MetadataServer::builder`].
#[derive(Clone, Debug, Default)]
pub struct MetadataServerBuilder {
    /// With the name of the setting that it came from.
    pub(super) endpoint: Option<(&'static str, String)>,
    account: Option<String>,
    flavor_optional: bool,
    standard_id_tokens: bool,
    licenses: bool,
    verify_scopes: bool,
}

/// The instance's own service account.
pub(super) const DEFAULT_ACCOUNT: &str = "default";

impl MetadataServerBuilder {
    /// Sets the server's address: `host`, `host:port` or `http://host:port`; port 80 if none is given.
    ///
    /// An IPv6 address is written in brackets. This takes precedence over the environment, which is not
    /// read here.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(("metadata server endpoint", endpoint.into()));
        self
    }

    /// Sets the service account: `default`, or an e-mail address attached to the instance.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Accepts responses without `Metadata-Flavor: Google`.
    ///
    /// For stand-ins that omit the header. Only together with [`endpoint`](Self::endpoint): at the
    /// well-known address, a response without it is not from the metadata server.
    pub fn flavor_optional(mut self) -> Self {
        self.flavor_optional = true;
        self
    }

    /// Asks for ID tokens without the e-mail address: `format=standard` instead of `format=full`.
    ///
    /// Identity-Aware Proxy refuses such tokens. Only Compute Engine distinguishes the two: serverless
    /// platforms always include the address, and never describe an instance.
    pub fn standard_id_tokens(mut self) -> Self {
        self.standard_id_tokens = true;
        self
    }

    /// Asks for ID tokens with the licences of the instance's images. Compute Engine only.
    pub fn licenses(mut self, licenses: bool) -> Self {
        self.licenses = licenses;
        self
    }

    /// Fetches a token only if the instance has the requested scopes. Default: no.
    ///
    /// For Compute Engine and GKE without Workload Identity, which ignore the scopes of a request (see
    /// [`MetadataServer`]). Each fetch for explicit scopes then first asks for the account's list of
    /// scopes, within the same 3 s. If one is missing, or the list cannot be obtained, the attempt
    /// fails like any other, and a live token stays in service.
    ///
    /// Scopes are compared literally, except that `cloud-platform` covers all of them. That is true of
    /// Google Cloud's own APIs; the APIs of Workspace (Drive, Sheets and so on) require their own
    /// scopes, and an instance that has only `cloud-platform` is not detected here.
    pub fn verify_scopes(mut self, verify: bool) -> Self {
        self.verify_scopes = verify;
        self
    }

    /// Builds the source. Opens no connection.
    ///
    /// # Errors
    ///
    /// The endpoint or account is malformed, [`flavor_optional`](Self::flavor_optional) was set without
    /// an endpoint, or [`licenses`](Self::licenses) together with
    /// [`standard_id_tokens`](Self::standard_id_tokens), which carry no licences.
    pub fn build(self) -> Result<MetadataServer, ConfigError> {
        if self.flavor_optional && self.endpoint.is_none() {
            let reason = "the Metadata-Flavor header is optional at an explicit endpoint only";
            return Err(ConfigError::new(
                "metadata server",
                "flavor_optional",
                reason,
            ));
        }
        if self.licenses && self.standard_id_tokens {
            let reason = "ID tokens of the standard format do not have them";
            return Err(ConfigError::new("metadata server", "licenses", reason));
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
            id_tokens: IdTokenForm {
                full: !self.standard_id_tokens,
                licenses: self.licenses,
            },
            verify_scopes: self.verify_scopes,
            warned: Arc::default(),
        })
    }
}

/// An account becomes one path segment: no character may make it anything else.
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
    fn licences_are_for_the_full_format_only() {
        let builder = || MetadataServer::builder().licenses(true);
        assert!(builder().build().is_ok());
        assert!(builder().standard_id_tokens().build().is_err());
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
