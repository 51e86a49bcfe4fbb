//! Group K: what a 401 does, to whom, and what it does not do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use support::{Answer, BUCKET, Inner, Script, get, send};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_scoped_auth::{
    Destinations, RetryUnauthorized, ScopedAuth, ScopedAuthLayer, TokenCache, test_util::TestClock,
};

const OTHER: &str = "https://pubsub.googleapis.com/v1/topics";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn layer(source: &Script) -> ScopedAuthLayer {
    let cache = TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap();
    ScopedAuthLayer::from_cache(cache)
}

/// Refuses these tokens.
fn refusing(tokens: &'static [&'static str]) -> Inner {
    Inner::answering(move |seen| match seen.token() {
        Some(token) if tokens.contains(&token) => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    })
}

async fn status(client: &ScopedAuth<Inner>, uri: &str) -> u16 {
    send(client, uri).await.unwrap().status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn s149_an_early_revocation_costs_one_fetch() {
    let (source, inner) = (Script::tokens(3599), refusing(&["tok-1"]));
    let client = layer(&source).layer(inner.clone());
    sleep(secs(10)).await;
    assert_eq!(status(&client, BUCKET).await, 401, "returned as it is");
    for _ in 0..100 {
        assert_eq!(status(&client, BUCKET).await, 200);
        sleep(secs(1)).await;
    }
    assert_eq!(source.calls(), 2);
    assert!(inner.tokens()[1..].iter().all(|token| token == "tok-2"));
}

/// Answers when it is told to, with the status that the token deserves.
#[derive(Clone)]
struct Late {
    open: tokio::sync::watch::Receiver<bool>,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Service<Request<()>> for Late {
    type Response = Response<()>;
    type Error = std::convert::Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Response<()>, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let token = request.headers()[AUTHORIZATION]
            .to_str()
            .unwrap()
            .to_owned();
        self.tokens.lock().unwrap().push(token.clone());
        let mut open = self.open.clone();
        Box::pin(async move {
            open.wait_for(|open| *open).await.unwrap();
            let status = if token.ends_with("tok-1") { 401 } else { 200 };
            Ok(Response::builder().status(status).body(()).unwrap())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn s150_s151_a_storm_of_late_401s_costs_one_fetch() {
    let source = Script::tokens(3599);
    let (open, receiver) = tokio::sync::watch::channel(false);
    let inner = Late {
        open: receiver,
        tokens: Arc::default(),
    };
    let client = layer(&source).layer(inner.clone());
    let requests: Vec<_> = (0..10_000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.oneshot(get(BUCKET)).await.unwrap().status() })
        })
        .collect();
    // Wait until all of them are on their way.
    while inner.tokens.lock().unwrap().len() < 10_000 {
        sleep(Duration::from_millis(1)).await;
    }
    open.send(true).unwrap();
    let mut requests = requests.into_iter();
    // The first half comes back; tok-2 is fetched; the rest is late.
    for request in requests.by_ref().take(5_000) {
        assert_eq!(request.await.unwrap(), 401);
    }
    assert_eq!(
        client.clone().oneshot(get(BUCKET)).await.unwrap().status(),
        200
    );
    for request in requests {
        assert_eq!(request.await.unwrap(), 401);
    }
    for _ in 0..100 {
        assert_eq!(
            client.clone().oneshot(get(BUCKET)).await.unwrap().status(),
            200
        );
    }
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s149_who_was_rejected_first_is_not_forgotten_for_the_next() {
    // The first refresh is slow: meanwhile there is only the rejected token.
    let source = Script::new(|call| {
        let answer = Answer::token(format!("tok-{}", call.number), 3599);
        answer.after(secs(u64::from(call.number == 2)))
    });
    let inner = refusing(&["tok-1"]);
    let client = layer(&source).layer(inner.clone());
    sleep(secs(10)).await;
    let origins: Vec<_> = (0..6)
        .map(|n| format!("https://service-{n}.googleapis.com/"))
        .collect();
    // All on their way before the first answer.
    let first = join_all(origins.iter().map(|origin| status(&client, origin))).await;
    assert_eq!(first, [401; 6]);
    // Each waits for a better one, even those that were not the last to be answered 401.
    let again = join_all(origins.iter().map(|origin| status(&client, origin))).await;
    assert_eq!(again, [200; 6], "{:?}", inner.tokens());
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s151_a_late_401_for_a_replaced_token_changes_nothing() {
    let source = Script::tokens(3599);
    let (open, receiver) = tokio::sync::watch::channel(false);
    let late = Late {
        open: receiver,
        tokens: Arc::default(),
    };
    let cache = TokenCache::builder(source.clone())
        .clock(TestClock::new())
        .build()
        .unwrap();
    let layer = ScopedAuthLayer::from_cache(cache.clone());
    let client = layer.layer(late.clone());
    let request = tokio::spawn(client.oneshot(get(BUCKET)));
    while late.tokens.lock().unwrap().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    let wanted = tower_scoped_auth::TokenRequest::access_token(Default::default());
    let token = cache.token(&wanted).await.unwrap();
    cache.invalidate(&token);
    assert_eq!(cache.token(&wanted).await.unwrap().expose_secret(), "tok-2");
    open.send(true).unwrap();
    assert_eq!(request.await.unwrap().unwrap().status(), 401);
    let inner = Inner::new();
    let client = layer.layer(inner.clone());
    for _ in 0..100 {
        send(&client, BUCKET).await.unwrap();
        sleep(secs(1)).await;
    }
    assert!(inner.tokens().iter().all(|token| token == "tok-2"));
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn s152_a_server_that_repeats_the_revoked_token_is_not_stormed() {
    let source = Script::new(|call| {
        let left = 3599 - call.at.as_secs();
        if call.at < secs(300) {
            Answer::token("tok-1", left)
        } else {
            Answer::token("tok-2", 3599)
        }
    });
    let client = layer(&source).layer(refusing(&["tok-1"]));
    let begun = Instant::now();
    let mut statuses = HashSet::new();
    while begun.elapsed() < secs(300) {
        statuses.insert(status(&client, BUCKET).await);
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(statuses, HashSet::from([401]), "passed on");
    let minute = |n: u64| {
        source
            .times()
            .iter()
            .filter(|at| (secs(60 * n)..secs(60 * (n + 1))).contains(*at))
            .count()
    };
    // The first minute includes the very first fetch.
    assert!(
        minute(0) <= 13 && (1..5).all(|n| minute(n) <= 12),
        "{:?}",
        (0..5).map(minute).collect::<Vec<_>>()
    );
    while status(&client, BUCKET).await == 401 {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() <= secs(311), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s153_one_retry_with_another_token() {
    let (source, inner) = (Script::tokens(3599), refusing(&["tok-1"]));
    let client = ServiceBuilder::new()
        .retry(RetryUnauthorized::new())
        .layer(layer(&source))
        .service(inner.clone());
    let response = client.clone().oneshot(get(BUCKET)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(inner.tokens(), ["tok-1", "tok-2"]);

    // A second 401 is passed on.
    let (source, inner) = (Script::tokens(3599), refusing(&["tok-1", "tok-2", "tok-3"]));
    let client = ServiceBuilder::new()
        .retry(RetryUnauthorized::new())
        .layer(layer(&source))
        .service(inner.clone());
    assert_eq!(
        client.clone().oneshot(get(BUCKET)).await.unwrap().status(),
        401
    );
    assert_eq!(inner.calls(), 2);
    assert_eq!(inner.tokens(), ["tok-1", "tok-2"]);
}

#[tokio::test]
async fn s153_a_request_of_reqwest_that_cannot_be_cloned_is_sent_once() {
    use tower::retry::Policy;
    let mut policy = RetryUnauthorized::new();
    let url: reqwest::Url = "https://storage.googleapis.com/".parse().unwrap();
    let mut request = reqwest::Request::new(reqwest::Method::POST, url);
    *request.body_mut() = Some("replayable".into());
    type Answered = std::convert::Infallible;
    let cloned = Policy::<_, reqwest::Response, Answered>::clone_request(&mut policy, &request);
    assert!(cloned.is_some());
    // A body that can be sent only once.
    let body = http_body_util::Full::new(bytes::Bytes::from("once"));
    *request.body_mut() = Some(reqwest::Body::wrap(body));
    let cloned = Policy::<_, reqwest::Response, Answered>::clone_request(&mut policy, &request);
    assert!(cloned.is_none());
}

#[tokio::test(start_paused = true)]
async fn s153_a_body_that_can_be_sent_once_is_sent_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let inner = tower::service_fn(move |request: reqwest::Request| {
        counter.fetch_add(1, Ordering::SeqCst);
        let status = match request.headers()[AUTHORIZATION].to_str().unwrap() {
            "Bearer tok-1" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::OK,
        };
        let response = Response::builder()
            .status(status)
            .body(reqwest::Body::from(""));
        async move { Ok::<_, std::convert::Infallible>(reqwest::Response::from(response.unwrap())) }
    });
    let url: reqwest::Url = BUCKET.parse().unwrap();
    let once = http_body_util::Full::new(bytes::Bytes::from("once"));
    for (body, sent, answered) in [
        (reqwest::Body::wrap(once), 1, StatusCode::UNAUTHORIZED),
        (reqwest::Body::from("replayable"), 2, StatusCode::OK),
    ] {
        let client = ServiceBuilder::new()
            .retry(RetryUnauthorized::new())
            .layer(layer(&Script::tokens(3599)))
            .service(inner.clone());
        let mut request = reqwest::Request::new(reqwest::Method::POST, url.clone());
        *request.body_mut() = Some(body);
        let response = client.oneshot(request).await.unwrap();
        assert_eq!(response.status(), answered);
        assert_eq!(calls.swap(0, Ordering::SeqCst), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn s153_only_what_this_crate_stamped_is_retried() {
    let (source, inner) = (
        Script::tokens(3599),
        Inner::answering(|_| StatusCode::UNAUTHORIZED),
    );
    let client = ServiceBuilder::new()
        .retry(RetryUnauthorized::new())
        .layer(layer(&source).destinations(Destinations::google_apis().pass_others()))
        .service(inner.clone());
    let mut own = get(BUCKET);
    own.headers_mut()
        .insert(AUTHORIZATION, "Bearer own".parse().unwrap());
    assert_eq!(client.clone().oneshot(own).await.unwrap().status(), 401);
    assert_eq!(
        client
            .clone()
            .oneshot(get("https://other.example/"))
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!((inner.calls(), source.calls()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn s157_a_401_is_no_matter_of_a_layer_whose_token_was_replaced_below() {
    let (outer, inner) = (Script::tokens(3599), Script::tokens(3599));
    let client = ServiceBuilder::new()
        .layer(layer(&outer))
        .layer(layer(&inner).replace_authorization())
        .service(Inner::answering(|_| StatusCode::UNAUTHORIZED));
    for _ in 0..2 {
        client.clone().oneshot(get(BUCKET)).await.unwrap();
        sleep(secs(5)).await;
    }
    assert_eq!((outer.calls(), inner.calls()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn s154_a_backend_that_always_says_401() {
    let source = Script::tokens(3599);
    let inner = Inner::answering(|seen| match seen.uri.host() {
        Some("storage.googleapis.com") => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    let client = layer(&source).layer(inner);
    let begun = Instant::now();
    let slowest = Arc::new(AtomicUsize::new(0));
    let others = {
        let (client, slowest) = (client.clone(), Arc::clone(&slowest));
        tokio::spawn(async move {
            // Once there is a token, the others never wait.
            send(&client, OTHER).await.unwrap();
            while begun.elapsed() < secs(60) {
                let asked = Instant::now();
                assert_eq!(status(&client, OTHER).await, 200);
                slowest.fetch_max(asked.elapsed().as_millis() as usize, Ordering::SeqCst);
                sleep(Duration::from_millis(5)).await;
            }
        })
    };
    while begun.elapsed() < secs(60) {
        assert_eq!(status(&client, BUCKET).await, 401);
        sleep(Duration::from_millis(1)).await;
    }
    others.await.unwrap();
    assert!(source.calls() <= 13, "{}", source.calls());
    assert_eq!(slowest.load(Ordering::SeqCst), 0);
}

/// Spellings of one origin reject each token. While another is fetched, which takes 2 s, requests to
/// another origin go on with the one at hand.
#[tokio::test(start_paused = true)]
async fn s154_spellings_of_one_origin_count_as_one_that_rejected_the_token() {
    const SPELLINGS: [&str; 6] = [
        "https://storage.googleapis.com/",
        "https://STORAGE.googleapis.com/",
        "https://storage.GoogleAPIs.com/",
        "https://storage.googleapis.com:443/",
        "https://Storage.googleapis.com:443/",
        // Only `danger_trust_inner` lets this one have a token.
        "https://storage.googleapis.com./",
    ];
    for (destinations, spellings) in [
        (Destinations::google_apis(), &SPELLINGS[..5]),
        (Destinations::danger_trust_inner(), &SPELLINGS[..]),
    ] {
        let source =
            Script::new(|call| Answer::token(format!("tok-{}", call.number), 3599).after(secs(2)));
        let inner = Inner::answering(|seen| match seen.uri.host() {
            Some("pubsub.googleapis.com") => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        });
        let client = layer(&source).destinations(destinations).layer(inner);
        assert_eq!(status(&client, OTHER).await, 200);
        let begun = Instant::now();
        let others = {
            let client = client.clone();
            tokio::spawn(async move {
                while begun.elapsed() < secs(10) {
                    let asked = Instant::now();
                    assert_eq!(status(&client, OTHER).await, 200);
                    assert_eq!(asked.elapsed(), Duration::ZERO, "{:?}", begun.elapsed());
                    sleep(Duration::from_millis(5)).await;
                }
            })
        };
        let rejected: Vec<_> = spellings
            .iter()
            .map(|spelling| {
                let client = client.clone();
                tokio::spawn(async move {
                    while begun.elapsed() < secs(10) {
                        assert_eq!(status(&client, spelling).await, 401);
                        sleep(Duration::from_millis(5)).await;
                    }
                })
            })
            .collect();
        others.await.unwrap();
        for task in rejected {
            task.await.unwrap();
        }
        assert!(source.calls() > 2, "{} fetches to wait for", source.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn s155_a_401_while_the_source_is_down_takes_nothing_from_the_others() {
    let source = Script::new(|call| match call.number {
        1 => Answer::token("tok-1", 3599),
        _ => Answer::failure("down"),
    });
    let inner = Inner::answering(|seen| match seen.uri.host() {
        Some("storage.googleapis.com") => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    let client = layer(&source).layer(inner.clone());
    let begun = Instant::now();
    assert_eq!(status(&client, BUCKET).await, 401);
    while begun.elapsed() < secs(3598) {
        assert_eq!(status(&client, OTHER).await, 200);
        sleep(secs(1)).await;
    }
    assert!(inner.tokens().iter().all(|token| token == "tok-1"));
    sleep_until(begun + secs(3600)).await;
    assert!(send(&client, OTHER).await.is_err(), "until it expires");
}

#[tokio::test(start_paused = true)]
async fn s156_403_and_407_change_nothing() {
    for refusal in [
        StatusCode::FORBIDDEN,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
    ] {
        let (source, inner) = (Script::tokens(3599), Inner::answering(move |_| refusal));
        let client = layer(&source).layer(inner.clone());
        for _ in 0..100 {
            assert_eq!(status(&client, BUCKET).await, refusal.as_u16());
            sleep(secs(1)).await;
        }
        assert_eq!(source.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn s157_a_401_to_what_we_did_not_stamp_changes_nothing() {
    let unauthorized = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&unauthorized);
    let inner = Inner::answering(move |_| match flag.load(Ordering::SeqCst) {
        true => StatusCode::UNAUTHORIZED,
        false => StatusCode::OK,
    });
    let source = Script::tokens(3599);
    let layer = layer(&source).destinations(Destinations::google_apis().pass_others());
    let client = layer.layer(inner.clone());
    assert_eq!(status(&client, BUCKET).await, 200);
    unauthorized.store(true, Ordering::SeqCst);
    let mut own = get(BUCKET);
    own.headers_mut()
        .insert(AUTHORIZATION, "Bearer own".parse().unwrap());
    client.clone().oneshot(own).await.unwrap();
    assert_eq!(status(&client, "https://other.example/").await, 401);
    unauthorized.store(false, Ordering::SeqCst);
    sleep(secs(60)).await;
    for _ in 0..10 {
        assert_eq!(status(&client, BUCKET).await, 200);
    }
    assert_eq!(source.calls(), 1);
}
