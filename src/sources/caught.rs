//! A fetch by code that may panic: a panic in it is a failed attempt.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use crate::error::AuthError;

/// What `fetch` comes to, or `panicked` if it panics. What it was about to do is lost either way:
/// `fetch` is not polled again.
pub(super) async fn caught<T>(
    fetch: impl Future<Output = Result<T, AuthError>>,
    panicked: impl Fn() -> AuthError,
) -> Result<T, AuthError> {
    let mut fetch = pin!(fetch);
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| fetch.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
}
