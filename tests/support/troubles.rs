//! What a metadata server can answer instead of a token: the tables of scenarios 38 to 59.
//!
//! Knows bytes. Does not know what they should lead to: that is up to the tests.

use super::Reply;

/// A name, and what is sent.
pub type Trouble = (&'static str, Reply);

/// 64 characters that occur nowhere else.
pub const SECRET: &str = "q7Zk2Vw9Xb4Nf6Tj8Rm3Hc5Gd1Ls0Py-A.uE_iO~oK+tB/eW2xQ9vJ4nM7rC1zDh";

/// What a failing answer's body says.
pub const INTERNAL: &str = "internal-secret";

/// An answer with these values of `access_token`, `expires_in` and `token_type`.
pub fn answer(access_token: &str, expires_in: &str, token_type: &str) -> Reply {
    Reply::ok(format!(
        r#"{{"access_token":{access_token},"expires_in":{expires_in},"token_type":{token_type}}}"#
    ))
}

/// These bytes and no others.
pub fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
    Reply::Raw(bytes.into())
}

pub fn busy(retry_after: &str) -> Reply {
    Reply::status(429, &format!("Retry-After: {retry_after}\r\n"), "slow down")
}

/// Resets after the request, and in the middle of the head.
pub fn resets() -> Vec<Trouble> {
    vec![
        ("after the request", Reply::Reset(Vec::new())),
        (
            "in the head",
            Reply::Reset(b"HTTP/1.1 200 OK\r\nMetadata-Fl".to_vec()),
        ),
    ]
}

/// Cut short: with a length, with chunks, with neither.
pub fn truncated() -> Vec<Trouble> {
    let head = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
    vec![
        (
            "18 bytes of 500",
            raw(format!(
                "{head}Content-Length: 500\r\n\r\n{{\"access_token\":\"a\""
            )),
        ),
        (
            "no last chunk",
            raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n12\r\n{{\"access_token\":\"a\"\r\n"
            )),
        ),
        (
            "in the middle of a chunk",
            raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\nff\r\n{{\"access_token\":"
            )),
        ),
        // Without a length, the end of the connection is the end of the body.
        (
            "no length at all",
            raw(format!("{head}\r\n{{\"access_token\":\"a\"")),
        ),
        (
            "no body at all",
            raw(format!("{head}Content-Length: 500\r\n\r\n")),
        ),
        ("half a head", raw("HTTP/1.1 200 OK\r\nMetadata-Fl")),
        ("no head", raw("")),
    ]
}

