//! Faults: what goes wrong, how often, and for how long.
//!
//! Describes faults and queues them. Knows nothing of sockets; `server.rs` acts on the fault that is
//! picked.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use super::answer::Answer;

/// A failure to inject into requests to an [`Emulator`](super::Emulator).
///
/// A fault applies once, unless [`times`](Self::times), [`for_duration`](Self::for_duration) or
/// [`forever`](Self::forever) says otherwise. It applies only to requests for access tokens and ID
/// tokens, unless [`on_path`](Self::on_path) or [`on_every_path`](Self::on_every_path) is set. Faults
/// are used up in the order in which they were installed.
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

/// Which requests a fault applies to.
#[derive(Clone, Debug)]
enum Place {
    Tokens,
    /// Paths with this ending.
    End(String),
    Everywhere,
}

/// What to do instead of, or before, the usual response.
#[derive(Clone)]
pub(super) enum Action {
    Answer(Answer),
    WithoutFlavor,
    Delay(Duration),
    Hang,
    /// Sends these bytes (possibly none), then ends the connection.
    Bytes(Vec<u8>),
    Reset,
    Endless,
}

impl Fault {
    /// Answers with this status.
    pub fn status(status: u16) -> Self {
        Self::new(Action::Answer(Answer::status(status)))
    }

    /// Answers 200, with a JSON content type and this body.
    pub fn body(body: impl Into<String>) -> Self {
        Self::new(Action::Answer(Answer::json(body.into())))
    }

    /// Answers with a redirect to `location`.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::new(Action::Answer(
            Answer::status(status).with_header("Location", location),
        ))
    }

    /// Answers as usual, but without `Metadata-Flavor: Google`.
    pub fn without_flavor() -> Self {
        Self::new(Action::WithoutFlavor)
    }

    /// Answers as usual, after `delay`.
    pub fn delay(delay: Duration) -> Self {
        Self::new(Action::Delay(delay))
    }

    /// Reads the request and sends nothing, until the client disconnects.
    pub fn hang() -> Self {
        Self::new(Action::Hang)
    }

    /// Closes the connection instead of answering.
    pub fn cut_before_head() -> Self {
        Self::raw(Vec::new())
    }

    /// Closes the connection in the middle of the response head.
    pub fn cut_in_head() -> Self {
        Self::raw(&b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Goo"[..])
    }

    /// Closes the connection after 18 of 500 bytes of the response body.
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

    /// Sends exactly these bytes, then closes the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Action::Bytes(bytes.into()))
    }

    /// Answers with a body that does not end.
    pub fn endless_body() -> Self {
        Self::new(Action::Endless)
    }

    /// Adds `Retry-After` to a response that the fault itself sends.
    pub fn retry_after(self, value: impl Into<String>) -> Self {
        self.answering(|answer| answer.with_header("Retry-After", value))
    }

    /// Replaces the body of a response that the fault itself sends, such as that of
    /// [`status`](Self::status).
    pub fn with_body(self, body: impl Into<String>) -> Self {
        self.answering(|answer| answer.with_body(body))
    }

    /// Applies to this many requests.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self.lasts = None;
        self
    }

    /// Applies for this long after installation, however many requests arrive.
    pub fn for_duration(mut self, lasts: Duration) -> Self {
        self.lasts = Some(lasts);
        self.times = None;
        self
    }

    /// Applies until [`Emulator::heal`](super::Emulator::heal).
    pub fn forever(mut self) -> Self {
        self.times = None;
        self.lasts = None;
        self
    }

    /// Applies to requests whose path ends in `end`, such as `/scopes`, instead of requests for tokens.
    pub fn on_path(mut self, end: impl Into<String>) -> Self {
        self.place = Place::End(end.into());
        self
    }

    /// Applies to requests of every kind, instead of requests for tokens only.
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

    /// Returns the action of the first fault that applies, and uses that fault up by one.
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
