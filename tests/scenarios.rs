//! Keeps `docs/reliability.md` true: every numbered scenario there has its test, and every test its
//! line. `UPDATE_DOCS=1 cargo test --test scenarios` rewrites the list.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::RangeInclusive,
    path::Path,
};

const PAGE: &str = "docs/reliability.md";
const BEGIN: &str = "<!-- generated: scenarios -->";
const END: &str = "<!-- end -->";

/// The scenarios. Numbers are names, and not every number is in use.
const REQUIRED: [RangeInclusive<u16>; 21] = [
    1..=23,
    25..=32,
    34..=40,
    42..=52,
    54..=54,
    57..=59,
    62..=81,
    83..=89,
    91..=91,
    93..=96,
    98..=98,
    100..=100,
    102..=109,
    112..=121,
    123..=123,
    125..=125,
    127..=145,
    147..=157,
    159..=168,
    171..=172,
    174..=176,
];

/// Pages that name tests, as `s012` or, in a column of tests and in parentheses, as 12.
const PAGES: [&str; 2] = ["docs/threat-model.md", "docs/what-happens.md"];

fn scan(folder: &Path, found: &mut BTreeMap<u16, BTreeSet<(String, String)>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            scan(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for name in text.lines().filter_map(test_name) {
                for number in numbers(name) {
                    let file = path.to_str().unwrap().replace('\\', "/");
                    found
                        .entry(number)
                        .or_default()
                        .insert((name.to_owned(), file));
                }
            }
        }
    }
}

/// `s025_hundred_thousand_first_requests`, from the line that declares it.
fn test_name(line: &str) -> Option<&str> {
    let declared = line
        .trim_start()
        .trim_start_matches("async ")
        .strip_prefix("fn ")?;
    let name = declared.split('(').next()?;
    (!numbers(name).is_empty()).then_some(name)
}

/// `s150_s151_a_storm` is two scenarios.
fn numbers(name: &str) -> Vec<u16> {
    name.split('_')
        .map_while(|word| {
            word.strip_prefix('s')
                .filter(|digits| digits.len() == 3)?
                .parse()
                .ok()
        })
        .collect()
}

fn list() -> (BTreeSet<u16>, String) {
    let mut found = BTreeMap::new();
    scan(Path::new("tests"), &mut found);
    scan(Path::new("src"), &mut found);
    let mut list = String::from("| scenario | test | file |\n| --- | --- | --- |\n");
    for (number, tests) in &found {
        for (name, file) in tests {
            list.push_str(&format!(
                "| {number} | `{name}` | [`{file}`](../{file}) |\n"
            ));
        }
    }
    (found.into_keys().collect(), list)
}

#[test]
fn the_page_lists_the_tests_there_are() {
    let (_, list) = list();
    let page = fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let expected = format!("{head}{BEGIN}\n\n{list}\n{END}{tail}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, &expected).unwrap();
    } else {
        assert!(
            page == expected,
            "{PAGE} is behind: UPDATE_DOCS=1 cargo test --test scenarios"
        );
    }
}

#[test]
fn no_scenario_dropped_out() {
    let (found, _) = list();
    let missing: Vec<_> = REQUIRED
        .into_iter()
        .flatten()
        .filter(|number| !found.contains(number))
        .collect();
    assert!(missing.is_empty(), "no test for {missing:?}");
}

/// The numbers that a cell or a parenthesis names: `s042`, `s057` to `s059`; 7 to 10, 20. `None` if it
/// is not a list of numbers.
fn named(text: &str) -> Option<Vec<u16>> {
    let words = text.replace([',', '`', ';'], " ");
    let mut numbers = Vec::new();
    let mut open = false;
    for word in words.split_whitespace() {
        match word.strip_prefix('s').unwrap_or(word).parse::<u16>() {
            Ok(end) if open => {
                let start = numbers.pop()?;
                numbers.extend(start..=end);
                open = false;
            }
            Ok(number) => numbers.push(number),
            Err(_) if word == "to" && !numbers.is_empty() => open = true,
            // What else a cell may say about a test.
            Err(_) if ["and", "fuzz", "target"].contains(&word) => {}
            Err(_) if Path::new(&format!("fuzz/fuzz_targets/{word}.rs")).exists() => {}
            Err(_) => return None,
        }
    }
    (!open).then_some(numbers)
}

/// What a page names: in the last cell of each table row, and in parentheses that hold nothing else.
fn named_by(page: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    let rows = page.lines().filter(|line| line.starts_with('|'));
    for row in rows.filter(|row| !row.contains("| --- |")) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        if !["test", "tests"].contains(&cell) {
            let named = named(cell).unwrap_or_else(|| panic!("not a list of tests: {row}"));
            numbers.extend(named);
        }
    }
    for piece in page.split('(').skip(1) {
        let inside = piece.split(')').next().unwrap();
        numbers.extend(named(inside).unwrap_or_default());
    }
    // Single numbers in the text.
    let quoted = page.split('`').filter(|word| word.len() == 4);
    numbers.extend(quoted.filter_map(|word| word.strip_prefix('s')?.parse::<u16>().ok()));
    numbers
}

#[test]
fn the_other_pages_name_tests_that_exist() {
    let (found, _) = list();
    for page in PAGES {
        let text = fs::read_to_string(page).unwrap();
        let named = named_by(&text);
        assert!(named.len() > 20, "{page} names {} tests", named.len());
        let missing: Vec<_> = named
            .into_iter()
            .filter(|number| !found.contains(number))
            .collect();
        assert!(missing.is_empty(), "{page}: no test for {missing:?}");
    }
}

#[test]
fn every_threat_points_to_a_test() {
    let text = fs::read_to_string(PAGES[0]).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|'));
    for row in rows.skip(2) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap();
        assert!(named(cell).is_some_and(|tests| !tests.is_empty()), "{row}");
    }
}

#[test]
fn lists_of_tests_are_read_as_they_are_meant() {
    assert_eq!(named("`s049`, `s050`"), Some(vec![49, 50]));
    assert_eq!(named("7 to 10, 20"), Some(vec![7, 8, 9, 10, 20]));
    assert_eq!(
        named("`s042`, `s057` to `s059`; fuzz target `destinations`"),
        Some(vec![42, 57, 58, 59])
    );
    assert_eq!(named(""), Some(vec![]));
    assert_eq!(named("at most 13 a minute"), None);
    assert_eq!(named("7 to"), None);
    assert_eq!(
        named_by("as said (13); not so (14 to 16) if 17 (at 18)"),
        [13, 14, 15, 16]
    );
}
