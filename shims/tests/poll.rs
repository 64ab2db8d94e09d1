//! poll and ppoll: what they answer and what they wait for.
#![allow(missing_docs, clippy::undocumented_unsafe_blocks)]

mod common;

use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;

use common::*;
use greenling_shims::runtime::{Direction, Wake};
use libc::{POLLIN, POLLNVAL, POLLOUT, pollfd};

fn entry(fd: i32, events: i16) -> pollfd {
    pollfd { fd, events, revents: 99 }
}

fn poll(entries: &mut [pollfd], timeout: i32) -> isize {
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as u64, timeout) as isize }
}

fn found(entries: &[pollfd]) -> Vec<i16> {
    entries.iter().map(|entry| entry.revents).collect()
}

#[test]
fn what_is_ready_or_must_not_wait_is_answered_at_once() {
    let (one, two) = UnixStream::pair().expect("a pair");
    let file = std::fs::File::open("/dev/null").expect("open");
    let (first, second) = (one.as_raw_fd(), two.as_raw_fd());
    let asked = green(|| {
        let mut idle = [entry(first, POLLIN)];
        assert_eq!(poll(&mut idle, 0), 0);
        assert_eq!(found(&idle), [0]);
        let mut entries = [
            entry(first, POLLIN),
            entry(second, POLLIN | POLLOUT),
            entry(-1, POLLIN),
            entry(second, POLLOUT),
            entry(file.as_raw_fd(), POLLIN),
            entry(1 << 19, POLLIN),
        ];
        assert_eq!(poll(&mut entries, -1), 4);
        assert_eq!(found(&entries), [0, POLLOUT, 0, POLLOUT, POLLIN, POLLNVAL]);
        assert_eq!(failed(unsafe { libc::poll(8 as *mut pollfd, 2, -1) } as isize), libc::EFAULT);
        let count = libc::nfds_t::MAX;
        let answer = unsafe { libc::poll(entries.as_mut_ptr(), count, -1) };
        assert_eq!(failed(answer as isize), libc::EINVAL);
    });
    assert_eq!(asked, []);
}

#[test]
fn the_directions_asked_for_are_the_ones_waited_for() {
    let (one, mut two) = UnixStream::pair().expect("a pair");
    let (_three, four) = UnixStream::pair().expect("a pair");
    let (first, second) = (one.as_raw_fd(), four.as_raw_fd());
    let asked = green(|| {
        // Woken for nothing once.
        next_wait_ends(Wake::Ready);
        at_next_wait(move || two.write_all(b"x").expect("sent"));
        unsafe { *libc::__errno_location() = libc::EXDEV };
        let mut entries = [entry(first, POLLIN), entry(-5, POLLOUT), entry(second, 0)];
        assert_eq!(poll(&mut entries, -1), 1);
        assert_eq!(found(&entries)[1..], [0, 0]);
        assert_ne!(found(&entries)[0] & POLLIN, 0);
        assert_eq!(errno(), libc::EXDEV);
    });
    let expected = vec![(first, Direction::Read), (second, Direction::Read)];
    assert_eq!(asked, [Call::WaitAny(expected.clone()), Call::WaitAny(expected)]);
}

#[test]
fn a_writable_wait_is_one_for_writing() {
    let (one, two) = UnixStream::pair().expect("a pair");
    one.set_nonblocking(true).expect("set");
    while (&one).write(&[0; 4096]).is_ok() {}
    let fd = one.as_raw_fd();
    let asked = green(|| {
        at_next_wait(move || drop(two));
        let mut entries = [entry(fd, POLLIN | POLLOUT)];
        assert_eq!(poll(&mut entries, 20_000), 1);
    });
    let both = vec![(fd, Direction::Read), (fd, Direction::Write)];
    assert_eq!(asked, [Call::WaitAny(both)]);
}

