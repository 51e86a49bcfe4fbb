//! Which origins are allowed and which are not, and what is said of those that are not.

use http::Method;
use proptest::prelude::*;

use super::*;

fn uri(text: &str) -> Uri {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn access(destinations: &Destinations, text: &str) -> Access {
    destinations.access(&Target::of(&uri(text)))
}

fn allows(destinations: &Destinations, text: &str) -> bool {
    let allowed = matches!(access(destinations, text), Access::Stamp(_));
    assert_eq!(destinations.check(&uri(text)).is_ok(), allowed, "{text}");
    allowed
}

fn refusal_of(destinations: &Destinations, text: &str) -> String {
    match access(destinations, text) {
        Access::Refuse(error) => {
            let checked = destinations.check(&uri(text)).unwrap_err();
            assert_eq!(checked.to_string(), error.to_string());
            error.to_string()
        }
        _ => panic!("{text} is not refused"),
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
    assert!(refusal_of(&google(), "/path").contains("Destinations::inner_origin"));
    assert!(allows(&Destinations::danger_trust_inner(), "/path"));
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
            matches!(access(&google().pass_others(), uri), Access::Pass),
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
    let text = refusal_of(&internal, "https://metadata.google.internal");
    assert!(
        text.ends_with(": the metadata server is never a destination"),
        "{text}"
    );
}

#[test]
fn s140_metadata_server_by_name_and_by_address_is_recognised() {
    for (text, expected) in [
        ("http://169.254.169.254/x", true),
        ("http://metadata.google.internal:8080", true),
        ("http://MetaData", true),
        ("http://[::ffff:169.254.169.254]/x", true),
        ("https://[::FFFF:A9FE:A9FE]:8443", true),
        ("http://[fd20:ce::254]", true),
        ("http://169.254.169.253", false),
        ("http://metadata.google.example", false),
        ("http://[::ffff:169.254.169.253]", false),
        ("http://[fd20:ce::255]", false),
    ] {
        let uri = uri(text);
        let origin = Origin::of(&Target::of(&uri)).unwrap();
        assert_eq!(origin.is_metadata_server(), expected, "{text}");
    }
}

#[test]
fn a_refusal_names_the_place_and_nothing_else() {
    let text = refusal_of(
        &google(),
        "https://user:pw@evil.example:8/secret?key=secret",
    );
    assert!(text.contains("https://…@evil.example:8"), "{text}");
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
        ("https://example.com//", Some(19)),
        ("https://example.com/.", Some(19)),
        ("https:///", Some(8)),
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
        ("http://[fd20:ce::254]", Some(7)),
        ("http://[::ffff:169.254.169.254]", Some(7)),
        ("http://[::FFFF:a9fe:a9fe]:8080", Some(7)),
        (&long_label, Some(8)),
        (&long_name, Some(8)),
    ];
    for (pattern, at) in table {
        let error = Destinations::only([pattern]).expect_err(pattern);
        assert_eq!(error.position(), *at, "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    assert!(Destinations::only::<[&str; 0]>([]).is_err());
    assert!(Destinations::universe("com").is_err());
    assert!(Destinations::universe("https://x.y").is_err());
}
#[test]
fn a_refusal_names_the_first_four_patterns() {
    let list = |count: usize| {
        let patterns = (1..=count).map(|number| format!("https://{number}.example"));
        refusal_of(&Destinations::only(patterns).unwrap(), "https://x.example")
    };
    let four = "https://1.example, https://2.example, https://3.example, https://4.example";
    for (count, shown) in [
        (1, "https://1.example".to_owned()),
        (4, four.to_owned()),
        (5, format!("{four}, …")),
    ] {
        let text = list(count);
        let expected = format!("no token for https://x.example: allowed are {shown}; see ");
        assert!(text.starts_with(&expected), "{text}");
    }
    let text = refusal_of(&google(), "/path");
    assert!(
        text.starts_with("no token for a URI without a host: "),
        "{text}"
    );
}

#[test]
fn a_malformed_pattern_is_explained() {
    for (pattern, reason) in [
        ("https://a.*.example", "a wildcard stands for whole labels"),
        ("https://*.*.example", "a wildcard stands for whole labels"),
        ("https://ex\u{e4}mple.com", "in its ASCII form"),
        ("https://ex\u{3002}com", "in its ASCII form"),
        (
            "https://a b.example",
            "this character cannot stand in a host",
        ),
        ("https://user@a.example", "user information"),
        ("https://a.example:x", "a port from 1 to 65535"),
        ("https://a.example/x", "nothing but one slash"),
        ("https://*.example", "at least two labels"),
        ("https://*.1.2.3.4", "not an address"),
        ("https://metadata", "never a destination"),
    ] {
        let error = Destinations::only([pattern]).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let error = Destinations::universe("a.example:443").unwrap_err();
    assert_eq!(error.position(), Some(9), "{error}");
}

#[test]
fn a_pattern_has_the_limits_of_dns() {
    let (label, longer) = ("a".repeat(63), "a".repeat(64));
    // Both are names of 253 characters and one more.
    let (name, longer_name) = (format!("{}a", "a.".repeat(126)), "ab.".repeat(84) + "ab");
    for (host, at) in [
        (format!("x.{label}.example"), None),
        (format!("x.{longer}.example"), Some(10)),
        (name.clone(), None),
        (longer_name, Some(8)),
        ("x.a-.example".to_owned(), Some(10)),
        ("x.y.-a.example".to_owned(), Some(12)),
    ] {
        let error = Destinations::only([format!("https://{host}")]).err();
        assert_eq!(error.and_then(|error| error.position()), at, "{host}");
    }
    assert!(Destinations::universe("a.-b.example").is_err());
}

#[test]
fn debug_output_says_what_is_allowed() {
    for (destinations, shown) in [
        (
            google().pass_others(),
            r#"Destinations { only: ["https://*.googleapis.com", "https://googleapis.com"], pass_others: true }"#,
        ),
        (
            Destinations::inner_origin("https://[0::1]:8080").unwrap(),
            r#"Destinations { inner_origin: "https://[::1]:8080", pass_others: false }"#,
        ),
        (
            Destinations::danger_trust_inner(),
            "Destinations { danger_trust_inner: true, pass_others: false }",
        ),
    ] {
        assert_eq!(format!("{destinations:?}"), shown);
    }
}

#[test]
fn a_trailing_slash_in_a_pattern_changes_nothing() {
    let run = only([
        "https://*.run.app/",
        "http://127.0.0.1:8080/",
        "http://[::1]/",
    ]);
    for uri in [
        "https://a.run.app",
        "http://127.0.0.1:8080/x",
        "http://[::1]",
    ] {
        assert!(allows(&run, uri), "{uri}");
    }
    assert!(!allows(&run, "https://a.run.app.evil.example"));
}

#[test]
fn a_refusal_says_what_is_odd_and_at_which_byte() {
    for (uri, odd, at) in [
        (
            "https://[x@evil.com:.googleapis.com]/",
            "user information",
            2,
        ),
        (
            "https://[x@metadata.google.internal:.googleapis.com]",
            "user information",
            2,
        ),
        ("https://user@storage.googleapis.com", "user information", 4),
        ("https://[x.googleapis.com]/", "IPv6 address", 1),
        ("https://[1.2.3.4]", "IPv6 address", 1),
        ("https://[]", "IPv6 address", 1),
        ("https://[v1.x]", "IPv6 address", 1),
        ("https://[::1]x", "a port", 5),
        ("https://[::1].googleapis.com", "a port", 5),
        ("https://x[::1].googleapis.com", "character", 1),
        ("https://storage.googleapis.com.", "ends in a dot", 23),
        ("https://storage..googleapis.com", "label is empty", 8),
        ("https://.googleapis.com", "label is empty", 0),
        ("https://evil,.googleapis.com", "character", 4),
        ("https://storage.googleapis.com:", "a port", 22),
        ("https://storage.googleapis.com:0", "a port", 22),
        ("https://storage.googleapis.com:0443", "a port", 22),
        ("https://storage.googleapis.com:65536", "a port", 22),
        ("https://storage.googleapis.com:+443", "a port", 22),
        ("https://:443", "host is missing", 0),
        ("https://127.1", "four decimal numbers", 0),
        ("https://0x7f.0.0.1", "four decimal numbers", 0),
        ("https://x.googleapis.0x7f", "four decimal numbers", 0),
        ("https://010.0.0.1", "four decimal numbers", 0),
        ("https://2130706433", "four decimal numbers", 0),
    ] {
        let text = refusal_of(&google(), uri);
        assert!(text.contains(odd), "{text}");
        assert!(
            text.ends_with(&format!("(at byte {at} of the authority)")),
            "{text}"
        );
    }
}

#[test]
fn a_refusal_is_short_however_long_the_host_is() {
    for host in [
        "a".repeat(60_000),
        format!("[{}]", "a".repeat(60_000)),
        format!("user@{}.example", "a.".repeat(30_000)),
    ] {
        let text = refusal_of(&google(), &format!("https://{host}/"));
        assert!(text.chars().count() < SHOWN + 300, "{}", text.len());
        assert!(text.contains("aaa…") || text.contains("a.a…"), "{text}");
    }
    let longest = format!("https://{}googleapis.example", "a.".repeat(117));
    assert!(refusal_of(&google(), &longest).contains(&longest));
}

#[test]
fn s140_a_connect_or_trace_request_is_never_stamped() {
    let uri = uri("https://storage.googleapis.com:443");
    let inner = Destinations::inner_origin("https://storage.googleapis.com").unwrap();
    for destinations in [google(), inner, Destinations::danger_trust_inner()] {
        assert!(destinations.check(&uri).is_ok());
        for (method, expected) in [
            (Method::CONNECT, false),
            (Method::TRACE, false),
            (Method::GET, true),
            (Method::OPTIONS, true),
            (Method::PATCH, true),
        ] {
            let target = Target::of(&uri).with_method(&method);
            let stamped = matches!(destinations.access(&target), Access::Stamp(_));
            assert_eq!(stamped, expected, "{destinations:?} {method}");
            assert_eq!(destinations.admitted(&target).is_some(), expected);
        }
        let target = Target::of(&uri).with_method(&Method::CONNECT);
        let Access::Refuse(error) = destinations.access(&target) else {
            panic!("sent");
        };
        let text = error.to_string();
        assert!(
            text.contains("for storage.googleapis.com:443: CONNECT and TRACE"),
            "{text}"
        );
        let passed = destinations.pass_others();
        assert!(matches!(passed.access(&target), Access::Pass));
    }
}

/// `http` builds URIs from parts that it would not parse. Written out, they go elsewhere.
#[test]
fn s140_a_path_that_goes_on_where_the_host_ends_is_refused() {
    let inner = Destinations::inner_origin("https://storage.googleapis.com").unwrap();
    let mut built = 0;
    for path in ["*", "@evil.com/x", ".evil.com", ":1@evil.com/", "x"] {
        let parts = Uri::builder()
            .scheme("https")
            .authority("storage.googleapis.com");
        // What the builder refuses depends on the version of `http`.
        let Ok(uri) = parts.path_and_query(path).build() else {
            continue;
        };
        built += 1;
        for destinations in [google(), inner.clone()] {
            let error = destinations.check(&uri).unwrap_err();
            assert!(error.to_string().contains("with its path"), "{error}");
        }
        let any = Destinations::danger_trust_inner();
        assert!(any.check(&uri).is_ok());
    }
    assert!(built > 0);
    for path in ["//evil.com/x", "/\\evil.com/x"] {
        if let Ok(uri) = path.parse() {
            assert!(inner.check(&uri).is_err(), "{path}");
        }
    }
    for path in ["/x//y", "/", "*"] {
        assert!(allows(&inner, path), "{path}");
    }
    for uri in [
        "https://storage.googleapis.com?x",
        "https://storage.googleapis.com//x",
    ] {
        assert!(allows(&google(), uri), "{uri}");
    }
}

#[test]
fn a_refused_address_is_shown_whole() {
    for host in ["[2001:db8::ab]", "[2001:db8::ab]:8443", "[::ffff:1.2.3.4]"] {
        let text = refusal_of(&google(), &format!("https://{host}/"));
        assert!(text.contains(&format!("https://{host}: ")), "{text}");
    }
}

#[test]
fn a_password_that_looks_like_a_port_is_not_repeated() {
    let text = refusal_of(&google(), "https://svc:hunter2/x@storage.googleapis.com");
    assert!(
        text.contains("https://svc:…: ") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn an_inner_origin_is_that_of_requests_that_name_none() {
    let inner = Destinations::inner_origin("https://PubSub.googleapis.com:443/").unwrap();
    for uri in [
        "/google.pubsub.v1.Publisher/Publish",
        "*",
        "https://pubsub.googleapis.com/x",
        "https://PUBSUB.googleapis.com:443",
    ] {
        assert!(allows(&inner, uri), "{uri}");
        let uri = super::tests::uri(uri);
        let audience = inner.audience(&Target::of(&uri)).unwrap();
        assert_eq!(audience, "https://pubsub.googleapis.com");
    }
    for uri in [
        "https://storage.googleapis.com",
        "http://pubsub.googleapis.com",
        "https://pubsub.googleapis.com:8443",
        "pubsub.googleapis.com:443",
        "https://x@pubsub.googleapis.com",
    ] {
        assert!(!allows(&inner, uri), "{uri}");
    }
    let text = refusal_of(&inner, "https://storage.googleapis.com");
    assert!(
        text.contains("allowed is https://pubsub.googleapis.com alone"),
        "{text}"
    );
    for (origin, at) in [
        ("https://*.googleapis.com", Some(8)),
        ("pubsub.googleapis.com", None),
        ("https://metadata.google.internal", Some(8)),
        ("https://pubsub.googleapis.com/v1", Some(29)),
    ] {
        let error = Destinations::inner_origin(origin).unwrap_err();
        assert_eq!(error.position(), at, "{error}");
    }
}

#[test]
fn patterns_are_added_to_a_list_and_to_nothing_else() {
    let both = google().pass_others().and(["https://*.run.app/"]).unwrap();
    for uri in ["https://a.run.app", "https://storage.googleapis.com"] {
        assert!(allows(&both, uri), "{uri}");
        assert_eq!(allows(&google(), uri), uri.contains("google"));
    }
    assert!(matches!(access(&both, "https://x.example"), Access::Pass));
    assert!(google().and(["https://"]).is_err());
    assert!(google().and::<[&str; 0]>([]).is_err());
    let inner = Destinations::inner_origin("https://a.example").unwrap();
    for bound in [inner, Destinations::danger_trust_inner()] {
        let error = bound.and(["https://b.example"]).unwrap_err();
        assert!(error.to_string().contains("inner service"), "{error}");
    }
}

#[test]
fn one_origin_in_every_spelling_has_one_number_and_one_audience() {
    for spellings in [
        &[
            "https://storage.googleapis.com",
            "https://STORAGE.googleapis.com/",
            "https://storage.googleapis.com:443/x",
            "https://Storage.GoogleAPIs.com:443?x",
        ][..],
        &["http://[::1]", "http://[0:0::1]:80", "http://[0::0001]/x"],
        &["http://127.0.0.1:8080", "http://127.0.0.1:8080/x"],
    ] {
        let answers = spellings.iter().map(|spelling| {
            let uri = uri(spelling);
            let target = Target::of(&uri);
            (target.origin_id(), google().audience(&target).unwrap())
        });
        let answers: std::collections::HashSet<_> = answers.collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
    let others = [
        "https://storage.googleapis.com",
        "http://storage.googleapis.com",
        "https://storage.googleapis.com:8443",
        "https://pubsub.googleapis.com",
        "http://storage.googleapis.com:443",
        "http://[::1]",
        "http://[::2]",
        "http://127.0.0.1",
    ];
    let numbers = others.map(|other| Target::of(&uri(other)).origin_id());
    let numbers: std::collections::HashSet<_> = numbers.into_iter().collect();
    assert_eq!(numbers.len(), others.len());
}

mod admitted {
    use super::*;

    fn is_remembered(destinations: &Destinations, text: &str) -> bool {
        let uri = uri(text);
        destinations.admitted(&Target::of(&uri)).is_some()
    }

    fn hosts(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|number| format!("https://chosen-{number}.googleapis.com/"))
    }

    #[test]
    fn up_to_sixteen_are_remembered_as_they_were_written() {
        let google = google();
        for uri in hosts(16) {
            assert!(!is_remembered(&google, &uri));
            assert!(allows(&google, &uri));
        }
        assert!(hosts(16).all(|uri| is_remembered(&google, &uri)));
        assert!(is_remembered(
            &google.clone().pass_others(),
            "https://chosen-0.googleapis.com"
        ));
        for other in [
            "https://CHOSEN-0.googleapis.com",
            "https://chosen-0.googleapis.com:443",
            "http://chosen-0.googleapis.com",
            "https://chosen-16.googleapis.com",
            "https://chosen-0.googleapis.co",
            "https://chosen-0.googleapis.comm",
            "/",
        ] {
            assert!(!is_remembered(&google, other), "{other}");
        }
    }

    #[test]
    fn the_remembered_origin_is_the_one_that_was_read() {
        let google = google();
        for spelling in ["https://A.googleapis.com", "https://a.googleapis.com:443"] {
            let uri = uri(spelling);
            let Access::Stamp(read) = google.access(&Target::of(&uri)) else {
                panic!("refused");
            };
            assert_eq!(google.admitted(&Target::of(&uri)), Some(read));
            assert_eq!(read, Target::of(&uri).origin_id());
        }
    }

    #[test]
    fn what_is_refused_is_not_remembered() {
        let google = google();
        for text in [
            "https://evil.example",
            "https://x@storage.googleapis.com",
            "/",
        ] {
            assert!(!allows(&google, text));
            assert!(!is_remembered(&google, text), "{text}");
        }
    }

    #[test]
    fn s140_chosen_hosts_push_the_programs_own_out_only_for_a_while() {
        const OWN: &str = "https://storage.googleapis.com/";
        const CHOSEN: usize = 8_000;
        fastrand::seed(7);
        let google = google();
        // Whoever chooses the hosts comes first, and is eight times as busy.
        let (mut uses, mut remembered) = (0, 0);
        for (number, chosen) in hosts(CHOSEN).enumerate() {
            assert!(allows(&google, &chosen));
            if number >= 100 && number % 8 == 0 {
                uses += 1;
                remembered += usize::from(is_remembered(&google, OWN));
                assert!(allows(&google, OWN));
            }
        }
        assert!(remembered > uses / 4, "{remembered} of {uses}");
        assert!(remembered < uses, "never displaced");
        let chosen = hosts(CHOSEN).filter(|uri| is_remembered(&google, uri));
        assert!((15..=16).contains(&chosen.count()));
    }

    #[test]
    fn long_authorities_are_not_kept() {
        let any = Destinations::danger_trust_inner();
        for (length, kept) in [(264, true), (265, false), (60_000, false)] {
            let text = format!("https://{}", "a".repeat(length));
            assert!(allows(&any, &text));
            assert_eq!(is_remembered(&any, &text), kept, "{length}");
        }
    }

    #[test]
    fn threads_that_add_the_same_authority_add_it_once() {
        for _ in 0..100 {
            let google = google();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| allows(&google, "https://storage.googleapis.com"));
                }
            });
            assert_eq!(google.shared.admitted.len(), 1);
        }
    }
}

proptest! {
    #[test]
    fn no_pattern_panics(pattern in "\\PC{0,40}|(https://)?[\\*a-z:\\[\\]./0-9@%-]{0,20}") {
        let _ = Destinations::inner_origin(&pattern);
        if let Ok(destinations) = Destinations::only([&pattern]) {
            let shown = format!("{destinations:?}");
            prop_assert!(shown.contains("://"));
        }
    }

    /// A pattern that is printed is the same pattern when it is read again.
    #[test]
    fn patterns_survive_printing(
        pattern in "(https|http)://(\\*\\.)?([aB]{1,2}\\.){1,2}[abAB]{1,2}(:443|:80|:8080)?/?|http://\\[::[1-9a-fA-F]\\](:80)?",
    ) {
        let read = Pattern::parse(&pattern).unwrap();
        prop_assert_eq!(&read, &Pattern::parse(&read.to_string()).unwrap());
    }
}
