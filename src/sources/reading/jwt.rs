//! When a compact JWT (RFC 7519) expires. Pure: text in, a time or a reason out.
//!
//! It reads `exp` and trusts it: whoever receives the token verifies the signature, and a false `exp`
//! from a source that the user chose harms only the token's holder. Reasons never repeat what the token
//! held, and whatever was decoded is zeroed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _, alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};
use zeroize::Zeroizing;

use super::{
    LONGEST_TOKEN,
    members::{self, members},
    seconds,
};

/// Why no expiry could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sources) enum Fault {
    /// Not three parts of base64url, the first two of them JSON objects: perhaps an opaque token.
    NotJwt,
    /// A JWT, but it does not say when it expires.
    NoExpiry,
    /// A JWT whose `exp` is not a date after 1970, or appears twice.
    BadExpiry,
}

/// A date later than any real expiry, 9999-12-31, that every platform's clock can represent.
const LATEST: u64 = 253_402_300_799;

/// The time in `exp`, rounded down to the beginning of its second.
pub(in crate::sources) fn expiry(token: &str) -> Result<SystemTime, Fault> {
    if token.len() > LONGEST_TOKEN {
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
    members(&header, []).map_err(|_| Fault::NotJwt)?;
    let [exp] = members(&claims, ["exp"]).map_err(|fault| match fault {
        members::Fault::Repeated => Fault::BadExpiry,
        _ => Fault::NotJwt,
    })?;
    numeric_date(exp.ok_or(Fault::NoExpiry)?).ok_or(Fault::BadExpiry)
}

/// RFC 7519's NumericDate, above zero, rounded down.
fn numeric_date(json: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds::whole(json, LATEST)?))
}

/// base64url without padding (RFC 7515, section 2). Bits left over at the end are ignored: whether they make a
/// token invalid is up to whoever verifies it (RFC 4648, section 3.5).
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    NO_PAD.with_decode_allow_trailing_bits(true),
);

/// Decodes into a buffer that never grows.
fn decoded(part: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    if part.is_empty() {
        return Err(Fault::NotJwt);
    }
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(part.len())]);
    let length = BASE64URL.decode_slice(part, &mut bytes);
    bytes.truncate(length.map_err(|_| Fault::NotJwt)?);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(json: impl AsRef<[u8]>) -> String {
        BASE64URL.encode(json)
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
        assert_eq!(with_claims(r#"{"exp":null}"#), Err(Fault::NoExpiry));
    }

    #[test]
    fn what_is_not_a_jwt() {
        for claims in ["", "[]", "[1]", "1", "null", "{", "{}x", "\u{feff}{}"] {
            assert_eq!(with_claims(claims), Err(Fault::NotJwt), "{claims}");
        }
        let (header, claims) = (encoded(b"{}"), encoded(br#"{"exp":1}"#));
        assert_eq!(expiry(&format!("{header}.{claims}.c2ln")), at(1));
        assert_eq!(
            expiry(&format!("{header}.{claims}.0B")),
            at(1),
            "bits are left over"
        );
        let long = "x".repeat(LONGEST_TOKEN);
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
