//! The requests received, kept for inspection in a bounded list.

use std::{collections::VecDeque, fmt, sync::Arc};

use http::{HeaderMap, Method, Uri};

use super::head::Head;

/// A request as the [`Emulator`](super::Emulator) received it.
#[derive(Clone)]
pub struct RecordedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    head: Vec<u8>,
}

impl RecordedRequest {
    pub(super) fn new(head: &Head) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            head: head.raw.clone(),
        }
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path and query, as written.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The request's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The request head byte for byte, including the blank line.
    pub fn head(&self) -> &[u8] {
        &self.head
    }
}

/// Shows the request line only: headers may hold secrets sent by mistake.
impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordedRequest({} {})", self.method, self.uri)
    }
}

/// The most recent requests.
#[derive(Default)]
pub(super) struct Records {
    requests: VecDeque<RecordedRequest>,
}

/// The number of requests remembered, so that an emulator left running does not grow without bound.
pub(super) const REMEMBERED: usize = 1_024;

impl Records {
    pub(super) fn push(&mut self, request: RecordedRequest) {
        if self.requests.len() == REMEMBERED {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }

    pub(super) fn list(&self) -> Vec<RecordedRequest> {
        self.requests.iter().cloned().collect()
    }
}

/// The callback that is told of each response.
#[derive(Clone)]
pub(super) struct Observer(Arc<Told>);

type Told = dyn Fn(&RecordedRequest, u16) + Send + Sync;

impl Observer {
    pub(super) fn new(told: impl Fn(&RecordedRequest, u16) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    pub(super) fn tell(&self, request: &RecordedRequest, status: u16) {
        (self.0)(request, status);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
