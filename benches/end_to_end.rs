//! A real client against a real server, with and without the layer: `cargo bench --bench end_to_end`.
//!
//! hyper-util's client and reqwest send to a hyper server over loopback, a few requests at a time and many.
//! Client and server have one thread each, on a core of its own that is asked not to halt. The arms of one
//! client take turns, so that what is compared ran side by side. "By hand" sets the same header without a
//! layer, and clones the client as often as the arm that is compared with it: what is left between it and
//! "no header" is a kilobyte on the wire. "The least layer" sets the header where this crate does, and does
//! nothing else: what it costs is moving the request and one more service.
//!
//! The second table shows latency, in blocks of 100 ms with eight requests at a time, of a client whose token
//! lives for three seconds: it compares blocks in which a refresh was under way with blocks in which none was.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "support/cores.rs"]
mod cores;
mod support;

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cores::{keep_awake, stay_on_core};
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use support::{
    results::Table,
    samples::{Middle, middle, paired, quantile},
    warm::{secret, warm_cache},
};
use tokio::{net::TcpListener, runtime, task::JoinSet};
use tower::{BoxError, Layer, Service};
use tower_scoped_auth::{
    Destinations, MetadataServer, ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest,
    TokenSource,
    emulator::{Emulator, Fault},
};

/// With this many requests at a time, the server sleeps after every fifth, and is woken by the client.
const AT_EASE: usize = 8;
/// With this many, it hardly sleeps.
const BUSY: usize = 64;
/// Short and many: a machine drifts by more than the difference being measured, but more slowly than a span.
const ROUNDS: usize = 500;
const SPAN: Duration = Duration::from_millis(25);

const BLOCKS: usize = 400;
const BLOCK: Duration = Duration::from_millis(100);
const LIFE: Duration = Duration::from_secs(3);
const SLOW_REFRESH: Duration = Duration::from_millis(500);

/// One request, sent and answered.
type Once = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Makes what one task needs to send its requests.
type Sender = Box<dyn Fn() -> Once>;

/// Boxes a request's future. Every arm goes through this, so it favours none.
fn once<F, Fut>(mut make: F) -> Once
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Box::new(move || Box::pin(make()))
}

/// How often a task clones the service.
#[derive(Clone, Copy)]
enum Clones {
    /// One clone for all of its requests.
    Once,
    PerRequest,
}

/// Sends through a service that is always ready.
fn send<S, R>(service: &mut S, clones: Clones, request: R) -> S::Future
where
    S: Service<R> + Clone,
{
    let mut clone;
    let service = match clones {
        Clones::Once => service,
        Clones::PerRequest => {
            clone = service.clone();
            &mut clone
        }
    };
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(
        service.poll_ready(&mut context),
        Poll::Ready(Ok(()))
    ));
    service.call(request)
}

/// Answers everything with `ok`, on a thread of its own, until the process ends.
fn serve() -> SocketAddr {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        stay_on_core(1);
        run(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("bound"))
                .expect("told");
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a socket");
                let answer = service_fn(|_: Request<Incoming>| async {
                    Ok::<_, Infallible>(Response::new(String::from("ok")))
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(connection);
            }
        })
    });
    told.recv().expect("the server is up")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Sets a constant header, and does nothing else.
#[derive(Clone)]
struct Least<S, H> {
    inner: S,
    value: HeaderValue,
    /// Where this client's requests keep their headers.
    headers: H,
}

impl<S, H, R> Service<R> for Least<S, H>
where
    S: Service<R>,
    H: Fn(&mut R) -> &mut HeaderMap,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    #[inline]
    fn call(&mut self, mut request: R) -> S::Future {
        (self.headers)(&mut request).insert(AUTHORIZATION, self.value.clone());
        self.inner.call(request)
    }
}

type Hyper = Client<HttpConnector, Empty<Bytes>>;

