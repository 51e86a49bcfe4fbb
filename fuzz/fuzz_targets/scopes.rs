//! Any scopes, audiences, accounts and endpoints: accepted unchanged, or an error of one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_scoped_auth::{Audience, MetadataServer, Scopes};

fuzz_target!(|input: Vec<&str>| {
    match Scopes::new(&input) {
        Ok(scopes) => {
            assert!(scopes.iter().all(|scope| input.contains(&scope)));
            assert!(
                input
                    .iter()
                    .all(|scope| scopes.iter().any(|kept| kept == *scope))
            );
            assert!(
                scopes
                    .iter()
                    .all(|s| s.bytes().all(|b| b.is_ascii_graphic() && b != b','))
            );
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
    for text in input {
        if let Err(error) = Audience::new(text) {
            assert_eq!(error.to_string().lines().count(), 1);
        }
        if let Err(error) = MetadataServer::builder().account(text).build() {
            assert_eq!(error.to_string().lines().count(), 1);
        }
        if let Err(error) = MetadataServer::builder().endpoint(text).build() {
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }
});
