//! 100,000 first requests at once, with a metadata server that answers in 200 ms:
//! `cargo bench --bench herd`. `herd` in `benches/peers` compares it with google-cloud-auth.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use std::time::{Duration, Instant};

use support::{
    heap,
    results::Table,
    samples::middle,
    warm::{Sink, request},
};
use tower::{Layer, ServiceExt};
use tower_scoped_auth::{
    MetadataServer, ScopedAuth, ScopedAuthLayer,
    emulator::{Emulator, Fault},
};

#[global_allocator]
static TAP: heap::Tap = heap::Tap;

const REQUESTS: usize = 100_000;
const DELAY: Duration = Duration::from_millis(200);
const ROUNDS: usize = 5;

struct Round {
    /// Seconds on top of the server's delay.
    beyond: f64,
    bytes_per_waiter: isize,
    token_requests: u64,
}

async fn round() -> Round {
    let mds = Emulator::builder().start().await.expect("a port");
    mds.fault(Fault::delay(DELAY).forever());
    let source = MetadataServer::builder().endpoint(mds.endpoint());
    let client = ScopedAuthLayer::new(source.build().expect("valid")).layer(Sink);
    let before = heap::reset_peak();
    let begun = Instant::now();
    let tasks: Vec<_> = (0..REQUESTS)
        .map(|_| tokio::spawn(one(client.clone())))
        .collect();
    for task in tasks {
        task.await.expect("no request fails");
    }
    let beyond = begun.elapsed().saturating_sub(DELAY).as_secs_f64();
    Round {
        beyond,
        bytes_per_waiter: (heap::peak() - before) / REQUESTS.cast_signed(),
        token_requests: mds.token_requests(),
    }
}

async fn one(client: ScopedAuth<Sink>) {
    client.oneshot(request(())).await.expect("a token");
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round().await);
    }
    let beyond = middle(rounds.iter().map(|round| round.beyond));
    let bytes = middle(rounds.iter().map(|round| round.bytes_per_waiter as f64));
    let most = rounds
        .iter()
        .map(|round| round.token_requests)
        .max()
        .unwrap_or(0);
    let head = [
        "what",
        "seconds beyond the 200 ms",
        "from",
        "to",
        "bytes per waiter with its task",
        "token requests",
    ];
    let mut table = Table::new("herd", "cargo bench --bench herd", &head);
    table.row([
        "this crate: 100,000 first requests".to_owned(),
        format!("{:.3}", beyond.median),
        format!("{:.3}", beyond.low),
        format!("{:.3}", beyond.high),
        format!("{:.0}", bytes.median),
        most.to_string(),
    ]);
    table.finish();
}
