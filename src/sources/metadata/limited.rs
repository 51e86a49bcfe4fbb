//! `Limited`: counts the bytes received over a connection, and stops at a limit.
//!
//! It sits below the HTTP parser, so that head, body, chunk sizes and trailers all count.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pin_project! {
    pub(super) struct Limited<T> {
        #[pin]
        io: T,
        left: usize,
    }
}

/// The limit was exceeded. Travels as the source of an I/O error.
#[derive(Debug)]
pub(super) struct TooLarge;

/// The size of one read, and the number of bytes wiped before it.
const CHUNK: usize = 8 * 1024;

impl<T> Limited<T> {
    pub(super) fn new(io: T, limit: usize) -> Self {
        Self { io, left: limit }
    }
}

impl<T: AsyncRead> AsyncRead for Limited<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if *this.left == 0 {
            return Poll::Ready(Err(io::Error::other(TooLarge)));
        }
        let most = buf.remaining().min(CHUNK).min(*this.left);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(this.io.poll_read(cx, &mut part))?;
        let read = part.filled().len();
        *this.left = this.left.saturating_sub(read);
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite> AsyncWrite for Limited<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response is too large")
    }
}

impl Error for TooLarge {}
