//! Faults: what goes wrong, how often, and for how long.
//!
//! A description and a queue of them. Knows nothing of sockets; `server.rs` acts on what is picked.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use super::answer::Answer;

/// Something that goes wrong with requests to an [`Emulator`](super::Emulator).
///
/// Once, unless [`times`](Self::times), [`for_duration`](Self::for_duration) or
/// [`forever`](Self::forever) says otherwise; requests for access tokens and ID tokens only, unless
/// [`on_path`](Self::on_path) or [`on_every_path`](Self::on_every_path). Faults are used up in the
/// order of their installation.
///
/// ```
/// use std::time::Duration;
/// use tower_scoped_auth::emulator::Fault;
///
/// let rate_limit = Fault::status(429).retry_after("7").times(2);
/// let outage = Fault::cut_before_head().for_duration(Duration::from_secs(5));
/// ```
#[derive(Clone)]
pub struct Fault {
    action: Action,
    times: Option<u64>,
    lasts: Option<Duration>,
    place: Place,
}

/// Which requests a fault is for.
#[derive(Clone, Debug)]
enum Place {
    Tokens,
    /// Paths that end so.
    End(String),
    Everywhere,
}

/// What is to be done in place of, or before, the usual answer.
#[derive(Clone)]
pub(super) enum Action {
    Answer(Answer),
    WithoutFlavor,
    Delay(Duration),
    Hang,
    /// Some bytes, which may be none, and the end of the connection.
    Bytes(Vec<u8>),
    Reset,
    Endless,
}

impl Fault {
    /// Answers with this status.
    pub fn status(status: u16) -> Self {
        Self::new(Action::Answer(Answer::status(status)))
    }

    /// Answers 200, JSON by its header, with this body.
    pub fn body(body: impl Into<String>) -> Self {
        Self::new(Action::Answer(Answer::json(body.into())))
    }

    /// Answers with a redirect to `location`.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::new(Action::Answer(
            Answer::status(status).with_header("Location", location),
        ))
    }

    /// Answers as usual, without `Metadata-Flavor: Google`.
    pub fn without_flavor() -> Self {
        Self::new(Action::WithoutFlavor)
    }

    /// Answers as usual, later.
    pub fn delay(delay: Duration) -> Self {
        Self::new(Action::Delay(delay))
    }

    /// Reads the request and says nothing, until the client goes away.
    pub fn hang() -> Self {
        Self::new(Action::Hang)
    }

    /// Closes the connection instead of answering.
    pub fn cut_before_head() -> Self {
        Self::raw(Vec::new())
    }

    /// Closes the connection in the middle of the answer's head.
    pub fn cut_in_head() -> Self {
        Self::raw(&b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Goo"[..])
    }

    /// Closes the connection after 18 of 500 bytes of the answer's body.
    pub fn cut_in_body() -> Self {
        Self::raw(
            &b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Type: application/json\r\n\
               Content-Length: 500\r\n\r\n{\"access_token\":\"y"[..],
        )
    }

    /// Resets the connection (RST) instead of answering.
    pub fn reset() -> Self {
        Self::new(Action::Reset)
    }

    /// Sends exactly these bytes, and closes the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Action::Bytes(bytes.into()))
    }

    /// Answers with a body that does not end.
    pub fn endless_body() -> Self {
        Self::new(Action::Endless)
    }

    /// Adds `Retry-After` to an answer of this fault's own.
    pub fn retry_after(self, value: impl Into<String>) -> Self {
        self.answering(|answer| answer.with_header("Retry-After", value))
    }

    /// Replaces the body of an answer of this fault's own, such as that of [`status`](Self::status).
    pub fn with_body(self, body: impl Into<String>) -> Self {
        self.answering(|answer| answer.with_body(body))
    }

    /// For so many requests.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self.lasts = None;
        self
    }

    /// For so long from its installation, however many requests come.
    pub fn for_duration(mut self, lasts: Duration) -> Self {
        self.lasts = Some(lasts);
        self.times = None;
        self
    }

    /// Until [`Emulator::heal`](super::Emulator::heal).
    pub fn forever(mut self) -> Self {
        self.times = None;
        self.lasts = None;
        self
    }

    /// For requests whose path ends so, such as `/scopes`, in place of requests for tokens.
    pub fn on_path(mut self, end: impl Into<String>) -> Self {
        self.place = Place::End(end.into());
        self
    }

    /// For requests of every kind, where it would be requests for tokens only.
    pub fn on_every_path(mut self) -> Self {
        self.place = Place::Everywhere;
        self
    }

    fn new(action: Action) -> Self {
        Self {
            action,
            times: Some(1),
            lasts: None,
            place: Place::Tokens,
        }
    }

    fn answering(mut self, change: impl FnOnce(Answer) -> Answer) -> Self {
        if let Action::Answer(answer) = self.action {
            self.action = Action::Answer(change(answer));
        }
        self
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match &self.action {
            Action::Answer(answer) => format!("{answer:?}"),
            Action::WithoutFlavor => "without flavor".to_owned(),
            Action::Delay(delay) => format!("delay of {delay:?}"),
            Action::Hang => "hang".to_owned(),
            Action::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Action::Reset => "reset".to_owned(),
            Action::Endless => "endless body".to_owned(),
        };
        f.debug_struct("Fault")
            .field("action", &action)
            .field("times", &self.times)
            .field("for_duration", &self.lasts)
            .field("place", &self.place)
            .finish()
    }
}

