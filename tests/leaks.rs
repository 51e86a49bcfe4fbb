//! Group J: the secret leaves through one header, and in no other way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{convert::Infallible, error::Error, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Empty;
use hyper::{body::Incoming, server, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use support::{Answer, BUCKET, Inner, Script, TraceTap, get, send};
use tokio::{net::TcpListener, sync::mpsc, time::sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::{FollowRedirectLayer, policy::SameOrigin};
use tower_scoped_auth::{
    Destinations, MetadataServer, RetryUnauthorized, ScopedAuthLayer, Scopes, Token, TokenCache,
    TokenRequest,
    emulator::{Emulator, Fault},
    source,
    test_util::TestClock,
};

const SECRET: &str = "Zq7Jx2Vn9Kp4Wm6Rt8Yb3Hd5Gf1Sc0LaQeUiOwPzXvBnMkJhGtFrDsAyTcEuIoLp";

/// Fails if `text` contains any eight consecutive characters of the secret.
fn assert_clean(what: &str, text: &str) {
    for start in 0..=SECRET.len() - 8 {
        let piece = &SECRET[start..start + 8];
        assert!(!text.contains(piece), "{what} shows {piece}: {text}");
    }
}

fn shown(what: &str, value: &dyn std::fmt::Debug) {
    assert_clean(what, &format!("{value:?}"));
    assert_clean(what, &format!("{value:#?}"));
}

fn chain(error: &(dyn Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        assert_clean("an error", &error.to_string());
        shown("an error", &error);
        next = error.source();
    }
}

fn secret_source() -> Script {
    Script::new(|_| Answer::token(SECRET, 3599))
}

fn cache(source: Script) -> TokenCache {
    TokenCache::builder(source)
        .clock(TestClock::new())
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn s132_no_debug_shows_the_secret() {
    let cache = cache(secret_source());
    let wanted = TokenRequest::access_token(Scopes::default());
    let layer = ScopedAuthLayer::from_cache(cache.clone());
    let inner = Inner::new();
    // Empty, holding it, waiting for it, and in error.
    for round in 0..2 {
        shown("TokenCache", &cache);
        shown("TokenStatus", &cache.status(&wanted));
        shown("ScopedAuthLayer", &layer);
        let mut client = layer.layer(Unshown(inner.clone()));
        shown("ScopedAuth", &client);
        std::future::poll_fn(|cx| client.poll_ready(cx))
            .await
            .unwrap();
        let mut future = Box::pin(client.call(get(BUCKET)));
        shown("ResponseFuture", &future);
        let answer = future.as_mut().now_or_never();
        shown("ResponseFuture", &future);
        if answer.is_none() {
            future.await.unwrap();
        }
        assert_eq!(inner.calls(), round + 1);
    }
    let token = cache.token(&wanted).await.unwrap();
    assert_eq!(token.expose_secret(), SECRET);
    shown("Token", &token);
    shown("HeaderValue", &token.header_value());
    shown("HeaderMap", &inner.seen()[0].headers);
    shown("TokenRequest", &wanted);
    shown("RetryUnauthorized", &RetryUnauthorized::new());
    shown("MetadataServer", &MetadataServer::new());
    let held = source::from_fn(move |_: TokenRequest| {
        let token = token.clone();
        async move { Ok::<_, Infallible>(token) }
    });
    shown("source::FromFn", &held);
    shown("TokenCacheBuilder", &TokenCache::builder(held));

    // In error, with one token held and one that was refused as malformed.
    let bad = format!("{SECRET} {SECRET}");
    let failing = Script::new(move |call| match call.number {
        1 => Answer::token(SECRET, 60),
        _ => Answer::token(bad.clone(), 60),
    });
    let cache = self::cache(failing);
    let layer = ScopedAuthLayer::from_cache(cache.clone());
    let client = layer.layer(Unshown(Inner::new()));
    send(&client, BUCKET).await.unwrap();
    sleep(Duration::from_secs(55)).await;
    send(&client, BUCKET).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let status = cache.status(&wanted);
    assert!(status.is_live() && status.last_error().is_some());
    for pass in 0..2 {
        shown("TokenCache", &cache);
        shown("TokenStatus", &cache.status(&wanted));
        shown("ScopedAuthLayer", &layer);
        shown("ScopedAuth", &client);
        if pass == 0 {
            sleep(Duration::from_secs(10)).await;
            chain(&*send(&client, BUCKET).await.unwrap_err());
        }
    }
}

/// `ScopedAuth`'s `Debug` shows its inner service, which in these tests records what it got.
#[derive(Clone)]
struct Unshown(Inner);

impl std::fmt::Debug for Unshown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inner")
    }
}

impl Service<Request<()>> for Unshown {
    type Response = http::Response<()>;
    type Error = std::convert::Infallible;
    type Future = <Inner as Service<Request<()>>>::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        Service::<Request<()>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.0.call(request)
    }
}

