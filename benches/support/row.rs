//! A line of the table: what was measured, against what, and how it compares with the goals.

use super::pairs::Samples;

/// What a figure should come to: at most these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// What is compared with the goal.
    pub(crate) judged: Judged,
    /// Within reach.
    pub(crate) reach: f64,
    /// What is aimed at.
    pub(crate) aim: f64,
}

/// Which number of a row is compared with its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// The measured value by that of the peer.
    Ratio,
    /// The measured value itself.
    Value,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was measured, of whom.
    pub(crate) figure: String,
    /// What it came to. NaN: it was not measured.
    pub(crate) value: f64,
    /// The unit of `value` and `peer_value`.
    pub(crate) unit: String,
    /// What it is compared with.
    pub(crate) peer: String,
    /// What that came to in the same run.
    pub(crate) peer_value: f64,
    /// The one by the other.
    pub(crate) ratio: f64,
    /// The goal, if the row is one of the project's figures.
    pub(crate) goal: Option<Goal>,
    /// Why something is missing.
    pub(crate) note: String,
}

impl Row {
    /// A figure that stands for itself.
    pub(crate) fn alone(figure: impl Into<String>, value: f64, unit: &str) -> Row {
        Row {
            figure: figure.into(),
            value,
            unit: unit.into(),
            peer: String::new(),
            peer_value: f64::NAN,
            ratio: f64::NAN,
            goal: None,
            note: String::new(),
        }
    }

    /// A figure that could not be measured, and why.
    pub(crate) fn missing(figure: impl Into<String>, note: impl Into<String>) -> Row {
        Row { note: note.into(), ..Row::alone(figure, f64::NAN, "") }
    }

    /// Compares the figure with a peer's.
    pub(crate) fn against(self, peer: impl Into<String>, peer_value: f64) -> Row {
        Row { peer: peer.into(), peer_value, ratio: self.value / peer_value, ..self }
    }

    /// Sets the goal of the figure's ratio.
    pub(crate) fn ratio_goal(self, reach: f64, aim: f64) -> Row {
        Row { goal: Some(Goal { judged: Judged::Ratio, reach, aim }), ..self }
    }

    /// Sets the goal of the figure itself.
    pub(crate) fn value_goal(self, reach: f64, aim: f64) -> Row {
        Row { goal: Some(Goal { judged: Judged::Value, reach, aim }), ..self }
    }

    /// What the measurement says about the goal.
    pub(crate) fn verdict(&self) -> &'static str {
        let Some(goal) = self.goal else { return "" };
        let judged = if goal.judged == Judged::Ratio { self.ratio } else { self.value };
        match judged {
            judged if judged.is_nan() => "not measured",
            judged if judged <= goal.aim => "aim",
            judged if judged <= goal.reach => "reached",
            _ => "MISSED",
        }
    }
}

/// A row for each contender, compared with `limit`. The first contender is greenling, and has the
/// goal, one for the ratio, if there is one.
pub(crate) fn compare(
    figure: &str,
    unit: &str,
    samples: &[Samples],
    limit: &str,
    goal: Option<(f64, f64)>,
) -> Vec<Row> {
    let base = samples.iter().find(|s| s.name == limit).expect("the limit is a contender");
    let others = samples.iter().filter(|samples| samples.name != limit);
    let mut rows: Vec<Row> = others
        .map(|samples| Row {
            peer: limit.into(),
            peer_value: base.median(),
            ratio: samples.ratio_to(base),
            ..Row::alone(format!("{figure}: {}", samples.name), samples.median(), unit)
        })
        .collect();
    if let (Some((reach, aim)), Some(first)) = (goal, rows.first().cloned()) {
        rows[0] = first.ratio_goal(reach, aim);
    }
    rows
}
