//! What stamping one request costs: `cargo bench --bench injection`.
//!
//! The inner service is ready at once and drops the request; a request has a parsed URI and three
//! headers. Every case has a baseline that differs only in the layer. Times are medians over
//! interleaved rounds; they drift between runs and machines, so compare only figures of one table.
//! With `-- --instructions NAME N` it runs one case N times, for `valgrind --tool=callgrind`: see
//! `.ci/instructions`. `-- --list` prints every case and its baseline, `-- --keys` what many keys cost.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use std::{
    process::ExitCode,
    sync::LazyLock,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use support::{
    results::Table,
    samples::{middle, paired},
    warm::{Sink, drive, request, scopes, secret, warm_cache},
};
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_scoped_auth::{Audience, Destinations, ScopedAuthLayer, Scopes, TokenRequest};

/// Short compared with a time slice, so that most batches are not interrupted on a machine that has other work.
const BATCH: usize = 500;
const ROUNDS: usize = 1_000;

/// As many as a cache remembers by default.
const KEYS: usize = 256;

struct Case {
    name: &'static str,
    /// The case to compare it with.
    over: &'static str,
    build: fn() -> Box<dyn Subject>,
}

trait Subject {
    /// Nanoseconds per request for `size` requests, not counting the time to build them.
    fn batch(&mut self, size: usize) -> f64;
    /// Sends `count` requests, and does nothing else that depends on `count`.
    fn run(&mut self, count: usize);
}

/// A service, and the requests sent to it.
struct On<S, F> {
    service: S,
    next: F,
}

impl<R, S, F> Subject for On<S, F>
where
    S: Service<R>,
    F: FnMut() -> R,
{
    fn batch(&mut self, size: usize) -> f64 {
        let requests: Vec<_> = (0..size).map(|_| (self.next)()).collect();
        let begun = Instant::now();
        for request in requests {
            self.send(request);
        }
        begun.elapsed().as_secs_f64() * 1e9 / size as f64
    }

    fn run(&mut self, count: usize) {
        for _ in 0..count {
            let request = (self.next)();
            self.send(request);
        }
    }
}

impl<S, F> On<S, F> {
    /// A request comes from elsewhere, even without a layer: otherwise the bare case would avoid a move
    /// that no program avoids.
    #[inline(never)]
    fn send<R>(&mut self, request: R)
    where
        S: Service<R>,
    {
        drive(&mut self.service, request);
    }
}

fn on<R, S, F>(service: S, next: F) -> Box<dyn Subject>
where
    R: 'static,
    S: Service<R> + 'static,
    F: FnMut() -> R + 'static,
{
    Box::new(On { service, next })
}

fn get() -> Request<()> {
    request(())
}

/// A request that has its own `Authorization` header.
fn authorized() -> Request<()> {
    Request::get("https://storage.googleapis.com/storage/v1/b/bucket/o")
        .header("accept", "application/json")
        .header("user-agent", "bench")
        .header("authorization", "Bearer mine")
        .body(())
        .expect("valid")
}

/// A request with an extension that means nothing to the layer.
fn extended() -> Request<()> {
    let mut request = get();
    request.extensions_mut().insert(0_u8);
    request
}

/// Requests that go to so many origins in turn, as a client of several Google APIs makes them.
fn origins(count: usize) -> impl FnMut() -> Request<()> {
    let names =
        (0..count).map(|number| format!("https://api-{number:02}.googleapis.com/v1/some/thing"));
    let mut turn = names.collect::<Vec<_>>().into_iter().cycle();
    move || {
        let mut request = get();
        let uri = turn.next().expect("it goes round");
        *request.uri_mut() = uri.parse().expect("valid");
        request
    }
}

/// Each is made once, as in a program that keeps them in its state: a request gets a clone.
static CHOICES: LazyLock<[Scopes; KEYS]> = LazyLock::new(|| std::array::from_fn(scopes));

