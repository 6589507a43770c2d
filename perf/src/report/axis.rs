//! The axes of a plot: values to shares of its length, and round values to write beside it.

/// The values of one direction.
pub(super) enum Axis {
    /// From 0.
    Linear(f64),
    Logarithmic(f64, f64),
}

impl Axis {
    pub(super) fn linear(most: f64) -> Self {
        Axis::Linear(if most > 0.0 { most * 1.05 } else { 1.0 })
    }

    pub(super) fn logarithmic(least: f64, most: f64) -> Self {
        let least = least.max(1e-6);
        Axis::Logarithmic(least, most.max(least * 1.1))
    }

    /// 0 at one end, 1 at the other.
    pub(super) fn share(&self, value: f64) -> f64 {
        match self {
            Axis::Linear(most) => value / most,
            Axis::Logarithmic(least, most) => (value.max(*least) / least).ln() / (most / least).ln(),
        }
    }

    /// Round values to write down.
    pub(super) fn ticks(&self) -> Vec<f64> {
        match self {
            Axis::Linear(most) => {
                let rough = most / 4.0;
                let power = 10f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .map(|factor| factor * power)
                    .into_iter()
                    .find(|step| *step >= rough);
                let step = step.unwrap_or(rough);
                (0..=6).map(|count| f64::from(count) * step).filter(|tick| tick <= most).collect()
            }
            Axis::Logarithmic(least, most) => {
                let all: Vec<f64> = (-6..=9)
                    .flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power)))
                    .filter(|tick| tick >= least && tick <= most)
                    .collect();
                // Over many decades only the powers of ten.
                if all.len() > 10 {
                    all.into_iter()
                        .filter(|tick| (tick.log10() - tick.log10().round()).abs() < 1e-9)
                        .collect()
                } else {
                    all
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(Axis::linear(0.37).ticks(), [0.0, 0.1, 0.2, 0.30000000000000004]);
        assert_eq!(Axis::logarithmic(0.8, 60.0).ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(Axis::logarithmic(0.01, 5000.0).ticks().len(), 6);
    }
}
