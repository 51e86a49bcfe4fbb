//! What a request costs as threads are added: `cargo bench --bench contention`.
//!
//! Measured through `poll_ready`, `call`, the response and its drop. The inner service gives the request
//! back, so that each thread reuses one request and nothing is allocated: what is left is the layer and
//! the header. It is compared with a constant value that all threads clone, whose single reference count
//! makes two cores slower than one. Also printed: bytes of heap per token that is held.

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
    future::{Ready, ready},
    hint::black_box,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use cores::stay_on_core;
use http::{Request, Response, header::AUTHORIZATION};
use support::{
    heap,
    results::Table,
    samples::{middle, paired},
    warm::{exchange, request, scopes, secret, warm_cache},
};
use tokio::runtime::{self, Runtime};
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_scoped_auth::{
    ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest, source, test_util::TestClock,
};

#[global_allocator]
static TAP: heap::Tap = heap::Tap;

const ROUNDS: usize = 60;

/// Of one measurement: long compared with a thread's start, short compared with the machine's drift.
const SPAN: Duration = Duration::from_millis(10);

/// Requests between two readings of the clock.
const CHUNK: u32 = 512;

const SWAP_EVERY: Duration = Duration::from_millis(1);

/// Ready at once; gives the request back.
#[derive(Clone)]
struct Echo;

impl Service<Request<()>> for Echo {
    type Response = Response<Request<()>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(Response::new(request)))
    }
}

/// What one thread does until its time is up; returns nanoseconds per request.
type Work = Box<dyn Fn() -> f64 + Send + Sync>;

struct Case {
    name: &'static str,
    work: Work,
    /// Runs during the measurement on a thread of its own, until told to stop.
    writer: Option<Arc<Writer>>,
}

/// Sends one request through `once` again and again; `once` returns it without the header.
fn round_trips(mut once: impl FnMut(Request<()>) -> Request<()>) -> f64 {
    let mut request = request(());
    // The first round gives the thread its number, and makes room in the header map.
    request = once(request);
    let begun = Instant::now();
    let mut count = 0;
    loop {
        for _ in 0..CHUNK {
            request = once(request);
        }
        count += CHUNK;
        let took = begun.elapsed();
        if took >= SPAN {
            return took.as_secs_f64() * 1e9 / f64::from(count);
        }
    }
}

fn taken_off(response: Response<Request<()>>) -> Request<()> {
    let mut request = response.into_body();
    black_box(request.headers_mut().remove(AUTHORIZATION));
    request
}

/// One clone per thread.
fn long_lived<S>(service: S) -> Work
where
    S: Service<Request<()>, Response = Response<Request<()>>> + Clone + Send + Sync + 'static,
{
    Box::new(move || {
        let mut service = service.clone();
        round_trips(move |request| taken_off(exchange(&mut service, request)))
    })
}

/// One clone per request, made from the thread's own clone.
fn cloned<S>(service: S) -> Work
where
    S: Service<Request<()>, Response = Response<Request<()>>> + Clone + Send + Sync + 'static,
{
    Box::new(move || {
        let service = service.clone();
        round_trips(move |request| taken_off(exchange(&mut service.clone(), request)))
    })
}

/// Puts another token into service every millisecond.
///
/// The cache has the test clock, which follows Tokio's. This thread's runtime is paused and advances
/// by most of an hour at a time, so that on this thread the token comes due and is refreshed, while the
/// threads that send requests see no time pass. They never find the slot without a token.
struct Writer {
    cache: TokenCache,
    /// Kept from one measurement to the next, or time would go backwards.
    runtime: Mutex<Runtime>,
    swaps: AtomicUsize,
    stop: AtomicBool,
}

impl Writer {
    const LIFE: Duration = Duration::from_secs(3600);
    const UNTIL_DUE: Duration = Duration::from_secs(3500);

    fn new() -> Arc<Self> {
        let clock = TestClock::new();
        let source = source::from_fn(|_: TokenRequest| async {
            Ok::<_, Infallible>(Token::new(next_secret(), Self::LIFE))
        });
        let builder = TokenCache::builder(source).clock(clock);
        let cache = builder.build().expect("in range");
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        Arc::new(Self {
            cache,
            runtime: Mutex::new(runtime),
            swaps: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        })
    }

