//! Any response to a request for an ID token, through the real client over a real socket: the result is a
//! JWT that equals the response except for the end of its line, or an error; never a panic.
//!
//! The first byte selects what the rest is: a whole response, head included; a body; or the claims of an
//! otherwise well-formed JWT.

#![no_main]

mod server;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use libfuzzer_sys::fuzz_target;
use tower_scoped_auth::{Audience, TokenRequest};

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let body = match first % 3 {
        0 => None,
        1 => Some(rest.to_vec()),
        _ => {
            let claims = BASE64URL.encode(rest);
            Some(format!("eyJhbGciOiJSUzI1NiJ9.{claims}.c2ln").into_bytes())
        }
    };
    let answer = match &body {
        Some(body) => [server::HEAD, body].concat(),
        None => rest.to_vec(),
    };
    let audience = Audience::new("https://a.run.app").expect("valid");
    let Ok(token) = server::fetch(answer, TokenRequest::id_token(audience)) else {
        return;
    };
    let secret = token.expose_secret();
    let parts: Vec<&str> = secret.split('.').collect();
    assert_eq!(parts.len(), 3);
    assert!(parts.iter().all(|part| !part.is_empty()));
    if let Some(body) = body {
        assert_eq!(secret.as_bytes(), body.trim_ascii_end());
    }
});
