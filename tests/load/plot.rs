//! How figures grow with the size of a fleet, as an SVG.

use std::path::Path;

use anyhow::{Result, ensure};
use plotters::prelude::*;

/// In pixels.
const SIZE: (u32, u32) = (840, 520);

/// Draws a line for each figure, through its value at each size as a multiple of the one at the
/// first, both on logarithmic scales, and a grey one for what grows in proportion. A figure that is
/// nothing at first has no line.
///
/// # Errors
/// There are not two sizes, or the file can't be written.
pub fn plot(file: &Path, figures: &[(&str, Vec<(f64, f64)>)]) -> Result<()> {
    let lines: Vec<(&str, Vec<(f64, f64)>)> = figures
        .iter()
        .filter_map(|(name, points)| {
            let first = points.first().filter(|(_, value)| *value > 0.0)?.1;
            Some((*name, points.iter().map(|&(size, value)| (size, value / first)).collect()))
        })
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let sizes = all()
        .fold((f64::MAX, f64::MIN), |(least, most), (size, _)| (least.min(size), most.max(size)));
    ensure!(sizes.0 < sizes.1, "growth takes fleets of two sizes");
    let multiples = all()
        .fold((0.5, sizes.1 / sizes.0), |(least, most): (f64, f64), (_, value)| {
            (least.min(value.max(0.01)), most.max(value))
        });

    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(32)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (sizes.0..sizes.1).log_scale(),
            (multiples.0..multiples.1).log_scale(),
        )?;
    let mut mesh = chart.configure_mesh();
    let plain = |value: &f64| value.to_string();
    mesh.x_label_formatter(&plain).y_label_formatter(&plain);
    mesh.x_desc("agents").y_desc("multiple of the first").draw()?;
    let ends = sizes.1 / sizes.0;
    chart
        .draw_series(LineSeries::new(
            [(sizes.0, 1.0), (sizes.1, ends)],
            BLACK.mix(0.3).stroke_width(2),
        ))?
        .label("in proportion")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.3).stroke_width(2)));
    for (number, (name, points)) in lines.iter().enumerate() {
        let style = Palette99::pick(number).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_nothing_at_first_has_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("growth.svg");
        let figures = [
            ("memory", vec![(10.0, 5.0), (100.0, 50.0)]),
            ("agents offline", vec![(10.0, 0.0), (100.0, 3.0)]),
        ];
        plot(&file, &figures).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        assert!(svg.contains("memory") && svg.contains("in proportion"), "{svg}");
        assert!(!svg.contains("agents offline"), "{svg}");
    }

    #[test]
    fn one_size_has_no_growth() {
        let folder = tempfile::tempdir().unwrap();
        let error = plot(&folder.path().join("growth.svg"), &[("memory", vec![(10.0, 5.0)])]);
        assert_eq!(error.unwrap_err().to_string(), "growth takes fleets of two sizes");
    }
}
