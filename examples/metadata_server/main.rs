//! A metadata server for local development:
//! `cargo run --features emulator --example metadata_server -- --help`.
//!
//! Programs in any language whose Google client library honours `GCE_METADATA_HOST` get their tokens
//! from it: made-up ones, or with `--source gcloud` those of the account you are logged in with. See
//! docs/local-development.md.
//!
//! | file | its job |
//! | --- | --- |
//! | `args.rs` | the command line |
//! | `gcloud.rs` | what gcloud knows: whether it can get a token, which project, which account |
//! | `line.rs` | one request as one line, without anything that could be secret |

mod args;
mod gcloud;
mod line;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use args::{Args, Command, Source};
use tower_scoped_auth::{TokenCache, emulator::Emulator};

type Failure = Box<dyn Error + Send + Sync>;

/// The exit code if the arguments or the machine have a fault that whoever started this can fix.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let result = match args::parse() {
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            Ok(())
        }
        Ok(Command::Serve(args)) => serve(*args),
        Err(error) => Err(format!("{error} (see --help)").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metadata_server: {error}");
            ExitCode::from(WRONG)
        }
    }
}

fn serve(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut builder = Emulator::builder()
        .bind(args.addr)
        .token_lifetime(args.lifetime);
    let mut facts = args.facts;
    if args.source == Source::Gcloud {
        if !args.addr.ip().is_loopback() && !args.expose {
            return Err(format!(
                "--bind {} would let the network use your own tokens; if that is what you want, \
                 add {}",
                args.addr.ip(),
                args::EXPOSE
            )
            .into());
        }
        let source = gcloud::source(args.impersonate.as_deref())?;
        runtime.block_on(gcloud::try_out(&source))?;
        facts.project = facts.project.or_else(|| gcloud::value("project"));
        facts.email = facts
            .email
            .or(args.impersonate)
            .or_else(|| gcloud::value("account"));
        // Client libraries give up after a few seconds, and retry.
        let cache = TokenCache::builder(source)
            .max_wait(Duration::from_secs(10))
            .build()?;
        builder = builder.tokens_from(cache);
        if args.expose {
            builder = builder.danger_serve_real_tokens_to_the_network();
        }
    }
    if let Some(project) = facts.project {
        builder = builder.project_id(project);
    }
    if let Some(email) = facts.email {
        builder = builder.email(email);
    }
    if let Some(scopes) = facts.scopes {
        builder = builder.scopes(scopes);
    }
    if let Some(domain) = facts.universe_domain {
        builder = builder.universe_domain(domain);
    }
    if !args.quiet {
        builder = builder.on_answer(|request, status| say(&line::of(request, status)));
    }
    let server = builder
        .start_blocking()
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("{} is in use: choose another port with --port", args.addr)
            }
            io::ErrorKind::InvalidInput => error.to_string(),
            _ => format!("cannot listen on {}: {error}", args.addr),
        })?;
    // Before announcing the server: whoever reads the announcement may stop it at once.
    let stopped = {
        let _entered = runtime.enter();
        told_to_stop()?
    };
    let tokens = match args.source {
        Source::Fixed => "made-up tokens",
        Source::Gcloud => "YOUR OWN tokens, from gcloud",
    };
    say(&format!(
        "metadata server on {} with {tokens}; Ctrl-C stops it",
        server.endpoint()
    ));
    // Python's library looks for a server at the second variable, and then asks the first.
    let host = server.host();
    say(&format!(
        "export GCE_METADATA_HOST={host} GCE_METADATA_IP={host}"
    ));
    runtime.block_on(stopped);
    Ok(())
}

/// A pipe that nobody reads any more is no error.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Listens from this call on; the future ends when the program is told to stop. Call it in a runtime.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(windows)]
    {
        let mut interrupt = tokio::signal::windows::ctrl_c()?;
        Ok(async move {
            interrupt.recv().await;
        })
    }
}
