//! `ResponseFuture`: a request that was sent, that waits for its token, or that was refused.
//!
//! Reports a 401 for a request that carried our token; `unsent.rs` handles everything before sending.
//! The unsent state is boxed, because a future with the request in one of its variants would be moved
//! around at that size on the warm path too. And with two variants, one comparison distinguishes them
//! if the inner future has a spare value (niche) for the second; dropping an enum of three took six
//! instructions.

mod unsent;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use pin_project_lite::pin_project;
use tower_service::Service;

use self::unsent::Unsent;
use crate::{
    error::{AuthError, BoxError},
    policy::Wait,
    request::{AuthRequest, AuthResponse},
    retry::Rejected,
    watch::Watch,
};

pin_project! {
    /// The response future of [`ScopedAuth`](crate::ScopedAuth).
    ///
    /// Dropping it at any time drops the request, or the inner future, at once. A fetch that has begun
    /// continues for later callers.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, R>
    where
        S: Service<R>,
    {
        #[pin]
        state: State<S, R, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, R, F> {
        Sent { #[pin] future: F, watch: Option<Watch> },
        Unsent { unsent: Pin<Box<Unsent<S, R>>> },
    }
}

impl<S, R> ResponseFuture<S, R>
where
    S: Service<R>,
{
    #[inline]
    pub(crate) fn sent(future: S::Future, watch: Option<Watch>) -> Self {
        Self {
            state: State::Sent { future, watch },
        }
    }

    #[cold]
    pub(crate) fn waiting(wait: Wait, ready_inner: S, request: R) -> Self {
        Self::unsent(Unsent::waiting(wait, ready_inner, request))
    }

    #[cold]
    pub(crate) fn failed(error: AuthError) -> Self {
        Self::unsent(Unsent::Failed { error })
    }

    fn unsent(unsent: Unsent<S, R>) -> Self {
        Self {
            state: State::Unsent {
                unsent: Box::pin(unsent),
            },
        }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    S::Response: AuthResponse,
    R: AuthRequest,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        if let StateProj::Sent { future, watch } = state.as_mut().project() {
            return poll_sent(future, watch, cx);
        }
        poll_unsent(state, cx)
    }
}

/// The response, once it is ready; records a 401 to a request that carried our token.
#[inline]
fn poll_sent<F, T, E>(
    future: Pin<&mut F>,
    watch: &mut Option<Watch>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, BoxError>>
where
    F: Future<Output = Result<T, E>>,
    T: AuthResponse,
    E: Into<BoxError>,
{
    // The status is read in place, and the response moved once, as a whole. With a `?` it was taken
    // apart around those two bytes and reassembled, with loads that had to wait for the preceding
    // stores. That took 25 to 40 ns per request, which an instruction count does not show.
    match future.poll(cx) {
        Poll::Ready(Ok(response)) if response.status() == StatusCode::UNAUTHORIZED => {
            Poll::Ready(Ok(unauthorized(response, watch.take())))
        }
        Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        Poll::Pending => Poll::Pending,
    }
}

/// Takes the response by value: lending it would cause extra moves on the usual path.
#[cold]
fn unauthorized<T: AuthResponse>(mut response: T, watch: Option<Watch>) -> T {
    if let Some(watch) = watch.filter(|watch| response.answers(watch.origin()))
        // Otherwise a layer inside replaced our token with its own.
        && response.extensions_mut().insert(Rejected).is_none()
    {
        watch.rejected();
    }
    response
}

#[cold]
fn poll_unsent<S, R>(
    mut state: Pin<&mut State<S, R, S::Future>>,
    cx: &mut Context<'_>,
) -> Poll<Result<S::Response, BoxError>>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    S::Response: AuthResponse,
    R: AuthRequest,
{
    loop {
        match state.as_mut().project() {
            StateProj::Sent { future, watch } => return poll_sent(future, watch, cx),
            StateProj::Unsent { unsent } => {
                let (future, watch) = ready!(unsent.as_mut().poll(cx))?;
                let watch = Some(watch);
                state.set(State::Sent { future, watch });
            }
        }
    }
}

impl<S, R> fmt::Debug for ResponseFuture<S, R>
where
    S: Service<R>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sent { .. } => "sent",
            State::Unsent { unsent } => match **unsent {
                Unsent::Waiting { .. } => "waiting for a token",
                Unsent::Failed { .. } => "failed",
            },
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
