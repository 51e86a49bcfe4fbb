//! kube: the layer in its client's stack, against a small API server. For clusters that accept Google's
//! tokens, as GKE's do.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{TryStreamExt, stream};
use hyper_util::{client::legacy::Client as Hyper, rt::TokioExecutor};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
    client::{Body as KubeBody, ClientBuilder, ConfigExt},
};
use serde_json::{Value, json};
use tower::{BoxError, ServiceBuilder, buffer::BufferLayer};
use tower_scoped_auth::{Destinations, MetadataServer, ScopedAuthLayer, emulator::Emulator};
use tower_scoped_auth_integrations::api;

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "resourceVersion": "1" },
    })
}

/// Serves list, get and watch, as far as this test needs them.
fn cluster() -> Router {
    let pods = |Query(query): Query<Vec<(String, String)>>| async move {
        if query
            .iter()
            .any(|(key, value)| key == "watch" && value == "true")
        {
            let events = ["a", "b"].map(|name| {
                let event = json!({ "type": "ADDED", "object": pod(name) });
                Ok::<_, BoxError>(format!("{event}\n"))
            });
            return Body::from_stream(stream::iter(events)).into_response();
        }
        let list = json!({
            "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": "1" },
            "items": [pod("a"), pod("b")],
        });
        Json(list).into_response()
    };
    let one = |Path(name): Path<String>| async move {
        if name == "a" {
            return Json(pod("a")).into_response();
        }
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound",
            "message": "no such pod", "code": 404, "metadata": {},
        });
        let answer: Response = (StatusCode::NOT_FOUND, Json(status)).into_response();
        answer
    };
    Router::new()
        .route("/api/v1/namespaces/default/pods", get(pods))
        .route("/api/v1/namespaces/default/pods/{name}", get(one))
}

struct Stage {
    mds: Arc<Emulator>,
    config: Config,
    origin: String,
    auth: ScopedAuthLayer,
}

async fn stage() -> Result<Stage, BoxError> {
    let mds = Arc::new(Emulator::builder().start().await?);
    let origin = api::serve(&mds, cluster()).await?;
    let source = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
    Ok(Stage {
        mds,
        config: Config::new(origin.parse()?),
        origin,
        auth: ScopedAuthLayer::new(source),
    })
}

/// List, get, watch, an error from the API, and a token that was refused.
async fn use_it(client: Client, mds: &Emulator) -> Result<(), BoxError> {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let names: Vec<_> = pods
        .list(&ListParams::default())
        .await?
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(pods.get("a").await?.name_any(), "a");
    let kube::Error::Api(missing) = pods.get("c").await.unwrap_err() else {
        panic!("the API's own error");
    };
    assert_eq!(missing.code, 404);

    let watch = pods.watch(&WatchParams::default(), "0").await?;
    let events: Vec<_> = watch.try_collect().await?;
    assert!(matches!(
        &events[..],
        [WatchEvent::Added(_), WatchEvent::Added(_)]
    ));
    assert_eq!(mds.token_requests(), 1);

    // kube's body cannot be cloned, so nothing retries the request: the next one has a new token.
    mds.expire_now();
    assert!(pods.get("a").await.is_err());
    assert_eq!(pods.get("a").await?.name_any(), "a");
    Ok(())
}

#[tokio::test]
async fn in_a_stack_of_ones_own_below_the_cluster_address() -> Result<(), BoxError> {
    let Stage {
        mds,
        config,
        origin,
        auth,
    } = stage().await?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        // Inside `base_uri_layer`, requests have the cluster's host, so the destination can be checked.
        .layer(auth.destinations(Destinations::only([origin])?))
        .service(Hyper::builder(TokioExecutor::new()).build_http::<KubeBody>());
    use_it(Client::new(service, config.default_namespace), &mds).await
}

#[tokio::test]
async fn on_top_of_the_default_stack_through_a_buffer() -> Result<(), BoxError> {
    let Stage {
        mds,
        config,
        origin,
        auth,
    } = stage().await?;
    // The default stack cannot be cloned, hence the buffer. It adds the cluster's host further in.
    let client = ClientBuilder::try_from(config)?
        .with_layer(&BufferLayer::new(1024))
        .with_layer(&auth.destinations(Destinations::inner_origin(origin)?))
        .build();
    use_it(client, &mds).await
}

#[tokio::test]
async fn a_cluster_that_is_not_allowed_gets_nothing() -> Result<(), BoxError> {
    let Stage {
        mds, config, auth, ..
    } = stage().await?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(auth)
        .service(Hyper::builder(TokioExecutor::new()).build_http::<KubeBody>());
    let pods: Api<Pod> = Api::default_namespaced(Client::new(service, "default"));
    let error = pods.get("a").await.unwrap_err();
    assert!(format!("{error:?}").contains("allowed are"), "{error:?}");
    assert_eq!(mds.token_requests(), 0);
    Ok(())
}
