//! The usual destination, recognised in a few dozen instructions.
//!
//! A fast path that avoids parsing a URI and comparing it with each pattern. It may only say yes where
//! the exact check says yes, and leaves everything unusual (a port, upper case, an address, user
//! information) to the exact check. A property test (`tests.rs`) compares the two.
//!
//! Knows bytes and validated patterns; knows nothing of URIs beyond their authority.

use std::sync::OnceLock;

use super::origin::{METADATA_NAMES, Scheme, Target};
use crate::destination::OriginId;

/// Patterns in a form that is fast to compare.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Shortcuts {
    /// The first admitted origin that fits. Most clients have only one, and comparing with it takes
    /// half the work of comparing with a pattern.
    familiar: OnceLock<Familiar>,
    list: Box<[Shortcut]>,
}

/// One origin, with its authority as words for comparison. Because the words are stored inline,
/// comparing them calls nothing and reads a single cache line.
#[derive(Debug)]
struct Familiar {
    origin: OriginId,
    length: u8,
    /// The last eight bytes, some of which may also be in the last whole word.
    last: u64,
    /// Every whole word of the authority, from the start.
    words: [u64; FAMILIAR_WORDS],
    scheme: Scheme,
}

/// Enough for up to 39 bytes: `us-central1-aiplatform.googleapis.com` has 37. A longer authority is
/// compared with the patterns.
const FAMILIAR_WORDS: usize = 4;

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<OnceLock<Familiar>>() <= 64, "one line");

#[derive(Debug)]
pub(super) struct Shortcut {
    scheme: Scheme,
    /// In lower case: either a suffix such as `.googleapis.com`, below which everything is allowed, or
    /// a whole authority.
    text: Box<str>,
    is_suffix: bool,
    /// The first and last eight bytes of `text`. Together they cover any text of up to sixteen bytes,
    /// so comparing the two words compares the whole text.
    first: u64,
    last: u64,
}

const WORD: usize = size_of::<u64>();

impl Shortcut {
    /// Everything below a domain: a suffix that begins with a dot, without a port.
    pub(super) fn below(secure: bool, suffix: &str) -> Option<Self> {
        // The metadata server is never a destination, whatever a pattern covers. An underscore is not a
        // plain byte, although a host may contain one.
        let covers_it = METADATA_NAMES.iter().any(|name| name.ends_with(suffix));
        if covers_it || suffix.contains('_') {
            return None;
        }
        Self::of(secure, suffix, true)
    }

    /// One origin, with its authority as written in a URI: with the port unless it is the default.
    pub(super) fn exactly(secure: bool, authority: &str) -> Option<Self> {
        Self::of(secure, authority, false)
    }

    /// Returns `None` if the text is shorter than a word.
    fn of(secure: bool, text: &str, is_suffix: bool) -> Option<Self> {
        let bytes = text.as_bytes();
        Some(Self {
            scheme: if secure { Scheme::Https } else { Scheme::Http },
            text: text.into(),
            is_suffix,
            first: u64::from_le_bytes(*bytes.first_chunk()?),
            last: last_word(bytes)?,
        })
    }

    /// `tail` must be as long as the text and share its last eight bytes.
    #[inline]
    fn is_text(&self, tail: &[u8]) -> bool {
        let first = tail.first_chunk().map(|first| u64::from_le_bytes(*first));
        first == Some(self.first) && (tail.len() <= 2 * WORD || tail == self.text.as_bytes())
    }
}

impl Familiar {
    /// Returns `None` if the authority has more whole words than fit, or is shorter than one word.
    fn of(scheme: Scheme, authority: &[u8], origin: OriginId) -> Option<Self> {
        let (whole, _) = authority.as_chunks::<WORD>();
        let mut words = [0; FAMILIAR_WORDS];
        for (word, bytes) in words.get_mut(..whole.len())?.iter_mut().zip(whole) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(Self {
            scheme,
            origin,
            length: u8::try_from(authority.len()).ok()?,
            words,
            last: last_word(authority)?,
        })
    }

    #[inline]
    fn is(&self, scheme: Scheme, authority: &[u8]) -> bool {
        let (whole, _) = authority.as_chunks::<WORD>();
        let mut words = whole.iter().zip(&self.words);
        let last = last_word(authority);
        usize::from(self.length) == authority.len()
            && self.scheme == scheme
            && last == Some(self.last)
            && words.all(|(bytes, word)| u64::from_le_bytes(*bytes) == *word)
    }
}

impl FromIterator<Shortcut> for Shortcuts {
    fn from_iter<I: IntoIterator<Item = Shortcut>>(list: I) -> Self {
        Self {
            list: list.into_iter().collect(),
            familiar: OnceLock::new(),
        }
    }
}

impl Shortcuts {
    /// May a request to `target` carry the token? `None` means that the shortcut cannot tell.
    #[inline]
    pub(super) fn admit(&self, target: &Target<'_>) -> Option<OriginId> {
        let authority = target.authority.as_bytes();
        if let Some(familiar) = self.familiar.get()
            && familiar.is(target.scheme, authority)
        {
            return Some(familiar.origin);
        }
        self.find(target)
    }

    #[inline(never)]
    fn find(&self, target: &Target<'_>) -> Option<OriginId> {
        let (scheme, authority) = (target.scheme, target.authority.as_bytes());
        if !self.covers(scheme, authority) {
            return None;
        }
        let origin = target.origin();
        if self.familiar.get().is_none()
            && let Some(familiar) = Familiar::of(scheme, authority, origin)
        {
            // Another thread may get there first, with the same origin or a different one.
            self.familiar.get_or_init(|| familiar);
        }
        Some(origin)
    }

