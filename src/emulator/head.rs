//! Request heads: finding where one ends in a buffer, and reading it.
//!
//! Knows HTTP/1.x request syntax. Does no I/O and knows no paths.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Uri};

/// The longest head that is read, in bytes.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// A request up to the blank line.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// The bytes as they arrived, the blank line included.
    pub(super) raw: Vec<u8>,
    http_10: bool,
}

/// What the received bytes in a buffer amount to.
pub(super) enum Progress {
    /// A head, with its bytes taken out of the buffer.
    Complete(Box<Head>),
    /// More has to arrive.
    Partial,
    /// The bytes cannot become a head; holds the status to refuse them with.
    Refused(u16),
}

/// Takes the next head out of `buffer`.
pub(super) fn take(buffer: &mut Vec<u8>) -> Progress {
    const END: &[u8] = b"\r\n\r\n";
    let Some(start) = buffer.windows(END.len()).position(|window| window == END) else {
        return if buffer.len() < MAX_HEAD {
            Progress::Partial
        } else {
            Progress::Refused(431)
        };
    };
    let rest = buffer.split_off(start + END.len());
    let raw = std::mem::replace(buffer, rest);
    match parse(raw) {
        Some(head) => Progress::Complete(Box::new(head)),
        None => Progress::Refused(400),
    }
}

fn parse(raw: Vec<u8>) -> Option<Head> {
    let mut lines = raw
        .split(|byte| *byte == b'\n')
        .map(|line| line.trim_ascii_end());
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let uri = Uri::try_from(words.next()?).ok()?;
    let http_10 = match words.next()? {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return None,
    };
    if words.next().is_some() {
        return None;
    }
    let mut headers = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        // The map refuses to grow past a fixed number of names; such a head is refused too.
        headers
            .try_append(
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            )
            .ok()?;
    }
    Some(Head {
        method,
        uri,
        headers,
        raw,
        http_10,
    })
}

impl Head {
    /// Whether the client means to send another request on this connection.
    pub(super) fn keep_alive(&self) -> bool {
        let says = |token: &str| {
            let values = self
                .headers
                .get_all(CONNECTION)
                .iter()
                .filter_map(|v| v.to_str().ok());
            values
                .flat_map(|v| v.split(','))
                .any(|v| v.trim().eq_ignore_ascii_case(token))
        };
        if self.http_10 {
            says("keep-alive")
        } else {
            !says("close")
        }
    }

    /// Whether a body follows. No metadata request needs one, so none is ever read.
    pub(super) fn has_body(&self) -> bool {
        self.headers.contains_key(TRANSFER_ENCODING)
            || self
                .headers
                .get(CONTENT_LENGTH)
                .is_some_and(|length| length != "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        match take(&mut text.as_bytes().to_vec()) {
            Progress::Complete(head) => *head,
            Progress::Partial => panic!("partial: {text:?}"),
            Progress::Refused(status) => panic!("{status}: {text:?}"),
        }
    }

    #[test]
    fn reads_a_head_and_leaves_the_rest() {
        let mut buffer = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nA:  b \r\nA: c\r\n\r\nGET".to_vec();
        let Progress::Complete(head) = take(&mut buffer) else {
            panic!("not complete")
        };
        assert_eq!(buffer, b"GET");
        assert_eq!(
            (head.method.as_str(), head.uri.to_string().as_str()),
            ("GET", "/a?b=c")
        );
        let values: Vec<_> = head.headers.get_all("a").iter().collect();
        assert_eq!(values, ["b", "c"]);
        assert!(head.raw.ends_with(b"A: c\r\n\r\n"));
        assert!(matches!(take(&mut buffer), Progress::Partial));
    }

    #[test]
    fn refuses_what_is_no_head() {
        for text in [
            "\r\n\r\n",
            "GET\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1 x\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\na : b\r\n\r\n",
        ] {
            let progress = take(&mut text.as_bytes().to_vec());
            assert!(matches!(progress, Progress::Refused(400)), "{text:?}");
        }
        assert!(matches!(
            take(&mut vec![b'x'; MAX_HEAD]),
            Progress::Refused(431)
        ));
    }

    #[test]
    fn persistence() {
        assert!(head("GET / HTTP/1.1\r\n\r\n").keep_alive());
        assert!(!head("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").keep_alive());
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive());
        assert!(head("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive());
    }

    #[test]
    fn bodies() {
        assert!(!head("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").has_body());
        assert!(head("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n").has_body());
        assert!(head("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").has_body());
    }
}
