//! One call of code that is not ours: bounded in time, and safe from its panics.
//!
//! Knows what a source answers; does not know who asked, nor what becomes of the answer.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::timeout;

use super::{request::TokenRequest, source::DynSource, timer::timed, value::Token};
use crate::error::{AuthError, Kind};

/// Asks `source` once. `noted` is told of a panic, which is a failed attempt.
pub(crate) async fn attempt(
    source: &dyn DynSource,
    request: TokenRequest,
    limit: Duration,
    noted: impl Fn(&(dyn Any + Send)),
) -> Result<Token, AuthError> {
    // In an async block, so that a panic before the first await is caught as well.
    let fetch = async { source.fetch(request).await };
    let unwinding = caught(fetch, |panic| {
        noted(panic);
        Err(AuthError::new(Kind::Panic, "the token source panicked"))
    });
    let limited = timed(|| timeout(limit, unwinding))?;
    limited.await.unwrap_or_else(|_elapsed| {
        let reason = format!("the token source did not answer within {limit:?}");
        Err(AuthError::new(Kind::Timeout, reason))
    })
}

/// What `future` comes to, or what `panicked` makes of its panic. What it was about to do is lost
/// either way: it is not polled again.
pub(crate) async fn caught<T>(
    future: impl Future<Output = T>,
    panicked: impl Fn(&(dyn Any + Send)) -> T,
) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .unwrap_or_else(|panic| Poll::Ready(panicked(&*panic)))
    })
    .await
}
