//! Keeps `docs/reliability.md` true: every numbered scenario there has its test, and every test its
//! line. `UPDATE_DOCS=1 cargo test --test scenarios` writes the list anew.

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

/// Those that must not go missing.
const REQUIRED: [RangeInclusive<u16>; 25] = [
    1..=23,
    25..=32,
    34..=40,
    42..=52,
    54..=54,
    57..=59,
    62..=74,
    75..=81,
    83..=89,
    91..=91,
    93..=96,
    100..=100,
    102..=109,
    112..=121,
    123..=123,
    125..=125,
    127..=130,
    132..=133,
    135..=135,
    137..=145,
    148..=157,
    159..=165,
    166..=168,
    171..=172,
    174..=175,
];

/// Numbers inside those ranges that are not in use, or are answered otherwise; the page says how.
const ELSEWHERE: [u16; 7] = [24, 41, 53, 82, 122, 136, 145];

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

/// `s025_hundred_thousand_first_requests` of a line that declares it.
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
        .filter(|number| !found.contains(number) && !ELSEWHERE.contains(number))
        .collect();
    assert!(missing.is_empty(), "no test for {missing:?}");
}
