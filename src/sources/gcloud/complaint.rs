//! What a failed program wrote to stderr, fit to stand in an error. Pure.
//!
//! The line that says what is wrong is worth showing; a token never is, and a program that was asked
//! for one may write it anywhere. So a word that could be a token is left out, and so is a line that
//! repeats what stands on stdout.

/// Longest piece of a line that is shown, in characters.
const SHOWN: usize = 240;

/// A word in place of one that could be a secret.
const LEFT_OUT: &str = "[left out]";

/// The line gcloud begins with `ERROR:`, and the last line if that is another one.
pub(super) fn summary(stderr: &[u8], stdout: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines().next_back()?;
    let error = lines().rfind(|line| line.starts_with("ERROR:"));
    match error.filter(|error| *error != last) {
        Some(error) => {
            let (error, last) = (shown(error, stdout), shown(last, stdout));
            Some(format!("{error} ... {last}"))
        }
        None => Some(shown(last, stdout)),
    }
}

fn shown(line: &str, stdout: &[u8]) -> String {
    if repeats(line, stdout) {
        return LEFT_OUT.to_owned();
    }
    let mut shown = String::new();
    let mut introduced = false;
    let mut words = line.split_whitespace().peekable();
    let alone = line.split_whitespace().nth(1).is_none();
    while let Some(word) = words.next() {
        let secret = introduced || could_be_secret(word) || (alone && could_be_token(word));
        introduced = introduces(word);
        let word = if secret { LEFT_OUT } else { word };
        // One line, whatever the terminal would make of it.
        shown.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
        if words.peek().is_some() {
            shown.push(' ');
        }
    }
    if shown.chars().count() > SHOWN {
        shown = shown.chars().take(SHOWN).collect();
        shown.push('…');
    }
    shown
}

/// Some of what stands on stdout stands here as well.
fn repeats(line: &str, stdout: &[u8]) -> bool {
    /// Shorter words are those of the language.
    const LEAST: usize = 6;

    String::from_utf8_lossy(stdout)
        .split_whitespace()
        .any(|word| word.len() >= LEAST && line.contains(word))
}

/// How Google's secrets begin, and random text as secrets are made of: no word of a language and no
/// project's name is a run of 20 letters, digits, `-` and `_` that has both cases and a digit, or
/// one of 32 that has a letter and a digit.
fn could_be_secret(word: &str) -> bool {
    const BEGINNINGS: [&str; 6] = ["ya29.", "eyJ", "1//", "GOCSPX-", "AIza", "ghp_"];

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

/// Alone on its line, where a sentence has more than one word.
fn could_be_token(word: &str) -> bool {
    const LEAST: usize = 12;

    word.len() >= LEAST && super::plain::is_b64token(word)
}

/// The next word is a secret.
fn introduces(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word == "bearer" || word.ends_with("token:") || word.ends_with("token=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stderr: &str) -> String {
        summary(stderr.as_bytes(), b"").unwrap_or_default()
    }

    #[test]
    fn the_line_that_says_what_is_wrong() {
        let no_account = "ERROR: (gcloud.auth.print-access-token) You do not currently have an \
                          active account selected.";
        let hint = "to select an already authenticated account to use.";
        assert_eq!(told(&format!("WARNING: old\n{no_account}\n\n")), no_account);
        assert_eq!(
            told(&format!(
                "{no_account}\nPlease run:\n\n  $ gcloud auth login\n\n{hint}\n"
            )),
            format!("{no_account} ... {hint}")
        );
        assert_eq!(told("one\r\ntwo three\r\n"), "two three");
        assert_eq!(summary(b" \n\t\n", b""), None);
        assert_eq!(summary(b"", b""), None);
    }

    #[test]
    fn names_of_projects_and_accounts_stay() {
        for line in [
            "ERROR: sa-2024@my-project-123456.iam.gserviceaccount.com lacks roles/iam.x",
            "ERROR: projects/my-quite-long-project-123456 not found at https://iam.googleapis.com/v1",
            "gcloud: command not found",
            "ModuleNotFoundError: No module named 'grpc'",
        ] {
            assert_eq!(told(line), line);
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
                let told = told(&line);
                assert!(!told.contains(token) && told.contains(LEFT_OUT), "{told}");
            }
        }
        assert_eq!(told("a-short-token"), LEFT_OUT);
        assert_eq!(
            told("refresh token: abc"),
            format!("refresh token: {LEFT_OUT}")
        );
        assert_eq!(
            summary(b"ERROR: cannot use abcdef here", b"abcdef\n").unwrap(),
            LEFT_OUT
        );
    }

    #[test]
    fn one_short_line_whatever_it_holds() {
        let told = told(&format!(
            "\u{1b}[31mred \u{0}\u{7} {}",
            "word ".repeat(1000)
        ));
        assert!(told.chars().count() <= SHOWN + 1);
        assert!(!told.chars().any(char::is_control), "{told:?}");
        assert!(summary(&[0xff; 100], b"").is_some());
    }
}