/// Begun, but never ended.
pub fn stalls() -> Vec<Trouble> {
    let head = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
    let stalled = |rest: &str| Reply::Stall(format!("{head}{rest}").into_bytes());
    vec![
        ("in the head", stalled("")),
        ("before the body", stalled("Content-Length: 90\r\n\r\n")),
        (
            "in the body",
            stalled("Content-Length: 90\r\n\r\n{\"access_token\":\"a\""),
        ),
        (
            "before the last chunk",
            stalled("Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
        ),
    ]
}

/// 200, but not from a metadata server.
pub fn strangers() -> Vec<Trouble> {
    let token = format!(r#"{{"access_token":"{SECRET}","expires_in":3599,"token_type":"Bearer"}}"#);
    let page = format!("<html><title>{INTERNAL}</title>Please log in</html>");
    let plain = |headers: &str, body: &str| {
        raw(format!(
            "HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    vec![
        ("a login page", plain("Content-Type: text/html\r\n", &page)),
        ("a token without the flavor", plain("", &token)),
        (
            "a token with another flavor",
            plain("Metadata-Flavor: meep\r\n", &token),
        ),
        ("a page with the flavor", Reply::ok(&page)),
    ]
}

/// 200 from a metadata server, but not the JSON of a token.
pub fn garbage() -> Vec<Trouble> {
    let token = r#"{"access_token":"a","expires_in":9,"token_type":"Bearer"}"#;
    vec![
        ("a brace", Reply::ok("{")),
        ("null", Reply::ok("null")),
        ("an array", Reply::ok("[]")),
        ("a string", Reply::ok("\"x\"")),
        ("nothing", Reply::ok("")),
        ("0xFF", Reply::ok([0xFF; 100])),
        ("a byte order mark", Reply::ok(format!("\u{feff}{token}"))),
        (
            "10,000 arrays",
            Reply::ok(format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        ),
        (
            "10,000 arrays inside",
            answer(
                "\"a\"",
                &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
                "\"Bearer\"",
            ),
        ),
        ("something behind it", Reply::ok(format!("{token}x"))),
        (
            "access_token twice",
            Reply::ok(
                r#"{"access_token":"a","access_token":"b","expires_in":9,"token_type":"Bearer"}"#,
            ),
        ),
    ]
}

/// Values of `expires_in` that no token can have.
pub fn lives() -> Vec<Trouble> {
    let rejected = [
        "0", "-1", "-9e18", "null", "true", "\"\"", "\"abc\"", "[]", "{}", "NaN",
    ];
    let absent = Reply::ok(r#"{"access_token":"a","token_type":"Bearer"}"#);
    let rows = rejected.map(|json| (json, answer("\"a\"", json, "\"Bearer\"")));
    rows.into_iter().chain([("absent", absent)]).collect()
}

/// Values of `access_token` that no header can have.
pub fn tokens() -> Vec<Trouble> {
    let too_long = format!("\"{}\"", "x".repeat(8_193));
    let huge = format!("\"{}\"", "x".repeat(64 * 1024));
    let rejected = [
        ("null", "null"),
        ("a number", "123"),
        ("empty", "\"\""),
        ("a space", "\" \""),
        ("a space inside", "\"a b\""),
        ("a line feed", r#""a\n""#),
        ("a header", r#""a\r\nX-Evil: 1""#),
        ("a NUL", r#""a\u0000""#),
        ("not ASCII", "\"tökén\""),
        ("DEL", r#""a\u007f""#),
        ("8,193 characters", &too_long),
        ("64 KiB", &huge),
    ];
    let absent = Reply::ok(r#"{"expires_in":3599,"token_type":"Bearer"}"#);
    let rows = rejected.map(|(what, json)| (what, answer(json, "3599", "\"Bearer\"")));
    rows.into_iter().chain([("absent", absent)]).collect()
}

/// Values of `token_type` that are not Bearer.
pub fn kinds() -> Vec<Trouble> {
    let rejected = ["\"MAC\"", "\"\"", "1", "\"Bearer x\"", "null"];
    let absent = Reply::ok(r#"{"access_token":"a","expires_in":3599}"#);
    let rows = rejected.map(|json| (json, answer("\"a\"", "3599", json)));
    rows.into_iter().chain([("absent", absent)]).collect()
}

/// More than any client reads.
pub fn huge() -> Vec<Trouble> {
    let head = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
    let mut chunk = b"4000\r\n".to_vec();
    chunk.extend([b' '; 0x4000]);
    chunk.extend(b"\r\n");
    let endless = |first: &str, again| Reply::Endless(format!("{head}{first}").into_bytes(), again);
    vec![
        (
            "200 MiB",
            endless("Content-Length: 209715200\r\n\r\n", vec![b' '; 0x4000]),
        ),
        (
            "endless chunks",
            endless("Transfer-Encoding: chunked\r\n\r\n", chunk),
        ),
    ]
}

/// Every status other than 200 that some server sends.
pub fn statuses() -> Vec<Trouble> {
    [
        ("204", 204),
        ("206", 206),
        ("301", 301),
        ("302", 302),
        ("303", 303),
        ("307", 307),
        ("308", 308),
        ("400", 400),
        ("401", 401),
        ("403", 403),
        ("404", 404),
        ("408", 408),
        ("429", 429),
        ("500", 500),
        ("502", 502),
        ("503", 503),
        ("504", 504),
    ]
    .map(|(what, status)| {
        let headers = "Location: http://127.0.0.1:9/token\r\n";
        (what, Reply::status(status, headers, "not now"))
    })
    .into()
}

/// Every way in which an answer can fail.
pub fn all() -> Vec<Trouble> {
    let mut all = vec![
        ("silence", Reply::Hang),
        ("Retry-After: 1", busy("1")),
        ("Retry-After: abc", busy("abc")),
    ];
    for table in [
        resets, truncated, stalls, statuses, strangers, huge, garbage, lives, tokens, kinds,
        telling,
    ] {
        all.extend(table());
    }
    all
}

/// Everything that can come instead of a token, with a secret in it.
pub fn telling() -> Vec<Trouble> {
    let head = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
    let token = format!(r#"{{"access_token":"{SECRET}","expires_in":3599,"token_type":"Bearer"}}"#);
    let said = format!("{INTERNAL} {SECRET} {token}");
    let secret = format!("\"{SECRET}\"");
    let status = |code| Reply::status(code, &format!("X-Debug: {SECRET}\r\n"), &said);
    let length = said.len();
    vec![
        ("reset", Reply::Reset(Vec::new())),
        (
            "reset in the head",
            Reply::Reset(format!("{head}X: {SECRET}").into_bytes()),
        ),
        (
            "truncated",
            raw(format!("{head}Content-Length: 500\r\n\r\n{said}")),
        ),
        (
            "no last chunk",
            raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{said}\r\n"
            )),
        ),
        (
            "a bad chunk",
            raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{SECRET}\r\n{said}\r\n"
            )),
        ),
        ("silence", Reply::Hang),
        (
            "stalled",
            Reply::Stall(format!("{head}Content-Length: 500\r\n\r\n{said}").into_bytes()),
        ),
        ("400", status(400)),
        ("401", status(401)),
        ("403", status(403)),
        ("404", status(404)),
        ("408", status(408)),
        ("429", Reply::status(429, "Retry-After: 1\r\n", &said)),
        ("500", status(500)),
        ("503", status(503)),
        ("204", status(204)),
        ("206", status(206)),
        (
            "a redirect",
            Reply::status(
                302,
                &format!("Location: http://127.0.0.1:9/{SECRET}\r\n"),
                &said,
            ),
        ),
        (
            "no flavor",
            raw(format!("HTTP/1.1 200 OK\r\nX: {SECRET}\r\n\r\n{token}")),
        ),
        ("a page", Reply::ok(format!("<html>{said}"))),
        ("not HTTP", raw(format!("{said}\r\n\r\n"))),
        (
            "a bad header",
            raw(format!("{head}{SECRET} {INTERNAL}\r\n\r\n")),
        ),
        (
            "too large",
            Reply::ok(format!("{token}{}", format!("{said} ").repeat(500))),
        ),
        ("something behind it", Reply::ok(format!("{token}{said}"))),
        ("half of it", Reply::ok(&token[..token.len() - 10])),
        ("expires_in 0", answer(&secret, "0", "\"Bearer\"")),
        (
            "expires_in a secret",
            answer(&secret, &secret, "\"Bearer\""),
        ),
        (
            "access_token with a space",
            answer(&format!("\"{SECRET} x\""), "9", "\"Bearer\""),
        ),
        (
            "access_token an object",
            answer(&format!("{{{secret}:1}}"), "9", "\"Bearer\""),
        ),
        ("token_type a secret", answer(&secret, "9", &secret)),
        (
            "another member",
            Reply::ok(format!(r#"{{"{SECRET}":"{INTERNAL}"}}"#)),
        ),
        (
            "OAuth's error",
            Reply::ok(format!(
                r#"{{"error":"{INTERNAL}","error_description":{secret}}}"#
            )),
        ),
    ]
}
