//! The end of `cargo bench`: one table of what the other benches have measured in this run.
//!
//! cargo runs benches in the order of their names, and this is the last. It measures nothing
//! itself; a bench that did not run is named below the table, never filled in from an older run.

mod support;

use support::mode::Mode;
use support::results;

/// The benches, in the order in which the table shows them.
const BENCHES: [&str; 5] = ["switch", "spawn", "memory", "timers", "echo"];

fn main() {
    let mode = Mode::of_this_run();
    if mode == Mode::Test {
        return;
    }
    let collected = BENCHES.map(|bench| (bench, results::collect(bench)));
    let rows: Vec<_> =
        collected.iter().flat_map(|(_, rows)| rows.clone().unwrap_or_default()).collect();
    println!("\nMeasured in this run; ratios are medians over rounds in which all took turns.");
    println!("A figure reaches its goal by being at most that.\n");
    println!("{}", results::table(&rows));
    for (bench, _) in collected.iter().filter(|(_, rows)| rows.is_none()) {
        println!("`{bench}` was not measured in this run.");
    }
    if mode == Mode::Quick {
        println!("A quick run: small sizes and few rounds. Its figures prove nothing.");
    }
    println!("The tables, the curve and its plot are in {}", results::directory().display());
}