/// Requests that choose their scopes: the first `choices` of them in turn.
fn scoped(choices: usize) -> impl FnMut() -> Request<()> {
    let mut turn = CHOICES[..choices].iter().cycle();
    move || {
        let mut request = get();
        let scopes = turn.next().expect("it goes round");
        request.extensions_mut().insert(scopes.clone());
        request
    }
}

fn by_reqwest() -> reqwest::Request {
    let url = "https://storage.googleapis.com/storage/v1/b/bucket/o";
    let url = url.parse().expect("valid");
    let mut request = reqwest::Request::new(reqwest::Method::GET, url);
    let (parts, ()) = get().into_parts();
    *request.headers_mut() = parts.headers;
    request
}

/// Makes a clone for each request; the original service is never called.
#[derive(Clone)]
struct ClonePerRequest<S>(S);

impl<S: Service<Request<()>> + Clone> Service<Request<()>> for ClonePerRequest<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> S::Future {
        self.0.clone().call(request)
    }
}

/// The constant value, inserted by hand.
#[derive(Clone)]
struct Floor(HeaderValue);

impl Service<Request<()>> for Floor {
    type Response = <Sink as Service<Request<()>>>::Response;
    type Error = <Sink as Service<Request<()>>>::Error;
    type Future = <Sink as Service<Request<()>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<()>>::poll_ready(&mut Sink, cx)
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        Sink.call(request)
    }
}

fn floor() -> Floor {
    Floor(HeaderValue::from_str(&format!("Bearer {}", secret())).expect("valid"))
}

fn layer() -> ScopedAuthLayer {
    ScopedAuthLayer::from_cache(warm_cache(&[TokenRequest::access_token(Scopes::default())]))
}

/// A layer whose cache also holds a token for each of `keys` scopes.
fn layer_with(keys: usize) -> ScopedAuthLayer {
    let mut requests = vec![TokenRequest::access_token(Scopes::default())];
    requests.extend(
        CHOICES[..keys]
            .iter()
            .cloned()
            .map(TokenRequest::access_token),
    );
    ScopedAuthLayer::from_cache(warm_cache(&requests))
}

fn layer_per_origin() -> ScopedAuthLayer {
    let audience = Audience::new("https://storage.googleapis.com").expect("valid");
    ScopedAuthLayer::from_cache(warm_cache(&[TokenRequest::id_token(audience)]))
        .audience(Audience::per_origin())
}

fn patterns(count: usize) -> Destinations {
    let others = (1..count).map(|n| format!("https://*.host-{n}.example"));
    let list = others.chain(["https://*.googleapis.com".to_owned()]);
    Destinations::only(list).expect("valid")
}

fn only(pattern: &str) -> Destinations {
    Destinations::only([pattern]).expect("valid")
}

