//! `TokenCache`: one supply per token request, bounded, shared by every holder of the cache.
//!
//! Maps requests to supplies and decides which ones to forget. Knows nothing of HTTP requests, of
//! destinations, or of what happens inside a slot.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    cache_builder::TokenCacheBuilder,
    fetcher::Fetcher,
    keep_fresh,
    meters::Meters,
    request::TokenRequest,
    source::TokenSource,
    stamp::Imprint,
    status::TokenStatus,
    supplies::{Supplies, make_room},
    supply::Supply,
    value::Token,
    wait::Acquire,
};
use crate::{destination::OriginId, error::AuthError};

/// Caches tokens by [`TokenRequest`]: fetched on first use, refreshed before they expire.
///
/// Clones share everything. Layers built [from one cache](crate::ScopedAuthLayer::from_cache) share its
/// tokens; two caches fetch separately, even if their sources are equal.
///
/// Nothing runs in the background by itself: requests drive the refreshes. Building a cache opens no
/// connection, starts no task, and needs no runtime. Fetching needs a Tokio runtime with time enabled
/// (and I/O, for the metadata server); serving a live token needs none.
///
/// # Bounds
///
/// At most [`max_tokens`](TokenCacheBuilder::max_tokens) token requests are remembered (256 by
/// default). When a new one arrives, the one idle longest is dropped; those in use at that moment (by a
/// layer, or by a waiting request) stay, even if they exceed the limit. Those idle for two hours are
/// dropped when the next new one arrives. At most 16 fetches run at once, and at most one per token
/// request. Refreshes of tokens that are still valid are limited to about 200 per second; fetches that
/// a request waits for are not held up by them.
/// up by them.
#[derive(Clone)]
pub struct TokenCache {
    inner: Arc<Inner>,
}

struct Inner {
    fetcher: Arc<Fetcher>,
    supplies: ArcSwap<Supplies>,
    max_tokens: usize,
    /// Notified when the cache is dropped, so that [`TokenCache::keep_fresh`] futures end at once.
    closed: Arc<Notify>,
}

impl TokenCache {
    /// Creates a cache with default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).assemble()
    }

    /// Returns a builder, to change the default settings.
    pub fn builder<S: TokenSource>(source: S) -> TokenCacheBuilder<S> {
        TokenCacheBuilder::new(source)
    }

    /// Returns a live token for `request`, from the cache or newly fetched.
    ///
    /// Waits only if no live token is held, for at most [`max_wait`](TokenCacheBuilder::max_wait), or
    /// if the held token has less than ten seconds left, for at most three seconds. Dropping the future
    /// only stops this caller from waiting; the fetch continues for later callers.
    ///
    /// # Errors
    ///
    /// The last attempt's failure. Callers that arrive before the first failure wait up to
    /// [`max_wait`](super::cache_builder::TokenCacheBuilder::max_wait), across failed attempts, and
    /// then get the last error. Later callers wait for at most one further attempt, and only if it is
    /// running or starts within a second; otherwise they get the last error at once. Attempts continue
    /// at their own pace.
    pub async fn token(&self, request: &TokenRequest) -> Result<Token, AuthError> {
        request.check()?;
        let supply = self.supply(request);
        if let Some(token) = supply.slot().warm_token(supply.now()) {
            return Ok(token);
        }
        let lease = Acquire::new(supply, None, false).await?;
        Ok(lease.token().clone())
    }

    /// The same, with the time left until the token expires.
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

    /// Takes `token` out of service wherever it is still current, so that the next request fetches a
    /// new one.
    ///
    /// This is compare-and-clear: if the token has already been replaced, nothing changes. Returns true
    /// if a token was taken out. The server may return the same token again. It is then used again,
    /// unless the fetch that returned it began before the invalidation; in that case another fetch
    /// follows. If the server has returned nothing new for a while, the next fetch keeps to its pace,
    /// up to ten seconds later.
    pub fn invalidate(&self, token: &Token) -> bool {
        let supplies = self.inner.supplies.load();
        supplies
            .values()
            .fold(false, |done, supply| supply.invalidate(token) | done)
    }

    /// Returns the state of the token for `request`. Fetches nothing.
    pub fn status(&self, request: &TokenRequest) -> TokenStatus {
        let supplies = self.inner.supplies.load();
        let fetcher = &self.inner.fetcher;
        supplies.get(request).map_or_else(
            || TokenStatus::new(None, fetcher.source.active(), fetcher.clock.now()),
            |supply| supply.status(),
        )
    }

    /// Keeps the token for `request` fresh without traffic, for as long as the future is polled.
    ///
    /// Spawn it where the latency of the first request matters. The future holds the cache weakly: it
    /// ends as soon as the last other handle (cache, layer, service) is dropped. It checks both clocks
    /// at least every 30 s, so it notices when the machine was suspended. Dropping it stops only the
    /// watching.
    ///
    /// Failed attempts are repeated at the cache's pace, and show up in [`status`](Self::status). If
    /// the future cannot do anything at all, it logs one `WARN` and ends at once. This happens when it
    /// is polled outside a Tokio runtime with time enabled, or for
    /// [`Audience::per_origin`](crate::Audience::per_origin), which no source can be asked for.
    pub fn keep_fresh(
        &self,
        request: &TokenRequest,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let cache = WeakCache {
            inner: Arc::downgrade(&self.inner),
        };
        keep_fresh::run(cache, Arc::clone(&self.inner.closed), request.clone())
    }

    /// The number of token requests currently remembered.
    pub fn len(&self) -> usize {
        self.inner.supplies.load().len()
    }

    /// True if no token request is remembered. A layer's own is remembered once the layer wraps a
    /// service.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns an imprint of a stamp for `request` that can be used at once. Creates nothing, and
    /// writes to no count but the header value's own.
    pub(crate) fn stamp(&self, request: &TokenRequest, origin: OriginId) -> Option<Imprint> {
        let supplies = self.inner.supplies.load();
        let supply = supplies.get(request)?;
        let now = supply.now();
        supply.touch(now.mono);
        supply.stamp(now, Some(origin))
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.inner.fetcher.meters
    }

    /// A cache that fetches with `fetcher`, and remembers up to `max_tokens` requests.
    pub(super) fn over(fetcher: Fetcher, max_tokens: usize) -> Self {
        let inner = Inner {
            fetcher: Arc::new(fetcher),
            supplies: ArcSwap::default(),
            max_tokens,
            closed: Arc::new(Notify::new()),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The supply for `request`, created if there is none.
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
        // Another caller's supply, if two were added at once.
        self.inner
            .supplies
            .load()
            .get(request)
            .map_or(made, Arc::clone)
    }
}

/// A cache that does not keep itself alive.
pub(crate) struct WeakCache {
    inner: Weak<Inner>,
}

impl WeakCache {
    /// Notified of every verdict on `request`. Keeps nothing of the cache alive. `None` once the cache
    /// is gone.
    pub(crate) fn landed(&self, request: &TokenRequest) -> Option<Arc<Notify>> {
        let inner = self.inner.upgrade()?;
        Some(TokenCache { inner }.supply(request).landed())
    }

    /// Starts a refresh of `request`'s token if one is due, and returns how long to sleep until the
    /// next check. `None` once the cache is gone.
    pub(crate) fn tend(&self, request: &TokenRequest, runtime: &Handle) -> Option<Duration> {
        let cache = TokenCache {
            inner: self.inner.upgrade()?,
        };
        let supply = cache.supply(request);
        supply.touch(supply.now().mono);
        Some(supply.tend(runtime))
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
