//! s044 and s071 as they happen: a name that resolves only later, or resolves to a new address.
//!
//! The resolver is the system's, so the test changes what it reads: it runs in a mount namespace of
//! its own (`unshare` from util-linux), where `/etc/hosts` is the test's file. Where that is not
//! permitted, stderr says so; `metadata_server.rs` has what can be tested without it.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use support::{
    FakeMds, Reply,
    child::{end, rerun_under, told},
};
use tokio::time::{sleep, timeout};
use tower_scoped_auth::{AuthError, MetadataServer, Scopes, TokenCache, TokenRequest};

/// Resolves only through the test's own file.
const NAME: &str = "metadata.test.invalid";

/// What promise 3 says about every failure.
const HEALED: Duration = Duration::from_secs(11);

/// No child takes longer.
const LONG: Duration = Duration::from_secs(120);

/// Mounts the test's files over the system's, then becomes the test.
const MOUNT: &str = r#"mount --bind "$1/hosts" /etc/hosts &&
if [ -e /etc/nsswitch.conf ]; then mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf; fi &&
shift && exec "$@""#;

/// For root, and for anybody where user namespaces are permitted.
const WAYS: [&str; 2] = ["-m", "-Umr"];

/// Runs this test in a namespace whose `/etc/hosts` is a file in the folder that it is told.
fn in_a_namespace(test: &str) {
    let permitted = |way: &&&str| {
        let tried = Command::new("unshare")
            .args([way, "sh", "-c", "mount --bind /etc/hosts /etc/hosts"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(way) = WAYS.iter().find(permitted) else {
        // Not with `eprintln`, whose output is not shown for a test that passes.
        let said = format!(
            "\nSKIPPED: {test}: mount namespaces are not permitted here (unshare -m, unshare -Umr)\n"
        );
        return std::io::stderr().write_all(said.as_bytes()).unwrap();
    };
    let folder = Folder::new(test);
    let exe = std::env::current_exe().unwrap();
    let arguments = [
        OsStr::new(way),
        OsStr::new("sh"),
        OsStr::new("-c"),
        OsStr::new(MOUNT),
        OsStr::new("sh"),
        folder.0.as_os_str(),
        exe.as_os_str(),
    ];
    let tell = folder.0.to_str().unwrap();
    let mut command = rerun_under("unshare", &arguments, test, tell);
    end(command.spawn().unwrap(), LONG);
}

/// The test's own; deleted with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("tower-scoped-auth-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("hosts"), "").unwrap();
        // Asks no server on the network.
        fs::write(path.join("nsswitch.conf"), "hosts: files\n").unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// From now on, [`NAME`] is this address. Writes in place, because the mount shows this very file.
fn resolve_to(folder: &str, address: &str) {
    let line = format!("{address} {NAME}\n");
    fs::write(PathBuf::from(folder).join("hosts"), &line).unwrap();
    assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), line);
}

fn cache(port: u16) -> TokenCache {
    let source = MetadataServer::builder()
        .endpoint(format!("{NAME}:{port}"))
        .build();
    TokenCache::new(source.unwrap())
}

fn wanted() -> TokenRequest {
    TokenRequest::access_token(Scopes::default())
}

/// The token's text, once there is one, and the time from the call until then.
async fn served(cache: &TokenCache) -> (String, Duration) {
    let begun = Instant::now();
    let token = async {
        loop {
            match cache.token(&wanted()).await {
                Ok(token) => return token,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let token = timeout(2 * HEALED, token).await.expect("never healed");
    (token.expose_secret().to_owned(), begun.elapsed())
}

/// Sends requests for this long, none of which gets a token; returns the last error.
async fn in_vain(cache: &TokenCache, span: Duration) -> AuthError {
    let begun = Instant::now();
    let mut last = None;
    while begun.elapsed() < span {
        if let Ok(result) = timeout(Duration::from_millis(100), cache.token(&wanted())).await {
            last = Some(result.expect_err("nobody can have answered"));
        }
        last = cache.status(&wanted()).last_error().cloned().or(last);
        sleep(Duration::from_millis(20)).await;
    }
    last.expect("an attempt has failed by now")
}

fn on_address(address: &str, port: u16, token: &'static str) -> FakeMds {
    let listener = TcpListener::bind((address, port)).unwrap();
    FakeMds::start_on(listener, 0, move |_| Reply::token(token, 3599))
}

fn port_of(mds: &FakeMds) -> u16 {
    mds.endpoint().parse::<SocketAddr>().unwrap().port()
}

async fn resolves_later(folder: &str, after: Duration, attempts: u32) {
    let mds = FakeMds::healthy();
    let cache = cache(port_of(&mds));
    let error = in_vain(&cache, after).await;
    assert!(error.is_connect(), "{error:?}");
    assert!(error.to_string().contains(NAME), "{error}");
    let status = cache.status(&wanted());
    let failed = status.last_error().unwrap().attempts();
    assert!(
        failed >= attempts,
        "each attempt resolves anew: {failed} in {after:?}"
    );
    assert_eq!(mds.connections(), 0);
    resolve_to(folder, "127.0.0.1");
    let (token, took) = served(&cache).await;
    assert_eq!(token, "ya29.tok-1");
    assert!(took <= HEALED, "{took:?} after the name resolved");
}

#[tokio::test]
async fn s044_a_name_that_resolves_later() {
    match told() {
        None => in_a_namespace("s044_a_name_that_resolves_later"),
        Some(folder) => resolves_later(&folder, Duration::from_secs(4), 2).await,
    }
}

#[tokio::test]
#[ignore = "the full size of s044: a minute and more"]
async fn s044_a_name_that_resolves_after_a_minute() {
    match told() {
        None => in_a_namespace("s044_a_name_that_resolves_after_a_minute"),
        Some(folder) => resolves_later(&folder, Duration::from_secs(60), 8).await,
    }
}

#[tokio::test]
async fn s071_a_name_that_resolves_to_another_address() {
    let Some(folder) = told() else {
        return in_a_namespace("s071_a_name_that_resolves_to_another_address");
    };
    // Addresses that only this process uses: another test's server may get the port once it is free.
    let [.., high, low] = std::process::id().to_be_bytes();
    let [first_address, second_address] = [1, 2].map(|last| format!("127.{high}.{low}.{last}"));
    resolve_to(&folder, &first_address);
    let here = on_address(&first_address, 0, "tok-here");
    let port = port_of(&here);
    let cache = cache(port);
    let (first, _) = served(&cache).await;
    assert_eq!(first, "tok-here");

    // The server goes away; the name still points to where it was; the token is no longer of use.
    drop(here);
    let token = cache.token(&wanted()).await.unwrap();
    assert!(cache.invalidate(&token));
    let error = in_vain(&cache, Duration::from_secs(2)).await;
    assert!(error.is_connect(), "{error:?}");

    let there = on_address(&second_address, port, "tok-there");
    assert_eq!(there.connections(), 0);
    resolve_to(&folder, &second_address);
    let (second, took) = served(&cache).await;
    assert_eq!(second, "tok-there");
    assert!(took <= HEALED, "{took:?} after the name moved");
}
