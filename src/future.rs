//! `ResponseFuture`: of a request that was sent, that waits for its token, or that was refused.
//!
//! Knows how to put a token on a request that waited, and reports a 401 for one that carried ours.
//! What was not sent is boxed: a future that carried the request in one of its variants would be moved
//! about at that size on the warm path too. And two variants are told apart with one comparison, where
//! the inner future has a value to spare for the second: dropping three took six instructions.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    error::{AuthError, BoxError},
    policy::{Wait, Watch},
    request::{AuthRequest, AuthResponse},
    retry::Rejected,
    token::{lease::Asker, wait::Acquire},
};

pin_project! {
    /// The response future of [`ScopedAuth`](crate::ScopedAuth).
    ///
    /// Dropping it at any time drops the request, or the inner future, at once. A fetch that was
    /// begun goes on for those who come later.
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

pin_project! {
    #[project = UnsentProj]
    enum Unsent<S, R> {
        Waiting {
            #[pin]
            acquire: Acquire,
            asker: Asker,
            // Taken when the token is there.
            parts: Option<(S, R)>,
        },
        Failed { error: AuthError },
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
        let Wait {
            supply,
            asker,
            refused,
        } = wait;
        Self::unsent(Unsent::Waiting {
            acquire: Acquire::new(supply, Some(asker), refused),
            asker,
            parts: Some((ready_inner, request)),
        })
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

/// The response, if it is there; of a 401 to a request that carried our token, note is taken.
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
    let response = ready!(future.poll(cx)).map_err(Into::into)?;
    if response.status() == StatusCode::UNAUTHORIZED {
        return Poll::Ready(Ok(unauthorized(response, watch.take())));
    }
    Poll::Ready(Ok(response))
}

/// By value: a response that the usual path had to lend would be moved about for it.
#[cold]
fn unauthorized<T: AuthResponse>(mut response: T, watch: Option<Watch>) -> T {
    if let Some(watch) = watch {
        watch.refused();
        response.extensions_mut().insert(Rejected);
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

impl<S, R> Unsent<S, R>
where
    S: Service<R>,
    R: AuthRequest,
{
    /// The request as it was sent, or why it was not, however often that is asked.
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(S::Future, Watch), AuthError>> {
        let sent = match self.as_mut().project() {
            UnsentProj::Failed { error } => Err(error.clone()),
            UnsentProj::Waiting {
                mut acquire,
                asker,
                parts,
            } => {
                let lease = ready!(acquire.as_mut().poll(cx));
                let meters = acquire.meters();
                lease.and_then(|lease| {
                    let stamp = Arc::clone(lease.stamp());
                    let (mut ready_inner, mut request) =
                        parts.take().ok_or_else(AuthError::gone)?;
                    let watch = Watch::put(request.headers_mut(), stamp, *asker, meters)?;
                    Ok((ready_inner.call(request), watch))
                })
            }
        };
        if let Err(error) = &sent {
            let error = error.clone();
            self.set(Self::Failed { error });
        }
        Poll::Ready(sent)
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
