//! A number of seconds, from the text of a JSON number: `expires_in`, `exp`. Pure.
//!
//! From the text, because converting a number to a machine type loses what was written.

/// Whole seconds above zero, rounded down, at most `most`. `None` for any other JSON.
pub(in crate::sources) fn whole(json: &str, most: u64) -> Option<u64> {
    // A string, `null` or a signed number is not a positive number.
    if !json.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let seconds = if json.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean a number above any bound.
        json.parse().unwrap_or(u64::MAX)
    } else {
        // A cast from a float rounds down and saturates.
        json.parse::<f64>().ok()? as u64
    };
    (seconds > 0).then_some(seconds.min(most))
}
