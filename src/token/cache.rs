//! `TokenCache`: one supply per token request, bounded, shared by everyone who holds the cache.
//!
//! Maps requests to supplies and decides which are forgotten. Knows nothing of HTTP requests, of
//! destinations, or of what happens inside a slot.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
    panic::AssertUnwindSafe,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use super::{
    clock::{Clock, nanos},
    events::Limiter,
    keep_fresh,
    lease::{Asker, Stamp},
    meters::Meters,
    request::TokenRequest,
    schedule::LEAD,
    slot::Limits,
    source::TokenSource,
    status::TokenStatus,
    supply::{Fetcher, Supply},
    value::Token,
    wait::Acquire,
};
use crate::{config_error::ConfigError, error::AuthError};

/// Tokens by [`TokenRequest`]: fetched when first asked for, refreshed before they expire.
///
/// Clones share everything. Layers built [from one cache](crate::ScopedAuthLayer::from_cache) share
/// its tokens; two caches, even with equal sources, fetch each for itself.
///
/// Nothing runs in the background on its own account: requests drive the refreshes. Building a cache
/// opens no connection, starts no task, and needs no runtime. Fetching needs a Tokio runtime with
/// time enabled (and I/O, for the metadata server); a live token needs none.
///
/// # Bounds
///
/// At most [`max_tokens`](TokenCacheBuilder::max_tokens) requests are remembered (256 by default).
/// When one more comes, the one idle for longest goes; those in use at that moment (by a layer, or
/// by a request that waits) stay, even if they are more. What has been idle for two hours goes when
/// the next new request comes. At most 16 fetches run at once, at most one for each request.
#[derive(Clone)]
pub struct TokenCache {
    inner: Arc<Inner>,
}

struct Inner {
    fetcher: Arc<Fetcher>,
    supplies: ArcSwap<Supplies>,
    max_tokens: usize,
    /// Told when the cache is dropped, so that [`TokenCache::keep_fresh`] futures end at once.
    closed: Arc<Notify>,
}

type Supplies = HashMap<TokenRequest, Arc<Supply>, BuildHasherDefault<Hashed>>;

/// Takes the hash that a request brings along, which has a seed of its own.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    // The discriminants in front of it.
    fn write_isize(&mut self, kind: isize) {
        self.write_u64(kind.cast_unsigned() as u64);
    }

    fn write_u64(&mut self, part: u64) {
        self.0 = self.0.rotate_left(5) ^ part;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

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

/// Fetches at once, over all requests of a cache.
const MAX_CONCURRENT_FETCHES: usize = 16;

/// Two lifetimes of a usual token.
const IDLE: Duration = Duration::from_secs(2 * 3600);

impl TokenCache {
    /// A cache with default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).assemble()
    }

    /// A cache with settings of its own.
    pub fn builder<S: TokenSource>(source: S) -> TokenCacheBuilder<S> {
        TokenCacheBuilder {
            source,
            clock: Clock::system(),
            lead: LEAD,
            attempt_timeout: None,
            max_wait: DEFAULT_MAX_WAIT,
            max_tokens: DEFAULT_MAX_TOKENS,
        }
    }

    /// A live token for `request`: the one held, or the one fetched now.
    ///
    /// Waits, at most [`max_wait`](TokenCacheBuilder::max_wait), only if no live token is held (or
    /// less than ten seconds are left of it: then at most three seconds). Dropping the future
    /// takes the caller off the list; the fetch goes on for those who come later.
    ///
    /// # Errors
    ///
    /// The last attempt's failure: at the end of the wait for those who came before the first
    /// failure, and at once for those who come later, while attempts go on at their own pace.
    pub async fn token(&self, request: &TokenRequest) -> Result<Token, AuthError> {
        request.check()?;
        let supply = self.supply(request);
        if let Some(token) = supply.slot().warm_token(supply.now()) {
            return Ok(token);
        }
        let lease = Acquire::new(supply, None, false).await?;
        Ok(lease.token().clone())
    }

    /// Likewise, with the time that is left of its life.
    #[cfg(feature = "emulator")]
    pub(crate) async fn token_and_life(
        &self,
        request: &TokenRequest,
    ) -> Result<(Token, Duration), AuthError> {
        request.check()?;
        let supply = self.supply(request);
        let lease = Acquire::new(Arc::clone(&supply), None, false).await?;
        let left = supply.now().until(lease.edges().expires).max(0);
        Ok((
            lease.token().clone(),
            Duration::from_nanos(left.unsigned_abs()),
        ))
    }

    /// Takes `token` out of service, wherever it is still the current one: the next request fetches.
    ///
    /// Compare and clear: a token that was replaced meanwhile changes nothing. True if a token was
    /// taken out. The server may hand out the same token again; it is then used again.
    pub fn invalidate(&self, token: &Token) -> bool {
        let supplies = self.inner.supplies.load();
        supplies
            .values()
            .fold(false, |done, supply| supply.invalidate(token) | done)
    }

    /// The state of the token for `request`. Fetches nothing.
    pub fn status(&self, request: &TokenRequest) -> TokenStatus {
        let supplies = self.inner.supplies.load();
        let fetcher = &self.inner.fetcher;
        supplies.get(request).map_or_else(
            || TokenStatus::new(None, fetcher.source.active(), fetcher.clock.now()),
            |supply| supply.status(),
        )
    }

    /// Keeps the token for `request` fresh without traffic, for as long as it is polled.
    ///
    /// Spawn it where latency of the first request counts. The future holds the cache weakly: it
    /// ends as soon as the last other handle (cache, layer, service) is dropped. It looks at both
    /// clocks at least every 30 s, so it notices a suspended machine. Dropping it stops only the
    /// watching.
    ///
    /// It never fails: failed attempts are repeated at the cache's pace, and seen in
    /// [`status`](Self::status).
    pub fn keep_fresh(
        &self,
        request: &TokenRequest,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let cache = WeakCache {
            inner: Arc::downgrade(&self.inner),
        };
        keep_fresh::run(cache, Arc::clone(&self.inner.closed), request.clone())
    }

    /// How many requests' tokens are remembered at the moment.
    pub fn len(&self) -> usize {
        self.inner.supplies.load().len()
    }

    /// True if no request's token is remembered. A layer's counts from when it wraps a service.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A stamp for `request` that can be used at once. Nothing is made, and no count but the stamp's
    /// own is written to.
    pub(crate) fn stamp(&self, request: &TokenRequest, asker: Asker) -> Option<Arc<Stamp>> {
        let supplies = self.inner.supplies.load();
        let supply = supplies.get(request)?;
        let now = supply.now();
        supply.touch(now.mono);
        supply.stamp(now, Some(asker))
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.inner.fetcher.meters
    }

    /// The supply for `request`, made if there is none.
    pub(crate) fn supply(&self, request: &TokenRequest) -> Arc<Supply> {
        if let Some(supply) = self.inner.supplies.load().get(request) {
            supply.touch(supply.now().mono);
            return Arc::clone(supply);
        }
        self.add(request)
    }

    #[cold]
    fn add(&self, request: &TokenRequest) -> Arc<Supply> {
        let made = Arc::new(Supply::new(
            request.clone(),
            Arc::clone(&self.inner.fetcher),
        ));
        let now = self.inner.fetcher.clock.now().mono;
        self.inner.supplies.rcu(|supplies| {
            let mut supplies = Supplies::clone(supplies);
            make_room(&mut supplies, self.inner.max_tokens, now);
            supplies
                .entry(request.clone())
                .or_insert_with(|| Arc::clone(&made));
            supplies
        });
        // Somebody else's, if two came at once.
        self.inner
            .supplies
            .load()
            .get(request)
            .map_or(made, Arc::clone)
    }
}

