//! The plots of the HTML page, as SVG text that takes its colours from the page's style sheet, so that they suit light and dark alike.

use std::fmt::Write as _;

use super::axis::Axis;

/// Size of a plot, in pixels of its own coordinates.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;

/// Room for the numbers of the axes.
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 36.0;
const TOP: f64 = 12.0;
const RIGHT: f64 = 16.0;

/// Height of one horizontal bar with its room.
const ROW: f64 = 30.0;

/// Least room for the names of horizontal bars, and room for one letter of them.
const NAMES: f64 = 250.0;
const LETTER: f64 = 6.6;

/// Room for one name of a legend.
const LEGEND: f64 = 175.0;

/// Text that is safe in HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, letter| {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter => escaped.push(letter),
        }
        escaped
    })
}

/// A number with as many decimals as it needs.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Horizontal bars of stacked parts: a name, and the parts from left to right. `parts` names them, in the order of the classes `a`, `b`.
pub(crate) fn stacked_bars(rows: &[(String, Vec<f64>)], parts: &[&str], unit: &str) -> String {
    let most = rows.iter().map(|(_, values)| values.iter().sum::<f64>()).fold(0.0, f64::max);
    let height = ROW * len(rows.len()) + 40.0;
    let letters = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let names = NAMES.max(LETTER * len(letters) + 12.0);
    let mut svg = open(WIDTH - NAMES + names, height, &format!("{unit} by workload"));
    let scale = (WIDTH - NAMES - 70.0) / most.max(f64::MIN_POSITIVE);
    for (index, (name, values)) in rows.iter().enumerate() {
        let y = ROW * len(index) + 6.0;
        put(
            &mut svg,
            &format!("<text x='{:.1}' y='{:.1}' class='name'>{}</text>", names - 8.0, y + 13.0, escape(name)),
        );
        let mut x = names;
        for (part, value) in values.iter().enumerate() {
            let (class, width) = (class(part), value * scale);
            put(
                &mut svg,
                &format!(
                    "<rect x='{x:.1}' y='{y:.1}' width='{width:.1}' height='18' class='{class}'><title>{} {} {unit}</title></rect>",
                    escape(parts.get(part).copied().unwrap_or_default()),
                    number(*value),
                ),
            );
            x += width;
        }
        let sum = number(values.iter().sum());
        put(&mut svg, &format!("<text x='{:.1}' y='{:.1}'>{sum}</text>", x + 6.0, y + 13.0));
    }
    let y = height - 12.0;
    for (part, name) in parts.iter().enumerate() {
        let x = names + 130.0 * len(part);
        put(
            &mut svg,
            &format!("<rect x='{x:.1}' y='{:.1}' width='10' height='10' class='{}'/>", y - 9.0, class(part)),
        );
        put(&mut svg, &format!("<text x='{:.1}' y='{y:.1}'>{}</text>", x + 15.0, escape(name)));
    }
    svg + "</svg>"
}

/// Upright bars between edges on a logarithmic axis.
pub(crate) fn histogram(bars: &[(f64, u64)], axis: &str) -> String {
    let (Some((first, _)), Some((last, _))) = (bars.first(), bars.last()) else { return String::new() };
    let plot = Plot { x: Axis::logarithmic(*first * 0.9, *last), y: Axis::linear(highest(bars)) };
    let mut svg = plot.frame(axis, "answers");
    let mut from = *first * 0.9;
    for (edge, count) in bars {
        let (left, right) = (plot.at_x(from), plot.at_x(*edge));
        let top = plot.at_y(float(*count));
        put(
            &mut svg,
            &format!(
                "<rect x='{left:.1}' y='{top:.1}' width='{:.1}' height='{:.1}' class='a'><title>up to {} {axis}: {count}</title></rect>",
                (right - left - 0.5).max(0.5),
                HEIGHT - BOTTOM - top,
                number(*edge),
            ),
        );
        from = *edge;
    }
    svg + "</svg>"
}

/// Lines through points, each with a name.
pub(crate) fn lines(series: &[(&str, Vec<(f64, f64)>)], x: &str, y: &str, logarithmic: bool) -> String {
    let points = || series.iter().flat_map(|(_, points)| points);
    let most = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(0.0, f64::max);
    let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    if points().count() < 2 {
        return String::new();
    }
    let x_axis = if logarithmic {
        Axis::logarithmic(least.max(0.5), most(|point| point.0))
    } else {
        Axis::linear(most(|point| point.0))
    };
    let plot = Plot { x: x_axis, y: Axis::linear(most(|point| point.1)) };
    let mut svg = plot.frame(x, y);
    for (index, (name, points)) in series.iter().enumerate() {
        let path: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", plot.at_x(*x), plot.at_y(*y))).collect();
        let class = class(index);
        put(&mut svg, &format!("<polyline points='{}' class='line {class}-line'/>", path.join(" ")));
        if points.len() <= 40 {
            for (x, y) in points {
                put(
                    &mut svg,
                    &format!(
                        "<circle cx='{:.1}' cy='{:.1}' r='3.5' class='{class}'><title>{}: {}</title></circle>",
                        plot.at_x(*x),
                        plot.at_y(*y),
                        escape(name),
                        number(*y),
                    ),
                );
            }
        }
        if series.len() > 1 {
            let x = LEFT + 10.0 + LEGEND * len(index);
            put(&mut svg, &format!("<rect x='{x:.1}' y='{TOP}' width='10' height='10' class='{class}'/>"));
            put(&mut svg, &format!("<text x='{:.1}' y='{:.1}'>{}</text>", x + 15.0, TOP + 9.0, escape(name)));
        }
    }
    svg + "</svg>"
}

