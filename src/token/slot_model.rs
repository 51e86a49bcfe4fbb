//! The slot under a model checker: loom runs each model in every interleaving of its threads.
//!
//! Run with `RUSTFLAGS="--cfg scoped_auth_loom" cargo test --lib --release slot_model`.
//!
//! A request is a thread that looks, flies if told to, and sleeps until its waker is called. A lost
//! wake-up is a deadlock, which loom reports; a second concurrent flight fails an assertion.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    time::Duration,
};

use loom::{
    sync::{
        Notify,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    clock::Moment,
    current::{Current, Memo},
    lease::Lease,
    schedule::Edges,
    slot::{Allowance, Ask, Launch, Limits, Slot, Step},
    value::Token,
};
use crate::error::{AuthError, Kind};

const SECOND: Duration = Duration::from_secs(1);
const NOW: Moment = Moment { mono: 0, wall: 0 };
const LIMITS: Limits = Limits {
    lead: SECOND,
    attempt: SECOND,
    max_wait: Duration::from_secs(3600),
};

struct World {
    slot: Slot,
    flights: AtomicUsize,
    begun: AtomicUsize,
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            slot: Slot::new(LIMITS),
            flights: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
        })
    }

    /// One attempt; `end` says how the `number`-th (from 0) ends.
    fn fly(&self, launch: Launch, end: fn(usize) -> End) {
        let flying = self.flights.fetch_add(1, Ordering::SeqCst) + 1;
        assert_eq!(flying, 1, "one fetch at a time");
        let number = self.begun.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
        assert!(
            self.slot.clear(launch.id, NOW, None) && self.slot.depart(launch.id, NOW).is_ok(),
            "nobody takes over in this model"
        );
        // Counted down first: the verdict allows the next one.
        self.flights.fetch_sub(1, Ordering::SeqCst);
        match end(number) {
            End::Token => {
                let token = Token::new(format!("t{number}"), 3600 * SECOND);
                let _ = self.slot.finish(launch.id, Ok((token, NOW)), NOW, 0.0);
            }
            End::Failure => {
                let error = AuthError::new(Kind::Source, "broken");
                let _ = self.slot.finish(launch.id, Err(error), NOW, 0.0);
            }
            End::Dropped => self.slot.abandon(launch.id, NOW, 0.0),
        }
    }

    /// Runs a request to completion. `None` if it failed.
    fn request(&self, end: fn(usize) -> End) -> Option<u64> {
        let bell = Arc::new(Bell(Notify::new()));
        let waker = Waker::from(Arc::clone(&bell));
        let mut ask = Ask::new(None, false);
        let mut now = NOW;
        loop {
            let (step, launch) =
                self.slot
                    .look(&mut ask, now, &waker, Allowance::Anything, Duration::ZERO);
            if let Some(launch) = launch {
                self.fly(launch, end);
            }
            match step {
                Step::Use(lease) => return Some(lease.generation()),
                Step::Fail(_) => return None,
                Step::Wait { until } => {
                    bell.0.wait();
                    // If it was told to look again later, "later" is now.
                    if self.begun.load(Ordering::SeqCst) > 0 {
                        now = Moment {
                            mono: now.mono.max(until.min(SECOND.as_nanos() as i64)),
                            wall: 0,
                        };
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum End {
    Token,
    Failure,
    Dropped,
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // Enough to find every bug that needs two threads to meet twice; without a bound it takes hours.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn everyone_gets_the_token_of_one_fetch() {
    explore(|| {
        let world = World::new();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.request(|_| End::Token))
            })
            .collect();
        assert_eq!(world.request(|_| End::Token), Some(1));
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Some(1));
        }
        assert_eq!(world.begun.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_dropped_flight_is_flown_by_somebody_else() {
    explore(|| {
        let world = World::new();
        let end: fn(usize) -> End = |number| {
            if number == 0 {
                End::Dropped
            } else {
                End::Token
            }
        };
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.request(end))
        };
        assert_eq!(world.request(end), Some(1));
        assert_eq!(other.join().unwrap(), Some(1));
        assert_eq!(world.begun.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn an_invalidation_in_between_loses_nobody() {
    explore(|| {
        let world = World::new();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.request(|_| End::Token))
        };
        let generation = world.request(|_| End::Token).unwrap();
        let token = Token::new(format!("t{}", generation - 1), SECOND);
        world.slot.invalidate(&token);
        assert!(other.join().unwrap().is_some());
        // Whichever came first, a later request is served, by a token that was not taken out of
        // service.
        assert!(world.request(|_| End::Token).unwrap() > generation);
    });
}

#[test]
fn who_leaves_takes_no_wake_up_along() {
    explore(|| {
        let world = World::new();
        let leaver = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let mut ask = Ask::new(None, false);
                let (_, launch) = world.slot.look(
                    &mut ask,
                    NOW,
                    Waker::noop(),
                    Allowance::Anything,
                    Duration::ZERO,
                );
                world.slot.leave(&mut ask);
                if let Some(launch) = launch {
                    world.fly(launch, |_| End::Token);
                }
            })
        };
        assert_eq!(world.request(|_| End::Token), Some(1));
        leaver.join().unwrap();
        assert_eq!(world.begun.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_failure_is_everyones() {
    explore(|| {
        let world = World::new();
        let end: fn(usize) -> End = |number| {
            if number == 0 {
                End::Failure
            } else {
                End::Token
            }
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.slot_failure_seen(end))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(
            world.begun.load(Ordering::SeqCst),
            1,
            "the pace holds for everyone"
        );
    });
}

#[test]
fn a_thread_never_goes_back_to_an_old_token() {
    fn lease(generation: u64) -> Option<Arc<Lease>> {
        let token = Token::new(generation.to_string(), 3600 * SECOND);
        let edges = Edges::of(&token, NOW, SECOND, 0.0);
        Lease::new(token, generation, edges).map(Arc::new)
    }
    /// The generation of the stamp that a service with this memo puts on a request.
    fn stamped(current: &Current, memo: &mut Memo) -> u64 {
        let recalled = current.recall(memo, NOW);
        let imprint = recalled.or_else(|| current.look(memo, NOW)).unwrap();
        let text = imprint.header.to_str().unwrap();
        text.strip_prefix("Bearer ").unwrap().parse().unwrap()
    }

    explore(|| {
        let current = Arc::new(Current::empty());
        current.store(lease(1));
        // Two services on one thread, alternating. From the second look on they remember.
        let (mut one, mut other) = (Memo::default(), Memo::default());
        for memo in [&mut one, &mut other] {
            assert_eq!(stamped(&current, memo), 1);
        }
        let reader = {
            let current = Arc::clone(&current);
            thread::spawn(move || {
                let seen = [
                    stamped(&current, &mut one),
                    stamped(&current, &mut Memo::default()),
                    stamped(&current, &mut other),
                    stamped(&current, &mut one),
                    stamped(&current, &mut other),
                ];
                assert!(seen.is_sorted(), "{seen:?}");
                (one, other)
            })
        };
        current.store(lease(2));
        let (mut one, mut other) = reader.join().unwrap();
        // What is remembered does not outlive the exchange.
        assert_eq!(stamped(&current, &mut one), 2);
        assert_eq!(stamped(&current, &mut other), 2);
    });
}

impl World {
    /// A request that gives up once an attempt has failed.
    fn slot_failure_seen(&self, end: fn(usize) -> End) {
        let bell = Arc::new(Bell(Notify::new()));
        let waker = Waker::from(Arc::clone(&bell));
        let mut ask = Ask::new(None, false);
        loop {
            let (step, launch) =
                self.slot
                    .look(&mut ask, NOW, &waker, Allowance::Anything, Duration::ZERO);
            if let Some(launch) = launch {
                self.fly(launch, end);
            }
            if self.slot.glance().trouble.is_some() || matches!(step, Step::Fail(_)) {
                return self.slot.leave(&mut ask);
            }
            bell.0.wait();
        }
    }
}
