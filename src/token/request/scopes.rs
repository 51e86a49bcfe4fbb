//! `Scopes`: a set of OAuth scopes, checked where it is given.
//!
//! Knows the syntax of RFC 6749 scopes, and the comma that separates them on the way to the metadata
//! server. Knows nothing of sources, HTTP requests or time.

use std::{fmt, sync::Arc};

use super::{MOST_BYTES, hashed::Hashed};
use crate::config_error::ConfigError;

/// A set of OAuth scopes (RFC 6749, section 3.3): order and repetition do not matter.
///
/// Empty ([`Scopes::default`]) means that the source decides: on Google Cloud that is
/// `cloud-platform` as a rule, or what the virtual machine was given.
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
/// Clones share one allocation. Put one into a request's extensions to override the layer's choice.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Scopes {
    // `None` for no scopes: a default value allocates nothing.
    set: Option<Hashed<[Box<str>]>>,
}

/// The scope under which IAM alone decides what is allowed.
pub(crate) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

impl Scopes {
    /// Checks and collects scopes; none at all is [`Scopes::default`].
    ///
    /// # Errors
    ///
    /// A scope that is empty, or has a character that RFC 6749 does not allow in one (`scope-token`:
    /// visible ASCII without `"` and `\`), or has a comma, which separates scopes on the way to the
    /// metadata server; scopes of more than 8 KiB together.
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

    /// `https://www.googleapis.com/auth/cloud-platform`: whatever IAM allows.
    pub fn cloud_platform() -> Self {
        let set: [Box<str>; 1] = [CLOUD_PLATFORM.into()];
        Self {
            set: Some(Hashed::new(Arc::new(set))),
        }
    }

    /// The scopes, sorted, each once.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.set
            .iter()
            .flat_map(|set| set.iter())
            .map(|scope| &**scope)
    }

    /// True if the source decides.
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
