//! What is logged, and measured, about fetching tokens. Never a secret. Names and fields are stable,
//! and documented in docs/observability.md.
//!
//! One event per attempt, none per request. `WARN` for a failed attempt; `ERROR`, at most every ten
//! seconds per cache, when requests fail for lack of a token or a source panicked. All times are in
//! seconds.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use tracing::{debug, error, warn};

use super::{
    clock::{Clock, Moment},
    fetcher::Fetcher,
    request::TokenRequest,
    slot::{Outcome, Verdict},
    supply::Supply,
};
use crate::{error::AuthError, text};

/// What users filter by. Independent of the module path: modules move.
pub(crate) const TARGET: &str = "tower_scoped_auth";

/// The outcomes of an attempt, in events and metrics.
pub(crate) mod outcome {
    pub(crate) const PUBLISHED: &str = "published";
    pub(crate) const EXTENDED: &str = "extended";
    pub(crate) const UNCHANGED: &str = "unchanged";
    pub(crate) const FAILED: &str = "failed";
    /// The runtime dropped the attempt's task, or another attempt took over.
    pub(crate) const ABANDONED: &str = "abandoned";

    #[cfg(feature = "metrics")]
    pub(crate) const SUCCESSES: [&str; 3] = [PUBLISHED, EXTENDED, UNCHANGED];
}

/// Lets one `ERROR` through every ten seconds.
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

/// An attempt ended: the `attempt`th since the last success.
pub(crate) fn attempt(
    supply: &Supply,
    attempt: u32,
    verdict: &Verdict,
    took: Duration,
    now: Moment,
) {
    let (fetcher, request) = (supply.fetcher(), supply.request());
    let source = fetcher.source_name;
    let left = supply.report_left(now);
    let life = left.unwrap_or_default().as_secs();
    let duration = took.as_secs_f64();
    match &verdict.result {
        Ok(outcome) => {
            let outcome = match outcome {
                Outcome::Published => outcome::PUBLISHED,
                Outcome::Extended => outcome::EXTENDED,
                Outcome::Unchanged => outcome::UNCHANGED,
            };
            fetcher.meters.fetched(outcome, "", Some(took));
            debug!(
                name: "token_fetched", target: TARGET,
                source, %request, attempt, outcome, life, duration, "token fetched",
            );
        }
        Err(error) => {
            let (outcome, reason) = (outcome::FAILED, error.reason());
            fetcher.meters.fetched(outcome, reason, Some(took));
            let pause = Duration::from_nanos(verdict.pause.unsigned_abs());
            let next_attempt_in = pause.as_secs_f64();
            let error = error.on_one_line();
            warn!(
                name: "token_fetch_failed", target: TARGET,
                source, %request, attempt, outcome, reason, error, life, duration, next_attempt_in,
                "token fetch failed",
            );
            if !verdict.live && fetcher.log.admits(now.mono) {
                error!(
                    name: "no_token", target: TARGET,
                    source, %request, attempt, reason, error, "no token: requests fail",
                );
            }
        }
    }
}

/// `keep_fresh` ends, because there is nothing that it could do.
pub(crate) fn not_kept_fresh(request: &TokenRequest, error: &AuthError) {
    let (reason, error) = (error.reason(), error.on_one_line());
    warn!(
        name: "not_kept_fresh", target: TARGET,
        %request, reason, error, "the token is not kept fresh",
    );
}

/// An attempt's task was dropped before it ended.
pub(crate) fn abandoned(supply: &Supply) {
    let (fetcher, request) = (supply.fetcher(), supply.request());
    let (source, outcome) = (fetcher.source_name, outcome::ABANDONED);
    fetcher.meters.fetched(outcome, "", None);
    debug!(
        name: "token_fetch_abandoned", target: TARGET,
        source, %request, outcome, "token fetch abandoned",
    );
}

/// Longest piece of a panic's message that is logged, in characters.
const MOST_OF_PANIC: usize = 200;

/// The source panicked; the attempt is about to end as failed.
pub(crate) fn panicked(fetcher: &Fetcher, clock: &Clock, panic: &str) {
    if fetcher.log.admits(clock.now().mono) {
        let panic = &*text::clipped(panic, MOST_OF_PANIC);
        let source = fetcher.source_name;
        error!(name: "source_panicked", target: TARGET, source, panic, "the token source panicked");
    }
}
