//! The plot: four panels over the number of hosts, drawn as SVG by hand.
//!
//! Both axes are logarithmic: what loss costs would press all else flat. What is zero stands on the bottom line, below
//! a gap. Never measures anything; the numbers are those of the table.

use super::{Figures, Row};
use std::fmt::Write as _;

const WIDTH: f64 = 1_080.0;
const HEIGHT: f64 = 750.0;
/// Between what is nothing and the least that is something, where there is both.
const GAP: f64 = 22.0;
/// Size of a panel's field.
const FIELD: (f64, f64) = (420.0, 250.0);
const LEFT: f64 = 80.0;
const TOP: f64 = 90.0;
const STEP: (f64, f64) = (520.0, 350.0);
/// Colours that people with any eyes can tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];

struct Panel {
    title: &'static str,
    unit: &'static str,
    value: fn(&Row) -> f64,
    /// A second line, dashed.
    other: Option<fn(&Row) -> f64>,
    note: &'static str,
    /// The axis has at least these.
    least: (f64, f64),
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "A process dies",
        unit: "seconds",
        value: |row| row.crash.median_s,
        other: Some(|row| row.crash.p99_s),
        note: "until all know; solid: median, dashed: 99 of a hundred",
        least: (0.5, 10.0),
    },
    Panel {
        title: "Power goes",
        unit: "seconds",
        value: |row| row.power_off.median_s,
        other: Some(|row| row.power_off.p99_s),
        note: "until all know; solid: median, dashed: 99 of a hundred",
        least: (0.5, 10.0),
    },
    Panel {
        title: "What a host sends",
        unit: "bytes a second",
        value: |row| row.payload,
        other: Some(|row| row.wire),
        note: "in peace; solid: payload, dashed: on the wire",
        least: (100.0, 10_000.0),
    },
    Panel {
        title: "False accusations",
        unit: "an hour and host",
        value: |row| row.false_accusations,
        other: Some(|row| row.false_downs as f64 / row.hosts as f64 / (row.watched.as_secs_f64() / 3_600.0)),
        note: "solid: published, dashed: falsely held to be down",
        least: (0.1, 100.0),
    },
];

/// The plot of these figures.
pub fn svg(figures: &Figures) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"34\" font-size=\"20\" font-weight=\"bold\">Membership against size and loss</text>\n"
    );
    let mut losses: Vec<u32> = figures.rows.iter().map(|row| row.loss).collect();
    losses.sort_unstable();
    losses.dedup();
    for (n, loss) in losses.iter().enumerate() {
        let (x, colour) = (WIDTH - 330.0 + 110.0 * n as f64, COLOURS[n % COLOURS.len()]);
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"30\" x2=\"{}\" y2=\"30\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"34\">{loss} % loss</text>",
            x + 24.0,
            x + 30.0
        );
    }
    for (n, panel) in PANELS.iter().enumerate() {
        let corner = (LEFT + STEP.0 * (n % 2) as f64, TOP + STEP.1 * (n / 2) as f64);
        draw(&mut out, panel, corner, figures, &losses);
    }
    out += "</svg>\n";
    out
}

fn draw(out: &mut String, panel: &Panel, (left, top): (f64, f64), figures: &Figures, losses: &[u32]) {
    let (width, height) = FIELD;
    let values = figures.rows.iter().flat_map(|row| [Some((panel.value)(row)), panel.other.map(|other| other(row))]);
    let axis = Axis::of(panel.least, values.flatten());
    let y = |value: f64| top + height - axis.up(value, height);
    let sizes = || figures.rows.iter().map(|row| (row.hosts as f64).log10());
    let (low, high) = (sizes().fold(f64::MAX, f64::min) - 0.15, sizes().fold(f64::MIN, f64::max) + 0.15);
    let x = |hosts: usize| left + width * ((hosts as f64).log10() - low) / (high - low);
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"{}\" font-size=\"15\" font-weight=\"bold\">{}</text>\
         <text x=\"{left}\" y=\"{}\" fill=\"#666\" font-size=\"12\">{}; {}</text>",
        top - 30.0,
        panel.title,
        top - 12.0,
        panel.unit,
        panel.note
    );
    for value in axis.ticks() {
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{0:.1}\" x2=\"{1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            y(value),
            left + width,
            left - 8.0,
            y(value) + 4.0,
            number(value)
        );
    }
    let mut named: Vec<usize> = figures.rows.iter().map(|row| row.hosts).collect();
    named.dedup();
    for hosts in named {
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" y1=\"{1}\" x2=\"{0:.1}\" y2=\"{2}\" stroke=\"#222\"/>\
             <text x=\"{0:.1}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>",
            x(hosts),
            top + height,
            top + height + 5.0,
            top + height + 20.0,
            number(hosts as f64)
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"M{left} {top}V{0}H{1}\" fill=\"none\" stroke=\"#222\"/>\
         <text x=\"{2}\" y=\"{3}\" text-anchor=\"middle\">hosts</text>",
        top + height,
        left + width,
        left + width / 2.0,
        top + height + 38.0
    );
    for (n, loss) in losses.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        for (value, dash) in [(Some(panel.value), "none"), (panel.other, "6 4")] {
            let Some(value) = value else { continue };
            let rows = figures.rows.iter().filter(|row| row.loss == *loss && value(row).is_finite());
            let points: Vec<(f64, f64)> = rows.map(|row| (x(row.hosts), y(value(row)))).collect();
            let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
                line.join(" ")
            );
            for (x, y) in points {
                let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
    }
}

