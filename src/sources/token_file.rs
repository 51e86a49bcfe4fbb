//! `TokenFile`: a token that another program writes to a file, and replaces.
//!
//! Reads the file as it is at that moment. Remembers and watches nothing.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{
    reading::{LONGEST_TOKEN, jwt, plain},
    remark,
};
use crate::{
    config_error::ConfigError,
    error::{AuthError, Kind},
    token::{request::TokenRequest, source::TokenSource, value::Token},
};

/// A token from a file that is read repeatedly.
///
/// For Kubernetes' projected service account tokens, or the output of a sidecar.
///
/// **Pace.** The file is read when a token is first wanted, and then once a minute
/// ([`reread`](TokenFileBuilder::reread)) as long as requests arrive, or more often with a longer
/// [`refresh_lead`](crate::TokenCacheBuilder::refresh_lead). It is opened by its path each time, so
/// renames and swapped symlinks (Kubernetes' `..data`) are noticed. If it cannot be read or holds no
/// token, the last good token stays in use for another minute (as long as `reread`, up to 225 s), or
/// until its `exp`. A 401 brings the next read forward.
///
/// **Life.** A JWT is used until its `exp`. Of any other token, all that is known is that it was there
/// when the file was read.
///
/// **What it accepts.** A regular file, or a symlink to one, that contains up to 8,192 characters of
/// RFC 6750's `b64token`, optionally surrounded by white space. Text that starts like a JWT but does
/// not have three parts is refused: the file is still being written. A write that is truncated inside
/// the signature, or inside an opaque token, cannot be told from a complete one: **writers should write
/// to a temporary file beside it and rename**, as Kubernetes does. Anything else (a FIFO, a directory,
/// a device) is an error at once.
///
/// **Scopes and audience** of a request are not compared with the file: whoever writes it decides on
/// them.
///
/// Reads happen on a separate thread, so that a hanging file system blocks neither the runtime nor the
/// end of the process; there are at most 16 such threads.
///
/// ```
/// use tower_scoped_auth::{Destinations, ScopedAuthLayer, sources::TokenFile};
///
/// let auth = ScopedAuthLayer::new(TokenFile::new("/var/run/secrets/tokens/vault-token"))
///     .destinations(Destinations::only(["https://vault.internal:8200"])?);
/// # Ok::<(), tower_scoped_auth::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct TokenFile {
    path: Arc<Path>,
    reread: Duration,
    /// Threads that have not returned yet.
    readers: Arc<AtomicUsize>,
}

/// Configures a [`TokenFile`]; made by [`TokenFile::builder`].
#[derive(Clone, Debug)]
pub struct TokenFileBuilder {
    path: PathBuf,
    reread: Duration,
}

/// Kubernetes' own clients read equally often; the kubelet replaces a token while at least a fifth of
/// its life is left.
const REREAD: Duration = Duration::from_secs(60);

/// How long past the due reread the last token is used while the file is unreadable. As long as the
/// default lead for refreshing a token of the metadata server.
const LONGEST_SPARE: Duration = Duration::from_secs(225);

/// A local file takes microseconds; a network file system should not take longer than this.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// As many as the fetches that a cache runs at once.
const MOST_READERS: usize = 16;

/// The longest token, plus room for white space.
const MOST_BYTES: usize = LONGEST_TOKEN + 1024;

impl TokenFile {
    /// Creates a source for the file at `path`, read once a minute.
    ///
    /// Nothing is checked here: an empty path is an error at each read, whereas the
    /// [builder](Self::builder) refuses it at once.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::assemble(path.into(), REREAD)
    }

    /// Returns a builder, to change how often the file is read.
    pub fn builder(path: impl Into<PathBuf>) -> TokenFileBuilder {
        TokenFileBuilder {
            path: path.into(),
            reread: REREAD,
        }
    }

    fn assemble(path: PathBuf, reread: Duration) -> Self {
        Self {
            path: path.into(),
            reread,
            readers: Arc::default(),
        }
    }

    /// How long a read token may be used: until the next read, and while the file is unreadable.
    fn life(&self) -> Duration {
        self.reread.saturating_add(self.reread.min(LONGEST_SPARE))
    }

    /// Reads the file's bytes on a separate thread.
    async fn read(&self) -> Result<Zeroizing<Vec<u8>>, AuthError> {
        let place = Place::take(&self.readers).ok_or_else(|| {
            let reason = format!(
                "cannot read the token file {}: earlier readings have not come back",
                self.shown()
            );
            AuthError::new(Kind::Source, reason)
        })?;
        let (sender, receiver) = oneshot::channel();
        let path = Arc::clone(&self.path);
        let read = move || {
            let _place = place;
            // There may be nobody left waiting for it.
            let _ = sender.send(read_regular(&path));
        };
        let named = thread::Builder::new().name("token-file".to_owned());
        let result = match named.spawn(read) {
            // An error only if the thread panicked, which it has no reason to do.
            Ok(_detached) => receiver.await.unwrap_or_else(|_| {
                let reason = "the reading thread is gone";
                Err(io::Error::other(reason))
            }),
            Err(error) => Err(error),
        };
        result.map_err(|error| {
            let reason = format!(
                "cannot read the token file {}: check that it is there, is a regular file, \
                 and may be read",
                self.shown()
            );
            AuthError::caused(Kind::Source, reason, error)
        })
    }

    fn shown(&self) -> String {
        remark::short(&format!("{:?}", self.path))
    }
}

