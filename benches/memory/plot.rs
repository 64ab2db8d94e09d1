//! The curve as a picture: memory above, time below, against the number; both axes logarithmic.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::Point;
use crate::parked::RUNTIMES;

/// A number of a point that is drawn.
type Number = fn(&Point) -> f64;

/// A family of curves: what its names end in, what it draws, and whether it is dashed.
type Family = (&'static str, Number, bool);

/// The picture's size.
const SIZE: (u32, u32) = (900, 1_000);

/// One colour for each runtime.
const COLORS: [RGBColor; 4] = [GREEN, BLUE, RED, BLACK];

/// Draws the points into an SVG file.
pub(crate) fn draw(path: &Path, points: &[Point]) -> Result<(), Box<dyn Error>> {
    let picture = SVGBackend::new(path, SIZE).into_drawing_area();
    picture.fill(&WHITE)?;
    let (above, below) = picture.split_vertically(SIZE.1 / 2);
    let memory: [Family; 1] = [("", |point| point.bytes, false)];
    chart(&above, "Memory of one that is parked", "bytes", points, &memory)?;
    let times: [Family; 2] =
        [(", cold", |point| point.cold, true), (", warm", |point| point.warm, false)];
    chart(&below, "Time to spawn, park, wake and join one", "nanoseconds", points, &times)?;
    picture.present()?;
    Ok(())
}

/// Draws one chart with every runtime's curves.
fn chart(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    caption: &str,
    unit: &str,
    points: &[Point],
    families: &[Family],
) -> Result<(), Box<dyn Error>> {
    let numbers = || families.iter().flat_map(|(_, number, _)| points.iter().map(number));
    // A logarithmic axis has no zero; a size that took no page at all is drawn at its foot.
    let lowest = numbers().filter(|&number| number > 0.0).fold(f64::INFINITY, f64::min);
    let highest = numbers().fold(lowest, f64::max);
    let largest = points.iter().map(|point| point.count).max().ok_or("there are no points")?;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(80)
        .build_cartesian_2d(
            (1.0..largest as f64).log_scale(),
            (lowest / 2.0..highest * 2.0).log_scale(),
        )?;
    let plain = |number: &f64| format!("{number}");
    chart
        .configure_mesh()
        .x_desc("how many at once")
        .y_desc(unit)
        .x_label_formatter(&plain)
        .y_label_formatter(&plain)
        .light_line_style(WHITE)
        .draw()?;
    for (runtime, color) in RUNTIMES.iter().zip(COLORS) {
        for (suffix, number, dashed) in families {
            let own = points.iter().filter(|point| point.runtime == *runtime);
            let line = own.map(|point| (point.count as f64, number(point).max(lowest)));
            let style = color.stroke_width(2);
            let key = move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color);
            let name = format!("{runtime}{suffix}");
            if *dashed {
                let series = DashedLineSeries::new(line, 5, 4, style);
                chart.draw_series(series)?.label(name).legend(key);
            } else {
                let series = LineSeries::new(line, style).point_size(3);
                chart.draw_series(series)?.label(name).legend(key);
            }
        }
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    Ok(())
}
