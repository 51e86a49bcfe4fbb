//! The command line. An error says in one line what is wrong with it.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Simulates processes that share their nodes' metadata servers, in virtual time, with the crate's real
schedule: a cold start, a synchronised expiry, a restart of the servers, a rate limit.

Usage: fleet [OPTIONS]

Options:
  --processes N     processes altogether [default: 1000; at most 1000000]
  --nodes M         nodes they are spread over [default: 20]
  --rate-limit R    requests a second that a server takes when it has a limit; the rest get 429
                    [default: 10]
  --down-for S      seconds that the servers are gone when they restart [default: 60; at most 600]
  --seed N          of the random draws [default: 1]
  --plot FILE       draws requests per second per node against time, as SVG
  -h, --help        shows this

100000 processes on 1000 nodes take minutes in a release build; see docs/fleet.md.
";

pub(crate) enum Command {
    Run(Args),
    Help,
}

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) processes: u32,
    pub(crate) nodes: u32,
    pub(crate) rate_limit: u32,
    pub(crate) down_for: Duration,
    pub(crate) seed: u64,
    pub(crate) plot: Option<PathBuf>,
}

pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let mut args = Args {
        processes: 1000,
        nodes: 20,
        rate_limit: 10,
        down_for: Duration::from_secs(60),
        seed: 1,
        plot: None,
    };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("processes") => args.processes = number(&mut parser, 1..=1_000_000)?,
            Arg::Long("nodes") => args.nodes = number(&mut parser, 1..=1_000_000)?,
            Arg::Long("rate-limit") => args.rate_limit = number(&mut parser, 1..=1_000_000)?,
            Arg::Long("down-for") => {
                args.down_for = Duration::from_secs(number(&mut parser, 1..=600)?);
            }
            Arg::Long("seed") => args.seed = number(&mut parser, 0..=u64::MAX)?,
            Arg::Long("plot") => args.plot = Some(parser.value()?.into()),
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected()),
        }
    }
    if args.nodes > args.processes {
        let (nodes, processes) = (args.nodes, args.processes);
        return Err(format!("--nodes {nodes} is more than --processes {processes}").into());
    }
    Ok(Command::Run(args))
}

fn number<T>(parser: &mut Parser, range: RangeInclusive<T>) -> Result<T, lexopt::Error>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + PartialOrd + Display,
{
    let value = parser.value()?;
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(number) => {
            let (least, most) = range.into_inner();
            Err(format!("{number} is not between {least} and {most}").into())
        }
        Err(error) => Err(error),
    }
}
