//! What greenlets cost by the number: memory while they are parked, and the time to spawn, park,
//! wake and join them, from one to a million.
//!
//! Every size of every runtime is a process of its own, which measures all of itself: the memory
//! that is resident and the page tables that map it. It does everything twice, on stacks that
//! nobody has touched and on the same ones, warm. A runtime that can't go as far ends its curve
//! there. Leaves the curve, as numbers and as a plot, in the target directory.

mod parked;
mod plot;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write;

use support::mode::{self, Mode};
use support::row::Row;
use support::{child, results};

/// One size of one runtime.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// Which runtime: a name out of [`parked::RUNTIMES`].
    pub(crate) runtime: &'static str,
    /// How many were parked.
    pub(crate) count: usize,
    /// Memory of one that is parked, in bytes.
    pub(crate) bytes: f64,
    /// Time of one, in nanoseconds, on untouched stacks.
    pub(crate) cold: f64,
    /// Time of one, in nanoseconds, on warm stacks.
    pub(crate) warm: f64,
}

fn main() {
    if let Some(arguments) = child::arguments() {
        let [runtime, count] = &arguments[..] else { panic!("runtime and count are missing") };
        let count = count.parse().expect("the count is a number");
        return parked::measure(runtime, count);
    }
    let mut criterion = mode::criterion();
    let mut group = criterion.benchmark_group("spawn, park, wake and join");
    for count in [1, 1_000] {
        group.bench_function(format!("greenling, {count} at once"), |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations.div_ceil(count as u64))
                    .map(|_| parked::greenlets(count).time())
                    .sum()
            });
        });
    }
    group.finish();
    criterion.final_summary();

    let mode = Mode::of_this_run();
    if mode == Mode::Test {
        return;
    }
    let largest = mode.pick(1_000_000, 10_000);
    let points = curve(largest);
    let directory = results::directory();
    std::fs::write(directory.join("curve.csv"), csv(&points)).expect("target can be written");
    let plot = directory.join("curve.svg");
    plot::draw(&plot, &points).expect("a plot of positive numbers can be drawn");
    println!("\nThe curve is in {}, with its numbers beside it in curve.csv.", plot.display());
    results::publish("memory", &rows(&points, largest));
}

/// All sizes that the runtimes manage, up to `largest`.
fn curve(largest: usize) -> Vec<Point> {
    let mut points = Vec::new();
    for runtime in parked::RUNTIMES {
        let sizes = std::iter::successors(Some(1), |count| Some(count * 10));
        for count in sizes.take_while(|&count| count <= largest) {
            let numbers = child::numbers(&[runtime, &count.to_string()]);
            let Some([bytes, cold, warm]) = numbers.as_deref() else {
                println!("{runtime}: {count} at once can't be had");
                break;
            };
            let [bytes, cold, warm] = [bytes, cold, warm].map(|total| total / count as f64);
            println!("{runtime}: {count}: {bytes:.0} B, {cold:.0} ns cold, {warm:.0} ns warm");
            points.push(Point { runtime, count, bytes, cold, warm });
        }
    }
    points
}

/// The curve as comma-separated values.
fn csv(points: &[Point]) -> String {
    let mut text = "runtime,count,bytes_each,nanoseconds_each_cold,nanoseconds_each_warm\n".into();
    for Point { runtime, count, bytes, cold, warm } in points {
        writeln!(&mut text as &mut String, "{runtime},{count},{bytes:.1},{cold:.1},{warm:.1}")
            .expect("a string takes what it is given");
    }
    text
}

/// The curve's end in the table: greenling's largest size, and each peer's beside greenling's of
/// the same size.
fn rows(points: &[Point], largest: usize) -> Vec<Row> {
    let of = |runtime: &str, count| {
        points.iter().find(|point| point.runtime == runtime && point.count == count)
    };
    let figure = format!("memory of one of {largest} parked, B");
    let mut rows = vec![
        match of("greenling", largest) {
            None => Row::missing(figure, "the child process failed"),
            Some(point) => Row::alone(figure, point.bytes, "B"),
        }
        .value_goal(4_900.0, 4_650.0),
    ];
    for peer in parked::RUNTIMES.iter().filter(|&&runtime| runtime != "greenling") {
        let Some(last) = points.iter().rfind(|point| point.runtime == *peer) else { continue };
        let Some(own) = of("greenling", last.count) else { continue };
        let compared = |what: &str, unit: &str, own: f64, peers: f64| {
            Row::alone(format!("{what} of {}: greenling", last.count), own, unit)
                .against(*peer, peers)
        };
        rows.push(compared("memory", "B", own.bytes, last.bytes));
        rows.push(compared("spawn, park, wake, join", "ns", own.warm, last.warm));
        rows.push(compared("spawn, park, wake, join, cold", "ns", own.cold, last.cold));
    }
    rows
}
