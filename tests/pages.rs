//! Keeps the pages true: what README, guide and docs name exists, and what they quote matches its source.
//!
//! Prose is not checked, of course. The doc tests check that its code compiles and runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// All Markdown that is maintained by hand.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![];
    for folder in [".", "docs"] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    assert!(pages.len() > 10, "run from the crate's root");
    pages
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page's text without its fenced code.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Everything between `open` and `close` in `text`.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let pieces = text.split(open).skip(1);
    pieces
        .filter_map(|piece| piece.split_once(close))
        .map(|(inner, _)| inner)
        .collect()
}

/// `[name]: target` lines.
fn definitions(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter(|line| line.starts_with('['));
    lines
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
        .collect()
}

/// Spans in backticks, of one line each.
fn code_spans(prose: &str) -> Vec<&str> {
    let lines = prose.lines();
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

fn faults(check: impl Fn(&Path, &str) -> Vec<String>) {
    let mut faults = vec![];
    for page in pages() {
        let found = check(&page, &read(&page));
        faults.extend(
            found
                .iter()
                .map(|fault| format!("{}: {fault}", page.display())),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_relative_link_leads_somewhere() {
    faults(|page, text| {
        let prose = prose(text);
        let inline = between(&prose, "](", ")");
        let defined = definitions(&prose).into_iter().map(|(_, target)| target);
        let targets = inline.into_iter().chain(defined);
        let relative = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
        relative
            .filter(|target| {
                let file = target.split('#').next().unwrap();
                !page.parent().unwrap().join(file).exists()
            })
            .map(|target| format!("no such file: {target}"))
            .collect()
    });
}

#[test]
fn every_reference_is_defined_on_its_page() {
    faults(|_, text| {
        let prose = prose(text);
        let defined: BTreeSet<_> = definitions(&prose)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let named = between(&prose, "][", "]").into_iter();
        // A code span in brackets is meant as a link.
        let spans = between(&prose, "[`", "`]").into_iter();
        let wanted = named
            .map(str::to_owned)
            .chain(spans.map(|span| format!("`{span}`")));
        wanted
            .filter(|name| {
                !defined.contains(name.as_str()) && !prose.contains(&format!("[{name}]("))
            })
            .filter(|name| !prose.contains(&format!("[{name}][")))
            .map(|name| format!("not defined: [{name}]"))
            .collect()
    });
}

#[test]
fn every_file_and_scenario_that_is_named_exists() {
    // `| 25 | `s025_…` | …`
    let list = read("docs/reliability.md");
    let rows = list.lines().filter(|line| line.contains("| `s"));
    let numbers = rows.filter_map(|row| row.split('|').nth(1)?.trim().parse::<u16>().ok());
    let known: BTreeSet<String> = numbers.map(|number| format!("s{number:03}")).collect();
    assert!(known.len() > 100, "the list has another form");
    let is_scenario = |span: &str| {
        span.len() == 4 && span.starts_with('s') && span[1..].bytes().all(|b| b.is_ascii_digit())
    };
    let folders = [
        "src/",
        "tests/",
        "examples/",
        "benches/",
        "docs/",
        "integrations/",
        "fuzz/",
        ".ci/",
    ];
    faults(|_, text| {
        let prose = prose(text);
        let mut wrong = vec![];
        for span in code_spans(&prose) {
            let is_path = folders.iter().any(|folder| span.starts_with(folder));
            let plain = !span.contains([' ', '*', '…']);
            if is_path && plain && !Path::new(span).exists() {
                wrong.push(format!("no such file: {span}"));
            }
            if is_scenario(span) && !known.contains(span) {
                wrong.push(format!("no such scenario: {span}"));
            }
        }
        wrong
    });
}

#[test]
fn every_page_of_the_guide_is_a_module_and_has_its_links() {
    let guide = read("src/guide.rs");
    // A generated list.
    let elsewhere = ["docs/reliability.md"];
    for page in pages().iter().filter(|page| page.starts_with("docs")) {
        let name = page.file_name().unwrap().to_str().unwrap();
        let known =
            guide.contains(&format!("\"{name}\"")) || elsewhere.iter().any(|e| page.ends_with(e));
        assert!(known, "{name} is not in src/guide.rs");
    }
    // Each name that a page defines for GitHub is defined for rustdoc as well.
    let mut links = String::new();
    for entry in fs::read_dir("src/guide").unwrap() {
        links.push_str(&read(entry.unwrap().path()));
    }
    let links: BTreeSet<_> = definitions(&links)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    faults(|page, text| {
        let name = page.file_name().unwrap().to_str().unwrap();
        if !guide.contains(&format!("\"{name}\"")) {
            return vec![];
        }
        let prose = prose(text);
        let relative = between(&prose, "](", ")")
            .into_iter()
            .filter(|target| !target.contains("://"));
        let undefined = definitions(&prose).into_iter().map(|(name, _)| name);
        let undefined = undefined.filter(|name| !links.contains(name));
        relative
            .map(|target| format!("rustdoc cannot follow {target}: define it by name"))
            .chain(undefined.map(|name| format!("not in src/guide/links*.md: {name}")))
            .collect()
    });
}

/// True if `text` has these consecutive lines, whatever their indentation.
fn has_lines(text: &str, lines: &[&str]) -> bool {
    let text: Vec<_> = text.lines().map(str::trim).collect();
    text.windows(lines.len()).any(|window| window == lines)
}

#[test]
fn code_of_the_integrations_is_their_tests() {
    let mut tests = String::new();
    for entry in fs::read_dir("integrations/tests").unwrap() {
        tests.push_str(&read(entry.unwrap().path()));
    }
    let page = read("docs/integrations.md");
    let blocks = between(&page, "```rust,ignore\n", "```");
    assert!(!blocks.is_empty());
    for block in blocks {
        let lines: Vec<_> = block.lines().map(str::trim).collect();
        assert!(
            has_lines(&tests, &lines),
            "not in integrations/tests:\n{block}"
        );
    }
}

#[test]
fn code_is_left_uncompiled_only_where_it_cannot_be() {
    faults(|page, text| {
        let fences = text.lines().filter(|line| line.starts_with("```rust"));
        let ignored = fences.filter(|line| line.contains("ignore"));
        ignored
            .filter(|_| !page.ends_with("docs/integrations.md"))
            .map(|line| format!("{line}: compile it"))
            .collect()
    });
}

/// The drawing below a heading, in a page or in a module's documentation.
fn drawing(text: &str, after: &str) -> Vec<String> {
    let text = text.replace("//! ", "").replace("//!", "");
    let (_, rest) = text.split_once(after).unwrap();
    let (_, rest) = rest.split_once("```text\n").unwrap();
    let (drawing, _) = rest.split_once("```").unwrap();
    let lines: Vec<_> = drawing.lines().map(str::trim_end).collect();
    let indents = lines.iter().filter(|line| !line.is_empty());
    let indent = indents
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap();
    lines
        .iter()
        .map(|line| line.get(indent..).unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn drawings_are_those_of_the_code() {
    let page = read("docs/inside.md");
    assert_eq!(
        drawing(&page, "## The slot"),
        drawing(&read("src/token/slot/mod.rs"), "# States")
    );
    assert_eq!(
        drawing(&page, "## A token's life"),
        drawing(&read("src/token/mod.rs"), "# The life of a token")
    );
}

#[test]
fn the_oldest_rust_is_the_manifests() {
    let manifest = read("Cargo.toml");
    let oldest = between(&manifest, "rust-version = \"", "\"")[0];
    let readme = read("README.md");
    assert!(
        readme.contains(&format!("Minimum supported Rust version: {oldest}.")),
        "{oldest}"
    );
}
