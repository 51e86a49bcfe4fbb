//! A table that is printed, and kept in `benches/results/` for the documentation and the chart.
//!
//! The file begins with lines that start with `#` (the command, the machine, the versions, the date); the
//! rest is CSV. A cell with a comma is quoted; no cell contains a quote.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

pub struct Table {
    name: &'static str,
    command: String,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    note: String,
}

impl Table {
    /// `name` is the file's; `command` is what to type to get it again.
    pub fn new(name: &'static str, command: &str, head: &[&'static str]) -> Self {
        Self {
            name,
            command: command.to_owned(),
            head: head.to_vec(),
            rows: Vec::new(),
            note: String::new(),
        }
    }

    /// Adds a remark about the machine.
    #[allow(dead_code, reason = "most benches have nothing to add")]
    pub fn note(&mut self, what: &str) {
        self.note.push_str(&format!("; {what}"));
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.head.len(), "a row is as wide as the table");
        self.rows.push(cells.to_vec());
    }

    /// Prints the table and writes its file.
    pub fn finish(&self) {
        let line = |cells: &[&str]| format!("| {} |", cells.join(" | "));
        println!("\n{}", line(&self.head));
        println!("{}", line(&vec!["---"; self.head.len()]));
        for row in &self.rows {
            println!(
                "{}",
                line(&row.iter().map(String::as_str).collect::<Vec<_>>())
            );
        }
        let mut text = format!(
            "# {}\n# {}\n{}\n",
            self.command,
            machine() + &self.note,
            self.head.join(",")
        );
        for row in &self.rows {
            let cells: Vec<_> = row.iter().map(|cell| quoted(cell)).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        let file = folder().join(format!("{}.csv", self.name));
        fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// `benches/results`, for the crate itself and for the peers' workspace.
fn folder() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    if manifest.ends_with("benches/peers") {
        manifest.with_file_name("results")
    } else {
        manifest.join("benches/results")
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains(',') {
        format!("\"{cell}\"")
    } else {
        cell.to_owned()
    }
}

/// What the figures were measured on, with what, and when.
pub fn machine() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let rustc = said_by("rustc", &["--version"]);
    let rustc = rustc.split(" (").next().unwrap_or_default();
    let date = said_by("date", &["-u", "+%F"]);
    format!("{model}; {cores} cores; {os} {arch}; {rustc}; {date}")
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| format!("no {program}"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
