//! An origin: scheme, host and port.
//!
//! One parser reads every authority, that of a request as well as that of a pattern. What it accepts,
//! `http::Uri` and `url::Url` read in the same way. What two parsers could read differently is an error.

use std::{
    borrow::Cow,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU64,
};

use http::{Method, Uri, uri::Authority};

/// Where a request says that it goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub(crate) kind: TargetKind,
    /// Empty where there is none.
    pub(crate) authority: &'a str,
}

/// Only a target of the first two kinds has an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Https,
    Http,
    OtherScheme,
    NoScheme,
    /// Written out, the URI would be read as one to another host: its path goes on where the host ends,
    /// or begins with two slashes where a host is missing. `http` builds such URIs from parts.
    OddPath,
    /// The method is CONNECT, whose answer comes from a proxy, or TRACE, whose answer repeats the token. A
    /// client must not send credentials with TRACE (RFC 9110, section 9.3.8).
    UnfitMethod,
}

/// An origin in its canonical form: two spellings of one origin are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin<'a> {
    pub(super) secure: bool,
    pub(super) host: Host<'a>,
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host<'a> {
    /// A DNS name in lower case.
    Name(Cow<'a, str>),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// A number for the origin that a request goes to. A 401 is attributed to it.
///
/// Equal for equal origins. A collision costs at most a wait: a 401 from one origin then counts for the
/// other as well.
pub(crate) type OriginId = NonZeroU64;

/// Stands for every request whose origin cannot be read. Only
/// [`danger_trust_inner`](crate::Destinations::danger_trust_inner) lets such a request have a token.
const UNREADABLE: OriginId = OriginId::MIN;

/// Why an origin cannot be read, and at which byte of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OriginError {
    pub(super) reason: &'static str,
    pub(super) at: Option<usize>,
}

impl<'a> Target<'a> {
    /// Slices of the URI itself: `Uri::host` would parse it again.
    #[inline]
    pub(crate) fn of(uri: &'a Uri) -> Self {
        // Not `Uri::path`, which looks for the query as well.
        let path = || uri.path_and_query().map(|path| path.as_str().as_bytes());
        let unless_odd = |kind| match path() {
            Some([b'/' | b'?', ..]) => kind,
            _ => TargetKind::OddPath,
        };
        let authority = uri.authority().map_or("", Authority::as_str);
        let kind = match uri.scheme_str() {
            Some("https") => unless_odd(TargetKind::Https),
            Some("http") => unless_odd(TargetKind::Http),
            Some(_) => TargetKind::OtherScheme,
            None if matches!(path(), Some([b'/', b'/' | b'\\', ..])) => TargetKind::OddPath,
            None => TargetKind::NoScheme,
        };
        Self { kind, authority }
    }

    #[inline]
    pub(crate) fn with_method(mut self, method: &Method) -> Self {
        if matches!(*method, Method::CONNECT | Method::TRACE) {
            self.kind = TargetKind::UnfitMethod;
        }
        self
    }

    pub(super) fn is_without_origin(&self) -> bool {
        self.kind == TargetKind::NoScheme && self.authority.is_empty()
    }

    pub(crate) fn origin_id(&self) -> OriginId {
        Origin::of(self).map_or(UNREADABLE, |origin| origin.id())
    }
}

impl<'a> Origin<'a> {
    pub(super) fn of(target: &Target<'a>) -> Result<Self, OriginError> {
        let reason = match target.kind {
            TargetKind::UnfitMethod => {
                "CONNECT and TRACE requests carry no token: a proxy would read it, or the answer repeat it"
            }
            TargetKind::OddPath => {
                "with its path, the request's URI could be read as one to another host"
            }
            _ if target.authority.is_empty() => {
                "the request's URI has no host at this level; for a client that adds its origin inside \
                 (such as a tonic Channel), name it with Destinations::inner_origin"
            }
            TargetKind::Https => return Self::parse(true, target.authority),
            TargetKind::Http => return Self::parse(false, target.authority),
            TargetKind::NoScheme => "the request's URI has no scheme",
            TargetKind::OtherScheme => "only https, or http where a pattern says so, is allowed",
        };
        Err(OriginError { reason, at: None })
    }

    /// Parses `host[:port]`.
    pub(super) fn parse(secure: bool, authority: &'a str) -> Result<Self, OriginError> {
        let error = |at, reason| OriginError::new(authority, at, reason);
        let (host, end) = match authority.strip_prefix('[') {
            None => Host::parse_until_colon(authority)?,
            Some(rest) => {
                let Some((address, _)) = rest.split_once(']') else {
                    return Err(error(0, "the bracket is not closed"));
                };
                let Ok(parsed) = address.parse() else {
                    return Err(error(1, "the brackets must hold an IPv6 address"));
                };
                (Host::V6(parsed), "[]".len() + address.len())
            }
        };
        let port = match authority.get(end..) {
            None | Some("") => default_port(secure),
            Some(port) => match parse_port(port) {
                Some(port) => port,
                None => {
                    let reason = "expected nothing, or a colon and a port from 1 to 65535";
                    return Err(error(end, reason));
                }
            },
        };
        Ok(Self { secure, host, port })
    }

