//! Tables for people.

use cli::answer;

/// Prints rows below a head, each column as wide as its widest cell.
pub(super) fn print<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    let head = head.map(str::to_owned);
    let all: Vec<&[String; N]> = std::iter::once(&head).chain(rows).collect();
    let widths: Vec<usize> = (0..N)
        .map(|column| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in all {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        answer!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// Prints names and values, one pair a line; pairs without a value are left out.
pub(super) fn print_pairs(pairs: &[(&str, String)]) {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        answer!("{:<width$}  {value}", format!("{name}:"));
    }
}
