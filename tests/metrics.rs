//! The metrics: names, labels and numbers as in docs/observability.md, and no change of behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{RefUnwindSafe, UnwindSafe},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, HeaderValue, Request, StatusCode};
use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};
use support::{Answer, BUCKET, Inner, Script, get, send};
use tokio::{runtime, time::sleep};
use tower::{Layer, ServiceExt};
use tower_scoped_auth::{
    Audience, ResponseFuture, ScopedAuth, ScopedAuthLayer, Scopes, TokenCache, TokenRequest,
    TokenSource, test_util::TestClock,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cache(source: impl TokenSource) -> TokenCache {
    let clock = TestClock::new();
    TokenCache::builder(source).clock(clock).build().unwrap()
}

fn access() -> TokenRequest {
    TokenRequest::access_token(Scopes::default())
}

/// Runs `test` on a paused runtime on this thread, with a recorder of its own.
fn recorded<F: Future>(test: impl FnOnce(Meter) -> F) -> F::Output {
    let recorder = DebuggingRecorder::new();
    let meter = Meter(recorder.snapshotter());
    let mut builder = runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(meter)))
}

struct Meter(Snapshotter);

/// By `name{label="value",…}`, or a part of it.
type Numbers = BTreeMap<String, f64>;

impl Meter {
    /// What has been recorded since the last look, which resets everything to zero: counts, what a gauge
    /// was set to or changed by, how many values a histogram got.
    fn look(&self) -> Numbers {
        let mut numbers = Numbers::new();
        for (key, _unit, _description, value) in self.0.snapshot().into_vec() {
            let (_kind, key) = key.into_parts();
            let labels = key.labels().filter(|label| label.key() != "source");
            let labels: Vec<_> = labels
                .filter(|label| !label.value().is_empty())
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            assert!(
                key.labels()
                    .any(|l| (l.key(), l.value()) == ("source", "custom"))
            );
            let name = key.name().strip_prefix("scoped_auth_").unwrap();
            let value = match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(value) => value.0,
                DebugValue::Histogram(values) => values.len() as f64,
            };
            numbers.insert(format!("{name}{{{}}}", labels.join(",")), value);
        }
        numbers
    }

    /// Those that are not zero.
    fn news(&self) -> Numbers {
        let mut numbers = self.look();
        numbers.retain(|_, value| *value != 0.0);
        numbers
    }
}

fn numbers<const N: usize>(all: [(&str, f64); N]) -> Numbers {
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

const LEFT: &str = "token_seconds_left{request=access token}";
const EXPIRY: &str = "token_expiry_timestamp_seconds{request=access token}";

#[test]
fn the_names_kinds_and_labels_are_the_documented_ones() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/observability.md");
    let documented: BTreeSet<_> = fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| `scoped_auth_"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            [1, 2, 3]
                .map(|cell| cells[cell].replace('`', ""))
                .join(" | ")
        })
        .collect();
    recorded(|meter| async move {
        let client = ScopedAuthLayer::from_cache(cache(Script::tokens(3599))).layer(Inner::new());
        send(&client, BUCKET).await.unwrap();
        let mut recorded = BTreeSet::new();
        for (key, unit, description, _value) in meter.0.snapshot().into_vec() {
            let kind = match key.kind() {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            let key = key.key();
            assert!(unit.is_some() && description.is_some(), "{key}");
            let labels: Vec<_> = key.labels().map(|label| label.key()).collect();
            recorded.insert(format!("{} | {kind} | {}", key.name(), labels.join(", ")));
        }
        assert_eq!(recorded, documented);
    });
}

#[test]
fn every_counter_begins_at_zero() {
    recorded(|meter| async move {
        let _cache = cache(Script::tokens(3599));
        let begun = meter.look();
        assert!(begun.values().all(|value| *value == 0.0), "{begun:?}");
        for outcome in ["published", "extended", "unchanged", "abandoned"] {
            let name = format!("fetches_total{{outcome={outcome}}}");
            assert!(begun.contains_key(&name), "{begun:?}");
        }
        for reason in "connect timeout status response source panic request".split(' ') {
            let name = format!("fetches_total{{outcome=failed,reason={reason}}}");
            assert!(begun.contains_key(&name), "{begun:?}");
        }
        for name in ["stamped", "refused", "starved", "rejected"] {
            assert!(
                begun.contains_key(&format!("{name}_requests_total{{}}")),
                "{begun:?}"
            );
        }
    });
}

