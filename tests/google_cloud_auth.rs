//! The adapter, with Google's own crate as published: its metadata client against the emulator, and
//! key files, users' logins and federation against a token endpoint on loopback.
//!
//! The search for Application Default Credentials reads variables, which belong to a whole process:
//! those tests start this binary again, for one test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    env,
    ffi::OsString,
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use google_cloud_auth::credentials::{
    AccessTokenCredentials, api_key_credentials, external_account, idtoken, mds, service_account,
    user_account,
};
use serde_json::{Value, json};
use support::{BUCKET, FakeMds, Folder, Inner, Reply, TraceTap, crypto_provider, jwt_for, send};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep},
};
use tower::Layer;
use tower_scoped_auth::{
    Audience, AuthError, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, TokenSource,
    emulator::Emulator,
    sources::{FirstOf, application_default},
};

/// Belongs to no service account: it opens nothing.
const KEY: &str = include_str!("support/keys/opens-nothing.pem");

const SECRET: &str = "0123456789abcdef";

/// No test takes longer, however busy the machine.
const LONG: Duration = Duration::from_secs(120);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn any() -> TokenRequest {
    TokenRequest::access_token(Scopes::default())
}

fn scoped(scope: &str) -> TokenRequest {
    TokenRequest::access_token(Scopes::new([scope]).unwrap())
}

fn id(audience: &str) -> TokenRequest {
    TokenRequest::id_token(Audience::new(audience).unwrap())
}

fn key_file() -> Value {
    json!({
        "type": "service_account",
        "client_email": "sa@p.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": KEY,
        "project_id": "p",
    })
}

fn login_file(token_uri: &str) -> Value {
    json!({
        "type": "authorized_user",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
        "token_uri": token_uri,
    })
}

fn federation_file(token_url: &str, subject_token: &Path) -> Value {
    json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": token_url,
        "credential_source": { "file": subject_token },
    })
}

/// What a token endpoint answers.
fn granted(token: &str) -> Reply {
    Reply::ok(format!(
        r#"{{"access_token":"{token}","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","expires_in":3600,"token_type":"Bearer"}}"#
    ))
}

fn url(server: &FakeMds, path: &str) -> String {
    format!(
        "http://{}{path}",
        server.endpoint().trim_start_matches("http://")
    )
}

