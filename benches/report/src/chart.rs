//! The chart: what a request costs compared with the peers, and as threads are added.
//!
//! The colours are of medium lightness, and there is no background, so that it is readable on white and
//! on black. Text uses the reader's own sans-serif font.

use std::{error::Error, path::Path};

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::results::Results;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 432;
const LEFT: u32 = 500;

const INK: RGBColor = RGBColor(122, 128, 136);
const OURS: RGBColor = RGBColor(230, 106, 20);
const CONSTANT: RGBColor = RGBColor(46, 138, 212);
const PEER: RGBColor = RGBColor(134, 142, 152);

const FONT: &str = "sans-serif";
const TITLE: i32 = 19;
const TEXT: i32 = 15;

pub fn draw(results: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (WIDTH, HEIGHT)).into_drawing_area();
    let (left, right) = root.split_horizontally(LEFT);
    peers(&left, results)?;
    threads(&right, results)?;
    root.present()?;
    Ok(())
}

fn text(
    area: &Area<'_>,
    words: &str,
    at: (i32, i32),
    size: i32,
    color: RGBColor,
    anchor: HPos,
) -> Result<(), Box<dyn Error>> {
    let style = (FONT, size)
        .into_font()
        .color(&color)
        .pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(words.to_owned(), at, style))?;
    Ok(())
}

/// One bar per case, from the cheapest to the most expensive.
fn peers(area: &Area<'_>, results: &Path) -> Result<(), Box<dyn Error>> {
    const TOP: i32 = 62;
    const BAR: i32 = 10;
    const FROM: i32 = 12;
    const TO: i32 = 330;

    let times = Results::read(results, "peers")?;
    let counts = Results::read(results, "peers_instructions")?;
    let mut bars = Vec::new();
    for row in times.rows.iter().filter(|row| row[0] != "bare") {
        let count = counts
            .row(&[&row[0]])
            .ok_or_else(|| format!("no instructions of {}", row[0]))?;
        let count = counts.number(count, "instructions over bare")?;
        bars.push((
            row[0].as_str(),
            times.number(row, "ns over bare")?.max(0.0),
            count,
        ));
    }
    bars.sort_by(|a, b| a.2.total_cmp(&b.2));
    let most = bars.iter().map(|bar| bar.1).fold(1.0, f64::max);

    text(
        area,
        "Cost of stamping one request",
        (FROM, 18),
        TITLE,
        INK,
        HPos::Left,
    )?;
    text(
        area,
        "ns over no layer, median (instructions)",
        (FROM, 40),
        TEXT,
        INK,
        HPos::Left,
    )?;
    let step = (HEIGHT as i32 - TOP - 8) / bars.len() as i32;
    for (place, (name, ns, count)) in bars.iter().enumerate() {
        let y = TOP + step * place as i32;
        let color = match *name {
            "this crate" => OURS,
            name if name.contains("constant") => CONSTANT,
            _ => PEER,
        };
        let end = FROM + ((f64::from(TO - FROM) * ns / most).round() as i32).max(2);
        text(
            area,
            name,
            (FROM, y + 8),
            TEXT,
            if color == PEER { INK } else { color },
            HPos::Left,
        )?;
        area.draw(&Rectangle::new(
            [(FROM, y + 18), (end, y + 18 + BAR)],
            color.filled(),
        ))?;
        let figure = format!("{ns:.0} ns ({count:.0})");
        text(
            area,
            &figure,
            (end + 8, y + 18 + BAR / 2),
            TEXT,
            if color == PEER { INK } else { color },
            HPos::Left,
        )?;
    }
    Ok(())
}

/// The cases of `contention.csv`, with labels that fit next to a line.
const LINES: [(&str, &str, RGBColor, bool); 4] = [
    (
        "a constant value, clone() per request",
        "constant, clone()",
        CONSTANT,
        true,
    ),
    (
        "a constant value (tower-http AddAuthorization)",
        "constant value",
        CONSTANT,
        false,
    ),
    (
        "this crate, clone() per request",
        "this crate, clone()",
        OURS,
        true,
    ),
    ("this crate", "this crate", OURS, false),
];

/// One line per case, over the number of threads.
fn threads(area: &Area<'_>, results: &Path) -> Result<(), Box<dyn Error>> {
    const LABELS: u32 = 140;
    const LINE: i32 = 18;

    let contention = Results::read(results, "contention")?;
    let mut lines = Vec::new();
    for (row_name, label, color, cloned) in LINES {
        let mut points = Vec::new();
        for row in contention.rows.iter().filter(|row| row[0] == row_name) {
            points.push((
                contention.number(row, "threads")?,
                contention.number(row, "ns")?,
            ));
        }
        lines.push((label, color, cloned, points));
    }
    let points = || lines.iter().flat_map(|line| line.3.iter().copied());
    let most_threads = points().map(|point| point.0).fold(2.0, f64::max);
    let most_ns = points().map(|point| point.1).fold(1.0, f64::max) * 1.1;

    text(
        area,
        "Cost per request as threads are added",
        (12, 18),
        TITLE,
        INK,
        HPos::Left,
    )?;
    text(area, "ns on each thread", (12, 40), TEXT, INK, HPos::Left)?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(58)
        .margin_right(LABELS)
        .x_label_area_size(44)
        .y_label_area_size(46)
        .build_cartesian_2d(1.0..most_threads, 0.0..most_ns)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.3))
        .axis_style(INK)
        .label_style((FONT, TEXT).into_font().color(&INK))
        .x_desc("threads")
        .x_labels((most_threads as usize).min(9))
        .x_label_formatter(&|threads| format!("{threads:.0}"))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .y_labels(6)
        .draw()?;
    let mut labels = Vec::new();
    for (label, color, cloned, points) in &lines {
        let style = color.stroke_width(2);
        if *cloned {
            chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 4, style))?;
        } else {
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        }
        chart.draw_series(
            points
                .iter()
                .map(|point| Circle::new(*point, 3, color.filled())),
        )?;
        let last = points.last().ok_or_else(|| format!("no rows of {label}"))?;
        labels.push((chart.backend_coord(last), *label, *color));
    }
    // In the area's own coordinates, and without overlaps.
    let (offset_x, offset_y) = area.get_base_pixel();
    labels.sort_by_key(|label| label.0.1);
    let mut free = i32::MIN;
    for ((x, y), label, color) in labels {
        let y = (y - offset_y).max(free);
        free = y + LINE;
        text(area, label, (x - offset_x + 9, y), TEXT, color, HPos::Left)?;
    }
    Ok(())
}
