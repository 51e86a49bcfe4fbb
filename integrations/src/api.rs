//! An HTTP API on loopback that requires exactly one valid token with every request, or answers 401.

use std::{io, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::net::TcpListener;
use tower_scoped_auth::emulator::Emulator;

/// Serves `app` behind the guard until the runtime ends; returns its origin, `http://127.0.0.1:PORT`.
pub async fn serve(mds: &Arc<Emulator>, app: Router) -> io::Result<String> {
    let guard = middleware::from_fn_with_state(Arc::clone(mds), admit);
    open(app.layer(guard)).await
}

/// Serves `app` without the guard.
pub async fn open(app: Router) -> io::Result<String> {
    // Clients with TLS built in need a crypto provider even for plain http. The first call installs
    // one; later calls return an error, and change nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(origin)
}

/// The request's token, if it carries exactly one.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok()?.strip_prefix("Bearer "),
        _ => None,
    }
}

async fn admit(State(mds): State<Arc<Emulator>>, request: Request, next: Next) -> Response {
    let valid = bearer(request.headers()).is_some_and(|token| mds.is_valid(token));
    if valid {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "a valid token, please").into_response()
    }
}
