//! Line charts as SVG: no script, no library, the same in every browser.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
/// Room for the labels: left, right, top, bottom.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 36.0;

/// One line.
pub(super) struct Series<'s> {
    pub name: &'s str,
    /// A CSS colour.
    pub colour: &'s str,
    /// Where it goes; `x` rises.
    pub points: Vec<(f64, f64)>,
}

/// An axis: how its values are shown, and where its marks are.
pub(super) struct Axis<'a> {
    pub title: &'a str,
    pub show: &'a dyn Fn(f64) -> String,
    /// Decades in place of even steps.
    pub log: bool,
}

/// Draws lines over common axes; the vertical one begins at 0, or at the decade below the least value.
pub(super) fn chart(x: &Axis<'_>, y: &Axis<'_>, series: &[Series<'_>]) -> String {
    let all = || series.iter().flat_map(|line| &line.points);
    let range = |of: fn(&(f64, f64)) -> f64, log: bool| {
        let (low, high) = all().map(of).fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            // No points.
            (if log { 1.0 } else { 0.0 }, 10.0)
        } else if log {
            let low = 10_f64.powf(low.max(1e-9).log10().floor());
            (low, 10_f64.powf(high.max(low * 10.0).log10().ceil()))
        } else {
            (0.0, if high > 0.0 { nice(high) } else { 1.0 })
        }
    };
    let ((x0, x1), (y0, y1)) = (range(|p| p.0, x.log), range(|p| p.1, y.log));
    let x1 = if x.log { x1 } else { all().map(|p| p.0).fold(0.0, f64::max).max(1e-9) };
    let along = |value: f64, (low, high): (f64, f64), log: bool| {
        let part =
            if log { (value.max(low) / low).log10() / (high / low).log10() } else { (value - low) / (high - low) };
        part.clamp(0.0, 1.0)
    };
    let at_x = |value| LEFT + along(value, (x0, x1), x.log) * (WIDTH - LEFT - RIGHT);
    let at_y = |value| HEIGHT - BOTTOM - along(value, (y0, y1), y.log) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(y.title));
    for mark in marks(y0, y1, y.log) {
        let (at, right) = (at_y(mark), WIDTH - RIGHT);
        let _ = write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let text = escape(&(y.show)(mark));
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 8.0, at + 4.0);
    }
    for mark in marks(x0, x1, x.log) {
        let (at, text) = (at_x(mark), escape(&(x.show)(mark)));
        let y = HEIGHT - BOTTOM + 16.0;
        let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>");
    }
    let _ = write!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"14\">{}</text>", escape(y.title));
    let middle = LEFT.midpoint(WIDTH - RIGHT);
    let _ =
        write!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 4.0, escape(x.title));
    for (n, line) in series.iter().enumerate() {
        let points: Vec<_> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y))).collect();
        let (colour, points) = (escape(line.colour), points.join(" "));
        let _ = write!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{points}\"/>");
        let at = WIDTH - RIGHT - 110.0 * (series.len() - n) as f64;
        let _ = write!(svg, "<rect x=\"{at}\" y=\"6\" width=\"10\" height=\"10\" fill=\"{colour}\"/>");
        let _ = write!(svg, "<text x=\"{}\" y=\"15\">{}</text>", at + 15.0, escape(line.name));
    }
    svg.push_str("</svg>");
    svg
}

/// The next number of one digit, or 1.5 or 2.5 times a power of ten.
fn nice(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * decade).find(|nice| *nice >= value).unwrap_or(value)
}

fn marks(low: f64, high: f64, log: bool) -> Vec<f64> {
    if log {
        std::iter::successors(Some(low), |mark| Some(mark * 10.0)).take_while(|mark| *mark <= high * 1.001).collect()
    } else {
        (0..=4).map(|n| low + (high - low) * f64::from(n) / 4.0).collect()
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_point_is_inside_and_marks_surround_it() {
        for (value, wanted) in [(1.0, 1.0), (1.2, 1.5), (91.0, 100.0), (0.034, 0.04), (2400.0, 2500.0)] {
            assert!((nice(value) - wanted).abs() < 1e-9, "{value}: {}", nice(value));
        }
        assert_eq!(marks(1.0, 1000.0, true).len(), 4);
        assert_eq!(marks(0.0, 8.0, false), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn lines_without_points_are_drawn_as_nothing() {
        let show = |value: f64| format!("{value}");
        let axis = |log| Axis { title: "a <title>", show: &show, log };
        for log in [false, true] {
            let svg = chart(&axis(log), &axis(log), &[Series { name: "n", colour: "red", points: Vec::new() }]);
            assert!(svg.contains("a &lt;title&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
