//! s141 on real sockets: redirects above the layer over TLS, and a client's own redirects below it; and
//! which token a 401 counts against after the latter.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{crypto_provider, tls};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_scoped_auth::{
    Destinations, RetryUnauthorized, ScopedAuthLayer, Token, TokenRequest, source,
};

const HOUR: Duration = Duration::from_secs(3600);

const SECRET: &str = "a-secret-that-must-not-travel";

/// The first byte that a TLS client sends: the content type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// A request that a server received.
#[derive(Clone)]
struct Received {
    over_tls: bool,
    head: String,
}

impl Received {
    fn has_authorization(&self) -> bool {
        self.head.to_ascii_lowercase().contains("authorization")
    }
}

type Log = Arc<Mutex<Vec<Received>>>;

/// Answers `/first` with a redirect to `location`, `/refused` with 401, and all other paths with 200.
/// `SELF` in `location` stands for the host and port that the request was sent to.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    over_tls: bool,
    log: Log,
    location: String,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let status = match head.split(' ').nth(1).unwrap() {
        "/first" => {
            let host = head.lines().find_map(|line| line.strip_prefix("host: "));
            let location = location.replace("SELF", host.unwrap());
            format!("302 Found\r\nLocation: {location}")
        }
        "/refused" => "401 Unauthorized".to_owned(),
        _ => "200 OK".to_owned(),
    };
    log.lock().unwrap().push(Received { over_tls, head });
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

struct Server {
    addr: SocketAddr,
    log: Log,
}

impl Server {
    /// With `tls`, its port accepts both TLS and plain http.
    async fn start(tls: Option<TlsAcceptor>, location: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, log) = (listener.local_addr().unwrap(), Log::default());
        let (shared, location) = (Arc::clone(&log), location.into());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, log, location) = (tls.clone(), Arc::clone(&shared), location.clone());
                tokio::spawn(async move {
                    let mut first = [0];
                    let _ = stream.peek(&mut first).await;
                    match tls.filter(|_| first == [TLS_HANDSHAKE]) {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, true, log, location).await;
                            }
                        }
                        None => answer(stream, false, log, location).await,
                    }
                });
            }
        });
        Self { addr, log }
    }

    fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().clone()
    }

    fn heads(&self) -> Vec<String> {
        self.received().into_iter().map(|one| one.head).collect()
    }
}

fn auth(allowed: String) -> ScopedAuthLayer {
    let source = source::from_fn(|_: TokenRequest| async {
        Ok::<_, std::io::Error>(Token::new(SECRET, HOUR))
    });
    ScopedAuthLayer::new(source).destinations(Destinations::only([allowed]).unwrap().pass_others())
}

#[tokio::test]
async fn s141_a_redirect_layer_above_us_over_tls() {
    let (acceptor, config) = tls(&["localhost"]);
    let other = Server::start(Some(acceptor.clone()), "").await;
    let plain = Server::start(None, "").await;
    // Each with what the first server then receives: over TLS, and with the token.
    let targets = [
        (
            format!("https://localhost:{}/second", other.addr.port()),
            None,
        ),
        (
            format!("http://localhost:{}/second", plain.addr.port()),
            None,
        ),
        ("http://SELF/second".to_owned(), Some((false, false))),
        ("/second".to_owned(), Some((true, true))),
    ];
    for (location, expected) in targets {
        let first = Server::start(Some(acceptor.clone()), location.clone()).await;
        let origin = format!("https://localhost:{}", first.addr.port());
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config.clone())
            .https_or_http()
            .enable_http1()
            .build();
        let hyper = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
        let client = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(auth(origin.clone()))
            .service(hyper);
        let request = Request::get(format!("{origin}/first"))
            .body(Empty::new())
            .unwrap();
        let response = client.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{location}");
        let received = first.received();
        assert!(received[0].over_tls, "{location}");
        assert!(received[0].head.contains(SECRET), "{location}");
        let second = received.get(1);
        let second = second.map(|second| (second.over_tls, second.has_authorization()));
        assert_eq!(second, expected, "{location}");
    }
    for stranger in [&other, &plain] {
        let received = stranger.received();
        assert_eq!(received.len(), 1, "reached, and without the token");
        assert!(!received[0].has_authorization());
        assert!(!received[0].head.contains(SECRET));
    }
}

