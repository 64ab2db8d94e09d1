//! Switching: how long a greenlet's yield takes among two and among a thousand.
//!
//! The limit is raw corosensei: a resume and a suspend, over as many coroutines in turn, with no
//! scheduler at all. Every runtime does the same: each of its tasks starts, and then the clock of
//! the first one runs while all of them yield as often as it does.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use corosensei::{Coroutine, stack::DefaultStack};
use support::mode::{self, Mode};
use support::pairs::{Contender, interleave};
use support::{proc, results, row};

/// How long that many rounds of yields take, among that many.
type Yield = fn(usize, u64) -> Duration;

/// Who is compared.
const CONTENDERS: [(&str, Yield); 5] = [
    ("greenling", greenlets),
    ("raw corosensei", coroutines),
    ("may", may_coroutines),
    ("tokio", tokio_tasks),
    ("OS threads", threads),
];

/// How often everyone yields before the clock starts, so that all have started by then and their
/// stacks are warm.
const WARM_UP: u64 = 3;

fn main() {
    may::config().set_workers(1).set_stack_size(0x1000);
    let mut criterion = mode::criterion();
    for among in [2, 1_000] {
        let mut group = criterion.benchmark_group(format!("yield among {among}"));
        for (name, measure) in CONTENDERS {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let rounds = iterations.div_ceil(among as u64);
                    let yields = (rounds * among as u64) as f64;
                    measure(among, rounds).mul_f64(iterations as f64 / yields)
                });
            });
        }
    }
    criterion.final_summary();

    let mode = Mode::of_this_run();
    if mode == Mode::Test {
        return;
    }
    let mut rows = Vec::new();
    for (among, goal) in [(2, (3.0, 2.0)), (1_000, (2.5, 1.5))] {
        let rounds = mode.pick(1_000_000, 100_000) / among as u64;
        let contenders = CONTENDERS.map(|(name, measure)| {
            // The kernel's switches are slower by so much that fewer will do; but with only a few,
            // a thread would be done before the next one has begun.
            let rounds = if name == "OS threads" { (rounds / 10).max(50) } else { rounds };
            let yields = (rounds * among as u64) as f64;
            Contender::new(name, move || measure(among, rounds).as_nanos() as f64 / yields)
        });
        let samples = interleave(mode.pick(21, 5), contenders.into());
        let figure = format!("yield among {among}");
        rows.extend(row::compare(&figure, "ns", &samples, "raw corosensei", Some(goal)));
    }
    results::publish("switch", &rows);
}

fn greenlets(among: usize, rounds: u64) -> Duration {
    let greenlets: Vec<_> = (0..among)
        .map(|_| {
            greenling::spawn(move || {
                (0..WARM_UP).for_each(|_| greenling::yield_now());
                let start = Instant::now();
                (0..rounds).for_each(|_| greenling::yield_now());
                start.elapsed()
            })
        })
        .collect();
    let times: Vec<_> = greenlets.into_iter().map(|greenlet| greenlet.get().unwrap()).collect();
    times[0]
}

fn coroutines(among: usize, rounds: u64) -> Duration {
    let mut coroutines: Vec<_> = (0..among)
        .map(|_| {
            let stack = DefaultStack::new(64 << 10).expect("the kernel has room for a stack");
            Coroutine::<(), (), (), _>::with_stack(stack, move |yielder, ()| {
                (0..WARM_UP + rounds).for_each(|_| yielder.suspend(()));
            })
        })
        .collect();
    let mut turn = || {
        for coroutine in &mut coroutines {
            coroutine.resume(());
        }
    };
    (0..WARM_UP).for_each(|_| turn());
    let start = Instant::now();
    (0..rounds).for_each(|_| turn());
    let elapsed = start.elapsed();
    turn();
    elapsed
}

fn may_coroutines(among: usize, rounds: u64) -> Duration {
    let run = move || {
        let coroutines: Vec<_> = (0..among)
            .map(|_| {
                may::go!(move || {
                    (0..WARM_UP).for_each(|_| may::coroutine::yield_now());
                    let start = Instant::now();
                    (0..rounds).for_each(|_| may::coroutine::yield_now());
                    start.elapsed()
                })
            })
            .collect();
        let times: Vec<_> = coroutines.into_iter().map(|handle| handle.join().unwrap()).collect();
        times[0]
    };
    may::go!(run).join().expect("nothing in there panics")
}

fn tokio_tasks(among: usize, rounds: u64) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it needs no fds");
    runtime.block_on(async move {
        let tasks: Vec<_> = (0..among)
            .map(|_| {
                tokio::spawn(async move {
                    for _ in 0..WARM_UP {
                        tokio::task::yield_now().await;
                    }
                    let start = Instant::now();
                    for _ in 0..rounds {
                        tokio::task::yield_now().await;
                    }
                    start.elapsed()
                })
            })
            .collect();
        let mut times = Vec::with_capacity(among);
        for task in tasks {
            times.push(task.await.expect("nothing in there panics"));
        }
        times[0]
    })
}

/// All on one CPU, where a yield is a switch.
fn threads(among: usize, rounds: u64) -> Duration {
    let barrier = Arc::new(Barrier::new(among));
    let started = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..among)
        .map(|_| {
            let (barrier, started) = (barrier.clone(), started.clone());
            let run = move || {
                proc::pin(0);
                barrier.wait();
                // A yield to nobody is no switch: the clock starts when all of them can run.
                started.fetch_add(1, Ordering::Relaxed);
                while started.load(Ordering::Relaxed) < among {
                    std::thread::yield_now();
                }
                let start = Instant::now();
                (0..rounds).for_each(|_| std::thread::yield_now());
                start.elapsed()
            };
            let builder = std::thread::Builder::new().stack_size(64 << 10);
            builder.spawn(run).expect("the kernel has room for a thread")
        })
        .collect();
    let times: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    // The kernel is free to run one of them first: the longest saw all the others' yields.
    times.into_iter().max().expect("there is at least one")
}
