//! Whatever bytes answer, head and body, through the real client over a real socket: a token that
//! can stand in a header, or an error; never a panic.

#![no_main]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{LazyLock, Mutex},
    thread,
};

use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tower_scoped_auth::{MetadataServer, Scopes, TokenRequest, TokenSource};

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

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// Most inputs are more use behind a head that is right.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let mut answer = if first % 2 == 0 { Vec::new() } else { HEAD.to_vec() };
    answer.extend_from_slice(rest);
    *ANSWER.lock().expect("not poisoned") = answer;
    let source = MetadataServer::builder().endpoint(SERVER.to_string()).build().expect("valid");
    let request = TokenRequest::access_token(Scopes::default());
    match RUNTIME.block_on(source.fetch(request)) {
        Ok(token) => {
            let secret = token.expose_secret();
            assert!((1..=8192).contains(&secret.len()));
            assert!(secret.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)));
            assert!(token.header_value().is_some());
            assert!(token.lifetime().is_some_and(|life| (1..=86_400).contains(&life.as_secs())));
        }
        Err(error) => {
            // Every failure can be shown, on one line.
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }
});
