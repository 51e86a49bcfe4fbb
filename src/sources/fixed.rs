//! `Fixed`: one token, as given. Knows nothing of where it came from.

use std::{fmt, time::SystemTime};

use crate::{
    error::{AuthError, Kind},
    token::{request::TokenRequest, source::TokenSource, value::Token},
};

/// A constant token: for tests, and for keys that somebody else looks after.
///
/// It answers **every** request alike, whatever scopes or audience it asks for: what the token is
/// good for was decided where it was made. [`only`](Self::only) makes it refuse other requests.
///
/// ```
/// use tower_scoped_auth::{ScopedAuthLayer, sources::Fixed};
///
/// let auth = ScopedAuthLayer::new(Fixed::new("secret"));
/// # let _ = auth;
/// ```
#[derive(Clone)]
pub struct Fixed {
    token: Token,
    only: Option<TokenRequest>,
}

impl Fixed {
    /// A token that does not expire as far as is known.
    ///
    /// The string's buffer is zeroed after it was copied. A secret that is empty or cannot stand in
    /// a header is a failed attempt, as it is with [`Token::new`].
    pub fn new(secret: impl Into<String>) -> Self {
        Self {
            token: Token::without_expiry(secret),
            only: None,
        }
    }

    /// A token that is not used after `expiry`, by the wall clock.
    pub fn expiring_at(secret: impl Into<String>, expiry: SystemTime) -> Self {
        Self {
            token: Token::expiring_at(secret, expiry),
            only: None,
        }
    }

    /// Answers `request` only, and refuses others with an error that is not transient.
    pub fn only(mut self, request: TokenRequest) -> Self {
        self.only = Some(request);
        self
    }
}

impl TokenSource for Fixed {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        match &self.only {
            Some(only) if *only != request => {
                let reason = format!("the fixed token is for another request: {only}");
                Err(AuthError::new(Kind::Request, reason))
            }
            _ => Ok(self.token.clone()),
        }
    }

    fn name(&self) -> &'static str {
        "fixed"
    }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixed")
            .field("only", &self.only)
            .finish_non_exhaustive()
    }
}
