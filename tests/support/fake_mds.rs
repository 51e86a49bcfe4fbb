//! A metadata server on a real socket that sends exactly the bytes a test says.
//!
//! Uses threads and blocking sockets, so that it keeps running whatever happens to the runtimes under test.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tower_scoped_auth::MetadataServer;

/// What happens to one connection.
#[derive(Clone)]
pub enum Reply {
    /// These bytes, then FIN.
    Raw(Vec<u8>),
    /// These bytes, which are not copied, then FIN.
    Static(&'static [u8]),
    /// Wait, then this.
    After(Duration, Box<Reply>),
    /// Nothing, until the client disconnects.
    Hang,
    /// These bytes, then nothing, until the client disconnects.
    Stall(Vec<u8>),
    /// RST, after these bytes.
    Reset(Vec<u8>),
    /// These bytes once, then the others over and over until the client disconnects.
    Endless(Vec<u8>, Vec<u8>),
}

impl Reply {
    /// 200 with the flavor header and this body.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200, "", body)
    }

    /// Any status, with further header lines (each ending in CRLF) and this body.
    pub fn status(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut raw = format!(
            "HTTP/1.1 {status} X\r\nMetadata-Flavor: Google\r\nContent-Type: application/json\r\n\
             {headers}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        raw.extend_from_slice(body);
        Self::Raw(raw)
    }

    /// The bytes that a reply sends, if it consists only of bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Raw(bytes) => bytes,
            _ => panic!("not a reply of bytes"),
        }
    }

    pub fn token(name: &str, expires_in: u64) -> Self {
        Self::ok(format!(
            r#"{{"access_token":"{name}","expires_in":{expires_in},"token_type":"Bearer"}}"#
        ))
    }

    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }
}

pub struct FakeMds {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<dyn Fn(usize) -> Reply + Send + Sync>,
    /// This many connections are reset before a byte is read.
    resets: usize,
    /// The head of each request, as it came.
    requests: Mutex<Vec<(Instant, String)>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    peak: AtomicUsize,
    /// Bytes written on the connection that took the most.
    most_written: AtomicUsize,
    stopped: AtomicBool,
}

impl FakeMds {
    /// `script` gives the reply to the n-th request (from 1).
    pub fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), 0, script)
    }

    /// On the caller's socket; the first `resets` connections are reset as soon as they are accepted.
    pub fn start_on(
        listener: TcpListener,
        resets: usize,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            resets,
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            most_written: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(stream.unwrap()));
            }
        });
        Self { addr, shared }
    }

    /// `ya29.tok-1`, `ya29.tok-2`, …, an hour each.
    pub fn healthy() -> Self {
        Self::start(|n| Reply::token(&format!("ya29.tok-{n}"), 3599))
    }

    /// The reply to the first request is `first`; all later ones get a token.
    pub fn once(first: impl Fn() -> Reply + Send + Sync + 'static) -> Self {
        Self::start(move |n| {
            if n == 1 {
                first()
            } else {
                Reply::token(&format!("tok-{n}"), 3599)
            }
        })
    }

    pub fn endpoint(&self) -> String {
        self.addr.to_string()
    }

    pub fn source(&self) -> MetadataServer {
        MetadataServer::builder()
            .endpoint(self.endpoint())
            .build()
            .unwrap()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once.
    pub fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::SeqCst)
    }

    pub fn most_written(&self) -> usize {
        self.shared.most_written.load(Ordering::SeqCst)
    }

    /// The heads of the requests, byte for byte.
    pub fn requests(&self) -> Vec<String> {
        self.shared
            .requests
            .lock()
            .unwrap()
            .iter()
            .map(|(_, head)| head.clone())
            .collect()
    }

    pub fn times(&self) -> Vec<Instant> {
        self.shared
            .requests
            .lock()
            .unwrap()
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }

    /// Forgets the requests so far, for tests that count bytes.
    pub fn forget(&self) {
        *self.shared.requests.lock().unwrap() = Vec::new();
    }

    pub fn token_requests(&self) -> usize {
        self.requests()
            .iter()
            .filter(|head| head.contains("/token"))
            .count()
    }
}

impl Drop for FakeMds {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        if self.connections.fetch_add(1, Ordering::SeqCst) < self.resets {
            return reset(stream);
        }
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(open, Ordering::SeqCst);
        if let Some(head) = read_head(&mut stream) {
            let number = {
                let mut requests = self.requests.lock().unwrap();
                requests.push((Instant::now(), head));
                requests.len()
            };
            self.reply(stream, (self.script)(number));
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn reply(&self, mut stream: TcpStream, reply: Reply) {
        match reply {
            Reply::Static(bytes) => {
                let _ = stream.write_all(bytes);
                let _ = stream.shutdown(Shutdown::Write);
                until_closed(stream);
            }
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Write);
                until_closed(stream);
            }
            Reply::After(delay, reply) => {
                // The server is slow on purpose; no test waits for this without a reason.
                thread::sleep(delay);
                self.reply(stream, *reply);
            }
            Reply::Hang => until_closed(stream),
            Reply::Stall(bytes) => {
                let _ = stream.write_all(&bytes);
                until_closed(stream);
            }
            Reply::Reset(bytes) => {
                let _ = stream.write_all(&bytes);
                reset(stream);
            }
            Reply::Endless(first, again) => {
                let mut written = first.len();
                let mut result = stream.write_all(&first);
                while result.is_ok() {
                    result = stream.write_all(&again);
                    written += again.len();
                    self.most_written.fetch_max(written, Ordering::SeqCst);
                }
            }
        }
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}

fn until_closed(mut stream: TcpStream) {
    let mut rest = [0; 1024];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
}

/// Closing a socket with unread input makes the kernel send RST; lingering is not stable in std.
fn reset(stream: TcpStream) {
    let socket = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let _inside = socket.enter();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
}
