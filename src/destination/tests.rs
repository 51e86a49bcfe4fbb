//! Which origins match and which do not: tables, and properties over random hosts.

use http::Uri;
use proptest::prelude::*;

use super::*;
use crate::request::target_of;

fn judge(destinations: &Destinations, uri: &str) -> Verdict {
    let uri: Uri = uri.parse().unwrap_or_else(|error| panic!("{uri}: {error}"));
    destinations.judge(&target_of(&uri))
}

fn allows(destinations: &Destinations, uri: &str) -> bool {
    matches!(judge(destinations, uri), Verdict::Stamp(_))
}

fn refusal_of(destinations: &Destinations, uri: &str) -> String {
    match judge(destinations, uri) {
        Verdict::Refuse(error) => error.to_string(),
        _ => panic!("{uri} is not refused"),
    }
}

fn google() -> Destinations {
    Destinations::google_apis()
}

fn only<const N: usize>(patterns: [&str; N]) -> Destinations {
    Destinations::only(patterns).unwrap()
}

#[test]
fn s138_plain_http_needs_a_pattern_that_says_so() {
    assert!(!allows(&google(), "http://storage.googleapis.com"));
    assert!(!allows(&google(), "http://storage.googleapis.com:443"));
    assert!(!allows(&google(), "http://127.0.0.1:8080/"));
    let local = only(["http://127.0.0.1:8080"]);
    assert!(allows(&local, "http://127.0.0.1:8080/x"));
    assert!(!allows(&local, "https://127.0.0.1:8080/x"));
    assert!(!allows(&local, "http://127.0.0.1/x"));
    assert!(refusal_of(&google(), "http://storage.googleapis.com").contains("http://storage"));
}

#[test]
fn s139_a_uri_without_scheme_or_host_gets_no_token() {
    for uri in [
        "/path",
        "storage.googleapis.com:443",
        "storage.googleapis.com",
        "*",
    ] {
        assert!(!allows(&google(), uri), "{uri}");
    }
    assert!(refusal_of(&google(), "/path").contains("trust_inner"));
    assert!(allows(&Destinations::trust_inner(), "/path"));
}

#[test]
fn s140_other_hosts_get_no_token() {
    for uri in [
        "https://evil.example",
        "https://storage.googleapis.com.evil.example",
        "https://evilgoogleapis.com",
        "https://googleapis.com@evil.example",
        "https://user:pass@storage.googleapis.com",
        "https://user@storage.googleapis.com",
        "https://evil.example/googleapis.com",
        "https://evil.example?x=.googleapis.com",
        "https://169.254.169.254",
        "https://metadata.google.internal",
        "https://xn--googleapis-7jk.com",
        "https://storage.googleapis.com.",
        "https://.googleapis.com",
        "https://a..googleapis.com",
        "https://a..b.googleapis.com",
        "https://storage.googleapis.com:8443",
        "https://storage.googleapis.com:",
        "https://evil,.googleapis.com",
        "https://evil!x.googleapis.com",
        "ftp://storage.googleapis.com",
        "https://[::1]",
    ] {
        assert!(!allows(&google(), uri), "{uri}");
        assert!(
            matches!(judge(&google().pass_others(), uri), Verdict::Pass),
            "{uri}"
        );
    }
    for uri in [
        "https://googleapis.com",
        "https://storage.googleapis.com",
        "https://STORAGE.googleapis.com",
        "https://storage.GoogleAPIs.com/b?x",
        "HTTPS://storage.googleapis.com",
        "https://storage.googleapis.com:443",
        "https://a.b.c.googleapis.com",
    ] {
        assert!(allows(&google(), uri), "{uri}");
    }
}

#[test]
fn s140_the_metadata_server_is_never_a_destination() {
    let internal = only(["https://*.google.internal", "http://*.google.internal"]);
    assert!(allows(&internal, "https://x.google.internal"));
    assert!(!allows(&internal, "https://metadata.google.internal"));
    assert!(!allows(&internal, "http://METADATA.google.internal"));
}

#[test]
fn s140_nor_is_its_address_in_ipv6_clothes() {
    for uri in [
        "http://[::ffff:169.254.169.254]/x",
        "https://[::FFFF:A9FE:A9FE]:8443",
        "http://[fd20:ce::254]",
    ] {
        let uri: Uri = uri.parse().unwrap();
        assert!(Origin::of(&target_of(&uri)).unwrap().is_metadata_server());
    }
}

