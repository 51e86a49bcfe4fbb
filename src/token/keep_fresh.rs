//! The future behind `TokenCache::keep_fresh`: look, sleep, look again.
//!
//! It holds nothing that keeps the cache alive while it sleeps.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{cache::WeakCache, request::TokenRequest};

/// Timers stand still while the machine sleeps; the wall clock is looked at this often at least.
const HEARTBEAT: Duration = Duration::from_secs(30);

pub(crate) async fn run(cache: WeakCache, closed: Arc<Notify>, request: TokenRequest) {
    loop {
        // Listening begins before the look: a cache that goes away in between is not missed.
        let mut gone = pin!(closed.notified());
        gone.as_mut().enable();
        // Likewise for a verdict: the pace of what comes next counts from there, not from when an
        // attempt would have been given up.
        let Some(landed) = cache.landed(&request) else {
            return;
        };
        let mut landed = pin!(landed.notified());
        landed.as_mut().enable();
        let Some(pause) = cache.tend(&request) else {
            return;
        };
        let gone = poll_fn(|cx| match gone.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => landed.as_mut().poll(cx).map(|()| false),
        });
        if timeout(pause.min(HEARTBEAT), gone).await == Ok(true) {
            return;
        }
        // A pause of zero must not keep the thread.
        sleep(Duration::from_millis(1)).await;
    }
}
