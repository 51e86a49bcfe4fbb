//! `TokenCache`: one supply per token request, bounded, shared by everyone who holds the cache.
//!
//! Maps requests to supplies and decides which are forgotten. Knows nothing of HTTP requests, of
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
use crate::{asker::Asker, error::AuthError};

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
/// the next new request comes. At most 16 fetches run at once, at most one for each request. Refreshes
/// of tokens that are still good keep to 200 a second or so; a fetch that somebody waits for is not held
/// up by them.
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

impl TokenCache {
    /// A cache with default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).assemble()
    }

    /// A cache with settings of its own.
    pub fn builder<S: TokenSource>(source: S) -> TokenCacheBuilder<S> {
        TokenCacheBuilder::new(source)
    }

    /// A live token for `request`: the one held, or the one fetched now.
    ///
    /// Waits, at most [`max_wait`](TokenCacheBuilder::max_wait), only if no live token is held (or
    /// less than ten seconds are left of it: then at most three seconds). Dropping the future
    /// takes the caller off the list; the fetch goes on for those who come later.
    ///
    /// # Errors
    ///
    /// The last attempt's failure. Callers that arrive before the first failure wait up to
    /// [`max_wait`](super::cache_builder::TokenCacheBuilder::max_wait), through failed attempts, and then get the
    /// last error. Later callers wait for at most one further attempt, and only if it is running or starts
    /// within a second; otherwise they get the last error at once. Attempts go on at their own pace.
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
    /// taken out. The server may hand out the same token again; it is then used again, unless that
    /// answers a fetch that was begun before: another one follows. A server that has brought nothing new for a
    /// while is asked at its pace, up to ten seconds later.
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
    /// Failed attempts are repeated at the cache's pace, and seen in [`status`](Self::status). Where it can
    /// do nothing at all, it says so in one `WARN` and ends at once: polled outside a Tokio runtime with time
    /// enabled, or for [`Audience::per_origin`](crate::Audience::per_origin), which no source can be asked for.
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

    /// An imprint of a stamp for `request` that can be used at once. Nothing is made, and no count but the
    /// header value's own is written to.
    pub(crate) fn stamp(&self, request: &TokenRequest, asker: Asker) -> Option<Imprint> {
        let supplies = self.inner.supplies.load();
        let supply = supplies.get(request)?;
        let now = supply.now();
        supply.touch(now.mono);
        supply.stamp(now, Some(asker))
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.inner.fetcher.meters
    }

    /// A cache that fetches with `fetcher`, and remembers so many requests.
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
