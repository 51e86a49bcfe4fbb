//! What can be seen from outside: the events' names and fields, and a status as JSON, exactly as in
//! docs/observability.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use serde_json::json;
use support::{Answer, BUCKET, EventTap, Inner, Script, get, send};
use tokio::{net::TcpSocket, runtime, time::sleep};
use tower::{Layer, ServiceExt};
use tower_scoped_auth::{
    MetadataServer, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, TokenSource,
    emulator::Emulator, source, test_util::TestClock,
};
use tracing::Level;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cache(source: impl TokenSource) -> TokenCache {
    let clock = TestClock::new();
    TokenCache::builder(source).clock(clock).build().unwrap()
}

fn access() -> TokenRequest {
    TokenRequest::access_token(Scopes::default())
}

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/observability.md");
    fs::read_to_string(path).unwrap()
}

/// The documentation's table of events: level and fields by name.
fn documented() -> BTreeMap<String, (String, Vec<String>)> {
    let text = page();
    let levels = ["DEBUG", "WARN", "ERROR"];
    let mut events = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        if levels.contains(&cells[2]) {
            let fields = cells[3].split(',');
            let fields = fields.map(|field| field.trim().trim_matches('`').to_owned());
            events.insert(name, (cells[2].to_owned(), fields.collect()));
        }
    }
    events
}

