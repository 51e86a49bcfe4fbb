//! `Unsent`: a request that waits for its token, or that was refused.
//!
//! Knows how to put a token on a request that waited, and then sends it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    destination::OriginId, error::AuthError, policy::Wait, request::AuthRequest,
    token::wait::Acquire, watch::Watch,
};

pin_project! {
    #[project = UnsentProj]
    pub(super) enum Unsent<S, R> {
        Waiting {
            #[pin]
            acquire: Acquire,
            origin: OriginId,
            // Taken once the token is there.
            parts: Option<(S, R)>,
        },
        Failed { error: AuthError },
    }
}

impl<S, R> Unsent<S, R> {
    pub(super) fn waiting(wait: Wait, ready_inner: S, request: R) -> Self {
        let Wait {
            supply,
            origin,
            rejected,
        } = wait;
        Self::Waiting {
            acquire: Acquire::new(supply, Some(origin), rejected),
            origin,
            parts: Some((ready_inner, request)),
        }
    }
}

impl<S, R> Unsent<S, R>
where
    S: Service<R>,
    R: AuthRequest,
{
    /// Returns the request's future once it is sent, or why it was not sent; the latter on every poll.
    pub(super) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(S::Future, Watch), AuthError>> {
        let sent = match self.as_mut().project() {
            UnsentProj::Failed { error } => Err(error.clone()),
            UnsentProj::Waiting {
                mut acquire,
                origin,
                parts,
            } => {
                let lease = ready!(acquire.as_mut().poll(cx));
                let meters = acquire.meters();
                lease.and_then(|lease| {
                    let imprint = lease.stamp().imprint();
                    let (mut ready_inner, mut request) =
                        parts.take().ok_or_else(AuthError::gone)?;
                    let watch = Watch::put(request.headers_mut(), imprint, *origin, meters)
                        .inspect_err(|_| meters.refused())?;
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
