//! Where a client connects to, by its own reading of a URI; and what URIs are made of.
//!
//! Expected results for the destination check, for `tests/destinations.rs` and for the fuzz target
//! `destinations`. They come from `http::Uri` and `url::Url`, which the clients use, and never from the crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{Uri, uri::Scheme};
use reqwest::Url;

#[derive(Debug, PartialEq)]
pub struct Place {
    pub secure: bool,
    /// In lower case, without brackets.
    pub host: String,
    pub port: u16,
}

impl Place {
    /// As hyper-util's `HttpConnector` takes a URI apart, and hyper-rustls its scheme.
    pub fn of_hyper(uri: &Uri) -> Option<Self> {
        let secure = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let port = uri.port().map(|port| port.as_u16());
        Some(Self {
            secure,
            host: without_brackets(uri.host()?).to_ascii_lowercase(),
            port: port.unwrap_or(if secure { 443 } else { 80 }),
        })
    }

    /// As reqwest sees a URL before it hands its text to hyper, which reads it again.
    pub fn of_reqwest(url: &Url) -> Option<Self> {
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            secure,
            host: without_brackets(url.host_str()?).to_ascii_lowercase(),
            port: url.port_or_known_default()?,
        })
    }

    pub fn is_allowed_by(&self, pattern: &Pattern) -> bool {
        let address = |host: &str| host.parse::<IpAddr>().ok();
        let Pattern { place, below } = pattern;
        let hosts = match below {
            true => {
                let labels = self.host.strip_suffix(&place.host);
                labels.is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
            }
            false if address(&self.host).is_some() => address(&self.host) == address(&place.host),
            false => self.host == place.host,
        };
        hosts
            && self.secure == place.secure
            && self.port == place.port
            && !self.is_metadata_server()
    }

    fn is_metadata_server(&self) -> bool {
        const V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
        let address = match self.host.parse() {
            Ok(IpAddr::V6(address))
                if address == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254) =>
            {
                return true;
            }
            Ok(address) => address.to_canonical(),
            Err(_) => return ["metadata", "metadata.google.internal"].contains(&&*self.host),
        };
        address == IpAddr::V4(V4)
    }
}

/// A pattern, read as the URI that it is once its wildcard is gone.
pub struct Pattern {
    place: Place,
    below: bool,
}

impl Pattern {
    pub fn read(pattern: &str) -> Option<Self> {
        let exactly = pattern.replacen("://*.", "://", 1);
        Some(Self {
            place: Place::of_hyper(&exactly.parse().ok()?)?,
            below: exactly != pattern,
        })
    }
}

fn without_brackets(host: &str) -> &str {
    let inside = host.strip_prefix('[');
    inside
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// True for an authority that is plainly a name or an address, with or without a port.
pub fn is_plain(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "443"),
    };
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let edges = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && !edges && label.bytes().all(plain)
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_name = host.split('.').all(is_label) && last.bytes().all(|b| b.is_ascii_alphabetic());
    let is_v4 = host.parse::<Ipv4Addr>().is_ok();
    let is_v6 =
        without_brackets(host) != host && without_brackets(host).parse::<Ipv6Addr>().is_ok();
    (is_name || is_v4 || is_v6) && ["80", "443", "8080"].contains(&port)
}

pub const GOOGLE_APIS: [&str; 2] = ["https://googleapis.com", "https://*.googleapis.com"];

pub const PATTERNS: [&str; 8] = [
    "https://*.run.app",
    "https://run.app:8080",
    "https://*.google.internal",
    "http://127.0.0.1:8080",
    "http://[::1]",
    "https://[::ffff:7f00:1]:443",
    "http://*.evil.com:80",
    "http://localhost",
];

// The pieces that URIs are made of. Each is harmless in some place.

pub const SCHEMES: [&str; 6] = ["https", "https", "http", "HTTPS", "hTTp", "ftp"];

pub const HOSTS: [&str; 26] = [
    "storage.googleapis.com",
    "googleapis.com",
    "x.run.app",
    "run.app",
    "evil.com",
    "www.evil.com",
    "metadata.google.internal",
    "metadata",
    "x.google.internal",
    "169.254.169.254",
    "127.0.0.1",
    "127.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "2130706433",
    "localhost",
    "xn--googleapis-7jk.com",
    "a_b.run.app",
    "a--b.run.app",
    "-.run.app",
    "x.googleapis.com.",
    "a..googleapis.com",
    "x,.googleapis.com",
    "evil。com",
    "storage。googleapis.com",
    "",
];

pub const V6: [&str; 9] = [
    "::1",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
    "::FFFF:7f00:1",
    "::ffff:169.254.169.254",
    "fd20:ce::254",
    "fe80::1%25eth0",
    "v1.fe80::a+en1",
    "::1:.googleapis.com",
];

pub const JOINTS: [&str; 17] = [
    "[", "]", "@", ":", ".", "%", "%40", "%2e", "%5B", "[]", "x", "user:pw@", "..", "-", "\\",
    "\t", "*.",
];

pub const SUFFIXES: [&str; 6] = [
    ".googleapis.com",
    ".run.app",
    ".google.internal",
    ".evil.com",
    "@evil.com",
    ":.googleapis.com",
];

pub const PORTS: [&str; 14] = [
    "", "", "", "", ":443", ":80", ":8080", ":", ":0", ":65536", ":65979", ":0443", ":+443",
    ":443:443",
];

pub const TAILS: [&str; 10] = [
    "",
    "/",
    "/x",
    "?q=@evil.com",
    "/@.googleapis.com",
    "#x",
    "\\@evil.com",
    "*",
    "@evil.com/x",
    ".evil.com",
];
