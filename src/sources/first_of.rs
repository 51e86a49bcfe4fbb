//! `FirstOf`: several sources, of which the first to answer is used.
//!
//! Knows other sources by their common trait, and which of them answered first. No cache, no pacing.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use super::remark;
use crate::{
    error::{AuthError, Kind},
    token::{
        attempt::attempt,
        request::TokenRequest,
        source::{DynSource, TokenSource},
        value::{Life, Token},
    },
};

/// Tries sources in order until one answers, and then uses only that one.
///
/// For programs that run in several environments: the metadata server where there is one, `gcloud` on a
/// laptop. The search happens once. **The first source that returns a token is the only one that is
/// asked from then on**, by all clones and for all requests: its later failures are reported as
/// failures, and never lead to the use of a different identity.
/// [`TokenStatus::source`](crate::TokenStatus::source) names the chosen source.
///
/// Until one has answered, an attempt asks each in turn, each within its own
/// [`attempt_timeout`](TokenSource::attempt_timeout); the whole attempt may take as long as all of them
/// together (at most 5 min). A source that panics counts as failed, and so does one whose token has
/// expired or cannot be sent. If all sources fail, the error lists the reason of each.
///
/// A source that is slow to start (such as a metadata server that takes a moment) is passed over for
/// good if a later one answers. Only combine sources that do not exist in the same environment.
///
/// ```
/// use tower_scoped_auth::{ScopedAuthLayer, sources::{Fixed, FirstOf}};
/// # use tower_scoped_auth::source;
/// # let metadata_server = source::from_fn(|_| async { Err::<tower_scoped_auth::Token, _>("none") });
///
/// let source = FirstOf::new(metadata_server).or(Fixed::new("for-development"));
/// let auth = ScopedAuthLayer::new(source);
/// # let _ = auth;
/// ```
#[derive(Clone)]
pub struct FirstOf {
    candidates: Vec<Candidate>,
    /// The index of the source that answered first.
    chosen: Arc<OnceLock<usize>>,
}

#[derive(Clone)]
struct Candidate {
    source: Arc<dyn DynSource>,
    name: &'static str,
    timeout: Duration,
}

/// The longest that an attempt of a cache may take at all.
const LONGEST: Duration = Duration::from_secs(300);

/// Pause between the end of one candidate's time and the start of the next one's. Without it, the
/// attempt as a whole would end before the last candidate, and the error would not list the reason of
/// each.
const HANDOVER: Duration = Duration::from_millis(100);

impl FirstOf {
    /// Creates a source that tries `first` first.
    pub fn new(first: impl TokenSource) -> Self {
        Self {
            candidates: vec![Candidate::new(first)],
            chosen: Arc::default(),
        }
    }

    /// Adds a source that is tried if those before it fail.
    ///
    /// Until one has answered, all of them are asked again together, once the last of their waits
    /// ([`TokenSource::retry_after`]) is over.
    pub fn or(mut self, next: impl TokenSource) -> Self {
        self.candidates.push(Candidate::new(next));
        // Clones made earlier keep their list and their own choice.
        self.chosen = Arc::default();
        self
    }

    fn chosen(&self) -> Option<&Candidate> {
        self.candidates.get(*self.chosen.get()?)
    }

    async fn search(&self, request: TokenRequest) -> Result<Token, AuthError> {
        let mut failures = Vec::new();
        for (place, candidate) in self.candidates.iter().enumerate() {
            // Another caller's search may have finished in the meantime.
            if let Some(chosen) = self.chosen() {
                return chosen.fetch(request).await;
            }
            match candidate.fetch(request.clone()).await {
                Ok(token) => match fault(&token) {
                    Some(reason) => {
                        failures.push((candidate.name, AuthError::new(Kind::Response, reason)));
                    }
                    None if *self.chosen.get_or_init(|| place) == place => return Ok(token),
                    // A different identity from the one just chosen: must not be used.
                    None => {}
                },
                Err(error) => failures.push((candidate.name, error)),
            }
        }
        match self.chosen() {
            Some(chosen) => chosen.fetch(request).await,
            None => Err(all_failed(&failures)),
        }
    }
}

impl TokenSource for FirstOf {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        match self.chosen() {
            Some(chosen) => chosen.fetch(request).await,
            None => self.search(request).await,
        }
    }

    fn attempt_timeout(&self) -> Duration {
        let timeouts = self
            .candidates
            .iter()
            .map(|candidate| candidate.timeout.saturating_add(HANDOVER));
        let together = timeouts.fold(Duration::ZERO, Duration::saturating_add);
        together.min(LONGEST)
    }

    fn retry_after(&self, error: &AuthError) -> Option<Duration> {
        error.retry_after()
    }

    fn name(&self) -> &'static str {
        "first-of"
    }

    fn active(&self) -> &'static str {
        match self.chosen() {
            Some(chosen) => chosen.source.active(),
            None => self.name(),
        }
    }
}

impl Candidate {
    fn new(source: impl TokenSource) -> Self {
        Self {
            name: source.name(),
            timeout: source.attempt_timeout(),
            source: Arc::new(source),
        }
    }

    /// Asks the source, with a time limit and protection from panics.
    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        attempt(&*self.source, request, self.timeout, |_| {}).await
    }
}

/// Why a cache would reject the token. A choice is permanent, so it must not be made because of a dead
/// token.
fn fault(token: &Token) -> Option<&'static str> {
    if token.header_value().is_none() {
        return Some("it returned a token that cannot be sent in a header");
    }
    let over = match token.life() {
        Life::For(lifetime) => lifetime.is_zero(),
        Life::Until(expiry, longest) => longest.is_zero() || expiry <= SystemTime::now(),
        Life::Unknown => false,
    };
    over.then_some("it returned a token that has expired")
}

fn all_failed(failures: &[(&'static str, AuthError)]) -> AuthError {
    let mut reason = format!("none of the {} token sources answered", failures.len());
    for (at, (name, error)) in failures.iter().enumerate() {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        let told = remark::short(&format!("{error}{}", cause.unwrap_or_default()));
        let between = if at == 0 { ": " } else { "; " };
        reason.push_str(&format!("{between}{name}: {told}"));
    }
    // Retrying is worthwhile if it is for any of them, but not before the last of their waits is over.
    let transient = failures.iter().any(|(_, error)| error.is_transient());
    let kind = if transient {
        Kind::Source
    } else {
        Kind::Request
    };
    let retry_after = failures.iter().filter_map(|(_, error)| error.retry_after());
    AuthError::gathered(kind, reason, retry_after.max())
}

impl fmt::Debug for FirstOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.candidates.iter().map(|candidate| candidate.name);
        f.debug_struct("FirstOf")
            .field("sources", &names.collect::<Vec<_>>())
            .field("chosen", &self.chosen().map(|chosen| chosen.name))
            .finish()
    }
}
