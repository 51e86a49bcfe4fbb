//! A number of seconds, from the text of a JSON number: `expires_in`, `exp`. Pure.
//!
//! From the text, because a number that passed through a machine type has lost what it was.

/// Whole seconds above zero, rounded down, and `most` if they are more. `None` for any other JSON.
pub(in crate::sources) fn whole(json: &str, most: u64) -> Option<u64> {
    // Neither a string nor `null` nor a sign is the start of a positive number.
    if !json.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let seconds = if json.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more than any bound.
        json.parse().unwrap_or(u64::MAX)
    } else {
        // A cast from a float rounds down and saturates.
        json.parse::<f64>().ok()? as u64
    };
    (seconds > 0).then_some(seconds.min(most))
}
