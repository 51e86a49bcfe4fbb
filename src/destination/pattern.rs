//! An origin pattern: `scheme://host[:port]`, with at most one leading `*.` and one trailing slash.

use std::{borrow::Cow, fmt};

use super::{
    METADATA_SERVER,
    origin::{Host, Origin, OriginError, default_port, write_origin},
};
use crate::config_error::ConfigError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Exactly(Origin<'static>),
    /// Every name that ends in the suffix and has something before it.
    Below {
        secure: bool,
        /// `.example.com`, in lower case.
        suffix: Box<str>,
        port: u16,
    },
}

const WHAT: &str = "destination";
const WILDCARD: &str = "*.";

/// The limits of DNS.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

impl Pattern {
    /// `https` to a domain, already in canonical form, and everything below it.
    pub(super) fn domain_and_subdomains(domain: &str) -> [Self; 2] {
        let (secure, port) = (true, default_port(true));
        let suffix = format!(".{domain}").into();
        let host = Host::Name(Cow::Owned(domain.to_owned()));
        // Requests usually go to subdomains, so that pattern is tried first.
        [
            Self::Below {
                secure,
                suffix,
                port,
            },
            Self::Exactly(Origin { secure, host, port }),
        ]
    }

    pub(super) fn parse(given: &str) -> Result<Self, ConfigError> {
        let text = Text { what: WHAT, given };
        if given.is_empty() {
            return Err(text.wrong("it is empty; expected scheme://host[:port]"));
        }
        let Some((scheme, rest)) = given.split_once("://") else {
            return Err(text.wrong("the scheme is missing; expected https://host or http://host"));
        };
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(text.wrong_at(0, "the scheme must be https or http")),
        };
        let start = given.len() - rest.len();
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !matches!(path, "" | "/") {
            return Err(text.wrong_at(
                start + authority.len(),
                "expected an origin: nothing but one slash may follow the host and port",
            ));
        }
        let (start, authority, is_wildcard) = match authority.strip_prefix(WILDCARD) {
            Some(domain) => (start + WILDCARD.len(), domain, true),
            None => (start, authority, false),
        };
        let origin =
            Origin::parse(secure, authority).map_err(|error| text.unreadable(start, error))?;
        text.check_name(start, &origin.host)?;
        if is_wildcard {
            let suffix = format!(".{}", text.domain(start, &origin.host)?).into();
            let Origin { secure, port, .. } = origin;
            return Ok(Self::Below {
                secure,
                suffix,
                port,
            });
        }
        if origin.is_metadata_server() {
            return Err(text.wrong_at(start, METADATA_SERVER));
        }
        Ok(Self::Exactly(origin.into_owned()))
    }

    /// Parses a pattern without a wildcard.
    pub(super) fn parse_origin(given: &str) -> Result<Origin<'static>, ConfigError> {
        match Self::parse(given)? {
            Self::Exactly(origin) => Ok(origin),
            Self::Below { .. } => {
                let text = Text { what: WHAT, given };
                let at = given.find('*').unwrap_or_default();
                Err(text.wrong_at(at, "expected one origin, without a wildcard"))
            }
        }
    }

    pub(super) fn matches(&self, origin: &Origin<'_>) -> bool {
        match self {
            Self::Exactly(exactly) => exactly == origin,
            Self::Below {
                secure,
                suffix,
                port,
            } => {
                // No name begins with a dot, so there is a label before the suffix.
                let is_below = |name: &str| name.ends_with(&**suffix);
                *secure == origin.secure
                    && *port == origin.port
                    && matches!(&origin.host, Host::Name(name) if is_below(name))
            }
        }
    }
}

/// A domain name of at least two labels, in canonical form.
pub(super) fn parse_domain(what: &'static str, given: &str) -> Result<String, ConfigError> {
    let text = Text { what, given };
    let host = Host::parse(given).map_err(|error| text.unreadable(0, error))?;
    text.check_name(0, &host)?;
    text.domain(0, &host).map(str::to_owned)
}

/// The text being parsed.
struct Text<'a> {
    what: &'static str,
    given: &'a str,
}

impl Text<'_> {
    fn wrong(&self, reason: &str) -> ConfigError {
        ConfigError::new(self.what, self.given, reason)
    }

    /// The text is wrong from this byte on.
    fn wrong_at(&self, byte: usize, reason: &str) -> ConfigError {
        let before = self.given.get(..byte).unwrap_or_default();
        self.wrong(reason).at(before.chars().count())
    }

    /// The authority that starts at this byte cannot be read.
    fn unreadable(&self, start: usize, error: OriginError) -> ConfigError {
        let at = start + error.at.unwrap_or_default();
        let odd = self.given.get(at..).and_then(|rest| rest.chars().next());
        let reason = match odd {
            Some('*') => {
                "a wildcard stands for whole labels, once, in front: https://*.example.com"
            }
            Some(c) if !c.is_ascii() => "write an international name in its ASCII form (xn--…)",
            _ => error.reason,
        };
        self.wrong_at(at, reason)
    }

    /// A request may ask for a name that nobody can have; in a pattern, it is a mistake.
    fn check_name(&self, start: usize, host: &Host<'_>) -> Result<(), ConfigError> {
        let Host::Name(name) = host else {
            return Ok(());
        };
        if name.len() > LONGEST_NAME {
            return Err(self.wrong_at(start, "a DNS name has at most 253 characters"));
        }
        let mut at = start;
        for label in name.split('.') {
            let reason = match label.as_bytes() {
                [b'-', ..] | [.., b'-'] => "a label neither starts nor ends with a hyphen",
                label if label.len() > LONGEST_LABEL => "a label has at most 63 characters",
                label => {
                    at += label.len() + ".".len();
                    continue;
                }
            };
            return Err(self.wrong_at(at, reason));
        }
        Ok(())
    }

    /// `host`, which was given at this byte, is a name of at least two labels.
    fn domain<'a>(&self, start: usize, host: &'a Host<'_>) -> Result<&'a str, ConfigError> {
        match host {
            Host::Name(domain) if domain.contains('.') => Ok(domain),
            Host::Name(_) => {
                Err(self.wrong_at(start, "expected a domain name of at least two labels"))
            }
            Host::V4(_) | Host::V6(_) => {
                Err(self.wrong_at(start, "expected a domain name, not an address"))
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(origin) => write!(f, "{origin}"),
            Self::Below {
                secure,
                suffix,
                port,
            } => write_origin(f, *secure, &format_args!("*{suffix}"), *port),
        }
    }
}
