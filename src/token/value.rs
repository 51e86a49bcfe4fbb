//! `Token`: a secret, how long it lives, and the header value made of it.
//!
//! Knows the syntax of a header value and where the secret's bytes are. Does not know the time, who
//! asked, or where the token may go. The secret leaves only through [`Token::expose_secret`] and the
//! header value.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;
use zeroize::{Zeroize, Zeroizing};

/// A bearer token as returned by a source.
///
/// Cloning is cheap: clones share one buffer, which is zeroed when the last clone and the last header
/// value made from it are dropped. `Debug` shows the lifetime, never the secret; there is no `Display`,
/// no serialisation and no comparison.
///
/// ```
/// use std::time::Duration;
/// use tower_scoped_auth::Token;
///
/// let token = Token::new("ya29.secret", Duration::from_secs(3599));
/// assert_eq!(token.expose_secret(), "ya29.secret");
/// assert!(!format!("{token:?}").contains("ya29"));
/// ```
#[derive(Clone)]
pub struct Token {
    secret: Arc<Secret>,
    life: Life,
    refresh_in: Option<Duration>,
}

/// How long a token lives, as its source knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Life {
    /// This long from the moment the request for it was sent.
    For(Duration),
    /// Until this wall-clock time, and at most this long from the moment the request was sent.
    Until(SystemTime, Duration),
    /// The source does not say.
    Unknown,
}

/// `Bearer <secret>`, in one buffer that never grows and is zeroed on drop.
struct Secret {
    header: Zeroizing<String>,
}

const SCHEME: &str = "Bearer ";

impl Token {
    /// Creates a token that is valid for `lifetime` from the moment its request was sent.
    ///
    /// Nothing is checked here: a cache that receives a token with a zero lifetime, or with a secret
    /// that is empty or not valid in a header, treats it as a failed attempt. The string's buffer is
    /// zeroed after it has been copied.
    pub fn new(secret: impl Into<String>, lifetime: Duration) -> Self {
        Self::build(secret.into(), Life::For(lifetime))
    }

    /// Creates a token that is valid until `expiry` by the wall clock.
    ///
    /// The monotonic clock bounds it as well: the time left until `expiry` when the request was sent is
    /// an upper limit on its lifetime, so setting the wall clock back does not prolong it.
    pub fn expiring_at(secret: impl Into<String>, expiry: SystemTime) -> Self {
        Self::build(secret.into(), Life::Until(expiry, Duration::MAX))
    }

    /// Like [`expiring_at`](Self::expiring_at), but valid for at most `longest` from the moment its
    /// request was sent.
    #[cfg(any(feature = "metadata", feature = "token-file"))]
    pub(crate) fn expiring_within(
        secret: impl Into<String>,
        expiry: SystemTime,
        longest: Duration,
    ) -> Self {
        Self::build(secret.into(), Life::Until(expiry, longest))
    }

    /// Creates a token whose source does not know its expiry.
    ///
    /// It is treated as valid for one hour ([`Token::UNKNOWN_LIFETIME`]): the source is asked again
    /// within that time.
    pub fn without_expiry(secret: impl Into<String>) -> Self {
        Self::build(secret.into(), Life::Unknown)
    }

    /// How long a token [without expiry](Self::without_expiry) is used before it is fetched again.
    pub const UNKNOWN_LIFETIME: Duration = Duration::from_secs(3600);

    /// Returns the secret itself.
    ///
    /// This and [`header_value`](Self::header_value) are the only ways to access it; the caller is
    /// responsible for where it goes.
    pub fn expose_secret(&self) -> &str {
        self.secret.expose()
    }

    /// The lifetime that the source stated, counted from the moment the request for it was sent.
    ///
    /// `None` if the source stated a point in time, or nothing.
    pub fn lifetime(&self) -> Option<Duration> {
        match self.life {
            Life::For(lifetime) => Some(lifetime),
            Life::Until(..) | Life::Unknown => None,
        }
    }