#[test]
fn requests_are_counted_by_what_became_of_them() {
    recorded(|meter| async move {
        let inner = Inner::answering(|seen| match seen.uri.path() {
            "/no" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::OK,
        });
        let layer = ScopedAuthLayer::from_cache(cache(Script::tokens(3599)));
        let client = layer.layer(inner);

        // One waited, the others did not.
        for _ in 0..5 {
            send(&client, BUCKET).await.unwrap();
        }
        let mut seen = meter.news();
        assert_eq!(seen.remove(LEFT), Some(3599.0));
        let expiry = seen.remove(EXPIRY).unwrap();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        assert!((expiry - now - 3599.0).abs() < 60.0, "{expiry}");
        let expected = [
            ("fetches_total{outcome=published}", 1.0),
            ("fetch_duration_seconds{outcome=published}", 1.0),
            ("stamped_requests_total{}", 5.0),
        ];
        assert_eq!(seen, numbers(expected));

        send(&client, "https://storage.googleapis.com/no")
            .await
            .unwrap();
        for _ in 0..3 {
            send(&client, "https://evil.example/").await.unwrap_err();
        }
        // A caller's own header is neither stamped nor refused.
        let own = Request::get(BUCKET).header("authorization", "Basic x");
        client.clone().oneshot(own.body(()).unwrap()).await.unwrap();
        let mut seen = meter.news();
        seen.retain(|name, _| name.contains("requests"));
        let expected = [
            ("stamped_requests_total{}", 1.0),
            ("rejected_requests_total{}", 1.0),
            ("refused_requests_total{}", 3.0),
        ];
        assert_eq!(seen, numbers(expected));
    });
}

#[test]
fn a_request_without_room_for_the_header_is_refused_whether_it_waited_or_not() {
    recorded(|meter| async move {
        let layer = ScopedAuthLayer::from_cache(cache(Script::tokens(3599)));
        let client = layer.layer(Inner::new());
        let mut crowded = get(BUCKET);
        for n in 0.. {
            let name = HeaderName::try_from(format!("x-{n}")).unwrap();
            let room = crowded
                .headers_mut()
                .try_insert(name, HeaderValue::from_static(""));
            if room.is_err() {
                break;
            }
        }
        for _ in 0..2 {
            let sent = client.clone().oneshot(crowded.clone()).await;
            assert!(sent.unwrap_err().to_string().contains("more headers"));
            let seen = meter.news();
            assert_eq!(seen.get("refused_requests_total{}"), Some(&1.0), "{seen:?}");
            assert!(!seen.contains_key("stamped_requests_total{}"), "{seen:?}");
        }
    });
}

#[test]
fn failures_are_counted_by_reason_and_waiters_while_they_wait() {
    recorded(|meter| async move {
        let source = Script::new(|call| match call.number {
            1 => Answer::failure("out").after(secs(1)),
            2 => Answer::hang(),
            number => Answer::token(format!("tok-{number}"), 3599),
        });
        let cache = cache(source);
        let wait = |_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token(&access()).await.map(drop) })
        };
        let waiting: Vec<_> = (0..7).map(wait).collect();
        sleep(Duration::from_millis(500)).await;
        assert_eq!(meter.news(), numbers([("waiting_requests{}", 7.0)]));
        waiting[0].abort();
        waiting[1].abort();
        sleep(Duration::from_millis(100)).await;
        assert_eq!(meter.news(), numbers([("waiting_requests{}", -2.0)]));

        for waited in waiting.into_iter().skip(2) {
            waited.await.unwrap().unwrap();
        }
        let mut seen = meter.news();
        seen.retain(|name, _| name.starts_with("fetch") || name.contains("requests"));
        let expected = [
            ("waiting_requests{}", -5.0),
            ("fetches_total{outcome=failed,reason=source}", 1.0),
            ("fetches_total{outcome=failed,reason=timeout}", 1.0),
            ("fetch_duration_seconds{outcome=failed}", 2.0),
            ("fetches_total{outcome=published}", 1.0),
            ("fetch_duration_seconds{outcome=published}", 1.0),
        ];
        assert_eq!(seen, numbers(expected));
    });
}

#[test]
fn requests_without_a_token_are_counted_as_starved() {
    recorded(|meter| async move {
        let cache = cache(Script::new(|_| Answer::failure("out")));
        let client = ScopedAuthLayer::from_cache(cache.clone()).layer(Inner::new());
        for _ in 0..20 {
            send(&client, BUCKET).await.unwrap_err();
            cache.token(&access()).await.unwrap_err();
        }
        assert_eq!(meter.news()["starved_requests_total{}"], 40.0);
    });
}

