//! Malformed configuration from the caller: a scope, an audience, an account, an endpoint, a
//! destination pattern, a duration.
//!
//! Knows the text it was given and where in it the problem is; knows nothing of requests, tokens or
//! sources. The text is configuration, never a secret: anything before an `@` that could be a password,
//! or a token used as a user name, is left out.

use std::{borrow::Cow, fmt};

use crate::text;

/// An error in the configuration, reported where the value was given.
///
/// The message is one line: what was being configured, the offending text, where in it the problem
/// starts (counted in characters from 0), and what would be accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    what: &'static str,
    given: String,
    at: Option<usize>,
    reason: String,
}

/// Longest piece of the caller's text that a message quotes, in characters.
const SHOWN: usize = 120;

impl ConfigError {
    /// `what` is what was configured ("scope"), `given` the caller's text, `reason` the complaint.
    pub(crate) fn new(what: &'static str, given: &str, reason: impl Into<String>) -> Self {
        // The position still refers to the original text.
        let (scheme, rest) = given.split_at(given.find("://").map_or(0, |at| at + "://".len()));
        let given = match rest.rsplit_once('@') {
            // With neither a scheme nor a colon, it is an account's e-mail address.
            Some((user, rest)) if !scheme.is_empty() || user.contains(':') => {
                Cow::Owned(format!("{scheme}…@{rest}"))
            }
            _ => Cow::Borrowed(given),
        };
        Self {
            what,
            given: text::clipped(&given, SHOWN).into_owned(),
            at: None,
            reason: reason.into(),
        }
    }

    /// Sets the character position (counted from 0) at which `given` goes wrong.
    pub(crate) fn at(mut self, position: usize) -> Self {
        self.at = Some(position);
        self
    }

    /// What was being configured, such as `"scope"` or `"destination"`.
    pub fn what(&self) -> &str {
        self.what
    }

    /// The position in the given text, in characters from 0, where the problem starts, if there is a
    /// single one.
    pub fn position(&self) -> Option<usize> {
        self.at
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:?}` escapes control characters, so that the message stays on one line.
        write!(f, "invalid {} {:?}", self.what, self.given)?;
        if let Some(at) = self.at {
            write!(f, " at character {at}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigError({self})")
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_password_is_not_repeated() {
        for (given, shown) in [
            ("https://user:hunter2@host", "https://…@host"),
            ("https://hunter2@host", "https://…@host"),
            ("user:hunter2@host:80", "…@host:80"),
            ("http://a:hunter2@b:hunter2@host/x", "http://…@host/x"),
            ("me@example.com", "me@example.com"),
        ] {
            let error = ConfigError::new("destination", given, "no").at(given.find('@').unwrap());
            let text = format!("{error} {error:?}");
            assert!(text.contains(shown) && !text.contains("hunter2"), "{text}");
        }
    }
}
