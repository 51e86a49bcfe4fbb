//! One run of a program: no input, bounded output, killed when nobody waits for it.
//!
//! Knows nothing of gcloud or tokens, except that the output may be secret: it is read into buffers
//! that do not grow and are zeroed.

use std::{
    ffi::OsStr,
    future::poll_fn,
    io,
    pin::Pin,
    process::{ExitStatus, Stdio},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    process::{Child, Command},
};
use zeroize::Zeroizing;

/// Twice the longest token.
const MOST_STDOUT: usize = 16 * 1024;

/// How much of the end of stderr is kept. The rest is read, so that the program can continue, and
/// discarded.
const MOST_STDERR: usize = 4 * 1024;

pub(super) struct Output {
    pub(super) status: ExitStatus,
    stdout: Pipe<tokio::process::ChildStdout>,
    stderr: Pipe<tokio::process::ChildStderr>,
}

pub(super) enum Fault {
    NotStarted(io::Error),
    TooMuch,
    Broken(io::Error),
}

impl Output {
    pub(super) fn stdout(&self) -> &[u8] {
        self.stdout.read()
    }

    /// At least its end.
    pub(super) fn stderr(&self) -> &[u8] {
        self.stderr.read()
    }
}

/// Runs `program` until it exits. Dropping the future kills it.
pub(super) async fn run(program: &OsStr, arguments: &[String]) -> Result<Output, Fault> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        // gcloud's own switch to fail instead of prompting.
        .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut running = Running(command.spawn().map_err(Fault::NotStarted)?);
    let (Some(stdout), Some(stderr)) = (running.0.stdout.take(), running.0.stderr.take()) else {
        return Err(Fault::Broken(io::Error::other("it has no pipes")));
    };
    let mut stdout = Pipe::new(stdout, MOST_STDOUT, Full::Fail);
    let mut stderr = Pipe::new(stderr, 2 * MOST_STDERR, Full::Forget);
    poll_fn(|cx| {
        // Poll both each time: a program that is stuck on one pipe never closes the other.
        match (stdout.poll_to_end(cx)?, stderr.poll_to_end(cx)?) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await?;
    let status = running.0.wait().await.map_err(Fault::Broken)?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// A program that has not been waited for.
///
/// Tokio kills the program itself on drop, and makes sure that no zombie is left. But `gcloud` is a
/// shell script: the work is done by a program that it starts.
struct Running(Child);

#[cfg(unix)]
impl Drop for Running {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process_group};

        // `None` once it has been waited for. Until then the process ID cannot be reused.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            // It may already have exited.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

struct Pipe<R> {
    from: R,
    bytes: Zeroizing<Vec<u8>>,
    filled: usize,
    full: Full,
    ended: bool,
}

/// What to do when the buffer is full.
#[derive(Clone, Copy)]
enum Full {
    Fail,
    /// Keep the second half.
    Forget,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(from: R, most: usize, full: Full) -> Self {
        Self {
            from,
            bytes: Zeroizing::new(vec![0; most]),
            filled: 0,
            full,
            ended: false,
        }
    }

    fn poll_to_end(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Fault> {
        while !self.ended {
            if self.filled >= self.bytes.len() {
                match self.full {
                    Full::Fail => return Err(Fault::TooMuch),
                    Full::Forget => {
                        let half = self.bytes.len() / 2;
                        self.bytes.copy_within(half.., 0);
                        self.filled -= half;
                    }
                }
            }
            match self.poll_some(cx) {
                Poll::Ready(Ok(read)) => self.ended = read == 0,
                Poll::Ready(Err(error)) => return Err(Fault::Broken(error)),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }

    fn poll_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let space = self.bytes.get_mut(self.filled..).unwrap_or_default();
        let mut space = ReadBuf::new(space);
        ready!(Pin::new(&mut self.from).poll_read(cx, &mut space))?;
        let read = space.filled().len();
        self.filled += read;
        Poll::Ready(Ok(read))
    }
}

impl<R> Pipe<R> {
    fn read(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}
