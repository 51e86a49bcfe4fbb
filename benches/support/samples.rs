//! Samples of interleaved rounds: their median, and the range of their middle half.

/// The median, and the first and third quartile.
#[derive(Clone, Copy, Debug)]
pub struct Middle {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// Of at least one sample.
pub fn middle(samples: impl IntoIterator<Item = f64>) -> Middle {
    let mut samples: Vec<f64> = samples.into_iter().collect();
    samples.sort_by(f64::total_cmp);
    let at = |quarter: usize| samples[(samples.len() - 1) * quarter / 4];
    Middle {
        median: at(2),
        low: at(1),
        high: at(3),
    }
}

/// Compares each sample, through `by`, with the other one of the same round, so that drift from round
/// to round cancels out.
pub fn paired(ours: &[f64], others: &[f64], by: impl Fn(f64, f64) -> f64) -> Middle {
    middle(ours.iter().zip(others).map(|(a, b)| by(*a, *b)))
}

/// The value that this share of all samples does not exceed.
pub fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len() - 1;
    samples[(last as f64 * share).ceil() as usize]
}
