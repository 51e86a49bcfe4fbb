//! `TokenFile` on real files, replaced as people and Kubernetes replace them.
//!
//! Time is virtual for the wall clock only (`TestClock::suspend`): files are read in real time, and
//! two reads are a real second apart.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::Duration,
};

use http::StatusCode;
use support::{BUCKET, Folder, Inner, auth_error, jwt, jwt_for, send};
use tokio::time::{Instant, sleep, timeout};
use tower::Layer;
use tower_scoped_auth::{
    AuthError, ScopedAuthLayer, Scopes, TokenCache, TokenRequest, TokenSource, TokenState,
    sources::TokenFile, test_util::TestClock,
};

/// No test takes longer, however busy the machine.
const LONG: Duration = Duration::from_secs(120);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn any() -> TokenRequest {
    TokenRequest::access_token(Scopes::default())
}

async fn read(path: &Path) -> Result<String, AuthError> {
    let token = TokenFile::new(path).fetch(any()).await?;
    Ok(token.expose_secret().to_owned())
}

/// A cache over one file, and the clock that drives it.
struct Watched {
    cache: TokenCache,
    clock: TestClock,
}

impl Watched {
    fn new(path: &Path) -> Self {
        let clock = TestClock::new();
        let cache = TokenCache::builder(TokenFile::new(path)).clock(clock.clone());
        Self {
            cache: cache.build().unwrap(),
            clock,
        }
    }

    async fn token(&self) -> Result<String, AuthError> {
        let token = self.cache.token(&any()).await?;
        Ok(token.expose_secret().to_owned())
    }

    /// Asks until `expected` comes; anything that comes earlier must be `before`.
    async fn turns_into(&self, before: &str, expected: &str) {
        let begun = Instant::now();
        loop {
            let token = self.token().await.unwrap();
            if token == expected {
                return;
            }
            assert_eq!(token, before);
            assert!(begun.elapsed() < LONG, "it was never read again");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Asks until a read has failed, and gets `token` each time.
    async fn keeps_through_a_failure(&self, token: &str) {
        let begun = Instant::now();
        while self.cache.status(&any()).last_error().is_none() {
            assert_eq!(self.token().await.unwrap(), token);
            assert!(begun.elapsed() < LONG, "no reading failed");
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.token().await.unwrap(), token);
    }

    fn expires_in(&self) -> Duration {
        self.cache.status(&any()).expires_in().unwrap()
    }
}

/// Why there is no token, without waiting until there might be one.
async fn failure(cache: &TokenCache) -> AuthError {
    let begun = Instant::now();
    loop {
        // The attempt goes on after its caller has left.
        let asked = timeout(Duration::from_millis(1), cache.token(&any())).await;
        assert!(!matches!(asked, Ok(Ok(_))), "there is a token");
        if let Some(error) = cache.status(&any()).last_error() {
            return error.clone();
        }
        assert!(begun.elapsed() < LONG, "nothing failed");
    }
}

/// The way that careful programs replace a file.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn white_space_is_trimmed() {
    let folder = Folder::new();
    let path = folder.join("token");
    for text in ["secret", "secret\n", "  secret\r\n\r\n"] {
        fs::write(&path, text).unwrap();
        assert_eq!(read(&path).await.unwrap(), "secret");
    }
}

#[tokio::test]
async fn it_is_read_again_once_a_minute() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "one").unwrap();
    let file = Watched::new(&path);
    assert_eq!(file.token().await.unwrap(), "one");
    replace(&path, "two");

    // Not early: the last few seconds of the minute are the schedule's jitter.
    file.clock.suspend(seconds(50));
    assert_eq!(file.cache.status(&any()).state(), TokenState::Fresh);
    assert_eq!(file.token().await.unwrap(), "one");
    file.clock.suspend(seconds(20));
    file.turns_into("one", "two").await;
    assert!(file.expires_in() > seconds(110));
}

#[tokio::test]
async fn the_same_token_again_lives_on() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "one").unwrap();
    let file = Watched::new(&path);
    for _ in 0..3 {
        assert_eq!(file.token().await.unwrap(), "one");
        let begun = Instant::now();
        while file.expires_in() < seconds(100) {
            assert_eq!(file.token().await.unwrap(), "one");
            assert!(begun.elapsed() < LONG);
            sleep(Duration::from_millis(1)).await;
        }
        file.clock.suspend(seconds(70));
    }
    assert_eq!(file.cache.status(&any()).generation(), 1);
}

