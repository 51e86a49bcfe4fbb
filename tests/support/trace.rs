//! A subscriber that records every event and span of every crate, at TRACE, as text; and one that
//! records the events of this crate by name and field.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock},
};

use tracing::{
    Dispatch, Event, Subscriber,
    field::{Field, Visit},
    subscriber::{DefaultGuard, set_default},
};
use tracing_subscriber::{
    Layer, fmt::MakeWriter, fmt::format::FmtSpan, layer::Context, layer::SubscriberExt, registry,
};

#[derive(Clone, Default)]
pub struct TraceTap {
    text: Arc<Mutex<Vec<u8>>>,
}

impl TraceTap {
    /// Records this thread until the guard is dropped.
    pub fn install() -> (Self, DefaultGuard) {
        // With a single dispatcher in the process, tracing lets the first thread to reach an event decide
        // for all whether it is of interest; tests on other threads have no subscriber.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(Self::default().subscriber()));
        let tap = Self::default();
        let guard = set_default(tap.subscriber());
        (tap, guard)
    }

    /// Records the whole process, from now on.
    pub fn install_globally() -> Self {
        let tap = Self::default();
        tracing::subscriber::set_global_default(tap.subscriber()).unwrap();
        tap
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// Recorded lines at this level (`WARN`) from this crate.
    pub fn count(&self, level: &str) -> usize {
        let level = format!(" {level} ");
        let ours = |line: &&str| line.contains(&level) && line.contains("tower_scoped_auth");
        self.text()
            .lines()
            .map(|line| format!(" {line}"))
            .filter(|line| ours(&line.as_str()))
            .count()
    }

    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .without_time()
            .with_writer(self.clone())
            .finish()
    }
}

impl Write for TraceTap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for TraceTap {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// One event of this crate.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: &'static str,
    pub level: tracing::Level,
    pub target: String,
    /// In the order of their declaration, without `message`.
    pub fields: Vec<&'static str>,
    pub values: BTreeMap<&'static str, String>,
}

/// The events of this crate, by name and field.
#[derive(Clone, Default)]
pub struct EventTap {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl EventTap {
    /// Records this thread until the guard is dropped.
    pub fn install() -> (Self, DefaultGuard) {
        // See `TraceTap::install`.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(registry().with(Self::default())));
        let tap = Self::default();
        let guard = set_default(registry().with(tap.clone()));
        (tap, guard)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn named(&self, name: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|event| event.name == name);
        seen
    }
}

impl<S: Subscriber> Layer<S> for EventTap {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with("tower_scoped_auth") {
            return;
        }
        let mut seen = Seen {
            name: metadata.name(),
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            fields: metadata.fields().iter().map(|field| field.name()).collect(),
            values: BTreeMap::new(),
        };
        seen.fields.retain(|name| *name != "message");
        event.record(&mut seen);
        self.seen.lock().unwrap().push(seen);
    }
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.values.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.values.insert(field.name(), format!("{value:?}"));
    }
}