const BARE: &str = "bare";
const BARE_IN_TURN: &str = "bare; two origins in turn";
const BARE_EIGHT: &str = "bare; eight origins in turn";
const BARE_SIXTEEN: &str = "bare; sixteen origins in turn";
const BARE_WITH_HEADER: &str = "bare; the caller brings Authorization";
const BARE_WITH_EXTENSION: &str = "bare; an extension of another type";
const BARE_WITH_SCOPES: &str = "bare; scopes in the extensions";
const BARE_WITH_256: &str = "bare; 256 scopes in turn";
const ONE_KEY: &str = "scopes per request, 1 key";
const ALL_KEYS: &str = "scopes per request, 256 keys in turn";
const BARE_REQWEST: &str = "bare; reqwest::Request";

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: BARE, over: BARE, build: || on(Sink, get) },
    Case { name: "floor: insert a constant", over: BARE, build: || on(floor(), get) },
    Case { name: "tower-http AddAuthorization", over: BARE, build: || {
        on(AddAuthorizationLayer::bearer(&secret()).as_sensitive(true).layer(Sink), get)
    } },
    Case { name: "this crate", over: BARE, build: || on(layer().layer(Sink), get) },
    Case { name: "clone() per request", over: BARE, build: || {
        on(ClonePerRequest(layer().layer(Sink)), get)
    } },
    Case { name: "danger_trust_inner (no destination check)", over: BARE, build: || {
        on(layer().destinations(Destinations::danger_trust_inner()).layer(Sink), get)
    } },
    Case { name: "one origin", over: BARE, build: || {
        on(layer().destinations(only("https://storage.googleapis.com")).layer(Sink), get)
    } },
    Case { name: "10 patterns", over: BARE, build: || {
        on(layer().destinations(patterns(10)).layer(Sink), get)
    } },
    Case { name: "100 patterns", over: BARE, build: || {
        on(layer().destinations(patterns(100)).layer(Sink), get)
    } },
    Case { name: BARE_IN_TURN, over: BARE_IN_TURN, build: || on(Sink, origins(2)) },
    Case { name: "two origins in turn", over: BARE_IN_TURN, build: || {
        on(layer().layer(Sink), origins(2))
    } },
    Case { name: BARE_EIGHT, over: BARE_EIGHT, build: || on(Sink, origins(8)) },
    Case { name: "eight origins in turn", over: BARE_EIGHT, build: || {
        on(layer().layer(Sink), origins(8))
    } },
    Case { name: BARE_SIXTEEN, over: BARE_SIXTEEN, build: || on(Sink, origins(16)) },
    Case { name: "sixteen origins in turn", over: BARE_SIXTEEN, build: || {
        on(layer().layer(Sink), origins(16))
    } },
    Case { name: "two origins in turn, 100 patterns", over: BARE_IN_TURN, build: || {
        on(layer().destinations(patterns(100)).layer(Sink), origins(2))
    } },
    Case { name: "pass_others, to elsewhere (not stamped)", over: BARE, build: || {
        on(layer().destinations(only("https://other.example").pass_others()).layer(Sink), get)
    } },
    Case { name: "replace_authorization, nothing to replace", over: BARE, build: || {
        on(layer().replace_authorization().layer(Sink), get)
    } },
    Case { name: BARE_WITH_HEADER, over: BARE_WITH_HEADER, build: || on(Sink, authorized) },
    Case { name: "the caller's Authorization, kept", over: BARE_WITH_HEADER, build: || {
        on(layer().layer(Sink), authorized)
    } },
    Case { name: "the caller's Authorization, replaced", over: BARE_WITH_HEADER, build: || {
        on(layer().replace_authorization().layer(Sink), authorized)
    } },
    Case { name: BARE_WITH_EXTENSION, over: BARE_WITH_EXTENSION, build: || on(Sink, extended) },
    Case { name: "an extension of another type", over: BARE_WITH_EXTENSION, build: || {
        on(layer().layer(Sink), extended)
    } },
    Case { name: BARE_WITH_SCOPES, over: BARE_WITH_SCOPES, build: || on(Sink, scoped(1)) },
    Case { name: ONE_KEY, over: BARE_WITH_SCOPES, build: || {
        on(layer_with(1).layer(Sink), scoped(1))
    } },
    Case { name: BARE_WITH_256, over: BARE_WITH_256, build: || on(Sink, scoped(KEYS)) },
    Case { name: ALL_KEYS, over: BARE_WITH_256, build: || {
        on(layer_with(KEYS).layer(Sink), scoped(KEYS))
    } },
    Case { name: "Audience::per_origin", over: BARE, build: || {
        on(layer_per_origin().layer(Sink), get)
    } },
    Case { name: BARE_REQWEST, over: BARE_REQWEST, build: || on(Sink, by_reqwest) },
    Case { name: "reqwest::Request", over: BARE_REQWEST, build: || {
        on(layer().layer(Sink), by_reqwest)
    } },
];

fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