#[test]
fn who_cannot_wait_for_want_of_timers_is_starved_as_well() {
    let recorder = DebuggingRecorder::new();
    let meter = Meter(recorder.snapshotter());
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        let client = ScopedAuthLayer::from_cache(cache(Script::tokens(3599))).layer(Inner::new());
        runtime.block_on(send(&client, BUCKET)).unwrap_err();
    });
    assert_eq!(meter.news()["starved_requests_total{}"], 1.0);
}

#[test]
fn the_gauges_follow_status_and_invalidation_and_outlive_a_cache() {
    recorded(|meter| async move {
        let cache = cache(Script::tokens(3599));
        let token = cache.token(&access()).await.unwrap();
        let at_first = meter.look();
        sleep(secs(1000)).await;
        assert_eq!(meter.look()[LEFT], 0.0, "not written again: nobody looked");
        cache.status(&access());
        let later = meter.look();
        assert_eq!(later[LEFT], 2599.0);
        assert!((later[EXPIRY] - at_first[EXPIRY]).abs() < 0.01);
        cache.status(&access());
        cache.invalidate(&token);
        assert_eq!(meter.look()[LEFT], 0.0, "the last write");

        let kept = tokio::spawn(cache.keep_fresh(&access()));
        sleep(secs(91)).await;
        let seen = meter.look()[LEFT];
        assert!(
            (3599.0 - 91.0..3599.0 - 59.0).contains(&seen),
            "within 30 s: {seen}"
        );
        cache.status(&access());
        let live = meter.look()[LEFT];
        assert!(live > 3400.0, "{live}");
        // Another cache of the same name may hold a live token in this series.
        let other = self::cache(Script::tokens(3599));
        other.token(&access()).await.unwrap();
        drop(cache);
        kept.await.unwrap();
        let seen = meter.look();
        assert!(seen[LEFT] > 3000.0, "the live one's: {}", seen[LEFT]);
    });
}

fn tokens_with_gauges(seen: &Numbers) -> usize {
    let gauges = seen.keys();
    gauges
        .filter(|name| name.starts_with("token_seconds_left"))
        .count()
}

#[test]
fn the_number_of_series_is_bounded() {
    recorded(|meter| async move {
        let cache = cache(Script::tokens(3599));
        for number in 0..100 {
            let audience = Audience::new(format!("https://{number}.example")).unwrap();
            cache
                .token(&TokenRequest::id_token(audience))
                .await
                .unwrap();
        }
        let seen = meter.look();
        assert_eq!(tokens_with_gauges(&seen), 32);
        assert_eq!(seen["fetches_total{outcome=published}"], 100.0);
    });
}

#[test]
fn what_is_forgotten_and_comes_again_has_its_series_still() {
    recorded(|meter| async move {
        let cache = TokenCache::builder(Script::tokens(3599)).max_tokens(1);
        let cache = cache.clock(TestClock::new()).build().unwrap();
        let ask = |name: &str| {
            let audience = Audience::new(format!("https://{name}.example")).unwrap();
            let (cache, request) = (cache.clone(), TokenRequest::id_token(audience));
            async move { cache.token(&request).await.map(drop) }
        };
        for _ in 0..50 {
            ask("one").await.unwrap();
            ask("another").await.unwrap();
        }
        ask("the-last").await.unwrap();
        assert_eq!(meter.look()["fetches_total{outcome=published}"], 101.0);
        assert_eq!(tokens_with_gauges(&meter.look()), 3);
    });
}

#[test]
fn no_secret_is_in_a_label() {
    recorded(|meter| async move {
        let source = Script::new(|_| Answer::token("tok-secret", 3599));
        let client = ScopedAuthLayer::from_cache(cache(source)).layer(Inner::new());
        client.oneshot(get(BUCKET)).await.unwrap();
        assert!(!format!("{:?}", meter.0.snapshot().into_vec()).contains("tok-secret"));
    });
}

/// What the crate promises without the feature, it also promises with it.
#[test]
fn the_auto_traits_stay() {
    fn all<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    all::<TokenCache>();
    all::<ScopedAuthLayer>();
    all::<ScopedAuth<()>>();
    fn future<T: Send>() {}
    future::<ResponseFuture<Inner, Request<()>>>();
}
