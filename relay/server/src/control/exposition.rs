//! From the OpenMetrics text format to the text format of Prometheus (0.0.4), for readers that know no other. The two differ in how
//! families are named: OpenMetrics leaves `_total` and `_info` off, knows the type `info`, and ends in `# EOF`.

use std::collections::HashMap;
use std::fmt::Write;

/// The same metrics in the older format.
pub(super) fn plain(open: &str) -> String {
    let types: HashMap<&str, &str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        let comment = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        let Some((keyword, rest)) = comment else {
            if !line.starts_with('#') {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        };
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (suffix, kind) = match types.get(name) {
            Some(&"counter") => ("_total", "counter"),
            Some(&"info") => ("_info", "gauge"),
            Some(&"unknown") => ("", "untyped"),
            kind => ("", kind.copied().unwrap_or("untyped")),
        };
        let _ = match keyword {
            "HELP" => writeln!(text, "# HELP {name}{suffix} {rest}"),
            "TYPE" => writeln!(text, "# TYPE {name}{suffix} {kind}"),
            // `# UNIT` is of OpenMetrics alone.
            _ => Ok(()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_their_samples_are() {
        let open = "# HELP m_bytes Bytes, of all.\n# TYPE m_bytes counter\n# UNIT m_bytes bytes\n\
            m_bytes_total{way=\"a # b\"} 5\n# HELP m_up Now.\n# TYPE m_up gauge\nm_up 1.0\n\
            # HELP m_build What.\n# TYPE m_build info\nm_build_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP m_bytes_total Bytes, of all.\n# TYPE m_bytes_total counter\n\
            m_bytes_total{way=\"a # b\"} 5\n# HELP m_up Now.\n# TYPE m_up gauge\nm_up 1.0\n\
            # HELP m_build_info What.\n# TYPE m_build_info gauge\nm_build_info{v=\"1\"} 1\n";
        assert_eq!(plain(open), expected);
    }
}
