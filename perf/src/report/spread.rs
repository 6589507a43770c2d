//! Several runs of the same thing: the median, and how far they were apart.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Median, least and most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value; `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Spread { median, min, max })
    }
}

/// Three digits that count, as `0.0931 (0.0912–0.1044)`.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.median.abs() {
            value if value < 1.0 => 4,
            value if value < 10.0 => 2,
            value if value < 100.0 => 1,
            _ => 0,
        };
        let Spread { median, min, max } = self;
        f.pad(&format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_two() {
        let check = |values: &[f64], median: f64| {
            let spread = Spread::of(values.iter().copied()).unwrap();
            assert_eq!((spread.median, spread.min, spread.max), (median, 1.0, 9.0));
        };
        check(&[9.0, 1.0, 2.0], 2.0);
        check(&[9.0, 1.0, 2.0, 4.0], 3.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn digits_follow_the_size() {
        let text = |value: f64| Spread::of([value]).unwrap().to_string();
        assert_eq!(text(0.09312), "0.0931 (0.0931–0.0931)");
        assert_eq!(text(1.5), "1.50 (1.50–1.50)");
        assert_eq!(text(31_415.9), "31416 (31416–31416)");
    }
}
