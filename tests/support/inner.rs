//! The inner service: records what it gets, and panics when Tower's contract is broken.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use tower::Service;

/// Strict: `poll_ready` makes an instance ready, `call` and `clone` make it unready, and calling one
/// that is not ready panics.
pub struct Inner {
    ready: bool,
    seen: Arc<Mutex<Vec<Seen>>>,
    reply: Arc<Reply>,
}

type Reply = dyn Fn(&Seen) -> StatusCode + Send + Sync;

#[derive(Clone, Debug)]
pub struct Seen {
    pub uri: Uri,
    pub headers: HeaderMap,
}

impl Seen {
    /// The token it carried: `tok-1`.
    pub fn token(&self) -> Option<&str> {
        let mut values = self.headers.get_all(AUTHORIZATION).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "more than one Authorization");
        Some(value.to_str().unwrap().strip_prefix("Bearer ").unwrap())
    }
}

impl Inner {
    /// Answers 200 to everything.
    pub fn new() -> Self {
        Self::answering(|_| StatusCode::OK)
    }

    pub fn answering(reply: impl Fn(&Seen) -> StatusCode + Send + Sync + 'static) -> Self {
        Self {
            ready: false,
            seen: Arc::default(),
            reply: Arc::new(reply),
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The token of each request, in the order of calls.
    pub fn tokens(&self) -> Vec<String> {
        self.seen()
            .iter()
            .map(|seen| seen.token().unwrap_or("(none)").to_owned())
            .collect()
    }

    pub fn last_token(&self) -> Option<String> {
        self.tokens().pop()
    }
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            seen: Arc::clone(&self.seen),
            reply: Arc::clone(&self.reply),
        }
    }
}

impl<B> Service<Request<B>> for Inner {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without being ready"
        );
        let (head, _body) = request.into_parts();
        let seen = Seen {
            uri: head.uri,
            headers: head.headers,
        };
        let status = (self.reply)(&seen);
        self.seen.lock().unwrap().push(seen);
        ready(Ok(Response::builder().status(status).body(()).unwrap()))
    }
}

/// Answers with the `Authorization` it was sent, and remembers nothing.
#[derive(Clone)]
pub struct Mirror;

impl Service<Request<()>> for Mirror {
    type Response = Response<HeaderValue>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let value = request.headers()[AUTHORIZATION].clone();
        ready(Ok(Response::new(value)))
    }
}
