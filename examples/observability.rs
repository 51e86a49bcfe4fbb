//! Logs, metrics and a health check on one server:
//! `cargo run --features metrics --example observability`.
//!
//! An axum server whose `/` calls an API through a stamped client, with `/metrics` for Prometheus and
//! `/healthz` for whatever restarts it. The example is its own visitor: it sends requests while all is
//! well, during an outage of the metadata server, and after the recovery, and prints what each of the
//! three shows. Nothing outside this machine is contacted.

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_scoped_auth::{
    AuthError, Destinations, MetadataServer, ScopedAuth, ScopedAuthLayer, Scopes, TokenCache,
    TokenRequest,
    emulator::{Emulator, Fault},
};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

#[derive(Clone)]
struct App {
    client: ScopedAuth<reqwest::Client>,
    api: reqwest::Url,
    cache: TokenCache,
    wanted: TokenRequest,
    metrics: PrometheusHandle,
}

/// The service itself: one request to the API for each that it receives.
async fn work(State(app): State<App>) -> (StatusCode, String) {
    let request = reqwest::Request::new(reqwest::Method::GET, app.api);
    match app.client.oneshot(request).await {
        Ok(response) => (
            StatusCode::OK,
            format!("the API said {}\n", response.status()),
        ),
        Err(error) => match error.downcast_ref::<AuthError>() {
            Some(auth) => (StatusCode::SERVICE_UNAVAILABLE, format!("{auth}\n")),
            None => (StatusCode::BAD_GATEWAY, format!("{error}\n")),
        },
    }
}

/// Ready while requests can be served, or while nothing has gone wrong yet.
async fn health(State(app): State<App>) -> impl IntoResponse {
    let status = app.cache.status(&app.wanted);
    let ready = status.is_live() || status.last_error().is_none();
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let json = serde_json::to_string(&status).unwrap_or_default();
    (code, [(CONTENT_TYPE, "application/json")], json)
}

async fn metrics(State(app): State<App>) -> String {
    // Updates the gauges of this token.
    app.cache.status(&app.wanted);
    app.metrics.run_upkeep();
    app.metrics.render()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_writer(std::io::stdout);
    let ours = Targets::new().with_target("tower_scoped_auth", tracing::Level::DEBUG);
    tracing_subscriber::registry()
        .with(lines.with_filter(ours))
        .init();

    // The recorder comes first, because building a cache prepares its handles.
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;

    // Tokens live for 4 s, so that requests notice an outage of 4 s.
    let mds = Emulator::builder()
        .token_lifetime(Duration::from_secs(4))
        .start()
        .await?;
    let mds = Arc::new(mds);
    let api = common::serve(Arc::clone(&mds)).await?;
    let source = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
    // Somebody is looking at the page: it may wait for a token for half a second at most.
    let cache = TokenCache::builder(source)
        .max_wait(Duration::from_millis(500))
        .build()?;
    let auth = ScopedAuthLayer::from_cache(cache.clone())
        .destinations(Destinations::only([format!("http://{api}")])?);
    let app = App {
        client: ServiceBuilder::new()
            .layer(auth)
            .service(reqwest::Client::new()),
        api: format!("http://{api}/objects").parse()?,
        cache,
        wanted: TokenRequest::access_token(Scopes::default()),
        metrics: handle,
    };
    let server = serve(app).await?;
    let visitor = Visitor(server);

    visitor.look("before the first request").await?;
    visitor.work_for(Duration::from_secs(1)).await?;
    visitor.look("in good times").await?;

    mds.fault(Fault::status(503).forever());
    visitor.work_for(Duration::from_secs(5)).await?;
    visitor
        .look("in an outage longer than a token's life")
        .await?;

    mds.heal();
    while visitor.get("/healthz").await?.0 != reqwest::StatusCode::OK {
        visitor.work_for(Duration::from_millis(500)).await?;
    }
    visitor.work_for(Duration::from_secs(1)).await?;
    visitor.look("after it").await?;
    Ok(())
}

async fn serve(app: App) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let router = Router::new()
        .route("/", get(work))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .with_state(app);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(addr)
}

struct Visitor(SocketAddr);

impl Visitor {
    async fn get(&self, path: &str) -> Result<(reqwest::StatusCode, String), BoxError> {
        let response = reqwest::get(format!("http://{}{path}", self.0)).await?;
        Ok((response.status(), response.text().await?))
    }

    /// Sends ten requests a second, and prints how they ended.
    async fn work_for(&self, duration: Duration) -> Result<(), BoxError> {
        let begun = Instant::now();
        let (mut served, mut failed) = (0, 0);
        while begun.elapsed() < duration {
            match self.get("/").await?.0 {
                reqwest::StatusCode::OK => served += 1,
                _ => failed += 1,
            }
            sleep(Duration::from_millis(100)).await;
        }
        println!("requests: {served} served, {failed} failed");
        Ok(())
    }

    async fn look(&self, when: &str) -> Result<(), BoxError> {
        println!("\n--- {when}");
        let (code, json) = self.get("/healthz").await?;
        println!("GET /healthz: {code}\n{json}");
        println!("GET /metrics, what is not 0:");
        let (_code, text) = self.get("/metrics").await?;
        let of_ours = |line: &&str| line.starts_with("scoped_auth_") && !line.ends_with(" 0");
        let mut lines: Vec<_> = text.lines().filter(of_ours).collect();
        lines.sort_unstable();
        // Only the count and the sum of the histogram.
        lines.retain(|line| !line.contains("quantile="));
        println!("{}\n", lines.join("\n"));
        Ok(())
    }
}
