//! `Turns`: how many fetches run at once, over all slots of a cache, and who is next in line.
//!
//! Knows times, and runtimes by their numbers; does not know what is done with a turn, and starts nothing.
//! Whoever stands in line is data, not a task: a task in a runtime that does not run would take its turn and
//! never know.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Id as Runtime;

/// Fetches that may run at once.
pub(crate) const MOST: usize = 16;

/// The turns there are, and the line for them, first come, first served.
pub(crate) struct Turns<T> {
    taken: Arc<Mutex<Taken>>,
    line: Mutex<Line<T>>,
}

struct Line<T> {
    waiting: VecDeque<(Runtime, T)>,
    stranded: VecDeque<T>,
}

/// At most [`MOST`].
#[derive(Debug, Default)]
struct Taken {
    turns: Vec<Held>,
    next: u64,
}

#[derive(Debug)]
struct Held {
    id: u64,
    runtime: Runtime,
    /// From then on (monotonic nanoseconds) it may be taken away.
    until: i64,
}

/// Given back when it is dropped, unless it was taken away before.
#[derive(Debug)]
pub(crate) struct Turn {
    id: u64,
    runtime: Runtime,
    taken: Arc<Mutex<Taken>>,
}

/// What becomes of somebody in line.
pub(crate) enum Next<T> {
    Turn(T, Turn),
    /// It stood in line for a runtime that did not give a turn back in time. It would only keep the next one
    /// as well.
    Stranded(T),
}

impl<T> Turns<T> {
    pub(crate) fn new() -> Self {
        Self {
            taken: Arc::default(),
            line: Mutex::new(Line {
                waiting: VecDeque::new(),
                stranded: VecDeque::new(),
            }),
        }
    }

    /// There is none to be had now.
    pub(crate) fn are_taken(&self, now: i64) -> bool {
        lock(&self.line).are_all_taken(&mut lock(&self.taken), now)
    }

    /// Stands in line, for a turn in `runtime`.
    pub(crate) fn enter(&self, runtime: Runtime, who: T) {
        lock(&self.line).waiting.push_back((runtime, who));
    }

    /// The first in line and its turn, which may be taken away from `until` on; but before that, whoever is
    /// stranded.
    pub(crate) fn next(&self, now: i64, until: i64) -> Option<Next<T>> {
        let mut line = lock(&self.line);
        if line.waiting.is_empty() && line.stranded.is_empty() {
            return None;
        }
        let mut taken = lock(&self.taken);
        let are_taken = line.are_all_taken(&mut taken, now);
        if let Some(who) = line.stranded.pop_front() {
            return Some(Next::Stranded(who));
        }
        if are_taken {
            return None;
        }
        let (runtime, who) = line.waiting.pop_front()?;
        let id = taken.next;
        taken.next = id.wrapping_add(1);
        taken.turns.push(Held { id, runtime, until });
        let turn = Turn {
            id,
            runtime,
            taken: Arc::clone(&self.taken),
        };
        Some(Next::Turn(who, turn))
    }

    /// Takes away a turn that was not given back in time.
    pub(crate) fn take_away(&self, turn: &Turn) {
        let mut line = lock(&self.line);
        // Otherwise it was before, and those who stood in line then know.
        if lock(&self.taken).remove(turn.id) {
            line.strand(&[turn.runtime]);
        }
    }
}

impl<T> Line<T> {
    fn are_all_taken(&mut self, taken: &mut Taken, now: i64) -> bool {
        if taken.turns.len() < MOST {
            return false;
        }
        let mut late = Vec::new();
        taken.turns.retain(|held| {
            let in_time = now < held.until;
            if !in_time {
                late.push(held.runtime);
            }
            in_time
        });
        if !late.is_empty() {
            self.strand(&late);
        }
        taken.turns.len() >= MOST
    }

    /// Nobody who stands in line now waits for these runtimes any longer. Who enters from one later does: it
    /// may run again.
    fn strand(&mut self, runtimes: &[Runtime]) {
        for (runtime, who) in mem::take(&mut self.waiting) {
            if runtimes.contains(&runtime) {
                self.stranded.push_back(who);
            } else {
                self.waiting.push_back((runtime, who));
            }
        }
    }
}

impl Taken {
    fn remove(&mut self, id: u64) -> bool {
        let place = self.turns.iter().position(|held| held.id == id);
        place.map(|place| self.turns.swap_remove(place)).is_some()
    }
}

