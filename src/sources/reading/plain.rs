//! A token as plain text: what a file holds, or a program prints. Pure: bytes in, text or a reason
//! out. Reasons never repeat the bytes.

use super::LONGEST_TOKEN;

/// The token in `bytes`, without the white space around it.
#[cfg(any(
    feature = "token-file",
    feature = "gcloud",
    feature = "google-cloud-auth"
))]
pub(in crate::sources) fn token(bytes: &[u8]) -> Result<&str, &'static str> {
    let trimmed = bytes.trim_ascii();
    if trimmed.is_empty() {
        return Err("it is empty");
    }
    if trimmed.len() > LONGEST_TOKEN {
        return Err("it is longer than any token (8192 characters)");
    }
    std::str::from_utf8(trimmed)
        .ok()
        .filter(|text| is_b64token(text))
        .ok_or("it has characters that no token has (RFC 6750, section 2.1)")
}

/// RFC 6750, section 2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
pub(in crate::sources) fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
    };
    !body.is_empty() && text.len() <= LONGEST_TOKEN && body.bytes().all(allowed)
}

#[cfg(all(test, feature = "token-file"))]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_token_is_not_part_of_it() {
        for bytes in [
            &b"a.b-c_d~e+f/g="[..],
            b"a.b-c_d~e+f/g=\n",
            b" \r\n\ta.b-c_d~e+f/g= \r\n",
        ] {
            assert_eq!(token(bytes), Ok("a.b-c_d~e+f/g="));
        }
    }

    #[test]
    fn what_is_no_token_is_a_reason() {
        for bytes in [
            &b""[..],
            b" \n",
            b"a b",
            b"a\nb",
            b"a\r\nX-Evil: 1",
            b"a\0",
            b"\xef\xbb\xbfa",
            b"\xff",
            "t\u{f6}k\u{e9}n".as_bytes(),
            b"=",
            b"a=b",
            b"\"a\"",
            b"{}",
            &[b'x'; LONGEST_TOKEN + 1],
        ] {
            assert!(token(bytes).is_err(), "{bytes:?}");
        }
        assert!(token(&[b'x'; LONGEST_TOKEN]).is_ok());
    }
}