    fn covers(&self, scheme: Scheme, authority: &[u8]) -> bool {
        let Some(last) = last_word(authority) else {
            return false;
        };
        let alike = |shortcut: &&Shortcut| shortcut.last == last && shortcut.scheme == scheme;
        self.list.iter().filter(alike).any(|shortcut| {
            let labels = authority.len().checked_sub(shortcut.text.len());
            let parts = labels.and_then(|labels| authority.split_at_checked(labels));
            parts.is_some_and(|(labels, tail)| {
                shortcut.is_text(tail)
                    && match shortcut.is_suffix {
                        true => labels_are_plain(authority, labels.len()),
                        false => labels.is_empty(),
                    }
            })
        })
    }
}

#[inline]
fn last_word(bytes: &[u8]) -> Option<u64> {
    bytes.last_chunk().map(|word| u64::from_le_bytes(*word))
}

/// Are there labels in front of a suffix, and are they plain: lower-case letters, digits, hyphens, and
/// dots that are neither first, nor last, nor adjacent?
///
/// The suffix has at least eight bytes, all of them plain, and begins with a dot. So a word that starts
/// in the labels lies within the authority, and a dot at the end of the labels is next to another dot.
#[inline]
fn labels_are_plain(authority: &[u8], labels: usize) -> bool {
    let Some(first) = authority.first_chunk() else {
        return false;
    };
    let word = u64::from_le_bytes(*first);
    if first.first() == Some(&b'.') || !is_plain(word) {
        return false;
    }
    // The labels are short enough that the word includes the suffix's dot.
    labels < WORD || longer_labels_are_plain(authority, labels)
}

fn longer_labels_are_plain(authority: &[u8], labels: usize) -> bool {
    // Windows of eight bytes, each beginning with the last byte of the previous one, so that any two
    // adjacent bytes share a window. The last window ends with the suffix's dot.
    let last = labels.saturating_sub(WORD - 1);
    let mut at = 0;
    while at < last {
        at = last.min(at + WORD - 1);
        let window = authority.get(at..).and_then(<[u8]>::first_chunk);
        if !window.is_some_and(|window| is_plain(u64::from_le_bytes(*window))) {
            return false;
        }
    }
    true
}

/// Checks eight bytes at once: each must be a lower-case letter, a digit, a hyphen or a dot, and no two
/// dots may be adjacent.
#[inline]
const fn is_plain(word: u64) -> bool {
    const TOPS: u64 = splat(0x80);
    // For bytes below 0x80, the top bit of the sum says whether the byte is at least `least`, and
    // nothing carries into the next byte.
    const fn at_least(word: u64, least: u8) -> u64 {
        word.wrapping_add(splat(0x80 - least))
    }
    const fn is_not(word: u64, byte: u8) -> u64 {
        at_least(word ^ splat(byte), 1)
    }
    let letters = at_least(word, b'a') & !at_least(word, b'z' + 1);
    // `-`, `.`, `/` and the digits are consecutive in ASCII.
    let others = at_least(word, b'-') & !at_least(word, b'9' + 1) & is_not(word, b'/');
    let dots = !is_not(word, b'.') & TOPS;
    let plain = (letters | others) & !word & TOPS;
    plain == TOPS && dots & (dots >> 8) == 0
}

const fn splat(byte: u8) -> u64 {
    u64::from_le_bytes([byte; WORD])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_familiar_origin_is_told_from_all_others() {
        let origin = OriginId::MIN;
        for length in 0..64 {
            let authority: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
            let familiar = Familiar::of(Scheme::Https, &authority, origin);
            assert_eq!(familiar.is_some(), (8..40).contains(&length), "{length}");
            let Some(familiar) = familiar else { continue };
            assert!(familiar.is(Scheme::Https, &authority));
            assert!(!familiar.is(Scheme::Http, &authority));
            for place in 0..length {
                let mut other = authority.clone();
                other[place] ^= 1;
                assert!(!familiar.is(Scheme::Https, &other), "{place} of {length}");
                other = authority.clone();
                other.remove(place);
                assert!(
                    !familiar.is(Scheme::Https, &other),
                    "{length} without {place}"
                );
            }
            // Longer by exactly the amount that an eight-bit length would not notice.
            let longer = [&authority[..], &[b'a'; 256]].concat();
            assert!(!familiar.is(Scheme::Https, &longer), "{length} and 256");
        }
    }

    #[test]
    fn plain_bytes_are_told_from_all_others_in_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..WORD {
                let mut bytes = [b'x'; WORD];
                bytes[place] = byte;
                let plain = byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || matches!(byte, b'-' | b'.');
                assert_eq!(
                    is_plain(u64::from_le_bytes(bytes)),
                    plain,
                    "{byte} at {place}"
                );
            }
        }
        assert!(!is_plain(u64::from_le_bytes(*b"aa..aaaa")));
        assert!(is_plain(u64::from_le_bytes(*b".a.b.c.d")));
    }

    proptest! {
        #[test]
        fn eight_at_once_are_eight_one_by_one(bytes in any::<[u8; WORD]>()) {
            let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
            let pairs = bytes.windows(2).any(|pair| pair == b"..");
            prop_assert_eq!(
                is_plain(u64::from_le_bytes(bytes)),
                bytes.iter().all(plain) && !pairs
            );
        }

        #[test]
        fn labels_of_any_length(labels in "[a-c.A@-]{1,40}") {
            let authority = format!("{labels}.googleapis.com");
            let plain = labels.bytes().all(|b| matches!(b, b'a'..=b'c' | b'-' | b'.'));
            let odd = labels.starts_with('.') || labels.ends_with('.') || labels.contains("..");
            prop_assert_eq!(
                labels_are_plain(authority.as_bytes(), labels.len()),
                plain && !odd
            );
        }
    }
}
