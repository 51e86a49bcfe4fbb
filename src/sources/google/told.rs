//! Error messages of `google-cloud-auth`, made fit for an error. Pure.
//!
//! Its messages quote response bodies (`body=<...>`, `:b"..."`), and its parser's quote what a
//! credentials file holds. So each message is cut where a quotation begins, and the original error is
//! not kept.

use std::error::Error;

use crate::{
    error::{AuthError, Kind},
    sources::remark,
};

/// How many causes deep the message goes.
const DEEPEST: usize = 4;

pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = unquoted(&error.to_string()).to_owned();
    let mut cause = error.source();
    for _ in 0..DEEPEST {
        let Some(error) = cause else { break };
        let text = error.to_string();
        let told = unquoted(&text);
        if !told.is_empty() && !words.contains(told) {
            words.push_str(": ");
            words.push_str(told);
        }
        cause = error.source();
    }
    remark::secretless(&words)
}

/// The text up to where something is quoted.
fn unquoted(text: &str) -> &str {
    let quoted = text.find(['<', '{', '"']).unwrap_or(text.len());
    let told = text.get(..quoted).unwrap_or_default();
    let told = told
        .strip_suffix(":b")
        .or(told.strip_suffix(", body="))
        .unwrap_or(told);
    told.trim_end_matches([' ', ':', ','])
}

pub(super) fn panicked() -> AuthError {
    let reason = "google-cloud-auth panicked: the runtime on which its credentials were built is \
                  gone, or there is no rustls crypto provider (enable its feature \
                  default-rustls-provider, or install one)";
    AuthError::new(Kind::Panic, reason)
}

#[cfg(test)]
mod tests {
    use google_cloud_auth::errors::CredentialsError;

    use super::*;

    const SECRET: &str = "s3cret";

    #[test]
    fn s133_no_body_and_no_file_is_repeated() {
        for message in [
            format!("failed to exchange, body=<{SECRET}>"),
            format!("failed to fetch access token :b\"{SECRET}\""),
            format!("it answered {{\"access_token\":\"{SECRET}\"}}"),
            format!("invalid type: string \"{SECRET}\", expected a map"),
        ] {
            let inner = CredentialsError::from_msg(true, message.clone());
            let outer = CredentialsError::new(true, message, inner);
            let told = words(&outer);
            assert!(!told.contains(SECRET), "{told}");
            assert!(told.len() > 10, "{told}");
        }
    }

    #[test]
    fn causes_are_told_once() {
        let cause = std::io::Error::other("connection refused");
        let error = CredentialsError::new(true, "failed to fetch token", cause);
        assert_eq!(
            words(&error),
            "failed to fetch token but future attempts may succeed: connection refused"
        );
    }
}
