//! What stamping one request costs, compared with every peer in one run:
//! `cargo run --release --bin injection`.
//!
//! The inner service and the request are the same for all, and rounds are interleaved. `-- --list` prints
//! the cases, and `-- --instructions NAME N` runs one of them N times, for callgrind (see
//! `benches/instructions`).
//! How each peer is set up is in `stacks.rs`.

#[path = "../../../support/mod.rs"]
mod support;

use std::{net::SocketAddr, process::ExitCode, time::Instant};

use http::Request;
use support::{
    results::Table,
    samples::{middle, paired},
};
use tower::{BoxError, Service, ServiceExt};
use tower_scoped_auth_peers::{
    sink::{Body, Check, Sink, drive, request},
    stacks, token_server,
};

/// Short compared with a time slice, so that most batches are not interrupted on a machine that has other work.
const BATCH: usize = 500;
const ROUNDS: usize = 1_000;

type Case = (&'static str, Box<dyn FnMut(Request<Body>)>);

const NAMES: [&str; 10] = [
    "bare",
    "floor: insert a constant",
    "tower-http 0.7.1 AddAuthorizationLayer (constant)",
    "this crate",
    "kube-client 5.0.0 AuthLayer (token file)",
    "gcp_auth 0.12.7 by hand (as its metadata provider)",
    "gcp_auth 0.12.7 by hand (service account)",
    "gcloud-sdk 0.33.2 GoogleAuthMiddlewareLayer",
    "google-cloud-auth 1.18.0 by hand (access_token)",
    "google-cloud-auth 1.18.0 by hand (headers)",
];

/// Sends once through the stack around the checking service, then uses the stack around the sink.
macro_rules! warmed {
    ($stack:expr) => {{
        let mut service = $stack(Check);
        send(&mut service).await.expect("the right token");
        let mut service = $stack(Sink);
        send(&mut service).await.expect("a token");
        Box::new(move |request| drive(&mut service, request)) as Box<dyn FnMut(Request<Body>)>
    }};
}

async fn send<S>(service: &mut S) -> Result<(), BoxError>
where
    S: Service<Request<Body>>,
    S::Error: Into<BoxError>,
{
    let service = service.ready().await.map_err(Into::into)?;
    service.call(request()).await.map_err(Into::into)?;
    Ok(())
}

/// The case with that name, its token already fetched.
async fn build(name: &'static str, addr: SocketAddr) -> Case {
    let run = match NAMES.iter().position(|known| *known == name) {
        Some(0) => Box::new(|request| drive(&mut Sink, request)) as Box<dyn FnMut(Request<Body>)>,
        Some(1) => warmed!(stacks::floor),
        Some(2) => warmed!(stacks::constant),
        Some(3) => warmed!((|inner| stacks::this_crate(inner, addr))),
        Some(4) => warmed!(stacks::kube),
        Some(5) => warmed!(stacks::gcp_auth_metadata_like),
        Some(6) => warmed!((|inner| stacks::gcp_auth_service_account(inner, addr))),
        Some(7) => warmed!((|inner| stacks::gcloud_sdk(inner, addr))),
        Some(8) => warmed!((|inner| stacks::google_token(inner, addr))),
        Some(9) => warmed!((|inner| stacks::google_headers(inner, addr))),
        _ => unreachable!("every case is in the list"),
    };
    (name, run)
}

fn batch(case: &mut Case) -> f64 {
    let requests: Vec<_> = (0..BATCH).map(|_| request()).collect();
    let begun = Instant::now();
    for request in requests {
        (case.1)(request);
    }
    begun.elapsed().as_secs_f64() * 1e9 / BATCH as f64
}

fn table(mut cases: Vec<Case>) {
    let mut times = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            times.push(batch(case));
        }
    }
    let command = "cargo run --release --manifest-path benches/peers/Cargo.toml --bin injection";
    let head = ["what", "ns", "ns over bare", "from", "to"];
    let mut table = Table::new("peers", command, &head);
    for ((name, _), ours) in cases.iter().zip(&times) {
        let over = paired(ours, &times[0], |ours, bare| ours - bare);
        table.row([
            (*name).to_owned(),
            format!("{:.0}", middle(ours.iter().copied()).median),
            format!("{:.0}", over.median),
            format!("{:.0}", over.low),
            format!("{:.0}", over.high),
        ]);
    }
    table.finish();
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let build = |name| runtime.block_on(build(name, token_server::start()));
    match arguments.as_slice() {
        [flag] if flag == "--list" => {
            for name in NAMES {
                println!("{name}\t{}", NAMES[0]);
            }
        }
        [flag, name, count] if flag == "--instructions" => {
            let Some(name) = NAMES.into_iter().find(|known| known == name) else {
                eprintln!("no such case: {name}");
                return ExitCode::from(2);
            };
            let (_, mut run) = build(name);
            for _ in 0..count.parse().unwrap_or(0) {
                run(request());
            }
        }
        _ => table(NAMES.into_iter().map(build).collect()),
    }
    ExitCode::SUCCESS
}
