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
use support::crypto_provider;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_scoped_auth::{
    Destinations, RetryUnauthorized, ScopedAuthLayer, Token, TokenRequest, source,
};

const HOUR: Duration = Duration::from_secs(3600);

const SECRET: &str = "a-secret-that-must-not-travel";

/// The heads of the requests that a server saw.
type Seen = Arc<Mutex<Vec<String>>>;

/// Answers the first path with a redirect, `/refused` with 401, and all others with 200.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, seen: Seen, location: String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let status = match head.split(' ').nth(1).unwrap() {
        "/first" => format!("302 Found\r\nLocation: {location}"),
        "/refused" => "401 Unauthorized".to_owned(),
        _ => "200 OK".to_owned(),
    };
    seen.lock().unwrap().push(head);
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

struct Server {
    addr: SocketAddr,
    seen: Seen,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>, location: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, seen) = (listener.local_addr().unwrap(), Seen::default());
        let (log, location) = (Arc::clone(&seen), location.into());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, log, location) = (tls.clone(), Arc::clone(&log), location.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, log, location).await;
                            }
                        }
                        None => answer(stream, log, location).await,
                    }
                });
            }
        });
        Self { addr, seen }
    }

    fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A freshly made certificate for `localhost`: the server's side and the client's.
fn tls() -> (TlsAcceptor, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), client)
}

fn auth(allowed: String) -> ScopedAuthLayer {
    let source = source::from_fn(|_: TokenRequest| async {
        Ok::<_, std::io::Error>(Token::new(SECRET, HOUR))
    });
    ScopedAuthLayer::new(source).destinations(Destinations::only([allowed]).unwrap().pass_others())
}

#[tokio::test]
async fn s141_a_redirect_layer_above_us_over_tls() {
    let (acceptor, config) = tls();
    // To another port, which is another origin; to plain http; and to the same origin.
    let other = Server::start(Some(acceptor.clone()), "").await;
    let plain = Server::start(None, "").await;
    let targets = [
        (
            format!("https://localhost:{}/second", other.addr.port()),
            false,
        ),
        (
            format!("http://localhost:{}/second", plain.addr.port()),
            false,
        ),
        ("/second".to_owned(), true),
    ];
    for (location, stamped) in targets {
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
        assert!(first.heads()[0].contains(SECRET), "{location}");
        if stamped {
            assert!(first.heads()[1].contains(SECRET), "{location}");
        }
    }
    for stranger in [&other, &plain] {
        assert_eq!(stranger.heads().len(), 1, "reached, and without the token");
        assert!(!stranger.heads()[0].contains(SECRET));
        assert!(
            !stranger.heads()[0]
                .to_ascii_lowercase()
                .contains("authorization")
        );
    }
}

/// A machine that an allowed name resolves to must prove that the name is its own.
#[tokio::test]
async fn s138_another_machine_under_an_allowed_name_gets_nothing() {
    let (strangers, _) = tls();
    let (_, trusted) = tls();
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
