//! A token in service: its edges, its header values, and which destinations rejected it.
//!
//! A lease is immutable but for the mark of rejection. It knows nothing of slots or fetches: a 401
//! marks the lease whose stamp the request carried, so a late 401 for a replaced token cannot touch
//! the one in service.

use std::{
    cell::Cell,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use http::HeaderValue;

use super::{clock::Moment, schedule::Edges, value::Token};

/// One token, for as long as it is the one in service.
///
/// What a request reads stands first: see [`Supply`](super::supply::Supply).
#[repr(C)]
pub(crate) struct Lease {
    edges: Edges,
    rejection: Arc<Rejection>,
    /// By the thread's number. Fewer copies than places stand there several times.
    stamps: [Arc<Stamp>; MOST_STAMPS],
    token: Token,
    generation: u64,
}

/// What a request carries away: a header value, and a way to report a 401.
///
/// Each copy sits on cache lines of its own, reference count included. One shared count is what
/// makes two cores slower than one.
#[repr(align(128))]
pub(crate) struct Stamp {
    header: HeaderValue,
    rejection: Arc<Rejection>,
}

/// The origins that answered 401 to this token, in the order in which they first did; 0 is a free place.
#[derive(Default)]
struct Rejection([AtomicU64; REJECTIONS]);

/// Origins told apart. A token that was rejected by more is taken to be rejected by all.
const REJECTIONS: usize = 4;

/// In the last place: there were more.
const ALL: u64 = u64::MAX;

/// Copies per token at most: from eight cores on, threads may share one.
const MOST_STAMPS: usize = 16;

/// Who asks, as far as a rejection cares: a hash of the request's origin.
pub(crate) type Asker = NonZeroU64;

impl Lease {
    /// `None` if the token cannot be written as a header value.
    pub(crate) fn new(token: Token, generation: u64, edges: Edges) -> Option<Self> {
        let rejection = Arc::new(Rejection::default());
        let stamp = |_| {
            let header = token.header_value()?;
            Some(Arc::new(Stamp {
                header,
                rejection: Arc::clone(&rejection),
            }))
        };
        let copies = (0..stripes()).map(stamp).collect::<Option<Vec<_>>>()?;
        let in_turn: Vec<_> = copies.iter().cycle().take(MOST_STAMPS).cloned().collect();
        Some(Self {
            edges,
            rejection,
            stamps: in_turn.try_into().ok()?,
            token,
            generation,
        })
    }

    /// The same token with other edges: header values, generation and rejection stay.
    pub(crate) fn with_edges(&self, edges: Edges) -> Self {
        Self {
            edges,
            rejection: Arc::clone(&self.rejection),
            stamps: self.stamps.clone(),
            token: self.token.clone(),
            generation: self.generation,
        }
    }

    /// The stamp this thread uses.
    #[inline]
    pub(crate) fn stamp(&self) -> &Arc<Stamp> {
        let [first, ..] = &self.stamps;
        self.stamps
            .get(thread_number() % MOST_STAMPS)
            .unwrap_or(first)
    }

    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn edges(&self) -> &Edges {
        &self.edges
    }

    /// Fresh, and nobody rejected it: nothing to decide.
    #[inline]
    pub(crate) fn is_unquestioned(&self, now: Moment) -> bool {
        now.is_before(self.edges.fresh_until) && !self.is_rejected()
    }

    pub(crate) fn is_rejected(&self) -> bool {
        self.rejection.is_set()
    }

    pub(crate) fn is_rejected_by(&self, asker: Option<Asker>) -> bool {
        asker.is_some_and(|asker| self.rejection.is_by(asker))
    }
}

impl Rejection {
    #[inline]
    fn is_set(&self) -> bool {
        let [first, ..] = &self.0;
        first.load(Ordering::Relaxed) != 0
    }

    fn is_by(&self, asker: Asker) -> bool {
        let by = |place: &AtomicU64| place.load(Ordering::Relaxed);
        self.0
            .iter()
            .map(by)
            .any(|by| by == asker.get() || by == ALL)
    }

    fn add(&self, asker: Asker) {
        // Flags that later requests may see a little later; they order nothing.
        let is_taken = |place: &AtomicU64| {
            let free = place.compare_exchange(0, asker.get(), Ordering::Relaxed, Ordering::Relaxed);
            free.is_err_and(|by| by != asker.get())
        };
        let [.., last] = &self.0;
        if self.0.iter().all(is_taken) {
            last.store(ALL, Ordering::Relaxed);
        }
    }
}

impl Stamp {
    /// A destination rejected the token.
    #[inline]
    pub(crate) fn is_rejected(&self) -> bool {
        self.rejection.is_set()
    }

    #[inline]
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// `asker` was answered 401.
    pub(crate) fn reject(&self, asker: Asker) {
        self.rejection.add(asker);
    }
}

/// Copies per token: a power of two, about two per core, so that threads rarely share one.
fn stripes() -> usize {
    static STRIPES: AtomicUsize = AtomicUsize::new(0);

    match STRIPES.load(Ordering::Relaxed) {
        0 => {
            let cores = thread::available_parallelism().map_or(4, usize::from);
            let stripes = cores.saturating_mul(2).min(MOST_STAMPS).next_power_of_two();
            STRIPES.store(stripes, Ordering::Relaxed);
            stripes
        }
        stripes => stripes,
    }
}

/// Threads are numbered in the order in which they first stamp something.
#[inline]
fn thread_number() -> usize {
    const UNNUMBERED: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(UNNUMBERED) };
    }

    let number = NUMBER.get();
    if number != UNNUMBERED {
        return number;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed) & (UNNUMBERED >> 1);
    NUMBER.set(number);
    number
}
