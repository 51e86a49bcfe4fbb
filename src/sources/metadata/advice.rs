//! What a response other than 200 from a metadata server means, and what to do about it.
//!
//! Pure except for the wall clock, which is used to interpret a `Retry-After` date. Bodies are never
//! read here: they may hold anything.

use std::{
    io,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header};

use super::entry::Entry;
use crate::{
    error::{AuthError, Kind},
    text,
};

/// Longest piece of an audience that a message quotes, in characters.
const SHOWN: usize = 120;

pub(super) fn unreachable(authority: &str, error: io::Error) -> AuthError {
    let reason = format!(
        "cannot connect to the metadata server at {authority}: outside Google Cloud there is none \
         (for local development, run the emulator and set GCE_METADATA_HOST, or use another source)"
    );
    AuthError::caused(Kind::Connect, reason, error)
}

pub(super) fn status(
    authority: &str,
    entry: Entry<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    is_google: bool,
) -> AuthError {
    let advice = match status.as_u16() {
        300..=399 => "redirects are not followed: a metadata server sends none for a token",
        400 => match entry {
            Entry::IdToken(..) => "it refused the request's parameters: check the audience",
            _ => "it refused the request's parameters: check the scopes",
        },
        401 => {
            "something in between wants a login: nothing but the metadata server may answer here"
        }
        403 => {
            "check that the metadata server is not disabled or concealed and that no proxy adds \
             X-Forwarded-For; on GKE, that the Kubernetes service account is bound to the Google \
             one (roles/iam.workloadIdentityUser; a new binding takes minutes)"
        }
        404 | 500..=599 if matches!(entry, Entry::IdToken(..)) => {
            "check that a service account is attached and that the account's name is right; on GKE, \
             there are ID tokens only for a Kubernetes service account that impersonates a Google \
             one (annotation iam.gke.io/gcp-service-account); it will be asked again"
        }
        404 => {
            "check that a service account is attached to this instance, that it has scopes, and \
             that the account's name is right"
        }
        429 => "it limits the rate of requests; it will be asked again later",
        500..=599 => "it has trouble of its own (it may be starting); it will be asked again",
        _ => "a metadata server answers 200",
    };
    let stranger = if is_google {
        ""
    } else {
        " (and may not be one: it lacks Metadata-Flavor)"
    };
    let what = match entry {
        Entry::IdToken(audience, _) => {
            let shown = text::clipped(audience, SHOWN);
            format!(" to a request for an ID token for {shown:?}")
        }
        Entry::AccessToken(_) => String::new(),
        Entry::Scopes => " to a request for its scopes".to_owned(),
        Entry::UniverseDomain => " to a request for the universe's domain".to_owned(),
    };
    let reason =
        format!("the metadata server at {authority}{stranger} answered {status}{what}: {advice}");
    AuthError::status_of(
        status.as_u16(),
        reason,
        retry_after(headers, SystemTime::now()),
    )
}

/// Parses seconds, or an HTTP date. Anything else counts as absent.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit exceeds any cap.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date counts whole seconds: the rest of the current second has to pass as well.
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::{sources::metadata::entry::IdTokenForm, token::request::Scopes};

    fn parse(value: &[u8]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_bytes(value).unwrap());
        retry_after(&headers, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn s046_retry_after_forms() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(parse(b"7"), seconds(7));
        assert_eq!(parse(b" 7 "), seconds(7));
        assert_eq!(parse(b"3600"), seconds(3600));
        assert_eq!(parse(b"0"), seconds(0));
        assert_eq!(parse(b"99999999999999999999999999"), seconds(u64::MAX));
        assert_eq!(parse(b"Thu, 01 Jan 1970 00:00:07 GMT"), seconds(7));
        for absent in [&b"-1"[..], b"abc", b"1e18", b"", b"7.5", b"\xff", b"7, 8"] {
            assert_eq!(parse(absent), None, "{absent:?}");
        }
        let past = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        let mut headers = HeaderMap::new();
        let date = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:07 GMT");
        headers.insert(header::RETRY_AFTER, date);
        assert_eq!(retry_after(&headers, past), seconds(0));
    }

    #[test]
    fn s048_messages_say_what_to_check() {
        let message = |code: u16| {
            let code = StatusCode::from_u16(code).unwrap();
            let scopes = Scopes::default();
            let entry = Entry::AccessToken(&scopes);
            status("169.254.169.254", entry, code, &HeaderMap::new(), true).to_string()
        };
        assert!(message(404).contains("404") && message(404).contains("service account"));
        assert!(message(403).contains("403") && message(403).contains("workloadIdentityUser"));
        assert!(message(400).contains("scopes"));
        assert!(message(302).contains("redirect"));
    }

    #[test]
    fn s048_messages_about_id_tokens_name_the_audience_and_what_gke_wants() {
        let message = |audience: &str, code: u16| {
            let form = IdTokenForm {
                full: true,
                licenses: false,
            };
            let (entry, code) = (
                Entry::IdToken(audience, form),
                StatusCode::from_u16(code).unwrap(),
            );
            status("169.254.169.254", entry, code, &HeaderMap::new(), true).to_string()
        };
        let bad = message("https://a.run.app", 400);
        assert!(
            bad.contains("audience") && bad.contains("https://a.run.app"),
            "{bad}"
        );
        for code in [404, 500] {
            let gke = message("a", code);
            assert!(gke.contains("iam.gke.io/gcp-service-account"), "{gke}");
        }
        assert!(message("a", 403).contains("workloadIdentityUser"));
        assert!(message(&"x".repeat(8_000), 400).len() < 600);
    }
}