#[test]
fn the_timeout_passes_and_the_answer_is_nothing() {
    let (one, _two) = UnixStream::pair().expect("a pair");
    let asked = green(|| {
        let mut entries = [entry(one.as_raw_fd(), POLLIN)];
        assert_eq!(poll(&mut entries, 5), 0);
        assert_eq!(found(&entries), [0]);
        assert_eq!(poll(&mut [], 5), 0);
        assert_eq!(unsafe { libc::poll(std::ptr::null_mut(), 0, 5) }, 0);
    });
    assert_eq!(waits(&asked), 3);
    assert_eq!(asked[1..], [Call::Sleep, Call::Sleep]);
}

#[test]
fn the_end_of_a_wait_becomes_the_errno_it_stands_for() {
    let (one, _two) = UnixStream::pair().expect("a pair");
    green(|| {
        let mut entries = [entry(one.as_raw_fd(), POLLIN)];
        next_wait_ends(Wake::Killed);
        assert_eq!(failed(poll(&mut entries, -1)), libc::ECANCELED);
        next_wait_ends(Wake::Expired);
        assert_eq!(failed(poll(&mut entries, 5000)), libc::ETIMEDOUT);
        next_wait_ends(Wake::Killed);
        assert_eq!(failed(poll(&mut [], 5000)), libc::ECANCELED);
        next_wait_ends(Wake::Unpollable);
        assert_eq!(poll(&mut entries, 1), 0);
    });
}

#[test]
fn a_closed_fd_is_reported_as_pollnval() {
    // A high number, which no other test of this process takes over.
    let (one, _two) = UnixStream::pair().expect("a pair");
    let fd = unsafe { libc::dup2(one.into_raw_fd(), 800) };
    green(|| {
        at_next_wait(move || assert_eq!(unsafe { libc::close(fd) }, 0));
        let mut entries = [entry(fd, POLLIN)];
        assert_eq!(poll(&mut entries, -1), 1);
        assert_eq!(found(&entries), [POLLNVAL]);
    });
}

#[test]
fn more_fds_than_fit_on_the_stack_are_all_waited_for() {
    let pairs: Vec<_> = (0..60).map(|_| UnixStream::pair().expect("a pair")).collect();
    let mut last = pairs[59].1.try_clone().expect("a duplicate");
    let asked = green(|| {
        let mut entries: Vec<_> =
            pairs.iter().map(|(one, _)| entry(one.as_raw_fd(), POLLIN)).collect();
        at_next_wait(move || last.write_all(b"x").expect("sent"));
        assert_eq!(poll(&mut entries, -1), 1);
        assert_eq!(entries[59].revents, POLLIN);
    });
    let Call::WaitAny(fds) = &asked[0] else { panic!("{asked:?}") };
    assert_eq!(fds.len(), 60);
}

#[test]
fn ppoll_checks_its_timeout_and_takes_none_for_ever() {
    let (one, mut two) = UnixStream::pair().expect("a pair");
    green(|| unsafe {
        let mut entries = [entry(one.as_raw_fd(), POLLIN)];
        let at = entries.as_mut_ptr();
        let null = std::ptr::null();
        for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            let bad = libc::timespec { tv_sec, tv_nsec };
            let answer = libc::ppoll(at, 1, &raw const bad, null);
            assert_eq!(failed(answer as isize), libc::EINVAL);
        }
        let short = libc::timespec { tv_sec: 0, tv_nsec: 1000 };
        assert_eq!(libc::ppoll(at, 1, &raw const short, null), 0);
        assert_eq!((short.tv_sec, short.tv_nsec), (0, 1000));
        let huge = libc::timespec { tv_sec: i64::MAX, tv_nsec: 999_999_999 };
        next_wait_ends(Wake::Killed);
        let answer = libc::ppoll(at, 1, &raw const huge, null);
        assert_eq!(failed(answer as isize), libc::ECANCELED);
        at_next_wait(move || two.write_all(b"x").expect("sent"));
        assert_eq!(libc::ppoll(at, 1, std::ptr::null(), null), 1);
    });
}
