//! The picture as SVG, written by hand: no script, no font and no picture from elsewhere.

use super::{Lane, Look, Mark, Picture, Span};
use std::fmt::Write;
use std::time::Duration;

const LEFT: f64 = 190.0;
const PLOT: f64 = 1_240.0;
const WIDTH: f64 = LEFT + PLOT + 30.0;
const TOP: f64 = 104.0;
/// Of a lane without builds: marks, lease, process, beliefs.
const LANE: f64 = 62.0;
/// Of a row of builds.
const ROW: f64 = 14.0;
/// Rows of builds that are drawn; more are said in words.
const ROWS_MAX: usize = 8;

const STYLE: &str = "text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#1f2933}\
.title{font-size:20px;font-weight:600}.sub{font-size:13px;fill:#52606d}.bad{fill:#c81e1e;font-weight:600}\
.host{font-size:13px;font-weight:600}.axis{fill:#7b8794;font-size:11px}.in{font-size:10px;fill:#fff}\
.grid{stroke:#e4e7eb}.moment{stroke:#9aa5b1;stroke-dasharray:3 4}";

/// Colour, and what the legend says.
fn look(look: Look) -> (&'static str, &'static str) {
    match look {
        Look::Up => ("#9fb3c8", "process runs"),
        Look::Suspended => ("#f0b429", "suspended"),
        Look::Unfit => ("#f5f0e6", "not fit"),
        Look::Lease => ("#6b46c1", "holds the lease (fence)"),
        Look::Running => ("#2186eb", "build, not ended"),
        Look::Done => ("#27ab83", "build done"),
        Look::Failed => ("#e66a6a", "build failed"),
        Look::Lost => ("#a0a8b0", "build lost or cancelled"),
        Look::Fault => ("#c81e1e", "fault"),
        Look::End => ("#27ab83", "end of a fault"),
        Look::Work => ("#2186eb", "work"),
        Look::Skipped => ("#cbd2d9", "skipped action"),
        Look::Alive => ("#27ab83", "believes a host alive"),
        Look::Suspect => ("#f0b429", "suspects one"),
        Look::Down => ("#c81e1e", "believes one down or left"),
    }
}

const LEGEND: [Look; 15] = [
    Look::Up,
    Look::Suspended,
    Look::Unfit,
    Look::Lease,
    Look::Running,
    Look::Done,
    Look::Failed,
    Look::Lost,
    Look::Fault,
    Look::End,
    Look::Work,
    Look::Skipped,
    Look::Alive,
    Look::Suspect,
    Look::Down,
];

