//! One origin pattern: `scheme://host[:port]`, with at most one leading `*.`.
//!
//! Parsing is slow and reports detailed errors; matching compares ports and bytes.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    origin::{self, Origin},
    shortcut::Shortcut,
};
use crate::config_error::ConfigError;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    secure: bool,
    host: Host,
    port: u16,
}

#[derive(Clone, PartialEq, Eq)]
enum Host {
    /// In lower case.
    Exact(Box<str>),
    /// `.example.com`, in lower case: matches any host that ends in it and has something before it.
    Below(Box<str>),
    V6(Ipv6Addr),
}

const WHAT: &str = "destination";
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

impl Pattern {
    /// `https` to a domain (already checked) and everything below it.
    pub(super) fn domain_and_subdomains(domain: &str) -> [Self; 2] {
        let below = Host::Below(format!(".{domain}").into());
        let pattern = |host| Self {
            secure: true,
            host,
            port: origin::default_port(true),
        };
        // Requests usually go to subdomains, so that pattern is tried first.
        [pattern(below), pattern(Host::Exact(domain.into()))]
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
            _ => return Err(text.wrong_at(scheme, "the scheme must be https or http")),
        };
        let default_port = origin::default_port(secure);
        if let Some(at) = rest.find(['/', '?', '#', '@', '\\', '%']) {
            let (_, tail) = rest.split_at(at);
            return Err(text.wrong_at(
                tail,
                match tail.as_bytes().first() {
                    Some(b'@') => "user information has no place in an origin",
                    Some(b'/') => {
                        "expected an origin: nothing may follow the host and port, not even a slash"
                    }
                    _ => "expected an origin: scheme, host and port, nothing else",
                },
            ));
        }
        if rest.starts_with('[') {
            let (address, tail) = bracketed(&text, rest)?;
            let port = text.port(tail, default_port)?;
            return Ok(Self {
                secure,
                host: Host::V6(address),
                port,
            });
        }
        let (host, tail) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
        let host = match host.strip_prefix("*.") {
            Some(domain) => Host::Below(format!(".{}", text.domain(domain)?).into()),
            None => Host::Exact(text.host(host)?.into()),
        };
        let port = text.port(tail, default_port)?;
        Ok(Self { secure, host, port })
    }

    /// This pattern in a form that is fast to compare, if there is one.
    pub(super) fn shortcut(&self) -> Option<Shortcut> {
        let default_port = origin::default_port(self.secure);
        match &self.host {
            Host::Below(suffix) if self.port == default_port => {
                Shortcut::below(self.secure, suffix)
            }
            Host::Exact(host) if self.port == default_port => Shortcut::exactly(self.secure, host),
            Host::Exact(host) => Shortcut::exactly(self.secure, &format!("{host}:{}", self.port)),
            Host::Below(_) | Host::V6(_) => None,
        }
    }

    pub(super) fn matches(&self, origin: &Origin<'_>) -> bool {
        if self.port != origin.port || self.secure != origin.secure {
            return false;
        }
        match &self.host {
            Host::Below(suffix) => {
                let (host, suffix) = (origin.host.as_bytes(), suffix.as_bytes());
                // Something must be left before the dot, and it must not end in another dot.
                let Some(labels) = host.len().checked_sub(suffix.len()) else {
                    return false;
                };
                match host.split_at_checked(labels) {
                    Some(([.., last], tail)) => *last != b'.' && same(tail, suffix),
                    _ => false,
                }
            }
            Host::Exact(host) => !origin.is_v6 && same(origin.host.as_bytes(), host.as_bytes()),
            Host::V6(address) => origin.is_v6 && origin.host.parse() == Ok(*address),
        }
    }
}

/// Compares ignoring ASCII case. Nearly every host is in lower case, as `pattern` is, so the exact
/// comparison comes first and is many times faster.
#[inline]
fn same(host: &[u8], pattern: &[u8]) -> bool {
    host == pattern || host.eq_ignore_ascii_case(pattern)
}

/// Returns a domain name of at least two labels, in lower case.
pub(super) fn checked_domain(what: &'static str, given: &str) -> Result<String, ConfigError> {
    Text { what, given }.domain(given)
}