impl TokenFileBuilder {
    /// Sets how often the file is read while requests arrive. Default: 1 min; from 1 s to 1 h.
    pub fn reread(mut self, pace: Duration) -> Self {
        self.reread = pace;
        self
    }

    /// Builds the source. Reads nothing: the file may appear later.
    ///
    /// # Errors
    ///
    /// The path is empty, or the pace is out of range.
    pub fn build(self) -> Result<TokenFile, ConfigError> {
        if self.path.as_os_str().is_empty() {
            return Err(ConfigError::new("token file", "", "the path is empty"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.reread) {
            let reason = "it must be between 1 s and 1 h";
            let given = format!("{:?}", self.reread);
            return Err(ConfigError::new(
                "pace of reading a token file",
                &given,
                reason,
            ));
        }
        Ok(TokenFile::assemble(self.path, self.reread))
    }
}

impl TokenSource for TokenFile {
    type Error = AuthError;

    async fn fetch(&self, _request: TokenRequest) -> Result<Token, AuthError> {
        let bytes = self.read().await?;
        let wrong = |reason: &str| {
            let reason = format!("the token file {} holds no token: {reason}", self.shown());
            AuthError::new(Kind::Response, reason)
        };
        let text = plain::token(&bytes).map_err(wrong)?;
        let token = match jwt::expiry(text) {
            Ok(expiry) => Token::expiring_within(text, expiry, self.life()),
            Err(jwt::Fault::NotJwt) if is_part_of_jwt(text) => {
                let reason = "what it holds begins as a JWT and is not a whole one";
                return Err(wrong(reason));
            }
            Err(jwt::Fault::NotJwt | jwt::Fault::NoExpiry) => Token::new(text, self.life()),
            Err(jwt::Fault::BadExpiry) => return Err(wrong("the JWT's exp is not a date")),
        };
        Ok(token.refresh_in(self.reread))
    }

    fn attempt_timeout(&self) -> Duration {
        ATTEMPT_TIMEOUT
    }

    fn name(&self) -> &'static str {
        "token-file"
    }
}

/// The beginning of a JWT, an encoded `{"`; but not of an encrypted one, which has five parts.
fn is_part_of_jwt(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() != 5
}

/// Reads up to [`MOST_BYTES`] of a regular file into a buffer that never grows.
fn read_regular(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Checked before opening: opening a FIFO blocks until its other end is opened.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = fs::File::open(path)?;
    let mut bytes = Zeroizing::new(vec![0; MOST_BYTES]);
    let mut filled = 0;
    loop {
        let space = bytes.get_mut(filled..).unwrap_or_default();
        if space.is_empty() {
            return Err(io::Error::other("it is larger than any token (9 KiB)"));
        }
        match file.read(space) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// One of the slots for readers, released when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(readers: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(readers));
        (readers.fetch_add(1, Ordering::Relaxed) < MOST_READERS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .field("reread", &self.reread)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_readers_and_no_more() {
        let readers = Arc::default();
        let taken: Vec<_> = (0..MOST_READERS).map(|_| Place::take(&readers)).collect();
        assert!(taken.iter().all(Option::is_some));
        assert!(Place::take(&readers).is_none());
        drop(taken);
        assert!(Place::take(&readers).is_some());
        assert_eq!(readers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_cannot_mean_anything_is_an_error_at_build() {
        assert!(TokenFile::builder("").build().is_err());
        for pace in [Duration::ZERO, Duration::from_secs(3601), Duration::MAX] {
            assert!(TokenFile::builder("x").reread(pace).build().is_err());
        }
    }
}