#[tokio::test]
async fn s133_s135_no_error_and_no_event_of_any_crate_shows_the_secret() {
    let tap = TraceTap::install_globally();
    let json = |rest: &str| format!(r#"{{"access_token":"{SECRET}",{rest}}}"#);
    let bad_bodies = [
        json(r#""expires_in":0,"token_type":"Bearer""#),
        json(r#""expires_in":"soon","token_type":"Bearer""#),
        json(r#""expires_in":3599,"token_type":"MAC""#),
        json(r#""expires_in":3599,"token_type":"Bearer","access_token":"twice""#),
        json(r#""expires_in":3599"#),
        format!(
            r#"{{"access_token":"{SECRET} with a space","expires_in":3599,"token_type":"Bearer"}}"#
        ),
        format!("{SECRET}{{"),
        format!(r#"{{"error":"{SECRET}"}}"#),
    ];
    let mut faults: Vec<Fault> = bad_bodies.into_iter().map(Fault::body).collect();
    faults.extend([400, 401, 403, 404, 429, 500, 503].map(|s| Fault::status(s).with_body(SECRET)));
    faults.push(Fault::redirect(302, format!("http://127.0.0.1:9/{SECRET}")));
    faults.push(Fault::raw(format!("{SECRET}\r\n\r\n")));
    faults.push(Fault::raw(format!("HTTP/1.1 200 OK\r\n{SECRET}\r\n\r\n")));
    faults.push(Fault::body(SECRET).retry_after(SECRET));
    for fault in faults {
        let mds = Emulator::builder().start().await.unwrap();
        mds.fault(fault.forever());
        let source = MetadataServer::builder()
            .endpoint(mds.endpoint())
            .build()
            .unwrap();
        let cache = TokenCache::builder(source)
            .max_wait(Duration::from_millis(20))
            .build()
            .unwrap();
        let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Inner::new());
        let error = send(&client, BUCKET).await.unwrap_err();
        chain(&*error);
        // The attempt may last longer than the wait.
        let wanted = TokenRequest::access_token(Scopes::default());
        while cache.status(&wanted).last_error().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        chain(cache.status(&wanted).last_error().unwrap());
        shown("TokenStatus", &cache.status(&wanted));
    }
    refused_and_taken_out().await;
    over_http2().await;
    shut_down_in_the_middle().await;
    for at in ["tower_scoped_auth", "hyper_util::", "h2::", "panicked"] {
        assert!(tap.text().contains(at), "the tap records {at}");
    }
    let text = tap.text();
    assert_clean("the log", &text);
}

/// A good token that its destination refuses and that is taken out of service.
async fn refused_and_taken_out() {
    let cache = TokenCache::new(secret_source());
    let client = ScopedAuthLayer::from_cache(cache.clone())
        .layer(Inner::answering(|_| StatusCode::UNAUTHORIZED));
    for _ in 0..3 {
        send(&client, BUCKET).await.unwrap();
    }
    let token = cache
        .token(&TokenRequest::access_token(Scopes::default()))
        .await
        .unwrap();
    cache.invalidate(&token);
    send(&client, BUCKET).await.unwrap();
    // A source that has the token and panics.
    let panicking = source::from_fn(|_: TokenRequest| async {
        let token = Token::new(SECRET, Duration::from_secs(3599));
        panic!("here is my {token:?}");
        #[allow(unreachable_code)]
        Ok::<_, Infallible>(token)
    });
    let cache = TokenCache::builder(panicking).max_wait(Duration::from_millis(20));
    let client = ScopedAuthLayer::from_cache(cache.build().unwrap()).layer(Inner::new());
    chain(&*send(&client, BUCKET).await.unwrap_err());
}

/// hyper and h2, whose own events show the frames they send.
async fn over_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let value = request.headers()[AUTHORIZATION].as_bytes().to_vec();
            sender.send(value).unwrap();
            async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
        });
        let connection = server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let _ = connection.await;
    });
    let client = ScopedAuthLayer::from_cache(TokenCache::new(secret_source()))
        .destinations(Destinations::only([format!("http://{addr}")]).unwrap())
        .layer(
            Client::builder(TokioExecutor::new())
                .http2_only(true)
                .build_http::<Empty<Bytes>>(),
        );
    for _ in 0..2 {
        let request = Request::get(format!("http://{addr}/")).body(Empty::new());
        client.clone().oneshot(request.unwrap()).await.unwrap();
        let seen = receiver.recv().await.unwrap();
        assert_eq!(seen, format!("Bearer {SECRET}").as_bytes());
    }
    drop(client);
    server.await.unwrap();
}

/// A runtime that shuts down with a fetch in flight, requests in flight, and a token in service.
async fn shut_down_in_the_middle() {
    let shut_down = || {
        let slow = Script::new(|call| match call.number {
            1 => Answer::token(SECRET, 3599),
            _ => Answer::token(SECRET, 3599).after(Duration::from_secs(60)),
        });
        let cache = TokenCache::new(slow);
        let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Inner::new());
        let wanted = TokenRequest::access_token(Scopes::default());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(send(&client, BUCKET)).unwrap();
        let token = runtime.block_on(cache.token(&wanted)).unwrap();
        cache.invalidate(&token);
        runtime.spawn(async move { send(&client, BUCKET).await.map(drop) });
        while !cache.status(&wanted).is_refreshing() {
            std::thread::yield_now();
        }
        runtime.shutdown_background();
        shown("TokenStatus", &cache.status(&wanted));
        drop(cache);
    };
    tokio::task::spawn_blocking(shut_down).await.unwrap();
}

