//! `Entry`: what to ask a metadata server for, as a path and a query.
//!
//! Pure. The same value tells `advice.rs` what was refused.

use super::query;
use crate::token::request::Scopes;

#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    AccessToken(&'a Scopes),
    IdToken(&'a str, IdTokenForm),
    /// The scopes that the account's access tokens have, whatever is asked for.
    Scopes,
    UniverseDomain,
}

/// What an ID token holds besides the audience. Compute Engine honours this; serverless platforms and
/// GKE do not.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdTokenForm {
    /// With the e-mail address, without which Identity-Aware Proxy refuses a token, and a description
    /// of the instance.
    pub(super) full: bool,
    /// With the licences of the instance's images.
    pub(super) licenses: bool,
}

const ROOT: &str = "/computeMetadata/v1";
const ACCOUNTS: &str = "/computeMetadata/v1/instance/service-accounts";

impl Entry<'_> {
    pub(super) fn path(&self, account: &str) -> String {
        match self {
            Self::AccessToken(scopes) if scopes.is_empty() => format!("{ACCOUNTS}/{account}/token"),
            Self::AccessToken(scopes) => {
                let scopes = query::scopes(scopes);
                format!("{ACCOUNTS}/{account}/token?scopes={scopes}")
            }
            Self::IdToken(audience, form) => {
                let audience = query::value(audience);
                let format = if form.full { "full" } else { "standard" };
                let licenses = if form.licenses { "&licenses=TRUE" } else { "" };
                format!(
                    "{ACCOUNTS}/{account}/identity?audience={audience}&format={format}{licenses}"
                )
            }
            Self::Scopes => format!("{ACCOUNTS}/{account}/scopes"),
            // With a hyphen: the older `universe_domain` is a 404 on GKE.
            Self::UniverseDomain => format!("{ROOT}/universe/universe-domain"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "/computeMetadata/v1/instance/service-accounts/default";

    fn id_token(audience: &str, full: bool, licenses: bool) -> String {
        let path = Entry::IdToken(audience, IdTokenForm { full, licenses }).path("default");
        path.strip_prefix(DEFAULT).unwrap().to_owned()
    }

    #[test]
    fn each_has_its_path() {
        let (none, two) = (Scopes::default(), Scopes::new(["b", "a"]).unwrap());
        let path = |entry: Entry<'_>| entry.path("default");
        assert_eq!(path(Entry::AccessToken(&none)), format!("{DEFAULT}/token"));
        assert_eq!(
            path(Entry::AccessToken(&two)),
            format!("{DEFAULT}/token?scopes=a%2Cb")
        );
        assert_eq!(path(Entry::Scopes), format!("{DEFAULT}/scopes"));
        assert_eq!(
            path(Entry::UniverseDomain),
            "/computeMetadata/v1/universe/universe-domain"
        );
    }

    #[test]
    fn s163_no_audience_changes_the_path_or_the_query_it_stands_in() {
        assert_eq!(
            id_token("https://a.run.app", true, false),
            "/identity?audience=https%3A%2F%2Fa.run.app&format=full"
        );
        assert_eq!(
            id_token("x&format=standard#?é", true, true),
            "/identity?audience=x%26format%3Dstandard%23%3F%C3%A9&format=full&licenses=TRUE"
        );
        assert_eq!(
            id_token("1-x.apps.googleusercontent.com", false, false),
            "/identity?audience=1-x.apps.googleusercontent.com&format=standard"
        );
    }
}
