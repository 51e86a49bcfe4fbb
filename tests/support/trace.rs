//! A subscriber that records every event and span of every crate, at TRACE.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock},
};

use tracing::{
    Dispatch,
    subscriber::{DefaultGuard, set_default},
};
use tracing_subscriber::{fmt::MakeWriter, fmt::format::FmtSpan};

#[derive(Clone, Default)]
pub struct TraceTap {
    text: Arc<Mutex<Vec<u8>>>,
}

impl TraceTap {
    /// Records this thread until the guard goes.
    pub fn install() -> (Self, DefaultGuard) {
        // With a single dispatcher in the process, tracing lets whichever thread comes first decide
        // for all whether an event is of interest; tests on other threads have no subscriber.
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
