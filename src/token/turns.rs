//! `Turns`: how many fetches run at once, over all slots of a cache, and which queued one is next.
//!
//! Knows numbers and times; does not know what a turn is used for, and starts nothing. What is queued is
//! data, not a task: a task on a runtime that is not running would be given a turn and never know.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Fetches that may run at once.
pub(crate) const MOST: usize = 16;

/// The turns, and the queue for them: first come, first served.
pub(crate) struct Turns<T> {
    taken: Arc<Mutex<Taken>>,
    line: Mutex<VecDeque<T>>,
}

/// At most [`MOST`] turns, each with the time (monotonic nanoseconds) from which it may be taken away.
#[derive(Debug, Default)]
struct Taken {
    turns: Vec<(u64, i64)>,
    next: u64,
}

/// Given back when it is dropped, unless it has been taken away.
#[derive(Debug)]
pub(crate) struct Turn {
    id: u64,
    taken: Arc<Mutex<Taken>>,
}

impl<T> Turns<T> {
    pub(crate) fn new() -> Self {
        Self {
            taken: Arc::default(),
            line: Mutex::default(),
        }
    }

    /// True if no turn is free now.
    pub(crate) fn are_taken(&self, now: i64) -> bool {
        lock(&self.taken).are_all(now)
    }

    /// Adds `who` to the end of the queue.
    pub(crate) fn enter(&self, who: T) {
        lock(&self.line).push_back(who);
    }

    /// The first in the queue and its turn, which may be taken away from `until` on.
    pub(crate) fn next(&self, now: i64, until: i64) -> Option<(T, Turn)> {
        let mut line = lock(&self.line);
        if line.is_empty() {
            return None;
        }
        let mut taken = lock(&self.taken);
        if taken.are_all(now) {
            return None;
        }
        let id = taken.next;
        taken.next = id.wrapping_add(1);
        taken.turns.push((id, until));
        drop(taken);
        let turn = Turn {
            id,
            taken: Arc::clone(&self.taken),
        };
        Some((line.pop_front()?, turn))
    }
}

impl Taken {
    fn are_all(&mut self, now: i64) -> bool {
        if self.turns.len() >= MOST {
            self.turns.retain(|(_, until)| now < *until);
        }
        self.turns.len() >= MOST
    }
}

impl Turn {
    /// Keeps the turn from being taken away before `until`. False if it already was, and others have all of
    /// the turns.
    pub(crate) fn extend(&self, until: i64) -> bool {
        let turns = &mut lock(&self.taken).turns;
        turns.retain(|(id, _)| *id != self.id);
        let room = turns.len() < MOST;
        if room {
            turns.push((self.id, until));
        }
        room
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.taken).turns.retain(|(id, _)| *id != self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can leave the data half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s166_who_stands_in_line_has_a_turn_in_that_order() {
        let turns = Turns::new();
        for who in 0..MOST + 2 {
            turns.enter(who);
        }
        let mut held: Vec<_> = (0..MOST).map(|_| turns.next(0, 10).unwrap()).collect();
        assert!(held.iter().map(|(who, _)| *who).eq(0..MOST));
        assert!(turns.are_taken(0) && turns.next(0, 10).is_none());
        drop(held.pop());
        assert!(!turns.are_taken(0));
        let (who, turn) = turns.next(0, 10).unwrap();
        assert_eq!(who, MOST);
        drop(turn);
        assert_eq!(turns.next(0, 10).unwrap().0, MOST + 1);
        assert!(turns.next(0, 10).is_none(), "nobody is in line");
    }

    #[test]
    fn s085_a_turn_that_is_not_given_back_is_taken_away_in_time() {
        let turns = Turns::new();
        for who in 0..=MOST {
            turns.enter(who);
        }
        let mut held: Vec<_> = (0..MOST).map(|_| turns.next(0, 10).unwrap().1).collect();
        assert!(held[0].extend(20));
        assert!(turns.next(9, 19).is_none());
        let (_, late) = turns.next(10, 30).unwrap();
        assert!(held[0].extend(25), "it had more time");
        assert!(
            held[2].extend(25),
            "it was taken away, and nobody wanted it"
        );
        for who in 3..MOST {
            turns.enter(who);
        }
        let others: Vec<_> = (3..MOST).map(|_| turns.next(10, 30).unwrap()).collect();
        assert!(turns.are_taken(10), "no more than there are");
        assert!(!held[1].extend(25), "others have them all");
        // Giving back a turn that was taken away frees nothing.
        drop(held.remove(1));
        assert!(turns.are_taken(10));
        assert_eq!(others.len(), MOST - 3);
        drop(late);
        assert!(!turns.are_taken(10));
    }
}
