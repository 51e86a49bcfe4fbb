//! A real HTTP server on loopback that checks the token of each request, as a Google API would.

#![allow(dead_code)] // each example uses its own part

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
};
use tokio::net::TcpListener;
use tower_scoped_auth::emulator::Emulator;

/// Listens until the runtime ends. Answers 200 and the token's generation, or 401.
pub(crate) async fn serve(mds: Arc<Emulator>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let app = Router::new().fallback(move |headers: HeaderMap| {
        let answer = check(&mds, &headers);
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(addr)
}

fn check(mds: &Emulator, headers: &HeaderMap) -> (StatusCode, String) {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let token = match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(value)), None) => value.strip_prefix("Bearer ").unwrap_or_default(),
        _ => {
            return (
                StatusCode::UNAUTHORIZED,
                "exactly one Authorization, please".to_owned(),
            );
        }
    };
    match mds.generation_of(token) {
        Some(generation) if mds.is_valid(token) => (StatusCode::OK, generation.to_string()),
        Some(generation) => (
            StatusCode::UNAUTHORIZED,
            format!("{generation} has expired"),
        ),
        None => (StatusCode::UNAUTHORIZED, "unknown token".to_owned()),
    }
}
