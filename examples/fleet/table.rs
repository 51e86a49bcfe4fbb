//! The table: events from top to bottom, each with and without jitter.

use std::fmt::Write;

use crate::{
    args::Args,
    tally::{Event, Tallies, Tally},
};

pub(crate) fn of(args: &Args, with: &Tallies, without: &Tallies) -> String {
    let mut text = String::new();
    text.push_str(
        "| event | jitter | requests per process | refused | \
         most on a node in 1 s | on a node in 1 s, on average over the event's busiest 60 s | \
         longest without a token |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for event in Event::ALL {
        for (jitter, tallies) in [("yes", with), ("no", without)] {
            let tally = tallies.of(event);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {jitter} | {:.2} | {:.1} % | {} | {:.2} | {:.1} s |",
                event.name(),
                tally.requests as f64 / f64::from(args.processes),
                100.0 * tally.refused as f64 / tally.requests.max(1) as f64,
                tally.peak,
                busiest_minute(tally) / f64::from(args.nodes),
                tally.without.as_secs_f64(),
            );
        }
    }
    text
}

/// Requests a second over all nodes, in the busiest minute.
fn busiest_minute(tally: &Tally) -> f64 {
    let minutes = tally
        .total
        .windows(60)
        .map(|minute| minute.iter().sum::<u64>());
    minutes.max().unwrap_or(0) as f64 / 60.0
}