/// Printed by the panicking child, so that its parent knows how far it got.
const PANICS: [&str; 3] = ["a source panics", "a client panics", "a task panics"];

/// The panic's message and the backtrace go to stderr; the token does not.
#[test]
fn s136_no_panic_shows_the_secret() {
    const CHILD: &str = "TOWER_SCOPED_AUTH_PANICKING_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return panic_with_a_token();
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "s136_no_panic_shows_the_secret",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .envs([(CHILD, "1"), ("RUST_BACKTRACE", "full")])
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(child.status.success(), "{said}");
    for panic in PANICS {
        assert!(said.contains(panic), "{said}");
    }
    assert_clean("what the process printed", &said);
}

fn panic_with_a_token() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let panicking = source::from_fn(|_: TokenRequest| async {
            let token = Token::new(SECRET, Duration::from_secs(3599));
            panic!("{}: {token:?} {:?}", PANICS[0], token.header_value());
            #[allow(unreachable_code)]
            Ok::<_, Infallible>(token)
        });
        let cache = TokenCache::builder(panicking).max_wait(Duration::from_millis(20));
        let client = ScopedAuthLayer::from_cache(cache.build().unwrap()).layer(Inner::new());
        chain(&*send(&client, BUCKET).await.unwrap_err());

        let client = ScopedAuthLayer::new(secret_source()).layer(service_fn_panicking());
        let answer = tokio::spawn(async move { client.oneshot(get(BUCKET)).await.map(drop) });
        assert!(answer.await.unwrap_err().is_panic());

        let cache = TokenCache::new(secret_source());
        let token = cache
            .token(&TokenRequest::access_token(Scopes::default()))
            .await
            .unwrap();
        let status = cache.status(&TokenRequest::access_token(Scopes::default()));
        let task = tokio::spawn(async move {
            panic!("{}: {token:?} {status:?} {cache:?}", PANICS[2]);
        });
        let task: Result<(), _> = task.await;
        shown("a JoinError", &task.unwrap_err());
    });
}

