//! `application_default()`: Google's documented search for credentials, through its own crate.
//!
//! Knows that a credentials object serves one set of scopes, or one audience, and that it may be beyond
//! repair. Keeps the objects that work. What happens inside them is up to Google's crate.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use google_cloud_auth::{
    build_errors,
    credentials::{AccessTokenCredentials, Builder, idtoken},
};
use tokio::task::spawn_blocking;

use super::{credentials::NAME, told};
use crate::{
    error::{AuthError, Kind},
    token::{request::TokenRequest, source::TokenSource, value::Token},
};

/// Creates a source of tokens from the [Application Default Credentials], using Google's own crate.
///
/// The credentials are the file that `GOOGLE_APPLICATION_CREDENTIALS` names, else the one that
/// `gcloud auth application-default login` writes, else the metadata server.
///
/// The file may hold a service account's key, a user's login, workload identity federation, or
/// impersonation. **The environment decides which of them is found**, per token request, when it is
/// first asked for and after each failure. If you know the environment, name the source instead.
///
/// - **Scopes**: one credentials object for each set, at most 64. Without scopes, the token has
///   `cloud-platform`, or what the metadata server gives.
/// - **Audiences**: ID tokens with the `email` claim, from service account keys, impersonation and the
///   metadata server. User logins and federation cannot produce any.
/// - **Life**: a JWT lives until its `exp`. An opaque token is used for 10 s and then asked for again
///   (Google's crate answers from its cache), because its expiry is not known.
/// - **Failures**: an object that fails, hangs or panics is dropped, and the next attempt starts with a
///   new one. No failure is permanent.
/// - **Time**: the crate's metadata client honours proxy variables, follows redirects and has no time
///   limit; the attempt ends after 10 s. Prefer `MetadataServer` (feature `metadata`) where there is
///   one.
/// - **TLS**: with this crate's feature alone, a rustls crypto provider has to be installed
///   (`rustls::crypto::ring::default_provider().install_default()`), or enabled by depending on
///   `google-cloud-auth` with its feature `default-rustls-provider`.
///
/// ```no_run
/// use tower_scoped_auth::{ScopedAuthLayer, sources::application_default};
///
/// let auth = ScopedAuthLayer::new(application_default());
/// # let _ = auth;
/// ```
///
/// [Application Default Credentials]: https://cloud.google.com/docs/authentication/application-default-credentials
pub fn application_default() -> ApplicationDefault {
    ApplicationDefault::default()
}

/// The source returned by [`application_default`].
#[derive(Clone, Default)]
pub struct ApplicationDefault {
    /// Objects that worked when last asked, most recent last.
    kept: Arc<Mutex<Vec<(TokenRequest, Kept)>>>,
}

enum Kept {
    Access(AccessTokenCredentials),
    Id(idtoken::IDTokenCredentials),
}

/// Each object has its own task.
const MOST_KEPT: usize = 64;

impl ApplicationDefault {
    /// Takes the object for `request`, which is exclusively the caller's until it is put back.
    fn take(&self, request: &TokenRequest) -> Option<Kept> {
        let mut kept = self.lock();
        let at = kept.iter().position(|(other, _)| other == request)?;
        Some(kept.remove(at).1)
    }

    fn put_back(&self, request: TokenRequest, object: Kept) {
        let surplus = {
            let mut kept = self.lock();
            kept.retain(|(other, _)| *other != request);
            kept.push((request, object));
            let surplus = kept.len().saturating_sub(MOST_KEPT);
            kept.drain(..surplus).collect::<Vec<_>>()
        };
        // Dropping these runs foreign code, so do it outside the lock.
        drop(surplus);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(TokenRequest, Kept)>> {
        // Nothing under this lock can leave the list half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenSource for ApplicationDefault {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        request.check()?;
        let object = match self.take(&request) {
            Some(object) => object,
            None => Kept::build(&request).await?,
        };
        // If this fails, panics, or is dropped midway, the object is dropped with it.
        let token = match &object {
            Kept::Access(credentials) => credentials.fetch(request.clone()).await?,
            Kept::Id(credentials) => credentials.fetch(request.clone()).await?,
        };
        self.put_back(request, object);
        Ok(token)
    }

    fn name(&self) -> &'static str {
        NAME
    }
}

impl Kept {
    /// Reads the credentials file, on a thread that may block.
    async fn build(request: &TokenRequest) -> Result<Self, AuthError> {
        let request = request.clone();
        let built = spawn_blocking(move || Self::build_now(&request)).await;
        let built = built.map_err(|_panic| told::panicked())?;
        built.map_err(|error| {
            let reason = format!(
                "no Application Default Credentials: {}",
                told::words(&error)
            );
            AuthError::new(Kind::Source, reason)
        })
    }

    fn build_now(request: &TokenRequest) -> Result<Self, build_errors::Error> {
        if let Some(audience) = request.audience() {
            // It has one; this was checked earlier.
            let audience = audience.as_str().unwrap_or_default();
            let builder = idtoken::Builder::new(audience).with_include_email();
            return Ok(Self::Id(builder.build()?));
        }
        let scopes: Vec<&str> = request
            .scopes()
            .into_iter()
            .flat_map(|s| s.iter())
            .collect();
        let builder = if scopes.is_empty() {
            Builder::default()
        } else {
            Builder::default().with_scopes(scopes)
        };
        Ok(Self::Access(builder.build_access_token_credentials()?))
    }
}

impl fmt::Debug for ApplicationDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationDefault")
            .field("kept", &self.lock().len())
            .finish_non_exhaustive()
    }
}