/// Makes every event happen: a success, the same token again, an extension, failures with and without
/// a token, a panic, a dropped runtime, no runtime at all.
fn provoke_everything() {
    let paused = || {
        let mut builder = runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    paused().block_on(async {
        let source = Script::new(|call| match call.number {
            1 => Answer::token("tok-secret-1", 600),
            2 => Answer::token("tok-secret-1", 100),
            3 => Answer::token("tok-secret-1", 900),
            number if number % 20 == 0 => Answer::failure("panic"),
            _ => Answer::failure("it is out"),
        });
        let source = source::from_fn(move |request| {
            let source = source.clone();
            async move {
                let result = source.fetch(request).await;
                assert!(
                    !matches!(&result, Err(e) if e.to_string() == "panic"),
                    "by request"
                );
                result
            }
        });
        let client = ScopedAuthLayer::from_cache(cache(source)).layer(Inner::new());
        for _ in 0..2000 {
            let _ = client.clone().oneshot(get(BUCKET)).await;
            sleep(secs(1)).await;
        }
    });
    // This needs a socket, so it runs in real time.
    let machine = Emulator::builder().honour_scopes(false);
    let machine = machine.start_blocking().unwrap();
    let source = MetadataServer::builder().endpoint(machine.endpoint());
    let ignoring = TokenCache::new(source.build().unwrap());
    let mut real = runtime::Builder::new_current_thread();
    real.enable_all().build().unwrap().block_on(async {
        let scopes = Scopes::new(["a"]).unwrap();
        let asked = TokenRequest::access_token(scopes);
        ignoring.token(&asked).await.unwrap();
    });
    let hanging = cache(Script::new(|_| Answer::hang()));
    paused().block_on(async {
        let asked = access();
        let impatient = tokio::time::timeout(secs(1), hanging.token(&asked));
        impatient.await.unwrap_err();
    });
    // There is no runtime here.
    let kept = hanging.keep_fresh(&access()).now_or_never();
    assert_eq!(kept, Some(()));
}

#[test]
fn events_have_exactly_the_documented_names_levels_and_fields() {
    let (tap, _guard) = EventTap::install();
    provoke_everything();
    let documented = documented();
    let mut names = BTreeSet::new();
    let mut outcomes = BTreeSet::new();
    for event in tap.seen() {
        let (level, fields) = &documented[event.name];
        assert_eq!(event.level.as_str(), level, "{event:?}");
        assert_eq!(&event.fields, fields, "{event:?}");
        assert_eq!(event.target, "tower_scoped_auth", "{event:?}");
        assert!(!format!("{event:?}").contains("tok-secret"), "{event:?}");
        let values: Vec<_> = event
            .values
            .keys()
            .filter(|name| **name != "message")
            .collect();
        assert_eq!(
            values.len(),
            event.fields.len(),
            "every field has a value: {event:?}"
        );
        names.insert(event.name.to_owned());
        outcomes.extend(event.values.get("outcome").cloned());
    }
    assert_eq!(names, documented.into_keys().collect::<BTreeSet<_>>());
    let all = ["abandoned", "extended", "failed", "published", "unchanged"];
    assert_eq!(outcomes, all.map(str::to_owned).into());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_is_told_once_with_its_numbers() {
    let (tap, _guard) = EventTap::install();
    let source = Script::new(|call| match call.number {
        1 => Answer::failure("first line\nsecond line"),
        _ => Answer::token("tok", 3599),
    });
    let answered = source::from_fn(move |request| {
        let source = source.clone();
        async move {
            sleep(Duration::from_millis(250)).await;
            source.fetch(request).await
        }
    });
    let client = ScopedAuthLayer::from_cache(cache(answered)).layer(Inner::new());
    for _ in 0..100 {
        send(&client, BUCKET).await.unwrap();
    }
    let seen = tap.seen();
    assert_eq!(
        seen.len(),
        3,
        "a failure, its consequence, a success: {seen:?}"
    );
    let [failed, fetched] = ["token_fetch_failed", "token_fetched"].map(|name| tap.named(name));
    let value = |field: &str| {
        (
            failed[0].values[field].as_str(),
            fetched[0].values[field].as_str(),
        )
    };
    assert_eq!(value("source"), ("custom", "custom"));
    assert_eq!(value("request"), ("access token", "access token"));
    assert_eq!(value("attempt"), ("1", "2"));
    assert_eq!(value("outcome"), ("failed", "published"));
    assert_eq!(value("duration"), ("0.25", "0.25"));
    assert_eq!(
        value("life"),
        ("0", "3598"),
        "counted from when the request was sent"
    );
    assert_eq!(failed[0].level, Level::WARN);
    assert_eq!(failed[0].values["reason"], "source");
    assert_eq!(
        failed[0].values["error"], "the token source failed (1 attempt): first line second line",
        "the cause is told, on one line"
    );
    let pause: f64 = failed[0].values["next_attempt_in"].parse().unwrap();
    assert!((0.5..=1.0).contains(&pause), "{pause}");
}

/// A source may fail or panic with a page of text, at every attempt, while there is no token.
#[tokio::test(start_paused = true)]
async fn s096_a_page_of_text_is_a_bounded_line_and_errors_together_are_one_in_ten_seconds() {
    let (tap, _guard) = EventTap::install();
    let page = "a line\n".repeat(1_000);
    let source = source::from_fn(move |_: TokenRequest| {
        let (fails, text) = (fastrand::bool(), page.clone());
        async move {
            if fails {
                return Err(text);
            }
            panic!("{text}")
        }
    });
    let source = cache(source);
    let begun = tokio::time::Instant::now();
    while tap.named("source_panicked").is_empty() || tap.named("token_fetch_failed").len() < 20 {
        source.token(&access()).await.unwrap_err();
        sleep(secs(1)).await;
    }
    for failed in tap.named("token_fetch_failed") {
        let error = &failed.values["error"];
        assert!(error.chars().count() <= 1_000, "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    for panicked in tap.named("source_panicked") {
        assert!(panicked.values["panic"].chars().count() <= 200 + "\"\"".len());
    }
    let errors = tap.seen().into_iter();
    let errors = errors.filter(|event| event.level == Level::ERROR).count();
    let most = begun.elapsed().as_secs() / 10 + 1;
    assert!(errors as u64 <= most, "{errors}, at most {most}");
}

#[tokio::test(start_paused = true)]
async fn a_status_as_json() {
    let clock = TestClock::new();
    clock.set_wall(SystemTime::UNIX_EPOCH + secs(1_800_000_000));
    let source = Script::new(|call| match call.number {
        1 => Answer::token("tok-secret", 3599),
        _ => Answer::failure("it is out").after(secs(1)),
    });
    let cache = TokenCache::builder(source)
        .clock(clock.clone())
        .build()
        .unwrap();
    let status = |cache: &TokenCache| serde_json::to_value(cache.status(&access())).unwrap();

    let empty = json!({
        "state": "empty", "expires_in_seconds": null, "generation": 0, "refreshing": false,
        "waiting": 0, "last_error": null, "failing_since": null, "source": "custom",
    });
    assert_eq!(status(&cache), empty);

    cache.token(&access()).await.unwrap();
    sleep(Duration::from_millis(1500)).await;
    let fresh = json!({
        "state": "fresh", "expires_in_seconds": 3597, "generation": 1, "refreshing": false,
        "waiting": 0, "last_error": null, "failing_since": null, "source": "custom",
    });
    assert_eq!(status(&cache), fresh);
    let in_order = concat!(
        r#"{"state":"fresh","expires_in_seconds":3597,"generation":1,"refreshing":false,"#,
        r#""waiting":0,"last_error":null,"failing_since":null,"source":"custom"}"#
    );
    assert_eq!(
        serde_json::to_string(&cache.status(&access())).unwrap(),
        in_order
    );

    // 300 s before its expiry, and on until a refresh has failed.
    sleep(secs(3597 - 300)).await;
    let begun = clock.wall();
    while cache.status(&access()).last_error().is_none() {
        cache.token(&access()).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let found = status(&cache);
    assert_eq!(found["state"], "stale");
    assert_eq!(found["generation"], 1);
    assert_eq!(
        found["last_error"],
        "the token source failed (1 attempt): it is out"
    );
    let since = found["failing_since"].as_u64().unwrap();
    let begun = begun
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!((begun..begun + 110).contains(&since), "{since}, {begun}");

    clock.suspend(secs(3600));
    assert_eq!(status(&cache)["state"], "expired");
    assert_eq!(status(&cache)["expires_in_seconds"], json!(null));
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token(&access()).await.map(drop) }
    });
    // This happens after the pause that follows the failure.
    let found = loop {
        let found = status(&cache);
        if found["refreshing"] == json!(true) {
            break found;
        }
        assert!(!waiting.is_finished(), "{found}");
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(
        (&found["refreshing"], &found["waiting"]),
        (&json!(true), &json!(1))
    );
    assert!(!found.to_string().contains("tok-secret"));
    waiting.abort();

    clock.set_wall(SystemTime::UNIX_EPOCH - secs(1));
    assert!(serde_json::to_value(cache.status(&access())).is_ok());
}

// Its last words come from the operating system.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_error_of_the_health_example_is_a_real_one() {
    // Bound, but never listened on.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = nobody.local_addr().unwrap().to_string();
    let source = MetadataServer::builder().endpoint(&endpoint);
    let cache = TokenCache::builder(source.build().unwrap());
    let cache = cache.max_wait(Duration::from_millis(1)).build().unwrap();
    cache.token(&access()).await.unwrap_err();
    while cache.status(&access()).last_error().is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    let status = json!(cache.status(&access()));
    let error = status["last_error"].as_str().unwrap();
    let shown = format!(
        r#""last_error":{}"#,
        json!(error.replace(&endpoint, "metadata.google.internal"))
    );
    assert!(page().contains(&shown), "{shown}");
}
