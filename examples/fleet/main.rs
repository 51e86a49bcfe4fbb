//! What a fleet does to its metadata servers: `cargo run --release --example fleet -- --help`.
//!
//! Every process is the crate's real `TokenCache` with its real schedule; the metadata servers are
//! simulated, and so is time: hours pass in seconds. Nothing outside this program is contacted. The
//! results, and how to read them, are in docs/fleet.md.
//!
//! | file | its job |
//! | --- | --- |
//! | `args.rs` | the command line |
//! | `node.rs` | one node's metadata server: what it answers, and when it does not |
//! | `simulation.rs` | processes on nodes, in virtual time, on every core |
//! | `tally.rs` | what is counted, by event and second |
//! | `table.rs`, `plot.rs` | what is shown |

mod args;
mod node;
mod plot;
mod simulation;
mod table;
mod tally;

use std::{process::ExitCode, time::Instant};

use args::{Args, Command};
use simulation::Jitter;

fn main() -> ExitCode {
    let args = match args::parse() {
        Ok(Command::Run(args)) => args,
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("fleet: {wrong} (see --help)");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let begun = Instant::now();
    println!(
        "{} processes on {} nodes, each node's server good for {} requests a second when it has a limit\n",
        args.processes, args.nodes, args.rate_limit
    );
    let with = simulation::run(args, Jitter::PerProcess)?;
    let without = simulation::run(args, Jitter::Alike)?;
    print!("{}", table::of(args, &with, &without));
    if let Some(path) = &args.plot {
        plot::draw(path, args, &with, &without)?;
        println!("\nplot: {}", path.display());
    }
    print!("\ntook {:.1} s", begun.elapsed().as_secs_f64());
    match peak_memory() {
        Some(peak) => println!(", {peak} MiB at most"),
        None => println!(),
    }
    Ok(())
}

/// In MiB, if the operating system reports it in a file.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}