impl Turn {
    /// It is not taken away before `until`. False if it was already, and somebody else has it.
    pub(crate) fn extend(&self, until: i64) -> bool {
        let mut taken = lock(&self.taken);
        taken.remove(self.id);
        let room = taken.turns.len() < MOST;
        if room {
            let (id, runtime) = (self.id, self.runtime);
            taken.turns.push(Held { id, runtime, until });
        }
        room
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.taken).remove(self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can leave the data half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    fn runtimes<const N: usize>() -> [Runtime; N] {
        std::array::from_fn(|_| Builder::new_current_thread().build().unwrap()).map(|runtime| {
            let id = runtime.handle().id();
            // A number is given again when its runtime has gone.
            mem::forget(runtime);
            id
        })
    }

    /// The next in line, who is to have a turn.
    fn turn<T>(turns: &Turns<T>, now: i64, until: i64) -> (T, Turn) {
        match turns.next(now, until) {
            Some(Next::Turn(who, turn)) => (who, turn),
            Some(Next::Stranded(_)) => panic!("stranded"),
            None => panic!("there is none"),
        }
    }

    fn stranded<T>(turns: &Turns<T>, now: i64) -> T {
        match turns.next(now, now) {
            Some(Next::Stranded(who)) => who,
            Some(Next::Turn(..)) | None => panic!("not stranded"),
        }
    }

    #[test]
    fn s166_who_stands_in_line_has_a_turn_in_that_order() {
        let (turns, [runtime]) = (Turns::new(), runtimes());
        for who in 0..MOST + 2 {
            turns.enter(runtime, who);
        }
        let mut held: Vec<_> = (0..MOST).map(|_| turn(&turns, 0, 10)).collect();
        assert!(held.iter().map(|(who, _)| *who).eq(0..MOST));
        assert!(turns.are_taken(0) && turns.next(0, 10).is_none());
        drop(held.pop());
        assert!(!turns.are_taken(0));
        let (who, last) = turn(&turns, 0, 10);
        assert_eq!(who, MOST);
        drop(last);
        assert_eq!(turn(&turns, 0, 10).0, MOST + 1);
        assert!(turns.next(0, 10).is_none(), "nobody is in line");
    }

    #[test]
    fn s085_a_turn_that_is_not_given_back_is_taken_away_in_time() {
        let (turns, [idle, other]) = (Turns::new(), runtimes());
        for who in 0..MOST {
            turns.enter(idle, who);
        }
        turns.enter(other, MOST);
        let mut held: Vec<_> = (0..MOST).map(|_| turn(&turns, 0, 10).1).collect();
        assert!(held[0].extend(20));
        assert!(turns.next(9, 19).is_none());
        let (_, late) = turn(&turns, 10, 30);
        assert!(held[0].extend(25), "it had more time");
        assert!(
            held[2].extend(25),
            "it was taken away, and nobody wanted it"
        );
        for who in 3..MOST {
            turns.enter(other, who);
        }
        let others: Vec<_> = (3..MOST).map(|_| turn(&turns, 10, 30)).collect();
        assert!(turns.are_taken(10), "no more than there are");
        assert!(!held[1].extend(25), "others have them all");
        // What is given back too late is nobody's.
        drop(held.remove(1));
        assert!(turns.are_taken(10));
        assert_eq!(others.len(), MOST - 3);
        drop(late);
        assert!(!turns.are_taken(10));
    }

    #[test]
    fn s085_who_stands_in_line_for_a_runtime_that_kept_a_turn_is_stranded() {
        let (turns, [idle, other]) = (Turns::new(), runtimes());
        for who in 0..MOST + 2 {
            turns.enter(idle, who);
        }
        turns.enter(other, 100);
        turns.enter(idle, 101);
        let held: Vec<_> = (0..MOST).map(|_| turn(&turns, 0, 10)).collect();
        for who in [MOST, MOST + 1, 101] {
            assert_eq!(stranded(&turns, 10), who);
        }
        assert_eq!(turn(&turns, 10, 20).0, 100);
        // Whoever comes from there later may be a sign that it runs again.
        turns.enter(idle, 102);
        assert_eq!(turn(&turns, 10, 20).0, 102);
        drop(held);
    }

    #[test]
    fn s085_who_takes_over_frees_the_line_as_well() {
        let (turns, [idle, other]) = (Turns::new(), runtimes());
        turns.enter(idle, 0);
        let (_, kept) = turn(&turns, 0, 10);
        turns.enter(idle, 1);
        turns.enter(other, 2);
        turns.take_away(&kept);
        assert_eq!(stranded(&turns, 10), 1);
        assert_eq!(turn(&turns, 10, 20).0, 2);
        turns.enter(idle, 3);
        turns.take_away(&kept);
        assert_eq!(turn(&turns, 10, 20).0, 3, "it was taken away before");
    }
}
