//! A token source that answers as a test says, on Tokio's clock, and counts.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower_scoped_auth::{Token, TokenRequest, TokenSource};

/// The result of one call of the source.
pub struct Answer {
    pub after: Duration,
    pub result: Result<(String, Duration), String>,
}

impl Answer {
    /// A token with this name, at once.
    pub fn token(name: impl Into<String>, seconds: u64) -> Self {
        let result = Ok((name.into(), Duration::from_secs(seconds)));
        Self {
            after: Duration::ZERO,
            result,
        }
    }

    pub fn failure(reason: &str) -> Self {
        Self {
            after: Duration::ZERO,
            result: Err(reason.to_owned()),
        }
    }

    pub fn hang() -> Self {
        Self::failure("never seen").after(Duration::from_secs(1_000_000))
    }

    pub fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }
}

type Play = dyn Fn(Call) -> Answer + Send + Sync;

/// The number of the call (from 1), when it came, and what was asked for.
pub struct Call {
    pub number: usize,
    pub at: Duration,
    pub request: TokenRequest,
}

/// Clones are the same source.
#[derive(Clone)]
pub struct Script {
    play: Arc<Play>,
    begun: Instant,
    calls: Arc<Mutex<Vec<Duration>>>,
    running: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
    timeout: Duration,
    retry_after: Option<Duration>,
}

impl Script {
    /// Time in `play` counts from here.
    pub fn new(play: impl Fn(Call) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            play: Arc::new(play),
            begun: Instant::now(),
            calls: Arc::default(),
            running: Arc::default(),
            peak: Arc::default(),
            // The metadata server source's default.
            timeout: Duration::from_secs(3),
            retry_after: None,
        }
    }

    /// `tok-1`, `tok-2`, …, each valid for this long.
    pub fn tokens(seconds: u64) -> Self {
        Self::new(move |call| Answer::token(format!("tok-{}", call.number), seconds))
    }

    /// As the real server does it: the same token until `remint_at` is left of its hour, then another.
    pub fn minting(remint_at: u64) -> Self {
        const LIFE: u64 = 3599;
        let minted = Mutex::new((0_u64, 0_u64));
        Self::new(move |call| {
            let mut minted = minted.lock().unwrap();
            let now = call.at.as_secs();
            let (number, expires) = *minted;
            if number == 0 || expires < now + remint_at {
                *minted = (number + 1, now + LIFE);
            }
            Answer::token(format!("tok-{}", minted.0), minted.1 - now)
        })
    }

    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Each failure says when to come back.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// When each call came, since the script was made.
    pub fn times(&self) -> Vec<Duration> {
        self.calls.lock().unwrap().clone()
    }

    /// The most calls that ran at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
pub struct ScriptError(pub String);

impl std::fmt::Display for ScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScriptError {}

/// Counts a call for as long as its future lives, however that ends.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl TokenSource for Script {
    type Error = ScriptError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, ScriptError> {
        let at = self.begun.elapsed();
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(at);
            calls.len()
        };
        let running = Running(Arc::clone(&self.running));
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        let answer = (self.play)(Call {
            number,
            at,
            request,
        });
        if !answer.after.is_zero() {
            sleep(answer.after).await;
        }
        drop(running);
        answer
            .result
            .map(|(name, life)| Token::new(name, life))
            .map_err(ScriptError)
    }

    fn attempt_timeout(&self) -> Duration {
        self.timeout
    }

    fn retry_after(&self, _: &ScriptError) -> Option<Duration> {
        self.retry_after
    }
}
