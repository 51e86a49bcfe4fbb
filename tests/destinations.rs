//! s140 by the clients' own view: whatever a request's URI looks like, the token goes only where the
//! client connects to an allowed origin.
//!
//! The truth is never the crate's reading of a URI. It is what a real client looks up and connects to, and,
//! for many URIs, what that client asks `http::Uri` or `url::Url` for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use reqwest::dns::{Addrs, Resolve, Resolving};
use support::{
    Inner, Script, auth_error,
    clients::{
        GOOGLE_APIS, HOSTS, JOINTS, PATTERNS, PORTS, Pattern, Place, SCHEMES, SUFFIXES, TAILS, V6,
        is_plain,
    },
    crypto_provider,
    stamped::{Stamped, stamps, warm_cache},
    tls,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tower::{Layer, Service, ServiceExt};
use tower_scoped_auth::{Audience, Destinations, ScopedAuthLayer};

/// URIs that say one thing to whoever compares text, and another to a client.
const ODD: [&str; 22] = [
    "https://[x@evil.com:.googleapis.com]/",
    "https://[x@evil.com:.googleapis.com]:443/",
    "https://[x@evil.com:.a.run.app]/",
    "https://[x@metadata.google.internal:.googleapis.com]/",
    "https://[x@169.254.169.254:.googleapis.com]/",
    "https://[storage.googleapis.com]/",
    "https://[x.googleapis.com]/",
    "https://[.a.run.app]/",
    "https://[127.0.0.1]/",
    "https://[]/",
    "https://[::1].googleapis.com/",
    "https://user@storage.googleapis.com/",
    "https://user:pw@storage.googleapis.com/",
    "https://storage.googleapis.com@evil.com/",
    "https://storage.googleapis.com:443@evil.com/",
    "https://evil.com@storage.googleapis.com/",
    "https://storage.googleapis.com:/",
    "https://storage.googleapis.com:0443/",
    "https://storage.googleapis.com:65979/",
    "https://storage.googleapis.com./",
    "https://.googleapis.com/",
    "https://evil.com,.googleapis.com/",
];

/// What the server saw of each request: `Authorization`, or nothing.
type Seen = Arc<Mutex<Vec<Option<String>>>>;

/// Answers one request.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, seen: Seen) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let authorization = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: "))
        .map(str::to_owned);
    seen.lock().unwrap().push(authorization);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

/// Records each name that a client looks up. All of them lead to one server.
#[derive(Clone)]
struct Resolver {
    server: SocketAddr,
    names: Arc<Mutex<Vec<String>>>,
}

impl Resolver {
    fn new(server: SocketAddr) -> Self {
        let names = Arc::default();
        Self { server, names }
    }

    fn look_up(&self, name: &str) -> [SocketAddr; 1] {
        self.names.lock().unwrap().push(name.to_owned());
        [self.server]
    }

    fn names(&self) -> Vec<String> {
        self.names.lock().unwrap().clone()
    }
}

impl Service<Name> for Resolver {
    type Response = std::array::IntoIter<SocketAddr, 1>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        ready(Ok(self.look_up(name.as_str()).into_iter()))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let addrs: Addrs = Box::new(self.look_up(name.as_str()).into_iter());
        Box::pin(ready(Ok(addrs)))
    }
}