/// Asks until a token comes.
async fn eventually(
    source: &impl TokenSource<Error = AuthError>,
    request: &TokenRequest,
) -> String {
    let begun = Instant::now();
    loop {
        match source.fetch(request.clone()).await {
            Ok(token) => return token.expose_secret().to_owned(),
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn metadata_credentials(mds: &Emulator) -> AccessTokenCredentials {
    crypto_provider();
    let builder = mds::Builder::default().with_endpoint(mds.endpoint());
    builder.build_access_token_credentials().unwrap()
}

// Credentials as they are

#[tokio::test]
async fn its_metadata_credentials_stamp_requests() {
    let mds = Emulator::builder().start().await.unwrap();
    let credentials = metadata_credentials(&mds).await;
    let inner = Inner::new();
    let cache = TokenCache::new(credentials);
    let client = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
    for _ in 0..10 {
        send(&client, BUCKET).await.unwrap();
    }
    for seen in inner.seen() {
        assert!(mds.is_valid(seen.token().unwrap()));
    }
    assert_eq!(mds.token_requests(), 1);
    let status = cache.status(&any());
    assert_eq!(status.source(), "google-cloud-auth");
    // The credentials do not say when the token expires, so they are asked again soon.
    assert!(status.expires_in().unwrap() <= seconds(10));
}

#[tokio::test]
async fn of_its_headers_the_token_is_taken() {
    crypto_provider();
    let mds = Emulator::builder().start().await.unwrap();
    let credentials = mds::Builder::default()
        .with_endpoint(mds.endpoint())
        .with_quota_project_id("somebody-pays")
        .build()
        .unwrap();
    let inner = Inner::new();
    let client = ScopedAuthLayer::new(credentials).layer(inner.clone());
    send(&client, BUCKET).await.unwrap();
    let seen = &inner.seen()[0];
    assert!(mds.is_valid(seen.token().unwrap()));
    assert!(!seen.headers.contains_key("x-goog-user-project"));
}

#[tokio::test]
async fn an_api_key_is_no_token() {
    let credentials = api_key_credentials::Builder::new("AIza-key").build();
    let error = credentials.fetch(any()).await.unwrap_err();
    assert!(error.is_response(), "{error}");
    assert!(!error.to_string().contains("AIza-key"));
}

#[tokio::test]
async fn its_id_tokens_live_until_their_exp() {
    crypto_provider();
    let token = jwt_for(1800, "1");
    let server = FakeMds::start({
        let token = token.clone();
        move |_| Reply::ok(&token)
    });
    let credentials = idtoken::mds::Builder::new("https://a.run.app")
        .with_endpoint(url(&server, ""))
        .build()
        .unwrap();
    let cache = TokenCache::new(credentials.clone());
    let request = id("https://a.run.app");
    assert_eq!(cache.token(&request).await.unwrap().expose_secret(), token);
    let left = cache.status(&request).expires_in().unwrap();
    assert!((1790..=1800).contains(&left.as_secs()), "{left:?}");

    // Each asked for the wrong kind of token.
    assert!(!credentials.fetch(any()).await.unwrap_err().is_transient());
    let access = user_account::Builder::new(login_file(&url(&server, "/token")));
    let access = access.build_access_token_credentials().unwrap();
    assert!(!access.fetch(request).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_key_files_token_lives_until_its_exp() {
    crypto_provider();
    let credentials = service_account::Builder::new(key_file());
    let cache = TokenCache::new(credentials.build_access_token_credentials().unwrap());
    let token = cache.token(&any()).await.unwrap();
    assert_eq!(token.expose_secret().split('.').count(), 3);
    let left = cache.status(&any()).expires_in().unwrap();
    assert!((3500..=3610).contains(&left.as_secs()), "{left:?}");
}

#[tokio::test]
async fn a_users_login_is_exchanged() {
    crypto_provider();
    let server = FakeMds::start(|_| granted("ya29.users"));
    let credentials = user_account::Builder::new(login_file(&url(&server, "/token")));
    let credentials = credentials.build_access_token_credentials().unwrap();
    let token = credentials.fetch(any()).await.unwrap();
    assert_eq!(token.expose_secret(), "ya29.users");
}

#[tokio::test]
async fn a_federated_identity_is_exchanged() {
    crypto_provider();
    let folder = Folder::new();
    let subject = folder.join("subject-token");
    fs::write(&subject, jwt_for(600, "from-ci")).unwrap();
    let server = FakeMds::start(|_| granted("ya29.federated"));
    let file = federation_file(&url(&server, "/v1/token"), &subject);
    let credentials = external_account::Builder::new(file);
    let credentials = credentials.build_access_token_credentials().unwrap();
    let inner = Inner::new();
    let client = ScopedAuthLayer::new(credentials).layer(inner.clone());
    send(&client, BUCKET).await.unwrap();
    assert_eq!(inner.seen()[0].token(), Some("ya29.federated"));
}

#[tokio::test]
async fn s133_no_error_repeats_a_body() {
    crypto_provider();
    let (tap, _guard) = TraceTap::install();
    for reply in [
        Reply::status(400, "", format!("{{\"error\":\"{SECRET}\"}}")),
        Reply::status(503, "", SECRET),
        Reply::ok(format!("<html>{SECRET}</html>")),
        Reply::ok(format!("{{\"access_token\":[\"{SECRET}\"]}}")),
        granted(&format!("{SECRET} {SECRET}")),
    ] {
        let server = FakeMds::start(move |_| reply.clone());
        let login = user_account::Builder::new(login_file(&url(&server, "/token")));
        let mds = mds::Builder::default().with_endpoint(url(&server, ""));
        for credentials in [
            login.build_access_token_credentials().unwrap(),
            mds.build_access_token_credentials().unwrap(),
        ] {
            let cache = TokenCache::builder(credentials).max_wait(Duration::from_millis(1));
            let cache = cache.build().unwrap();
            let begun = Instant::now();
            let error = loop {
                let asked = cache.token(&any()).await.unwrap_err();
                assert!(!format!("{asked} {asked:?}").contains(SECRET));
                if let Some(error) = cache.status(&any()).last_error() {
                    break error.clone();
                }
                assert!(begun.elapsed() < LONG);
            };
            let text = format!("{error} {error:?} {:?}", cache.status(&any()));
            assert!(!text.contains(SECRET), "{text}");
            assert!(
                error.is_transient() && error.to_string().len() < 600,
                "{error}"
            );
        }
    }
    let ours: Vec<_> = tap
        .text()
        .lines()
        .filter(|line| line.contains("tower_scoped_auth"))
        .map(str::to_owned)
        .collect();
    assert!(!ours.is_empty());
    assert!(!ours.iter().any(|line| line.contains(SECRET)), "{ours:?}");
}

/// The credentials' task ends with the runtime they were built on, and they panic when their token has expired.
#[test]
fn what_panics_is_a_failed_attempt() {
    crypto_provider();
    let mds = Emulator::builder()
        .token_lifetime(seconds(2))
        .start_blocking()
        .unwrap();
    let first = runtime();
    let credentials = first.block_on(metadata_credentials(&mds));
    first.block_on(credentials.fetch(any())).unwrap();
    drop(first);
    runtime().block_on(async {
        let begun = Instant::now();
        let error = loop {
            match credentials.fetch(any()).await {
                Ok(_) => assert!(begun.elapsed() < LONG),
                Err(error) => break error,
            }
            sleep(Duration::from_millis(20)).await;
        };
        assert!(error.is_transient());
        assert!(error.to_string().contains("runtime"), "{error}");
    });
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

// The search

/// Set in a process that was started by a test.
const CHILD: &str = "TOWER_SCOPED_AUTH_TEST_CHILD";
const FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const METADATA_HOST: &str = "GCE_METADATA_HOST";

fn told() -> Option<String> {
    let told = env::var(CHILD).ok()?;
    crypto_provider();
    Some(told)
}

/// Runs this test in a process of its own, with a home of its own; the process must end successfully.
fn child(test: &str, tell: &str, home: &Path, variables: &[(&str, OsString)]) {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in [
        FILE,
        METADATA_HOST,
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    // Some panic on purpose, and printing the backtrace takes seconds on a busy machine.
    command
        .env("RUST_BACKTRACE", "0")
        .env(CHILD, tell)
        .env("HOME", home)
        .env("APPDATA", home);
    command.envs(variables.iter().cloned());
    let output = command.output().unwrap();
    let text = [&output.stdout[..], b"\n", &output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

#[test]
fn the_named_file_comes_first() {
    if told().is_some() {
        return runtime().block_on(async {
            let source = application_default();
            for request in [any(), scoped("https://www.googleapis.com/auth/pubsub")] {
                let token = source.fetch(request).await.unwrap();
                assert_eq!(token.expose_secret(), "ya29.federated");
            }
            assert!(format!("{source:?}").contains("kept: 2"));
            // Federation makes no ID tokens, and says so.
            assert!(source.fetch(id("https://a")).await.is_err());
        });
    }
    let folder = Folder::new();
    let server = FakeMds::start(|_| granted("ya29.federated"));
    let subject = folder.join("subject-token");
    fs::write(&subject, jwt_for(600, "from-ci")).unwrap();
    let file = folder.join("federation.json");
    let content = federation_file(&url(&server, "/v1/token"), &subject);
    fs::write(&file, content.to_string()).unwrap();
    well_known(&folder, &login_file("http://127.0.0.1:9/never-asked"));
    child(
        "the_named_file_comes_first",
        "",
        &folder,
        &[(FILE, file.into())],
    );
}

#[test]
fn then_comes_the_file_that_gcloud_writes() {
    if told().is_some() {
        return runtime().block_on(async {
            let inner = Inner::new();
            let client = ScopedAuthLayer::new(application_default()).layer(inner.clone());
            send(&client, BUCKET).await.unwrap();
            assert_eq!(inner.seen()[0].token(), Some("ya29.users"));
        });
    }
    let folder = Folder::new();
    let server = FakeMds::start(|_| granted("ya29.users"));
    well_known(&folder, &login_file(&url(&server, "/token")));
    child("then_comes_the_file_that_gcloud_writes", "", &folder, &[]);
}

fn well_known(home: &Path, content: &Value) {
    let name = "gcloud/application_default_credentials.json";
    for path in [home.join(".config").join(name), home.join(name)] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }
}

#[test]
fn and_then_the_metadata_server() {
    if told().is_some() {
        return runtime().block_on(async {
            let source = FirstOf::new(application_default());
            let cache = TokenCache::new(source);
            cache.token(&any()).await.unwrap();
            assert_eq!(cache.status(&any()).source(), "google-cloud-auth");
        });
    }
    let mds = Emulator::builder().start_blocking().unwrap();
    child(
        "and_then_the_metadata_server",
        "",
        &Folder::new(),
        &[(METADATA_HOST, mds.host().into())],
    );
    assert_eq!(mds.token_requests(), 1);
}

#[test]
fn a_key_file_makes_a_token_for_each_scope() {
    if told().is_some() {
        return runtime().block_on(async {
            let cache = TokenCache::new(application_default());
            let one = cache.token(&scoped("https://a/one")).await.unwrap();
            let two = cache.token(&scoped("https://a/two")).await.unwrap();
            assert_ne!(one.expose_secret(), two.expose_secret());
            let left = cache.status(&scoped("https://a/one")).expires_in().unwrap();
            assert!(left > seconds(3500));

            let source = application_default();
            for number in 0..70 {
                source
                    .fetch(scoped(&format!("https://a/{number}")))
                    .await
                    .unwrap();
            }
            let shown = format!("{source:?}");
            assert!(shown.contains("kept: 64"), "{shown}");
        });
    }
    let folder = Folder::new();
    let file = folder.join("key.json");
    fs::write(&file, key_file().to_string()).unwrap();
    child(
        "a_key_file_makes_a_token_for_each_scope",
        "",
        &folder,
        &[(FILE, file.into())],
    );
}

/// An error that Google's crate calls permanent, and would repeat forever, heals with its cause.
#[test]
fn nothing_is_terminal() {
    if told().is_some() {
        return runtime().block_on(async {
            let source = application_default();
            let error = source.fetch(any()).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            assert!(error.to_string().contains("given up"), "{error}");
            assert_eq!(eventually(&source, &any()).await, "ya29.healed");
        });
    }
    let folder = Folder::new();
    let server = FakeMds::start(|number| match number {
        1..=3 => Reply::status(400, "", "bad"),
        _ => granted("ya29.healed"),
    });
    well_known(&folder, &login_file(&url(&server, "/token")));
    child("nothing_is_terminal", "", &folder, &[]);
}

#[test]
fn it_outlives_the_runtime_it_began_on() {
    if told().is_some() {
        let source = application_default();
        let first = runtime();
        let old = first.block_on(eventually(&source, &any()));
        drop(first);
        return runtime().block_on(async {
            let begun = Instant::now();
            while eventually(&source, &any()).await == old {
                assert!(begun.elapsed() < LONG);
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let mds = Emulator::builder()
        .token_lifetime(seconds(2))
        .start_blocking()
        .unwrap();
    child(
        "it_outlives_the_runtime_it_began_on",
        "",
        &Folder::new(),
        &[(METADATA_HOST, mds.host().into())],
    );
}

#[test]
fn a_file_that_is_none_says_so_and_is_not_repeated() {
    if told().is_some() {
        return runtime().block_on(async {
            let error = application_default().fetch(any()).await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("Application Default Credentials"), "{text}");
            assert!(!text.contains(SECRET), "{text}");
        });
    }
    let folder = Folder::new();
    let file = folder.join("key.json");
    for content in [
        SECRET.to_owned(),
        format!("[\"{SECRET}\"]"),
        format!("{{\"type\":\"service_account\",\"private_key\":[\"{SECRET}\"]}}"),
        format!("{{\"type\":\"authorized_user\",\"client_id\":{{\"{SECRET}\":1}}}}"),
    ] {
        fs::write(&file, content).unwrap();
        child(
            "a_file_that_is_none_says_so_and_is_not_repeated",
            "",
            &folder,
            &[(FILE, file.clone().into())],
        );
    }
    let missing = folder.join("missing.json");
    child(
        "a_file_that_is_none_says_so_and_is_not_repeated",
        "",
        &folder,
        &[(FILE, missing.into())],
    );
}

/// No server at all: the attempt ends, and its error says where it looked.
#[test]
fn without_anything_it_is_an_error() {
    if told().is_some() {
        return runtime().block_on(async {
            let error = application_default().fetch(any()).await.unwrap_err();
            assert!(
                error.to_string().starts_with("google-cloud-auth: "),
                "{error}"
            );
        });
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    child(
        "without_anything_it_is_an_error",
        "",
        &Folder::new(),
        &[(METADATA_HOST, nobody.into())],
    );
}
