//! The child's side: spawn many, wait until all are parked, look at the memory, wake and join.
//!
//! They wait for an event, not for a time, so no timer is counted in. Each runtime does it its
//! own cheapest way.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::proc;

/// Whose curves are drawn.
pub(crate) const RUNTIMES: [&str; 4] = ["greenling", "tokio", "may", "OS threads"];

/// What one round has found.
pub(crate) struct Round {
    /// From the first spawn until all were parked.
    spawning: Duration,
    /// What all of them took while they were parked.
    bytes: u64,
    /// From the wake-up until all were joined.
    joining: Duration,
}

impl Round {
    /// The time of all that was done, without the look at the memory.
    pub(crate) fn time(&self) -> Duration {
        self.spawning + self.joining
    }
}

/// Prints what `count` of a runtime take: bytes, and nanoseconds cold and warm, in total.
pub(crate) fn measure(runtime: &str, count: usize) {
    let [cold, warm] = match runtime {
        "greenling" => [(); 2].map(|()| greenlets(count)),
        "tokio" => tokio_tasks(count),
        "may" => may_coroutines(count),
        "OS threads" => [(); 2].map(|()| threads(count)),
        other => panic!("no runtime is called {other}"),
    };
    println!("{} {} {}", cold.bytes, cold.time().as_nanos(), warm.time().as_nanos());
}

/// Parks them in the join of one that sleeps until it is killed.
pub(crate) fn greenlets(count: usize) -> Round {
    let before = proc::memory_bytes();
    let start = Instant::now();
    let gate = greenling::spawn(|| greenling::sleep(Duration::from_secs(86_400)));
    let started = Rc::new(Cell::new(0));
    let greenlets: Vec<_> = (0..count)
        .map(|_| {
            let (gate, started) = ((*gate).clone(), started.clone());
            greenling::spawn(move || {
                started.set(started.get() + 1);
                gate.join();
            })
        })
        .collect();
    while started.get() < count {
        greenling::yield_now();
    }
    let spawning = start.elapsed();
    let bytes = proc::memory_bytes().saturating_sub(before);
    let start = Instant::now();
    gate.kill();
    greenling::joinall(&greenlets);
    drop(greenlets);
    Round { spawning, bytes, joining: start.elapsed() }
}

/// Both rounds in one runtime, as greenling's are in one hub.
fn tokio_tasks(count: usize) -> [Round; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it needs no fds");
    [(); 2].map(|()| {
        runtime.block_on(async {
            let before = proc::memory_bytes();
            let start = Instant::now();
            let gate = Arc::new(tokio::sync::Notify::new());
            let started = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (0..count)
                .map(|_| {
                    let (gate, started) = (gate.clone(), started.clone());
                    tokio::spawn(async move {
                        started.fetch_add(1, Ordering::Relaxed);
                        gate.notified().await;
                    })
                })
                .collect();
            while started.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
            let spawning = start.elapsed();
            let bytes = proc::memory_bytes().saturating_sub(before);
            let start = Instant::now();
            gate.notify_waiters();
            for task in tasks {
                task.await.expect("a parked task does not panic");
            }
            Round { spawning, bytes, joining: start.elapsed() }
        })
    })
}

/// From outside: a coroutine that only yields would keep may's worker from taking in new ones.
fn may_coroutines(count: usize) -> [Round; 2] {
    may::config().set_workers(1).set_stack_size(0x1000);
    [(); 2].map(|()| {
        let before = proc::memory_bytes();
        let start = Instant::now();
        let started = Arc::new(AtomicUsize::new(0));
        let coroutines: Vec<_> = (0..count)
            .map(|_| {
                let started = started.clone();
                may::go!(move || {
                    started.fetch_add(1, Ordering::Relaxed);
                    may::coroutine::park();
                })
            })
            .collect();
        while started.load(Ordering::Relaxed) < count {
            std::thread::yield_now();
        }
        let spawning = start.elapsed();
        let bytes = proc::memory_bytes().saturating_sub(before);
        let start = Instant::now();
        coroutines.iter().for_each(|coroutine| coroutine.coroutine().unpark());
        for coroutine in coroutines {
            coroutine.join().expect("a parked coroutine does not panic");
        }
        Round { spawning, bytes, joining: start.elapsed() }
    })
}

/// Threads whose stacks are as small as they may be. What the kernel needs for each, which is
/// more, no process can see of itself.
fn threads(count: usize) -> Round {
    let before = proc::memory_bytes();
    let start = Instant::now();
    let started = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let started = started.clone();
            let run = move || {
                started.fetch_add(1, Ordering::Relaxed);
                std::thread::park();
            };
            let builder = std::thread::Builder::new().stack_size(16 << 10);
            builder.spawn(run).expect("the kernel has room for a thread")
        })
        .collect();
    while started.load(Ordering::Relaxed) < count {
        std::thread::yield_now();
    }
    let spawning = start.elapsed();
    let bytes = proc::memory_bytes().saturating_sub(before);
    let start = Instant::now();
    threads.iter().for_each(|thread| thread.thread().unpark());
    for thread in threads {
        thread.join().expect("a parked thread does not panic");
    }
    Round { spawning, bytes, joining: start.elapsed() }
}
