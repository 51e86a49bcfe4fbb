//! The command line. An error says in one line what is wrong with it.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use lexopt::{Arg, Error, Parser, ValueExt};

pub(crate) const EXPOSE: &str = "--danger-serve-my-tokens-to-the-network";

pub(crate) const HELP: &str = "\
A Google Cloud metadata server for local development. Point programs at it with the environment
variable that it prints, GCE_METADATA_HOST; Ctrl-C stops it. Each request is one line.

Usage: metadata_server [OPTIONS]

Options:
  --port PORT           where to listen; 0 for a free one [default: 8080]
  --bind ADDR           address to listen on [default: 127.0.0.1]
  --source SOURCE       fixed: made-up tokens, which open nothing [default]
                        gcloud: real tokens of the account that gcloud is logged in with
  --impersonate EMAIL   with gcloud: tokens of this service account (needed for ID tokens)
  --lifetime S          of made-up tokens, in seconds [default: 3600]
  --project ID          the project [default: gcloud's own with gcloud, or test-project]
  --email EMAIL         the service account [default: gcloud's own with gcloud, or a made-up one]
  --scopes A,B          what the account's list of scopes says
  --universe-domain D   the universe [default: googleapis.com]
  --quiet               says nothing about requests
  --danger-serve-my-tokens-to-the-network
                        with gcloud and --bind: whoever reaches the port may use your account
  -h, --help            shows this
";

pub(crate) enum Command {
    Serve(Box<Args>),
    Help,
}

pub(crate) struct Args {
    pub(crate) addr: SocketAddr,
    pub(crate) source: Source,
    pub(crate) impersonate: Option<String>,
    pub(crate) lifetime: Duration,
    pub(crate) facts: Facts,
    pub(crate) quiet: bool,
    pub(crate) expose: bool,
}

/// What the emulated machine says about itself, as far as the arguments tell it.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) project: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) universe_domain: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Fixed,
    Gcloud,
}

pub(crate) fn parse() -> Result<Command, Error> {
    let mut args = Args {
        addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
        source: Source::Fixed,
        impersonate: None,
        lifetime: Duration::from_secs(3600),
        facts: Facts::default(),
        quiet: false,
        expose: false,
    };
    let mut lifetime = None;
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("port") => args
                .addr
                .set_port(value(&mut parser, "--port", "0 to 65535")?),
            Arg::Long("bind") => args
                .addr
                .set_ip(value(&mut parser, "--bind", "an IP address")?),
            Arg::Long("source") => args.source = value(&mut parser, "--source", "fixed or gcloud")?,
            Arg::Long("impersonate") => args.impersonate = Some(parser.value()?.string()?),
            Arg::Long("lifetime") => {
                let seconds = value(&mut parser, "--lifetime", "a number of seconds")?;
                lifetime = Some(Duration::from_secs(seconds));
            }
            Arg::Long("project") => args.facts.project = Some(parser.value()?.string()?),
            Arg::Long("email") => args.facts.email = Some(parser.value()?.string()?),
            Arg::Long("scopes") => {
                let scopes = parser.value()?.string()?;
                args.facts.scopes = Some(scopes.split(',').map(str::to_owned).collect());
            }
            Arg::Long("universe-domain") => {
                args.facts.universe_domain = Some(parser.value()?.string()?);
            }
            Arg::Long("quiet") => args.quiet = true,
            Arg::Long("danger-serve-my-tokens-to-the-network") => args.expose = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected()),
        }
    }
    if args.impersonate.is_some() && args.source != Source::Gcloud {
        return Err("--impersonate goes with --source gcloud".into());
    }
    if args.expose && args.source != Source::Gcloud {
        return Err(format!("{EXPOSE} goes with --source gcloud").into());
    }
    if let Some(lifetime) = lifetime {
        if args.source != Source::Fixed {
            return Err(
                "--lifetime goes with --source fixed: gcloud's tokens have their own".into(),
            );
        }
        args.lifetime = lifetime;
    }
    Ok(Command::Serve(Box::new(args)))
}

fn value<T: FromStr>(parser: &mut Parser, flag: &str, expected: impl Display) -> Result<T, Error> {
    let given = parser.value()?.string()?;
    given
        .parse()
        .map_err(|_| format!("{flag} {given:?}: expected {expected}").into())
}

impl FromStr for Source {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "fixed" => Ok(Self::Fixed),
            "gcloud" => Ok(Self::Gcloud),
            _ => Err(()),
        }
    }
}
