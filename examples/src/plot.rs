//! Plots as SVG files. Must not know: what the numbers mean.

use std::{error::Error, fs, path::Path};

use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color, ErrorBar, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries, RGBColor, SVGBackend,
    WHITE,
};
use thiserror::Error;

const SIZE: (u32, u32) = (800, 500);
const CURVE: RGBColor = RGBColor(31, 90, 166);
const FONT: &str = "sans-serif";

/// A point of a curve: where it is, and how far measurements of it scatter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// What was varied; greater than 0, since its axis is logarithmic.
    pub x: f64,
    /// What was measured, on average.
    pub mean: f64,
    /// The standard deviation of the measurements.
    pub deviation: f64,
}

/// What a plot says in words.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// What stands above it.
    pub title: &'a str,
    /// What was varied.
    pub x: &'a str,
    /// What was measured.
    pub y: &'a str,
}

/// Why a plot could not be written.
#[derive(Debug, Error)]
#[error("cannot write {path}: {reason}")]
#[non_exhaustive]
pub struct PlotError {
    /// The file.
    pub path: String,
    /// Why not.
    pub reason: Box<dyn Error>,
}

/// Draws a curve through the points, with their scatter as bars.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, words: Words<'_>, points: &[Point]) -> Result<(), PlotError> {
    let written = draw(words, points).and_then(|svg| Ok(fs::write(path, svg)?));
    written.map_err(|reason| PlotError { path: path.display().to_string(), reason })
}

fn draw(words: Words<'_>, points: &[Point]) -> Result<String, Box<dyn Error>> {
    if points.is_empty() {
        return Err("there is nothing to draw".into());
    }
    let (left, right) = bounds(points.iter().map(|point| point.x));
    let (bottom, top) = bounds(points.iter().flat_map(|point| [point.mean - point.deviation, point.mean + point.deviation]));
    let air = if top > bottom { (top - bottom) / 20.0 } else { 1.0 };

    let mut svg = String::new();
    let paper = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    paper.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&paper)
        .caption(words.title, (FONT, 20).into_font())
        .margin(20)
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d((left / 1.1..right * 1.1).log_scale(), bottom - air..top + air)?;
    chart
        .configure_mesh()
        .x_desc(words.x)
        .y_desc(words.y)
        .x_label_formatter(&f64::to_string)
        .axis_desc_style((FONT, 16))
        .label_style((FONT, 14))
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.1))
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().map(|point| (point.x, point.mean)), CURVE.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|&Point { x, mean, deviation }| {
        ErrorBar::new_vertical(x, mean - deviation, mean, mean + deviation, CURVE.filled(), 10)
    }))?;
    let best = points.iter().min_by(|one, other| one.mean.total_cmp(&other.mean));
    chart.draw_series(best.map(|best| Circle::new((best.x, best.mean), 7, CURVE.stroke_width(2))))?;
    drop(chart);
    paper.present()?;
    drop(paper);
    Ok(svg)
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_of_any_shape_are_drawn() {
        let words = Words { title: "title", x: "what was varied", y: "what was measured" };
        let point = |x, mean, deviation| Point { x, mean, deviation };
        for points in [&[point(1.0, 2.0, 0.5), point(100.0, -3.0, 0.1)][..], &[point(5.0, 7.0, 0.0)], &[point(1e-9, 1e9, 1e9)]] {
            let svg = draw(words, points).expect("is drawn");
            for text in ["<svg", "title", "what was varied", "what was measured", "</svg>"] {
                assert!(svg.contains(text), "{text} is not in {svg}");
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let words = Words { title: "", x: "", y: "" };
        let path = Path::new("no/such/plot.svg");
        for points in [&[][..], &[Point { x: 1.0, mean: 1.0, deviation: 0.0 }]] {
            let error = write(path, words, points).expect_err("is no directory").to_string();
            assert!(error.starts_with("cannot write no/such/plot.svg: "), "{error}");
        }
    }
}