fn bracketed<'a>(text: &Text<'a>, rest: &'a str) -> Result<(Ipv6Addr, &'a str), ConfigError> {
    let Some((address, tail)) = rest.get(1..).and_then(|rest| rest.split_once(']')) else {
        return Err(text.wrong_at(rest, "the bracket of the IPv6 address is not closed"));
    };
    let Ok(parsed) = address.parse() else {
        return Err(text.wrong_at(address, "expected an IPv6 address in the brackets"));
    };
    if origin::is_metadata_host(address) {
        return Err(text.wrong_at(address, "the metadata server is never a destination"));
    }
    Ok((parsed, tail))
}

/// The text being parsed. Pieces of it must be slices of `given`, so that their position can be
/// reported.
struct Text<'a> {
    what: &'static str,
    given: &'a str,
}

impl Text<'_> {
    fn wrong(&self, reason: &str) -> ConfigError {
        ConfigError::new(self.what, self.given, reason)
    }

    /// `piece` is the part of the given text that is wrong.
    fn wrong_at(&self, piece: &str, reason: &str) -> ConfigError {
        let offset = (piece.as_ptr() as usize).saturating_sub(self.given.as_ptr() as usize);
        let before = self.given.get(..offset).unwrap_or_default();
        self.wrong(reason).at(before.chars().count())
    }

    /// `""` or `":8080"`.
    fn port(&self, tail: &str, default: u16) -> Result<u16, ConfigError> {
        if tail.is_empty() {
            return Ok(default);
        }
        let digits = tail.strip_prefix(':').unwrap_or_default().as_bytes();
        origin::port(digits)
            .ok_or_else(|| self.wrong_at(tail, "expected a colon and a port from 1 to 65535"))
    }

    /// A DNS name of any number of labels, or an IPv4 address.
    fn host(&self, host: &str) -> Result<String, ConfigError> {
        let name = self.name(host)?;
        if origin::is_metadata_host(host) {
            return Err(self.wrong_at(host, "the metadata server is never a destination"));
        }
        let last = host.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
            || last
                .get(..2)
                .is_some_and(|start| start.eq_ignore_ascii_case("0x"));
        if numeric && host.parse::<Ipv4Addr>().is_err() {
            return Err(self.wrong_at(host, "expected an IPv4 address of four decimal numbers"));
        }
        Ok(name)
    }

    /// A DNS name of at least two labels.
    fn domain(&self, domain: &str) -> Result<String, ConfigError> {
        let name = self.name(domain)?;
        if !domain.contains('.') {
            let reason = "expected at least two labels: one would be everybody's, as in *.com";
            return Err(self.wrong_at(domain, reason));
        }
        let last = domain.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.wrong_at(domain, "expected a domain name, not an address"));
        }
        Ok(name)
    }

    fn name(&self, name: &str) -> Result<String, ConfigError> {
        if name.is_empty() {
            return Err(self.wrong_at(name, "the host is missing"));
        }
        if let Some(at) = name.find(|c: char| !c.is_ascii() || !origin::is_host_byte(c as u8)) {
            let (_, tail) = name.split_at(at);
            return Err(self.wrong_at(
                tail,
                match tail.chars().next() {
                    Some('*') => {
                        "a wildcard stands for whole labels, once, in front: https://*.example.com"
                    }
                    Some(c) if !c.is_ascii() => {
                        "write an international name in its ASCII form (xn--…)"
                    }
                    _ => "this character cannot stand in a host",
                },
            ));
        }
        if name.len() > LONGEST_NAME {
            return Err(self.wrong_at(name, "a DNS name has at most 253 characters"));
        }
        for label in name.split('.') {
            let reason = match label.as_bytes() {
                [] => "a label is empty (a dot at the end is not needed)",
                [b'-', ..] | [.., b'-'] => "a label neither starts nor ends with a hyphen",
                label if label.len() > LONGEST_LABEL => "a label has at most 63 characters",
                _ => continue,
            };
            return Err(self.wrong_at(label, reason));
        }
        Ok(name.to_ascii_lowercase())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = origin::scheme(self.secure);
        match &self.host {
            Host::Exact(host) => write!(f, "{scheme}://{host}")?,
            Host::Below(suffix) => write!(f, "{scheme}://*{suffix}")?,
            Host::V6(address) => write!(f, "{scheme}://[{address}]")?,
        }
        if self.port == origin::default_port(self.secure) {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
