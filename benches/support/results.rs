//! Results on their way from the benches to the table, and the table.
//!
//! Each bench is a process, so it leaves its rows in a file below `target`, marked with the run:
//! the cargo that started it. The table shows no row of another run.

use std::fs;
use std::os::unix::process::parent_id;
use std::path::PathBuf;

use super::row::{Goal, Judged, Row};

/// Where results are kept: `greenling-bench` in the target directory.
pub(crate) fn directory() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program is known");
    // target/release/deps/switch-0123456789abcdef
    let target = this.ancestors().nth(3).expect("cargo puts benches three levels deep");
    let directory = target.join("greenling-bench");
    fs::create_dir_all(&directory).expect("the target directory can be written");
    directory
}

/// Keeps the rows of a bench for the table, and shows them.
pub(crate) fn publish(bench: &str, rows: &[Row]) {
    let lines: String = rows.iter().map(to_line).collect();
    let path = directory().join(bench).with_extension("tsv");
    fs::write(path, run() + "\n" + &lines).expect("the target directory can be written");
    println!("\n{}", table(rows));
}

/// The rows that a bench has left in this run.
pub(crate) fn collect(bench: &str) -> Option<Vec<Row>> {
    let text = fs::read_to_string(directory().join(bench).with_extension("tsv")).ok()?;
    let (header, lines) = text.split_once('\n')?;
    (header == run()).then(|| lines.lines().filter_map(from_line).collect())
}

/// Names the run this process belongs to: its parent, and when that was started.
fn run() -> String {
    let parent = parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    // The name in the second field may contain anything, even brackets.
    let start = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    format!("{parent} {}", start.unwrap_or_default())
}

/// A row as a line of a file.
fn to_line(row: &Row) -> String {
    let goal = match row.goal {
        None => ["".into(), "".into(), "".into()],
        Some(Goal { judged, reach, aim }) => {
            [format!("{judged:?}"), reach.to_string(), aim.to_string()]
        }
    };
    let numbers = [row.value, row.peer_value, row.ratio].map(|number| number.to_string());
    let texts = [&row.figure, &row.unit, &row.peer, &row.note].map(String::clone);
    [&numbers[..], &texts[..], &goal[..]].concat().join("\t") + "\n"
}

/// Reads what `to_line` has written.
fn from_line(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [value, peer_value, ratio, figure, unit, peer, note, judged, reach, aim] = fields[..]
    else {
        return None;
    };
    let judged = if judged == "Ratio" { Judged::Ratio } else { Judged::Value };
    let goal = reach.parse().ok().zip(aim.parse().ok());
    Some(Row {
        figure: figure.into(),
        value: value.parse().ok()?,
        unit: unit.into(),
        peer: peer.into(),
        peer_value: peer_value.parse().ok()?,
        ratio: ratio.parse().ok()?,
        goal: goal.map(|(reach, aim)| Goal { judged, reach, aim }),
        note: note.into(),
    })
}

/// The rows as text, in columns.
pub(crate) fn table(rows: &[Row]) -> String {
    let header = ["figure", "measured", "against", "its value", "ratio", "reach", "aim", "verdict"];
    let mut cells = vec![header.map(String::from)];
    cells.extend(rows.iter().map(|row| {
        let goal = |number: fn(&Goal) -> f64| {
            row.goal.as_ref().map_or_else(String::new, |goal| match goal.judged {
                Judged::Ratio => format!("{}x", number(goal)),
                Judged::Value => number(goal).to_string(),
            })
        };
        let verdict = [row.verdict(), &row.note].join(" ").trim().to_string();
        [
            row.figure.clone(),
            with_unit(row.value, &row.unit),
            row.peer.clone(),
            with_unit(row.peer_value, &row.unit),
            if row.ratio.is_nan() { String::new() } else { format!("{:.2}x", row.ratio) },
            goal(|goal| goal.reach),
            goal(|goal| goal.aim),
            verdict,
        ]
    }));
    let widths: [usize; 8] = std::array::from_fn(|column| {
        cells.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for (line, cells) in cells.iter().enumerate() {
        // Words to the left, numbers to the right.
        let columns = std::array::from_fn::<_, 8, _>(|column| match column {
            0 | 2 | 7 => format!("{:<1$}", cells[column], widths[column]),
            _ => format!("{:>1$}", cells[column], widths[column]),
        });
        text += &format!("| {} |\n", columns.join(" | "));
        if line == 0 {
            let rules = widths.map(|width| "-".repeat(width));
            text += &format!("| {} |\n", rules.join(" | "));
        }
    }
    text
}

/// A number with three digits or more, and its unit.
fn with_unit(number: f64, unit: &str) -> String {
    if number.is_nan() {
        return String::new();
    }
    let digits = match number.abs() {
        0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$} {unit}").trim_end().to_string()
}
