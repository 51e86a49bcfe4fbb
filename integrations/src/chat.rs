//! A gRPC service with a method of each call type, and its server, which requires a valid token.

use std::{io, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    service::InterceptorLayer,
    transport::{Server, server::TcpIncoming},
};
use tower_scoped_auth::emulator::Emulator;

mod generated {
    include!(concat!(env!("OUT_DIR"), "/integrations.Chat.rs"));
}

pub use generated::chat_client::ChatClient;
use generated::chat_server::{Chat, ChatServer};

#[derive(Clone, PartialEq, prost::Message)]
pub struct Line {
    #[prost(string, tag = "1")]
    pub text: String,
}

impl Line {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

struct Echo;

type Lines = Pin<Box<dyn Stream<Item = Result<Line, Status>> + Send>>;

#[tonic::async_trait]
impl Chat for Echo {
    async fn say(&self, request: Request<Line>) -> Result<Response<Line>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    type ListenStream = Lines;

    /// Each word as a line of its own.
    async fn listen(&self, request: Request<Line>) -> Result<Response<Lines>, Status> {
        let text = request.into_inner().text;
        let words: Vec<_> = text.split(' ').map(|word| Ok(Line::new(word))).collect();
        Ok(Response::new(Box::pin(stream::iter(words))))
    }

    /// All lines joined into one.
    async fn dictate(&self, request: Request<Streaming<Line>>) -> Result<Response<Line>, Status> {
        let mut lines = request.into_inner();
        let mut text = String::new();
        while let Some(line) = lines.message().await? {
            text.push_str(&line.text);
        }
        Ok(Response::new(Line { text }))
    }

    type TalkStream = Lines;

    /// Each line is answered as it comes.
    async fn talk(&self, request: Request<Streaming<Line>>) -> Result<Response<Lines>, Status> {
        let answers = request
            .into_inner()
            .map(|line| line.map(|line| Line::new(line.text.to_uppercase())));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Serves until the runtime ends; returns the origin. A call without a valid token gets status 16.
pub async fn serve(mds: &Arc<Emulator>) -> io::Result<String> {
    let mds = Arc::clone(mds);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let check = move |request: Request<()>| {
        let value = request.metadata().get("authorization");
        let token = value
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        match token {
            Some(token) if mds.is_valid(token) => Ok(request),
            _ => Err(Status::unauthenticated("a valid token, please")),
        }
    };
    let server = Server::builder()
        .layer(InterceptorLayer::new(check))
        .add_service(ChatServer::new(Echo))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    Ok(origin)
}
