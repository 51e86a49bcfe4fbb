//! What stamping one request costs: `cargo bench --bench injection`.
//!
//! The inner service is ready at once and drops the request; a request has a parsed URI and three
//! headers. Times are medians over interleaved rounds; they drift between runs and machines, so
//! compare only what stands in one table. With `-- --instructions NAME N` it runs one case N times,
//! for `valgrind --tool=callgrind`: see `.ci/instructions`.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    process::ExitCode,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_scoped_auth::{
    Destinations, ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest, source,
};

/// Ready at once; drops the request.
#[derive(Clone)]
struct Sink;

impl Service<Request<()>> for Sink {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}

fn request() -> Request<()> {
    Request::get("https://storage.googleapis.com/storage/v1/b/bucket/o")
        .header("accept", "application/json")
        .header("user-agent", "bench")
        .header("x-goog-api-client", "bench/1")
        .body(())
        .expect("valid")
}

fn drive<S: Service<Request<()>>>(service: &mut S, request: Request<()>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = pin!(service.call(request));
    assert!(
        future.as_mut().poll(&mut context).is_ready(),
        "a warm request waits"
    );
}

/// As long as a real one.
fn secret() -> String {
    "x".repeat(1024)
}

fn layer() -> ScopedAuthLayer {
    let cache = TokenCache::new(source::from_fn(|_: TokenRequest| async {
        Ok::<_, Infallible>(Token::new(secret(), Duration::from_secs(86_400)))
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    for scopes in [Scopes::default(), Scopes::cloud_platform()] {
        let request = TokenRequest::access_token(scopes);
        runtime.block_on(cache.token(&request)).expect("a token");
    }
    ScopedAuthLayer::from_cache(cache)
}

fn patterns(count: usize) -> Destinations {
    let others = (1..count).map(|n| format!("https://*.host-{n}.example"));
    let list = others.chain(["https://*.googleapis.com".to_owned()]);
    Destinations::only(list).expect("valid")
}

type Case = (&'static str, Box<dyn FnMut(Request<()>)>);

fn cases() -> Vec<Case> {
    fn case<S: Service<Request<()>> + 'static>(name: &'static str, mut service: S) -> Case {
        (name, Box::new(move |request| drive(&mut service, request)))
    }
    let floor = HeaderValue::from_str(&format!("Bearer {}", secret())).expect("valid");
    let constant = AddAuthorizationLayer::bearer(&secret()).as_sensitive(true);
    let mut own = layer().layer(Sink);
    let scopes = Scopes::cloud_platform();
    vec![
        case("bare", Sink),
        (
            "floor: insert a constant",
            Box::new(move |mut request| {
                request.headers_mut().insert(AUTHORIZATION, floor.clone());
                drive(&mut Sink, request);
            }),
        ),
        case("tower-http AddAuthorization", constant.layer(Sink)),
        case("this crate", layer().layer(Sink)),
        case(
            "this crate, trust_inner",
            layer()
                .destinations(Destinations::trust_inner())
                .layer(Sink),
        ),
        case(
            "this crate, 10 patterns",
            layer().destinations(patterns(10)).layer(Sink),
        ),
        case(
            "this crate, 100 patterns",
            layer().destinations(patterns(100)).layer(Sink),
        ),
        (
            "this crate, scopes per request",
            Box::new(move |mut request| {
                request.extensions_mut().insert(scopes.clone());
                drive(&mut own, request);
            }),
        ),
    ]
}

const BATCH: usize = 2_000;
const ROUNDS: usize = 200;

/// Nanoseconds per request of one batch, building the requests not included.
fn batch(case: &mut Case) -> f64 {
    let requests: Vec<_> = (0..BATCH).map(|_| request()).collect();
    let begun = Instant::now();
    for request in requests {
        case.1(request);
    }
    begun.elapsed().as_secs_f64() * 1e9 / BATCH as f64
}

fn table() {
    let mut cases = cases();
    let mut times = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            times.push(batch(case));
        }
    }
    let medians: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        })
        .collect();
    println!("| what | ns per request | ns over bare |\n| --- | --- | --- |");
    for ((name, _), median) in cases.iter().zip(&medians) {
        println!("| {name} | {median:.0} | {:.0} |", median - medians[0]);
    }
}

/// One case, so many times, and nothing else that depends on how many.
fn instructions(name: &str, count: usize) -> ExitCode {
    let Some(mut case) = cases().into_iter().find(|(case, _)| *case == name) else {
        eprintln!("no such case: {name}");
        return ExitCode::from(2);
    };
    for _ in 0..count {
        case.1(request());
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match arguments.as_slice() {
        [flag, name, count] if flag == "--instructions" => {
            instructions(name, count.parse().unwrap_or(0))
        }
        _ => {
            table();
            ExitCode::SUCCESS
        }
    }
}
