//! When to fetch: pure functions of readings, edges, counts and a random draw.
//!
//! No clock is read here, no timer is set, nothing is random: the caller passes the time and the draw.
//! This lets the tests walk through days in microseconds.
//!
//! ```text
//!  sent            fresh_until            guard_from    expires
//!   |--- fresh ---------|------- stale --------|-- guard --|--- expired
//!                       '---------------- lead ------------'
//! ```

use std::time::Duration;

use super::{
    clock::{Moment, nanos, wall_nanos},
    value::{Life, Token},
};

/// How long before its expiry a token starts to be refreshed.
///
/// 225 s is what Google's Go, Python and Java libraries use: the metadata server mints a new token
/// 300 s (GCE) or 240 s (serverless) before the old one ends, and asking earlier returns the old
/// one again.
pub(crate) const LEAD: Duration = Duration::from_secs(225);

/// The start of a refresh is moved *later* by up to this much, drawn once per token.
///
/// Processes on one VM hold the same token with the same expiry. Later, never earlier: before the
/// server's re-mint point there is nothing to fetch. A spread of 30 s needs a slightly wider range.
const JITTER: Duration = Duration::from_secs(32);

/// With less than this left, requests wait for a refresh rather than carry a token that may expire in
/// transit.
const GUARD: Duration = Duration::from_secs(10);

/// Bounds on the wait between two attempts; the first wait is drawn from half of it to all of it.
const RETRY_BASE: Duration = Duration::from_secs(1);
const RETRY_CAP: Duration = Duration::from_secs(10);

/// First wait after an attempt that returned nothing better. The server responds, so there is no hurry,
/// and at least a second must remain after the jitter.
const STALL_BASE: Duration = Duration::from_secs(2);

/// The longest `Retry-After` that is honoured.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(60);

/// No two attempts of one slot start closer than this, unless the first failed.
const SPACING: i64 = 1_000_000_000;

/// The edges of one token's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edges {
    pub(crate) fresh_until: Moment,
    pub(crate) guard_from: Moment,
    pub(crate) expires: Moment,
    /// The jitter's draw, in `0.0..=1.0`.
    draw: f64,
}

/// The phase of its life that a token is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Fresh,
    Stale,
    Guard,
    Expired,
}

impl Edges {
    /// The edges of `token`, whose request was sent at `sent`. `draw` is in `0.0..1.0`.
    ///
    /// The lead is clamped to half the life, unless the source wants to be asked earlier, and the
    /// jitter to a seventh of the lead. So a token of any length is fresh for half its life, and leaves
    /// time for several attempts.
    pub(crate) fn of(token: &Token, sent: Moment, lead: Duration, draw: f64) -> Self {
        let expires = expiry(token, sent);
        let life = Duration::from_nanos(u64::try_from(sent.until(expires)).unwrap_or(0));
        let lead = token.lead(life, lead);
        let draw = draw.clamp(0.0, 1.0);
        let jitter = JITTER.min(lead / 7).mul_f64(draw);
        Self::before(expires, nanos(lead.saturating_sub(jitter)), draw)
    }

    /// The edges if the same token turns out to live longer, according to the response to a request
    /// sent at `sent`.
    ///
    /// The lead grows if a life was thought to be shorter. It never shrinks: a token that is due and
    /// gains a second of life is still due, although half of its remaining life would be a shorter
    /// lead.
    pub(crate) fn extended(self, token: &Token, sent: Moment, lead: Duration) -> Self {
        let anew = Self::of(token, sent, lead, self.draw);
        let lead = anew.lead().max(self.lead());
        Self::before(anew.expires, lead, self.draw)
    }

    pub(crate) fn phase(&self, now: Moment) -> Phase {
        if now.is_before(self.fresh_until) {
            Phase::Fresh
        } else if now.is_before(self.guard_from) {
            Phase::Stale
        } else if now.is_before(self.expires) {
            Phase::Guard
        } else {
            Phase::Expired
        }
    }

    fn lead(&self) -> i64 {
        self.fresh_until.until(self.expires)
    }

    fn before(expires: Moment, lead: i64, draw: f64) -> Self {
        let lead = Duration::from_nanos(lead.max(0).unsigned_abs());
        Self {
            fresh_until: expires.minus(lead),
            guard_from: expires.minus(GUARD.min(lead / 2)),
            expires,
            draw,
        }
    }
}

fn expiry(token: &Token, sent: Moment) -> Moment {
    match token.life() {
        Life::For(lifetime) => sent.plus(lifetime),
        Life::Unknown => sent.plus(Token::UNKNOWN_LIFETIME),
        Life::Until(time, at_most) => {
            let wall = wall_nanos(time);
            let left = wall.saturating_sub(sent.wall).clamp(0, nanos(at_most));
            Moment {
                mono: sent.mono.saturating_add(left),
                wall: wall.min(sent.wall.saturating_add(left)),
            }
        }
    }
}

