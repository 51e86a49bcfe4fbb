//! A request's origin: scheme, host and port, taken from its URI in one pass.
//!
//! Borrowed from the URI, never allocated. Detects URIs that cannot be compared safely.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU64,
};

/// A number for the origin that a request goes to. A 401 is attributed to it.
pub(crate) type OriginId = NonZeroU64;

/// What a request says about where it goes.
#[derive(Debug)]
pub struct Target<'a> {
    pub(crate) scheme: Scheme,
    /// `[userinfo@]host[:port]`, empty where there is none.
    pub(crate) authority: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Https,
    Http,
    Other,
    Missing,
}

/// An origin that can be compared with patterns.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub(super) secure: bool,
    /// Only letters, digits, `-`, `_` and inner dots; or the inside of the brackets.
    pub(super) host: &'a str,
    pub(super) is_v6: bool,
    pub(super) port: u16,
}

/// Why a URI has no origin that could be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NoHost,
    NoScheme,
    OtherScheme,
    UserInfo,
    TrailingDot,
    OddHost,
    OddPort,
}

pub(super) fn default_port(secure: bool) -> u16 {
    const HTTP_PORT: u16 = 80;
    const HTTPS_PORT: u16 = 443;

    if secure { HTTPS_PORT } else { HTTP_PORT }
}

pub(super) fn scheme(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

impl<'a> Origin<'a> {
    #[inline]
    pub(super) fn of(target: &Target<'a>) -> Result<Self, Fault> {
        let authority = target.authority;
        if authority.is_empty() {
            return Err(Fault::NoHost);
        }
        let secure = match target.scheme {
            Scheme::Https => true,
            Scheme::Http => false,
            Scheme::Other => return Err(Fault::OtherScheme),
            Scheme::Missing => return Err(Fault::NoScheme),
        };
        // There must be a label before the first dot and between any two dots.
        let (mut end, mut after_dot) = (0, true);
        for byte in authority.as_bytes() {
            match CLASSES.get(usize::from(*byte)) {
                Some(Class::Label) => after_dot = false,
                Some(Class::Dot) if !after_dot => after_dot = true,
                Some(Class::Dot) => return Err(odd(authority)),
                Some(Class::Other) | None => break,
            }
            end += 1;
        }
        let Some((host, rest)) = authority.split_at_checked(end) else {
            return Err(Fault::OddHost);
        };
        let (host, rest, is_v6) = match rest.as_bytes().first() {
            None | Some(b':') => (host, rest, false),
            Some(b'[') if end == 0 => match rest.get(1..).and_then(|rest| rest.split_once(']')) {
                Some((host, rest)) => (host, rest, true),
                None => return Err(Fault::OddHost),
            },
            Some(_) => return Err(odd(authority)),
        };
        let port = match rest.as_bytes() {
            [] => default_port(secure),
            [b':', digits @ ..] => port(digits).ok_or_else(|| {
                // The colon may be part of `user:password@`.
                if authority.contains('@') {
                    Fault::UserInfo
                } else {
                    Fault::OddPort
                }
            })?,
            _ => return Err(odd(authority)),
        };
        match host.as_bytes() {
            _ if is_v6 => {}
            [] => return Err(Fault::OddHost),
            _ if after_dot => return Err(Fault::TrailingDot),
            _ => {}
        }
        Ok(Self {
            secure,
            host,
            is_v6,
            port,
        })
    }

    /// The addresses and names of the metadata server, which must never be sent its own tokens.
    #[inline]
    pub(super) fn is_metadata_server(&self) -> bool {
        // Hardly any other host has the same length as one of them, so check the length first.
        matches!(self.host.len(), 8 | 15 | 24) && is_metadata_host(self.host)
            || self.is_v6 && is_metadata_host(self.host)
    }
}

/// The metadata server's names, in lower case.
pub(super) const METADATA_NAMES: [&str; 3] =
    ["metadata.google.internal", "169.254.169.254", "metadata"];

pub(super) fn is_metadata_host(host: &str) -> bool {
    METADATA_NAMES
        .iter()
        .any(|name| host.len() == name.len() && host.eq_ignore_ascii_case(name))
        || host.contains(':') && host.parse().is_ok_and(is_metadata_address)
}

fn is_metadata_address(address: Ipv6Addr) -> bool {
    // GCE's IPv6-only instances.
    const V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
    // The usual address, in the form that a dual-stack socket may be given.
    const V4_MAPPED: Ipv6Addr = Ipv4Addr::new(169, 254, 169, 254).to_ipv6_mapped();
    address == V6 || address == V4_MAPPED
}

impl Target<'_> {
    /// A hash of scheme and authority: equal for equal input. If two spellings of one host hash
    /// differently, the only cost is a refresh that waits for its pace.
    ///
    /// Hashes eight bytes at a time, then the last eight bytes again. No defence against collisions is
    /// needed: two origins with the same hash merely share a wait.
    // Not inlined: most requests go to an origin whose hash is known, and would have to jump over it.
    #[inline(never)]
    pub(crate) fn origin(&self) -> OriginId {
        let bytes = self.authority.as_bytes();
        let (words, rest) = bytes.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        let rest = rest.iter().map(|byte| u64::from(*byte));
        let scheme = self.scheme as u64;
        let hash = match bytes.last_chunk() {
            Some(last) => mix(words.fold(scheme, mix), u64::from_le_bytes(*last)),
            None => rest.fold(scheme, mix),
        };
        // The lowest bit is sacrificed so that the hash is never zero.
        OriginId::MIN | hash
    }
}

fn mix(hash: u64, word: u64) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR)
}

/// How a byte can occur in a host: as part of a DNS label (or of a private name with underscores), as
/// the dot between labels, or not at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Label,
    Dot,
    Other,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            #[allow(clippy::indexing_slicing)] // evaluated by the compiler, within bounds
            {
                classes[byte as usize] = Class::Label;
            }
        }
        byte += 1;
    }
    #[allow(clippy::indexing_slicing)] // as above
    {
        classes[b'.' as usize] = Class::Dot;
    }
    classes
};

pub(super) fn is_host_byte(byte: u8) -> bool {
    CLASSES
        .get(usize::from(byte))
        .is_some_and(|class| *class != Class::Other)
}

fn odd(authority: &str) -> Fault {
    if authority.contains('@') {
        Fault::UserInfo
    } else {
        Fault::OddHost
    }
}

/// Parses one to five digits, from 1 to 65535.
pub(super) fn port(digits: &[u8]) -> Option<u16> {
    const MOST_DIGITS: usize = 5;
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    let mut port = 0_u32;
    for digit in digits {
        port = port * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    u16::try_from(port).ok().filter(|port| *port > 0)
}

impl Fault {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NoHost => {
                "the request's URI has no host at this level; for a client that adds its origin \
                 inside (such as a tonic Channel), use Destinations::trust_inner()"
            }
            Self::NoScheme => "the request's URI has no scheme",
            Self::OtherScheme => "only https, or http where a pattern says so, is allowed",
            Self::UserInfo => "the URI has user information before the host",
            Self::TrailingDot => "the host ends in a dot; write it without",
            Self::OddHost => "the host is not a plain DNS name or address",
            Self::OddPort => "the port is not a number from 1 to 65535",
        }
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = scheme(self.secure);
        let host = self.host.to_ascii_lowercase();
        if self.is_v6 {
            write!(f, "{scheme}://[{host}]")?;
        } else {
            write!(f, "{scheme}://{host}")?;
        }
        if self.port == default_port(self.secure) {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Other => "(other scheme)",
            Self::Missing => "(no scheme)",
        })
    }
}
