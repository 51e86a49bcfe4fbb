//! tonic: all four call types through the layer, over a real channel.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};
use tower::{BoxError, ServiceBuilder};
use tower_scoped_auth::{
    Destinations, MetadataServer, ScopedAuth, ScopedAuthLayer, Scopes, TokenCache, TokenRequest,
    emulator::{Emulator, Fault},
};
use tower_scoped_auth_integrations::chat::{self, ChatClient, Line};

struct Stage {
    mds: Arc<Emulator>,
    cache: TokenCache,
    client: ChatClient<ScopedAuth<Channel>>,
}

async fn stage() -> Result<Stage, BoxError> {
    let mds = Arc::new(Emulator::builder().start().await?);
    let origin = chat::serve(&mds).await?;
    let destinations = Destinations::inner_origin(&origin)?;
    let channel = Channel::from_shared(origin)?.connect().await?;
    let cache = TokenCache::new(MetadataServer::builder().endpoint(mds.endpoint()).build()?);
    let auth = ScopedAuthLayer::from_cache(cache.clone()).destinations(destinations);
    let client = ChatClient::new(ServiceBuilder::new().layer(auth).service(channel));
    Ok(Stage { mds, cache, client })
}

#[tokio::test]
async fn every_shape_of_call_carries_the_token() -> Result<(), BoxError> {
    let Stage {
        mds, mut client, ..
    } = stage().await?;

    let said = client.say(Line::new("hello")).await?.into_inner();
    assert_eq!(said.text, "hello");

    let mut words = client
        .listen(Line::new("one two three"))
        .await?
        .into_inner();
    let mut heard = Vec::new();
    while let Some(word) = words.message().await? {
        heard.push(word.text);
    }
    assert_eq!(heard, ["one", "two", "three"]);

    let letters = tokio_stream::iter(["a", "b", "c"].map(Line::new));
    assert_eq!(client.dictate(letters).await?.into_inner().text, "abc");

    // One at a time: the second line is sent when the first has been answered, so nothing on the way
    // waits for the end of the stream.
    let (lines, answers) = mpsc::channel(1);
    let mut talk = client
        .talk(ReceiverStream::new(answers))
        .await?
        .into_inner();
    for (line, answer) in [("x", "X"), ("y", "Y")] {
        lines.send(Line::new(line)).await?;
        assert_eq!(talk.message().await?, Some(Line::new(answer)));
    }
    drop(lines);
    assert_eq!(talk.message().await?, None);

    assert_eq!(mds.token_requests(), 1);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_waits_for_its_token_loses_nothing() -> Result<(), BoxError> {
    let Stage {
        mds, mut client, ..
    } = stage().await?;
    // The first attempt fails; the call keeps its stream, and waits for the second.
    mds.fault(Fault::status(503));

    let (lines, stream) = mpsc::channel(8);
    for line in ["said ", "before ", "the ", "token"] {
        lines.send(Line::new(line)).await?;
    }
    drop(lines);
    let text = client.dictate(ReceiverStream::new(stream)).await?;
    assert_eq!(text.into_inner().text, "said before the token");
    assert_eq!(mds.token_requests(), 2);
    Ok(())
}

#[tokio::test]
async fn an_open_stream_outlives_its_token_and_status_16_is_the_callers() -> Result<(), BoxError> {
    let Stage {
        mds,
        cache,
        mut client,
    } = stage().await?;
    let (lines, stream) = mpsc::channel(1);
    let mut talk = client.talk(ReceiverStream::new(stream)).await?.into_inner();
    let request = TokenRequest::access_token(Scopes::default());
    let token = cache.token(&request).await?;

    mds.expire_now();
    lines.send(Line::new("still here")).await?;
    assert_eq!(talk.message().await?, Some(Line::new("STILL HERE")));

    // A gRPC status is not a 401: the layer does not see it. Whoever does must tell the cache.
    for _ in 0..2 {
        let status = client.say(Line::new("hello")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    assert!(cache.invalidate(&token));
    let said =
        tokio::time::timeout(Duration::from_secs(5), client.say(Line::new("hello"))).await??;
    assert_eq!(said.into_inner().text, "hello");
    Ok(())
}