/// When the next attempt may start, judging by the past ones. Times are monotonic nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Consecutive failed attempts.
    failures: u32,
    /// Consecutive attempts that returned nothing better than the current token.
    stalls: u32,
    not_before: i64,
    last_start: Moment,
    last_end: i64,
    /// The server set the time (`Retry-After`).
    dictated: bool,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            stalls: 0,
            not_before: i64::MIN,
            last_start: Moment::PAST,
            last_end: i64::MIN,
            dictated: false,
        }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The last attempt returned a good token: only [`SPACING`] separates it from the next.
    pub(crate) fn is_even(&self) -> bool {
        self.failures == 0 && self.stalls == 0
    }

    pub(crate) fn started(&mut self, now: Moment) {
        self.last_start = now;
    }

    pub(crate) fn last_start(&self) -> Moment {
        self.last_start
    }

    /// The attempt that started last was not made, through no fault of the source. The one before it
    /// started at `last_start`.
    pub(crate) fn not_made(&mut self, last_start: Moment) {
        self.last_start = last_start;
    }

    /// The attempt returned a token that needs no refresh for now.
    pub(crate) fn progressed(&mut self, now: i64) {
        *self = Self {
            not_before: self.last_start.mono.saturating_add(SPACING),
            last_start: self.last_start,
            last_end: now,
            ..Self::new()
        };
    }

    /// The attempt succeeded, but its token is no better, or was already rejected.
    pub(crate) fn stalled(&mut self, now: i64, draw: f64) {
        self.stalls = self.stalls.saturating_add(1);
        self.failures = 0;
        self.dictated = false;
        self.last_end = now;
        self.not_before = now.saturating_add(backoff(self.stalls, STALL_BASE, draw));
    }

    pub(crate) fn failed(&mut self, now: i64, retry_after: Option<Duration>, draw: f64) {
        self.failures = self.failures.saturating_add(1);
        self.last_end = now;
        // Counted from the start of the attempt: an attempt that hung has already waited, and its cause
        // may be long over.
        let wait = backoff(self.failures, RETRY_BASE, draw);
        let pause = now.saturating_add(wait.min(SPACING));
        let own = self.last_start.mono.saturating_add(wait).max(pause);
        let dictated = retry_after.map(|wait| now.saturating_add(nanos(wait.min(RETRY_AFTER_CAP))));
        // At the earliest, not exactly then: "0", or a date that is past by our clock, does not ask for
        // haste.
        self.dictated = dictated.is_some_and(|at| at > own);
        self.not_before = dictated.map_or(own, |at| at.max(own));
    }

    /// The earliest start of the next attempt as of `now`, given the live token's edges if there is
    /// one.
    ///
    /// A wait that spans the start of the guard band, or the expiry, is cut short there: each of the
    /// two is worth an attempt. A wait that the server dictated yields only to the expiry. Each edge is
    /// reached as soon as either clock reaches it: only the wall clock runs through a suspend.
    pub(crate) fn next(&self, edges: Option<&Edges>, now: Moment) -> i64 {
        let mut next = self.not_before;
        let Some(edges) = edges else { return next };
        for (edge, applies) in [(edges.guard_from, !self.dictated), (edges.expires, true)] {
            if applies && self.last_start.is_before(edge) {
                let at = now.mono.saturating_add(now.until(edge));
                next = next.min(at.max(self.last_end.saturating_add(SPACING)));
            }
        }
        next
    }
}

