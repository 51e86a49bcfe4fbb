//! `TokenRequest`: what a token source is asked for, and therefore the key a token is cached under.
//!
//! Scopes and audiences are checked on construction, so that no later code has to. Knows nothing of
//! sources, HTTP requests or time.
//!
//! | file | its job |
//! | --- | --- |
//! | `scopes.rs` | a set of OAuth scopes |
//! | `audience.rs` | whom an ID token is for |
//! | `hashed.rs` | a shared value that is hashed once |

mod audience;
mod hashed;
pub(crate) mod scopes;

use std::fmt;

pub use self::{audience::Audience, scopes::Scopes};
use crate::error::{AuthError, Kind};

/// What to ask a token source for, and the key under which its token is cached.
///
/// Cheap to create, clone, compare and hash: nothing is allocated.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    want: Want,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Want {
    Access(Scopes),
    Id(Audience),
}

/// Longest scope set and longest audience, in bytes. Percent-encoded, they must fit into the request
/// line of an HTTP request, for which servers commonly allow 8 KiB.
const MOST_BYTES: usize = 8 * 1024;

impl TokenRequest {
    /// Creates a request for an OAuth access token.
    pub fn access_token(scopes: Scopes) -> Self {
        Self {
            want: Want::Access(scopes),
        }
    }

    /// Creates a request for an OpenID Connect ID token.
    pub fn id_token(audience: Audience) -> Self {
        Self {
            want: Want::Id(audience),
        }
    }

    /// The scopes of an access token; `None` for an ID token.
    pub fn scopes(&self) -> Option<&Scopes> {
        match &self.want {
            Want::Access(scopes) => Some(scopes),
            Want::Id(_) => None,
        }
    }

    /// The audience of an ID token; `None` for an access token.
    pub fn audience(&self) -> Option<&Audience> {
        match &self.want {
            Want::Access(_) => None,
            Want::Id(audience) => Some(audience),
        }
    }

    /// Returns an error if no source can be asked for this.
    pub(crate) fn check(&self) -> Result<(), AuthError> {
        match self.audience() {
            Some(audience) if audience.as_str().is_none() => Err(AuthError::new(
                Kind::Request,
                "Audience::per_origin() needs a request to take the origin from: \
                 use it in a layer or in a request's extensions",
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.want {
            Want::Access(scopes) if scopes.is_empty() => f.write_str("access token"),
            Want::Access(scopes) => write!(f, "access token for {scopes:?}"),
            Want::Id(audience) => write!(f, "ID token for {audience:?}"),
        }
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenRequest({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::hash_map::RandomState, hash::BuildHasher};

    use super::*;

    #[test]
    fn s160_order_and_repetition_do_not_matter() {
        let one = TokenRequest::access_token(Scopes::new(["a", "b"]).unwrap());
        for other in [vec!["b", "a"], vec!["a", "b", "a"]] {
            let other = TokenRequest::access_token(Scopes::new(other).unwrap());
            assert_eq!(one, other);
            let seed = RandomState::new();
            assert_eq!(seed.hash_one(&one), seed.hash_one(&other));
        }
        assert_ne!(one, TokenRequest::access_token(Scopes::default()));
        assert_ne!(one, TokenRequest::id_token(Audience::new("a").unwrap()));
    }
}
