//! For a crate that hands out tokens and has no layer: a service as its users would write it. It clones
//! the inner service, boxes a future, awaits the token, sets the header, and calls.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use google_cloud_auth::credentials::{AccessTokenCredentials, CacheableResource, Credentials};
use http::{Extensions, HeaderMap, HeaderValue, Request, header::AUTHORIZATION};
use tower::{BoxError, Service};

/// Puts a token into a request's headers.
pub trait Stamp: Clone + Send + Sync + 'static {
    fn stamp(&self, headers: &mut HeaderMap) -> impl Future<Output = Result<(), BoxError>> + Send;
}

#[derive(Clone)]
pub struct ByHand<S, P> {
    pub inner: S,
    pub stamp: P,
}

impl<S, P, B> Service<Request<B>> for ByHand<S, P>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    P: Stamp,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let not_ready_inner = self.inner.clone();
        let mut ready_inner = mem::replace(&mut self.inner, not_ready_inner);
        let stamp = self.stamp.clone();
        Box::pin(async move {
            stamp.stamp(request.headers_mut()).await?;
            ready_inner.call(request).await.map_err(Into::into)
        })
    }
}

fn bearer(token: &str) -> Result<HeaderValue, BoxError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// gcp_auth's provider, asked for the token.
#[derive(Clone)]
pub struct GcpAuth(pub Arc<dyn gcp_auth::TokenProvider>);

const SCOPES: &[&str] = &["https://www.googleapis.com/auth/cloud-platform"];

impl Stamp for GcpAuth {
    async fn stamp(&self, headers: &mut HeaderMap) -> Result<(), BoxError> {
        let token = self.0.token(SCOPES).await?;
        headers.insert(AUTHORIZATION, bearer(token.as_str())?);
        Ok(())
    }
}

/// google-cloud-auth's credentials, asked for headers.
#[derive(Clone)]
pub struct GoogleHeaders(pub Credentials);

impl Stamp for GoogleHeaders {
    async fn stamp(&self, headers: &mut HeaderMap) -> Result<(), BoxError> {
        match self.0.headers(Extensions::new()).await? {
            CacheableResource::New { data, .. } => headers.extend(data),
            CacheableResource::NotModified => unreachable!("no entity tag was sent"),
        }
        Ok(())
    }
}

/// google-cloud-auth's credentials, asked for the token.
#[derive(Clone)]
pub struct GoogleToken(pub AccessTokenCredentials);

impl Stamp for GoogleToken {
    async fn stamp(&self, headers: &mut HeaderMap) -> Result<(), BoxError> {
        let token = self.0.access_token().await?;
        headers.insert(AUTHORIZATION, bearer(&token.token)?);
        Ok(())
    }
}
