//! The command line for a request, and how it is named in errors.

use super::GcloudCli;
use crate::{
    error::{AuthError, Kind},
    text,
    token::request::TokenRequest,
};

/// Longest piece of the program's path that an error quotes, in characters.
const SHOWN: usize = 200;

impl GcloudCli {
    pub(super) fn arguments(&self, request: &TokenRequest) -> Result<Vec<String>, AuthError> {
        request.check()?;
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
                // gcloud parses the value as a list.
                if audience.contains(',') {
                    let reason = "gcloud takes no audience with a comma in it";
                    return Err(AuthError::new(Kind::Request, reason));
                }
                arguments.push(format!("--audiences={audience}"));
            }
            if self.impersonate.is_some() {
                // Receivers such as IAP require the claim; only an impersonated account can have it.
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

    /// The command that was run, for errors.
    pub(super) fn command(&self, arguments: &[String]) -> String {
        let program = self.program.to_string_lossy();
        let program = text::clipped(&program, SHOWN);
        let subcommand = arguments.get(..2).unwrap_or_default().join(" ");
        format!("{program:?} {subcommand}")
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
        let origin = TokenRequest::id_token(Audience::per_origin());
        assert!(!plain.arguments(&origin).unwrap_err().is_transient());
        let list = TokenRequest::id_token(Audience::new("a,b").unwrap());
        assert!(!plain.arguments(&list).unwrap_err().is_transient());
    }
}
