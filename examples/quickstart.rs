//! The whole thing in twenty seconds, without a network: `cargo run --example quickstart`.
//!
//! A metadata server (the emulator) with tokens that live ten seconds; an API on loopback that
//! checks them; a hyper-util client and a reqwest client that share one cache. While requests go
//! out, tokens rotate, and the metadata server fails for three seconds. No request may fail.
//!
//! The exit code is 1 if this does not hold.

mod common;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{MissedTickBehavior, interval};
use tower::{BoxError, Layer, ServiceExt};
use tower_scoped_auth::{
    Destinations, MetadataServer, ScopedAuth, ScopedAuthLayer, Scopes, TokenCache, TokenRequest,
    emulator::{Emulator, Fault},
};

const TOKEN_LIFE: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(400);
const SPAN: Duration = Duration::from_secs(20);
const OUTAGE_AT: Duration = Duration::from_secs(9);
const OUTAGE: Duration = Duration::from_secs(3);

/// Three or four tokens, plus the attempts that the outage costs.
const MOST_TOKEN_REQUESTS: u64 = 12;

type Hyper = Client<HttpConnector, Empty<Bytes>>;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let mds = Arc::new(
        Emulator::builder()
            .token_lifetime(TOKEN_LIFE)
            .start()
            .await?,
    );
    let api = format!("http://{}/bucket", common::serve(Arc::clone(&mds)).await?);

    let cache = TokenCache::new(MetadataServer::builder().endpoint(mds.endpoint()).build()?);
    let auth = ScopedAuthLayer::from_cache(cache.clone())
        .destinations(Destinations::only([api.trim_end_matches("/bucket")])?);
    let clients = Clients {
        hyper: auth.layer(Client::builder(TokioExecutor::new()).build_http()),
        reqwest: auth.layer(reqwest::Client::new()),
    };

    let screen = Screen::new();
    screen.title();
    let mut tally = Tally::default();
    let wanted = TokenRequest::access_token(Scopes::default());
    let begun = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut outage = false;
    while begun.elapsed() < SPAN {
        ticks.tick().await;
        if !outage && begun.elapsed() >= OUTAGE_AT {
            outage = true;
            mds.fault(Fault::status(503).for_duration(OUTAGE));
            screen.note(&format!(
                "the metadata server fails for {} s",
                OUTAGE.as_secs()
            ));
        }
        let asked = Instant::now();
        let (client, answer) = clients.send(&api, tally.requests).await;
        let line = Line {
            at: asked - begun,
            client,
            took: asked.elapsed(),
            left: cache.status(&wanted).expires_in(),
            token_requests: mds.token_requests(),
        };
        tally.count(&answer);
        screen.line(&line, &answer);
    }
    Ok(screen.summary(&tally, mds.token_requests()))
}

/// Both kinds of client, sharing one cache.
struct Clients {
    hyper: ScopedAuth<Hyper>,
    reqwest: ScopedAuth<reqwest::Client>,
}

/// Status and body, which is the token's generation if all is well.
type Answer = Result<(u16, String), BoxError>;

impl Clients {
    /// The two clients take turns.
    async fn send(&self, url: &str, turn: u64) -> (&'static str, Answer) {
        if turn.is_multiple_of(2) {
            ("hyper", self.through_hyper(url).await)
        } else {
            ("reqwest", self.through_reqwest(url).await)
        }
    }

    async fn through_hyper(&self, url: &str) -> Answer {
        let request = Request::get(url).body(Empty::new())?;
        let response = self.hyper.clone().oneshot(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn through_reqwest(&self, url: &str) -> Answer {
        let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
        let response = self.reqwest.clone().oneshot(request).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }
}

#[derive(Default)]
struct Tally {
    requests: u64,
    failed: u64,
    generations: Vec<String>,
}

impl Tally {
    fn count(&mut self, answer: &Answer) {
        self.requests += 1;
        match answer {
            Ok((200, generation)) => {
                if !self.generations.contains(generation) {
                    self.generations.push(generation.clone());
                }
            }
            _ => self.failed += 1,
        }
    }
}

struct Line {
    at: Duration,
    client: &'static str,
    took: Duration,
    left: Option<Duration>,
    token_requests: u64,
}

/// Uses colours only on a terminal.
struct Screen {
    colours: bool,
}

impl Screen {
    fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none();
        Self {
            colours: wanted && io::stdout().is_terminal(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn say(&self, text: &str) {
        // Whoever closed the pipe does not want to read any more.
        let _ = writeln!(io::stdout(), "{text}");
    }

    fn title(&self) {
        let life = TOKEN_LIFE.as_secs();
        self.say(&format!(
            "Two clients, one cache. Tokens live {life} s here, an hour elsewhere.\n"
        ));
        let title = "    time  client   status  token  left                  took   token requests";
        self.say(&self.paint("1", title));
    }

    fn note(&self, what: &str) {
        self.say(&self.paint("33", &format!("          ── {what} ──")));
    }

    fn line(&self, line: &Line, answer: &Answer) {
        let at = line.at.as_secs_f64();
        let (status, token) = match answer {
            Ok((200, generation)) => (self.paint("32", "200"), format!("no. {generation}")),
            Ok((status, reason)) => (self.paint("31", &status.to_string()), reason.clone()),
            Err(error) => (self.paint("31", "---"), error.to_string()),
        };
        let left = line.left.unwrap_or_default();
        let tenths = usize::try_from(left.as_secs() * 10 / TOKEN_LIFE.as_secs())
            .unwrap_or(0)
            .min(10);
        let bar = format!("{}{}", "█".repeat(tenths), "░".repeat(10 - tenths));
        self.say(&format!(
            "{at:>7.1}s  {:<8} {status}     {token:<5}  {bar} {:>4.1}s  {:>6.1}ms  {:>4}",
            line.client,
            left.as_secs_f64(),
            line.took.as_secs_f64() * 1e3,
            line.token_requests,
        ));
    }

    fn summary(&self, tally: &Tally, token_requests: u64) -> ExitCode {
        let Tally {
            requests,
            failed,
            generations,
        } = tally;
        self.say("");
        self.say(&format!("requests        {requests}"));
        self.say(&format!("failed requests {failed}"));
        self.say(&format!("tokens          {}", generations.len()));
        self.say(&format!("token requests  {token_requests}"));
        let kept = *failed == 0
            && *requests > 0
            && generations.len() >= 3
            && token_requests <= MOST_TOKEN_REQUESTS
            // The outage was met: there were more token requests than tokens.
            && token_requests > generations.len() as u64;
        if kept {
            self.say(&self.paint(
                "32",
                "No request failed, and none carried an expired token.",
            ));
            ExitCode::SUCCESS
        } else {
            self.say(&self.paint("31", "This is not what was promised."));
            ExitCode::FAILURE
        }
    }
}
