//! `GcloudCli` with a program in gcloud's place that behaves, or misbehaves.
//!
//! The stand-in is one shell script. The name it is called by tells it what to do: each test has a
//! folder of its own with a link of that name. There the script records what it was called with, and
//! which processes there are.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    env, fs,
    io::Write,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use support::{BUCKET, Folder, Inner, TraceTap, jwt_for, send};
use tokio::time::{Instant, sleep, timeout};
use tower::Layer;
use tower_scoped_auth::{
    Audience, AuthError, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, TokenSource,
    sources::GcloudCli,
};

const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/calls"
echo "$$" >> "$here/pids"
case $(basename "$0") in
    gcloud|good)
        case $2 in
            print-access-token) echo ya29.0123456789abcdef ;;
            print-identity-token) cat "$here/jwt" ;;
        esac ;;
    slow) sleep 1000 & echo "$!" >> "$here/pids"; wait ;;
    ignores_term) trap '' TERM INT HUP; sleep 1000 & echo "$!" >> "$here/pids"; wait; wait ;;
    endless) while :; do echo ya29.0123456789abcdef; done ;;
    endless_complaints) while :; do echo ya29.0123456789abcdef >&2; done ;;
    long_complaint)
        head -c 1000000 /dev/zero | tr '\0' e >&2
        printf '\nERROR: the end\n' >&2
        exit 1 ;;
    empty) ;;
    blank) printf ' \n\n' ;;
    html) echo '<html>ya29.0123456789abcdef</html>' ;;
    two) echo ya29.0123456789abcdef; echo ya29.0123456789abcdef ;;
    header) printf 'ya29.0123456789abcdef\r\nX-Evil: 1\n' ;;
    binary) printf '\377\376\000\001ya29.0123456789abcdef' ;;
    fails)
        echo 'WARNING: Python 3.9 will be deprecated.' >&2
        echo 'ERROR: (gcloud.auth.print-access-token) You are not logged in.' >&2
        exit 1 ;;
    fails_silently) exit 3 ;;
    killed) kill -KILL $$ ;;
    leaks)
        echo ya29.0123456789abcdef
        echo 'got ya29.0123456789abcdef' >&2
        exit 1 ;;
    leaks_only) echo ya29.0123456789abcdef >&2; exit 1 ;;
    leaks_and_works) echo ya29.0123456789abcdef; echo ya29.0123456789abcdef >&2 ;;
    asks) if read -r answer; then echo "read-$answer"; else echo "end-$CLOUDSDK_CORE_DISABLE_PROMPTS"; fi ;;
esac
"#;

const SECRET: &str = "0123456789abcdef";

/// No test takes longer.
const LONG: Duration = Duration::from_secs(120);

/// The script, written once.
///
/// Another process writes it: a program that this process holds open for writing cannot be run, and
/// neither can one that was open at the moment when another thread started a process. It is in the
/// build's own folder, where the next run replaces it.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gcloud-stand-in");
    let write = r#"cat > "$1.$$" && chmod 755 "$1.$$" && mv "$1.$$" "$1""#;
    let mut writer = Command::new("sh")
        .args(["-c", write, "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(SCRIPT.as_bytes()).unwrap();
    drop(stdin);
    assert!(writer.wait().unwrap().success());
    path
});

struct StandIn {
    folder: Folder,
    name: &'static str,
}

impl StandIn {
    fn new(name: &'static str) -> Self {
        let folder = Folder::new();
        symlink(&*PROGRAM, folder.join(name)).unwrap();
        Self { folder, name }
    }

