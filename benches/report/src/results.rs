//! One file of results: where it came from, its columns, its rows.

use std::{error::Error, fs, path::Path};

pub struct Results {
    /// What to type to get it again.
    pub command: String,
    /// Machine, versions, date.
    pub machine: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Results {
    pub fn read(folder: &Path, name: &str) -> Result<Self, Box<dyn Error>> {
        let path = folder.join(format!("{name}.csv"));
        let text = fs::read_to_string(&path).map_err(|error| {
            format!("{}: {error}; run the bench that writes it", path.display())
        })?;
        let mut notes = text.lines().map_while(|line| line.strip_prefix("# "));
        let command = notes.next().ok_or("the command is missing")?.to_owned();
        let machine = notes.next().ok_or("the machine is missing")?.to_owned();
        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .from_reader(text.as_bytes());
        let head = reader.headers()?.iter().map(str::to_owned).collect();
        let rows = reader
            .records()
            .map(|record| Ok(record?.iter().map(str::to_owned).collect()))
            .collect::<Result<_, csv::Error>>()?;
        Ok(Self {
            command,
            machine,
            head,
            rows,
        })
    }

    /// The number in that column of that row.
    pub fn number(&self, row: &[String], column: &str) -> Result<f64, Box<dyn Error>> {
        let at = self.head.iter().position(|name| name == column);
        let at = at.ok_or_else(|| format!("no column {column}"))?;
        Ok(row.get(at).ok_or("a row is too short")?.parse()?)
    }

    /// The row that begins with these cells.
    pub fn row(&self, first: &[&str]) -> Option<&Vec<String>> {
        self.rows
            .iter()
            .find(|row| row.iter().zip(first).all(|(cell, wanted)| cell == wanted))
    }
}
