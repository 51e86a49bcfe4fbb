//! Validates the bytes of a token response. Pure: bytes in, a token or a reason out.
//!
//! Reasons name members and rules, never what the body held: a body with one bad member may have a good
//! token in another.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::{
    error::{AuthError, Kind},
    sources::reading::{
        members::{Fault, members},
        plain::is_b64token,
        seconds,
    },
    token::value::Token,
};

/// No access token lives longer; a longer lifetime is cut to this.
const LONGEST_LIFE: u64 = 24 * 3600;

pub(super) fn access_token(body: &[u8]) -> Result<Token, AuthError> {
    let wanted = ["access_token", "token_type", "expires_in"];
    let [secret, kind, expires_in] = members(body, wanted).map_err(|fault| {
        wrong(match fault {
            Fault::Incomplete => "the JSON breaks off, or there is none",
            Fault::NotJson => "it is not JSON",
            Fault::NotObject => "it is not a JSON object",
            Fault::Repeated => "a member is there twice",
        })
    })?;
    let Some(secret) = secret else {
        return Err(wrong("access_token is missing"));
    };
    let secret = unescaped(secret).filter(|secret| is_b64token(secret));
    let Some(mut secret) = secret else {
        return Err(wrong(
            "access_token is not an RFC 6750 token of 1 to 8192 characters",
        ));
    };
    match kind.map(unescaped) {
        Some(Some(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        Some(_) => return Err(wrong("token_type is not Bearer")),
        None => return Err(wrong("token_type is missing")),
    }
    let Some(expires_in) = expires_in else {
        return Err(wrong("expires_in is missing"));
    };
    let Some(seconds) = seconds(expires_in) else {
        return Err(wrong("expires_in is not a positive number of seconds"));
    };
    let token = Token::new(std::mem::take(&mut *secret), Duration::from_secs(seconds));
    Ok(token)
}

fn wrong(reason: &str) -> AuthError {
    let reason = format!("the metadata server's answer is not a usable token: {reason}");
    AuthError::new(Kind::Response, reason)
}

/// The content of a JSON string, in a buffer that does not grow and is zeroed when dropped.
///
/// Written by hand, because serde would assemble a string with escapes in buffers that it does not
/// clear. The only escape that a token can need is `\/`.
fn unescaped(json: &str) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(json.len()));
    let mut characters = json.strip_prefix('"')?.strip_suffix('"')?.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.next()? == '/' => text.push('/'),
            '\\' => return None,
            _ => text.push(character),
        }
    }
    Some(text)
}

