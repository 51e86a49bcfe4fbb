//! Processes on nodes, in virtual time. Nodes share nothing, so each core simulates some of them.

use std::{
    fmt, io,
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    runtime,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tower_scoped_auth::{
    Scopes, Token, TokenCache, TokenRequest, TokenSource, test_util::TestClock,
};

use crate::{
    args::Args,
    node::{ALL_AGAIN, Answer, END, Node},
    tally::Tallies,
};

/// How the processes' random draws relate to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jitter {
    /// As in reality: each process has its own.
    PerProcess,
    /// All draw the same, which amounts to a schedule without jitter.
    Alike,
}

/// How long a real server on the same machine takes to answer from memory.
const LATENCY: Duration = Duration::from_millis(5);

pub(crate) fn run(args: &Args, jitter: Jitter) -> io::Result<Tallies> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = u32::try_from(threads).unwrap_or(1).min(args.nodes);
    let parts = thread::scope(|scope| {
        let part = |part| scope.spawn(move || run_part(args, jitter, part, threads));
        let running: Vec<_> = (0..threads).map(part).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running
            .into_iter()
            .map(join)
            .collect::<io::Result<Vec<Tallies>>>()
    })?;
    let mut all = Tallies::default();
    parts.iter().for_each(|part| all.add(part));
    Ok(all)
}

/// Every `parts`-th node, on a paused runtime on this thread.
fn run_part(args: &Args, jitter: Jitter, part: u32, parts: u32) -> io::Result<Tallies> {
    fastrand::seed(args.seed.wrapping_add(u64::from(part)));
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    Ok(runtime.block_on(async {
        let world = World {
            begun: Instant::now(),
            clock: TestClock::new(),
        };
        let mut nodes = Vec::new();
        for number in (part..args.nodes).step_by(parts as usize) {
            let node = Arc::new(Mutex::new(Node::new(args)));
            for _ in 0..processes_on(args, number) {
                let process = Process {
                    node: Arc::clone(&node),
                    jitter,
                    begun: world.begun,
                };
                tokio::spawn(live(process, world.clone()));
            }
            nodes.push(node);
        }
        sleep_until(world.begun + END).await;
        let mut tallies = Tallies::default();
        for node in nodes {
            let node = std::mem::replace(&mut *lock(&node), Node::new(args));
            tallies.add(&node.into_tallies());
        }
        tallies
    }))
}

/// Spread evenly; the first nodes have one more if need be.
fn processes_on(args: &Args, node: u32) -> u32 {
    args.processes / args.nodes + u32::from(node < args.processes % args.nodes)
}

#[derive(Clone)]
struct World {
    begun: Instant,
    clock: TestClock,
}

#[derive(Clone)]
struct Process {
    node: Arc<Mutex<Node>>,
    jitter: Jitter,
    begun: Instant,
}

/// A process that is never idle, started at the beginning and restarted once. All that matters here is
/// that it always wants a live token, which `keep_fresh` does without sending requests.
async fn live(process: Process, world: World) {
    for (from, until) in [(Duration::ZERO, ALL_AGAIN), (ALL_AGAIN, END)] {
        let source = Source {
            process: process.clone(),
            covered_until: Mutex::new(world.begun + from),
        };
        let builder = TokenCache::builder(source).clock(world.clock.clone());
        let Ok(cache) = builder.build() else { return };
        let wanted = TokenRequest::access_token(Scopes::default());
        // Ends when its time is up, not by itself.
        let _ = timeout_at(world.begun + until, cache.keep_fresh(&wanted)).await;
    }
}

struct Source {
    process: Process,
    /// Until when the process has a token.
    covered_until: Mutex<Instant>,
}

#[derive(Debug)]
struct Refused(&'static str);

impl TokenSource for Source {
    type Error = Refused;

    async fn fetch(&self, _request: TokenRequest) -> Result<Token, Refused> {
        let sent = Instant::now();
        let answer = lock(&self.process.node).answer(sent - self.process.begun);
        sleep(LATENCY).await;
        let result = match answer {
            Answer::Token { number, left } => {
                let covered_until = std::mem::replace(&mut *lock(&self.covered_until), sent + left);
                let without = Instant::now().saturating_duration_since(covered_until);
                lock(&self.process.node).served(without);
                Ok(Token::new(format!("token-{number}"), left))
            }
            Answer::Refused(why) => Err(Refused(why)),
        };
        if self.process.jitter == Jitter::Alike {
            // The cache draws right after this, on this thread.
            fastrand::seed(0);
        }
        result
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