    fn run(&self) {
        let runtime = self.runtime.lock().expect("no panic");
        runtime.block_on(async {
            let request = TokenRequest::access_token(Scopes::default());
            let mut held = self.cache.token(&request).await.expect("a token");
            while !self.stop.load(Ordering::Relaxed) {
                thread::sleep(SWAP_EVERY);
                tokio::time::advance(Self::UNTIL_DUE).await;
                // This call begins the refresh, and returns the current token.
                self.cache.token(&request).await.expect("a token");
                loop {
                    tokio::task::yield_now().await;
                    let next = self.cache.token(&request).await.expect("a token");
                    if next.expose_secret() != held.expose_secret() {
                        held = next;
                        break;
                    }
                }
                self.swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Each differs from the one before.
fn next_secret() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    secret() + &NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

fn cases() -> Vec<Case> {
    let case = |name, work| Case {
        name,
        work,
        writer: None,
    };
    let constant = AddAuthorizationLayer::bearer(&secret()).as_sensitive(true);
    let constant = constant.layer(Echo);
    let cache = warm_cache(&[TokenRequest::access_token(Scopes::default())]);
    let ours = ScopedAuthLayer::from_cache(cache).layer(Echo);
    let (resting, writing) = (Writer::new(), Writer::new());
    let under =
        |writer: &Arc<Writer>| ScopedAuthLayer::from_cache(writer.cache.clone()).layer(Echo);
    resting.stop.store(true, Ordering::Relaxed);
    resting.run();
    writing.stop.store(true, Ordering::Relaxed);
    writing.run();
    vec![
        case("bare", long_lived(Echo)),
        case(
            "a constant value (tower-http AddAuthorization)",
            long_lived(constant.clone()),
        ),
        case("this crate", long_lived(ours.clone())),
        case("a constant value, clone() per request", cloned(constant)),
        case("this crate, clone() per request", cloned(ours)),
        case("this crate, test clock", long_lived(under(&resting))),
        Case {
            name: "this crate, test clock, another token every millisecond",
            work: long_lived(under(&writing)),
            writer: Some(writing),
        },
    ]
}

/// The mean over the threads, which all begin at once.
fn measure(case: &Case, threads: usize) -> f64 {
    let start = &Barrier::new(threads);
    thread::scope(|scope| {
        let writer = case.writer.as_ref().map(|writer| {
            writer.stop.store(false, Ordering::Relaxed);
            scope.spawn(|| writer.run())
        });
        let tasks: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    stay_on_core(number);
                    start.wait();
                    (case.work)()
                })
            })
            .collect();
        let times: Vec<f64> = tasks
            .into_iter()
            .map(|task| task.join().expect("no panic"))
            .collect();
        if let (Some(task), Some(writer)) = (writer, &case.writer) {
            writer.stop.store(true, Ordering::Relaxed);
            task.join().expect("no panic");
        }
        times.iter().sum::<f64>() / threads as f64
    })
}

/// Bytes of heap per token of 1,024 characters, including its key and its place in the map.
fn bytes_per_token() -> isize {
    const TOKENS: usize = 512;
    let requests: Vec<_> = (0..TOKENS)
        .map(|n| TokenRequest::access_token(scopes(n)))
        .collect();
    let before = heap::live();
    let cache = warm_cache(&requests);
    let bytes = heap::live() - before;
    assert_eq!(cache.len(), TOKENS);
    bytes / TOKENS.cast_signed()
}

fn main() {
    const COMMAND: &str = "cargo bench --bench contention";
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let most = cores.max(2);
    let counts: Vec<usize> = (1..=most)
        .filter(|n| *n <= 4 || n.is_power_of_two() || *n == most)
        .collect();

    let mut memory = Table::new("memory", COMMAND, &["what", "bytes"]);
    memory.row([
        format!("a token of 1,024 characters that is held ({cores} cores)"),
        bytes_per_token().to_string(),
    ]);
    memory.finish();

    let cases = cases();
    // Indexed by case, then by number of threads.
    let mut times = vec![vec![Vec::with_capacity(ROUNDS); counts.len()]; cases.len()];
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter().zip(&mut times) {
            for (threads, times) in counts.iter().zip(times) {
                times.push(measure(case, *threads));
            }
        }
    }
    let head = [
        "what",
        "threads",
        "ns",
        "from",
        "to",
        "over 1 thread",
        "ratio from",
        "ratio to",
    ];
    let mut table = Table::new("contention", COMMAND, &head);
    for (case, times) in cases.iter().zip(&times) {
        for (threads, samples) in counts.iter().zip(times) {
            let ns = middle(samples.iter().copied());
            let ratio = paired(samples, &times[0], |many, one| many / one);
            table.row([
                case.name.to_owned(),
                threads.to_string(),
                format!("{:.1}", ns.median),
                format!("{:.1}", ns.low),
                format!("{:.1}", ns.high),
                format!("{:.2}", ratio.median),
                format!("{:.2}", ratio.low),
                format!("{:.2}", ratio.high),
            ]);
        }
    }
    table.finish();
    for writer in cases.iter().filter_map(|case| case.writer.as_ref()) {
        let swaps = writer.swaps.load(Ordering::Relaxed);
        println!("\n{swaps} tokens were put into service meanwhile");
    }
}
