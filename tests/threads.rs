//! Hubs of several OS threads, one after another and at one time, and processes that fork.

#[path = "common/child.rs"]
mod child;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenling::{getcurrent, joinall, sleep, spawn, with_timeout, yield_now};

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

/// Some work of greenlets that needs run queue, timers and stacks.
fn work(n: usize) -> usize {
    let greenlets: Vec<_> = (0..n)
        .map(|n| {
            spawn(move || {
                yield_now();
                sleep(Duration::from_micros(100));
                n
            })
        })
        .collect();
    greenlets.into_iter().map(|greenlet| greenlet.get().unwrap()).sum()
}

#[test]
fn hubs_are_independent() {
    let threads: Vec<_> = (0..8)
        .map(|n| {
            std::thread::spawn(move || {
                let stuck = spawn(|| getcurrent().join());
                let sum: usize = (0..20).map(|_| work(10)).sum();
                assert!(!stuck.is_finished());
                assert_eq!(getcurrent().name(), "main");
                if n % 2 == 0 {
                    stuck.join(); // A deadlock of this thread alone.
                }
                sum
            })
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        match thread.join() {
            Ok(sum) => assert_eq!((n % 2, sum), (1, 900)),
            Err(_) => assert_eq!(n % 2, 0),
        }
    }
}

#[test]
fn a_thread_may_be_joined_while_its_hub_runs() {
    static FINISHED: AtomicUsize = AtomicUsize::new(0);
    let outer = std::thread::spawn(|| {
        let greenlets: Vec<_> = (0..4)
            .map(|_| {
                spawn(|| {
                    // This blocks the outer hub; the inner one runs on.
                    std::thread::spawn(|| work(10)).join().unwrap();
                    FINISHED.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        joinall(&greenlets);
    });
    outer.join().unwrap();
    assert_eq!(FINISHED.load(Ordering::Relaxed), 4);
}

#[test]
fn ids_are_a_hubs_own() {
    let ids = || std::thread::spawn(|| (getcurrent().id(), spawn(|| ()).id())).join().unwrap();
    assert_eq!(ids(), ids());
}

#[test]
fn threads_that_come_and_go_leave_nothing_behind() {
    child::run("come-and-go", &[]).succeeded();
}

#[test]
fn many_threads_at_one_time() {
    let threads: Vec<_> = (0..200).map(|_| std::thread::spawn(|| work(3))).collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 3));
}

#[test]
fn a_forked_child_leaves_the_parents_hub_alone() {
    for case in ["fork-in-greenlet", "fork-in-main", "fork-and-exit"] {
        child::run(case, &[]).succeeded();
    }
}

/// What a forked child drops is not deregistered from the epoll that it shares with its parent.
#[test]
fn a_socket_that_a_forked_child_drops_is_still_the_parents() {
    child::run("fork-and-drop", &[]).succeeded();
}

/// How many entries a directory of `/proc` has.
fn entries(of: &str) -> usize {
    std::fs::read_dir(of).unwrap().count()
}

/// The memory that is resident, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Forks; the child runs `f` and then `_exit`s. The child's exit status.
fn fork(f: impl FnOnce()) -> i32 {
    // SAFETY: no other thread of this process holds a lock that the child would need: the only
    // other one is libtest's, which waits.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            f();
            // SAFETY: it ends the process, which nothing here has to know of.
            unsafe { libc::_exit(17) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: the pointer is to a live integer.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status), "{status:#x}");
            libc::WEXITSTATUS(status)
        }
    }
}

/// Forks while others are parked, sleeping and waiting for fds, and sees to it that they all go
/// on in the parent.
fn fork_among_others(fork: impl FnOnce() -> i32) -> i32 {
    use std::io::{Read, Write};
    let (reader, mut writer) = greenling::net::unix::UnixStream::pair().unwrap();
    let reading = spawn(move || {
        let mut byte = [0];
        (&reader).read_exact(&mut byte).unwrap();
        byte[0]
    });
    let sleeping: Vec<_> =
        (1..20).map(|n| spawn(move || sleep(Duration::from_millis(n)))).collect();
    let parked = spawn(|| sleep(LONG));
    yield_now();
    let status = fork();
    joinall(&sleeping);
    assert!(!reading.is_finished());
    writer.write_all(&[7]).unwrap();
    assert_eq!(reading.get().unwrap(), 7);
    assert!(with_timeout(Duration::from_millis(1), || parked.join()).is_err());
    parked.kill();
    assert_eq!(work(10), 45);
    status
}

/// The cases for a process of their own.
#[test]
fn child() {
    let plain_work = || assert_eq!((0..100).map(|n| n.to_string()).collect::<String>().len(), 190);
    match child::case().as_deref() {
        Some("come-and-go") => {
            let round = |count| {
                (0..count).for_each(|_| {
                    let thread = std::thread::spawn(|| {
                        drop(spawn(|| sleep(LONG)));
                        work(3)
                    });
                    assert_eq!(thread.join().unwrap(), 3);
                });
                (entries("/proc/self/fd"), entries("/proc/self/task"), resident())
            };
            let (fds, tasks, memory) = round(200);
            let (fds_after, tasks_after, memory_after) = round(2000);
            assert_eq!((fds_after, tasks_after), (fds, tasks));
            assert!(memory_after < memory + (4 << 20), "{memory} -> {memory_after}");
        }
        Some("fork-in-greenlet") => {
            let greenlet = spawn(move || fork_among_others(|| fork(plain_work)));
            assert_eq!(greenlet.get().unwrap(), 17);
        }
        Some("fork-in-main") => assert_eq!(fork_among_others(|| fork(plain_work)), 17),
        Some("fork-and-drop") => {
            use std::io::{Read, Write};
            let (mut mine, mut peer) = greenling::net::unix::UnixStream::pair().unwrap();
            let clone = mine.try_clone().unwrap();
            mine.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            mine.read_exact(&mut [0]).unwrap_err(); // Registered from here on.
            mine.set_read_timeout(None).unwrap();
            let mut streams = Some((mine, clone));
            assert_eq!(fork(|| drop(streams.take())), 17);
            let (mut mine, _clone) = streams.unwrap();
            spawn(move || (yield_now(), peer.write_all(&[7]).unwrap(), sleep(LONG)));
            let read = with_timeout(Duration::from_secs(5), || mine.read_exact(&mut [0]).unwrap());
            assert_eq!(read, Ok(()));
        }
        // exit runs the destructors of thread-locals: the hub is the parent's, so they let it be.
        Some("fork-and-exit") => {
            assert_eq!(fork_among_others(|| fork(|| std::process::exit(18))), 18);
            let greenlet = spawn(|| fork_among_others(|| fork(|| std::process::exit(19))));
            assert_eq!(greenlet.get().unwrap(), 19);
        }
        Some(other) => panic!("no such case: {other}"),
        None => {}
    }
}
