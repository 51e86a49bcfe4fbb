//! The future behind `TokenCache::keep_fresh`: look, sleep, look again.
//!
//! It holds nothing that keeps the cache alive while it sleeps.

use std::{pin::pin, sync::Arc, time::Duration};

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
        let Some(pause) = cache.tend(&request) else {
            return;
        };
        if timeout(pause.min(HEARTBEAT), gone).await.is_ok() {
            return;
        }
        // A pause of zero must not keep the thread.
        sleep(Duration::from_millis(1)).await;
    }
}
