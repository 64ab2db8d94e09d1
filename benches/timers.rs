//! Timers: a million greenlets that sleep for a second, and the cost of a timeout that never
//! expires.
//!
//! The sleepers are measured in processes of their own, twice in each: first on stacks that
//! nobody has touched, so that the kernel has to find a page for each, then on the same stacks,
//! warm. What counts is the total, from the first spawn to the last join, less the second that
//! everyone sleeps.

mod support;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use support::mode::{self, Mode};
use support::pairs::{Contender, Samples, interleave};
use support::row::{self, Row};
use support::{child, results};

/// How long everyone sleeps.
const SLEEP: Duration = Duration::from_secs(1);

/// A deadline that is never reached.
const FAR: Duration = Duration::from_secs(3_600);

fn main() {
    if let Some(arguments) = child::arguments() {
        let [runtime, count] = &arguments[..] else { panic!("runtime and count are missing") };
        let count = count.parse().expect("the count is a number");
        let seconds = |_| match runtime.as_str() {
            "greenling" => greenlets_sleep(count),
            "tokio" => tokio_tasks_sleep(count),
            other => panic!("no runtime is called {other}"),
        };
        let times: Vec<Duration> = (0..2).map(seconds).collect();
        println!("{} {}", times[0].as_secs_f64(), times[1].as_secs_f64());
        return;
    }

    let mut criterion = mode::criterion();
    let mut group = criterion.benchmark_group("timeout around a yield");
    group.bench_function("greenling", |bencher| bencher.iter_custom(greenling_timeouts));
    group.bench_function("tokio", |bencher| bencher.iter_custom(tokio_timeouts));
    group.finish();
    criterion.final_summary();

    let mode = Mode::of_this_run();
    if mode != Mode::Test {
        let mut rows = sleepers(mode);
        rows.extend(timeouts(mode));
        results::publish("timers", &rows);
    }
}

/// Many sleepers at once, in greenling and in tokio.
fn sleepers(mode: Mode) -> Vec<Row> {
    let count = mode.pick("1000000", "50000");
    let cold = RefCell::new(Vec::new());
    let run = |runtime: &str| {
        let times = child::numbers(&[runtime, count]);
        let [cold, warm] = times.as_deref().unwrap_or_default() else { return [f64::NAN; 2] };
        [1_000.0 * cold, 1_000.0 * warm]
    };
    let contenders = vec![
        Contender::new("greenling, warm stacks", || {
            let [first, second] = run("greenling");
            cold.borrow_mut().push(first);
            second
        }),
        Contender::new("tokio", || run("tokio")[1]),
    ];
    let mut samples = interleave(mode.pick(5, 1), contenders);
    let figure = format!("{count} sleep 1 s, less that");
    let mut rows = row::compare(&figure, "ms", &samples, "tokio", Some((1.0, 0.7)));
    samples[0] = Samples { name: "greenling, cold stacks", values: cold.into_inner() };
    rows.extend(row::compare(&figure, "ms", &samples, "tokio", None));
    rows
}

/// Timeouts that are armed and cancelled, as every bounded I/O does.
fn timeouts(mode: Mode) -> Vec<Row> {
    let count = mode.pick(200_000, 20_000);
    let per_timeout = move |elapsed: Duration| elapsed.as_nanos() as f64 / count as f64;
    let contenders = vec![
        Contender::new("greenling", || per_timeout(greenling_timeouts(count))),
        Contender::new("tokio", || per_timeout(tokio_timeouts(count))),
    ];
    let samples = interleave(mode.pick(21, 5), contenders);
    row::compare("timeout around a yield", "ns", &samples, "tokio", None)
}

fn greenlets_sleep(count: usize) -> Duration {
    let start = Instant::now();
    let sleepers: Vec<_> =
        (0..count).map(|_| greenling::spawn(|| greenling::sleep(SLEEP))).collect();
    greenling::joinall(&sleepers);
    start.elapsed().saturating_sub(SLEEP)
}

fn tokio_tasks_sleep(count: usize) -> Duration {
    runtime().block_on(async {
        let start = Instant::now();
        let sleepers: Vec<_> =
            (0..count).map(|_| tokio::spawn(async { tokio::time::sleep(SLEEP).await })).collect();
        for sleeper in sleepers {
            sleeper.await.expect("a sleeper does not panic");
        }
        start.elapsed().saturating_sub(SLEEP)
    })
}

fn greenling_timeouts(count: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        greenling::with_timeout(FAR, greenling::yield_now).expect("an hour has not passed");
    }
    start.elapsed()
}

/// The yield makes tokio arm the timer, which it does not do for what is ready at once.
fn tokio_timeouts(count: u64) -> Duration {
    runtime().block_on(async {
        let start = Instant::now();
        for _ in 0..count {
            let timeout = tokio::time::timeout(FAR, tokio::task::yield_now());
            timeout.await.expect("an hour has not passed");
        }
        start.elapsed()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a timer needs no fds")
}
