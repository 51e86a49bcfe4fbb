//! object_store: tokens as its credentials, and the layer underneath its requests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use object_store::{
    ClientOptions, CredentialProvider, ObjectStoreExt, StaticCredentialProvider,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpService, ReqwestConnector,
    },
    gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder},
};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_scoped_auth::{
    AuthError, Destinations, MetadataServer, ScopedAuthLayer, Scopes, TokenCache, TokenRequest,
    emulator::Emulator,
};
use tower_scoped_auth_integrations::api;

/// A [`TokenCache`] as credentials. object_store asks before each attempt of a request.
///
/// `GcpCredential` holds the secret as plain text, and object_store's requests are not checked by
/// [`Destinations`]: they go to the base address it was built with.
#[derive(Debug)]
struct Credentials {
    cache: TokenCache,
    request: TokenRequest,
}

#[async_trait::async_trait]
impl CredentialProvider for Credentials {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let token = self.cache.token(&self.request).await;
        let token = token.map_err(|error| object_store::Error::Generic {
            store: "GCS",
            source: Box::new(error),
        })?;
        let bearer = token.expose_secret().to_owned();
        Ok(Arc::new(GcpCredential { bearer }))
    }
}

/// The layer around the HTTP client that object_store would use: destinations are checked, the secret
/// stays in the layer, and a 401 is noticed.
#[derive(Debug)]
struct Stamping(ScopedAuthLayer);

#[derive(Debug)]
struct Stamped {
    auth: ScopedAuthLayer,
    client: HttpClient,
}

impl HttpConnector for Stamping {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        let auth = self.0.clone();
        Ok(HttpClient::new(Stamped { auth, client }))
    }
}

#[async_trait::async_trait]
impl HttpService for Stamped {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let client = service_fn(|request| self.client.execute(request));
        let sent = self.auth.layer(client).oneshot(request).await;
        sent.map_err(|error| match error.downcast::<HttpError>() {
            Ok(theirs) => *theirs,
            Err(error) => {
                let ours = error.downcast_ref::<AuthError>();
                let transient = ours.is_some_and(AuthError::is_transient);
                // What object_store retries, and what it does not.
                let kind = if transient {
                    HttpErrorKind::Connect
                } else {
                    HttpErrorKind::Unknown
                };
                HttpError::new_boxed(kind, error)
            }
        })
    }
}

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Serves put and get, as far as this test needs them.
fn storage() -> Router {
    let put = |State(objects): State<Objects>, Path(path): Path<String>, body: Bytes| async move {
        objects.lock().unwrap().insert(path, body);
        [(header::ETAG, "\"1\"")]
    };
    let read = |State(objects): State<Objects>, Path(path): Path<String>| async move {
        let answer: Response = match objects.lock().unwrap().get(&path) {
            Some(body) => {
                let headers: [(HeaderName, &str); 2] = [
                    (header::ETAG, "\"1\""),
                    (header::LAST_MODIFIED, "Wed, 21 Oct 2015 07:28:00 GMT"),
                ];
                (headers, body.clone()).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        };
        answer
    };
    Router::new()
        .route("/{*path}", get(read).put(put))
        .with_state(Objects::default())
}

struct Stage {
    mds: Arc<Emulator>,
    cache: TokenCache,
    origin: String,
}

async fn stage() -> Result<Stage, BoxError> {
    let mds = Arc::new(Emulator::builder().start().await?);
    let origin = api::serve(&mds, storage()).await?;
    let cache = TokenCache::new(MetadataServer::builder().endpoint(mds.endpoint()).build()?);
    Ok(Stage { mds, cache, origin })
}

fn store(origin: &str) -> GoogleCloudStorageBuilder {
    GoogleCloudStorageBuilder::new()
        .with_bucket_name("bucket")
        .with_base_url(origin)
        .with_client_options(ClientOptions::new().with_allow_http(true))
}

async fn put_and_get(store: &GoogleCloudStorage) -> object_store::Result<()> {
    let path = "a/b".into();
    store.put(&path, "content".into()).await?;
    assert_eq!(store.get(&path).await?.bytes().await?, "content");
    Ok(())
}

#[tokio::test]
async fn tokens_as_credentials() -> Result<(), BoxError> {
    let Stage { mds, cache, origin } = stage().await?;
    let request = TokenRequest::access_token(Scopes::default());
    let credentials = Credentials {
        cache: cache.clone(),
        request: request.clone(),
    };
    let store = store(&origin)
        .with_credentials(Arc::new(credentials))
        .build()?;
    put_and_get(&store).await?;
    assert_eq!(mds.token_requests(), 1);

    // Only object_store sees a 401: requests fail until the application tells the cache.
    let token = cache.token(&request).await?;
    mds.expire_now();
    let error = put_and_get(&store).await.unwrap_err();
    assert!(
        matches!(error, object_store::Error::Unauthenticated { .. }),
        "{error:?}"
    );
    assert!(cache.invalidate(&token));
    put_and_get(&store).await?;
    Ok(())
}

#[tokio::test]
async fn the_layer_underneath() -> Result<(), BoxError> {
    let Stage { mds, cache, origin } = stage().await?;
    let auth = ScopedAuthLayer::from_cache(cache)
        .replace_authorization()
        .destinations(Destinations::only([&origin])?);
    // `with_skip_signature` does not cover writes (0.14), so there is a credential for the layer to replace.
    let placeholder = GcpCredential {
        bearer: "replaced-by-the-layer".to_owned(),
    };
    let store = store(&origin)
        .with_http_connector(Stamping(auth))
        .with_credentials(Arc::new(StaticCredentialProvider::new(placeholder)))
        .build()?;
    put_and_get(&store).await?;
    assert_eq!(mds.token_requests(), 1);

    // The layer sees the 401, so the next request has another token.
    mds.expire_now();
    assert!(put_and_get(&store).await.is_err());
    put_and_get(&store).await?;
    Ok(())
}

#[tokio::test]
async fn a_base_address_that_is_not_allowed_gets_nothing() -> Result<(), BoxError> {
    let Stage { mds, cache, origin } = stage().await?;
    let store = store(&origin)
        .with_http_connector(Stamping(ScopedAuthLayer::from_cache(cache)))
        .with_skip_signature(true)
        .build()?;
    let error = put_and_get(&store).await.unwrap_err();
    assert!(format!("{error:?}").contains("allowed are"), "{error:?}");
    assert_eq!(mds.token_requests(), 0);
    Ok(())
}
