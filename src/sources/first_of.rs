//! `FirstOf`: several sources, of which one is found to be at home.
//!
//! Knows other sources by their common trait, and which of them answered first. No cache, no pace.

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

/// Sources that are tried in order until one answers; from then on, that one.
///
/// For programs that run in several places: the metadata server where there is one, `gcloud` on a
/// laptop. The search happens once. **The first source that hands out a token is the only one that
/// is asked from then on**, by all clones and for all requests: its later failures are failures,
/// and never a reason to go on as somebody else. Which one it is stands in
/// [`TokenStatus::source`](crate::TokenStatus::source).
///
/// While none has answered, an attempt asks each in turn, each within its own
/// [`attempt_timeout`](TokenSource::attempt_timeout); the whole attempt may take as long as all of
/// them together (at most 5 min). A source that panics counts as one that fails, and so does one
/// whose token has expired or cannot be sent. The error of an attempt in which all failed names all
/// their reasons.
///
/// A source that is late at a start (a metadata server that takes a moment) is passed over for good
/// if one behind it answers. Put only those behind each other that do not exist in the same place.
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
    /// The place of the one that answered first.
    chosen: Arc<OnceLock<usize>>,
}

#[derive(Clone)]
struct Candidate {
    source: Arc<dyn DynSource>,
    name: &'static str,
    timeout: Duration,
}

/// The longest an attempt of a cache may take at all.
const LONGEST: Duration = Duration::from_secs(300);

/// From the end of one candidate's time to the beginning of the next one's. Without it the attempt as a
/// whole would be over before the last candidate, and the error would not say what each of them said.
const HANDOVER: Duration = Duration::from_millis(100);

impl FirstOf {
    /// The source that is tried first.
    pub fn new(first: impl TokenSource) -> Self {
        Self {
            candidates: vec![Candidate::new(first)],
            chosen: Arc::default(),
        }
    }

    /// The source that is tried if those before it fail.
    ///
    /// While none has answered, all are asked again together, when the last of them wants to be
    /// ([`TokenSource::retry_after`]).
    pub fn or(mut self, next: impl TokenSource) -> Self {
        self.candidates.push(Candidate::new(next));
        // Clones made before go on with the list they have, and with their own choice.
        self.chosen = Arc::default();
        self
    }

    fn chosen(&self) -> Option<&Candidate> {
        self.candidates.get(*self.chosen.get()?)
    }

    async fn search(&self, request: TokenRequest) -> Result<Token, AuthError> {
        let mut failures = Vec::new();
        for (place, candidate) in self.candidates.iter().enumerate() {
            // Somebody else's search may have come to its end meanwhile.
            if let Some(chosen) = self.chosen() {
                return chosen.fetch(request).await;
            }
            match candidate.fetch(request.clone()).await {
                Ok(token) => match fault(&token) {
                    Some(reason) => {
                        failures.push((candidate.name, AuthError::new(Kind::Response, reason)));
                    }
                    None if *self.chosen.get_or_init(|| place) == place => return Ok(token),
                    // Another identity than the one chosen in this moment: not to be used.
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

    /// Asks the source: bounded in time, and safe from its panics.
    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        attempt(&*self.source, request, self.timeout, |_| {}).await
    }
}

/// Why a cache would not take the token. A choice is for good: not for the sake of a dead one.
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
    // Worth trying again if one of them is; not before the last of them wants to be asked.
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
