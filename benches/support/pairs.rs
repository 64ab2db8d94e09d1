//! Comparing contenders on a noisy machine: they take turns, and medians speak.

/// One of those that are compared: its name, and one measurement of it.
pub(crate) struct Contender<'a> {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Measures once. NaN if it failed.
    pub(crate) measure: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender that is measured by calling `measure`.
    pub(crate) fn new(name: &'static str, measure: impl FnMut() -> f64 + 'a) -> Contender<'a> {
        Contender { name, measure: Box::new(measure) }
    }
}

/// What a contender's measurements were, one for each round.
pub(crate) struct Samples {
    /// The contender.
    pub(crate) name: &'static str,
    /// In the order of the rounds.
    pub(crate) values: Vec<f64>,
}

impl Samples {
    /// The median of the measurements.
    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }

    /// The median of the rounds' ratios: what disturbed a round disturbed both of its halves.
    pub(crate) fn ratio_to(&self, other: &Samples) -> f64 {
        let ratios = self.values.iter().zip(&other.values).map(|(own, other)| own / other);
        median(&ratios.collect::<Vec<_>>())
    }
}

/// Measures every contender once in each round, in every second round in the opposite order.
pub(crate) fn interleave(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Vec<Samples> {
    let mut samples: Vec<_> =
        contenders.iter().map(|c| Samples { name: c.name, values: Vec::new() }).collect();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let index = if round % 2 == 0 { turn } else { contenders.len() - 1 - turn };
            let value = (contenders[index].measure)();
            samples[index].values.push(value);
        }
    }
    samples
}

/// The median of what was measured; NaN if nothing was.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}
