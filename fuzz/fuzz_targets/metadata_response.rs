//! Any bytes as a response, head and body, through the real client over a real socket: the result is a
//! token that is valid in a header, or an error; never a panic.

#![no_main]

mod server;

use libfuzzer_sys::fuzz_target;
use tower_scoped_auth::{Scopes, TokenRequest};

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let mut answer = if first % 2 == 0 {
        Vec::new()
    } else {
        server::HEAD.to_vec()
    };
    answer.extend_from_slice(rest);
    let request = TokenRequest::access_token(Scopes::default());
    if let Ok(token) = server::fetch(answer, request) {
        let secret = token.expose_secret();
        assert!(
            secret
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b))
        );
        assert!(
            token
                .lifetime()
                .is_some_and(|life| (1..=86_400).contains(&life.as_secs()))
        );
    }
});
