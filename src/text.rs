//! Text shown to people: short enough for an error message or a log line. Pure.

use std::borrow::Cow;

/// At most `most` characters of `text`; the last one is `…` if some are cut off.
pub(crate) fn clipped(text: &str, most: usize) -> Cow<'_, str> {
    if text.chars().nth(most).is_none() {
        return Cow::Borrowed(text);
    }
    let shown: String = text.chars().take(most.saturating_sub(1)).collect();
    Cow::Owned(shown + "…")
}

/// The same on one line, with a space in place of anything a terminal or a log would interpret.
pub(crate) fn on_one_line(text: &str, most: usize) -> String {
    let tame = |c: char| if c.is_control() { ' ' } else { c };
    clipped(text, most).chars().map(tame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        for (text, expected) in [("", ""), ("äöü", "äöü"), ("äöüß", "äö…")] {
            assert_eq!(clipped(text, 3), expected);
        }
    }

    #[test]
    fn nothing_ends_a_line() {
        assert_eq!(on_one_line("a\r\nb\u{1b}[31mc", 10), "a  b [31mc");
    }
}