    pub(super) fn into_owned(self) -> Origin<'static> {
        let host = match self.host {
            Host::Name(name) => Host::Name(Cow::Owned(name.into_owned())),
            Host::V4(address) => Host::V4(address),
            Host::V6(address) => Host::V6(address),
        };
        Origin { host, ..self }
    }

    pub(super) fn id(&self) -> OriginId {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        OriginId::new(hasher.finish()).unwrap_or(UNREADABLE)
    }

    /// The metadata server must never be sent its own tokens.
    pub(super) fn is_metadata_server(&self) -> bool {
        const V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
        // The address on instances that have IPv6 only.
        const V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
        match &self.host {
            Host::Name(name) => matches!(&**name, "metadata.google.internal" | "metadata"),
            Host::V4(address) => *address == V4,
            // A dual-stack socket takes the usual address in this form.
            Host::V6(address) => *address == V6 || *address == V4.to_ipv6_mapped(),
        }
    }
}

impl<'a> Host<'a> {
    /// Parses a DNS name or an IPv4 address, and nothing else.
    pub(super) fn parse(text: &'a str) -> Result<Self, OriginError> {
        match Self::parse_until_colon(text)? {
            (host, end) if end == text.len() => Ok(host),
            (_, end) => Err(OriginError::new(text, end, NO_HOST_CHARACTER)),
        }
    }

    /// Parses a DNS name or an IPv4 address at the start of an authority. Returns where it ends: at a
    /// colon, or with the text.
    fn parse_until_colon(authority: &'a str) -> Result<(Self, usize), OriginError> {
        let error = |at, reason| OriginError::new(authority, at, reason);
        let (mut label, mut end, mut is_lower) = (0, 0, true);
        for byte in authority.bytes() {
            if !is_plain(byte) {
                match byte {
                    b'.' if label == end => return Err(error(end, "a label is empty")),
                    b'.' => label = end + 1,
                    b'A'..=b'Z' => is_lower = false,
                    b':' => break,
                    _ => return Err(error(end, NO_HOST_CHARACTER)),
                }
            }
            end += 1;
        }
        let host = authority.get(..end).unwrap_or_default();
        if label == end {
            return Err(error(
                end,
                match end {
                    0 => "the host is missing",
                    _ => "the host ends in a dot; write it without",
                },
            ));
        }
        if host.get(label..).is_some_and(looks_like_a_number) {
            // Resolvers read `127.1`, `0x7f.0.0.1` and `2130706433` as addresses too.
            return match host.parse() {
                Ok(address) => Ok((Self::V4(address), end)),
                Err(_) => Err(error(
                    0,
                    "a host that ends in a number must be four decimal numbers",
                )),
            };
        }
        let name = match is_lower {
            true => Cow::Borrowed(host),
            false => Cow::Owned(host.to_ascii_lowercase()),
        };
        Ok((Self::Name(name), end))
    }
}

/// True for what labels are made of, in lower case. Private names have underscores.
#[inline]
fn is_plain(byte: u8) -> bool {
    // A table, because comparing with ranges takes longer (`benches/instructions`: `pass_others`).
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut byte = 0;
        while byte < plain.len() {
            #[allow(clippy::indexing_slicing)] // evaluated by the compiler, within bounds
            {
                plain[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            }
            byte += 1;
        }
        plain
    };
    PLAIN.get(usize::from(byte)).is_some_and(|plain| *plain)
}

const NO_HOST_CHARACTER: &str = "this character cannot stand in a host";

fn looks_like_a_number(label: &str) -> bool {
    match label.as_bytes() {
        [b'0', b'x' | b'X', ..] => true,
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

/// Parses `:8080`. A leading zero is refused: some parsers take it for the mark of an octal number.
fn parse_port(text: &str) -> Option<u16> {
    let digits = text.strip_prefix(':')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

pub(super) fn default_port(secure: bool) -> u16 {
    const HTTP_PORT: u16 = 80;
    const HTTPS_PORT: u16 = 443;

    if secure { HTTPS_PORT } else { HTTP_PORT }
}

impl OriginError {
    /// Something is wrong at this byte. If there is an `@`, that is the reason: neither a host nor a port
    /// can have one.
    #[cold]
    fn new(authority: &str, at: usize, reason: &'static str) -> Self {
        let (at, reason) = match authority.find('@') {
            Some(at) => (at, "user information has no place in an origin"),
            None => (at, reason),
        };
        Self {
            reason,
            at: Some(at),
        }
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)?;
        match self.at {
            Some(at) => write!(f, " (at byte {at} of the authority)"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_origin(f, self.secure, &self.host, self.port)
    }
}

/// Writes `scheme://host[:port]`, without the port if it is the scheme's own.
pub(super) fn write_origin(
    f: &mut fmt::Formatter<'_>,
    secure: bool,
    host: &dyn fmt::Display,
    port: u16,
) -> fmt::Result {
    let scheme = if secure { "https" } else { "http" };
    write!(f, "{scheme}://{host}")?;
    if port == default_port(secure) {
        Ok(())
    } else {
        write!(f, ":{port}")
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}
