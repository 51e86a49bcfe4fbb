//! What an ID token of the emulated machine says.
//!
//! Pure. Knows the claims Google puts into one; knows nothing of keys, HTTP or caching.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::site::{INSTANCE, INSTANCE_ID, PROJECT_NUMBER, Site, ZONE};

/// The issuer of all of Google's ID tokens.
const ISSUER: &str = "https://accounts.google.com";

/// A service account's unique ID; a real one has 21 digits, too.
const SUBJECT: &str = "100000000000000000001";

/// When the instance was created, in seconds since 1970; any moment in the past will do.
const INSTANCE_MADE: u64 = 1_700_000_000;

/// That of a public image.
const LICENCE: &str = "1000207";

/// The claims of every ID token.
///
/// Google's have no `jti`. These do, so that no two are equal, because the signature has no random
/// part.
pub(super) fn claims(
    audience: &str,
    number: u64,
    now: SystemTime,
    lifetime: Duration,
) -> Map<String, Value> {
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = [
        ("aud", json!(audience)),
        ("azp", json!(SUBJECT)),
        // Whole seconds, rounded down: never more than the token has left.
        ("exp", json!(since_1970.saturating_add(lifetime).as_secs())),
        ("iat", json!(since_1970.as_secs())),
        ("iss", json!(ISSUER)),
        ("jti", json!(number.to_string())),
        ("sub", json!(SUBJECT)),
    ];
    claims
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// What `format=full` adds, and `licenses=TRUE` to that.
pub(super) fn of_the_instance(site: &Site, licenses: bool) -> Map<String, Value> {
    let mut instance = json!({
        "instance_confidentiality": 0,
        "instance_creation_timestamp": INSTANCE_MADE,
        "instance_id": INSTANCE_ID.to_string(),
        "instance_name": INSTANCE,
        "project_id": site.project_id,
        "project_number": PROJECT_NUMBER,
        "zone": ZONE,
    });
    if licenses && let Some(instance) = instance.as_object_mut() {
        instance.insert("license_id".to_owned(), json!([LICENCE]));
    }
    let claims = [
        ("email", json!(site.email)),
        ("email_verified", json!(true)),
        ("google", json!({ "compute_engine": instance })),
    ];
    claims
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_and_never_more_than_is_left() {
        let now = UNIX_EPOCH + Duration::from_millis(1_000_900);
        let claims = claims("https://a.run.app", 7, now, Duration::from_millis(60_050));
        assert_eq!(claims["iat"], 1_000);
        assert_eq!(claims["exp"], 1_060);
        assert_eq!(claims["aud"], "https://a.run.app");
        assert_eq!(claims["iss"], "https://accounts.google.com");
        assert_eq!(claims["azp"], claims["sub"]);
        assert!(!claims.contains_key("email"), "only with format=full");
    }

    #[test]
    fn the_instance_is_described_as_on_compute_engine() {
        let site = Site::default();
        let full = of_the_instance(&site, false);
        assert_eq!(full["email"], site.email);
        assert_eq!(full["email_verified"], true);
        let instance = &full["google"]["compute_engine"];
        assert_eq!(instance["project_id"], "test-project");
        assert!(instance["project_number"].is_u64() && instance["instance_id"].is_string());
        assert_eq!(instance["zone"], "us-central1-a");
        assert!(instance.get("license_id").is_none());
        let licensed = of_the_instance(&site, true);
        assert!(licensed["google"]["compute_engine"]["license_id"].is_array());
    }
}
