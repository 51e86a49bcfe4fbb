//! Draws `docs/cost.svg` and fills in the tables of the pages, from `benches/results/`:
//! `cargo run --manifest-path benches/report/Cargo.toml`.

use std::{error::Error, path::Path};

use tower_scoped_auth_report::{chart, pages};

const PAGES: [&str; 2] = ["README.md", "docs/what-it-costs.md"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let results = root.join("benches/results");
    chart::draw(&results, &root.join("docs/cost.svg"))?;
    for page in PAGES {
        pages::fill(&root.join(page), &results).map_err(|error| format!("{page}: {error}"))?;
    }
    Ok(())
}
