//! One call of foreign code: bounded in time, and protected from its panics.
//!
//! Knows what a source answers; does not know who asked, nor what happens to the answer.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    foreign::contained, request::TokenRequest, source::DynSource, timer::timed, value::Token,
};
use crate::error::{AuthError, Kind};

/// Asks `source` once. `noted` is told of a panic, which is a failed attempt; `noted` itself may panic.
pub(crate) async fn attempt(
    source: &dyn DynSource,
    request: TokenRequest,
    limit: Duration,
    noted: impl Fn(&(dyn Any + Send)),
) -> Result<Token, AuthError> {
    // In an async block, so that a panic before the first await is caught as well.
    let fetch = async { source.fetch(request).await };
    let unwinding = caught(fetch, |panic| {
        contained(|| noted(panic));
        Err(AuthError::new(Kind::Panic, "the token source panicked"))
    });
    let limited = timed(|| timeout(limit, unwinding))?;
    limited.await.unwrap_or_else(|_elapsed| {
        let reason = format!("the token source did not answer within {limit:?}");
        Err(AuthError::new(Kind::Timeout, reason))
    })
}

/// Returns the output of `future`, or what `panicked` makes of its panic. After a panic the future is
/// not polled again. If the future is dropped before it completes and its destructor panics, `panicked`
/// is told of that as well.
pub(crate) fn caught<T, F, P>(future: F, panicked: P) -> impl Future<Output = T>
where
    F: Future<Output = T>,
    P: Fn(&(dyn Any + Send)) -> T + Unpin,
{
    Caught {
        future: Some(Box::pin(future)),
        panicked,
    }
}

struct Caught<F: Future, P: Fn(&(dyn Any + Send)) -> F::Output> {
    future: Option<Pin<Box<F>>>,
    panicked: P,
}

impl<F: Future, P: Fn(&(dyn Any + Send)) -> F::Output + Unpin> Future for Caught<F, P> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(panic) => Poll::Ready((self.panicked)(&*panic)),
        }
    }
}

impl<F: Future, P: Fn(&(dyn Any + Send)) -> F::Output> Drop for Caught<F, P> {
    fn drop(&mut self) {
        let future = self.future.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            (self.panicked)(&*panic);
        }
    }
}