fn hyper_client() -> Hyper {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A header value to set by hand, or none.
type ByHand = Option<HeaderValue>;

fn with_hyper<S>(service: S, addr: SocketAddr, clones: Clones, value: ByHand) -> Sender
where
    S: Service<Request<Empty<Bytes>>, Response = Response<Incoming>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    let uri: http::Uri = format!("http://{addr}/bucket/object")
        .parse()
        .expect("valid");
    Box::new(move || {
        let (mut service, uri, value) = (service.clone(), uri.clone(), value.clone());
        once(move || {
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = uri.clone();
            if let Some(value) = &value {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            let sent = send(&mut service, clones, request);
            async move {
                let response = sent.await.map_err(Into::into).expect("an answer");
                let body = response.into_body().collect().await.expect("a body");
                assert_eq!(body.to_bytes(), "ok");
            }
        })
    })
}

fn with_reqwest<S>(service: S, addr: SocketAddr, clones: Clones, value: ByHand) -> Sender
where
    S: Service<reqwest::Request, Response = reqwest::Response> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    let url: reqwest::Url = format!("http://{addr}/bucket/object")
        .parse()
        .expect("valid");
    Box::new(move || {
        let (mut service, url, value) = (service.clone(), url.clone(), value.clone());
        once(move || {
            let mut request = reqwest::Request::new(reqwest::Method::GET, url.clone());
            if let Some(value) = &value {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            let sent = send(&mut service, clones, request);
            async move {
                let response = sent.await.map_err(Into::into).expect("an answer");
                assert_eq!(response.bytes().await.expect("a body"), "ok");
            }
        })
    })
}

/// Keeps `at_once` requests going for `span`; returns the latencies in seconds, one per request.
async fn closed_loop(sender: &Sender, at_once: usize, span: Duration) -> Vec<f64> {
    let until = Instant::now() + span;
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let mut once = sender();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut begun = Instant::now();
            while begun < until {
                once().await;
                let ended = Instant::now();
                latencies.push((ended - begun).as_secs_f64());
                begun = ended;
            }
            latencies
        });
    }
    tasks.join_all().await.concat()
}

/// Seconds per request of each arm; the arms take turns.
async fn by_turns(arms: &[Sender], at_once: usize) -> Vec<Vec<f64>> {
    let mut samples = vec![Vec::with_capacity(ROUNDS); arms.len()];
    for arm in arms {
        closed_loop(arm, at_once, SPAN).await; // opens the connections
    }
    let mut order: Vec<_> = (0..arms.len()).collect();
    let mut chance = fastrand::Rng::with_seed(1);
    for _ in 0..ROUNDS {
        // No arm always comes first, or after the same one.
        chance.shuffle(&mut order);
        for &arm in &order {
            let begun = Instant::now();
            let requests = closed_loop(&arms[arm], at_once, SPAN).await.len();
            samples[arm].push(begun.elapsed().as_secs_f64() / requests as f64);
        }
    }
    samples
}

/// The names of a client's arms, each with the index of the arm that does the same by hand.
const ARMS: [(&str, usize); 6] = [
    ("no header", 1),
    ("header by hand", 1),
    ("the least layer", 1),
    ("this crate", 1),
    ("header by hand, clone() per request", 4),
    ("this crate, clone() per request", 4),
];

async fn throughput(addr: SocketAddr, cache: TokenCache) -> Table {
    let here = || Destinations::only([format!("http://{addr}")]).expect("valid");
    let auth = || ScopedAuthLayer::from_cache(cache.clone()).destinations(here());
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret())).expect("valid");
    value.set_sensitive(true);

    let by_hand = || Some(value.clone());
    let (hyper, reqwest) = (hyper_client(), reqwest::Client::new());
    let (hyper_auth, reqwest_auth) = (auth().layer(hyper.clone()), auth().layer(reqwest.clone()));
    let hyper_least = Least {
        inner: hyper.clone(),
        value: value.clone(),
        headers: Request::<Empty<Bytes>>::headers_mut,
    };
    let reqwest_least = Least {
        inner: reqwest.clone(),
        value: value.clone(),
        headers: reqwest::Request::headers_mut,
    };
    let clients: [(&str, [Sender; ARMS.len()]); 2] = [
        (
            "hyper-util",
            [
                with_hyper(hyper.clone(), addr, Clones::Once, None),
                with_hyper(hyper.clone(), addr, Clones::Once, by_hand()),
                with_hyper(hyper_least, addr, Clones::Once, None),
                with_hyper(hyper_auth.clone(), addr, Clones::Once, None),
                with_hyper(hyper, addr, Clones::PerRequest, by_hand()),
                with_hyper(hyper_auth, addr, Clones::PerRequest, None),
            ],
        ),
        (
            "reqwest",
            [
                with_reqwest(reqwest.clone(), addr, Clones::Once, None),
                with_reqwest(reqwest.clone(), addr, Clones::Once, by_hand()),
                with_reqwest(reqwest_least, addr, Clones::Once, None),
                with_reqwest(reqwest_auth.clone(), addr, Clones::Once, None),
                with_reqwest(reqwest, addr, Clones::PerRequest, by_hand()),
                with_reqwest(reqwest_auth, addr, Clones::PerRequest, None),
            ],
        ),
    ];
    let head = [
        "client",
        "at once",
        "what",
        "requests per second",
        "time over no header",
        "from",
        "to",
        "time over by hand",
        "by hand from",
        "by hand to",
    ];
    let mut table = Table::new("end_to_end", COMMAND, &head);
    for (at_once, (client, arms)) in [AT_EASE, BUSY]
        .into_iter()
        .flat_map(|at_once| clients.iter().map(move |client| (at_once, client)))
    {
        let samples = by_turns(arms, at_once).await;
        for ((name, by_hand), ours) in ARMS.iter().zip(&samples) {
            let plain = paired(ours, &samples[0], |ours, plain| ours / plain);
            let by_hand = paired(ours, &samples[*by_hand], |ours, by_hand| ours / by_hand);
            let [plain, plain_low, plain_high] = ratio(plain);
            let [by_hand, by_hand_low, by_hand_high] = ratio(by_hand);
            table.row([
                (*client).to_owned(),
                at_once.to_string(),
                (*name).to_owned(),
                format!("{:.0}", 1.0 / middle(ours.iter().copied()).median),
                plain,
                plain_low,
                plain_high,
                by_hand,
                by_hand_low,
                by_hand_high,
            ]);
        }
    }
    table
}

