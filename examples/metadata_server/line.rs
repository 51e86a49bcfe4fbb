//! One request as one line: method, path, query, status.

use tower_scoped_auth::emulator::RecordedRequest;

/// The parameters that the metadata server knows. The value of any other is not shown: it is not meant
/// for this server, and may be a secret.
const KNOWN: [&str; 9] = [
    "alt",
    "audience",
    "format",
    "last_etag",
    "licenses",
    "recursive",
    "scopes",
    "timeout_sec",
    "wait_for_change",
];

pub(crate) fn of(request: &RecordedRequest, status: u16) -> String {
    let (method, path) = (request.method(), request.uri().path());
    let query: Vec<_> = request.uri().query().into_iter().flat_map(shown).collect();
    match query.is_empty() {
        true => format!("{method} {path} {status}"),
        false => format!("{method} {path}?{} {status}", query.join("&")),
    }
}

fn shown(query: &str) -> impl Iterator<Item = String> {
    query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if KNOWN.contains(&name) => pair.to_owned(),
        Some(_) => "...".to_owned(),
        None if KNOWN.contains(&pair) => pair.to_owned(),
        None => "...".to_owned(),
    })
}