/// Shows the stamped request it was given, as a client with a bug would.
fn service_fn_panicking() -> impl Service<
    Request<()>,
    Response = http::Response<()>,
    Error = Infallible,
    Future = std::future::Ready<Result<http::Response<()>, Infallible>>,
> + Clone
+ Send
+ 'static {
    tower::service_fn(|request: Request<()>| {
        assert!(request.headers().contains_key(AUTHORIZATION));
        assert!(request.headers().is_empty(), "{}: {request:?}", PANICS[1]);
        std::future::ready(Ok(http::Response::new(())))
    })
}

#[tokio::test(start_paused = true)]
async fn s137_the_header_is_sensitive_on_every_path() {
    let inner = Inner::answering(|seen| match seen.token() {
        Some("tok-1") => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    let layer = ScopedAuthLayer::from_cache(cache(Script::tokens(3599)));
    let client = layer.layer(inner.clone());
    send(&client, BUCKET).await.unwrap(); // cold, and refused
    send(&client, BUCKET).await.unwrap(); // after the 401
    send(&client, BUCKET).await.unwrap(); // warm
    sleep(Duration::from_secs(3590)).await;
    send(&client, BUCKET).await.unwrap(); // stale, and after a swap
    let retrying = ServiceBuilder::new()
        .retry(RetryUnauthorized::new())
        .layer(layer);
    retrying
        .service(inner.clone())
        .oneshot(get(BUCKET))
        .await
        .unwrap();
    assert_eq!(inner.calls(), 5);
    for seen in inner.seen() {
        assert!(seen.headers[AUTHORIZATION].is_sensitive());
        assert!(seen.headers[AUTHORIZATION].clone().is_sensitive());
    }
}

#[tokio::test(start_paused = true)]
async fn s142_exactly_one_authorization_leaves() {
    let own: [&[&str]; 4] = [&[], &["Bearer own"], &["Bearer own", "Basic more"], &[""]];
    for (replace, values) in [false, true].into_iter().flat_map(|r| own.map(|v| (r, v))) {
        let (source, inner) = (Script::tokens(3599), Inner::new());
        let layer = ScopedAuthLayer::from_cache(cache(source.clone()));
        let layer = if replace {
            layer.replace_authorization()
        } else {
            layer
        };
        let mut request = get(BUCKET);
        for value in values {
            request
                .headers_mut()
                .append(AUTHORIZATION, value.parse().unwrap());
        }
        request
            .headers_mut()
            .insert("proxy-authorization", "Basic x".parse().unwrap());
        request
            .headers_mut()
            .insert("x-goog-user-project", "p".parse().unwrap());
        layer.layer(inner.clone()).oneshot(request).await.unwrap();
        let headers = &inner.seen()[0].headers;
        assert_eq!(headers.get_all(AUTHORIZATION).iter().count(), 1);
        let kept = !replace && !values.is_empty();
        let expected = if kept { values[0] } else { "Bearer tok-1" };
        assert_eq!(headers[AUTHORIZATION], expected);
        assert_eq!(
            source.calls(),
            usize::from(!kept),
            "nothing is fetched for a header that stays"
        );
        assert_eq!(
            (
                &headers["proxy-authorization"],
                &headers["x-goog-user-project"]
            ),
            (&"Basic x".parse().unwrap(), &"p".parse().unwrap())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn s143_the_secret_is_in_that_header_only() {
    let inner = Inner::new();
    let client = ScopedAuthLayer::from_cache(cache(secret_source())).layer(inner.clone());
    let response = send(&client, BUCKET).await.unwrap();
    shown("the response", &response);
    let seen = &inner.seen()[0];
    assert_eq!(seen.token(), Some(SECRET));
    let mut headers = seen.headers.clone();
    headers.remove(AUTHORIZATION);
    assert!(headers.is_empty());
    assert_clean("the URI", &seen.uri.to_string());

    // Nothing is left in extensions either, in the request or the response, cold or warm.
    let extensions = tower::service_fn(|request: Request<()>| {
        assert!(request.extensions().is_empty());
        std::future::ready(Ok::<_, Infallible>(Response::new(())))
    });
    let client = ScopedAuthLayer::from_cache(cache(secret_source())).layer(extensions);
    for _ in 0..2 {
        let response = client.clone().oneshot(get(BUCKET)).await.unwrap();
        assert!(response.extensions().is_empty() && response.headers().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn s141_a_redirect_above_us_takes_nothing_along() {
    for (location, stamped) in [
        ("https://evil.example/", false),
        ("http://storage.googleapis.com/plain", false),
        ("https://storage.googleapis.com/there", true),
    ] {
        let inner = Redirecting {
            to: location,
            inner: Inner::new(),
        };
        let layer = ScopedAuthLayer::from_cache(cache(secret_source()));
        for pass in [false, true] {
            let destinations = Destinations::google_apis();
            let destinations = if pass {
                destinations.pass_others()
            } else {
                destinations
            };
            let before = inner.inner.calls();
            let client = ServiceBuilder::new()
                .layer(FollowRedirectLayer::new())
                .layer(layer.clone().destinations(destinations))
                .service(inner.clone());
            let request = Request::get(BUCKET).body(Empty::<Bytes>::new()).unwrap();
            let result = client.oneshot(request).await;
            assert_eq!(result.is_ok(), stamped || pass, "{location}");
            let hops = inner.inner.seen().split_off(before);
            assert_eq!(hops[0].token(), Some(SECRET));
            let second = hops.get(1).and_then(|hop| hop.token());
            assert_eq!(second, stamped.then_some(SECRET), "{location}");
        }
    }
}

/// When a redirect leads to another origin, tower-http drops what the request brought: its own scopes,
/// its own `Authorization`. The next hop asks for what the layer asks for.
#[tokio::test]
async fn s141_a_redirect_to_another_origin_leaves_a_requests_choice_behind() {
    let source = Script::new(|call| {
        let wanted = call.request.scopes().unwrap().iter().next();
        Answer::token(wanted.unwrap_or("usual"), 3599)
    });
    let inner = Redirecting {
        to: "https://www.googleapis.com/there",
        inner: Inner::new(),
    };
    let layer = ScopedAuthLayer::from_cache(cache(source));
    let narrow = || {
        let mut request = Request::get(BUCKET).body(Empty::<Bytes>::new()).unwrap();
        let scopes = Scopes::new(["narrow"]).unwrap();
        request.extensions_mut().insert(scopes);
        request
    };
    let brings_its_own = || {
        let own = Request::get(BUCKET).header(AUTHORIZATION, "Bearer own");
        own.body(Empty::<Bytes>::new()).unwrap()
    };
    for (request, first) in [(narrow(), "narrow"), (brings_its_own(), "own")] {
        let before = inner.inner.calls();
        let client = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(layer.clone())
            .service(inner.clone());
        client.oneshot(request).await.unwrap();
        let sent = inner.inner.tokens().split_off(before);
        assert_eq!(sent, [first, "usual"]);
    }
    // What docs/placement.md advises.
    for (request, first) in [(narrow(), "narrow"), (brings_its_own(), "own")] {
        let before = inner.inner.calls();
        let client = ServiceBuilder::new()
            .layer(FollowRedirectLayer::with_policy(SameOrigin::new()))
            .layer(layer.clone())
            .service(inner.clone());
        assert_eq!(client.oneshot(request).await.unwrap().status(), 302);
        assert_eq!(inner.inner.tokens().split_off(before), [first]);
    }
}

/// Answers the first URI with a redirect.
#[derive(Clone)]
struct Redirecting {
    to: &'static str,
    inner: Inner,
}

impl<B> Service<Request<B>> for Redirecting {
    type Response = http::Response<()>;
    type Error = std::convert::Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        Service::<Request<B>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (first, to) = (*request.uri() == BUCKET, self.to);
        let answer = self.inner.call(request);
        Box::pin(async move {
            answer.await.map(|mut response| {
                if first {
                    *response.status_mut() = StatusCode::FOUND;
                    response
                        .headers_mut()
                        .insert("location", to.parse().unwrap());
                }
                response
            })
        })
    }
}

/// Sends a request to this URI through a layer that refuses it, and through one that lets others pass:
/// neither fetches a token, and none leaves.
async fn no_token_for(uri: &str, host: Option<&str>) {
    for pass in [false, true] {
        let destinations = match pass {
            true => Destinations::google_apis().pass_others(),
            false => Destinations::google_apis(),
        };
        let (source, inner) = (Script::tokens(3599), Inner::new());
        let client = ScopedAuthLayer::from_cache(cache(source.clone()))
            .destinations(destinations)
            .layer(inner.clone());
        let mut request = get(uri);
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        let result = client.oneshot(request).await;
        assert_eq!(
            (result.is_ok(), inner.calls()),
            (pass, pass.into()),
            "{uri}"
        );
        if let Err(error) = result {
            assert!(support::auth_error(&error).is_destination(), "{error}");
        }
        let stamped = |seen: &support::inner::Seen| seen.headers.contains_key(AUTHORIZATION);
        assert!(!inner.seen().iter().any(stamped), "{uri}");
        assert_eq!(source.calls(), 0, "{uri}: nothing is fetched");
    }
}

#[tokio::test(start_paused = true)]
async fn s138_plain_http_gets_no_token_and_fetches_none() {
    no_token_for("http://storage.googleapis.com/bucket", None).await;
    no_token_for("http://127.0.0.1:8080/", None).await;
    no_token_for("http://localhost/", None).await;
}

#[tokio::test(start_paused = true)]
async fn s139_a_request_without_host_or_scheme_gets_no_token_and_fetches_none() {
    for host in [None, Some("storage.googleapis.com")] {
        no_token_for("/path", host).await;
        no_token_for("storage.googleapis.com:443", host).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s140_other_hosts_get_no_token_and_fetch_none() {
    for uri in [
        "https://evil.example/",
        "https://storage.googleapis.com.evil.example/",
        "https://evilgoogleapis.com/",
        "https://googleapis.com@evil.example/",
        "https://evil.example/googleapis.com",
        "https://evil.example/?x=.googleapis.com",
        "https://169.254.169.254/",
        "https://metadata.google.internal/",
        "https://xn--googleapis-7jk.com/",
    ] {
        no_token_for(uri, None).await;
        // The URI decides, not the header.
        no_token_for(uri, Some("storage.googleapis.com")).await;
    }
    let (source, inner) = (Script::tokens(3599), Inner::new());
    let client = ScopedAuthLayer::from_cache(cache(source)).layer(inner.clone());
    for uri in [
        "https://STORAGE.googleapis.com/",
        "https://storage.googleapis.com:443/",
        BUCKET,
    ] {
        let mut request = get(uri);
        request
            .headers_mut()
            .insert("host", "evil.example".parse().unwrap());
        client.clone().oneshot(request).await.unwrap();
    }
    assert_eq!(inner.tokens(), ["tok-1"; 3]);
}

/// Compiles only if the type lacks the trait: with it, the name below is ambiguous.
macro_rules! lacks {
    ($type:ty: $($bound:tt)+) => {
        const _: fn() = || {
            trait Ambiguous<A> {
                fn name() {}
            }
            struct WithIt;
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $($bound)+> Ambiguous<WithIt> for T {}
            let _ = <$type as Ambiguous<_>>::name;
        };
    };
}

lacks!(Token: std::fmt::Display);
lacks!(Token: serde_core::Serialize);
lacks!(Token: std::ops::Deref);
lacks!(Token: AsRef<str>);
lacks!(Token: Into<String>);
lacks!(Token: PartialEq);
lacks!(TokenCache: std::fmt::Display);
lacks!(TokenCache: serde_core::Serialize);

/// The guards above are checked when this file is compiled.
#[test]
fn s145_a_token_has_one_way_in_and_its_name_says_so() {
    assert_eq!(
        Token::new(SECRET, Duration::from_secs(1)).expose_secret(),
        SECRET
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_fetches_nothing() {
    let (source, inner) = (Script::tokens(3599), Inner::new());
    let client = ScopedAuthLayer::from_cache(cache(source.clone())).layer(inner.clone());
    let error = send(&client, "https://evil.example/").await.unwrap_err();
    assert!(support::auth_error(&error).is_destination());
    assert!(error.to_string().contains("evil.example"));
    assert_eq!((source.calls(), inner.calls()), (0, 0));
}