/// Text that may stand in XML: nothing else than what it says.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(' '),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// At most so many characters.
fn short(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

fn height(lane: &Lane) -> f64 {
    LANE + lane.builds.len().min(ROWS_MAX) as f64 * ROW
}

impl Picture {
    /// The picture.
    pub fn to_svg(&self) -> String {
        let plot = TOP + self.lanes.iter().map(height).sum::<f64>();
        let total = plot + 92.0;
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" \
             viewBox=\"0 0 {WIDTH} {total}\">\n<style>{STYLE}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{total}\" fill=\"#fff\"/>\n"
        );
        let class = if self.failed { "sub bad" } else { "sub" };
        let _ = writeln!(out, "<text class=\"title\" x=\"20\" y=\"34\">{}</text>", xml(&self.title));
        let subtitle = xml(&self.subtitle);
        let _ = writeln!(
            out,
            "<text class=\"{class}\" x=\"20\" y=\"56\"><title>{subtitle}</title>{}</text>",
            xml(&short(&self.subtitle, 190))
        );
        let mut y = TOP;
        for (number, lane) in self.lanes.iter().enumerate() {
            let fill = if number % 2 == 0 { "#fafbfc" } else { "#fff" };
            let high = height(lane);
            let _ = writeln!(out, "<rect x=\"0\" y=\"{y}\" width=\"{WIDTH}\" height=\"{high}\" fill=\"{fill}\"/>");
            y += high;
        }
        self.axis(&mut out, plot);
        let mut y = TOP;
        for lane in &self.lanes {
            self.lane(&mut out, lane, y);
            y += height(lane);
        }
        if let Some(at) = self.failure_at {
            let x = self.x(at);
            let _ = writeln!(
                out,
                "<g><title>{}</title><rect x=\"{:.1}\" y=\"{}\" width=\"8\" height=\"{:.1}\" fill=\"#c81e1e\" \
                 opacity=\".12\"/><line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{plot}\" stroke=\"#c81e1e\" \
                 stroke-width=\"2\"/></g>",
                xml(&self.subtitle),
                x - 4.0,
                TOP - 8.0,
                plot - TOP + 8.0,
                TOP - 8.0
            );
        }
        legend(&mut out, plot + 34.0);
        out.push_str("</svg>\n");
        out
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + PLOT * (at.as_secs_f64() / self.end.as_secs_f64()).clamp(0.0, 1.0)
    }

    fn axis(&self, out: &mut String, plot: f64) {
        let end = self.end.as_secs_f64();
        let steps = [0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0];
        let step = steps.into_iter().find(|step| end / step <= 16.0).unwrap_or(end);
        for n in 0..=(end / step) as u32 {
            let at = f64::from(n) * step;
            let x = LEFT + PLOT * at / end;
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{plot}\"/>\
                 <text class=\"axis\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} s</text>",
                plot + 14.0,
                (at * 1_000.0).round() / 1_000.0
            );
        }
        for (at, what) in &self.moments {
            let x = self.x(*at);
            let _ = writeln!(
                out,
                "<line class=\"moment\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{plot}\"/>\
                 <text class=\"axis\" x=\"{:.1}\" y=\"{}\">{}</text>",
                TOP - 18.0,
                x + 4.0,
                TOP - 10.0,
                xml(what)
            );
        }
    }

    fn lane(&self, out: &mut String, lane: &Lane, y: f64) {
        let high = height(lane);
        let _ = writeln!(out, "<g id=\"{}\">", xml(&format!("lane-{}", lane.name)));
        lane.unfit.iter().for_each(|span| self.bar(out, span, y, high));
        let _ = writeln!(out, "<text class=\"host\" x=\"20\" y=\"{:.1}\">{}</text>", y + 36.0, xml(&lane.name));
        let middle = y + 33.0;
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#cbd2d9\" stroke-dasharray=\"2 3\"/>",
            LEFT + PLOT
        );
        lane.process.iter().for_each(|span| self.bar(out, span, y + 28.0, 10.0));
        lane.leases.iter().for_each(|span| self.bar(out, span, y + 16.0, 11.0));
        for (n, row) in lane.builds.iter().take(ROWS_MAX).enumerate() {
            row.iter().for_each(|span| self.bar(out, span, y + 42.0 + n as f64 * ROW, ROW - 2.0));
        }
        if let Some(more) = lane.builds.len().checked_sub(ROWS_MAX + 1) {
            let more = more + 1;
            let _ = writeln!(
                out,
                "<text class=\"axis\" x=\"20\" y=\"{:.1}\">and {more} more builds at a time</text>",
                y + high - 6.0
            );
        }
        lane.beliefs.iter().for_each(|mark| self.tick(out, mark, y + high - 14.0));
        lane.marks.iter().for_each(|mark| self.mark(out, mark, y + 8.0));
        out.push_str("</g>\n");
    }

    fn bar(&self, out: &mut String, span: &Span, y: f64, high: f64) {
        let (x, to) = (self.x(span.from), self.x(span.to));
        let wide = (to - x).max(1.0);
        let (from, to) = (span.from.as_secs_f64(), span.to.as_secs_f64());
        let round = if high > 20.0 { 0 } else { 2 };
        let _ = write!(
            out,
            "<g><title>{from:.3} to {to:.3} s: {}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" \
             height=\"{high:.1}\" rx=\"{round}\" fill=\"{}\"/>",
            xml(&span.title),
            look(span.look).0
        );
        if wide > 7.0 * span.label.chars().count() as f64 && !span.label.is_empty() {
            let _ = write!(
                out,
                "<text class=\"in\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 3.0,
                y + high - 2.5,
                xml(&span.label)
            );
        }
        out.push_str("</g>\n");
    }

    fn tick(&self, out: &mut String, mark: &Mark, y: f64) {
        let x = self.x(mark.at);
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"1.6\" height=\"9\" fill=\"{}\"><title>{:.3} s: {}</title></rect>",
            x - 0.8,
            look(mark.look).0,
            mark.at.as_secs_f64(),
            xml(&mark.title)
        );
    }

    fn mark(&self, out: &mut String, mark: &Mark, y: f64) {
        let shape = shape(mark.look, self.x(mark.at), y);
        let _ = writeln!(
            out,
            "<path d=\"{shape}\" fill=\"{}\" stroke=\"#fff\" stroke-width=\".6\"><title>{:.3} s: {}</title></path>",
            look(mark.look).0,
            mark.at.as_secs_f64(),
            xml(&mark.title)
        );
    }
}

/// A triangle that points down for what strikes, up for what mends, a diamond for the rest.
fn shape(look: Look, x: f64, y: f64) -> String {
    match look {
        Look::Fault => format!("M{:.1} {:.1}h10l-5 9z", x - 5.0, y - 3.0),
        Look::End => format!("M{:.1} {:.1}h10l-5 -9z", x - 5.0, y + 6.0),
        _ => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 4.0),
    }
}

fn legend(out: &mut String, y: f64) {
    out.push_str("<g id=\"legend\">\n");
    let mut x = 20.0;
    let mut y = y;
    for kind in LEGEND {
        let (colour, text) = look(kind);
        if x > WIDTH - 190.0 {
            (x, y) = (20.0, y + 22.0);
        }
        match kind {
            Look::Fault | Look::End | Look::Work | Look::Skipped => {
                let _ = write!(out, "<path d=\"{}\" fill=\"{colour}\"/>", shape(kind, x + 8.0, y - 5.0));
            }
            Look::Alive | Look::Suspect | Look::Down => {
                let _ = write!(
                    out,
                    "<rect x=\"{}\" y=\"{}\" width=\"2\" height=\"10\" fill=\"{colour}\"/>",
                    x + 7.0,
                    y - 9.0
                );
            }
            _ => {
                let _ = write!(
                    out,
                    "<rect x=\"{x}\" y=\"{}\" width=\"16\" height=\"10\" rx=\"2\" fill=\"{colour}\" stroke=\"#cbd2d9\" \
                     stroke-width=\".5\"/>",
                    y - 9.0
                );
            }
        }
        let _ = writeln!(out, "<text class=\"axis\" x=\"{:.1}\" y=\"{y}\">{text}</text>", x + 22.0);
        x += 38.0 + 6.4 * text.chars().count() as f64;
    }
    out.push_str("</g>\n");
}
