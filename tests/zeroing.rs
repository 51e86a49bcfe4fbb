//! s147: what the crate allocated for a token is zero when it is freed.
//!
//! The allocator checks every block that is freed. hyper's read buffer is the one documented exception:
//! it belongs to hyper, which does not clear it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use support::{BUCKET, FakeMds, Inner, Reply, send};
use tower::Layer;
use tower_scoped_auth::{
    Audience, ScopedAuthLayer, Scopes, Token, TokenCache, TokenRequest, source,
};

/// Every secret starts with this; it is long enough to rule out coincidences.
const MARK: &[u8] = b"zq7jx2vn9kp4wm6r";

struct Tap;

static WATCHING: AtomicBool = AtomicBool::new(false);
/// Sizes of the blocks that were freed with the mark still in them.
static FOUND: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
static COUNT: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is passed on unchanged to the system allocator; a block that is freed is
// valid for reads of its size until then.
unsafe impl GlobalAlloc for Tap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on. Zeroed, so that every byte may be read later.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if WATCHING.load(Ordering::Relaxed) && layout.size() >= MARK.len() {
            // SAFETY: see above; the block was zeroed when it was handed out.
            let block = unsafe { std::slice::from_raw_parts(pointer, layout.size()) };
            if block.windows(MARK.len()).any(|window| window == MARK) {
                let place = COUNT.fetch_add(1, Ordering::Relaxed);
                FOUND[place % FOUND.len()].store(layout.size(), Ordering::Relaxed);
            }
        }
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static TAP: Tap = Tap;

/// One test at a time, preparations included: the whole process shares the tap.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sizes of the blocks that were freed with the secret in them while `test` ran.
fn leaks(test: impl FnOnce()) -> Vec<usize> {
    COUNT.store(0, Ordering::Relaxed);
    WATCHING.store(true, Ordering::SeqCst);
    test();
    WATCHING.store(false, Ordering::SeqCst);
    (0..COUNT.load(Ordering::Relaxed).min(FOUND.len()))
        .map(|place| FOUND[place].load(Ordering::Relaxed))
        .collect()
}

fn secret() -> String {
    let mut secret = String::with_capacity(64);
    secret.push_str(std::str::from_utf8(MARK).unwrap());
    secret.push_str("8yb3hd5gf1sc0laqeuiowpzxvbnmkjhg");
    secret
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn the_tap_sees_what_is_not_cleared() {
    let _alone = alone();
    assert_eq!(leaks(|| drop(secret())), [64]);
}

#[test]
fn s147_a_token_of_a_source_leaves_nothing_behind() {
    let _alone = alone();
    let found = leaks(|| {
        let source = source::from_fn(|_: TokenRequest| async {
            Ok::<_, std::io::Error>(Token::new(secret(), Duration::from_secs(3600)))
        });
        let cache = TokenCache::new(source);
        let inner = Inner::new();
        let client = ScopedAuthLayer::from_cache(cache.clone()).layer(inner.clone());
        runtime().block_on(async {
            send(&client, BUCKET).await.unwrap();
            let wanted = TokenRequest::access_token(Scopes::default());
            let token = cache.token(&wanted).await.unwrap();
            cache.invalidate(&token);
            send(&client, BUCKET).await.unwrap();
        });
    });
    assert_eq!(found, [0; 0]);
}

/// hyper's read buffer, which starts at this size.
const HYPERS: usize = 8192;

#[test]
fn s147_an_answer_of_the_metadata_server_leaves_nothing_of_ours_behind() {
    let _alone = alone();
    let json = |rest: &str| format!(r#"{{"access_token":"{}",{rest}}}"#, secret());
    let answers = [
        json(r#""expires_in":3599,"token_type":"Bearer""#),
        json(r#""expires_in":0,"token_type":"Bearer""#),
        json(r#""expires_in":3599,"token_type":"MAC""#),
        json(r#""expires_in":3599"#),
        // Escapes, which a JSON parser can only undo in a copy.
        json(r#""expires_in":3599,"token_type":"Bearer""#).replace("8yb", r"8\/b"),
        json(r#""expires_in":3599,"token_type":"Bearer""#).replace("8yb", r"8\u0079b"),
    ];
    let answers = answers.map(|answer| (TokenRequest::access_token(Scopes::default()), answer));
    // An ID token has the mark in its signature, and in the parts that are decoded.
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let jwt = |claims: &str| {
        let claims = claims.replace("MARK", &secret());
        format!(
            "{}.{}.{}",
            part(r#"{"alg":"RS256"}"#),
            part(&claims),
            secret()
        )
    };
    let id_tokens = [
        jwt(r#"{"email":"MARK","exp":5000000000}"#),
        jwt(r#"{"email":"MARK","exp":5000000000}"#) + "\n",
        jwt(r#"{"email":"MARK","exp":"MARK"}"#),
        jwt(r#"{"email":"MARK"}"#),
        jwt("MARK"),
        secret(),
    ];
    let audience = Audience::new("a").unwrap();
    let id_tokens = id_tokens.map(|token| (TokenRequest::id_token(audience.clone()), token));
    for (wanted, answer) in answers.into_iter().chain(id_tokens) {
        let (sent, bytes) = std::sync::mpsc::channel();
        // Made outside what is watched, and leaked: the server is not part of the crate.
        let answer: &'static [u8] = Box::leak(Reply::ok(&answer).into_bytes().into_boxed_slice());
        let mds = FakeMds::start(move |_| {
            sent.send(()).unwrap();
            Reply::Static(answer)
        });
        let source = mds.source();
        let found = leaks(|| {
            let cache = TokenCache::builder(source).max_wait(Duration::from_millis(200));
            let cache = cache.build().unwrap();
            let _ = runtime().block_on(cache.token(&wanted));
            bytes.recv().unwrap();
        });
        assert!(
            found.iter().all(|size| *size == HYPERS),
            "{found:?} of {}",
            answer.len()
        );
    }
}