    fn source(&self) -> GcloudCli {
        let builder = GcloudCli::builder().program(self.folder.join(self.name));
        builder.timeout(LONG).build().unwrap()
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the script has recorded this many processes, itself included.
    async fn processes(&self, count: usize) -> Vec<String> {
        until(|| {
            // The last line may be incomplete.
            let text = fs::read_to_string(self.folder.join("pids")).unwrap_or_default();
            text.matches('\n').count() >= count
        })
        .await;
        self.lines("pids")
    }

    async fn error(&self) -> AuthError {
        self.source().fetch(access()).await.unwrap_err()
    }
}

async fn until(mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < LONG, "it never came to that");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Neither running nor a zombie.
fn is_gone(pid: &str) -> bool {
    state(pid).is_none()
}

/// `R`, `S`, `Z` and so on, as `ps` reports it on every Unix.
fn state(pid: &str) -> Option<char> {
    let ps = Command::new("ps").args(["-o", "stat=", "-p", pid]).output();
    let text = String::from_utf8(ps.unwrap().stdout).unwrap();
    text.trim().chars().next()
}

fn access() -> TokenRequest {
    TokenRequest::access_token(Scopes::default())
}

fn id(audience: &str) -> TokenRequest {
    TokenRequest::id_token(Audience::new(audience).unwrap())
}

#[tokio::test]
async fn an_access_token_is_stamped() {
    let gcloud = StandIn::new("good");
    let inner = Inner::new();
    let client = ScopedAuthLayer::new(gcloud.source()).layer(inner.clone());
    for _ in 0..3 {
        send(&client, BUCKET).await.unwrap();
    }
    assert_eq!(inner.calls(), 3);
    for seen in inner.seen() {
        assert_eq!(seen.token(), Some("ya29.0123456789abcdef"));
    }
    assert_eq!(gcloud.lines("calls"), ["auth print-access-token"]);
}

#[tokio::test]
async fn an_access_token_is_used_for_less_than_gcloud_promises() {
    let gcloud = StandIn::new("good");
    let token = gcloud.source().fetch(access()).await.unwrap();
    assert_eq!(token.expose_secret(), "ya29.0123456789abcdef");
    assert_eq!(token.lifetime(), Some(GcloudCli::LIFETIME));
    assert!(GcloudCli::LIFETIME < Duration::from_secs(300));
}

#[tokio::test]
async fn scopes_and_accounts_are_handed_on() {
    let gcloud = StandIn::new("good");
    let source = GcloudCli::builder()
        .program(gcloud.folder.join("good"))
        .account("me@example.com")
        .impersonate("sa@p.iam.gserviceaccount.com")
        .build()
        .unwrap();
    let scopes = Scopes::new(["https://a/b", "https://a/$(id)"]).unwrap();
    source
        .fetch(TokenRequest::access_token(scopes))
        .await
        .unwrap();
    assert_eq!(
        gcloud.lines("calls"),
        [
            "auth print-access-token --scopes=https://a/$(id),https://a/b --account=me@example.com \
             --impersonate-service-account=sa@p.iam.gserviceaccount.com"
        ]
    );
}

#[tokio::test]
async fn an_id_token_lives_until_its_exp() {
    let gcloud = StandIn::new("good");
    let token = jwt_for(3600, "1");
    fs::write(gcloud.folder.join("jwt"), format!("{token}\n")).unwrap();
    let request = id("https://my-service.a.run.app");
    let cache = TokenCache::new(gcloud.source());
    assert_eq!(cache.token(&request).await.unwrap().expose_secret(), token);
    let left = cache.status(&request).expires_in().unwrap();
    assert!((3500..=3600).contains(&left.as_secs()), "{left:?}");
    assert_eq!(
        gcloud.lines("calls"),
        ["auth print-identity-token --audiences=https://my-service.a.run.app"]
    );
}

#[tokio::test]
async fn an_id_token_without_a_date_is_a_failure() {
    let gcloud = StandIn::new("good");
    for text in ["ya29.0123456789abcdef", "e30.e30.c2ln", ""] {
        fs::write(gcloud.folder.join("jwt"), text).unwrap();
        let error = gcloud.source().fetch(id("https://a")).await.unwrap_err();
        assert!(error.is_response(), "{error}");
    }
}

#[tokio::test]
async fn it_gets_no_input_and_is_told_not_to_ask() {
    let token = StandIn::new("asks").source().fetch(access()).await.unwrap();
    assert_eq!(token.expose_secret(), "end-1");
}

#[tokio::test]
async fn garbage_is_a_failure() {
    for name in ["empty", "blank", "html", "two", "header", "binary"] {
        let error = StandIn::new(name).error().await;
        assert!(
            error.is_response() && error.is_transient(),
            "{name}: {error}"
        );
        assert!(error.to_string().contains("print-access-token"), "{error}");
        assert_secretless(&error);
    }
}

#[tokio::test]
async fn a_refusal_says_what_gcloud_said() {
    let error = StandIn::new("fails").error().await;
    assert!(error.is_transient());
    let text = error.to_string();
    assert!(text.contains("You are not logged in."), "{text}");
    assert!(text.contains("exit status: 1"), "{text}");
    assert!(!text.contains("Python"), "{text}");
    assert_eq!(text.lines().count(), 1);

    let text = StandIn::new("fails_silently").error().await.to_string();
    assert!(text.contains("exit status: 3"), "{text}");
    let text = StandIn::new("killed").error().await.to_string();
    assert!(text.contains("signal: 9"), "{text}");
}

#[tokio::test]
async fn a_program_that_is_not_there_says_what_to_do() {
    let folder = Folder::new();
    fs::write(folder.join("not-executable"), "").unwrap();
    for program in ["missing", "not-executable"] {
        let source = GcloudCli::builder().program(folder.join(program));
        let error = source.build().unwrap().fetch(access()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("install the Google Cloud CLI"), "{text}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn endless_output_is_stopped() {
    let gcloud = StandIn::new("endless");
    let error = timeout(LONG, gcloud.error()).await.unwrap();
    assert!(error.is_response(), "{error}");
    assert_secretless(&error);
    for pid in gcloud.processes(1).await {
        until(|| is_gone(&pid)).await;
    }
}

#[tokio::test]
async fn a_long_complaint_blocks_nobody() {
    let error = StandIn::new("long_complaint").error().await;
    assert!(error.to_string().contains("ERROR: the end"), "{error}");
    assert!(error.to_string().len() < 1000);
}

#[tokio::test]
async fn an_endless_complaint_ends_with_the_attempt() {
    let gcloud = StandIn::new("endless_complaints");
    let source = gcloud.source();
    let mut fetching = Box::pin(source.fetch(access()));
    let pids = tokio::select! {
        result = &mut fetching => panic!("{result:?}"),
        pids = gcloud.processes(1) => pids,
    };
    drop(fetching);
    for pid in pids {
        until(|| is_gone(&pid)).await;
    }
}

#[tokio::test]
async fn a_fetch_that_is_dropped_takes_the_program_and_its_children_along() {
    for name in ["slow", "ignores_term"] {
        let gcloud = StandIn::new(name);
        let source = gcloud.source();
        let mut fetching = Box::pin(source.fetch(access()));
        let pids = tokio::select! {
            result = &mut fetching => panic!("{result:?}"),
            pids = gcloud.processes(2) => pids,
        };
        assert!(pids.iter().all(|pid| state(pid).is_some_and(|s| s != 'Z')));
        drop(fetching);
        until(|| is_gone(&pids[0])).await;
        // Whoever inherits the other process may be slow to notice that it ended.
        until(|| state(&pids[1]).is_none_or(|state| state == 'Z')).await;
    }
}

#[tokio::test]
async fn a_slow_program_is_a_timeout_and_leaves_nothing_behind() {
    let gcloud = StandIn::new("slow");
    let source = GcloudCli::builder()
        .program(gcloud.folder.join("slow"))
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let cache = TokenCache::builder(source)
        .max_wait(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = cache.token(&access()).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    drop(cache);
    for pid in gcloud.lines("pids") {
        until(|| state(&pid).is_none_or(|state| state == 'Z')).await;
    }
    if let Some(pid) = gcloud.lines("pids").first() {
        until(|| is_gone(pid)).await;
    }
}

#[tokio::test]
async fn the_token_is_in_no_error_and_in_no_log() {
    let (tap, _guard) = TraceTap::install();
    for name in ["leaks", "leaks_only", "html", "two", "leaks_and_works"] {
        let gcloud = StandIn::new(name);
        let cache = TokenCache::builder(gcloud.source())
            .max_wait(Duration::from_millis(1))
            .build()
            .unwrap();
        let asked = cache.token(&access()).await.unwrap_err();
        until(|| {
            cache.status(&access()).is_live() || cache.status(&access()).last_error().is_some()
        })
        .await;
        let status = cache.status(&access());
        assert_eq!(status.is_live(), name == "leaks_and_works", "{name}");
        for error in status.last_error().into_iter().chain([&asked]) {
            assert_secretless(error);
        }
        assert!(!format!("{:?}", gcloud.source()).contains(SECRET));
    }
    assert!(tap.count("WARN") >= 4, "{}", tap.text());
    assert!(!tap.text().contains(SECRET), "{}", tap.text());
}

fn assert_secretless(error: &AuthError) {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!("{error} {error:?}"));
        cause = error.source();
    }
    assert!(!text.contains(SECRET), "{text}");
}

/// `PATH` belongs to a whole process, so this test starts itself in another one.
#[test]
fn by_default_it_is_gcloud_on_the_path() {
    const CHILD: &str = "TOWER_SCOPED_AUTH_TEST_CHILD";

    if env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let token = runtime.block_on(GcloudCli::new().fetch(access())).unwrap();
        assert_eq!(token.expose_secret(), "ya29.0123456789abcdef");
        return;
    }
    let gcloud = StandIn::new("gcloud");
    let old = env::var_os("PATH").unwrap();
    let folders = [gcloud.folder.to_owned()]
        .into_iter()
        .chain(env::split_paths(&old));
    let status = Command::new(env::current_exe().unwrap())
        .args(["by_default_it_is_gcloud_on_the_path", "--exact"])
        .env("PATH", env::join_paths(folders).unwrap())
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(gcloud.lines("calls"), ["auth print-access-token"]);
}
