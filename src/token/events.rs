//! What the log says about fetching tokens. Stable names and fields, never a secret.
//!
//! One event per attempt, none per request. `WARN` for a failed attempt; `ERROR`, at most every ten
//! seconds per cache, when requests fail for want of a token or a source panicked.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use super::{
    clock::{Clock, Moment},
    slot::{Outcome, Verdict},
    supply::{Fetcher, Supply},
};

/// Lets one `ERROR` through per ten seconds.
pub(crate) struct Limiter {
    next: AtomicI64,
}

const ERROR_EVERY: i64 = 10_000_000_000;

impl Limiter {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicI64::new(i64::MIN),
        }
    }

    fn admits(&self, now: i64) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        now >= next
            && self
                .next
                .compare_exchange(
                    next,
                    now.saturating_add(ERROR_EVERY),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }
}

/// An attempt came to its end.
pub(crate) fn attempt(supply: &Supply, verdict: &Verdict, took: Duration, now: Moment) {
    let (fetcher, request) = (supply.fetcher(), supply.request());
    let source = fetcher.source_name;
    let pause = Duration::from_nanos(verdict.pause.unsigned_abs());
    match &verdict.result {
        Ok(outcome) => {
            let outcome = match outcome {
                Outcome::Published { .. } => "published",
                Outcome::Extended => "extended",
                Outcome::Unchanged => "unchanged",
            };
            tracing::debug!(%source, %request, outcome, ?took, "token fetched");
        }
        Err(error) => {
            let attempt = error.attempts();
            tracing::warn!(
                %source, %request, attempt, %error, ?took, next_attempt_in = ?pause,
                token_in_service = verdict.live, "token fetch failed",
            );
            if !verdict.live && fetcher.log.admits(now.mono) {
                tracing::error!(%source, %request, attempt, %error, "no token: requests fail");
            }
        }
    }
}

/// The source panicked; the attempt is about to end as a failed one.
pub(crate) fn panicked(fetcher: &Fetcher, clock: &Clock, panic: &str) {
    if fetcher.log.admits(clock.now().mono) {
        let panic: String = panic.chars().take(200).collect();
        tracing::error!(
            source = fetcher.source_name,
            panic,
            "the token source panicked"
        );
    }
}
