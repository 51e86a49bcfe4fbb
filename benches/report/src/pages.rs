//! Fills in the parts of a page that are between two marks.
//!
//! `<!-- table: NAME -->` to `<!-- end -->` is the table of `NAME.csv`; `NAME + OTHER` joins two by their
//! first column. `<!-- sources: NAME, OTHER -->` says how to get them and what they were measured on.

use std::{error::Error, fs, path::Path};

use crate::results::Results;

const TABLE: &str = "<!-- table: ";
const SOURCES: &str = "<!-- sources: ";
const CLOSE: &str = " -->";
const END: &str = "<!-- end -->";

pub fn fill(page: &Path, results: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(page)?;
    let mut filled = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        filled.push_str(line);
        filled.push('\n');
        let part = if let Some(names) = between(line, TABLE) {
            table(names, results)
        } else if let Some(names) = between(line, SOURCES) {
            sources(names, results)
        } else {
            continue;
        };
        let part = part.unwrap_or_else(|missing| {
            eprintln!("{}: {missing}", page.display());
            "Not measured yet.\n".to_owned()
        });
        filled.push_str(&format!("\n{part}\n{END}\n"));
        if !lines.by_ref().any(|line| line == END) {
            return Err(format!("no {END} after {line}").into());
        }
    }
    fs::write(page, filled)?;
    Ok(())
}

fn between<'a>(line: &'a str, open: &str) -> Option<&'a str> {
    line.strip_prefix(open)?.strip_suffix(CLOSE)
}

fn table(names: &str, results: &Path) -> Result<String, Box<dyn Error>> {
    let mut names = names.split(" + ");
    let first = Results::read(results, names.next().unwrap_or_default())?;
    let (mut head, mut rows) = folded(&first);
    let mut notes = vec![note(&first)];
    for name in names {
        let other = Results::read(results, name)?;
        let (more_head, more_rows) = folded(&other);
        head.extend(more_head.into_iter().skip(1));
        for row in &mut rows {
            let found = more_rows.iter().find(|more| more.first() == row.first());
            match found {
                Some(more) => row.extend(more.iter().skip(1).cloned()),
                None => row.extend(vec![String::new(); other.head.len() - 1]),
            }
        }
        notes.push(note(&other));
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---".to_owned(); head.len()];
    let body: String = rows.iter().map(|row| line(row)).collect();
    Ok(format!(
        "{}{}{body}\n{}\n",
        line(&head),
        line(&rule),
        notes.join("  \n")
    ))
}

/// Puts a figure and its range into one cell.
fn folded(results: &Results) -> (Vec<String>, Vec<Vec<String>>) {
    let head = &results.head;
    let is_range = |name: &String| {
        ["from", "to"]
            .iter()
            .any(|end| name == end || name.ends_with(&format!(" {end}")))
    };
    let fold = |cells: &[String]| {
        let mut folded: Vec<String> = Vec::new();
        for (name, cell) in head.iter().zip(cells) {
            match folded.last_mut() {
                Some(last) if is_range(name) && name.ends_with("from") => {
                    last.push_str(&format!(" ({cell} to"))
                }
                Some(last) if is_range(name) => last.push_str(&format!(" {cell})")),
                _ => folded.push(cell.clone()),
            }
        }
        folded
    };
    let plain = head
        .iter()
        .filter(|name| !is_range(name))
        .cloned()
        .collect();
    (plain, results.rows.iter().map(|row| fold(row)).collect())
}

fn note(results: &Results) -> String {
    format!("`{}`: {}.", results.command, results.machine)
}

fn sources(names: &str, results: &Path) -> Result<String, Box<dyn Error>> {
    let mut notes = Vec::new();
    for name in names.split(", ") {
        let note = note(&Results::read(results, name)?);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Ok(format!("{}\n", notes.join("  \n")))
}