/// Whole seconds above zero, from the JSON text of a number or of a string of digits.
fn seconds(json: &str) -> Option<u64> {
    let text = match json.strip_prefix('"') {
        Some(rest) => {
            let digits = rest.strip_suffix('"')?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            digits
        }
        None => json,
    };
    seconds::whole(text, LONGEST_LIFE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(expires_in: &str) -> String {
        format!(r#"{{"access_token":"ya29.a","expires_in":{expires_in},"token_type":"Bearer"}}"#)
    }

    #[test]
    fn s057_expires_in_table() {
        for (json, seconds) in [
            ("3599", 3599),
            ("1", 1),
            ("\"3599\"", 3599),
            ("3599.0", 3599),
            ("3599.9", 3599),
            ("3.6e3", 3600),
            ("86401", 86_400),
            ("2147483648", 86_400),
            ("9007199254740992", 86_400),
            ("9223372036854775807", 86_400),
            ("18446744073709551615", 86_400),
            ("1e300", 86_400),
            ("1e999999", 86_400),
            ("99999999999999999999999999999999999999", 86_400),
        ] {
            let token = access_token(answer(json).as_bytes()).expect(json);
            assert_eq!(
                token.lifetime(),
                Some(Duration::from_secs(seconds)),
                "{json}"
            );
        }
        for json in [
            "0", "-1", "-9e18", "null", "true", "\"\"", "\"abc\"", "[]", "{}", "NaN", "0.9", "-0",
            "\"-1\"", "\"1e3\"", "\" 1\"", "1e", "0e9", "\"0\"", "[1]",
        ] {
            assert!(access_token(answer(json).as_bytes()).is_err(), "{json}");
        }
        let absent = r#"{"access_token":"ya29.a","token_type":"Bearer"}"#;
        assert!(
            access_token(absent.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("expires_in")
        );
    }

    #[test]
    fn s058_access_token_table() {
        let with = |token: &str| {
            let json =
                format!(r#"{{"access_token":{token},"expires_in":9,"token_type":"Bearer"}}"#);
            access_token(json.as_bytes())
        };
        let quoted = |token: &str| with(&format!("\"{token}\""));
        for token in ["a", "A-Z.a_z~0+9/x==", "ya29.c.b0Aaek", &"x".repeat(8192)] {
            assert_eq!(quoted(token).unwrap().expose_secret(), token);
        }
        assert_eq!(with(r#""a\/b""#).unwrap().expose_secret(), "a/b");
        for token in [
            "",
            " ",
            "a b",
            r"a\n",
            r"a\r\nX-Evil: 1",
            r"a\u0000",
            "tökén",
            r"a\u007f",
            "=",
            "a=b",
        ] {
            assert!(quoted(token).unwrap_err().is_response(), "{token}");
        }
        assert!(quoted(&"x".repeat(8193)).is_err());
        assert!(with("null").is_err());
        assert!(with("123").is_err());
    }

    #[test]
    fn s059_token_type_table() {
        let with = |kind: &str| {
            access_token(format!(r#"{{"access_token":"a","expires_in":9{kind}}}"#).as_bytes())
        };
        for kind in ["Bearer", "bearer", "BEARER"] {
            let token = with(&format!(r#","token_type":"{kind}""#)).unwrap();
            assert_eq!(token.header_value().unwrap().as_bytes(), b"Bearer a");
        }
        for kind in [
            r#","token_type":"MAC""#,
            r#","token_type":"""#,
            r#","token_type":1"#,
            r#","token_type":"Bearer x""#,
            "",
        ] {
            assert!(with(kind).is_err(), "{kind}");
        }
    }

    #[test]
    fn s054_garbage_is_an_error() {
        let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let nested_member = answer(&nested);
        let (good, twice) = (
            answer("9"),
            r#"{"access_token":"a","access_token":"b","expires_in":9,"token_type":"Bearer"}"#,
        );
        let trailing = format!("{good}x");
        let bom = format!("\u{feff}{good}");
        for body in [
            "{",
            "null",
            "[]",
            "\"x\"",
            "",
            "<html>",
            &nested,
            &nested_member,
            &trailing,
            &bom,
            twice,
        ] {
            assert!(access_token(body.as_bytes()).unwrap_err().is_response());
        }
        assert!(access_token(&[0xff; 40]).is_err());
    }

    #[test]
    fn s133_no_reason_repeats_the_body() {
        let secret = "0123456789abcdef0123456789abcdef";
        for body in [
            format!(r#"{{"access_token":"{secret}","expires_in":0,"token_type":"Bearer"}}"#),
            format!(
                r#"{{"access_token":"{secret}","expires_in":"{secret}","token_type":"Bearer"}}"#
            ),
            format!(r#"{{"access_token":"{secret}","expires_in":9,"token_type":"{secret}"}}"#),
            format!(r#"{{"access_token":"{secret}","expires_in":9,"token_type":["{secret}"]}}"#),
            format!("\"{secret}\""),
            format!(r#"{{"access_token":"{secret} {secret}"}}"#),
        ] {
            let error = access_token(body.as_bytes()).unwrap_err();
            let text = format!("{error} {error:?} {error:#?}");
            assert!(!text.contains("01234567"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_token_or_an_error(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = access_token(&body);
        }

        #[test]
        fn any_accepted_life_is_between_a_second_and_a_day(json in "\"?-?[0-9]{0,25}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?\"?") {
            if let Ok(token) = access_token(answer(&json).as_bytes()) {
                let life = token.lifetime().unwrap();
                prop_assert!((1..=LONGEST_LIFE).contains(&life.as_secs()));
                prop_assert_eq!(life.subsec_nanos(), 0);
            }
        }
    }
}
