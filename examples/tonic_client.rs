//! A tonic channel whose calls carry a token: `cargo run --example tonic_client`.
//!
//! A request has neither scheme nor host at this level: the channel adds its origin further in. So the
//! layer is told to trust the inner service. The gRPC service is tonic-health's, so no protoc is needed.

use std::sync::Arc;

use tokio::{net::TcpListener, sync::oneshot};
use tonic::{
    Request, Status,
    service::InterceptorLayer,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use tower::{BoxError, ServiceBuilder};
use tower_scoped_auth::{
    Destinations, MetadataServer, ScopedAuth, ScopedAuthLayer, emulator::Emulator,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mds = Arc::new(Emulator::builder().start().await?);
    let (endpoint, _stop) = serve(Arc::clone(&mds)).await?;

    let destinations = Destinations::inner_origin(endpoint.uri().to_string())?;
    let channel = endpoint.connect().await?;
    let source = MetadataServer::builder().endpoint(mds.endpoint()).build()?;
    let auth = ScopedAuthLayer::new(source).destinations(destinations);
    let channel: ScopedAuth<Channel> = ServiceBuilder::new().layer(auth).service(channel);

    let mut health = HealthClient::new(channel);
    for _ in 0..3 {
        let response = health
            .check(HealthCheckRequest {
                service: String::new(),
            })
            .await?;
        println!("{:?}", response.into_inner().status());
    }
    println!("token requests: {}", mds.token_requests());
    assert_eq!(mds.token_requests(), 1);
    Ok(())
}

/// A gRPC server that requires a valid token with every call.
async fn serve(mds: Arc<Emulator>) -> Result<(Endpoint, oneshot::Sender<()>), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr()?))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", ServingStatus::Serving)
        .await;
    let check = move |request: Request<()>| {
        let value = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        match value.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) if mds.is_valid(token) => Ok(request),
            _ => Err(Status::unauthenticated("a valid token, please")),
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .layer(InterceptorLayer::new(check))
        .add_service(health);
    let serving = server.serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
        let _ = stopped.await;
    });
    tokio::spawn(serving);
    Ok((endpoint, stop))
}
