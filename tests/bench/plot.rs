//! The picture in `docs/performance.md`: time from empty to done over the number of peers, both axes
//! logarithmic, so that what grows in proportion is a line of slope one.

use std::fmt::Write as _;

use crate::cluster::Stack;
use crate::program::Programmed;
use crate::samples::Samples;
use crate::table::thousands;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// Of the plotting area.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 390.0;

/// One line of the plot.
struct Line {
    name: &'static str,
    colour: &'static str,
    of: fn(&Programmed) -> &Samples,
}

const LINES: [Line; 5] = [
    Line { name: "flannel's requests, a socket each", colour: "#b45309", of: |it| &it.flannel_sockets.wall },
    Line { name: "flannel's requests, one socket", colour: "#d97706", of: |it| &it.flannel.wall },
    Line { name: "weft, proved by another look", colour: "#1d4ed8", of: |it| &it.proved.wall },
    Line { name: "weft, last write acknowledged", colour: "#3b82f6", of: |it| &it.written.wall },
    Line { name: "floor: the bare messages", colour: "#6b7280", of: |it| &it.floor.wall },
];

/// The picture of the IPv4 figures; `None` for fewer than two sizes.
pub(crate) fn svg(all: &[Programmed]) -> Option<String> {
    let points: Vec<&Programmed> = all.iter().filter(|it| it.stack == Stack::V4).collect();
    let (first, last) = (points.first()?, points.last()?);
    if first.size == last.size {
        return None;
    }
    let medians = || LINES.iter().flat_map(|line| points.iter().map(|it| (line.of)(it)));
    let least = medians().map(Samples::min).fold(f64::INFINITY, f64::min);
    let most = medians().map(Samples::max).fold(0.0, f64::max);
    let x = Axis { from: f64::from(first.size), to: f64::from(last.size), low: LEFT, high: RIGHT };
    let y = Axis { from: ten_to(least.log10().floor()), to: ten_to(most.log10().ceil()), low: BOTTOM, high: TOP };
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"26\" \
         font-size=\"16\">From empty tables to done, IPv4</text>"
    );
    grid(&mut svg, &x, &y, &points);
    for line in &LINES {
        draw(&mut svg, line, &x, &y, &points);
    }
    names(&mut svg, &y, last);
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A logarithmic axis, in the picture's units from `low` to `high`.
struct Axis {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        self.low + (self.high - self.low) * (value / self.from).ln() / (self.to / self.from).ln()
    }
}

fn ten_to(power: f64) -> f64 {
    10_f64.powf(power)
}

fn grid(svg: &mut String, x: &Axis, y: &Axis, points: &[&Programmed]) {
    let mut value = y.from;
    while value <= y.to * 1.01 {
        let at = y.at(value);
        let label = if value >= 1000.0 { format!("{} s", value / 1000.0) } else { format!("{value} ms") };
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" stroke=\"#e5e7eb\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#374151\">{label}</text>",
            LEFT - 8.0,
            at + 4.0
        );
        value *= 10.0;
    }
    for point in points {
        let at = x.at(f64::from(point.size));
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{BOTTOM}\" stroke=\"#f3f4f6\"/>\n\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#374151\">{}</text>",
            BOTTOM + 20.0,
            thousands(u64::from(point.size))
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#374151\">peers</text>",
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 40.0
    );
}

/// A line through the medians; a bar from the least to the greatest at each.
fn draw(svg: &mut String, line: &Line, x: &Axis, y: &Axis, points: &[&Programmed]) {
    let colour = line.colour;
    let mut path = String::new();
    for point in points {
        let samples = (line.of)(point);
        let (across, up) = (x.at(f64::from(point.size)), y.at(samples.median()));
        let _ = write!(path, "{across:.1},{up:.1} ");
        let _ = writeln!(
            svg,
            "<line x1=\"{across:.1}\" y1=\"{:.1}\" x2=\"{across:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\n\
             <circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"{colour}\"/>",
            y.at(samples.min()),
            y.at(samples.max())
        );
    }
    let _ =
        writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.trim());
}

/// Each line's name at its right end, none over another.
fn names(svg: &mut String, y: &Axis, last: &Programmed) {
    let mut free = 0.0_f64;
    for line in &LINES {
        let median = (line.of)(last).median();
        let at = (y.at(median) + 4.0).max(free);
        free = at + 17.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{at:.1}\" font-size=\"12\" fill=\"{}\">{} ({median:.0} ms)</text>",
            RIGHT + 10.0,
            line.colour,
            line.name
        );
    }
}
