//! The requests that came, kept for whoever wants to look: a bounded list.

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

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Path and query, as written.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The head byte for byte, the blank line included.
    pub fn head(&self) -> &[u8] {
        &self.head
    }
}

/// The request line: headers may hold what somebody sent by mistake.
impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordedRequest({} {})", self.method, self.uri)
    }
}

/// The last of them.
#[derive(Default)]
pub(super) struct Records {
    requests: VecDeque<RecordedRequest>,
}

/// Requests remembered, so that an emulator left running does not grow without end.
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

/// Who is told of each answer.
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
