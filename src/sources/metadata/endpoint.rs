//! The metadata server's address. Text in, host and port out; resolves nothing.

use std::net::Ipv6Addr;

use crate::config_error::ConfigError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

/// Documented as stable; works without a resolver.
const WELL_KNOWN: &str = "169.254.169.254";
const DEFAULT_PORT: u16 = 80;

impl Endpoint {
    pub(super) fn well_known() -> Self {
        Self {
            host: WELL_KNOWN.to_owned(),
            port: DEFAULT_PORT,
        }
    }

    /// Parses `host` or `host:port`, each with or without `http://` and one trailing slash.
    pub(super) fn parse(what: &'static str, given: &str) -> Result<Self, ConfigError> {
        let wrong = |reason: &str| ConfigError::new(what, given, reason);
        if given.is_empty() {
            return Err(wrong(
                "it is empty; expected host, host:port or http://host:port",
            ));
        }
        let rest = match given.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(wrong("the metadata server speaks http only").at(0)),
            None => given,
        };
        // Everything before `rest` is ASCII: bytes and characters count the same.
        let scheme = given.len() - rest.len();
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let odd =
            |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if let Some(at) = rest.chars().position(odd) {
            return Err(wrong("expected nothing but a host and a port").at(scheme + at));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let Some((host, rest)) = rest.split_once(']') else {
                    return Err(wrong("the bracket of the IPv6 address is not closed"));
                };
                if host.parse::<Ipv6Addr>().is_err() {
                    return Err(wrong("the brackets do not hold an IPv6 address"));
                }
                match (rest, rest.strip_prefix(':')) {
                    ("", _) => (host, None),
                    (_, Some(port)) => (host, Some(port)),
                    _ => return Err(wrong("expected a port after the IPv6 address")),
                }
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        if !host.contains(':') && (host.contains(['[', ']']) || host.split('.').any(str::is_empty))
        {
            return Err(wrong("this is not a host name"));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
                _ => return Err(wrong("the port must be a number from 1 to 65535")),
            },
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// As written in a `Host` header and in messages.
    pub(super) fn authority(&self) -> String {
        match (self.host.contains(':'), self.port) {
            (false, DEFAULT_PORT) => self.host.clone(),
            (false, port) => format!("{}:{port}", self.host),
            (true, DEFAULT_PORT) => format!("[{}]", self.host),
            (true, port) => format!("[{}]:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s063_accepted_forms() {
        for (given, authority) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080"),
            (
                "HTTP://metadata.google.internal",
                "metadata.google.internal",
            ),
            ("localhost", "localhost"),
            ("[::1]:9000", "[::1]:9000"),
            ("http://[::1]/", "[::1]"),
            ("host:80", "host"),
        ] {
            assert_eq!(
                Endpoint::parse("endpoint", given).unwrap().authority(),
                authority
            );
        }
    }

    #[test]
    fn s063_refused_forms() {
        for given in [
            "",
            "http://",
            "/",
            "host:-1",
            "host:0",
            "host:65536",
            "host:",
            "host:+1",
            "a b",
            ":80",
            "https://host",
            "ftp://host",
            "http://host/path",
            "host/path",
            "user@host",
            "host?x=1",
            "[::1",
            "[zz]",
            "[::1]x",
            "::1",
            "a..b",
            "host\n",
            "hôst",
            "host:1:2",
            "http://http://x",
        ] {
            let error = Endpoint::parse("endpoint", given).unwrap_err();
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        assert_eq!(
            Endpoint::parse("endpoint", "http://a b/")
                .unwrap_err()
                .position(),
            Some(8)
        );
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_parses_parses_again(given in "\\PC{0,40}|(http://)?[a-z:\\[\\]./0-9]{0,20}") {
            if let Ok(endpoint) = Endpoint::parse("endpoint", &given) {
                prop_assert_eq!(Endpoint::parse("endpoint", &endpoint.authority()).unwrap(), endpoint);
            }
        }
    }
}
