//! How thorough a run is: `cargo bench`, `cargo bench -- --quick`, or `cargo test --all-targets`,
//! which is no measurement at all.

use std::time::Duration;

use criterion::Criterion;

/// How thorough a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All sizes, and as many rounds as the medians need.
    Full,
    /// Small sizes and few rounds, to see that everything works.
    Quick,
    /// Every criterion bench once, and no figures: cargo runs benches like this as tests.
    Test,
}

impl Mode {
    /// The mode this process was started in.
    pub(crate) fn of_this_run() -> Mode {
        let has = |flag: &str| std::env::args().any(|argument| argument == flag);
        match (has("--bench"), has("--quick")) {
            (false, _) => Mode::Test,
            (true, true) => Mode::Quick,
            (true, false) => Mode::Full,
        }
    }

    /// `full` in a full run, else `quick`.
    pub(crate) fn pick<T>(self, full: T, quick: T) -> T {
        if self == Mode::Full { full } else { quick }
    }
}

/// Criterion with short measurements: its reports are for the eye, and the table's figures come
/// from interleaved pairs.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(10)
        .without_plots()
        .configure_from_args()
}
