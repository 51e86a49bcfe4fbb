//! `Scopes`: a set of OAuth scopes, checked on construction.
//!
//! Knows the syntax of RFC 6749 scopes, and the comma that separates them in requests to the metadata
//! server. Knows nothing of sources, HTTP requests or time.

use std::{fmt, sync::Arc};

use super::{MOST_BYTES, hashed::Hashed};
use crate::config_error::ConfigError;

/// A set of OAuth scopes (RFC 6749, section 3.3): order and repetition do not matter.
///
/// An empty set ([`Scopes::default`]) means that the source decides: on Google Cloud this is usually
/// `cloud-platform`, or the scopes that the virtual machine was given.
///
/// ```
/// use tower_scoped_auth::Scopes;
///
/// let scopes = Scopes::new([
///     "https://www.googleapis.com/auth/drive",
///     "https://www.googleapis.com/auth/spreadsheets",
/// ])?;
/// assert_eq!(scopes.iter().count(), 2);
/// # Ok::<(), tower_scoped_auth::ConfigError>(())
/// ```
///
/// Clones share one allocation. Insert one into a request's extensions to override the layer's choice.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Scopes {
    // `None` for no scopes: a default value allocates nothing.
    set: Option<Hashed<[Box<str>]>>,
}

/// The scope with which IAM alone decides what is allowed.
pub(crate) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

impl Scopes {
    /// Validates and collects scopes; an empty iterator gives [`Scopes::default`].
    ///
    /// # Errors
    ///
    /// A scope is empty, contains a character that RFC 6749 does not allow (`scope-token`: visible
    /// ASCII without `"` and `\`), or contains a comma, which separates scopes in requests to the
    /// metadata server; or the scopes together exceed 8 KiB.
    pub fn new<I>(scopes: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut set = Vec::new();
        let mut bytes = 0_usize;
        for scope in scopes {
            let scope = scope.as_ref();
            check_scope(scope)?;
            bytes = bytes.saturating_add(scope.len() + 1);
            if bytes > MOST_BYTES {
                let reason = "all scopes together exceed 8 KiB";
                return Err(ConfigError::new("scopes", scope, reason));
            }
            set.push(Box::<str>::from(scope));
        }
        set.sort_unstable();
        set.dedup();
        Ok(Self {
            set: (!set.is_empty()).then(|| Hashed::new(set.into())),
        })
    }

    /// `https://www.googleapis.com/auth/cloud-platform`: everything that IAM allows.
    pub fn cloud_platform() -> Self {
        let set: [Box<str>; 1] = [CLOUD_PLATFORM.into()];
        Self {
            set: Some(Hashed::new(Arc::new(set))),
        }
    }

    /// Iterates over the scopes, sorted and without duplicates.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.set
            .iter()
            .flat_map(|set| set.iter())
            .map(|scope| &**scope)
    }

    /// True if the set is empty, that is, the source decides.
    pub fn is_empty(&self) -> bool {
        self.set.is_none()
    }
}

fn check_scope(scope: &str) -> Result<(), ConfigError> {
    let fault = |at, reason| Err(ConfigError::new("scope", scope, reason).at(at));
    if scope.is_empty() {
        return Err(ConfigError::new("scope", scope, "it is empty"));
    }
    for (at, character) in scope.chars().enumerate() {
        match character {
            ',' => return fault(at, "a comma separates scopes: give each one on its own"),
            ' ' => return fault(at, "a space separates scopes: give each one on its own"),
            '!' | '#'..='[' | ']'..='~' => {}
            _ => {
                return fault(
                    at,
                    "only visible ASCII without '\"' and '\\' may stand in a scope",
                );
            }
        }
    }
    Ok(())
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s163_hostile_scopes_are_refused_where_they_stand() {
        let long = "x".repeat(100 * 1024);
        for (scope, at) in [
            ("", None),
            ("a b", Some(1)),
            ("a,b", Some(1)),
            ("a\r\n", Some(1)),
            ("é", Some(0)),
            ("a\"", Some(1)),
            ("a\\b", Some(1)),
            ("abc\u{7f}", Some(3)),
            (&long, None),
        ] {
            let error = Scopes::new([scope]).unwrap_err();
            assert_eq!(error.position(), at, "{error}");
            assert!(error.to_string().len() < 600, "a short message");
        }
    }
}
