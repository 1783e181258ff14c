//! The steps of runs as an SVG: a bar for each, from its beginning to its end.

use std::fmt::Write as _;

use load::figures::quantile;

use super::Step;

/// In pixels.
const LABELS: f64 = 190.0;
const CHART: f64 = 560.0;
const ROW: f64 = 17.0;

/// An SVG of the medians.
pub(super) fn plot(steps: &[Step]) -> String {
    let median = |step: &Step| (quantile(&step.begun, 0.5), quantile(&step.took, 0.5));
    let end = steps.iter().map(median).map(|(begun, took)| begun + took).fold(1.0, f64::max);
    let scale = CHART / end;
    #[allow(clippy::cast_precision_loss)]
    let height = (steps.len() + 2) as f64 * ROW;
    let width = LABELS + CHART + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LABELS}\" y=\"12\">ms after POST /runs; medians</text>\n"
    );
    let mut line = |text: String| writeln!(svg, "{text}").expect("a string takes all");
    let mut mark = 0.0;
    while mark <= end {
        let x = LABELS + mark * scale;
        line(format!("<path d=\"M{x:.1} 30V{height}\" stroke=\"#ddd\"/>"));
        line(format!("<text x=\"{x:.1}\" y=\"27\" text-anchor=\"middle\">{mark}</text>"));
        mark += 100.0;
    }
    let mut y = 2.0 * ROW;
    for step in steps {
        let (begun, took) = median(step);
        let (x, wide) = (LABELS + begun * scale, (took * scale).max(1.0));
        let (fill, indent) = if step.part_of.is_empty() { ("#35608f", 0) } else { ("#8fb3d9", 12) };
        let (middle, after) = (y + 11.0, x + wide + 4.0);
        line(format!("<text x=\"{indent}\" y=\"{middle}\">{}</text>", step.name));
        line(format!(
            "<rect x=\"{x:.1}\" y=\"{}\" width=\"{wide:.1}\" height=\"11\" fill=\"{fill}\"/>",
            y + 2.0
        ));
        line(format!("<text x=\"{after:.1}\" y=\"{middle}\">{took:.0}</text>"));
        y += ROW;
    }
    svg + "</svg>\n"
}
