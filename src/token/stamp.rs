//! What a token leaves on requests: header values, with one copy for every few threads.
//!
//! Knows header values and threads. Knows nothing of a token's life: it is told whether it was
//! rejected.

use std::{
    cell::Cell,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use http::HeaderValue;

use super::value::Token;

/// The serial of a token in service, never reused in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial(NonZeroU64);

/// One copy of a token's header value.
///
/// Each request writes only to the value's own reference count, which is apart from all others (see
/// [`Token::header_value`]): a single shared count would make two cores slower than one. The copy
/// itself is only read, and fits a cache line.
#[repr(align(64))]
pub(crate) struct Stamp {
    header: HeaderValue,
    serial: Serial,
    /// A destination rejected the token.
    rejected: AtomicBool,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Stamp>() == 64, "one line");

/// What a stamp leaves on one request, and the serial by which a 401 is reported.
pub(crate) struct Imprint {
    pub(crate) header: HeaderValue,
    pub(crate) serial: Serial,
}

/// The maximum number of copies per token: from eight cores on, threads may share one.
const MOST_STAMPS: usize = 16;

/// Indexed by thread number. If there are fewer copies than places, they repeat.
#[derive(Clone)]
pub(super) struct Stamps([Arc<Stamp>; MOST_STAMPS]);

impl Serial {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);

        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // At a million tokens per second it wraps around after half a million years.
        Self(NonZeroU64::new(next).unwrap_or(NonZeroU64::MIN))
    }
}

impl Stamp {
    #[inline]
    pub(crate) fn imprint(&self) -> Imprint {
        Imprint {
            header: self.header.clone(),
            serial: self.serial,
        }
    }

    #[inline]
    pub(super) fn is_rejected(&self) -> bool {
        self.rejected.load(Ordering::Acquire)
    }
}

impl Stamps {
    /// `None` if the token cannot be written as a header value.
    pub(super) fn of(token: &Token) -> Option<Self> {
        let serial = Serial::next();
        let stamp = |_| {
            Some(Arc::new(Stamp {
                header: token.header_value()?,
                serial,
                rejected: AtomicBool::new(false),
            }))
        };
        let copies = (0..stripes()).map(stamp).collect::<Option<Vec<_>>>()?;
        let in_turn: Vec<_> = copies.iter().cycle().take(MOST_STAMPS).cloned().collect();
        in_turn.try_into().ok().map(Self)
    }

    /// The copy that this thread uses.
    #[inline]
    pub(super) fn mine(&self) -> &Arc<Stamp> {
        let [first, ..] = &self.0;
        self.0.get(thread_number() % MOST_STAMPS).unwrap_or(first)
    }

    pub(super) fn serial(&self) -> Serial {
        let [first, ..] = &self.0;
        first.serial
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Stamp> {
        self.0.iter().map(|stamp| &**stamp)
    }

    /// Marks each of them as rejected.
    pub(super) fn mark_rejected(&self) {
        for stamp in self.all() {
            // Whoever sees the mark also sees who was first, because that was recorded earlier. The
            // mark is not written again on each further 401, since threads that send elsewhere read it.
            if !stamp.is_rejected() {
                stamp.rejected.store(true, Ordering::Release);
            }
        }
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

/// Numbers threads in the order in which they first stamp something.
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
