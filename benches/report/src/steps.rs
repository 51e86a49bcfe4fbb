//! Instructions by step: callgrind's count of each machine instruction is assigned to a step by its
//! source line, or by that of the call it was inlined into.
//!
//! Knows the format of callgrind's output and where each step lives in the source tree.

use std::{
    collections::BTreeMap,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

use addr2line::Loader;

/// Maps a piece of the source file's path to a step. The first match counts, from the innermost frame out.
const STEPS: &[(&str, &str)] = &[
    ("/src/destination/", "destination check"),
    ("/src/request.rs", "destination check"),
    ("http-1.*/src/uri/", "destination check"),
    ("/src/token/clock.rs", "two clocks"),
    ("rustix-", "two clocks"),
    ("arc-swap-", "arc-swap load"),
    ("http-1.*/src/extensions.rs", "extension look-up"),
    ("http-1.*/src/header/", "header look-up and insert"),
    ("bytes-", "the value's reference count"),
    (
        "/src/token/stamp.rs",
        "which copy of the stamp, and the 401 watch",
    ),
    (
        "/src/token/rejection.rs",
        "which copy of the stamp, and the 401 watch",
    ),
    (
        "/src/watch.rs",
        "which copy of the stamp, and the 401 watch",
    ),
    (
        "/src/token/lease.rs",
        "is it still the token in service, and fresh",
    ),
    (
        "/src/token/current.rs",
        "is it still the token in service, and fresh",
    ),
    (
        "/src/token/slot/",
        "is it still the token in service, and fresh",
    ),
    (
        "/src/token/supply.rs",
        "is it still the token in service, and fresh",
    ),
    ("/src/policy.rs", "layer, service and future"),
    ("/src/service.rs", "layer, service and future"),
    ("/src/future/", "layer, service and future"),
];

const OTHER: &str = "the rest: moving the request, the allocator";

pub type Steps = BTreeMap<&'static str, f64>;

/// Instructions per request of one case, by step.
pub fn of(bench: &Path, case: &str, scratch: &Path) -> Result<Steps, Box<dyn Error>> {
    const SHORT: u32 = 1_000;
    const LONG: u32 = 11_000;
    let loader = Loader::new(bench).map_err(|error| error.to_string())?;
    let short = run(bench, case, SHORT, scratch, &loader)?;
    let mut long = run(bench, case, LONG, scratch, &loader)?;
    for (step, count) in &mut long {
        *count = (*count - short.get(step).copied().unwrap_or(0.0)) / f64::from(LONG - SHORT);
    }
    Ok(long)
}

fn run(
    bench: &Path,
    case: &str,
    count: u32,
    scratch: &Path,
    loader: &Loader,
) -> Result<Steps, Box<dyn Error>> {
    let file: PathBuf = scratch.join("callgrind.out");
    let status = Command::new("valgrind")
        .args([
            "-q",
            "--tool=callgrind",
            "--dump-instr=yes",
            "--compress-pos=no",
            "--compress-strings=no",
        ])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(bench)
        .args(["--instructions", case, &count.to_string()])
        .status()?;
    if !status.success() {
        return Err("valgrind failed".into());
    }
    let mut steps = Steps::new();
    let (mut ours, mut function, mut skip) = (false, String::new(), false);
    let name = bench
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for line in std::fs::read_to_string(&file)?.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            ours = object.ends_with(&name);
        } else if let Some(called) = line.strip_prefix("fn=") {
            called.clone_into(&mut function);
        } else if line.starts_with("calls=") {
            // The next line is the cost of the callee, which is counted where the callee is.
            skip = true;
        } else if line.starts_with("0x") {
            if std::mem::take(&mut skip) {
                continue;
            }
            let mut words = line.split(' ');
            let address = words.next().unwrap_or_default().trim_start_matches("0x");
            let address = u64::from_str_radix(address, 16)?;
            let cost: f64 = words.next_back().unwrap_or_default().parse()?;
            let step = if ours {
                step_of(address, loader)?
            } else {
                foreign(&function)
            };
            *steps.entry(step).or_default() += cost;
        }
    }
    Ok(steps)
}

/// In the C library there are no frames of this crate to go by.
fn foreign(function: &str) -> &'static str {
    if function.contains("clock_gettime") {
        "two clocks"
    } else {
        OTHER
    }
}

fn step_of(address: u64, loader: &Loader) -> Result<&'static str, Box<dyn Error>> {
    let mut frames = loader
        .find_frames(address)
        .map_err(|error| error.to_string())?;
    while let Some(frame) = frames.next()? {
        let Some(file) = frame.location.and_then(|location| location.file) else {
            continue;
        };
        let step = STEPS.iter().find(|(piece, _)| is_in(file, piece));
        if let Some((_, step)) = step {
            return Ok(step);
        }
    }
    Ok(OTHER)
}

/// `*` stands for anything. A path that begins with `/src/` is this crate's own.
fn is_in(file: &str, piece: &str) -> bool {
    if piece.starts_with("/src/") {
        let own = file
            .strip_prefix('/')
            .map_or_else(|| format!("/{file}"), |_| file.to_owned());
        return !file.contains("/registry/") && !file.contains("/rustc/") && own.contains(piece);
    }
    match piece.split_once('*') {
        Some((start, end)) => file.find(start).is_some_and(|at| file[at..].contains(end)),
        None => file.contains(piece),
    }
}
