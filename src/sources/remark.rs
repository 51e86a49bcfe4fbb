//! Foreign text made fit for an error: one short line, without anything that could be a secret. Pure.
//!
//! Programs and libraries that handle tokens report errors in a line worth showing, but sometimes
//! repeat a token in it. Words that could be one are therefore left out.

use crate::text;

/// Longest piece of text that is shown, in characters.
const SHOWN: usize = 240;

/// Replaces a word that could be a secret.
#[cfg(any(feature = "gcloud", feature = "google-cloud-auth"))]
pub(super) const LEFT_OUT: &str = "[left out]";

/// Shortens text to one line: for text that holds no secrets.
pub(super) fn short(text: &str) -> String {
    text::on_one_line(text, SHOWN)
}

/// Shortens text to one line, without words that could be secrets.
#[cfg(any(feature = "gcloud", feature = "google-cloud-auth"))]
pub(super) fn secretless(text: &str) -> String {
    let mut words = Vec::new();
    let mut introduced = false;
    let alone = text.split_whitespace().nth(1).is_none();
    for word in text.split_whitespace() {
        let secret = introduced || could_be_secret(word) || alone && could_be_token(word);
        introduced = introduces(word);
        words.push(if secret { LEFT_OUT } else { word });
    }
    short(&words.join(" "))
}

/// Matches the prefixes of Google's secrets, and random text as it occurs in secrets: no natural word
/// and no project name is a run of 20 letters, digits, `-` and `_` that has both cases and a digit, or
/// a run of 32 that has a letter and a digit.
#[cfg(any(feature = "gcloud", feature = "google-cloud-auth"))]
fn could_be_secret(word: &str) -> bool {
    const BEGINNINGS: [&str; 5] = ["ya29.", "eyJ", "1//", "GOCSPX-", "AIza"];

    let random = |run: &str| {
        let has = |test: fn(&u8) -> bool| run.as_bytes().iter().any(test);
        let digit = has(u8::is_ascii_digit);
        let (upper, lower) = (has(u8::is_ascii_uppercase), has(u8::is_ascii_lowercase));
        run.len() >= 20 && digit && upper && lower || run.len() >= 32 && digit && (upper || lower)
    };
    BEGINNINGS.iter().any(|beginning| word.contains(beginning))
        || word
            .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
            .any(random)
}

/// For a word alone on its line; a sentence has more than one word.
#[cfg(any(feature = "gcloud", feature = "google-cloud-auth"))]
fn could_be_token(word: &str) -> bool {
    const LEAST: usize = 12;

    word.len() >= LEAST && super::reading::plain::is_b64token(word)
}

/// True if the next word is a secret.
#[cfg(any(feature = "gcloud", feature = "google-cloud-auth"))]
fn introduces(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word == "bearer" || word.ends_with("token:") || word.ends_with("token=")
}

#[cfg(all(test, feature = "gcloud"))]
mod tests {
    use super::*;

    #[test]
    fn names_of_projects_and_accounts_stay() {
        for line in [
            "ERROR: sa-2024@my-project-123456.iam.gserviceaccount.com lacks roles/iam.x",
            "ERROR: projects/my-quite-long-project-123456 not found at https://iam.googleapis.com/v1",
            "gcloud: command not found",
            "ModuleNotFoundError: No module named 'grpc'",
        ] {
            assert_eq!(secretless(line), line);
        }
    }

    #[test]
    fn what_could_be_a_token_goes() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjF9.c2ln";
        for token in [
            "ya29.a0AfH6SMBx",
            jwt,
            "1//0gabc",
            "0123456789abcdef0123456789abcdef",
            "aB3aB3aB3aB3aB3aB3aB3",
        ] {
            for line in [
                token.to_owned(),
                format!("ERROR: got {token}"),
                format!("ERROR: got '{token}', sorry"),
                format!("ERROR: access_token={token}"),
                format!("Authorization: Bearer {token}"),
            ] {
                let told = secretless(&line);
                assert!(!told.contains(token) && told.contains(LEFT_OUT), "{told}");
            }
        }
        assert_eq!(secretless("a-short-token"), LEFT_OUT);
        assert_eq!(
            secretless("refresh token: abc"),
            format!("refresh token: {LEFT_OUT}")
        );
    }

    #[test]
    fn one_short_line_whatever_it_holds() {
        let long = format!("\u{1b}[31mred \u{0}\u{7}\r\n {}", "word ".repeat(1000));
        for told in [short(&long), secretless(&long)] {
            assert!(told.chars().count() <= SHOWN + 1);
            assert!(!told.chars().any(char::is_control), "{told:?}");
        }
    }
}