    /// Returns `Bearer <secret>` as a header value marked sensitive, without copying the secret.
    ///
    /// Each call returns a value with its own reference count over the one shared buffer. Returns
    /// `None` if the secret is empty or has a byte that is not visible ASCII: such a token cannot be
    /// sent, and a cache treats it as a failed attempt.
    pub fn header_value(&self) -> Option<HeaderValue> {
        let secret = self.secret.expose();
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let shared = Bytes::from_owner(Shared(Arc::clone(&self.secret)));
        let mut value = HeaderValue::from_maybe_shared(shared).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The source wants to be asked again after this long, however much of the token's life is then
    /// left: OAuth servers call this `refresh_in`.
    #[cfg(any(
        feature = "token-file",
        feature = "gcloud",
        feature = "google-cloud-auth"
    ))]
    pub(crate) fn refresh_in(mut self, after: Duration) -> Self {
        self.refresh_in = Some(after);
        self
    }

    /// How long before the end of a life of length `life` the token is due for a refresh, given the
    /// cache's `lead`.
    pub(crate) fn lead(&self, life: Duration, lead: Duration) -> Duration {
        let wanted = self.refresh_in.map(|after| life.saturating_sub(after));
        lead.min(life / 2).max(wanted.unwrap_or_default())
    }

    pub(crate) fn life(&self) -> Life {
        self.life
    }

    pub(crate) fn same_secret(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.secret, &other.secret) || self.expose_secret() == other.expose_secret()
    }

    fn build(mut secret: String, life: Life) -> Self {
        let mut header = Zeroizing::new(String::with_capacity(SCHEME.len() + secret.len()));
        header.push_str(SCHEME);
        header.push_str(&secret);
        secret.zeroize();
        Self {
            secret: Arc::new(Secret { header }),
            life,
            refresh_in: None,
        }
    }
}

impl Secret {
    fn expose(&self) -> &str {
        self.header.get(SCHEME.len()..).unwrap_or_default()
    }
}

/// The owner of a header value's bytes.
///
/// `Bytes` puts its reference count next to its owner. The alignment gives each count its own pair of
/// cache lines: the copies that [`crate::token::stamp`] hands to different threads must not share one.
#[repr(align(128))]
struct Shared(Arc<Secret>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.header.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("secret", &Redacted)
            .field("life", &self.life)
            .finish()
    }
}

struct Redacted;

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_header_value_is_sensitive_and_exact() {
        let value = Token::new("a.b-c_d~e+f/g=", HOUR).header_value().unwrap();
        assert_eq!(value.as_bytes(), b"Bearer a.b-c_d~e+f/g=");
        assert!(value.is_sensitive());
        assert!(value.clone().is_sensitive());
    }

    #[test]
    fn s148_a_secret_that_could_start_a_header_is_not_a_header() {
        for secret in [
            "",
            " ",
            "a b",
            "a\r\nX-Evil: 1",
            "a\n",
            "a\0",
            "tökén",
            "a\u{7f}",
        ] {
            assert!(
                Token::new(secret, HOUR).header_value().is_none(),
                "{secret:?}"
            );
        }
    }

    #[test]
    fn s132_debug_shows_no_secret() {
        let secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for token in [
            Token::new(secret, HOUR),
            Token::without_expiry(secret),
            Token::expiring_at(secret, SystemTime::UNIX_EPOCH),
        ] {
            for text in [
                format!("{token:?}"),
                format!("{token:#?}"),
                format!("{:?}", token.header_value()),
            ] {
                assert!(!text.contains("01234567"), "{text}");
            }
        }
    }

    #[test]
    fn clones_know_each_other_and_others_by_value() {
        let token = Token::new("x", HOUR);
        assert!(token.same_secret(&token.clone()));
        assert!(token.same_secret(&Token::without_expiry("x")));
        assert!(!token.same_secret(&Token::new("y", HOUR)));
    }
}
