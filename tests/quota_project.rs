//! `x-goog-user-project`: together with the token, and only with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{env, process::Command};

use http::{HeaderName, HeaderValue, Request};
use support::{Answer, BUCKET, Inner, Script, auth_error, get, send};
use tower::{Layer, ServiceExt};
use tower_scoped_auth::{Audience, Destinations, ScopedAuthLayer};

const HEADER: &str = "x-goog-user-project";
const VARIABLE: &str = "GOOGLE_CLOUD_QUOTA_PROJECT";

fn layer() -> ScopedAuthLayer {
    ScopedAuthLayer::new(Script::new(|_| Answer::token("tok", 3599)))
}

/// The header's value in each request; `-` for none.
fn projects(inner: &Inner) -> Vec<String> {
    let project = |headers: &http::HeaderMap| {
        let mut values = headers
            .get_all(HEADER)
            .iter()
            .map(|value| value.to_str().unwrap());
        let value = values.next().unwrap_or("-").to_owned();
        assert!(values.next().is_none(), "more than one");
        value
    };
    inner
        .seen()
        .iter()
        .map(|seen| project(&seen.headers))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn it_goes_with_the_token_whether_that_was_there_or_had_to_be_fetched() {
    let inner = Inner::new();
    let client = layer()
        .quota_project("my-project")
        .unwrap()
        .layer(inner.clone());
    send(&client, BUCKET).await.unwrap();
    send(&client, BUCKET).await.unwrap();
    let mut own = get(BUCKET);
    own.headers_mut().insert(HEADER, "theirs".parse().unwrap());
    client.clone().oneshot(own).await.unwrap();
    let wish = Request::get(BUCKET)
        .extension(Audience::new("a").unwrap())
        .body(())
        .unwrap();
    client.clone().oneshot(wish).await.unwrap();
    assert_eq!(
        projects(&inner),
        ["my-project", "my-project", "theirs", "my-project"]
    );
    assert_eq!(inner.tokens(), ["tok"; 4]);
}

#[tokio::test(start_paused = true)]
async fn it_goes_nowhere_without_the_token() {
    let inner = Inner::new();
    let client = layer()
        .quota_project("my-project")
        .unwrap()
        .destinations(Destinations::google_apis().pass_others())
        .layer(inner.clone());
    send(&client, "https://example.com/").await.unwrap();
    let mut own = get(BUCKET);
    own.headers_mut()
        .insert("authorization", "Bearer theirs".parse().unwrap());
    client.clone().oneshot(own).await.unwrap();
    assert_eq!(projects(&inner), ["-", "-"]);

    // When the layer replaces the header, the token is ours again.
    let client = layer()
        .replace_authorization()
        .quota_project("my-project")
        .unwrap();
    let inner = Inner::new();
    let mut own = get(BUCKET);
    own.headers_mut()
        .insert("authorization", "Bearer theirs".parse().unwrap());
    client.layer(inner.clone()).oneshot(own).await.unwrap();
    assert_eq!(
        (projects(&inner), inner.tokens()),
        (vec!["my-project".to_owned()], vec!["tok".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_with_room_for_one_of_the_two_is_an_error() {
    let inner = Inner::new();
    let client = layer()
        .quota_project("my-project")
        .unwrap()
        .layer(inner.clone());
    let crowded = || {
        let mut request = get(BUCKET);
        let headers = request.headers_mut();
        let fill = |n: usize| HeaderName::try_from(format!("x-{n}")).unwrap();
        let full = (0..).find(|n| {
            headers
                .try_insert(fill(*n), HeaderValue::from_static(""))
                .is_err()
        });
        headers.remove(fill(full.unwrap() - 1));
        request
    };
    for warm in [false, true] {
        let error = client.clone().oneshot(crowded()).await.unwrap_err();
        let error = auth_error(&error);
        assert!(
            error.to_string().contains("more headers"),
            "{warm}: {error}"
        );
        send(&client, BUCKET).await.unwrap();
    }
    assert_eq!(projects(&inner), ["my-project", "my-project"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_project_there_is_no_header() {
    let inner = Inner::new();
    send(&layer().layer(inner.clone()), BUCKET).await.unwrap();
    assert_eq!(projects(&inner), ["-"]);
}

#[test]
fn what_is_no_project_is_an_error_when_the_layer_is_built() {
    for project in ["", "a b", "a\nb", "projects/x"] {
        let error = layer().quota_project(project).unwrap_err();
        assert_eq!(
            (error.what(), error.to_string().lines().count()),
            ("quota project", 1)
        );
    }
    let shown = format!("{:?}", layer().quota_project("my-project").unwrap());
    assert!(shown.contains("my-project"), "{shown}");
}

/// Variables belong to a whole process: this test runs itself for each, in a process of its own.
#[test]
fn s018_the_environment_is_read_where_it_is_asked_for_and_explicit_beats_it() {
    const CHILD: &str = "TOWER_SCOPED_AUTH_TEST_CHILD";
    let project = |layer: &ScopedAuthLayer| format!("{layer:?}");
    if let Ok(expected) = env::var(CHILD) {
        assert!(
            project(&layer()).contains("quota_project: None"),
            "not read unasked"
        );
        let explicit = layer().quota_project("explicit").unwrap();
        assert!(project(&explicit.quota_project_from_env().unwrap()).contains("explicit"));
        match layer().quota_project_from_env() {
            Ok(layer) => assert!(project(&layer).contains(&expected), "{layer:?}"),
            Err(error) => assert_eq!((error.what(), &*expected), (VARIABLE, "error")),
        }
        return;
    }
    for (value, expected) in [
        (Some("from-env"), "Some(\"from-env\")"),
        (None, "quota_project: None"),
        (Some(""), "error"),
        (Some("a b"), "error"),
    ] {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args([
            "s018_the_environment_is_read_where_it_is_asked_for_and_explicit_beats_it",
            "--exact",
        ]);
        child.env_remove(VARIABLE).env(CHILD, expected);
        if let Some(value) = value {
            child.env(VARIABLE, value);
        }
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{value:?}: {text}"
        );
    }
}
