//! Validates the bytes of an ID token response. Pure: bytes in, a token or a reason out.
//!
//! The body is the token itself, a JWT. Its `exp` is trusted: whoever receives the token verifies it.
//! Reasons name rules, never what the body held.

use std::time::{Duration, SystemTime};

use crate::{
    error::{AuthError, Kind},
    sources::reading::{
        LONGEST_TOKEN,
        jwt::{self, Fault},
    },
    token::value::Token,
};

/// Google's live for an hour. A token that claims more is asked for again within this time.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// `Date` counts whole seconds, rounded down.
const DATE_GRAIN: Duration = Duration::from_secs(1);

/// `date` is the time of the response by the server's clock, if stated.
///
/// `exp` is a wall-clock time, and this machine's clock may be slow. Relative to the server's clock,
/// `exp` also gives a lifetime, which the monotonic clock enforces.
pub(super) fn id_token(body: &[u8], date: Option<SystemTime>) -> Result<Token, AuthError> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Err(wrong("it is not text"));
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.len() > LONGEST_TOKEN {
        return Err(wrong("it is longer than any (8192 characters)"));
    }
    let expiry = jwt::expiry(text).map_err(|fault| {
        wrong(match fault {
            Fault::NotJwt => "it is not three parts of base64url with JSON inside",
            Fault::NoExpiry => "it does not say when it expires (exp)",
            Fault::BadExpiry => "its exp is not one date after 1970",
        })
    })?;
    let longest = match date {
        Some(date) => {
            let left = expiry.duration_since(date).unwrap_or_default();
            left.saturating_sub(DATE_GRAIN).min(LONGEST_LIFE)
        }
        None => LONGEST_LIFE,
    };
    Ok(Token::expiring_within(text, expiry, longest))
}

fn wrong(reason: &str) -> AuthError {
    let reason = format!("the metadata server's answer is not a usable ID token: {reason}");
    AuthError::new(Kind::Response, reason)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::token::value::Life;

    /// `{"alg":"RS256"}`, `{"exp":5000000000}`, `sig`.
    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjUwMDAwMDAwMDB9.c2ln";
    const EXPIRY: u64 = 5_000_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn life(body: &str, date: Option<u64>) -> (SystemTime, u64) {
        match id_token(body.as_bytes(), date.map(at)).unwrap().life() {
            Life::Until(expiry, longest) => (expiry, longest.as_secs()),
            life => panic!("{life:?}"),
        }
    }

    #[test]
    fn the_token_is_the_body_without_the_end_of_its_line() {
        for body in [JWT.to_owned(), format!("{JWT}\n"), format!("{JWT}\r\n")] {
            let token = id_token(body.as_bytes(), None).unwrap();
            assert_eq!(token.expose_secret(), JWT);
            assert!(token.header_value().is_some());
        }
        for body in [
            format!(" {JWT}"),
            format!("{JWT} "),
            format!("{JWT}\n{JWT}"),
        ] {
            assert!(id_token(body.as_bytes(), None).is_err(), "{body:?}");
        }
    }

    #[test]
    fn exp_is_a_time_by_the_wall_clock_and_a_life_by_the_servers() {
        let day = LONGEST_LIFE.as_secs();
        assert_eq!(life(JWT, None), (at(EXPIRY), day));
        assert_eq!(life(JWT, Some(EXPIRY - 3600)), (at(EXPIRY), 3599));
        assert_eq!(life(JWT, Some(EXPIRY - 1)), (at(EXPIRY), 0));
        assert_eq!(life(JWT, Some(EXPIRY + 9)), (at(EXPIRY), 0));
        assert_eq!(life(JWT, Some(0)), (at(EXPIRY), day));
    }

    #[test]
    fn what_is_no_id_token_is_a_reason() {
        let long = format!("{JWT}{}", "A".repeat(8192));
        for (body, reason) in [
            ("", "empty"),
            ("\n", "empty"),
            ("<html>", "three parts"),
            ("not enough audience", "three parts"),
            ("ya29.c.b0Aaekm1K", "three parts"),
            (r#"{"access_token":"a"}"#, "three parts"),
            ("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "exp"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJleHAiOi0xfQ.c2ln", "exp"),
            (&long, "longer"),
        ] {
            let error = id_token(body.as_bytes(), None).unwrap_err();
            assert!(
                error.is_response() && error.to_string().contains(reason),
                "{error}"
            );
            assert_eq!(error.to_string().lines().count(), 1);
        }
        assert!(id_token(b"\xff.\xff.\xff", None).is_err());
    }

    #[test]
    fn s133_no_reason_repeats_the_body() {
        for body in [
            &JWT[..JWT.len() - 5],
            &format!("{JWT}.{JWT}"),
            &format!("{JWT}="),
        ] {
            let error = id_token(body.as_bytes(), None).unwrap_err();
            let text = format!("{error} {error:?} {error:#?}");
            assert!(!text.contains("eyJ") && !text.contains("RS256"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_token_or_an_error(
            body in prop::collection::vec(any::<u8>(), 0..300),
            text in "[A-Za-z0-9_.-]{0,120}\\PC{0,5}",
            date in any::<u32>(),
        ) {
            for body in [&body[..], text.as_bytes()] {
                if let Ok(token) = id_token(body, Some(at(date.into()))) {
                    prop_assert!(token.header_value().is_some());
                }
            }
        }
    }
}
