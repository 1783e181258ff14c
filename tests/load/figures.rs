//! What is made of samples.

use std::fs::File;
use std::io::Write as _;

/// The value below which so many of the samples are; `share` is between 0 and 1.
///
/// # Panics
/// There are no samples.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let place = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[place]
}

/// Minimum, median and maximum, for a table.
pub fn spread(samples: &[f64]) -> String {
    if samples.is_empty() {
        return "-".to_owned();
    }
    let [minimum, median, maximum] = [0.0, 0.5, 1.0].map(|share| quantile(samples, share));
    format!("{minimum:.1} / {median:.1} / {maximum:.1}")
}

/// How a figure grows with what it was measured for, from the first to the last measurement: its
/// factor, and the shape of that. `from` and `to` are each the size and the figure there.
pub fn growth(from: (f64, f64), to: (f64, f64)) -> String {
    if from.1 <= 0.0 || to.1 <= 0.0 || from.0 >= to.0 {
        return "-".to_owned();
    }
    let factor = to.1 / from.1;
    // 0 is constant and 1 linear; what two rounds differ by is in between.
    let shape = match factor.ln() / (to.0 / from.0).ln() {
        ..-0.1 => "falls",
        ..0.1 => "constant",
        ..0.9 => "less than linear",
        ..1.1 => "linear",
        _ => "more than linear",
    };
    format!("× {factor:.1}, {shape}")
}

/// Notes a figure for `scripts/bench targets`, which names the file for it in `SCALR_FIGURES`: a
/// line with the name, a tab and the value. Without the variable, nothing happens.
///
/// # Errors
/// The file can't be written.
pub fn note(name: &str, value: f64) -> std::io::Result<()> {
    let Some(file) = std::env::var_os("SCALR_FIGURES").filter(|file| !file.is_empty()) else {
        return Ok(());
    };
    let mut file = File::options().append(true).create(true).open(file)?;
    writeln!(file, "{name}\t{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_samples() {
        let samples: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(
            [0.0, 0.5, 0.99, 1.0].map(|share| quantile(&samples, share)),
            [0.0, 50.0, 99.0, 100.0]
        );
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn growth_is_named_by_its_shape() {
        let growth_to = |figure| growth((10.0, 2.0), (1000.0, figure));
        assert_eq!(growth_to(1.0), "× 0.5, falls");
        assert_eq!(growth_to(2.2), "× 1.1, constant");
        assert_eq!(growth_to(20.0), "× 10.0, less than linear");
        assert_eq!(growth_to(200.0), "× 100.0, linear");
        assert_eq!(growth_to(20_000.0), "× 10000.0, more than linear");
        assert_eq!(growth((10.0, 0.0), (1000.0, 5.0)), "-");
        assert_eq!(growth((10.0, 5.0), (10.0, 5.0)), "-");
    }

    #[test]
    fn a_spread_has_minimum_median_and_maximum() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), "1.0 / 2.0 / 3.0");
        assert_eq!(spread(&[]), "-");
    }
}
