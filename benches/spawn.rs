//! Spawning: how long it takes to spawn an empty greenlet and to join it.
//!
//! The limit is raw corosensei on one stack that is used again and again: make a coroutine, run
//! it, take the stack back. Beside it, what a stack of its own for each coroutine costs.

mod support;

use std::time::{Duration, Instant};

use corosensei::{Coroutine, stack::DefaultStack};
use support::mode::{self, Mode};
use support::pairs::{Contender, interleave};
use support::{results, row};

/// How long that many spawns and joins take, one after the other.
type Spawn = fn(u64) -> Duration;

/// Who is compared, and how much slower than the first it may be expected to be.
const CONTENDERS: [(&str, Spawn, u64); 7] = [
    ("greenling", greenlets, 1),
    ("raw corosensei, stack reused", coroutines, 1),
    ("raw corosensei, own stack", coroutines_with_stacks, 50),
    ("greenling, 1,000 at once", greenlets_at_once, 1),
    ("tokio", tokio_tasks, 4),
    ("may", may_coroutines, 10),
    ("OS threads", threads, 200),
];

fn main() {
    may::config().set_workers(1).set_stack_size(0x1000);
    let mut criterion = mode::criterion();
    let mut group = criterion.benchmark_group("spawn and join");
    for (name, measure, _) in CONTENDERS {
        group.bench_function(name, |bencher| bencher.iter_custom(measure));
    }
    group.finish();
    criterion.final_summary();

    let mode = Mode::of_this_run();
    if mode == Mode::Test {
        return;
    }
    let contenders = CONTENDERS.map(|(name, measure, slowness)| {
        let count = mode.pick(200_000, 20_000) / slowness;
        Contender::new(name, move || measure(count).as_nanos() as f64 / count as f64)
    });
    let samples = interleave(mode.pick(21, 5), contenders.into());
    let limit = "raw corosensei, stack reused";
    results::publish(
        "spawn",
        &row::compare("spawn and join", "ns", &samples, limit, Some((8.0, 5.0))),
    );
}

/// Calls `work` that often and says how long it took.
fn time(count: u64, mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..count).for_each(|_| work());
    start.elapsed()
}

fn greenlets(count: u64) -> Duration {
    time(count, || greenling::spawn(|| ()).join())
}

/// As many at a time as a busy server would have, so that their stacks are not all the hottest.
fn greenlets_at_once(count: u64) -> Duration {
    let batch = count.min(1_000);
    let mut greenlets = Vec::with_capacity(batch as usize);
    let elapsed = time(count.div_ceil(batch), || {
        greenlets.extend((0..batch).map(|_| greenling::spawn(|| ())));
        greenling::joinall(&greenlets);
        greenlets.clear();
    });
    elapsed.mul_f64(count as f64 / (count.div_ceil(batch) * batch) as f64)
}

fn coroutines(count: u64) -> Duration {
    let mut stack = Some(DefaultStack::new(64 << 10).expect("the kernel has room for a stack"));
    time(count, || {
        let reused = stack.take().expect("it was put back");
        let mut coroutine = Coroutine::<(), (), (), _>::with_stack(reused, |_, ()| ());
        coroutine.resume(());
        stack = Some(coroutine.into_stack());
    })
}

fn coroutines_with_stacks(count: u64) -> Duration {
    time(count, || {
        let stack = DefaultStack::new(64 << 10).expect("the kernel has room for a stack");
        Coroutine::<(), (), (), _>::with_stack(stack, |_, ()| ()).resume(());
    })
}

fn tokio_tasks(count: u64) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it needs no fds");
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..count {
            tokio::spawn(async {}).await.expect("an empty task does not panic");
        }
        start.elapsed()
    })
}

fn may_coroutines(count: u64) -> Duration {
    let run = move || time(count, || may::go!(|| ()).join().expect("it is empty"));
    may::go!(run).join().expect("nothing in there panics")
}

fn threads(count: u64) -> Duration {
    time(count, || std::thread::spawn(|| ()).join().expect("an empty thread does not panic"))
}