#[test]
fn a_refusal_names_the_place_and_nothing_else() {
    let text = refusal_of(
        &google(),
        "https://user:pw@evil.example:8/secret?key=secret",
    );
    assert!(text.contains("https://evil.example:8"), "{text}");
    for hidden in ["user:", "pw", "secret"] {
        assert!(!text.contains(hidden), "{text}");
    }
}

#[test]
fn patterns_are_exact_or_below_a_domain() {
    let run = only([
        "https://*.run.app",
        "https://api.example:8443",
        "http://[::1]:80",
    ]);
    for uri in [
        "https://a.run.app",
        "https://a-b.c.run.app:443",
        "https://API.example:8443",
        "http://[::1]",
        "http://[0:0::1]:80/x",
    ] {
        assert!(allows(&run, uri), "{uri}");
    }
    for uri in [
        "https://run.app",
        "https://xrun.app",
        "http://a.run.app",
        "https://a.run.app:8443",
        "https://x.api.example:8443",
        "https://api.example",
        "http://[::2]",
        "http://[::1]:81",
    ] {
        assert!(!allows(&run, uri), "{uri}");
    }
    let universe = Destinations::universe("apis-tpc.example").unwrap();
    assert!(allows(&universe, "https://storage.apis-tpc.example"));
    assert!(!allows(&universe, "https://storage.googleapis.com"));
}

#[test]
fn malformed_patterns_are_refused_where_they_go_wrong() {
    let long_label = format!("https://{}.example", "a".repeat(64));
    let long_name = format!("https://{}example", "abc.".repeat(64));
    let table: &[(&str, Option<usize>)] = &[
        ("", None),
        ("example.com", None),
        ("//example.com", None),
        ("https:example.com", None),
        ("https:/example.com", None),
        ("://example.com", Some(0)),
        ("ftp://example.com", Some(0)),
        ("*://example.com", Some(0)),
        ("https ://example.com", Some(0)),
        ("https://", Some(8)),
        ("https://:443", Some(8)),
        ("https://*", Some(8)),
        ("https://*.", Some(10)),
        ("https://*.com", Some(10)),
        ("https://*.*.com", Some(10)),
        ("https://*example.com", Some(8)),
        ("https://a.*.example.com", Some(10)),
        ("https://example.*", Some(16)),
        ("https://**.example.com", Some(8)),
        ("https://*.1.2.3.4", Some(10)),
        ("https://*.[::1]", Some(10)),
        ("https://example.com/", Some(19)),
        ("https://example.com/path", Some(19)),
        ("https://example.com?x=1", Some(19)),
        ("https://example.com#x", Some(19)),
        ("https://user@example.com", Some(12)),
        ("https://user:pw@example.com", Some(15)),
        ("https://example.com:", Some(19)),
        ("https://example.com:0", Some(19)),
        ("https://example.com:65536", Some(19)),
        ("https://example.com:-1", Some(19)),
        ("https://example.com:+80", Some(19)),
        ("https://example.com:80:80", Some(19)),
        ("https://example.com:http", Some(19)),
        ("https://example.com.", Some(20)),
        ("https://.example.com", Some(8)),
        ("https://a..example.com", Some(10)),
        ("https://-a.example.com", Some(8)),
        ("https://a-.example.com", Some(8)),
        ("https://exa mple.com", Some(11)),
        ("https://exämple.com", Some(10)),
        ("https://example.com\n", Some(19)),
        ("https://exa%6dple.com", Some(11)),
        ("https://a\\b.example", Some(9)),
        ("https://[::1", Some(8)),
        ("https://[zz]", Some(9)),
        ("https://[1.2.3.4]", Some(9)),
        ("https://[::1]x", Some(13)),
        ("https://::1", Some(8)),
        ("https://1.2.3", Some(8)),
        ("https://1.2.3.256", Some(8)),
        ("https://0x7f.0.0.0x1", Some(8)),
        ("http://169.254.169.254", Some(7)),
        ("http://metadata.google.internal", Some(7)),
        ("http://[fd20:ce::254]", Some(8)),
        ("http://[::ffff:169.254.169.254]", Some(8)),
        ("http://[::FFFF:a9fe:a9fe]:8080", Some(8)),
        (&long_label, Some(8)),
        (&long_name, Some(8)),
    ];
    assert!(table.len() >= 40);
    for (pattern, at) in table {
        let error = Destinations::only([pattern]).expect_err(pattern);
        assert_eq!(error.position(), *at, "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    assert!(Destinations::only::<[&str; 0]>([]).is_err());
    assert!(Destinations::universe("com").is_err());
    assert!(Destinations::universe("https://x.y").is_err());
}

/// What the documentation says, literally, with no regard for speed.
fn naive(pattern: &str, uri: &str) -> bool {
    let split = |text: &str| {
        let (scheme, rest) = text.split_once("://").unwrap();
        let authority = rest.split(['/', '?', '#']).next().unwrap().to_owned();
        let default = if scheme == "https" { "443" } else { "80" };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), port.to_owned()),
            None => (authority, default.to_owned()),
        };
        (scheme.to_owned(), host.to_lowercase(), port)
    };
    let (pattern_scheme, pattern_host, pattern_port) = split(pattern);
    let (scheme, host, port) = split(uri);
    let labels = |host: &str| host.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (wanted, have) = (labels(&pattern_host), labels(&host));
    let hosts = match wanted.split_first() {
        Some((star, tail)) if star == "*" => have.len() > tail.len() && have.ends_with(tail),
        _ => wanted == have,
    };
    pattern_scheme == scheme && hosts && pattern_port == port && have.iter().all(|l| !l.is_empty())
}

