//! Promises 1, 2, 3 and 5 under random schedules: lives, latencies, failures, hangs, clocks that
//! jump, machines that sleep, callers that give up, and destinations that answer 401.
//!
//! A case that fails is shrunk and told as a story, one line per thing that happened.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::StatusCode;
use proptest::{prelude::*, test_runner::TestCaseResult};
use support::{Answer, BUCKET, Inner, Script, send};
use tokio::time::{Instant, sleep, timeout};
use tower::Layer;
use tower_scoped_auth::{ScopedAuth, ScopedAuthLayer, TokenCache, test_util::TestClock};

#[derive(Clone, Debug)]
enum Event {
    /// Nothing happens for so many milliseconds.
    Pass(u64),
    /// This many requests, each given up after so many milliseconds if not answered.
    Requests { count: usize, patience: u64 },
    /// From now on the source answers so.
    Source { life: u64, latency: u64, mood: Mood },
    /// The machine sleeps for so many seconds.
    Suspend(u64),
    /// The wall clock moves by so many seconds.
    Jump(i64),
    /// The next request is answered 401.
    Refuse,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Well,
    Failing,
    Hanging,
    /// The same token as last time, if it still lives.
    Repeating,
}

fn event() -> impl Strategy<Value = Event> {
    let mood = prop_oneof![
        4 => Just(Mood::Well),
        2 => Just(Mood::Failing),
        1 => Just(Mood::Hanging),
        1 => Just(Mood::Repeating),
    ];
    let life = prop_oneof![1_u64..30, 30_u64..600, 600_u64..7_200];
    let latency = prop_oneof![Just(0_u64), 1_u64..2_900, 2_900_u64..20_000];
    let pass = prop_oneof![1_u64..2_000, 1_000_u64..60_000, 60_000_u64..7_200_000];
    prop_oneof![
        6 => pass.prop_map(Event::Pass),
        6 => (1_usize..20, prop_oneof![1_u64..500, 500_u64..40_000])
            .prop_map(|(count, patience)| Event::Requests { count, patience }),
        4 => (life, latency, mood)
            .prop_map(|(life, latency, mood)| Event::Source { life, latency, mood }),
        1 => (1_u64..20_000).prop_map(Event::Suspend),
        1 => (-20_000_i64..20_000).prop_map(Event::Jump),
        2 => Just(Event::Refuse),
    ]
}

/// What the source said of a token, and when it was asked.
#[derive(Clone, Copy, Debug)]
struct Statement {
    sent: Instant,
    sent_wall: SystemTime,
    life: Duration,
}

impl Statement {
    /// Not past its life, by either clock.
    fn holds(&self, wall: SystemTime) -> bool {
        // A wall clock that was set back since says nothing.
        let wall_age = wall.duration_since(self.sent_wall).unwrap_or_default();
        self.sent.elapsed() < self.life && wall_age < self.life
    }
}

struct World {
    clock: TestClock,
    begun: Instant,
    behaviour: Mutex<(u64, u64, Mood)>,
    /// By token; the server repeats one with what is left of it.
    stated: Mutex<HashMap<String, Vec<Statement>>>,
    last: Mutex<Option<(String, Duration)>>,
    /// How long the machine slept: the server did not.
    slept: Mutex<Duration>,
    refuse: AtomicBool,
    story: Mutex<String>,
    broken: Mutex<Option<String>>,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            clock: TestClock::new(),
            begun: Instant::now(),
            behaviour: Mutex::new((3599, 0, Mood::Well)),
            stated: Mutex::default(),
            last: Mutex::default(),
            slept: Mutex::default(),
            refuse: AtomicBool::new(false),
            story: Mutex::default(),
            broken: Mutex::default(),
        })
    }

    fn tell(&self, what: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        writeln!(self.story.lock().unwrap(), "{at:>12.3}  {what}").unwrap();
    }

    fn broken(&self, promise: String) {
        self.tell(&format!("BROKEN: {promise}"));
        self.broken.lock().unwrap().get_or_insert(promise);
    }

    fn answer(&self, number: usize) -> Answer {
        let (life, latency, mood) = *self.behaviour.lock().unwrap();
        let latency = Duration::from_millis(latency);
        self.tell(&format!(
            "attempt {number} begins; the source is {mood:?}, {latency:?}"
        ));
        let mut stated = self.stated.lock().unwrap();
        let mut last = self.last.lock().unwrap();
        let now = self.begun.elapsed() + *self.slept.lock().unwrap();
        let (name, expires) = match (mood, &*last) {
            (Mood::Failing, _) => return Answer::failure("broken").after(latency),
            (Mood::Hanging, _) => return Answer::hang(),
            (Mood::Repeating, Some(last)) => last.clone(),
            (Mood::Well | Mood::Repeating, _) => {
                (format!("tok-{number}"), now + Duration::from_secs(life))
            }
        };
        let left = Duration::from_secs(expires.saturating_sub(now).as_secs());
        let statement = Statement {
            sent: Instant::now(),
            sent_wall: self.clock.wall(),
            life: left,
        };
        stated.entry(name.clone()).or_default().push(statement);
        *last = Some((name.clone(), expires));
        Answer::token(name, left.as_secs()).after(latency)
    }

    /// A request leaves with this token: it must be alive by both clocks.
    fn attached(&self, name: &str) -> StatusCode {
        let (stated, wall) = (self.stated.lock().unwrap(), self.clock.wall());
        if !stated[name].iter().any(|statement| statement.holds(wall)) {
            self.broken(format!(
                "{name} left when it had expired: {:?}",
                stated[name]
            ));
        }
        if self.refuse.swap(false, Ordering::SeqCst) {
            self.tell(&format!("{name} is refused"));
            return StatusCode::UNAUTHORIZED;
        }
        StatusCode::OK
    }
}

