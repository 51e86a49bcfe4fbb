//! A pattern and a URI: the matcher agrees with one that is slow and obviously correct.

#![no_main]

use std::{
    convert::Infallible,
    future::ready,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response, Uri};
use libfuzzer_sys::fuzz_target;
use tower::{Layer, Service, service_fn};
use tower_scoped_auth::{
    Destinations, ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest, source,
};

/// Holds a token that outlives the run.
static CACHE: LazyLock<TokenCache> = LazyLock::new(|| {
    let cache = TokenCache::new(source::from_fn(|_: TokenRequest| async {
        Ok::<_, Infallible>(Token::new("t", Duration::from_secs(10_000_000)))
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let request = TokenRequest::access_token(Scopes::default());
    runtime
        .expect("a runtime")
        .block_on(cache.token(&request))
        .expect("a token");
    cache
});

fn stamped(destinations: Destinations, uri: Uri) -> bool {
    let layer = ScopedAuthLayer::from_cache(CACHE.clone()).destinations(destinations.pass_others());
    let mut service = layer.layer(service_fn(|request: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(
            request.headers().contains_key("authorization"),
        )))
    }));
    let request = Request::get(uri).body(()).expect("a request");
    let mut context = Context::from_waker(Waker::noop());
    let mut future = std::pin::pin!(service.call(request));
    match future.as_mut().poll(&mut context) {
        Poll::Ready(Ok(response)) => response.into_body(),
        _ => panic!("a warm request waits or fails"),
    }
}

/// What the documentation says, word for word. `None` where it refuses whatever the pattern is.
fn origin(scheme: &str, authority: &str) -> Option<(String, Vec<String>, u16)> {
    let scheme = scheme.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    if authority.contains(['@', '[']) {
        return None;
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (
            host,
            port.parse()
                .ok()
                .filter(|_| port.len() <= 5 && !port.starts_with('+'))?,
        ),
        None => (authority, default),
    };
    let labels: Vec<_> = host
        .to_ascii_lowercase()
        .split('.')
        .map(str::to_owned)
        .collect();
    let proper = |l: &String| {
        !l.is_empty()
            && l.chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '*')
    };
    (port != 0 && proper(&labels[0]) && labels.iter().all(|l| proper(l)))
        .then_some((scheme, labels, port))
}

fn allowed(pattern: &str, uri: &Uri) -> bool {
    let Some((scheme, authority)) = pattern.split_once("://") else {
        return false;
    };
    let Some((scheme, wanted, port)) = origin(scheme, authority) else {
        return false;
    };
    let (Some(uri_scheme), Some(uri_authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let Some((uri_scheme, have, uri_port)) = origin(uri_scheme, uri_authority.as_str()) else {
        return false;
    };
    let host = have.join(".");
    if ["metadata.google.internal", "169.254.169.254", "metadata"].contains(&host.as_str())
        || host.contains('*')
    {
        return false;
    }
    let hosts = match wanted.split_first() {
        Some((star, tail)) if star == "*" => have.len() > tail.len() && have.ends_with(tail),
        _ => wanted == have,
    };
    scheme == uri_scheme && port == uri_port && hosts
}

fuzz_target!(|input: (&str, &str)| {
    let (pattern, uri) = input;
    let (Ok(destinations), Ok(uri)) = (Destinations::only([pattern]), uri.parse::<Uri>()) else {
        return;
    };
    if pattern.contains('[') {
        // Addresses in brackets have many spellings, so this only checks that nothing panics.
        stamped(destinations, uri);
        return;
    }
    assert_eq!(
        stamped(destinations, uri.clone()),
        allowed(pattern, &uri),
        "{pattern} {uri}"
    );
});
