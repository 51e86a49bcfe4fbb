//! The emulator with real tokens behind it: whose they are, how long they live, who may get them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    io::{self, ErrorKind},
    sync::{Arc, Mutex},
    time::Duration,
};

use support::crypto_provider;
use tower_scoped_auth::{
    MetadataServer, Scopes, Token, TokenCache, TokenRequest, TokenSource,
    emulator::{Emulator, EmulatorBuilder},
    source,
};

fn tokens() -> TokenCache {
    TokenCache::new(source::from_fn(|request: TokenRequest| async move {
        let name = match (request.scopes(), request.audience()) {
            (Some(scopes), _) => scopes.iter().collect::<Vec<_>>().join("+"),
            (_, audience) => format!("id-for-{}", audience.unwrap().as_str().unwrap()),
        };
        Ok::<_, io::Error>(Token::new(format!("real-{name}"), Duration::from_secs(100)))
    }))
}

async fn get(mds: &Emulator, path: &str) -> (u16, String) {
    crypto_provider();
    let request = reqwest::Client::new().get(mds.url(path));
    let response = request
        .header("Metadata-Flavor", "Google")
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

const ACCOUNT: &str = "/computeMetadata/v1/instance/service-accounts/default";

#[tokio::test]
async fn the_cache_s_tokens_with_what_is_left_of_them() {
    let mds = Emulator::builder()
        .tokens_from(tokens())
        .start()
        .await
        .unwrap();
    let source = MetadataServer::builder()
        .endpoint(mds.endpoint())
        .build()
        .unwrap();
    let scopes = Scopes::new(["a", "b"]).unwrap();
    let token = source
        .fetch(TokenRequest::access_token(scopes))
        .await
        .unwrap();
    assert_eq!(token.expose_secret(), "real-a+b");
    // Whole seconds, rounded down.
    let left = token.lifetime().unwrap().as_secs();
    assert!((90..=100).contains(&left), "{left}");
    assert_eq!(mds.token_requests(), 1);
    assert_eq!(mds.generation_of("real-a+b"), None);

    let identity = format!("{ACCOUNT}/identity?audience=https://x.example");
    assert_eq!(
        get(&mds, &identity).await,
        (200, "real-id-for-https://x.example".to_owned())
    );
}

#[tokio::test]
async fn no_token_is_a_503_that_says_why_and_nonsense_a_400() {
    let cache = TokenCache::builder(source::from_fn(|_: TokenRequest| async {
        Err::<Token, _>(io::Error::other("the account is locked"))
    }));
    let cache = cache.max_wait(Duration::from_millis(300)).build().unwrap();
    let mds = Emulator::builder()
        .tokens_from(cache)
        .start()
        .await
        .unwrap();
    let mut body = String::new();
    // The first response may come before the first failure.
    for _ in 0..50 {
        let (status, said) = get(&mds, &format!("{ACCOUNT}/token")).await;
        assert_eq!(status, 503);
        body = said;
        if body.contains("locked") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(body.contains("the account is locked"), "{body}");
    assert_eq!(body.lines().count(), 1);

    for path in ["token?scopes=a%20b", "identity?audience=", "identity"] {
        assert_eq!(
            get(&mds, &format!("{ACCOUNT}/{path}")).await.0,
            400,
            "{path}"
        );
    }
    assert_eq!(
        get(&mds, "/computeMetadata/v1/project/project-id").await.0,
        200
    );
}

#[tokio::test]
async fn s176_the_rules_hold_for_real_tokens() {
    let mds = Emulator::builder()
        .tokens_from(tokens())
        .start()
        .await
        .unwrap();
    crypto_provider();
    let client = reqwest::Client::new();
    let url = mds.url(&format!("{ACCOUNT}/token"));
    let bare = client.get(&url).send().await.unwrap();
    assert_eq!(bare.status(), 403);
    let forwarded = client.get(&url).header("Metadata-Flavor", "Google");
    let forwarded = forwarded
        .header("X-Forwarded-For", "10.0.0.1")
        .send()
        .await
        .unwrap();
    assert_eq!(forwarded.status(), 403);
    let rebound = client.get(&url).header("Metadata-Flavor", "Google");
    let rebound = rebound.header("Host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), 403);
    let posted = client
        .post(&url)
        .header("Metadata-Flavor", "Google")
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 405);
}

#[test]
fn s176_real_tokens_stay_on_loopback_unless_somebody_says_so() {
    let everywhere = || Emulator::builder().bind("0.0.0.0:0".parse().unwrap());
    assert!(
        everywhere().start_blocking().is_ok(),
        "made-up tokens open nothing"
    );
    let refused = everywhere()
        .tokens_from(tokens())
        .start_blocking()
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("loopback"), "{refused}");

    let said = |builder: EmulatorBuilder| builder.danger_serve_real_tokens_to_the_network();
    assert!(
        said(everywhere().tokens_from(tokens()))
            .start_blocking()
            .is_ok()
    );
    let idle = said(Emulator::builder()).start_blocking().unwrap_err();
    assert_eq!(idle.kind(), ErrorKind::InvalidInput);
    assert!(idle.to_string().contains("tokens_from"), "{idle}");
}

#[tokio::test]
async fn each_answer_is_told_of() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&told);
    let builder = Emulator::builder().on_answer(move |request, status| {
        let line = format!("{} {} {status}", request.method(), request.uri());
        note.lock().unwrap().push(line);
    });
    let mds = builder.start().await.unwrap();
    get(&mds, "/").await;
    get(&mds, "/nowhere?x=1").await;
    let told = told.lock().unwrap();
    assert_eq!(told.as_slice(), ["GET / 200", "GET /nowhere?x=1 404"]);
}