proptest! {
    /// The shortcut says yes only where the exact comparison says yes, and keeps doing so for an origin
    /// it has seen.
    #[test]
    fn the_shortcut_admits_nothing_that_a_judgement_refuses(
        uris in prop::collection::vec(
            "https?://([a-zA-Z0-9._@:-]{0,12}\\.?)(googleapis\\.com|[a-b.]{0,9}run\\.app|exact\\.example|google\\.internal)(:443|:80|:8080)?/",
            1..8,
        ),
    ) {
        for destinations in [
            google(),
            only([
                "https://*.run.app",
                "https://*.b.run.app",
                "http://exact.example:8080",
                "https://exact.example",
                "https://*.google.internal",
            ]),
        ] {
            let Allowed::Origins(origins) = &destinations.allowed else { unreachable!() };
            for uri in uris.iter().chain(&uris) {
                let Ok(uri) = uri.parse::<Uri>() else { continue };
                let target = target_of(&uri);
                let exactly = destinations.judge_exactly(&origins.patterns, &target);
                if destinations.admit(&target).is_some() {
                    prop_assert!(matches!(exactly, Verdict::Stamp(_)), "{}", uri);
                }
            }
        }
    }
}

#[test]
fn the_usual_origins_take_the_shortcut() {
    let run = only(["https://*.run.app", "http://127.0.0.1:8080"]);
    for (destinations, uri) in [
        (google(), "https://storage.googleapis.com/"),
        (google(), "https://us-central1-aiplatform.googleapis.com/"),
        (google(), "https://storage.mtls.googleapis.com/"),
        (google(), "https://googleapis.com/"),
        (run.clone(), "https://my-service-abcdef-uc.a.run.app/"),
        (run, "http://127.0.0.1:8080/x"),
    ] {
        assert!(
            destinations
                .admit(&target_of(&uri.parse().unwrap()))
                .is_some(),
            "{uri}"
        );
    }
}

proptest! {
    #[test]
    fn matching_agrees_with_the_naive_matcher(
        pattern in "(https|http)://(\\*\\.)?([ab]{1,2}\\.){1,2}[abAB]{1,2}(:443|:80|:8080)?",
        uri in "(https|http)://([abAB]{0,2}\\.){0,4}[abAB]{1,2}(:443|:80|:8080)?(/[ab]{0,3})?",
    ) {
        let destinations = Destinations::only([&pattern]).unwrap();
        prop_assert_eq!(allows(&destinations, &uri), naive(&pattern, &uri), "{} {}", pattern, uri);
    }

    #[test]
    fn no_pattern_panics(pattern in "\\PC{0,40}|(https://)?[\\*a-z:\\[\\]./0-9@%-]{0,20}") {
        if let Ok(destinations) = Destinations::only([&pattern]) {
            let shown = format!("{destinations:?}");
            prop_assert!(shown.contains("://"));
        }
    }
}
