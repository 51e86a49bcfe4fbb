//! When a compact JWT (RFC 7519) expires. Pure: text in, a time or a reason out.
//!
//! It reads `exp` and believes it: whoever receives the token verifies the signature, and a lie in a
//! token from one's own source harms only its holder. Reasons never repeat what the token held, and
//! what was decoded on the way is zeroed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::seconds;

/// Why there is no expiry to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not three parts of base64url, the first two of them JSON objects: an opaque token, perhaps.
    NotJwt,
    /// A JWT, but it does not say when it expires.
    NoExpiry,
    /// A JWT whose `exp` is no date after 1970, or is there twice.
    BadExpiry,
}

/// Real ones have 1,000 to 2,000 characters; a server's headers end at 8 KiB or soon after.
pub(super) const LONGEST: usize = 8_192;

/// A date beyond every expiry, 9999-12-31, which still is one for every platform's clock.
const LATEST: u64 = 253_402_300_799;

#[derive(Deserialize)]
struct Header {}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
}

/// `exp`, which counts as passed at the beginning of its second.
pub(super) fn expiry(token: &str) -> Result<SystemTime, Fault> {
    if token.len() > LONGEST {
        return Err(Fault::NotJwt);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::NotJwt);
    };
    let (header, claims) = (decoded(header)?, decoded(claims)?);
    decoded(signature)?;
    if !is_object(&header) || serde_json::from_slice::<Header>(&header).is_err() {
        return Err(Fault::NotJwt);
    }
    let claims: Claims<'_> = match serde_json::from_slice(&claims) {
        Ok(parsed) if is_object(&claims) => parsed,
        // Well-formed, so it is `exp` that serde did not like: it stands there twice.
        Err(error) if error.is_data() && is_object(&claims) => return Err(Fault::BadExpiry),
        Ok(_) | Err(_) => return Err(Fault::NotJwt),
    };
    let exp = claims.exp.ok_or(Fault::NoExpiry)?;
    numeric_date(exp.get()).ok_or(Fault::BadExpiry)
}

/// Checked by hand: serde takes an array for a struct as well.
fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

/// RFC 7519's NumericDate, above zero, rounded down.
fn numeric_date(json: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds::whole(json, LATEST)?))
}

/// base64url without padding (RFC 7515, section 2), in a buffer that never grows.
fn decoded(part: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    if part.is_empty() || part.len() % 4 == 1 {
        return Err(Fault::NotJwt);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(part.len()));
    let (mut bits, mut held) = (0_u32, 0_u32);
    for character in part.bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return Err(Fault::NotJwt),
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut group = [0; 3];
            group[..chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
            for at in 0..=chunk.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]));
            }
        }
        text
    }

    fn with_claims(claims: &str) -> Result<SystemTime, Fault> {
        let header = encoded(br#"{"alg":"RS256","kid":"1","typ":"JWT"}"#);
        expiry(&format!("{header}.{}.c2ln", encoded(claims.as_bytes())))
    }

    fn at(seconds: u64) -> Result<SystemTime, Fault> {
        Ok(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn the_example_of_rfc_7519() {
        // Section 3.1.
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(expiry(token), at(1_300_819_380));
    }

    #[test]
    fn exp_table() {
        for (json, seconds) in [
            ("1", 1),
            ("1300819380", 1_300_819_380),
            ("1300819380.9", 1_300_819_380),
            ("1.30081938e9", 1_300_819_380),
            ("18446744073709551616", LATEST),
            ("1e300", LATEST),
        ] {
            assert_eq!(with_claims(&format!(r#"{{"exp":{json}}}"#)), at(seconds));
        }
        for json in ["0", "-1", "0.5", "\"1300819380\"", "true", "[]", "{}"] {
            let fault = with_claims(&format!(r#"{{"exp":{json}}}"#));
            assert_eq!(fault, Err(Fault::BadExpiry), "{json}");
        }
        assert_eq!(
            with_claims(r#"{"exp":1,"exp":2}"#),
            Err(Fault::BadExpiry),
            "whoever verifies it may read the other one"
        );
        for claims in ["{}", r#"{"EXP":1}"#, r#"{"a":{"exp":1}}"#] {
            assert_eq!(with_claims(claims), Err(Fault::NoExpiry), "{claims}");
        }
        // serde takes `null` for absent.
        assert_eq!(with_claims(r#"{"exp":null}"#), Err(Fault::NoExpiry));
    }

    #[test]
    fn what_is_not_a_jwt() {
        for claims in ["", "[]", "[1]", "1", "null", "{", "{}x", "\u{feff}{}"] {
            assert_eq!(with_claims(claims), Err(Fault::NotJwt), "{claims}");
        }
        let (header, claims) = (encoded(b"{}"), encoded(br#"{"exp":1}"#));
        assert_eq!(expiry(&format!("{header}.{claims}.c2ln")), at(1));
        let long = "x".repeat(LONGEST);
        for token in [
            String::new(),
            "opaque".to_owned(),
            "ya29.c.b0Aaekm1K".to_owned(),
            format!("{header}.{claims}"),
            format!("{header}.{claims}."),
            format!("{header}.{claims}.c2ln.c2ln"),
            format!("{header}.{claims}=.c2ln"),
            format!("{header}.{claims}.c2ln\n"),
            format!("{claims}.{header}{header}.c2ln"),
            format!("{header}.{claims}.c2lnc"),
            format!("{header}.{claims}.é"),
            format!("{header}.{claims}.{long}"),
            "..".to_owned(),
        ] {
            assert_eq!(expiry(&token), Err(Fault::NotJwt), "{token}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(bytes in prop::collection::vec(any::<u8>(), 1..100)) {
            prop_assert_eq!(&**decoded(&encoded(&bytes)).unwrap(), &bytes);
        }

        #[test]
        fn whatever_comes_is_a_time_or_a_fault(token in "[A-Za-z0-9_.-]{0,200}", claims in "\\PC{0,60}") {
            let _ = expiry(&token);
            let _ = with_claims(&claims);
        }
    }
}
