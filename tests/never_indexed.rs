//! s137 on the wire: over HTTP/2 the header is a literal that no proxy may add to a table.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{io::Read, net::TcpListener, sync::mpsc, thread, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};
use tower_scoped_auth::{Destinations, ScopedAuthLayer, Token, TokenRequest, source};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;

/// The payload of the first HEADERS frame (RFC 9113, section 4.1).
fn header_block(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes.strip_prefix(PREFACE)?;
    while rest.len() >= FRAME_HEAD {
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        let payload = rest.get(FRAME_HEAD..FRAME_HEAD + length)?;
        if rest[3] == HEADERS {
            return Some(payload.to_vec());
        }
        rest = &rest[FRAME_HEAD + length..];
    }
    None
}

#[tokio::test]
async fn s137_over_http2_it_is_a_never_indexed_literal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, block) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..read]);
            if let Some(block) = header_block(&bytes) {
                sender.send(block).unwrap();
                return;
            }
        }
    });
    let source = source::from_fn(|_: TokenRequest| async {
        Ok::<_, std::io::Error>(Token::new("secret", Duration::from_secs(3600)))
    });
    let hyper = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Empty<Bytes>>();
    let client = ScopedAuthLayer::new(source)
        .destinations(Destinations::only([format!("http://{addr}")]).unwrap())
        .layer(hyper);
    let request = Request::get(format!("http://{addr}/"))
        .body(Empty::new())
        .unwrap();
    let sending = tokio::spawn(client.oneshot(request));
    let block = tokio::task::spawn_blocking(move || block.recv_timeout(Duration::from_secs(10)))
        .await
        .unwrap()
        .unwrap();
    sending.abort();
    // Skip the authority: its port is chosen by the system, and the encoded digits can look like anything.
    // It is a literal with the name of entry 1, and comes after method and scheme.
    assert_eq!(block[2], 0b0100_0000 | 1, "{block:02x?}");
    let authority = usize::from(block[3] & 0b0111_1111);
    let block = &block[4 + authority..];
    // RFC 7541, section 6.2.3: 0001xxxx. The name is entry 23 of the static table (appendix A), whose
    // index takes the four bits and one more byte: 15, then 23 - 15.
    let never_indexed = [0b0001_1111, 23 - 15];
    assert!(
        block.windows(2).any(|bytes| bytes == never_indexed),
        "{block:02x?}"
    );
    // Neither of the other two kinds of literal, with and without indexing.
    for other in [[0b0100_0000 | 23, 0].as_slice(), &[0b0000_1111, 23 - 15]] {
        let start = &other[..if other[1] == 0 { 1 } else { 2 }];
        assert!(
            !block.windows(start.len()).any(|bytes| bytes == start),
            "{block:02x?}"
        );
    }
}
