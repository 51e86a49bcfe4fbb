//! A metadata server that answers what it is told to, and the real client that asks it over a socket.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{LazyLock, Mutex},
    thread,
};

use tokio::runtime::{Builder, Runtime};
use tower_scoped_auth::{AuthError, MetadataServer, Token, TokenRequest, TokenSource};

static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let answer = ANSWER.lock().expect("not poisoned").clone();
            let _ = stream.write_all(&answer);
        }
    });
    addr
});

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Most inputs are more useful after a correct head.
pub const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n\r\n";

/// What the client makes of `answer`. A token must be valid in a header, and an error must fit on one line.
pub fn fetch(answer: Vec<u8>, request: TokenRequest) -> Result<Token, AuthError> {
    *ANSWER.lock().expect("not poisoned") = answer;
    let source = MetadataServer::builder()
        .endpoint(SERVER.to_string())
        .build()
        .expect("valid");
    let result = RUNTIME.block_on(source.fetch(request));
    match &result {
        Ok(token) => {
            assert!((1..=8192).contains(&token.expose_secret().len()));
            assert!(token.header_value().is_some());
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
    result
}