#[tokio::test]
async fn the_pace_can_be_chosen() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "one").unwrap();
    for (pace, life) in [(1, 2), (60, 120), (600, 825), (3600, 3825)] {
        let source = TokenFile::builder(&path)
            .reread(seconds(pace))
            .build()
            .unwrap();
        let token = source.fetch(any()).await.unwrap();
        assert_eq!(token.lifetime(), Some(seconds(life)));
    }
}

#[tokio::test]
async fn the_pace_is_the_same_under_a_short_lead() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "one").unwrap();
    let clock = TestClock::new();
    let cache = TokenCache::builder(TokenFile::new(&path))
        .clock(clock.clone())
        .refresh_lead(seconds(1))
        .build()
        .unwrap();
    cache.token(&any()).await.unwrap();
    clock.suspend(seconds(59));
    assert_eq!(cache.status(&any()).state(), TokenState::Fresh);
    clock.suspend(seconds(11));
    let state = cache.status(&any()).state();
    assert_eq!(state, TokenState::Stale, "a minute and its jitter");
}

/// <https://kubernetes.io/docs/concepts/storage/volumes/>: `token` is a link to `..data/token`, and
/// `..data` a link to a folder; the kubelet makes a new folder and a new link, and renames the link.
#[tokio::test]
async fn kubernetes_swaps_a_symlink() {
    let folder = Folder::new();
    let publish = |version: &str, token: &str| {
        let data = format!("..2026_11_25_{version}");
        fs::create_dir(folder.join(&data)).unwrap();
        fs::write(folder.join(&data).join("token"), token).unwrap();
        symlink(&data, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    let tokens: Vec<String> = (0..3).map(|n| jwt_for(3600 + n, &n.to_string())).collect();
    publish("0", &tokens[0]);
    symlink("..data/token", folder.join("token")).unwrap();
    let file = Watched::new(&folder.join("token"));
    assert_eq!(file.token().await.unwrap(), tokens[0]);
    for version in 1..tokens.len() {
        publish(&version.to_string(), &tokens[version]);
        let old = folder.join(format!("..2026_11_25_{}", version - 1));
        fs::remove_dir_all(old).unwrap();
        file.clock.suspend(seconds(70));
        file.turns_into(&tokens[version - 1], &tokens[version])
            .await;
    }
}

#[tokio::test]
async fn the_exp_of_a_jwt_ends_its_use() {
    let folder = Folder::new();
    let path = folder.join("token");
    for (left, expected) in [(3600, 120), (90, 90)] {
        fs::write(&path, jwt_for(left, "1")).unwrap();
        let file = Watched::new(&path);
        file.token().await.unwrap();
        let (least, most) = (seconds(expected - 5), seconds(expected));
        assert!((least..=most).contains(&file.expires_in()), "{left}");
    }

    fs::write(&path, jwt_for(-1, "1")).unwrap();
    let error = failure(&TokenCache::new(TokenFile::new(&path))).await;
    assert!(error.to_string().contains("expired"), "{error}");

    // A JWT without an expiry is treated like any other text.
    fs::write(&path, jwt("{}", "{}")).unwrap();
    let token = TokenFile::new(&path).fetch(any()).await.unwrap();
    assert_eq!(token.lifetime(), Some(seconds(120)));
    fs::write(&path, jwt("{}", r#"{"exp":"soon"}"#)).unwrap();
    assert!(read(&path).await.unwrap_err().is_response());
}

#[tokio::test]
async fn a_file_that_goes_costs_nothing_for_a_minute() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "one").unwrap();
    let file = Watched::new(&path);
    assert_eq!(file.token().await.unwrap(), "one");

    fs::remove_file(&path).unwrap();
    file.clock.suspend(seconds(70));
    file.keeps_through_a_failure("one").await;
    assert!(file.expires_in() > seconds(40));

    // Its life is over, and no new token came: an error, until the file is back.
    file.clock.suspend(seconds(60));
    let error = failure(&file.cache).await;
    assert!(
        error.to_string().contains("check that it is there"),
        "{error}"
    );
    fs::write(&path, "two").unwrap();
    let begun = Instant::now();
    while file.token().await.is_err() {
        assert!(begun.elapsed() < LONG);
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(file.token().await.unwrap(), "two");
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_a_token() {
    let folder = Folder::new();
    let path = folder.join("token");
    let whole = jwt_for(3600, "1");
    fs::write(&path, &whole).unwrap();
    let file = Watched::new(&path);
    assert_eq!(file.token().await.unwrap(), whole);
    // Replaced in place, and read half-written.
    for part in ["", "\n", &whole[..10], &whole[..whole.rfind('.').unwrap()]] {
        fs::write(&path, part).unwrap();
        assert!(read(&path).await.unwrap_err().is_response(), "{part:?}");
    }
    file.clock.suspend(seconds(70));
    file.keeps_through_a_failure(&whole).await;
}

#[tokio::test]
async fn an_encrypted_jwt_is_opaque() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "eyJhbGciOiJSU0EifQ.a.b.c.d").unwrap();
    assert_eq!(read(&path).await.unwrap(), "eyJhbGciOiJSU0EifQ.a.b.c.d");
}

#[tokio::test]
async fn what_is_not_a_regular_file_is_an_error_at_once() {
    let folder = Folder::new();
    let fifo = folder.join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    symlink("fifo", folder.join("link-to-fifo")).unwrap();
    symlink("missing", folder.join("dangling")).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    for name in [
        "fifo",
        "link-to-fifo",
        "dangling",
        "loop",
        "folder",
        "missing",
        "/dev/zero",
    ] {
        let begun = Instant::now();
        let error = read(&folder.join(name)).await.unwrap_err();
        assert!(begun.elapsed() < seconds(4), "{name}");
        assert!(error.is_transient());
        let text = error.to_string();
        assert!(
            text.contains(name) && text.contains("regular file"),
            "{text}"
        );
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn a_large_file_is_not_read_to_its_end() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "x".repeat(8192)).unwrap();
    assert_eq!(read(&path).await.unwrap().len(), 8192);
    fs::write(&path, "x".repeat(8193)).unwrap();
    assert!(read(&path).await.is_err());
    // Sparse: it has nothing but its size.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = read(&path).await.unwrap_err();
    assert!(
        format!("{error:?}").contains("larger than any token"),
        "{error:?}"
    );
}

#[tokio::test]
async fn s133_no_error_repeats_the_file() {
    let folder = Folder::new();
    let path = folder.join("token");
    let secret = "0123456789abcdef";
    for text in [
        format!("{secret} {secret}"),
        format!("{secret}\n{secret}\n"),
        format!("eyJ{secret}"),
        format!("{{\"token\":\"{secret}\"}}"),
        format!("\u{feff}{secret}"),
        secret.repeat(1000),
    ] {
        fs::write(&path, text).unwrap();
        let error = read(&path).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("01234567"), "{text}");
        assert_eq!(error.to_string().lines().count(), 1);
    }
}

#[tokio::test]
async fn a_file_that_may_not_be_read_says_so() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Root can read everything.
    if fs::File::open(&path).is_err() {
        let error = read(&path).await.unwrap_err();
        assert!(error.to_string().contains("may be read"), "{error}");
    }
}

#[tokio::test]
async fn a_401_brings_the_next_reading_forward() {
    let folder = Folder::new();
    let path = folder.join("token");
    fs::write(&path, "revoked").unwrap();
    let inner = Inner::answering(|seen| match seen.token() {
        Some("good") => StatusCode::OK,
        _ => StatusCode::UNAUTHORIZED,
    });
    let client = ScopedAuthLayer::new(TokenFile::new(&path)).layer(inner.clone());
    let first = send(&client, BUCKET).await.unwrap();
    assert_eq!(first.status(), StatusCode::UNAUTHORIZED);
    replace(&path, "good");
    let second = send(&client, BUCKET).await.unwrap();
    assert_eq!(second.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_without_a_file_fails_with_its_name() {
    let folder = Folder::new();
    let cache = TokenCache::new(TokenFile::new(folder.join("not-there-yet")));
    failure(&cache).await;
    // A request that comes after a failure gets that error, unless the next attempt is near.
    let client = ScopedAuthLayer::from_cache(cache).layer(Inner::new());
    let error = send(&client, BUCKET).await.unwrap_err();
    let text = auth_error(&error).to_string();
    assert!(text.contains("not-there-yet"), "{text}");
}
