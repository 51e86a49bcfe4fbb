//! `TokenCacheBuilder`: a cache's settings, each with its range, and how a cache is assembled from
//! them.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use super::{
    cache::TokenCache, clock::Clock, events::Limiter, fetcher::Fetcher, meters::Meters, rate::Rate,
    schedule::LEAD, slot::Limits, source::TokenSource, turns::Turns,
};
use crate::config_error::ConfigError;

/// Configures a [`TokenCache`]; made by [`TokenCache::builder`].
pub struct TokenCacheBuilder<S> {
    source: S,
    clock: Clock,
    lead: Duration,
    attempt_timeout: Option<Duration>,
    max_wait: Duration,
    max_tokens: usize,
}

const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_MAX_TOKENS: usize = 256;

impl<S: TokenSource> TokenCacheBuilder<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            source,
            clock: Clock::system(),
            lead: LEAD,
            attempt_timeout: None,
            max_wait: DEFAULT_MAX_WAIT,
            max_tokens: DEFAULT_MAX_TOKENS,
        }
    }

    /// Sets where to read the time, such as a `TestClock` in tests.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// Sets how long before its expiry a token is refreshed. Default: 225 s; from 1 s to 24 h.
    ///
    /// Whatever is set here, a token is used for half its life before it is refreshed, unless its source
    /// does not know its life and asks for an earlier refresh, as the token file does. More than 225 s
    /// is of no use with the metadata server: it returns the same token until 300 s (GCE) or 240 s
    /// (serverless) are left, so any request before then is wasted.
    pub fn refresh_lead(mut self, lead: Duration) -> Self {
        self.lead = lead;
        self
    }

    /// Sets the longest that one fetch may take. Default: the source's own
    /// ([`TokenSource::attempt_timeout`]); from 1 ms to 5 min.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sets the longest that a request waits when there is no usable token. Default: 30 s; at most 1 h.
    ///
    /// With zero, no request waits for a token that has to be fetched first: the request fails, and the
    /// fetch continues. A request that could use the current token, in its last ten seconds or after a
    /// 401, still waits up to 3 s for a better one.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets how many token requests are remembered. Default: 256; at least 1.
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    ///
    /// A setting is outside the range that its method states.
    pub fn build(self) -> Result<TokenCache, ConfigError> {
        let in_range = |what, value: Duration, least: Duration, most: Duration| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let reason = format!("it must be between {least:?} and {most:?}");
            Err(ConfigError::new(what, &format!("{value:?}"), reason))
        };
        const SECOND: Duration = Duration::from_secs(1);
        in_range("refresh lead", self.lead, SECOND, 24 * 3600 * SECOND)?;
        in_range(
            "attempt timeout",
            self.resolved_timeout(),
            SECOND / 1000,
            300 * SECOND,
        )?;
        in_range("longest wait", self.max_wait, Duration::ZERO, 3600 * SECOND)?;
        if self.max_tokens == 0 {
            return Err(ConfigError::new(
                "number of tokens",
                "0",
                "it must be at least 1",
            ));
        }
        Ok(self.assemble())
    }

    fn resolved_timeout(&self) -> Duration {
        self.attempt_timeout
            .unwrap_or_else(|| self.source.attempt_timeout())
    }

    pub(super) fn assemble(self) -> TokenCache {
        let limits = Limits {
            lead: self.lead,
            attempt: self.resolved_timeout(),
            max_wait: self.max_wait,
        };
        let source_name = self.source.name();
        let fetcher = Fetcher {
            source_name,
            source: AssertUnwindSafe(Arc::new(self.source)),
            clock: self.clock,
            limits,
            turns: Turns::new(),
            refreshes: Rate::new(),
            log: Limiter::new(),
            meters: Meters::new(source_name),
        };
        TokenCache::over(fetcher, self.max_tokens)
    }
}

impl<S> fmt::Debug for TokenCacheBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("clock", &self.clock)
            .field("refresh_lead", &self.lead)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("max_wait", &self.max_wait)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}