/// A machine that an allowed name resolves to must prove that the name is its own.
#[tokio::test]
async fn s138_another_machine_under_an_allowed_name_gets_nothing() {
    let (strangers, _) = tls(&["localhost"]);
    let (_, trusted) = tls(&["localhost"]);
    let stranger = Server::start(Some(strangers), "").await;
    let origin = format!("https://localhost:{}", stranger.addr.port());
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trusted)
        .https_only()
        .enable_http1()
        .build();
    let hyper = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let request = Request::get(format!("{origin}/first")).body(Empty::new());
    let client = ServiceBuilder::new().layer(auth(origin)).service(hyper);
    client.oneshot(request.unwrap()).await.unwrap_err();
    assert!(stranger.heads().is_empty());
}

#[tokio::test]
async fn s141_reqwests_own_redirects_below_us() {
    crypto_provider();
    let stranger = Server::start(None, "").await;
    let first = Server::start(None, format!("http://{}/second", stranger.addr)).await;
    let origin = format!("http://{}", first.addr);
    let client = ServiceBuilder::new()
        .layer(auth(origin.clone()))
        .service(reqwest::Client::new());
    let url = format!("{origin}/first").parse().unwrap();
    let response = client
        .oneshot(reqwest::Request::new(reqwest::Method::GET, url))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert!(first.heads()[0].contains(SECRET));
    assert_eq!(stranger.heads().len(), 1);
    assert!(!stranger.heads()[0].contains(SECRET));
}

/// reqwest compares the scheme since 0.13.4. Before, the second request took the token along in plain text.
///
/// Needs TLS in reqwest, which Google's crate turns on and the dev-dependency does not (see `Cargo.toml`).
#[cfg(feature = "google-cloud-auth")]
#[tokio::test]
async fn s141_reqwest_drops_the_token_when_a_redirect_leaves_https_on_the_same_port() {
    let (acceptor, config) = tls(&["localhost"]);
    for (location, same_origin) in [("http://SELF/second", false), ("https://SELF/second", true)] {
        let server = Server::start(Some(acceptor.clone()), location).await;
        let origin = format!("https://localhost:{}", server.addr.port());
        let reqwest = reqwest::Client::builder()
            .tls_backend_preconfigured(config.clone())
            .no_proxy()
            .build()
            .unwrap();
        let client = ServiceBuilder::new()
            .layer(auth(origin.clone()))
            .service(reqwest);
        let url = format!("{origin}/first").parse().unwrap();
        let response = client
            .oneshot(reqwest::Request::new(reqwest::Method::GET, url))
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{location}");
        let received = server.received();
        assert_eq!(received.len(), 2, "{location}");
        assert!(received[0].over_tls, "{location}");
        assert!(received[0].head.contains(SECRET), "{location}");
        let second = &received[1];
        assert_eq!(second.over_tls, same_origin, "{location}: TLS");
        assert_eq!(
            second.head.contains(SECRET),
            same_origin,
            "{location}: token"
        );
        assert_eq!(
            second.has_authorization(),
            same_origin,
            "{location}: header"
        );
    }
}

/// A 401 from where reqwest was redirected to says nothing about our token, which was not sent there.
#[tokio::test]
async fn s157_a_401_of_another_origin_repeats_no_request_and_fetches_nothing() {
    crypto_provider();
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetches);
    let source = source::from_fn(move |_: TokenRequest| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, std::io::Error>(Token::new(format!("tok-{number}"), HOUR)) }
    });
    let other = Server::start(None, "").await;
    let first = Server::start(None, format!("http://{}/refused", other.addr)).await;
    let origin = format!("http://{}", first.addr);
    let destinations = Destinations::only([&origin]).unwrap();
    let client = ServiceBuilder::new()
        .retry(RetryUnauthorized::new())
        .layer(ScopedAuthLayer::new(source).destinations(destinations))
        .service(reqwest::Client::new());
    let send = async |path: &str| {
        let url = format!("{origin}{path}").parse().unwrap();
        let request = reqwest::Request::new(reqwest::Method::POST, url);
        client.clone().oneshot(request).await.unwrap().status()
    };

    assert_eq!(send("/first").await, 401);
    assert_eq!(other.heads().len(), 1);
    assert_eq!(first.heads().len(), 1, "sent once");
    assert_eq!(send("/second").await, 200);
    assert_eq!(fetches.load(Ordering::SeqCst), 1);

    // A 401 from the origin itself does.
    assert_eq!(send("/refused").await, 401);
    assert_eq!(first.heads().len(), 4, "twice, with two tokens");
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}