/// Longer than the longest wait (30 s) by one timer tick.
const LONGEST: Duration = Duration::from_millis(30_010);

async fn requests(world: &Arc<World>, client: &ScopedAuth<Inner>, count: usize, patience: u64) {
    let patience = Duration::from_millis(patience);
    for _ in 0..count {
        let (world, client) = (world.clone(), client.clone());
        tokio::spawn(async move {
            let asked = Instant::now();
            let answer = timeout(patience, send(&client, BUCKET)).await;
            if answer.is_ok() && asked.elapsed() > LONGEST {
                world.broken(format!("a request took {:?}", asked.elapsed()));
            }
            if answer.is_err() && patience > LONGEST {
                world.broken(format!("a request was not answered in {patience:?}"));
            }
        });
    }
}

async fn live_through(events: &[Event]) -> Result<(), String> {
    let world = World::new();
    let play = world.clone();
    let source = Script::new(move |call| play.answer(call.number));
    let check = world.clone();
    let inner = Inner::answering(move |seen| check.attached(seen.token().unwrap()));
    let cache = TokenCache::builder(source.clone())
        .clock(world.clock.clone())
        .build()
        .unwrap();
    let client = ScopedAuthLayer::from_cache(cache).layer(inner.clone());
    for event in events {
        world.tell(&format!("{event:?}"));
        match *event {
            Event::Pass(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
            Event::Requests { count, patience } => {
                requests(&world, &client, count, patience).await;
                tokio::task::yield_now().await;
            }
            Event::Source {
                life,
                latency,
                mood,
            } => {
                *world.behaviour.lock().unwrap() = (life, latency, mood);
            }
            Event::Suspend(seconds) => {
                world.clock.suspend(Duration::from_secs(seconds));
                *world.slept.lock().unwrap() += Duration::from_secs(seconds);
            }
            Event::Jump(seconds) => {
                let (wall, by) = (
                    world.clock.wall(),
                    Duration::from_secs(seconds.unsigned_abs()),
                );
                world
                    .clock
                    .set_wall(if seconds < 0 { wall - by } else { wall + by });
            }
            Event::Refuse => world.refuse.store(true, Ordering::SeqCst),
        }
    }
    heal(&world, &client).await;
    judge(&world, &source);
    let broken = world.broken.lock().unwrap().take();
    match broken {
        Some(promise) => Err(format!("{promise}\n{}", world.story.lock().unwrap())),
        None => Ok(()),
    }
}

/// From here on the source is well: eleven seconds later so are the requests.
async fn heal(world: &World, client: &ScopedAuth<Inner>) {
    world.refuse.store(false, Ordering::SeqCst);
    *world.behaviour.lock().unwrap() = (3599, 0, Mood::Well);
    world.tell("the source is well for good");
    // Traffic, as requests drive the attempts.
    let healed = Instant::now();
    while healed.elapsed() < Duration::from_secs(11) {
        let _ = timeout(Duration::from_millis(100), send(client, BUCKET)).await;
        sleep(Duration::from_millis(100)).await;
    }
    let asked = Instant::now();
    match send(client, BUCKET).await {
        Err(error) => world.broken(format!("not healed after 11 s: {error}")),
        Ok(_) if asked.elapsed() > Duration::from_millis(10) => {
            world.broken(format!(
                "healed, and yet a request waits {:?}",
                asked.elapsed()
            ));
        }
        Ok(_) => {}
    }
}

fn judge(world: &World, source: &Script) {
    if source.peak() > 1 {
        world.broken(format!("{} fetches at once", source.peak()));
    }
    let times = source.times();
    // A refused token may be replaced at once, and its successor; then there is a pause.
    if let Some(three) = times
        .windows(3)
        .find(|w| w[2] - w[0] < Duration::from_millis(450))
    {
        world.broken(format!("three attempts close together: {three:?}"));
    }
    if let Some(minute) = times
        .windows(75)
        .find(|w| w[74] - w[0] < Duration::from_secs(60))
    {
        world.broken(format!("75 attempts within a minute, from {:?}", minute[0]));
    }
}

fn run(events: &[Event]) -> TestCaseResult {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
    runtime
        .block_on(live_through(events))
        .map_err(TestCaseError::fail)
}

fn check(cases: u32) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..Default::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let events = proptest::collection::vec(event(), 1..60);
    if let Err(failure) = runner.run(&events, |events| run(&events)) {
        panic!("{failure}");
    }
}

#[test]
fn s004_no_expired_token_leaves_whatever_happens() {
    check(256);
}

#[test]
#[ignore = "minutes; the same with 10,000 cases"]
fn s004_no_expired_token_leaves_whatever_happens_at_length() {
    check(10_000);
}
