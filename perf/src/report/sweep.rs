//! What a byte costs against the number of connections: the plots of a sweep, in the page, and as a picture for documents.

use super::Measurement;
use super::svg::{lines, standalone};

/// Fewer points are no course.
pub(crate) const POINTS_MIN: usize = 3;

/// Points of one plot: connections, and the value.
type Points = Vec<(f64, f64)>;

/// What was swept, by what was asked: CPU seconds of the server for each GB, and GB a second. Nothing where too little was.
struct Swept<'a> {
    costs: Vec<(&'a str, Points)>,
    rates: Vec<(&'a str, Points)>,
}

impl<'a> Swept<'a> {
    fn of(measurements: &'a [Measurement]) -> Option<Self> {
        let mut swept = Swept { costs: Vec::new(), rates: Vec::new() };
        for measurement in measurements {
            let (Some(asked), Some(cost)) = (&measurement.swept, measurement.server_cpu) else { continue };
            let connections = exact(measurement.connections);
            put(&mut swept.costs, asked, (connections, cost.per_gb));
            put(&mut swept.rates, asked, (connections, measurement.throughput() / 1e9));
        }
        swept.costs.iter().any(|(_, points)| points.len() >= POINTS_MIN).then_some(swept)
    }
}

fn put<'a>(series: &mut Vec<(&'a str, Points)>, name: &'a str, point: (f64, f64)) {
    let known = series.iter().position(|(known, _)| *known == name);
    let at = known.unwrap_or_else(|| {
        series.push((name, Vec::new()));
        series.len() - 1
    });
    let points = &mut series[at].1;
    points.push(point);
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
}

/// The plots, each with its heading; empty where nothing was swept.
pub(super) fn plots(measurements: &[Measurement]) -> Vec<(&'static str, String)> {
    let Some(Swept { costs, rates }) = Swept::of(measurements) else { return Vec::new() };
    vec![
        ("Server CPU seconds per GB", lines(&costs, "connections", "s/GB", true)),
        ("Throughput, GB/s", lines(&rates, "connections", "GB/s", true)),
    ]
}

/// The cost as a picture that needs no page around it; `None` where nothing was swept.
pub(crate) fn picture(measurements: &[Measurement]) -> Option<String> {
    let Swept { costs, .. } = Swept::of(measurements)?;
    Some(standalone(&lines(&costs, "connections", "server CPU, s/GB", true)))
}

#[expect(clippy::cast_precision_loss, reason = "a plot is no exact number")]
fn exact(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    fn swept(asked: &str, connections: &[u64]) -> Vec<Measurement> {
        let one = |connections: &u64| Measurement {
            connections: *connections,
            swept: Some(asked.to_owned()),
            ..sample()
        };
        connections.iter().map(one).collect()
    }

    #[test]
    fn each_workload_is_a_line_of_its_own_in_order_of_connections() {
        let measurements = [swept("HTTP", &[100, 1, 10]), swept("BitTorrent", &[1, 1000])].concat();
        let all = Swept::of(&measurements).unwrap();
        let connections = |points: &Points| points.iter().map(|point| point.0).collect::<Vec<_>>();
        assert_eq!((all.costs[0].0, connections(&all.costs[0].1)), ("HTTP", vec![1.0, 10.0, 100.0]));
        assert_eq!((all.costs[1].0, connections(&all.costs[1].1)), ("BitTorrent", vec![1.0, 1000.0]));
        let picture = picture(&measurements).unwrap();
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert!(picture.starts_with("<svg xmlns=") && picture.contains("<style>"), "{picture}");
    }

    #[test]
    fn what_is_no_sweep_has_no_plot() {
        assert!(plots(&[sample(), sample(), sample()]).is_empty());
        assert!(picture(&swept("HTTP", &[1, 2])).is_none());
    }
}
