//! JWTs whose signatures nobody verifies.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `header`, `claims`, and a made-up signature.
pub fn jwt(header: &str, claims: &str) -> String {
    format!("{}.{}.c2ln", encoded(header), encoded(claims))
}

/// A JWT that expires in `seconds` (or did, if negative), and differs from others by its `jti`.
pub fn jwt_for(seconds: i64, jti: &str) -> String {
    let exp = now() + seconds;
    jwt(
        r#"{"alg":"RS256","typ":"JWT"}"#,
        &format!(r#"{{"jti":"{jti}","exp":{exp}}}"#),
    )
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs() as i64
}

fn encoded(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for at in 0..=chunk.len() {
            encoded.push(char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    encoded
}