/// From values to pixels.
struct Plot {
    x: Axis,
    y: Axis,
}

impl Plot {
    fn at_x(&self, value: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * self.x.share(value)
    }

    fn at_y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * self.y.share(value)
    }

    fn frame(&self, x: &str, y: &str) -> String {
        let mut svg = open(WIDTH, HEIGHT, &format!("{y} by {x}"));
        let (right, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in self.y.ticks() {
            let at = self.at_y(tick);
            put(
                &mut svg,
                &format!("<line x1='{LEFT}' x2='{right}' y1='{at:.1}' y2='{at:.1}' class='grid'/>"),
            );
            put(
                &mut svg,
                &format!(
                    "<text x='{:.1}' y='{:.1}' class='name'>{}</text>",
                    LEFT - 6.0,
                    at + 4.0,
                    number(tick)
                ),
            );
        }
        for tick in self.x.ticks() {
            let at = self.at_x(tick);
            put(
                &mut svg,
                &format!(
                    "<line x1='{at:.1}' x2='{at:.1}' y1='{floor}' y2='{:.1}' class='axis'/>",
                    floor + 4.0
                ),
            );
            put(
                &mut svg,
                &format!("<text x='{at:.1}' y='{:.1}' class='middle'>{}</text>", floor + 17.0, number(tick)),
            );
        }
        put(&mut svg, &format!("<line x1='{LEFT}' x2='{right}' y1='{floor}' y2='{floor}' class='axis'/>"));
        let middle = f64::midpoint(LEFT, right);
        put(
            &mut svg,
            &format!(
                "<text x='{middle:.1}' y='{:.1}' class='middle soft'>{}</text>",
                HEIGHT - 3.0,
                escape(x)
            ),
        );
        svg
    }
}

/// A plot as a picture of its own, with the colours that the page would have given it.
pub(crate) fn standalone(svg: &str) -> String {
    let style = "<style>text { font: 12px system-ui, sans-serif; fill: #5b6b7b; } .name { text-anchor: end; } .middle { text-anchor: middle; } \
                 .grid { stroke: #cfd6dd; } .axis { stroke: #5b6b7b; } .line { fill: none; stroke-width: 2; } \
                 .a { fill: #3f83cc; } .b { fill: #dd7a2f; } .c { fill: #2f8f6b; } .d { fill: #8a5cc2; } \
                 .a-line { stroke: #3f83cc; } .b-line { stroke: #dd7a2f; } .c-line { stroke: #2f8f6b; } .d-line { stroke: #8a5cc2; }</style>";
    let svg = svg.replacen("<svg ", "<svg xmlns='http://www.w3.org/2000/svg' ", 1);
    svg.replacen('>', &format!(">{style}"), 1) + "\n"
}

fn open(width: f64, height: f64, title: &str) -> String {
    format!("<svg viewBox='0 0 {width} {height}' role='img' aria-label='{}'>", escape(title))
}

fn put(svg: &mut String, element: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{element}");
}

fn class(index: usize) -> char {
    ['a', 'b', 'c', 'd'][index % 4]
}

fn highest(bars: &[(f64, u64)]) -> f64 {
    float(bars.iter().map(|(_, count)| *count).max().unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "a plot is no exact number")]
fn float(count: u64) -> f64 {
    count as f64
}

fn len(count: usize) -> f64 {
    float(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(svg: &str) {
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn plots_have_no_absurd_coordinates() {
        check(&stacked_bars(
            &[("a <b>".into(), vec![1.0, 2.0]), ("zero".into(), vec![0.0, 0.0])],
            &["x", "y"],
            "s/GB",
        ));
        check(&stacked_bars(&[], &[], "s/GB"));
        check(&histogram(&[(0.1, 5), (1.0, 0), (10.0, 7)], "ms"));
        check(&histogram(&[(0.001, 1)], "ms"));
        check(&lines(&[("one", vec![(1.0, 0.0), (100.0, 0.0)])], "x", "y", true));
        check(&lines(&[("one", vec![(0.0, 3.0), (2.0, 4.0)]), ("two", vec![(1.0, 1.0)])], "x", "y", false));
        assert!(lines(&[("one", vec![(0.0, 3.0)])], "x", "y", false).is_empty(), "a point is no line");
        assert!(histogram(&[], "ms").is_empty());
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
        assert_eq!(
            (number(1234.5), number(0.1), number(2.0), number(0.0)),
            ("1234".into(), "0.1".into(), "2".into(), "0".into())
        );
    }
}
