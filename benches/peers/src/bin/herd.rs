//! 100,000 first requests at once, with a metadata server that answers in 200 ms: this crate and
//! google-cloud-auth take turns in one process: `cargo run --release --bin herd`.

#[path = "../../../support/mod.rs"]
mod support;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use google_cloud_auth::credentials::mds;
use support::{heap, results::Table, samples::middle};
use tower::{Layer, Service, ServiceExt};
use tower_scoped_auth::{
    MetadataServer, ScopedAuthLayer,
    emulator::{Emulator, Fault},
};
use tower_scoped_auth_peers::{
    by_hand::{GoogleToken, Stamp},
    sink::{Sink, request},
};

#[global_allocator]
static TAP: heap::Tap = heap::Tap;

const REQUESTS: usize = 100_000;
const DELAY: Duration = Duration::from_millis(200);
const ROUNDS: usize = 5;

struct Round {
    /// Seconds on top of the server's delay.
    beyond: f64,
    /// At the peak, task included.
    bytes_per_waiter: f64,
    token_requests: u64,
}

async fn round<F>(mds: &Emulator, one: impl Fn() -> F) -> Round
where
    F: Future<Output = ()> + Send + 'static,
{
    mds.fault(Fault::delay(DELAY).forever());
    let before = heap::reset_peak();
    let begun = Instant::now();
    let tasks: Vec<_> = (0..REQUESTS).map(|_| tokio::spawn(one())).collect();
    for task in tasks {
        task.await.expect("no request fails");
    }
    Round {
        beyond: begun.elapsed().saturating_sub(DELAY).as_secs_f64(),
        bytes_per_waiter: (heap::peak() - before) as f64 / REQUESTS as f64,
        token_requests: mds.token_requests(),
    }
}

async fn ours() -> Round {
    let mds = Emulator::builder().start().await.expect("a port");
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .build()
        .expect("valid");
    let client = ScopedAuthLayer::new(source).layer(Sink);
    round(&mds, || {
        let client = client.clone();
        async move {
            client.oneshot(request()).await.expect("a token");
        }
    })
    .await
}

async fn theirs() -> Round {
    let mds = Emulator::builder().start().await.expect("a port");
    let builder = mds::Builder::default().with_endpoint(mds.endpoint());
    let stamp = GoogleToken(builder.build_access_token_credentials().expect("valid"));
    round(&mds, || {
        let stamp = stamp.clone();
        async move {
            let mut request = request();
            stamp.stamp(request.headers_mut()).await.expect("a token");
            Sink.call(request).await.expect("never fails");
        }
    })
    .await
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let (mut mine, mut google) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        mine.push(ours().await);
        google.push(theirs().await);
    }
    let command = "cargo run --release --manifest-path benches/peers/Cargo.toml --bin herd";
    let head = [
        "what",
        "seconds beyond the 200 ms",
        "from",
        "to",
        "bytes per waiter with its task",
        "token requests",
    ];
    let mut table = Table::new("peers_herd", command, &head);
    for (name, rounds) in [("this crate", mine), ("google-cloud-auth 1.18.0", google)] {
        let beyond = middle(rounds.iter().map(|round| round.beyond));
        let bytes = middle(rounds.iter().map(|round| round.bytes_per_waiter));
        let requests = rounds.iter().map(|round| round.token_requests).max();
        table.row([
            name.to_owned(),
            format!("{:.3}", beyond.median),
            format!("{:.3}", beyond.low),
            format!("{:.3}", beyond.high),
            format!("{:.0}", bytes.median),
            requests.unwrap_or(0).to_string(),
        ]);
    }
    table.finish();
}
