//! A custom token source: `cargo run --example custom_source`.
//!
//! A source answers one question, "a token for this request, please". It keeps no cache, retries
//! nothing and reads no clock: that is the cache's job.

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use http::{Request, Response};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_scoped_auth::{ScopedAuthLayer, Token, TokenRequest, TokenSource, source};

/// A vault that is still sealed at the first attempt.
#[derive(Default)]
struct Vault {
    attempts: AtomicU32,
}

#[derive(Debug)]
struct Sealed;

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the vault is sealed")
    }
}

impl std::error::Error for Sealed {}

impl TokenSource for Vault {
    type Error = Sealed;

    async fn fetch(&self, request: TokenRequest) -> Result<Token, Sealed> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        println!("attempt {attempt}: {request}");
        if attempt == 1 {
            return Err(Sealed);
        }
        Ok(Token::new("from-the-vault", Duration::from_secs(600)))
    }

    fn name(&self) -> &'static str {
        "vault"
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Where the requests go: shows whether they carry a token, but never the token.
    let api = service_fn(|request: Request<()>| async move {
        let stamped = request.headers().contains_key(http::header::AUTHORIZATION);
        println!(
            "  {} {}",
            request.uri(),
            if stamped { "with a token" } else { "WITHOUT" }
        );
        Ok::<_, BoxError>(Response::new(()))
    });

    // A source can be a type. Its first attempt fails, and the request waits for the second.
    let client = ServiceBuilder::new()
        .layer(ScopedAuthLayer::new(Vault::default()))
        .service(api);
    for _ in 0..2 {
        let request = Request::get("https://storage.googleapis.com/bucket").body(())?;
        client.clone().oneshot(request).await?;
    }

    // Or it can be a closure.
    let auth = ScopedAuthLayer::new(source::from_fn(|request: TokenRequest| async move {
        println!("closure: {request}");
        Ok::<_, std::io::Error>(Token::new("secret", Duration::from_secs(3600)))
    }));
    let client = ServiceBuilder::new().layer(auth).service(api);
    let request = Request::get("https://pubsub.googleapis.com/v1/topics").body(())?;
    client.oneshot(request).await?;
    Ok(())
}
