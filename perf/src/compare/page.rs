//! A comparison as a page for people, with plots, and as one picture for documents.

use super::outcome::{Comparison, Outcome};
use super::row::Quantity;
use super::side::{COLUMNS, Side};
use crate::report::Measurement;
use crate::report::html::{Top, begin, end, put, put_bad, put_measurement, put_pull};
use crate::report::svg::{escape, stacked_bars, standalone};

/// A bar: its name, and its parts.
type Bar = (String, Vec<f64>);

/// The page: one file that needs nothing else.
pub(super) fn page(comparison: &Comparison) -> String {
    let mut page = begin(&Top {
        heading: "The relay beside others",
        machine: &comparison.machine,
        version: comparison.version,
        command: &comparison.command,
        bad: &comparison.failed,
        notes: &comparison.notes,
    });
    for outcome in &comparison.outcomes {
        put_outcome(&mut page, outcome);
    }
    end(page)
}

/// What a GB cost every server of every row; `None` where there is none.
pub(super) fn picture(comparison: &Comparison) -> Option<String> {
    let of_row = |outcome: &Outcome| {
        let named = |(name, cost)| (format!("{} {name}", outcome.name), cost);
        costs(&outcome.sides).into_iter().map(named).collect::<Vec<Bar>>()
    };
    let all: Vec<Bar> = comparison.outcomes.iter().flat_map(of_row).collect();
    (!all.is_empty()).then(|| standalone(&stacked_bars(&all, &["server", "load"], "CPU s/GB")))
}

fn put_outcome(page: &mut String, outcome: &Outcome) {
    put(page, &format!("<section><h2>{}: {}</h2>", escape(outcome.name), escape(outcome.about)));
    for verdict in &outcome.verdicts {
        let text = verdict.to_string().replace("**", "");
        if verdict.first_met {
            put(page, &format!("<p>{}</p>", escape(&text)));
        } else {
            put_bad(page, &text);
        }
    }
    put_sides(page, &outcome.sides);
    for doubt in outcome.sides.iter().flat_map(Side::doubts) {
        put(page, &format!("<p class='soft'>{}</p>", escape(&doubt)));
    }
    put(page, "</section>");
    for load in &outcome.loads {
        put_measurement(page, load);
    }
    for pull in &outcome.pulls {
        put_pull(page, pull);
    }
}

/// The table, and a bar for each side.
fn put_sides(page: &mut String, sides: &[Side]) {
    if sides.is_empty() {
        return;
    }
    let line = |tag: &str, cells: &[String]| {
        let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
        format!("<tr>{}</tr>", cells.collect::<String>())
    };
    put(page, "<div class='wide'><table>");
    put(page, &line("th", &COLUMNS.map(String::from)));
    sides.iter().for_each(|side| put(page, &line("td", &side.cells())));
    put(page, "</table></div>");
    let rates = sides
        .iter()
        .zip(names(sides))
        .filter_map(|(side, name)| Some((name, vec![side.spread(Measurement::throughput)?.median / 1e9])));
    for (heading, bars, parts, unit) in [
        ("CPU seconds per GB", costs(sides), &["server", "load"][..], "s/GB"),
        ("Throughput, GB/s", rates.collect(), &["throughput"][..], "GB/s"),
    ] {
        if !bars.is_empty() {
            put(page, &format!("<h3>{heading}</h3>"));
            put(page, &stacked_bars(&bars, parts, unit));
        }
    }
}

/// What a GB cost each side that has a process, and its load.
fn costs(sides: &[Side]) -> Vec<Bar> {
    let cost = |side: &Side| {
        let server = side.spread(|run| Quantity::ServerCpu.of(run)).map(|spread| spread.median);
        let server = server.filter(|cost| cost.is_finite())?;
        Some(vec![server, side.spread(|run| run.load_cpu.per_gb).map_or(0.0, |load| load.median)])
    };
    sides.iter().zip(names(sides)).filter_map(|(side, name)| Some((name, cost(side)?))).collect()
}

/// What tells the sides of a row apart: who they are, or else what they were asked.
fn names(sides: &[Side]) -> Vec<String> {
    let is_ambiguous = |side: &Side| sides.iter().filter(|other| other.title() == side.title()).count() > 1;
    let is_same = sides.iter().any(is_ambiguous);
    sides.iter().map(|side| if is_same { side.asked.clone() } else { side.title() }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::row::{Ask, Who};
    use super::super::rows::ROWS;
    use super::*;
    use crate::cores::Split;
    use crate::peers::nginx::Flavour;
    use crate::report::tests::sample;

    fn comparison(servers: &[(&str, Ask)]) -> Comparison {
        let cores = Split { server: vec![0], load: vec![1] };
        let side = |(name, ask): &(&str, Ask)| {
            let mut side = Side::new(Who::Nginx(Flavour::Sendfile), name, "1.0", ask.to_string(), &cores);
            side.runs = vec![sample(); 2];
            side
        };
        let mut comparison = Comparison::new(2);
        comparison.note("a < b");
        comparison.outcomes.push(Outcome::judge(&ROWS[0], servers.iter().map(side).collect()));
        comparison
    }

    #[test]
    fn the_page_has_table_plots_and_verdicts_and_asks_for_nothing() {
        let ask = Ask::Ranges { connections: 3, range_bytes: 1 << 20 };
        let page = page(&comparison(&[("ours", ask), ("<theirs>", ask)]));
        for part in [
            "P1: HTTP ranges",
            "a &lt; b",
            "&lt;theirs&gt; 1.0",
            "<th>CPU s/GB</th>",
            "class='bad'>server CPU",
        ] {
            assert!(page.contains(part), "no `{part}`: {page}");
        }
        assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (2, 2));
        for foreign in ["http:", "https:", "<script", "NaN", "src=", "**"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_picture_has_a_bar_for_each_side_by_what_tells_them_apart() {
        let ask = |connections| Ask::Ranges { connections, range_bytes: 1 << 20 };
        let of_one = picture(&comparison(&[("ours", ask(3)), ("ours", ask(4))])).unwrap();
        assert!(of_one.contains("P1 HTTP 3 × 1.0 MiB") && of_one.contains("P1 HTTP 4 × 1.0 MiB"), "{of_one}");
        let of_two = picture(&comparison(&[("ours", ask(3)), ("theirs", ask(3))])).unwrap();
        assert!(of_two.contains("P1 ours 1.0") && of_two.contains("P1 theirs 1.0"), "{of_two}");
        assert!(picture(&Comparison::new(1)).is_none());
    }
}
