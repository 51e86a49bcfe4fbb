//! `Fixed`: one token, as given. Does not know where it came from.

use std::{fmt, time::SystemTime};

use crate::{
    error::{AuthError, Kind},
    token::{request::TokenRequest, source::TokenSource, value::Token},
};

/// A constant token, for tests and for keys that are managed elsewhere.
///
/// It answers **every** request alike, whatever scopes or audience the request asks for: what the token
/// is good for was decided when it was issued. [`only`](Self::only) makes it refuse other requests.
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
    /// Creates a source with a token that has no known expiry.
    ///
    /// The string's buffer is zeroed after it has been copied. A secret that is empty or not valid in a
    /// header is a failed attempt, as with [`Token::new`].
    pub fn new(secret: impl Into<String>) -> Self {
        Self {
            token: Token::without_expiry(secret),
            only: None,
        }
    }

    /// Creates a source with a token that is not used after `expiry`, by the wall clock.
    pub fn expiring_at(secret: impl Into<String>, expiry: SystemTime) -> Self {
        Self {
            token: Token::expiring_at(secret, expiry),
            only: None,
        }
    }

    /// Answers only `request`, and refuses all others with an error that is not transient.
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
