//! Where the instructions of a warm request go, by step. Run by `benches/steps`, which builds the
//! bench and passes its path. Writes `benches/results/steps.csv`.

use std::{collections::BTreeSet, error::Error, fs, path::Path};

use tower_scoped_auth_report::steps;

const CASES: [&str; 3] = [
    "floor: insert a constant",
    "tower-http AddAuthorization",
    "this crate",
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bench, machine] = arguments.as_slice() else {
        return Err(
            "give the bench's executable and the machine's description: see benches/steps".into(),
        );
    };
    let bench = Path::new(bench);
    let scratch = std::env::temp_dir().join(format!("steps-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let bare = steps::of(bench, "bare", &scratch)?;
    let mut columns = Vec::new();
    for case in CASES {
        columns.push(steps::of(bench, case, &scratch)?);
    }
    fs::remove_dir_all(&scratch)?;

    let names: BTreeSet<&str> = columns
        .iter()
        .flat_map(|steps| steps.keys().copied())
        .collect();
    let over = |column: &steps::Steps, step: &str| {
        let of = |steps: &steps::Steps| steps.get(step).copied().unwrap_or(0.0);
        of(column) - of(&bare)
    };
    let mut rows: Vec<(&str, Vec<f64>)> = names
        .into_iter()
        .map(|step| {
            (
                step,
                columns.iter().map(|column| over(column, step)).collect(),
            )
        })
        .filter(|(_, row): &(&str, Vec<f64>)| row.iter().any(|count| count.abs() >= 0.5))
        .collect();
    rows.sort_by(|a, b| b.1[CASES.len() - 1].total_cmp(&a.1[CASES.len() - 1]));
    let sums = (0..CASES.len())
        .map(|at| rows.iter().map(|row| row.1[at]).sum())
        .collect();
    rows.push(("all", sums));

    let mut text = format!("# benches/steps\n# {machine}\nstep,{}\n", CASES.join(","));
    for (step, row) in rows {
        let step = if step.contains(',') {
            format!("\"{step}\"")
        } else {
            step.to_owned()
        };
        let row: Vec<_> = row.iter().map(|count| format!("{count:.0}")).collect();
        text.push_str(&format!("{step},{}\n", row.join(",")));
    }
    print!("{text}");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/steps.csv");
    fs::write(results, text)?;
    Ok(())
}