/// Layers that allow other origins each, and what each of them allows.
fn layers(source: &Script) -> [(ScopedAuthLayer, &'static str); 3] {
    let run = Destinations::only(["https://*.run.app", "https://*.googleapis.com"]).unwrap();
    [
        (
            ScopedAuthLayer::new(source.clone()),
            "https://storage.googleapis.com/",
        ),
        (
            ScopedAuthLayer::new(source.clone()).destinations(run.clone()),
            "https://my-service.a.run.app/",
        ),
        (
            ScopedAuthLayer::new(source.clone())
                .audience(Audience::per_origin())
                .destinations(run),
            "https://my-service.a.run.app/",
        ),
    ]
}

#[tokio::test]
async fn s140_an_odd_uri_opens_no_connection_of_hyper_over_tls() {
    let (acceptor, config) = tls(&[
        "evil.com",
        "metadata.google.internal",
        "*.googleapis.com",
        "*.a.run.app",
    ]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resolver = Resolver::new(listener.local_addr().unwrap());
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            answer(stream, Arc::clone(&log)).await;
        }
    });
    let mut http = HttpConnector::new_with_resolver(resolver.clone());
    http.enforce_http(false);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .wrap_connector(http);
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(https);

    // Without the layer, the client goes where it should not.
    let request = Request::get(ODD[0]).body(Empty::new()).unwrap();
    client.request(request).await.unwrap();
    assert_eq!(
        std::mem::take(&mut *resolver.names.lock().unwrap()),
        ["evil.com"]
    );
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), [None]);

    let source = Script::tokens(3599);
    for (layer, allowed) in layers(&source) {
        let client = layer.layer(client.clone());
        let fetched = source.calls();
        for odd in ODD {
            let request = Request::get(odd).body(Empty::new()).unwrap();
            let error = client.clone().oneshot(request).await.unwrap_err();
            assert!(auth_error(&error).is_destination(), "{odd}: {error}");
            assert!(resolver.names().is_empty(), "{odd}: {:?}", resolver.names());
        }
        assert_eq!(source.calls(), fetched, "fetched for a refused request");
        assert!(seen.lock().unwrap().is_empty());

        let request = Request::get(allowed).body(Empty::new()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let name = Uri::from_static(allowed).host().unwrap().to_owned();
        assert_eq!(std::mem::take(&mut *resolver.names.lock().unwrap()), [name]);
        let token = format!("bearer tok-{}", fetched + 1);
        assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), [Some(token)]);
    }
}

#[tokio::test]
async fn s140_an_odd_url_opens_no_connection_of_reqwest() {
    crypto_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resolver = Resolver::new(listener.local_addr().unwrap());
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            answer(stream, Arc::clone(&log)).await;
        }
    });
    let client = reqwest::Client::builder()
        .no_proxy()
        .dns_resolver(resolver.clone())
        .build()
        .unwrap();
    let source = Script::tokens(3599);
    let domains = ["http://*.googleapis.com", "http://*.run.app"];
    let layer = ScopedAuthLayer::new(source.clone())
        .destinations(Destinations::only(domains).unwrap())
        .layer(client);
    let mut sent = 0;
    for odd in ODD {
        // In plain text, which this client could send. `url::Url` refuses most of them itself, and corrects
        // one.
        let Ok(url) = reqwest::Url::parse(&odd.replace("https:", "http:")) else {
            continue;
        };
        if url.authority() == "storage.googleapis.com" {
            continue;
        }
        let request = reqwest::Request::new(Method::GET, url);
        let error = layer.clone().oneshot(request).await.unwrap_err();
        assert!(auth_error(&error).is_destination(), "{odd}: {error}");
        sent += 1;
    }
    assert!(sent >= 8, "{sent}");
    assert!(resolver.names().is_empty(), "{:?}", resolver.names());
    assert_eq!(source.calls(), 0);

    let url = "http://storage.googleapis.com/".parse().unwrap();
    let request = reqwest::Request::new(Method::GET, url);
    layer.oneshot(request).await.unwrap();
    assert_eq!(resolver.names(), ["storage.googleapis.com"]);
    assert_eq!(*seen.lock().unwrap(), [Some("bearer tok-1".to_owned())]);
}

#[tokio::test]
async fn s140_a_connect_or_trace_request_has_no_token_whatever_the_destinations() {
    const URI: &str = "https://storage.googleapis.com:443/";
    let source = Script::tokens(3599);
    for destinations in [
        Destinations::google_apis(),
        Destinations::inner_origin("https://storage.googleapis.com").unwrap(),
        Destinations::danger_trust_inner(),
    ] {
        let layer = ScopedAuthLayer::new(source.clone());
        let strict = layer.clone().destinations(destinations.clone());
        let passing = layer.destinations(destinations.pass_others());
        for (layer, refuses) in [(strict, true), (passing, false)] {
            let inner = Inner::new();
            let client = layer.layer(inner.clone());
            // Another method to the same authority has a token, before and after.
            for uri in [URI, "storage.googleapis.com:443", URI] {
                client.clone().oneshot(support::get(URI)).await.unwrap();
                let calls = inner.calls();
                let method = match uri {
                    URI => Method::TRACE,
                    _ => Method::CONNECT,
                };
                let request = Request::builder().method(method).uri(uri);
                let request = request.body(()).unwrap();
                let answer = client.clone().oneshot(request).await;
                if refuses {
                    let error = answer.unwrap_err();
                    assert!(auth_error(&error).is_destination(), "{error}");
                    assert!(error.to_string().contains("CONNECT and TRACE"), "{error}");
                    assert_eq!(inner.calls(), calls);
                } else {
                    answer.unwrap();
                    assert_eq!(inner.last_token().unwrap(), "(none)", "{uri}");
                }
            }
            client.oneshot(support::get(URI)).await.unwrap();
            let tokens = inner.tokens();
            let stamped = tokens.iter().filter(|token| token.starts_with("tok-"));
            assert_eq!(stamped.count(), 4, "{tokens:?}");
        }
    }
}

