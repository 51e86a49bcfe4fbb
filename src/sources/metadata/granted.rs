//! Does the instance have the requested scopes? Pure.
//!
//! Compute Engine accepts `?scopes=` and ignores it: a token there has the scopes the instance was
//! given.

use crate::{
    error::{AuthError, Kind},
    text,
    token::request::{Scopes, scopes::CLOUD_PLATFORM},
};

/// Number of scopes that a message names; the rest are counted.
const NAMED: usize = 5;

/// Longest piece of one scope that a message quotes, in characters.
const SHOWN: usize = 100;

/// `list` is the body of `.../scopes`, one per line. `cloud-platform` covers all.
pub(super) fn check(asked: &Scopes, list: &[u8]) -> Result<(), AuthError> {
    let list = String::from_utf8_lossy(list);
    let has = |scope: &str| list.lines().any(|line| line.trim() == scope);
    if has(CLOUD_PLATFORM) {
        return Ok(());
    }
    let missing: Vec<&str> = asked.iter().filter(|scope| !has(scope)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut named = String::new();
    for scope in missing.iter().take(NAMED) {
        let separator = if named.is_empty() { "" } else { ", " };
        let shown = text::clipped(scope, SHOWN);
        named.push_str(&format!("{separator}{shown}"));
    }
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let reason = format!(
        "this instance does not have the scopes {named}{more}, and its metadata server grants no \
         others: stop it and give it cloud-platform or these (gcloud compute instances \
         set-service-account --scopes), or ask for scopes that it has"
    );
    Err(AuthError::new(Kind::Request, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = "https://www.googleapis.com/auth/devstorage.read_only";
    const WRITE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

    fn missing(asked: &[&str], list: &str) -> Option<String> {
        let asked = Scopes::new(asked).unwrap();
        check(&asked, list.as_bytes()).err().map(|error| {
            assert!(!error.is_transient());
            error.to_string()
        })
    }

    #[test]
    fn s165_what_the_instance_has_not_is_named() {
        let list = format!("{READ}\nhttps://www.googleapis.com/auth/userinfo.email\r\n");
        assert_eq!(missing(&[READ], &list), None);
        assert_eq!(missing(&[], &list), None);
        let message = missing(&[READ, WRITE], &list).unwrap();
        assert!(
            message.contains(WRITE) && !message.contains(READ),
            "{message}"
        );
        assert!(message.contains("set-service-account"), "{message}");
        assert!(missing(&[READ], "").unwrap().contains(READ));
        assert!(
            missing(&["read"], &list).is_some(),
            "not by a part of a name"
        );
    }

    #[test]
    fn cloud_platform_covers_all() {
        let list = "https://www.googleapis.com/auth/cloud-platform\n";
        assert_eq!(missing(&[READ, WRITE], list), None);
        let cloud = "https://www.googleapis.com/auth/cloud-platform";
        assert!(
            missing(&[cloud], &format!("{READ}\n"))
                .unwrap()
                .contains(cloud)
        );
    }

    #[test]
    fn a_message_stays_short() {
        let many: Vec<String> = (0..60).map(|n| format!("{n}{}", "x".repeat(120))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let message = missing(&many, "\u{fffd}\n").unwrap();
        assert!(
            message.contains("and 55 more") && message.len() < 1_000,
            "{message}"
        );
        assert!(check(&Scopes::new(["a"]).unwrap(), &[0xff; 40]).is_err());
    }
}
