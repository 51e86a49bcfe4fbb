//! `google-cloud-auth`'s credentials, each directly as a token source.

use std::time::Duration;

use google_cloud_auth::{
    credentials::{
        AccessTokenCredentials, CacheableResource, Credentials, idtoken::IDTokenCredentials,
    },
    errors::CredentialsError,
};
use http::header::AUTHORIZATION;

use super::told;
use crate::{
    error::{AuthError, Kind},
    sources::reading::{jwt, plain},
    token::{attempt::caught, request::TokenRequest, source::TokenSource, value::Token},
};

/// How long a token with unknown expiry is used.
///
/// It has not expired when it is returned, and normally has at least 240 s left; after minutes of
/// failed refreshes it may have only one second. Asking again costs only a lookup in the crate's cache.
const OPAQUE_LIFE: Duration = Duration::from_secs(10);

/// The scopes were decided when the credentials were built; a request's scopes are not compared.
///
/// An opaque token is used for 10 s at most, and the credentials are asked again after 5 s (they answer
/// from their cache), because they do not say when it expires. A JWT lives until its `exp`.
impl TokenSource for AccessTokenCredentials {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        wants_access_token(&request)?;
        let fetch = async { access_token(self.access_token().await.map_err(failed)?.token) };
        caught(fetch, |_| Err(told::panicked())).await
    }

    fn name(&self) -> &'static str {
        NAME
    }
}

/// The scopes were decided when the credentials were built; a request's scopes are not compared.
///
/// Of the headers they produce, only `Authorization` is used: a quota project is set on the layer. API
/// keys, which produce no such header, are refused.
impl TokenSource for Credentials {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        wants_access_token(&request)?;
        let fetch = async {
            let headers = self
                .headers(http::Extensions::new())
                .await
                .map_err(failed)?;
            let CacheableResource::New { data: headers, .. } = headers else {
                return Err(unusable("they claim that it was handed out before"));
            };
            let value = headers
                .get(AUTHORIZATION)
                .and_then(|value| value.to_str().ok());
            let Some(value) = value else {
                return Err(unusable(
                    "they make no Authorization header (API keys do not)",
                ));
            };
            match value.strip_prefix("Bearer ") {
                Some(token) => access_token(token.to_owned()),
                None => Err(unusable("it is not a bearer token")),
            }
        };
        caught(fetch, |_| Err(told::panicked())).await
    }

    fn name(&self) -> &'static str {
        NAME
    }
}

/// The audience was decided when the credentials were built; a request's audience is not compared.
impl TokenSource for IDTokenCredentials {
    type Error = AuthError;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, AuthError> {
        if request.audience().is_none() {
            let reason =
                "these google-cloud-auth credentials make ID tokens: give the layer an audience";
            return Err(AuthError::new(Kind::Request, reason));
        }
        let fetch = async { id_token(self.id_token().await.map_err(failed)?) };
        caught(fetch, |_| Err(told::panicked())).await
    }

    fn name(&self) -> &'static str {
        NAME
    }
}

pub(super) const NAME: &str = "google-cloud-auth";

fn wants_access_token(request: &TokenRequest) -> Result<(), AuthError> {
    if request.scopes().is_some() {
        return Ok(());
    }
    let reason = "these google-cloud-auth credentials make access tokens: \
                  for an audience, use IDTokenCredentials";
    Err(AuthError::new(Kind::Request, reason))
}

fn access_token(text: String) -> Result<Token, AuthError> {
    check(&text)?;
    match jwt::expiry(&text) {
        // The kind of token that a service account key produces.
        Ok(expiry) => Ok(Token::expiring_at(text, expiry)),
        Err(jwt::Fault::NotJwt | jwt::Fault::NoExpiry) => {
            Ok(Token::new(text, OPAQUE_LIFE).refresh_in(OPAQUE_LIFE / 2))
        }
        Err(jwt::Fault::BadExpiry) => Err(unusable("its exp is not a date")),
    }
}

fn id_token(text: String) -> Result<Token, AuthError> {
    check(&text)?;
    match jwt::expiry(&text) {
        Ok(expiry) => Ok(Token::expiring_at(text, expiry)),
        Err(jwt::Fault::NotJwt) => Err(unusable("it is not a JWT")),
        Err(jwt::Fault::NoExpiry | jwt::Fault::BadExpiry) => {
            Err(unusable("it does not say when it expires (exp)"))
        }
    }
}

fn check(text: &str) -> Result<(), AuthError> {
    match plain::token(text.as_bytes()) {
        Ok(token) if token.len() == text.len() => Ok(()),
        Ok(_) => Err(unusable("it has white space around it")),
        Err(reason) => Err(unusable(reason)),
    }
}

fn unusable(reason: &str) -> AuthError {
    let reason = format!("the token that google-cloud-auth handed out is not usable: {reason}");
    AuthError::new(Kind::Response, reason)
}

fn failed(error: CredentialsError) -> AuthError {
    let advice = if error.is_transient() {
        ""
    } else {
        " (such credentials have given up: build new ones, or use sources::application_default)"
    };
    let reason = format!("google-cloud-auth: {}{advice}", told::words(&error));
    AuthError::new(Kind::Source, reason)
}
