//! One exchange with the metadata server: connect, ask, read, close.
//!
//! A self-contained future: the same poll drives the connection and the request, so there is no second
//! task to outlive it and nothing to shut down. One exchange an hour needs no pool. The time limit is
//! up to the caller. Knows HTTP and bytes; does not know what a token is.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::SystemTime,
};

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::{
    advice,
    endpoint::Endpoint,
    entry::Entry,
    limited::{Limited, TooLarge},
};
use crate::error::{AuthError, BoxError, Kind};

/// Head and body together. A real response takes less than 2 KiB.
pub(super) const LARGEST_ANSWER: usize = 64 * 1024;

const FLAVOR: &str = "metadata-flavor";
const GOOGLE: &str = "Google";

/// How the metadata server of Compute Engine names itself in `Server`; it also answers on GKE nodes
/// without Workload Identity. On serverless platforms the name ends in `Serverless`.
const OF_A_MACHINE: &str = "Metadata Server for VM";

/// A 200 response.
pub(super) struct Answer {
    /// In a buffer that is zeroed when dropped.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// When the response was made, by the server's clock.
    pub(super) date: Option<SystemTime>,
    /// True if it comes from Compute Engine's server.
    pub(super) of_a_machine: bool,
}

/// Sends the `GET` request.
pub(super) async fn get(
    endpoint: &Endpoint,
    account: &str,
    entry: Entry<'_>,
    flavor_required: bool,
) -> Result<Answer, AuthError> {
    let authority = endpoint.authority();
    let stream = TcpStream::connect((endpoint.host(), endpoint.port()))
        .await
        .map_err(|error| advice::unreachable(&authority, error))?;
    let io = TokioIo::new(Limited::new(stream, LARGEST_ANSWER));
    // Upper-case initials, as in Google's documentation and every other client.
    let handshake = http1::Builder::new()
        .title_case_headers(true)
        .handshake(io)
        .await;
    let (mut sender, connection) = handshake.map_err(|error| broken(&authority, error))?;
    let request = request(&authority, &entry.path(account))?;
    let exchange = async {
        let response = sender.send_request(request).await;
        let (head, body) = response
            .map_err(|error| broken(&authority, error))?
            .into_parts();
        check(
            &authority,
            entry,
            head.status,
            &head.headers,
            flavor_required,
        )?;
        let body = collect(body)
            .await
            .map_err(|error| broken(&authority, error))?;
        Ok(Answer {
            body,
            date: date(&head.headers),
            of_a_machine: head
                .headers
                .get(header::SERVER)
                .is_some_and(|server| server == OF_A_MACHINE),
        })
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    let mut connected = true;
    poll_fn(|cx| {
        // Its result is reported by the exchange.
        connected = connected && connection.as_mut().poll(cx).is_pending();
        match exchange.as_mut().poll(cx) {
            // Polling the exchange may have given the connection something to do: a body's buffer to
            // refill, a request to write.
            Poll::Pending if connected => {
                connected = connection.as_mut().poll(cx).is_pending();
                if connected {
                    Poll::Pending
                } else {
                    exchange.as_mut().poll(cx)
                }
            }
            poll => poll,
        }
    })
    .await
}

fn request(authority: &str, path: &str) -> Result<Request<String>, AuthError> {
    let google = HeaderValue::from_static(GOOGLE);
    Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::HOST, authority)
        .header(FLAVOR, google)
        .body(String::new())
        .map_err(|error| {
            AuthError::caused(
                Kind::Request,
                "cannot be asked of the metadata server",
                error,
            )
        })
}

/// Checks that this is a 200 from a metadata server. When asking for the universe, a 404 is meaningful
/// too, but only the server's own: like all its responses, it has the header.
fn check(
    authority: &str,
    entry: Entry<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    flavor_required: bool,
) -> Result<(), AuthError> {
    let is_google = headers.get(FLAVOR).is_some_and(|flavor| flavor == GOOGLE);
    let tells = status == StatusCode::OK
        || status == StatusCode::NOT_FOUND && matches!(entry, Entry::UniverseDomain);
    if tells && flavor_required && !is_google {
        let reason = format!(
            "{authority} is not a metadata server: its answer lacks \"Metadata-Flavor: Google\" \
             (a captive portal or proxy?)"
        );
        return Err(AuthError::new(Kind::Response, reason));
    }
    if status != StatusCode::OK {
        return Err(advice::status(authority, entry, status, headers, is_google));
    }
    Ok(())
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    httpdate::parse_http_date(date).ok()
}

async fn collect(body: Incoming) -> Result<Zeroizing<Vec<u8>>, BoxError> {
    if body.size_hint().lower() > LARGEST_ANSWER as u64 {
        return Err(TooLarge.into());
    }
    // Allocated at full size from the start: a growing buffer leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_ANSWER));
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > LARGEST_ANSWER {
                return Err(TooLarge.into());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// The exchange broke, or the response exceeded the limit.
fn broken(authority: &str, error: impl Into<BoxError>) -> AuthError {
    let error = error.into();
    if is_too_large(&*error) {
        let reason = format!("the answer of {authority} is too large (more than 64 KiB)");
        return AuthError::new(Kind::Response, reason);
    }
    let parse = error
        .downcast_ref::<hyper::Error>()
        .is_some_and(|error| error.is_parse());
    let (kind, what) = if parse {
        (Kind::Response, "did not answer in HTTP")
    } else {
        (
            Kind::Connect,
            "closed the connection in the middle of the exchange",
        )
    };
    AuthError::caused(
        kind,
        format!("the metadata server at {authority} {what}"),
        error,
    )
}

fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inside = error
            .downcast_ref::<std::io::Error>()
            .and_then(|error| error.get_ref());
        if error.is::<TooLarge>() || inside.is_some_and(|error| error.is::<TooLarge>()) {
            return true;
        }
        next = error.source();
    }
    false
}
