//! A scheduler for tests: it "parks" by blocking the thread in poll(2), does what a test has
//! scripted for the next waits first, and counts what it is asked.
//!
//! Only threads inside [`green`] can be parked; all others pass through.
#![allow(dead_code, missing_docs, clippy::undocumented_unsafe_blocks)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use greenling_shims::runtime::{Bypass, Direction, Runtime, Seen, Ticket, Wake};
use greenling_shims::{Category, install};

/// What happens at a wait.
enum Action {
    /// It ends like this.
    Wake(Wake),
    /// This is done, then it ends with `Ready`.
    Do(Box<dyn FnOnce()>),
}

/// What the scheduler was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Wait(RawFd, Direction),
    /// A wait that has a deadline.
    WaitUntil(RawFd, Direction),
    /// A wait without a try before it, because an earlier one came short.
    WaitAfterShortage(RawFd, Direction),
    WaitAny(Vec<(RawFd, Direction)>),
    Sleep,
    Closing(RawFd),
    Duplicated(RawFd, RawFd),
}

thread_local! {
    static GREEN: Cell<bool> = const { Cell::new(false) };
    static ACTIONS: RefCell<VecDeque<Action>> = const { RefCell::new(VecDeque::new()) };
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

struct Scripted;

static SCRIPTED: Scripted = Scripted;

/// Runs `test` on a thread that can be parked, and answers what was asked of the scheduler.
pub(crate) fn green(test: impl FnOnce()) -> Vec<Call> {
    install(&SCRIPTED, &[Category::Socket, Category::Select]);
    CALLS.take();
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            GREEN.set(false);
        }
    }
    let leave = Leave;
    GREEN.set(true);
    test();
    drop(leave);
    assert!(ACTIONS.take().is_empty(), "a scripted wait did not happen");
    CALLS.take()
}

/// Runs `step` as a thread without a hub would.
pub(crate) fn plain<T>(step: impl FnOnce() -> T) -> T {
    let before = GREEN.replace(false);
    let answer = step();
    GREEN.set(before);
    answer
}

/// Scripts the end of the next wait that is not scripted yet.
pub(crate) fn next_wait_ends(wake: Wake) {
    ACTIONS.with_borrow_mut(|actions| actions.push_back(Action::Wake(wake)));
}

/// Scripts what is done during the next wait that is not scripted yet.
pub(crate) fn at_next_wait(step: impl FnOnce() + 'static) {
    ACTIONS.with_borrow_mut(|actions| actions.push_back(Action::Do(Box::new(step))));
}

/// Takes back what is scripted for waits that did not happen.
pub(crate) fn unscripted() -> usize {
    ACTIONS.take().len()
}

/// What was asked so far; forgets it.
pub(crate) fn calls() -> Vec<Call> {
    CALLS.take()
}

/// How many of `calls` are waits.
pub(crate) fn waits(calls: &[Call]) -> usize {
    let is_wait = |call: &&Call| !matches!(call, Call::Closing(_) | Call::Duplicated(..));
    calls.iter().filter(is_wait).count()
}

/// The calling thread's errno.
pub(crate) fn errno() -> i32 {
    unsafe { *libc::__errno_location() }
}

/// Checks that `answer` is -1, and answers the error number.
pub(crate) fn failed(answer: isize) -> i32 {
    assert_eq!(answer, -1);
    errno()
}

fn note(call: Call) {
    let _ = CALLS.try_with(|calls| calls.borrow_mut().push(call));
}

fn block(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> Wake {
    let left = |end: Instant| end.saturating_duration_since(Instant::now());
    let timeout = deadline.map_or(20_000, |end| left(end).as_millis() as i32 + 1);
    match plain(|| unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as u64, timeout) }) {
        0 if deadline.is_none() => panic!("nothing would ever have ended this wait"),
        0 => Wake::TimedOut,
        _ => Wake::Ready,
    }
}

fn entry(&(fd, direction): &(RawFd, Direction)) -> libc::pollfd {
    let events = match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    };
    libc::pollfd { fd, events, revents: 0 }
}

/// What was scripted for this wait; `errno` is overwritten, as other greenlets would.
fn scripted() -> Option<Wake> {
    let wake = match ACTIONS.with_borrow_mut(VecDeque::pop_front) {
        Some(Action::Wake(wake)) => Some(wake),
        Some(Action::Do(step)) => {
            plain(step);
            Some(Wake::Ready)
        }
        None => None,
    };
    unsafe { *libc::__errno_location() = libc::EXFULL };
    wake
}

impl Runtime for Scripted {
    fn bypass(&self) -> Option<Bypass> {
        match GREEN.try_with(Cell::get) {
            Ok(true) => None,
            _ => Some(Bypass::NoHub),
        }
    }

    fn wait_fd(
        &self,
        fd: RawFd,
        direction: Direction,
        seen: Seen,
        deadline: Option<Instant>,
    ) -> Wake {
        note(match (seen, deadline) {
            (Seen::Shortage, _) => Call::WaitAfterShortage(fd, direction),
            (Seen::Nothing, None) => Call::Wait(fd, direction),
            (Seen::Nothing, Some(_)) => Call::WaitUntil(fd, direction),
        });
        scripted().unwrap_or_else(|| block(&mut [entry(&(fd, direction))], deadline))
    }

    fn wait_any(
        &self,
        fds: &[(RawFd, Direction)],
        deadline: Option<Instant>,
        check: &mut dyn FnMut() -> bool,
    ) -> Wake {
        note(Call::WaitAny(fds.to_vec()));
        if check() {
            return Wake::Ready;
        }
        let mut entries: Vec<_> = fds.iter().map(entry).collect();
        scripted().unwrap_or_else(|| block(&mut entries, deadline))
    }

    fn sleep_until(&self, deadline: Instant) -> Wake {
        note(Call::Sleep);
        scripted().unwrap_or_else(|| {
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            Wake::TimedOut
        })
    }

    fn fd_closing(&self, fd: RawFd) {
        // Told on every thread; noted only where a hub's greenlets might wait.
        if self.bypass().is_none() {
            note(Call::Closing(fd));
        }
    }

    fn fd_duplicated(&self, old: RawFd, new: RawFd) {
        note(Call::Duplicated(old, new));
    }

    fn ticket(&self) -> Ticket {
        Ticket { hub: 0, greenlet: 0, generation: 0 }
    }

    fn park(&self, _: Option<Instant>) -> Wake {
        Wake::Unpollable
    }

    fn unpark(&self, _: Ticket) -> bool {
        false
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> Wake {
        job();
        Wake::Ready
    }

    fn yield_now(&self) {}
}

/// A connected pair of TCP sockets.
pub(crate) fn tcp_pair() -> (std::net::TcpStream, std::net::TcpStream) {
    plain(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let client =
            std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("up");
        let (server, _) = listener.accept().expect("accepted");
        (client, server)
    })
}

/// Waits by hand, outside of any shim under test, until `events` hold for `fd`.
pub(crate) fn settle(fd: RawFd, events: i16) {
    let mut one = libc::pollfd { fd, events, revents: 0 };
    let answer = plain(|| unsafe { libc::poll(&raw mut one, 1, 20_000) });
    assert_eq!(answer, 1, "the socket never became ready");
}

/// A short time that a test waits for.
pub(crate) const SHORT: Duration = Duration::from_millis(5);