/// The faults installed, oldest first.
#[derive(Default)]
pub(super) struct Faults {
    queue: VecDeque<(Fault, Instant)>,
}

impl Faults {
    pub(super) fn install(&mut self, fault: Fault, now: Instant) {
        self.queue.push_back((fault, now));
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// The action of the first fault that applies, which is then used up by one.
    pub(super) fn pick(&mut self, path: &str, is_token: bool, now: Instant) -> Option<Action> {
        self.queue.retain(|(fault, since)| {
            fault.times != Some(0)
                && fault
                    .lasts
                    .is_none_or(|lasts| now.saturating_duration_since(*since) < lasts)
        });
        let applies = |fault: &Fault| match &fault.place {
            Place::Tokens => is_token,
            Place::End(end) => path.ends_with(end.as_str()),
            Place::Everywhere => true,
        };
        let (fault, _) = self.queue.iter_mut().find(|(fault, _)| applies(fault))?;
        fault.times = fault.times.map(|times| times.saturating_sub(1));
        Some(fault.action.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(faults: &mut Faults, is_token: bool, now: Instant, times: usize) -> Vec<u16> {
        let picked = (0..times).map_while(|_| match faults.pick("/x/token", is_token, now)? {
            Action::Answer(answer) => Some(answer.status),
            _ => panic!("not an answer"),
        });
        picked.collect()
    }

    #[test]
    fn faults_are_used_up_in_order() {
        let (mut faults, now) = (Faults::default(), Instant::now());
        faults.install(Fault::status(503).times(2), now);
        faults.install(Fault::status(500).on_every_path(), now);
        assert_eq!(statuses(&mut faults, true, now, 9), [503, 503, 500]);
        faults.install(Fault::status(503), now);
        faults.install(Fault::status(500).on_every_path(), now);
        assert_eq!(statuses(&mut faults, false, now, 9), [500]);
        faults.clear();
        assert!(faults.pick("/", true, now).is_none());
        faults.install(Fault::status(404).on_path("/scopes"), now);
        assert_eq!(statuses(&mut faults, true, now, 9), [0; 0]);
        assert!(faults.pick("/x/scopes", false, now).is_some());
        assert!(faults.pick("/x/scopes", false, now).is_none());
    }

    #[test]
    fn faults_end_with_their_time() {
        let (mut faults, now) = (Faults::default(), Instant::now());
        let second = Duration::from_secs(1);
        faults.install(Fault::status(503).for_duration(second), now);
        assert_eq!(statuses(&mut faults, true, now, 3), [503; 3]);
        assert!(faults.pick("/", true, now + second).is_none());
        faults.install(Fault::status(503).forever(), now);
        assert_eq!(
            statuses(&mut faults, true, now + 1_000_000 * second, 3),
            [503; 3]
        );
    }
}
