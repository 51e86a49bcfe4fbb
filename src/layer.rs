//! `ScopedAuthLayer`: what to ask for, where it may go.
//!
//! Collects settings and wraps services. Fetches nothing, and needs no runtime.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

use crate::{
    config_error::ConfigError,
    destination::Destinations,
    policy::Policy,
    quota_project::QuotaProject,
    service::ScopedAuth,
    token::{
        cache::TokenCache,
        request::{Audience, Scopes, TokenRequest},
        source::TokenSource,
    },
};

/// Stamps requests with a bearer token, where they go to an allowed destination.
///
/// By default: an access token with the scopes that the source chooses, sent to Google APIs over
/// https only. The services made by one layer, and all their clones, share the tokens; so do layers
/// made [from one cache](Self::from_cache).
///
/// A request to elsewhere is refused with an [`AuthError`](crate::AuthError), before anything is
/// fetched. A request that brings an `Authorization` header keeps it, and nothing is fetched for it
/// either.
///
/// A request may bring its own choice: [`Scopes`] or an [`Audience`] in its extensions override the
/// layer's (if both are there, the scopes count). `reqwest` does not show its requests' extensions: there,
/// make a layer for each choice, [from one cache](Self::from_cache).
///
/// A redirect layer above this one drops the extensions, and a header of the request's own, where it goes
/// to another origin: an allowed destination is then sent the token that the *layer* asks for. If that is more
/// than the request chose, follow redirects within one origin only (tower-http has a policy for it), or
/// make a layer for each choice, with destinations of its own.
#[derive(Clone)]
pub struct ScopedAuthLayer {
    cache: TokenCache,
    request: TokenRequest,
    destinations: Destinations,
    replace_authorization: bool,
    quota_project: Option<QuotaProject>,
}

impl ScopedAuthLayer {
    /// A layer with a cache of its own, with default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::from_cache(TokenCache::new(source))
    }

    /// A layer that shares a cache with whoever else holds it.
    pub fn from_cache(cache: TokenCache) -> Self {
        Self {
            cache,
            request: TokenRequest::access_token(Scopes::default()),
            destinations: Destinations::default(),
            replace_authorization: false,
            quota_project: None,
        }
    }

    /// Asks for an access token with these scopes.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.request = TokenRequest::access_token(scopes);
        self
    }

    /// Asks for an ID token for this audience, in place of an access token.
    ///
    /// With [`Audience::per_origin`], the origin of each request is its audience.
    pub fn audience(mut self, audience: Audience) -> Self {
        self.request = TokenRequest::id_token(audience);
        self
    }

    /// Where the token may go. Default: [`Destinations::google_apis`].
    pub fn destinations(mut self, destinations: Destinations) -> Self {
        self.destinations = destinations;
        self
    }

    /// Names the project that is billed and whose quota is used: `x-goog-user-project`, its id or its
    /// number.
    ///
    /// It goes out together with the token, and only with it: never to other destinations, nor with
    /// a caller's own `Authorization`. A request's own `x-goog-user-project` is kept.
    ///
    /// A client that follows redirects by itself below the layer, as reqwest does, takes this header
    /// (not the token) along to another host. Give it `reqwest::redirect::Policy::none()`, or follow
    /// redirects above the layer with tower-http's `FollowRedirect`, where each hop is judged.
    ///
    /// # Errors
    ///
    /// It is empty, or has a character that no project has.
    pub fn quota_project(mut self, project: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.quota_project = Some(QuotaProject::new("quota project", project.as_ref())?);
        Ok(self)
    }

    /// Like [`quota_project`](Self::quota_project), with the project in `GOOGLE_CLOUD_QUOTA_PROJECT`
    /// if that is set, and no project was named before. The environment is read here, once.
    ///
    /// # Errors
    ///
    /// The variable is set to something that names no project; the empty string is an error as well.
    pub fn quota_project_from_env(mut self) -> Result<Self, ConfigError> {
        if self.quota_project.is_none() {
            self.quota_project = QuotaProject::from_env()?;
        }
        Ok(self)
    }

    /// Replaces an `Authorization` header that a request brings along, where it would be kept.
    pub fn replace_authorization(mut self) -> Self {
        self.replace_authorization = true;
        self
    }
}

impl<S> Layer<S> for ScopedAuthLayer {
    type Service = ScopedAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let policy = Policy::new(
            self.cache.clone(),
            &self.request,
            self.destinations.clone(),
            self.replace_authorization,
            self.quota_project.clone(),
        );
        ScopedAuth::new(inner, Arc::new(policy))
    }
}

impl fmt::Debug for ScopedAuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let project = self.quota_project.as_ref().map(QuotaProject::as_str);
        f.debug_struct("ScopedAuthLayer")
            .field("cache", &self.cache)
            .field("request", &self.request)
            .field("destinations", &self.destinations)
            .field("replace_authorization", &self.replace_authorization)
            .field("quota_project", &project)
            .finish()
    }
}
