//! The server: a thread, a runtime of its own, and one task per connection.
//!
//! It shares nothing with the caller's runtime: a paused clock does not stop it, and it outlives
//! whatever runtime it was started from. Knows sockets, and acts on faults; what to answer is
//! decided in `routes.rs`.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::sleep,
};

use super::{
    answer::Answer,
    fault::{Action, Faults},
    head::{self, Head, Progress},
    mint::Mint,
    record::{Observer, RecordedRequest, Records},
    relay::Relay,
    routes::{Kind, Routes},
};

/// What the connections and the handle share.
pub(super) struct Shared {
    pub(super) routes: Routes,
    pub(super) state: Mutex<State>,
    pub(super) counts: Counts,
    /// Real tokens, if they are served.
    pub(super) relay: Option<Relay>,
    pub(super) observer: Option<Observer>,
}

pub(super) struct State {
    pub(super) mint: Mint,
    pub(super) faults: Faults,
    pub(super) records: Records,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) tokens: AtomicU64,
    pub(super) identities: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) open: AtomicUsize,
    pub(super) tokens_now: AtomicUsize,
    pub(super) tokens_peak: AtomicUsize,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running thread. Dropping it stops the server and waits for the thread.
pub(super) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(bind: SocketAddr, shared: Arc<Shared>) -> io::Result<(Self, SocketAddr)> {
        let listener = StdListener::bind(bind)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("metadata-emulator".to_owned())
            .spawn(move || serve(&runtime, listener, &shared, stopped))?;
        Ok((
            Self {
                stop: Some(stop),
                thread: Some(thread),
            },
            addr,
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn serve(
    runtime: &Runtime,
    listener: StdListener,
    shared: &Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let Ok(listener) = TcpListener::from_std(listener) else {
            return;
        };
        let accepting = async {
            loop {
                // An error here concerns one connection, or is a lack of file descriptors that may
                // pass.
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(Connection::new(shared).serve(stream))),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = stopped => {}
        }
    });
    // Dropping the runtime drops the connections' tasks, and closes their sockets.
}

const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Counts as an open connection for as long as it lives.
struct Connection {
    shared: Arc<Shared>,
}

impl Connection {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.counts.connections.fetch_add(1, Ordering::SeqCst);
        shared.counts.open.fetch_add(1, Ordering::SeqCst);
        Self {
            shared: Arc::clone(shared),
        }
    }

    /// Serves the connection until it ends; how it ends is up to the client.
    async fn serve(self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        loop {
            match head::take(&mut buffer) {
                Progress::Complete(head) => {
                    if !matches!(self.exchange(&mut stream, &head).await, Ok(true)) {
                        return;
                    }
                }
                Progress::Partial => match stream.read_buf(&mut buffer).await {
                    Ok(1..) => {}
                    _ => return,
                },
                Progress::Refused(status) => {
                    let refusal = Answer::status(status).render(
                        self.shared.routes.server(),
                        SystemTime::now(),
                        false,
                        true,
                    );
                    let _ = stream.write_all(&refusal).await;
                    return;
                }
            }
        }
    }

    /// Handles one request and its response. Returns true if another request may follow.
    async fn exchange(&self, stream: &mut TcpStream, head: &Head) -> io::Result<bool> {
        let kind = self.shared.routes.kind(head);
        let _running = Running::new(&self.shared.counts, kind);
        let fault = {
            let mut state = self.shared.lock();
            state.records.push(RecordedRequest::new(head));
            state
                .faults
                .pick(head.uri.path(), kind != Kind::Other, Instant::now())
        };
        let answer = match fault {
            None => self.usual(head).await,
            Some(Action::Delay(delay)) => {
                sleep(delay).await;
                self.usual(head).await
            }
            Some(Action::WithoutFlavor) => Answer {
                flavor: false,
                ..self.usual(head).await
            },
            Some(Action::Answer(answer)) => answer,
            Some(Action::Hang) => {
                until_closed(stream).await;
                return Ok(false);
            }
            Some(Action::Bytes(bytes)) => {
                stream.write_all(&bytes).await?;
                stream.shutdown().await?;
                until_closed(stream).await;
                return Ok(false);
            }
            Some(Action::Reset) => {
                stream.set_zero_linger()?;
                return Ok(false);
            }
            Some(Action::Endless) => return endless(stream).await,
        };
        if let Some(observer) = &self.shared.observer {
            observer.tell(&RecordedRequest::new(head), answer.status);
        }
        // A body that was not read would be taken for the next request.
        let close = !head.keep_alive() || head.has_body();
        let head_only = head.method == Method::HEAD;
        stream
            .write_all(&answer.render(
                self.shared.routes.server(),
                SystemTime::now(),
                head_only,
                close,
            ))
            .await?;
        Ok(!close)
    }

    async fn usual(&self, head: &Head) -> Answer {
        let routes = &self.shared.routes;
        if let Some(relay) = &self.shared.relay
            && let Some(asked) = routes.asked(head)
        {
            return relay.answer(head, asked).await;
        }
        // Before taking the lock, so that callers that only read counters need not wait for it.
        routes.prepare(head);
        let mint = &mut self.shared.lock().mint;
        routes.answer(head, mint, Instant::now(), SystemTime::now())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.counts.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a request for a token while it is being answered, however that ends.
struct Running<'a> {
    counts: &'a Counts,
    is_token: bool,
}

impl<'a> Running<'a> {
    fn new(counts: &'a Counts, kind: Kind) -> Self {
        match kind {
            Kind::Token => {
                counts.tokens.fetch_add(1, Ordering::SeqCst);
                let now = counts.tokens_now.fetch_add(1, Ordering::SeqCst) + 1;
                counts.tokens_peak.fetch_max(now, Ordering::SeqCst);
            }
            Kind::Identity => {
                counts.identities.fetch_add(1, Ordering::SeqCst);
            }
            Kind::Other => {}
        }
        Self {
            counts,
            is_token: kind == Kind::Token,
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.is_token {
            self.counts.tokens_now.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

async fn until_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    while matches!(stream.read_buf(&mut rest).await, Ok(1..)) {
        rest.clear();
    }
}

async fn endless(stream: &mut TcpStream) -> io::Result<bool> {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n\
        Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    const CHUNK: &[u8] = b"10\r\n                \r\n";
    stream.write_all(HEAD).await?;
    loop {
        // Ends when the client closes the connection.
        stream.write_all(CHUNK).await?;
    }
}
