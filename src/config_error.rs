//! What a caller wrote that cannot mean anything: a scope, an audience, an account, an endpoint, a
//! destination pattern, a duration.
//!
//! Knows the text it was given and where in it the trouble is; knows nothing of requests, tokens
//! or sources. The text is configuration, never a secret.

use std::fmt;

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
        let mut shown: String = given.chars().take(SHOWN).collect();
        if shown.len() < given.len() {
            shown.push('…');
        }
        Self {
            what,
            given: shown,
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
