//! A response before it is bytes, and how it is serialised.
//!
//! Knows how HTTP/1.1 responses are written and which headers the metadata server puts on every one of
//! them; does not know why a particular response was chosen.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::json;

/// A response from any origin: the metadata tree, the mint or a fault.
///
/// Headers are text and written as given, because a fault may want to send malformed ones.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// Whether to send `Metadata-Flavor: Google`, as the real server does on errors too.
    pub(super) flavor: bool,
}

impl Answer {
    /// A value: `application/text` with an `ETag`.
    pub(super) fn text(body: String) -> Self {
        Self::tagged("application/text", body)
    }

    /// A directory asked for with `recursive=true`: JSON with an `ETag`.
    pub(super) fn tree(body: String) -> Self {
        Self::tagged("application/json", body)
    }

    /// JSON that is different every time and therefore carries no `ETag`.
    pub(super) fn json(body: String) -> Self {
        Self {
            content_type: "application/json",
            ..Self::status(200).with_body(body)
        }
    }

    /// JSON from another server: Google's key servers are not metadata servers.
    pub(super) fn foreign(body: String) -> Self {
        Self {
            flavor: false,
            ..Self::json(body)
        }
    }

    /// An access token, as OAuth 2.0 writes it.
    pub(super) fn token(secret: &str, left: Duration) -> Self {
        let body = json!({
            "access_token": secret,
            // Whole seconds, rounded down: never more than the token has left.
            "expires_in": left.as_secs(),
            "token_type": "Bearer",
        });
        Self::json(body.to_string())
    }

    /// An ID token: a bare JWT, without JSON around it or a trailing newline.
    pub(super) fn id_token(jwt: String) -> Self {
        Self {
            content_type: "text/html; charset=UTF-8",
            ..Self::json(jwt)
        }
    }

    /// A bare status, its reason as the body.
    pub(super) fn status(status: u16) -> Self {
        Self {
            status,
            content_type: "text/html; charset=UTF-8",
            headers: Vec::new(),
            body: reason(status).to_owned(),
            flavor: true,
        }
    }

    pub(super) fn with_body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn tagged(content_type: &'static str, body: String) -> Self {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let tag = format!("{:016x}", hasher.finish());
        Self {
            content_type,
            ..Self::status(200).with_body(body)
        }
        .with_header("ETag", tag)
    }

    /// The bytes to send; `server` is the value of the `Server` header. `head_only` leaves the body out
    /// but keeps its headers, as required for `HEAD`; `close` announces that the connection ends here.
    pub(super) fn render(
        &self,
        server: &str,
        now: SystemTime,
        head_only: bool,
        close: bool,
    ) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let mut header = |name: &str, value: &dyn fmt::Display| {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "{name}: {value}\r\n");
        };
        if self.flavor {
            header("Metadata-Flavor", &"Google");
        }
        header("Content-Type", &self.content_type);
        for (name, value) in &self.headers {
            header(name, value);
        }
        header("Date", &httpdate::fmt_http_date(now));
        header("Server", &server);
        header("X-XSS-Protection", &"0");
        header("X-Frame-Options", &"SAMEORIGIN");
        // Responses with these statuses end after the head, whatever it says; a body would be read as
        // the start of the next response.
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        if !bodiless {
            header("Content-Length", &self.body.len());
        }
        if close {
            header("Connection", &"close");
        }
        out.push_str("\r\n");
        if !bodiless && !head_only {
            out.push_str(&self.body);
        }
        out.into_bytes()
    }
}

/// Shows sizes, never the body: it may hold a token.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(answer: &Answer, head_only: bool, close: bool) -> String {
        let bytes = answer.render("A Server", SystemTime::UNIX_EPOCH, head_only, close);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_value() {
        let answer = Answer::text("x".into());
        let text = rendered(&answer, false, false);
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n"),
            "{text}"
        );
        assert!(text.contains("\r\nServer: A Server\r\n"), "{text}");
        assert!(
            text.contains("\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
            "{text}"
        );
        assert!(text.contains("\r\nETag: "), "{text}");
        assert!(text.ends_with("\r\nContent-Length: 1\r\n\r\nx"), "{text}");
        assert_eq!(
            rendered(&answer, true, false),
            text.strip_suffix('x').unwrap()
        );
    }

    #[test]
    fn the_tag_follows_the_body() {
        assert_eq!(Answer::text("x".into()), Answer::text("x".into()));
        assert_ne!(
            Answer::text("x".into()).headers,
            Answer::text("y".into()).headers
        );
        assert!(Answer::json("x".into()).headers.is_empty());
    }

    #[test]
    fn statuses_without_bodies_and_unknown_ones() {
        let none = rendered(&Answer::status(204).with_body("x"), false, true);
        assert!(
            !none.contains("Content-Length") && none.ends_with("close\r\n\r\n"),
            "{none}"
        );
        assert!(rendered(&Answer::status(799), false, false).starts_with("HTTP/1.1 799 \r\n"));
    }

    #[test]
    fn debug_hides_the_body() {
        let answer = Answer::json("ya29.secret".into());
        assert_eq!(format!("{answer:?}"), "Answer(200, 11 bytes)");
    }
}