/// The `count`-th consecutive wait: doubles from `base` up to the cap, then takes 50 to 100 % of that.
fn backoff(count: u32, base: Duration, draw: f64) -> i64 {
    let doublings = count.saturating_sub(1).min(16);
    let full = base.saturating_mul(1 << doublings).min(RETRY_CAP);
    nanos(full.mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Moment = Moment {
        mono: 0,
        wall: 1_700_000_000_000_000_000,
    };
    const S: i64 = 1_000_000_000;

    fn token(seconds: u64) -> Token {
        Token::new("secret", Duration::from_secs(seconds))
    }

    fn after(seconds: i64) -> Moment {
        Moment {
            mono: START.mono + seconds * S,
            wall: START.wall + seconds * S,
        }
    }

    #[test]
    fn an_hour_long_token_is_refreshed_from_225_s_before_its_end() {
        let edges = Edges::of(&token(3599), START, LEAD, 0.0);
        assert_eq!(edges.phase(after(3599 - 226)), Phase::Fresh);
        assert_eq!(edges.phase(after(3599 - 225)), Phase::Stale);
        assert_eq!(edges.phase(after(3599 - 11)), Phase::Stale);
        assert_eq!(edges.phase(after(3599 - 10)), Phase::Guard);
        assert_eq!(edges.phase(after(3598)), Phase::Guard);
        assert_eq!(edges.phase(after(3599)), Phase::Expired);
        let latest = Edges::of(&token(3599), START, LEAD, 1.0);
        assert_eq!(latest.phase(after(3599 - 194)), Phase::Fresh);
        assert_eq!(latest.phase(after(3599 - 192)), Phase::Stale);
    }

    #[test]
    fn s018_no_lead_is_longer_than_half_a_life() {
        for life in [1, 2, 20, 60, 300, 3600] {
            let edges = Edges::of(&token(life), START, Duration::MAX, 0.0);
            let fresh = (edges.fresh_until.mono - START.mono) as u64;
            assert_eq!(fresh, life * S as u64 / 2, "{life}");
        }
    }

    #[test]
    fn waits_double_to_the_cap_and_keep_half_of_it() {
        let mut pace = Pace::new();
        pace.started(START);
        let waits: Vec<_> = (0..6)
            .map(|_| {
                pace.failed(0, None, 1.0);
                pace.next(None, START) / S
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        pace.failed(0, None, 0.0);
        assert_eq!(pace.next(None, START), 5 * S);
        pace.progressed(7 * S);
        pace.failed(0, None, 0.0);
        assert_eq!(pace.next(None, START), S / 2);
    }

    #[test]
    fn an_attempt_that_hung_has_waited_already() {
        let mut pace = Pace::new();
        pace.failures = 10;
        pace.started(START);
        pace.failed(3 * S, None, 1.0);
        assert_eq!(pace.next(None, START), 10 * S);
        pace.started(after(10));
        pace.failed(40 * S, None, 1.0);
        assert_eq!(pace.next(None, START), 41 * S, "never without a pause");
    }

    #[test]
    fn s068_a_day_of_failures_does_not_overflow() {
        let mut pace = Pace::new();
        pace.started(START);
        for _ in 0..100_000 {
            pace.failed(0, None, 1.0);
        }
        pace.failures = u32::MAX;
        pace.failed(0, None, 1.0);
        assert_eq!(pace.next(None, START), 10 * S);
    }

    #[test]
    fn s046_retry_after_is_exact_capped_and_yields_to_the_expiry() {
        let mut pace = Pace::new();
        pace.started(START);
        pace.failed(0, Some(Duration::from_secs(7)), 0.3);
        assert_eq!(pace.next(None, START), 7 * S);
        pace.failed(0, Some(Duration::from_secs(3600)), 0.3);
        assert_eq!(pace.next(None, START), 60 * S);
        let edges = Edges::of(&token(40), START, LEAD, 0.0);
        assert_eq!(pace.next(Some(&edges), START), 40 * S);
    }

    #[test]
    fn the_guard_band_and_the_expiry_are_worth_an_attempt_each() {
        let edges = Edges::of(&token(3600), START, LEAD, 0.0);
        let mut pace = Pace::new();
        pace.failures = 10;
        pace.started(after(3585));
        pace.failed(3588 * S, None, 1.0);
        assert_eq!(pace.next(Some(&edges), START), 3590 * S);
        pace.started(after(3590));
        pace.failed(3593 * S, None, 1.0);
        assert_eq!(pace.next(Some(&edges), START), 3600 * S);
        pace.started(after(3597));
        pace.failed(3600 * S, None, 1.0);
        assert_eq!(
            pace.next(Some(&edges), START),
            3601 * S,
            "a second after the verdict"
        );
    }

    proptest! {
        /// Whatever the life and the draw, the edges are in order and inside the life.
        #[test]
        fn edges_are_ordered(
            life in 0_u64..200_000_000, lead in 0_u64..100_000, draw in 0.0..1.0_f64,
        ) {
            let token = Token::new("secret", Duration::from_millis(life));
            let edges = Edges::of(&token, START, Duration::from_secs(lead), draw);
            prop_assert!(START.mono <= edges.fresh_until.mono);
            prop_assert!(edges.fresh_until.mono <= edges.guard_from.mono);
            prop_assert!(edges.guard_from.mono <= edges.expires.mono);
            prop_assert_eq!(edges.expires.mono, START.mono + life as i64 * 1_000_000);
            prop_assert_eq!(edges.expires.wall - START.wall, edges.expires.mono - START.mono);
        }

        /// No wait is longer than its cap or shorter than half a second.
        #[test]
        fn waits_are_bounded(
            outcomes in prop::collection::vec((0..3_u8, 0.0..1.0_f64, 0_u64..u64::MAX), 1..50),
        ) {
            let mut pace = Pace::new();
            for (now, (outcome, draw, seconds)) in outcomes.into_iter().enumerate() {
                let now = now as i64 * S;
                pace.started(after(now / S));
                match outcome {
                    0 => pace.stalled(now, draw),
                    1 => pace.failed(now, None, draw),
                    _ => pace.failed(now, Some(Duration::from_secs(seconds)), draw),
                }
                let wait = pace.next(None, START) - now;
                let most = if outcome == 2 { 60 * S } else { 10 * S };
                prop_assert!(wait <= most);
                prop_assert!(wait >= S / 2);
            }
        }
    }
}
