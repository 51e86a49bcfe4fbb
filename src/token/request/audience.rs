//! `Audience`: whom an ID token is for, checked on construction.

use std::fmt;

use super::{MOST_BYTES, hashed::Hashed};
use crate::config_error::ConfigError;

/// The audience of an ID token: the URL or client ID of the service that will receive it.
///
/// Clones share one allocation. Insert one into a request's extensions to override the layer's choice.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Audience {
    text: AudienceText,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum AudienceText {
    Fixed(Hashed<str>),
    PerOrigin,
}

impl Audience {
    /// Creates an audience, as the receiving service expects it: a URL for Cloud Run, a client ID for
    /// IAP.
    ///
    /// # Errors
    ///
    /// The audience is empty, longer than 8 KiB, or contains white space or a control character.
    pub fn new(audience: impl AsRef<str>) -> Result<Self, ConfigError> {
        let audience = audience.as_ref();
        let fault = |reason| ConfigError::new("audience", audience, reason);
        if audience.is_empty() {
            return Err(fault("it is empty"));
        }
        if audience.len() > MOST_BYTES {
            return Err(fault("it is longer than 8 KiB"));
        }
        let odd = |character: char| character.is_whitespace() || character.is_control();
        if let Some(at) = audience.chars().position(odd) {
            return Err(fault("it must not have white space or control characters").at(at));
        }
        Ok(Self {
            text: AudienceText::Fixed(Hashed::new(audience.into())),
        })
    }

    /// Uses each request's own origin as its audience.
    ///
    /// The audience is `https://host[:port]`, or `http://…` where such a destination is allowed. One
    /// client can thus serve many Cloud Run services, with one cached ID token each.
    ///
    /// Only a layer or a request can use this. Elsewhere there is no origin to take, so a
    /// [`TokenRequest`](super::TokenRequest) made from it directly is an error when used.
    pub fn per_origin() -> Self {
        Self {
            text: AudienceText::PerOrigin,
        }
    }

    /// The audience's text; `None` for [`Audience::per_origin`].
    pub fn as_str(&self) -> Option<&str> {
        match &self.text {
            AudienceText::Fixed(text) => Some(text),
            AudienceText::PerOrigin => None,
        }
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => fmt::Debug::fmt(text, f),
            None => f.write_str("(the request's origin)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::request::TokenRequest;

    #[test]
    fn an_audience_is_checked() {
        for (audience, at) in [
            ("", None),
            ("a b", Some(1)),
            ("a\n", Some(1)),
            ("\u{85}", Some(0)),
        ] {
            assert_eq!(Audience::new(audience).unwrap_err().position(), at);
        }
        assert!(Audience::new("x".repeat(MOST_BYTES + 1)).is_err());
        let per_origin = TokenRequest::id_token(Audience::per_origin());
        assert!(
            per_origin
                .check()
                .unwrap_err()
                .to_string()
                .contains("per_origin")
        );
    }
}
