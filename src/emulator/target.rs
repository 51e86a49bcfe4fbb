//! What a request asks for, parsed: the path as decoded segments, the query as decoded parameters.
//!
//! Pure text processing. Knows how URIs are written; knows no metadata paths or rules.

/// A path without doubled slashes, such as `/computeMetadata/v1/instance/`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    segments: Vec<String>,
    /// Ends with a slash, which is how directories are asked for. True of `/` itself.
    directory: bool,
}

impl Path {
    /// `None` for a path that does not start with a slash or that has an empty segment: the real
    /// server does not fold doubled slashes either.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let inner = path.strip_prefix('/')?;
        if inner.is_empty() {
            return Some(Self {
                segments: Vec::new(),
                directory: true,
            });
        }
        let (inner, directory) = match inner.strip_suffix('/') {
            Some(shorter) => (shorter, true),
            None => (inner, false),
        };
        // A `+` in a path is a plus sign; only forms use it for a space.
        let segments: Vec<String> = inner.split('/').map(|s| decode(s, false)).collect();
        (!segments.iter().any(String::is_empty)).then_some(Self {
            segments,
            directory,
        })
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(String::as_str)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.directory
    }
}

/// The first value of `name` in a query string, decoded.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key, true) == name).then(|| decode(value, true))
    })
}

/// Undoes percent-encoding. Malformed sequences stay as written: the emulator is there to show what a
/// client sent, not to guess what it meant.
fn decode(text: &str, plus_is_space: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high * 16 + low);
                    rest = tail;
                }
                _ => out.push(byte),
            },
            (b'+', _) if plus_is_space => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> Option<(Vec<String>, bool)> {
        Path::parse(path).map(|p| (p.segments, p.directory))
    }

    #[test]
    fn paths() {
        assert_eq!(segments("/"), Some((vec![], true)));
        assert_eq!(segments("/a"), Some((vec!["a".into()], false)));
        assert_eq!(
            segments("/a/b/"),
            Some((vec!["a".into(), "b".into()], true))
        );
        assert_eq!(segments("/x%40y"), Some((vec!["x@y".into()], false)));
        assert_eq!(segments("/a+b"), Some((vec!["a+b".into()], false)));
        for refused in ["", "a", "//", "//a", "/a//b", "/a//"] {
            assert_eq!(segments(refused), None, "{refused}");
        }
    }

    #[test]
    fn parameters() {
        let query = Some("x&scopes=a%2Cb+c&scopes=z&e=");
        assert_eq!(parameter(query, "scopes").as_deref(), Some("a,b c"));
        assert_eq!(parameter(query, "x").as_deref(), Some(""));
        assert_eq!(parameter(query, "e").as_deref(), Some(""));
        assert_eq!(parameter(query, "y"), None);
        assert_eq!(parameter(None, "y"), None);
    }

    #[test]
    fn malformed_escapes_stay() {
        for kept in ["%", "%4", "%zz", "100%"] {
            assert_eq!(decode(kept, true), kept);
        }
        assert_eq!(decode("%ff", true), "\u{fffd}");
    }
}
