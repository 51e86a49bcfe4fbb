//! The plot: one panel per event, requests per second on the busiest node against time.

use std::{error::Error, ops::Range, path::Path};

use plotters::prelude::*;

use crate::{
    args::Args,
    node::EVENT_BEFORE_EXPIRY,
    tally::{Event, Tallies},
};

const SIZE: (u32, u32) = (960, 1180);
/// Told apart by lightness as well as by hue.
const WITH: RGBColor = RGBColor(0x1b, 0x5e, 0xa8);
const WITHOUT: RGBColor = RGBColor(0xf0, 0x9a, 0x3e);

type Failure = Box<dyn Error + Send + Sync>;

pub(crate) fn draw(
    path: &Path,
    args: &Args,
    with: &Tallies,
    without: &Tallies,
) -> Result<(), Failure> {
    let fail = |error: String| format!("cannot write {}: {error}", path.display());
    let mut svg = String::new();
    draw_on(&mut svg, args, with, without).map_err(|error| fail(error.to_string()))?;
    std::fs::write(path, svg).map_err(|error| fail(error.to_string()))?;
    Ok(())
}

fn draw_on(
    svg: &mut String,
    args: &Args,
    with: &Tallies,
    without: &Tallies,
) -> Result<(), Box<dyn Error>> {
    let sheet = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    sheet.fill(&WHITE)?;
    let title = format!(
        "Requests per second on the busiest node: {} processes on {} nodes",
        args.processes, args.nodes
    );
    let sheet = sheet.titled(&title, ("sans-serif", 20))?;
    for (panel, event) in sheet
        .split_evenly((Event::ALL.len(), 1))
        .iter()
        .zip(Event::ALL)
    {
        let (seconds, shift, unit) = axis(event, args);
        let series = |tallies: &Tallies| -> Vec<(f64, u32)> {
            let bars = tallies.of(event).busiest.iter().enumerate();
            bars.take(seconds.end)
                .skip(seconds.start)
                .map(|(second, requests)| (second as f64 - shift, *requests))
                .collect()
        };
        let all = [
            ("without", WITHOUT, series(without)),
            ("with", WITH, series(with)),
        ];
        let top = all
            .iter()
            .flat_map(|(_, _, series)| series)
            .map(|(_, y)| *y)
            .max();
        let top = top.unwrap_or(0).max(1);
        let x = seconds.start as f64 - shift..seconds.end as f64 - shift;
        let mut chart = ChartBuilder::on(panel)
            .caption(caption(event, args), ("sans-serif", 15))
            .margin(8)
            .margin_right(24)
            .x_label_area_size(34)
            .y_label_area_size(44)
            .build_cartesian_2d(x, 0..top + top / 10 + 1)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(unit)
            .x_label_formatter(&|second| format!("{second:.0}"))
            .y_labels(5)
            .draw()?;
        for (name, color, series) in all {
            let line = stairs(&series);
            let drawn = chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
            drawn.label(format!("{name} jitter")).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
            });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    sheet.present()?;
    Ok(())
}

/// A count holds for its whole second.
fn stairs(series: &[(f64, u32)]) -> Vec<(f64, u32)> {
    series
        .iter()
        .flat_map(|(x, y)| [(*x, *y), (x + 1.0, *y)])
        .collect()
}

/// Which seconds of an event to show, and where its zero is.
fn axis(event: Event, args: &Args) -> (Range<usize>, f64, &'static str) {
    let before = EVENT_BEFORE_EXPIRY.as_secs_f64();
    let down = usize::try_from(args.down_for.as_secs()).unwrap_or(0);
    match event {
        Event::ColdStart | Event::ColdStartUnderLimit => (0..60, 0.0, "seconds since the start"),
        Event::Expiry | Event::RateLimit => (0..60, before, "seconds from the token's expiry"),
        Event::Restart => (0..down + 30, before, "seconds from the token's expiry"),
    }
}

fn caption(event: Event, args: &Args) -> String {
    let name = event.name();
    match event {
        Event::ColdStart => format!("{name}: every process at the same moment"),
        Event::Expiry => format!("{name}: every process of a node holds the same token"),
        Event::Restart => format!(
            "{name}, gone for {} s in the refresh window",
            args.down_for.as_secs()
        ),
        Event::RateLimit | Event::ColdStartUnderLimit => {
            format!("{name} of {} requests a second per node", args.rate_limit)
        }
    }
}