struct Generator(fastrand::Rng);

impl Generator {
    fn any<'a>(&mut self, pieces: &[&'a str]) -> &'a str {
        pieces[self.0.usize(..pieces.len())]
    }

    fn sometimes<'a>(&mut self, one_in: usize, pieces: &[&'a str]) -> &'a str {
        match self.0.usize(..one_in) {
            0 => self.any(pieces),
            _ => "",
        }
    }

    fn authority(&mut self) -> String {
        let mut authority = match self.0.u8(..8) {
            // A host, or an address in brackets.
            0..3 => self.any(&HOSTS).to_owned(),
            3 => format!("[{}]", self.any(&V6)),
            // The same with something odd around, between or inside.
            4..7 => [
                self.sometimes(2, &["["]),
                self.sometimes(3, &["x@", "user:pw@", "[x@", "x", "."]),
                self.any(&HOSTS),
                self.sometimes(2, &SUFFIXES),
                self.sometimes(2, &["]"]),
                self.sometimes(6, &SUFFIXES),
            ]
            .concat(),
            // Anything.
            _ => (0..self.0.usize(1..6))
                .map(|_| match self.0.u8(..4) {
                    0 => self.any(&HOSTS),
                    1 => self.any(&V6),
                    2 => self.any(&SUFFIXES),
                    _ => self.any(&JOINTS),
                })
                .collect(),
        };
        authority.push_str(self.any(&PORTS));
        if self.0.u8(..8) == 0 {
            let flip = |c: char| match self.0.bool() {
                true => c.to_ascii_uppercase(),
                false => c,
            };
            authority = authority.chars().map(flip).collect();
        }
        authority
    }

    fn uri(&mut self) -> (String, String) {
        let (scheme, authority) = (self.any(&SCHEMES), self.authority());
        let tail = self.any(&TAILS);
        (format!("{scheme}://{authority}{tail}"), authority)
    }
}

#[derive(Debug, Default)]
struct Count {
    of_hyper: usize,
    of_reqwest: usize,
    stamped: usize,
    /// A client connects to a place that is not allowed, and an allowed one stands in the authority.
    evil: usize,
}

/// Sends requests until each of the two clients has taken so many URIs.
fn the_client_decides(count: usize, seed: u64) -> Count {
    let cache = warm_cache();
    let patterns: [&[&str]; 2] = [&GOOGLE_APIS, &PATTERNS];
    let patterns = patterns.map(|list| {
        list.iter()
            .filter_map(|pattern| Pattern::read(pattern))
            .collect::<Vec<_>>()
    });
    let lists = [
        Destinations::google_apis(),
        Destinations::only(PATTERNS).unwrap(),
    ];
    let may = |list: usize, place: &Option<Place>| {
        let place = place.as_ref();
        place.is_some_and(|place| {
            patterns[list]
                .iter()
                .any(|pattern| place.is_allowed_by(pattern))
        })
    };
    let mut services = lists.clone().map(|destinations| {
        ScopedAuthLayer::from_cache(cache.clone())
            .destinations(destinations.pass_others())
            .layer(Stamped)
    });
    let mut generator = Generator(fastrand::Rng::with_seed(seed));
    let mut done = Count::default();
    while done.of_hyper < count || done.of_reqwest < count {
        let (text, authority) = generator.uri();
        let uri = match generator.0.u8(..4) {
            // `http` takes parts that it would not parse.
            0 => Uri::builder()
                .scheme(text.split("://").next().unwrap())
                .authority(authority.as_str())
                .path_and_query(generator.any(&TAILS))
                .build()
                .ok(),
            _ => text.parse::<Uri>().ok(),
        };
        let url = reqwest::Url::parse(&text).ok();
        done.of_hyper += usize::from(uri.is_some());
        done.of_reqwest += usize::from(url.is_some());
        for (list, service) in services.iter_mut().enumerate() {
            if let Some(uri) = &uri {
                let place = Place::of_hyper(uri);
                // As reqwest reads it when a request of `http` is made one of reqwest's.
                let written = reqwest::Url::parse(&uri.to_string());
                let written = written.map_or(Ok(true), |url| {
                    let place = Place::of_reqwest(&url);
                    may(list, &place).then_some(true).ok_or(place)
                });
                let may = may(list, &place);
                let stamped = stamps(service, Request::get(uri).body(()).unwrap());
                assert!(may || !stamped, "{uri}: hyper connects to {place:?}");
                assert!(
                    written.is_ok() || !stamped,
                    "{uri}: reqwest connects to {written:?}"
                );
                // A plain authority that is allowed is stamped: the check does not refuse everything.
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                let is_plain = is_plain(authority) && uri.path().starts_with('/');
                assert!(stamped || !may || !is_plain, "{uri}");
                assert_eq!(lists[list].check(uri).is_ok(), stamped, "{uri}");
                done.stamped += usize::from(stamped);
                let lower = authority.to_ascii_lowercase();
                let lure = [".googleapis.com", ".run.app"][list];
                done.evil += usize::from(place.is_some() && !may && lower.contains(lure));
            }
            if let Some(url) = &url {
                let request = reqwest::Request::new(Method::GET, url.clone());
                let written = text.split("://").nth(1).unwrap_or_default();
                let is_plain = is_plain(written.split(['/', '?', '#', '\\']).next().unwrap());
                let stamped = stamps(service, request);
                let place = Place::of_reqwest(url);
                // reqwest hands the URL as text to hyper, which reads it again.
                let again = url.as_str().parse::<Uri>().ok();
                for place in [place, again.as_ref().and_then(Place::of_hyper)] {
                    let may = may(list, &place);
                    assert!(may || !stamped, "{text}: reqwest connects to {place:?}");
                    assert!(stamped || !may || !is_plain, "{text}");
                }
                done.stamped += usize::from(stamped);
            }
        }
    }
    done
}