/// Forgets what has been idle for long, and then the longest idle until one more fits.
fn make_room(supplies: &mut Supplies, max_tokens: usize, now: i64) {
    let used = |supply: &Arc<Supply>| supply.used.load(Ordering::Relaxed);
    // The map that is being replaced holds the one reference, this copy the other.
    let idle = |supply: &Arc<Supply>| Arc::strong_count(supply) <= 2;
    supplies.retain(|_, supply| !idle(supply) || now.saturating_sub(used(supply)) < nanos(IDLE));
    while supplies.len() >= max_tokens {
        let oldest = supplies
            .iter()
            .filter(|(_, supply)| idle(supply))
            .min_by_key(|(_, s)| used(s));
        let Some(oldest) = oldest.map(|(request, _)| request.clone()) else {
            return;
        };
        supplies.remove(&oldest);
    }
}

/// A cache that does not keep itself alive.
pub(crate) struct WeakCache {
    inner: Weak<Inner>,
}

impl WeakCache {
    /// Told of every verdict on `request`. Holds nothing of the cache. `None` once that is gone.
    pub(crate) fn landed(&self, request: &TokenRequest) -> Option<Arc<Notify>> {
        let inner = self.inner.upgrade()?;
        Some(TokenCache { inner }.supply(request).landed())
    }

    /// Sees to a refresh of `request`'s token if one is due, and returns how long to sleep until the
    /// next look. `None` once the cache is gone.
    pub(crate) fn tend(&self, request: &TokenRequest) -> Option<Duration> {
        let cache = TokenCache {
            inner: self.inner.upgrade()?,
        };
        let supply = cache.supply(request);
        supply.touch(supply.now().mono);
        Some(supply.tend(&Handle::current()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closed.notify_waiters();
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("source", &self.inner.fetcher.source_name)
            .field("tokens", &self.len())
            .finish_non_exhaustive()
    }
}

impl<S: TokenSource> TokenCacheBuilder<S> {
    /// Where to read the time; a `TestClock` in tests.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// How long before its expiry a token is refreshed. Default: 225 s; from 1 s to 24 h.
    ///
    /// Whatever is set here, a token is used for half its life before it is refreshed. More than
    /// 225 s is of no use with the metadata server: it returns the same token until 300 s (GCE) or
    /// 240 s (serverless) are left, and every request before that is in vain.
    pub fn refresh_lead(mut self, lead: Duration) -> Self {
        self.lead = lead;
        self
    }

    /// The longest one fetch may take. Default: the source's own
    /// ([`TokenSource::attempt_timeout`]); from 1 ms to 5 min.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// The longest a request waits when there is no usable token. Default: 30 s; at most 1 h.
    ///
    /// Zero means that no request waits for a token that has to be fetched first: it fails, and
    /// the fetch goes on.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// How many requests' tokens are remembered. Default: 256; at least 1.
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    ///
    /// A setting outside the range that its method states.
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

    fn assemble(self) -> TokenCache {
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
            permits: AssertUnwindSafe(Arc::new(Semaphore::new(MAX_CONCURRENT_FETCHES))),
            log: Limiter::new(),
            meters: Meters::new(source_name),
        };
        let inner = Inner {
            fetcher: Arc::new(fetcher),
            supplies: ArcSwap::default(),
            max_tokens: self.max_tokens,
            closed: Arc::new(Notify::new()),
        };
        TokenCache {
            inner: Arc::new(inner),
        }
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
