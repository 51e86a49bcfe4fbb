//! s131: real tonic calls over HTTP/2, unary and streaming both ways, with trailers.
//!
//! The service is written by hand over tonic's own server and client, so no protoc is needed: its
//! messages are bytes, and it sends each one back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use http::{HeaderMap, header::AUTHORIZATION, uri::PathAndQuery};
use support::{Answer, Script};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{self, NamedService, StreamingService, UnaryService},
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
        server::TcpIncoming,
    },
};
use tower::{Layer, Service};
use tower_scoped_auth::{Audience, Destinations, ScopedAuth, ScopedAuthLayer};

/// Messages that are bytes.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Sends messages back; a message that says `no` ends the call as unauthenticated.
#[derive(Clone, Default)]
struct Echo {
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

fn answer(message: Bytes) -> Result<Bytes, Status> {
    if message == "no" {
        return Err(Status::unauthenticated("not you"));
    }
    Ok(message)
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(answer(request.into_inner()).map(Response::new))
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let messages = request.into_inner();
        let answers = messages.map(|message| message.and_then(answer)).boxed();
        ready(Ok(Response::new(answers)))
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.seen.lock().unwrap().push(request.headers().clone());
        let echo = self.clone();
        async move {
            let mut grpc = server::Grpc::new(Raw);
            Ok(match request.uri().path() {
                UNARY => grpc.unary(echo, request).await,
                _ => grpc.streaming(echo, request).await,
            })
        }
        .boxed()
    }
}

const UNARY: &str = "/test.Echo/Unary";
const BOTH_WAYS: &str = "/test.Echo/BothWays";

/// A server, a channel to it, and the channel's origin.
async fn serve() -> (Echo, Channel, Destinations) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let destinations = Destinations::inner_origin(&origin).unwrap();
    let endpoint = Endpoint::from_shared(origin);
    let echo = Echo::default();
    let server = Server::builder().add_service(echo.clone());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = endpoint.unwrap().connect().await.unwrap();
    (echo, channel, destinations)
}

async fn ready_client<S>(layer: &ScopedAuthLayer, channel: S) -> Grpc<ScopedAuth<S>>
where
    ScopedAuth<S>: tonic::client::GrpcService<Body> + Clone,
    <ScopedAuth<S> as tonic::client::GrpcService<Body>>::Error: std::fmt::Debug,
{
    let mut client = Grpc::new(layer.layer(channel));
    client.ready().await.unwrap();
    client
}

#[tokio::test]
async fn s131_grpc_unary_and_streams_with_trailers() {
    let (echo, channel, destinations) = serve().await;
    let source = Script::tokens(3599);
    let layer = ScopedAuthLayer::new(source.clone()).destinations(destinations);

    // The first call waits for the token; the others are warm.
    for _ in 0..2 {
        let mut client = ready_client(&layer, channel.clone()).await;
        let request = Request::new(Bytes::from("hello"));
        let path = PathAndQuery::from_static(UNARY);
        let response = client.unary(request, path, Raw).await.unwrap();
        // tonic merges a successful call's trailers into its metadata.
        assert_eq!(response.metadata().get("grpc-status").unwrap(), "0");
        assert_eq!(response.into_inner(), "hello");
    }

    let mut client = ready_client(&layer, channel.clone()).await;
    let messages = (0..100).map(|count| Bytes::from(vec![count; 1000]));
    let messages = futures_util::stream::iter(messages);
    let path = PathAndQuery::from_static(BOTH_WAYS);
    let response = client.streaming(Request::new(messages), path, Raw).await;
    let mut answers = response.unwrap().into_inner();
    for count in 0..100_u8 {
        let message = answers.message().await.unwrap().unwrap();
        assert_eq!(message, vec![count; 1000]);
    }
    assert!(answers.message().await.unwrap().is_none());
    let trailers = answers.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");

    let seen = echo.seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    for headers in seen.iter() {
        let values: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
        assert_eq!(values, ["Bearer tok-1"], "once, as lower-case metadata");
    }
    assert_eq!(source.calls(), 1);
}

/// An HTTP 200 whose trailers say 16 is not a 401: the caller sees the status, the token stays.
#[tokio::test]
async fn s131_grpc_status_16_passes_untouched() {
    let (_echo, channel, destinations) = serve().await;
    let source = Script::new(|_| Answer::token("secret", 3599));
    let layer = ScopedAuthLayer::new(source.clone()).destinations(destinations);
    for _ in 0..3 {
        let mut client = ready_client(&layer, channel.clone()).await;
        let path = PathAndQuery::from_static(UNARY);
        let request = Request::new(Bytes::from("no"));
        let status = client.unary(request, path, Raw).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.message(), "not you");

        let mut client = ready_client(&layer, channel.clone()).await;
        let messages = futures_util::stream::iter(["yes", "no"].map(Bytes::from));
        let path = PathAndQuery::from_static(BOTH_WAYS);
        let response = client.streaming(Request::new(messages), path, Raw).await;
        let mut answers = response.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "yes");
        let status = answers.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    assert_eq!(source.calls(), 1);
}

/// As docs/clients.md shows it for Cloud Run: TLS below the layer, and the channel's origin by name, which
/// is the audience as well.
#[tokio::test]
async fn s139_over_tls_with_the_inner_origin_as_audience() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.pem();
    let identity = Identity::from_pem(&certificate, made.signing_key.serialize_pem());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let echo = Echo::default();
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .unwrap()
        .add_service(echo.clone());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let trusted = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate));
    let endpoint = Endpoint::from_shared(origin.clone()).unwrap();
    let channel = endpoint.tls_config(trusted).unwrap().connect().await;
    let wanted = Audience::new(&origin).unwrap();
    let named = Script::new(move |call| match call.request.audience() {
        Some(asked) if *asked == wanted => Answer::token("named", 3599),
        _ => Answer::failure("another audience"),
    });
    let layer = ScopedAuthLayer::new(named)
        .audience(Audience::per_origin())
        .destinations(Destinations::inner_origin(&origin).unwrap());
    let mut client = ready_client(&layer, channel.unwrap()).await;
    let path = PathAndQuery::from_static(UNARY);
    let request = Request::new(Bytes::from("hello"));
    let response = client.unary(request, path, Raw).await.unwrap();
    assert_eq!(response.into_inner(), "hello");
    assert_eq!(echo.seen.lock().unwrap()[0][AUTHORIZATION], "Bearer named");
}
