//! A pattern and a URI, put together from the pieces that tell parsers apart: the token goes only where the
//! client connects to, by the client's own reading.

#![no_main]

#[path = "../../tests/support/clients.rs"]
mod clients;
#[path = "../../tests/support/stamped.rs"]
mod stamped;

use std::sync::LazyLock;

use clients::{
    GOOGLE_APIS, HOSTS, JOINTS, PATTERNS, PORTS, Pattern, Place, SCHEMES, SUFFIXES, TAILS, V6,
    is_plain,
};
use http::{Request, Uri};
use libfuzzer_sys::fuzz_target;
use reqwest::{Method, Url};
use stamped::{Stamped, stamps, warm_cache};
use tower::Layer;
use tower_scoped_auth::{Destinations, ScopedAuthLayer, TokenCache};

static CACHE: LazyLock<TokenCache> = LazyLock::new(warm_cache);

/// A byte below 128 is itself; any other is one of the pieces.
fn text(bytes: &[u8]) -> String {
    const PIECES: [&[&str]; 7] = [
        &HOSTS,
        &V6,
        &JOINTS,
        &SUFFIXES,
        &PORTS,
        &TAILS,
        &["://", "https://", "http://"],
    ];
    let pieces = || PIECES.iter().copied().flatten();
    let count = pieces().count();
    bytes
        .iter()
        .map(|&byte| match byte.checked_sub(128) {
            None => char::from(byte).to_string(),
            Some(number) => {
                let piece = pieces().nth(usize::from(number) % count);
                piece.copied().unwrap_or_default().to_owned()
            }
        })
        .collect()
}

fn check(patterns: &[&str], destinations: Destinations, uri: &str) {
    let patterns: Vec<_> = patterns
        .iter()
        .map(|pattern| Pattern::read(pattern).expect("a URI"))
        .collect();
    let may = |place: Option<Place>| {
        place.is_some_and(|place| patterns.iter().any(|pattern| place.is_allowed_by(pattern)))
    };
    let layer =
        ScopedAuthLayer::from_cache(CACHE.clone()).destinations(destinations.clone().pass_others());
    let mut service = layer.layer(Stamped);
    if let Ok(uri) = uri.parse::<Uri>() {
        // Checked, and then remembered.
        for _ in 0..2 {
            let stamped = stamps(&mut service, Request::get(&uri).body(()).expect("valid"));
            let may = may(Place::of_hyper(&uri));
            assert!(may || !stamped, "{uri}");
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            assert!(
                stamped || !may || !is_plain(authority) || !uri.path().starts_with('/'),
                "{uri}"
            );
            assert_eq!(destinations.check(&uri).is_ok(), stamped, "{uri}");
        }
        if let Err(error) = destinations.check(&uri) {
            let text = error.to_string();
            assert!(text.lines().count() == 1 && text.len() < 2_000, "{text}");
        }
    }
    if let Ok(url) = uri.parse::<Url>() {
        let request = reqwest::Request::new(Method::GET, url.clone());
        if stamps(&mut service, request) {
            assert!(may(Place::of_reqwest(&url)), "{url}");
            let again: Uri = url.as_str().parse().expect("reqwest hands it to hyper");
            assert!(may(Place::of_hyper(&again)), "{url}");
        }
    }
}

fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (choice, pattern, uri) = input;
    let scheme = SCHEMES[usize::from(choice) % SCHEMES.len()];
    let uri = format!("{scheme}://{}", text(uri));
    check(&GOOGLE_APIS, Destinations::google_apis(), &uri);
    check(
        &PATTERNS,
        Destinations::only(PATTERNS).expect("valid"),
        &uri,
    );
    let pattern = format!("{scheme}://{}", text(pattern));
    if let Ok(destinations) = Destinations::only([&pattern]) {
        check(&[&pattern], destinations, &uri);
    }
});
