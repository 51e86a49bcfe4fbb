//! The future behind `TokenCache::keep_fresh`: look, sleep, look again.
//!
//! While it sleeps, it holds nothing that keeps the cache alive.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{cache::WeakCache, events, request::TokenRequest, timer::timed};
use crate::error::AuthError;

/// Timers stand still while the machine sleeps, so the wall clock is checked at least this often.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A pause of zero must not monopolise the thread.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

pub(crate) async fn run(cache: WeakCache, closed: Arc<Notify>, request: TokenRequest) {
    if let Err(error) = watch(cache, closed, &request).await {
        events::not_kept_fresh(&request, &error);
    }
}

/// Ends with `Ok` when the cache is gone, and with an error if it cannot do anything.
async fn watch(
    cache: WeakCache,
    closed: Arc<Notify>,
    request: &TokenRequest,
) -> Result<(), AuthError> {
    request.check()?;
    loop {
        // Start listening before the check, so that a cache dropped in between is not missed.
        let mut gone = pin!(closed.notified());
        gone.as_mut().enable();
        // The same for a verdict: the pace of what comes next counts from there, not from when an
        // attempt would have timed out.
        let Some(landed) = cache.landed(request) else {
            return Ok(());
        };
        let mut landed = pin!(landed.notified());
        landed.as_mut().enable();
        // Looked up each time: a future can be moved from one runtime to another.
        let runtime = Handle::try_current().map_err(|_| AuthError::no_runtime())?;
        let mut timer = pin!(timed(|| sleep_until(Instant::now() + HEARTBEAT))?);
        let Some(pause) = cache.tend(request, &runtime) else {
            return Ok(());
        };
        let pause = pause.clamp(SHORTEST_PAUSE, HEARTBEAT);
        timer.as_mut().reset(Instant::now() + pause);
        let is_gone = poll_fn(|cx| {
            if gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            let again = landed.as_mut().poll(cx).is_ready() || timer.as_mut().poll(cx).is_ready();
            if again {
                Poll::Ready(false)
            } else {
                Poll::Pending
            }
        });
        if is_gone.await {
            return Ok(());
        }
    }
}
