//! The universe's domain, from the body of `universe/universe-domain`. Pure.

use crate::error::{AuthError, Kind};

/// Used if there is no such path, or nothing at it: servers older than universes, and GKE's.
pub(super) const DEFAULT: &str = "googleapis.com";

/// The longest DNS name.
const LONGEST: usize = 253;

pub(super) fn domain(body: &[u8]) -> Result<String, AuthError> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Ok(DEFAULT.to_owned());
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    match std::str::from_utf8(body) {
        Ok(domain) if body.len() <= LONGEST && body.iter().all(allowed) => {
            Ok(domain.to_ascii_lowercase())
        }
        _ => Err(AuthError::new(
            Kind::Response,
            "the metadata server's universe domain is not a domain name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_the_default_universe_and_garbage_means_nothing() {
        for (body, expected) in [
            ("", "googleapis.com"),
            ("\n", "googleapis.com"),
            ("googleapis.com", "googleapis.com"),
            ("Example-1.Cloud\r\n", "example-1.cloud"),
        ] {
            assert_eq!(domain(body.as_bytes()).unwrap(), expected);
        }
        for body in [
            "<html>",
            "a b",
            "a/b",
            "a:80",
            "user@a.b",
            "é.com",
            &"a".repeat(254),
        ] {
            let error = domain(body.as_bytes()).unwrap_err();
            assert!(
                error.is_response() && !error.to_string().contains(body),
                "{error}"
            );
        }
        assert!(domain(b"\xff").is_err());
    }
}
