//! Real tokens instead of random ones, from a cache that the builder was given.
//!
//! Knows the cache and who may have its tokens; knows no paths and no sockets.

use std::net::IpAddr;

use http::header::HOST;

use super::{answer::Answer, head::Head};
use crate::{
    config_error::ConfigError,
    token::{cache::TokenCache, request::TokenRequest},
};

pub(super) struct Relay {
    cache: TokenCache,
    /// Whether any name in `Host` is accepted.
    exposed: bool,
}

/// The names, as opposed to addresses, that clients use for a metadata server.
const NAMES: [&str; 3] = ["localhost", "metadata", "metadata.google.internal"];

impl Relay {
    pub(super) fn new(cache: TokenCache, exposed: bool) -> Self {
        Self { cache, exposed }
    }

    /// Returns the token that `head` asks for (`asked`), or says why there is none.
    pub(super) async fn answer(
        &self,
        head: &Head,
        asked: Result<TokenRequest, ConfigError>,
    ) -> Answer {
        if !self.exposed && !is_ours(head) {
            return Answer::status(403).with_body("this Host is not served");
        }
        let request = match asked {
            Ok(request) => request,
            Err(error) => return Answer::status(400).with_body(error.to_string()),
        };
        match self.cache.token_and_life(&request).await {
            Ok((token, _)) if request.audience().is_some() => {
                Answer::id_token(token.expose_secret().to_owned())
            }
            Ok((token, left)) => Answer::token(token.expose_secret(), left),
            // What the real server returns when it has problems; clients try again.
            Err(error) => Answer::status(503).with_body(error.on_one_line()),
        }
    }
}

/// True if the request was meant for this server, by address or by a metadata server's name.
///
/// A page in the developer's browser can be served from a name that is then made to point here (DNS
/// rebinding). The browser considers that the page's own origin, and lets it send any header; but
/// `Host` holds the name.
fn is_ours(head: &Head) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(Ok(host)), None) = (hosts.next().map(|host| host.to_str()), hosts.next()) else {
        return false;
    };
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok() || NAMES.iter().any(|name| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::head::{Progress, take};

    fn ours(hosts: &[&str]) -> bool {
        let mut text = String::from("GET / HTTP/1.1\r\n");
        for host in hosts {
            text.push_str(&format!("Host: {host}\r\n"));
        }
        text.push_str("\r\n");
        match take(&mut text.into_bytes()) {
            Progress::Complete(head) => is_ours(&head),
            _ => false,
        }
    }

    #[test]
    fn names_that_somebody_made_point_here_are_not_ours() {
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "localhost:8080",
            "metadata.google.internal",
            "METADATA",
        ] {
            assert!(ours(&[host]), "{host}");
        }
        for host in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(!ours(&[host]), "{host}");
        }
        assert!(!ours(&[]));
        assert!(!ours(&["localhost", "evil.example"]));
    }
}
