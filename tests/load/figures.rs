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
    fn a_spread_has_minimum_median_and_maximum() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), "1.0 / 2.0 / 3.0");
        assert_eq!(spread(&[]), "-");
    }
}
