//! Query values as the metadata server takes them: percent-encoded (RFC 3986, section 2.1).
//!
//! Pure, and stricter than any server requires: everything that is not unreserved is escaped, so that
//! no scope or audience can change the path or the query it is part of.

use crate::token::request::Scopes;

/// A list as one value, `a%2Cb`.
pub(super) fn scopes(scopes: &Scopes) -> String {
    let mut value = String::new();
    for scope in scopes.iter() {
        if !value.is_empty() {
            encode_into(&mut value, ",");
        }
        encode_into(&mut value, scope);
    }
    value
}

/// A text as one value.
pub(super) fn value(text: &str) -> String {
    let mut value = String::new();
    encode_into(&mut value, text);
    value
}

fn encode_into(value: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| {
        HEX.get(usize::from(nibble & 0xF))
            .map_or('0', |&d| char::from(d))
    };
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                value.push(char::from(byte));
            }
            _ => value.extend(['%', digit(byte >> 4), digit(byte)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s163_what_a_query_could_misread_is_escaped() {
        let wire = |list: &[&str]| scopes(&Scopes::new(list).unwrap());
        assert_eq!(
            wire(&["a&x=1", "a#", "https://h/%41?"]),
            "a%23%2Ca%26x%3D1%2Chttps%3A%2F%2Fh%2F%2541%3F"
        );
        assert_eq!(wire(&["b", "a"]), "a%2Cb");
    }
}