fn ratio(of: Middle) -> [String; 3] {
    [of.median, of.low, of.high].map(|figure| format!("{figure:.3}"))
}

/// A metadata server that knows whether a fetch is under way.
struct Watched {
    inner: MetadataServer,
    asked: Arc<AtomicBool>,
}

impl TokenSource for Watched {
    type Error = <MetadataServer as TokenSource>::Error;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, Self::Error> {
        self.asked.store(true, Ordering::Relaxed);
        let token = self.inner.fetch(request).await;
        self.asked.store(false, Ordering::Relaxed);
        token
    }
}

async fn tail(addr: SocketAddr) -> Table {
    let mds = Emulator::builder()
        .token_lifetime(LIFE)
        .start()
        .await
        .expect("a port");
    mds.fault(Fault::delay(SLOW_REFRESH).forever());
    let asked = Arc::new(AtomicBool::new(false));
    let source = Watched {
        inner: MetadataServer::builder()
            .endpoint(mds.endpoint())
            .build()
            .expect("valid"),
        asked: Arc::clone(&asked),
    };
    let here = Destinations::only([format!("http://{addr}")]).expect("valid");
    let auth = ScopedAuthLayer::new(source).destinations(here);
    let sender = with_hyper(auth.layer(hyper_client()), addr, Clones::PerRequest, None);
    closed_loop(&sender, AT_EASE, 2 * BLOCK).await; // fetches, and opens the connections

    let (mut resting, mut refreshing) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        let before = asked.load(Ordering::Relaxed);
        let mut latencies = closed_loop(&sender, AT_EASE, BLOCK).await;
        let [p50, p999] = [0.5, 0.999].map(|share| quantile(&mut latencies, share) * 1e6);
        match (before, asked.load(Ordering::Relaxed)) {
            (false, false) => resting.push((p50, p999)),
            (true, true) => refreshing.push((p50, p999)),
            // A refresh began or ended within the block.
            _ => {}
        }
    }
    let head = ["what", "blocks", "p50 µs", "p99.9 µs", "from", "to"];
    let mut table = Table::new("tail", COMMAND, &head);
    for (name, blocks) in [("no refresh", resting), ("a refresh under way", refreshing)] {
        let p50 = middle(blocks.iter().map(|block| block.0));
        let p999 = middle(blocks.iter().map(|block| block.1));
        table.row([
            name.to_owned(),
            blocks.len().to_string(),
            format!("{:.0}", p50.median),
            format!("{:.0}", p999.median),
            format!("{:.0}", p999.low),
            format!("{:.0}", p999.high),
        ]);
    }
    println!("\n{} refreshes", mds.token_requests() - 1);
    table
}

const COMMAND: &str = "cargo bench --bench end_to_end";

fn main() {
    let addr = serve();
    // Before any thread is bound: what depends on the number of cores must see all of them.
    let cache = warm_cache(&[TokenRequest::access_token(Scopes::default())]);
    let awake = keep_awake();
    let client = thread::spawn(move || {
        stay_on_core(0);
        run(async { [throughput(addr, cache).await, tail(addr).await] })
    });
    for mut table in client.join().expect("no panic") {
        table.note(match awake {
            Some(_) => "CPUs asked not to halt",
            None => "CPUs that halt",
        });
        table.finish();
    }
}
