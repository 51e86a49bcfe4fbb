//! `ScopedAuthLayer`: what to ask for, and where the token may go.
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

/// Stamps requests to allowed destinations with a bearer token.
///
/// By default, this is an access token with the scopes that the source chooses, sent only to Google
/// APIs, over https. All services made by one layer, and all their clones, share its tokens, as do
/// layers made [from the same cache](Self::from_cache).
///
/// A request to any other destination is refused with an [`AuthError`](crate::AuthError) before
/// anything is fetched. A request that already has an `Authorization` header keeps it, and nothing is
/// fetched for it either.
///
/// A request can override the layer's choice by carrying [`Scopes`] or an [`Audience`] in its
/// extensions (if both are present, the scopes win). `reqwest` does not expose its requests'
/// extensions; there, make one layer per choice, all [from one cache](Self::from_cache).
///
/// Place the layer directly around the client, with queues and limits outside. A request that is delayed
/// below the layer already carries its token, which may expire in the meantime:
/// [placement](crate::guide::placement).
///
/// When a redirect layer above this one follows a redirect to another origin, it drops the extensions
/// and the request's own `Authorization` header. If that origin is an allowed destination, it is sent
/// the token that the *layer* asks for. If that token grants more than the one the request chose,
/// follow redirects within one origin only (tower-http has a policy for this), or make one layer per
/// choice, each with its own destinations.
#[derive(Clone)]
pub struct ScopedAuthLayer {
    cache: TokenCache,
    request: TokenRequest,
    destinations: Destinations,
    replace_authorization: bool,
    quota_project: Option<QuotaProject>,
}

impl ScopedAuthLayer {
    /// Creates a layer with its own cache and default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::from_cache(TokenCache::new(source))
    }

    /// Creates a layer that shares `cache` with its other holders.
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

    /// Asks for an ID token for this audience instead of an access token.
    ///
    /// With [`Audience::per_origin`], the audience is the origin of each request.
    pub fn audience(mut self, audience: Audience) -> Self {
        self.request = TokenRequest::id_token(audience);
        self
    }

    /// Sets where the token may go. Default: [`Destinations::google_apis`].
    pub fn destinations(mut self, destinations: Destinations) -> Self {
        self.destinations = destinations;
        self
    }

    /// Sets the project to bill and whose quota to use, by ID or number (`x-goog-user-project`).
    ///
    /// The header is sent only together with the token: never to other destinations, nor with a
    /// caller's own `Authorization`. A request's own `x-goog-user-project` is kept.
    ///
    /// A client below the layer that follows redirects itself, as reqwest does, forwards this header
    /// (but not the token) to another host. Configure it with `reqwest::redirect::Policy::none()`, or
    /// follow redirects above the layer with tower-http's `FollowRedirect`, where each hop is checked.
    ///
    /// # Errors
    ///
    /// The project is empty, or contains a character that no project name can have.
    pub fn quota_project(mut self, project: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.quota_project = Some(QuotaProject::new("quota project", project.as_ref())?);
        Ok(self)
    }

    /// Like [`quota_project`](Self::quota_project), but takes the project from
    /// `GOOGLE_CLOUD_QUOTA_PROJECT`.
    ///
    /// Has no effect if the variable is unset or a project was already set. The environment is read
    /// here, once.
    ///
    /// # Errors
    ///
    /// The variable is set to something that is not a project name; an empty string is an error as
    /// well.
    pub fn quota_project_from_env(mut self) -> Result<Self, ConfigError> {
        if self.quota_project.is_none() {
            self.quota_project = QuotaProject::from_env()?;
        }
        Ok(self)
    }

    /// Replaces an `Authorization` header that a request already has, instead of keeping it.
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