#[test]
fn s140_the_token_goes_where_the_client_connects_and_is_allowed() {
    let done = the_client_decides(100_000, fastrand::u64(..));
    println!("{done:?}");
    assert!(done.stamped > 10_000 && done.evil > 10_000, "{done:?}");
}

#[test]
#[ignore = "ten million URIs"]
fn s140_the_token_goes_where_the_client_connects_and_is_allowed_ten_million_times() {
    let done = the_client_decides(10_000_000, fastrand::u64(..));
    println!("{done:?}");
}

/// Any pattern that is accepted allows what a client reads in it, and nothing else.
#[test]
fn s140_a_pattern_allows_what_a_client_reads_in_it() {
    let mut generator = Generator(fastrand::Rng::new());
    let (mut accepted, mut allowed) = (0, 0);
    while accepted < 20_000 {
        let (scheme, authority) = (generator.any(&SCHEMES), generator.authority());
        let wildcard = generator.sometimes(3, &["*."]);
        let pattern = format!("{scheme}://{wildcard}{authority}");
        let Ok(destinations) = Destinations::only([&pattern]) else {
            continue;
        };
        accepted += 1;
        let read = Pattern::read(&pattern).expect(&pattern);
        // The same again, something below it, and anything.
        let below = generator.any(&["", "x.", "X.y.", "-", "."]);
        let other = generator.authority();
        for authority in [authority.clone(), format!("{below}{authority}"), other] {
            let text = format!("{scheme}://{authority}/");
            let Ok(uri) = text.parse::<Uri>() else {
                continue;
            };
            let may = Place::of_hyper(&uri).is_some_and(|place| place.is_allowed_by(&read));
            let checked = destinations.check(&uri).is_ok();
            assert!(may || !checked, "{pattern} {text}");
            assert!(checked || !may || !is_plain(&authority), "{pattern} {text}");
            allowed += usize::from(checked);
        }
    }
    assert!(allowed > 10_000, "{allowed}");
}

#[test]
fn the_generator_makes_each_kind_of_odd_authority() {
    let mut generator = Generator(fastrand::Rng::with_seed(1));
    let mut wanted: Vec<_> = [
        "[x@evil.com:.googleapis.com]",
        "[x@metadata.google.internal:.googleapis.com]",
        "[storage.googleapis.com]",
        "[x@evil.com.googleapis.com]",
        "[127.0.0.1]",
        "user:pw@storage.googleapis.com",
        "storage.googleapis.com@evil.com",
        "storage.googleapis.com:65536",
        "[fe80::1%25eth0]",
        "2130706433.run.app",
    ]
    .to_vec();
    for _ in 0..1_000_000 {
        let authority = generator.authority();
        wanted.retain(|odd| *odd != authority);
    }
    assert!(wanted.is_empty(), "never made: {wanted:?}");
}