fn table() {
    let mut subjects: Vec<_> = CASES.iter().map(|case| (case.build)()).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); CASES.len()];
    for _ in 0..ROUNDS {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            times.push(subject.batch(BATCH));
        }
    }
    let place = |name| {
        CASES
            .iter()
            .position(|case| case.name == name)
            .expect("a case")
    };
    let head = ["what", "ns", "ns over bare", "from", "to"];
    let mut table = Table::new("injection", "cargo bench --bench injection", &head);
    for (case, ours) in CASES.iter().zip(&times) {
        let whole = middle(ours.iter().copied());
        let over = paired(ours, &times[place(case.over)], |ours, bare| ours - bare);
        table.row([
            case.name.to_owned(),
            format!("{:.0}", whole.median),
            format!("{:.0}", over.median),
            format!("{:.0}", over.low),
            format!("{:.0}", over.high),
        ]);
    }
    table.finish();
    keys();
    clocks();
}

/// What the two clock readings of each request cost, and what they would cost with exact clocks.
#[cfg(target_os = "linux")]
fn clocks() {
    use rustix::time::{ClockId, clock_gettime};
    use std::hint::black_box;

    let kinds = [
        (
            "coarse",
            [ClockId::MonotonicCoarse, ClockId::RealtimeCoarse],
        ),
        ("exact", [ClockId::Monotonic, ClockId::Realtime]),
    ];
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for ((_, pair), times) in kinds.iter().zip(&mut times) {
            let begun = Instant::now();
            for _ in 0..BATCH {
                black_box(pair.map(clock_gettime));
            }
            times.push(begun.elapsed().as_secs_f64() * 1e9 / BATCH as f64);
        }
    }
    let head = ["two clocks", "ns", "from", "to"];
    let mut table = Table::new("clocks", "cargo bench --bench injection", &head);
    for ((name, _), times) in kinds.iter().zip(times) {
        let both = middle(times);
        table.row([
            (*name).to_owned(),
            format!("{:.1}", both.median),
            format!("{:.1}", both.low),
            format!("{:.1}", both.high),
        ]);
    }
    table.finish();
}

/// On other systems the clocks are those of `std`.
#[cfg(not(target_os = "linux"))]
fn clocks() {}

/// How 256 keys compare with one when nothing else runs in between: in the table above, the other cases and
/// five hundred requests evict a key's lines from the CPU caches before it is used again.
fn keys() {
    /// A request and its headers take a kilobyte or two; the second-level cache must have room for the
    /// keys as well.
    const FEW: usize = 32;
    const TURNS: usize = 4 * KEYS / FEW;

    let mut subjects = [ONE_KEY, ALL_KEYS].map(|name| (case(name).expect("a case").build)());
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let turns = (0..TURNS).map(|_| subject.batch(FEW));
            times.push(turns.sum::<f64>() / TURNS as f64);
        }
    }
    let [one, many] = times;
    let ratio = paired(&many, &one, |many, one| many / one);
    println!(
        "\n{KEYS} keys in turn take {:.2} times as long per request as one key ({:.2} to {:.2}), no other \
         case in between: {:.0} ns and {:.0} ns",
        ratio.median,
        ratio.low,
        ratio.high,
        middle(many).median,
        middle(one).median,
    );
}

fn instructions(name: &str, count: usize) -> ExitCode {
    let Some(case) = case(name) else {
        eprintln!("no such case: {name}");
        return ExitCode::from(2);
    };
    (case.build)().run(count);
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match arguments.as_slice() {
        [flag, name, count] if flag == "--instructions" => {
            return instructions(name, count.parse().unwrap_or(0));
        }
        [flag] if flag == "--list" => {
            for case in CASES {
                println!("{}\t{}", case.name, case.over);
            }
        }
        [flag] if flag == "--keys" => keys(),
        _ => table(),
    }
    ExitCode::SUCCESS
}