/// A logarithmic axis, with room for nothing at its foot when something is nothing.
struct Axis {
    low: f64,
    high: f64,
    zero: bool,
}

impl Axis {
    fn of((low, high): (f64, f64), values: impl Iterator<Item = f64>) -> Axis {
        let mut axis = Axis { low, high, zero: false };
        for value in values.filter(|value| value.is_finite()) {
            if value > 0.0 {
                (axis.low, axis.high) = (axis.low.min(value), axis.high.max(value));
            } else {
                axis.zero = true;
            }
        }
        Axis { low: nice(axis.low, false), high: nice(axis.high, true), ..axis }
    }

    /// How far up a value stands on an axis of this height.
    fn up(&self, value: f64, height: f64) -> f64 {
        let foot = if self.zero { GAP } else { 0.0 };
        if value <= 0.0 {
            return 0.0;
        }
        foot + (height - foot) * (value / self.low).log10() / (self.high / self.low).log10()
    }

    /// Few enough to be read.
    fn ticks(&self) -> Vec<f64> {
        let next = |tick: &f64| Some(nice(tick * 1.5, true));
        let all: Vec<f64> =
            std::iter::successors(Some(self.low), next).take_while(|tick| *tick <= self.high * 1.001).collect();
        let whole = |tick: &f64| tick.log10().fract().abs() < 0.001 || tick.log10().fract().abs() > 0.999;
        let few = if all.len() <= 8 { all } else { all.into_iter().filter(whole).collect() };
        self.zero.then_some(0.0).into_iter().chain(few).collect()
    }
}

/// The next of 1, 2, 5, 10, 20 ... that is not less, or not more.
fn nice(value: f64, up: bool) -> f64 {
    let base = 10f64.powf(value.log10().floor());
    let all = [1.0, 2.0, 5.0, 10.0].map(|n| n * base);
    let found =
        if up { all.into_iter().find(|t| *t >= value * 0.999) } else { all.into_iter().rfind(|t| *t <= value * 1.001) };
    found.unwrap_or(value)
}

pub(super) fn number(value: f64) -> String {
    if value > 0.0 && value < 10.0 && value.fract() > 0.001 {
        return if value < 0.1 { format!("{value:.2}") } else { format!("{value:.1}") };
    }
    let (digits, mut out) = (format!("{value:.0}"), String::new());
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Axis, nice, number};

    #[test]
    fn ticks_and_numbers_are_as_people_write_them() {
        assert_eq!([0.9, 1.0, 1.3, 4.0, 60.0, 700.0].map(|v| nice(v, true)), [1.0, 1.0, 2.0, 5.0, 100.0, 1_000.0]);
        assert_eq!([0.9, 1.0, 1.3, 4.0, 60.0, 700.0].map(|v| nice(v, false)), [0.5, 1.0, 1.0, 2.0, 50.0, 500.0]);
        assert_eq!([0.0, 0.5, 10.0, 1_000.0, 25_000.0].map(number), ["0", "0.5", "10", "1,000", "25,000"]);
    }

    #[test]
    fn an_axis_holds_all_values_and_nothing_stands_at_its_foot() {
        let axis = Axis::of((100.0, 1_000.0), [0.0, 162.0, 21_436.0, f64::INFINITY, f64::NAN].into_iter());
        assert_eq!((axis.low, axis.high, axis.zero), (100.0, 50_000.0, true));
        assert_eq!((axis.up(0.0, 250.0), axis.up(50_000.0, 250.0)), (0.0, 250.0));
        assert!(axis.up(100.0, 250.0) > 10.0 && axis.up(162.0, 250.0) > axis.up(100.0, 250.0));
        let labels: Vec<String> = axis.ticks().into_iter().map(number).collect();
        assert_eq!(labels, ["0", "100", "1,000", "10,000"]);
        let short = Axis::of((0.5, 10.0), [0.97, 24.4].into_iter());
        assert_eq!(short.ticks().into_iter().map(number).collect::<Vec<_>>(), ["0.5", "1", "2", "5", "10", "20", "50"]);
    }
}
