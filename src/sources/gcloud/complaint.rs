//! What a failed program wrote to stderr, made fit for an error. Pure.

use crate::sources::remark;

/// Returns the line that gcloud begins with `ERROR:`, and the last line if it is a different one.
///
/// A line that repeats part of stdout is left out, because stdout was meant to hold a token.
pub(super) fn summary(stderr: &[u8], stdout: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let shown = |line| {
        if repeats(line, stdout) {
            remark::LEFT_OUT.to_owned()
        } else {
            remark::secretless(line)
        }
    };
    let last = lines().next_back()?;
    let error = lines().rfind(|line| line.starts_with("ERROR:"));
    match error.filter(|error| *error != last) {
        Some(error) => Some(format!("{} ... {}", shown(error), shown(last))),
        None => Some(shown(last)),
    }
}

fn repeats(line: &str, stdout: &[u8]) -> bool {
    /// Shorter words are ordinary language.
    const LEAST: usize = 6;

    String::from_utf8_lossy(stdout)
        .split_whitespace()
        .any(|word| word.len() >= LEAST && line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_what_is_wrong() {
        let told = |stderr: &str| summary(stderr.as_bytes(), b"").unwrap_or_default();
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
        assert!(summary(&[0xff; 100], b"").is_some());
    }

    #[test]
    fn s133_a_line_that_repeats_stdout_is_left_out() {
        assert_eq!(
            summary(b"ERROR: cannot use abcdef here", b"abcdef\n").unwrap(),
            remark::LEFT_OUT
        );
    }
}
