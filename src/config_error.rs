//! What a caller wrote that cannot mean anything: a scope, an audience, an account, an endpoint, a
//! destination pattern, a duration.
//!
//! Knows the text it was given and where in it the trouble is; knows nothing of requests, tokens
//! or sources. The text is configuration, never a secret: what could be a password, or a token that serves
//! as a user's name, before an `@` is left out.

use std::{borrow::Cow, fmt};

use crate::text;

/// Malformed configuration, reported where it was given.
///
/// The message is one line: what was being configured, the offending text, where in it the trouble
/// starts (counted in characters from 0), and what would be accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    what: &'static str,
    given: String,
    at: Option<usize>,
    reason: String,
}

/// Longest piece of the caller's text that a message repeats, in characters.
const SHOWN: usize = 120;

impl ConfigError {
    /// `what` is the thing configured ("scope"), `given` the caller's text, `reason` the complaint.
    pub(crate) fn new(what: &'static str, given: &str, reason: impl Into<String>) -> Self {
        // The position still counts in what was given.
        let (scheme, rest) = given.split_at(given.find("://").map_or(0, |at| at + "://".len()));
        let given = match rest.rsplit_once('@') {
            // Without a scheme, and without a colon, it is an account's address.
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

    /// Names the character (counted from 0) at which `given` goes wrong.
    pub(crate) fn at(mut self, position: usize) -> Self {
        self.at = Some(position);
        self
    }

    /// What was being configured, such as `"scope"` or `"destination"`.
    pub fn what(&self) -> &str {
        self.what
    }

    /// Where in the given text the trouble starts, in characters from 0, if it is in one place.
    pub fn position(&self) -> Option<usize> {
        self.at
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:?}` escapes control characters, so that a message stays one line.
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
