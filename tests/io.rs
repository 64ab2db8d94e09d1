//! Waiting for fds of every kind.

use std::fs::File;
use std::io::{ErrorKind, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::io::{Pollable, wait_readable, wait_writable};
use greenling::net::TcpStream;
use greenling::{sleep, spawn, with_timeout, yield_now};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Long enough to tell a wait from a failure.
const SHORT: Duration = Duration::from_millis(20);

fn after(duration: Duration) -> Option<Instant> {
    Instant::now().checked_add(duration)
}

fn own(fd: RawFd) -> File {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the callers pass the fd that a system call has just made.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn eventfd() -> File {
    // SAFETY: no pointers are passed.
    own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
}

/// A timerfd that fires once after `SHORT`.
fn timerfd() -> File {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = libc::timespec { tv_sec: 0, tv_nsec: SHORT.as_nanos() as libc::c_long };
    let spec = libc::itimerspec { it_interval: zero, it_value: value };
    // SAFETY: no pointers are passed.
    let timer = own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) });
    // SAFETY: the pointer is to a live itimerspec; the old value is not asked for.
    let set = unsafe {
        libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
    };
    assert_eq!(set, 0);
    timer
}

#[test]
fn an_eventfd_becomes_readable() {
    let event = Rc::new(eventfd());
    assert_eq!(wait_readable(&*event, after(SHORT)).unwrap_err().kind(), ErrorKind::TimedOut);
    wait_writable(&*event, None).unwrap();
    let writer = Rc::clone(&event);
    spawn(move || (&*writer).write_all(&1_u64.to_ne_bytes()).unwrap());
    for _ in 0..3 {
        wait_readable(&*event, after(LONG)).unwrap(); // It stays so until it is read.
    }
    (&*event).read_exact(&mut [0; 8]).unwrap();
    assert_eq!(wait_readable(&*event, after(SHORT)).unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn a_timerfd_becomes_readable() {
    let (timer, start) = (timerfd(), Instant::now());
    wait_readable(&timer, after(LONG)).unwrap();
    assert!(start.elapsed() >= SHORT / 2);
    let mut timer = Pollable::new(timerfd()).unwrap();
    let mut count = [0; 8];
    timer.read_exact(&mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
}

#[test]
fn a_pipe_is_waited_for_in_both_directions() {
    let (reader, writer) = pipe().unwrap();
    let (mut reader, mut writer) = (Pollable::new(reader).unwrap(), Pollable::new(writer).unwrap());
    let sink = spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got.len()
    });
    writer.write_all(&vec![0; 1_000_000]).unwrap(); // A pipe holds 64 KiB.
    drop(writer);
    assert_eq!(sink.get().unwrap(), 1_000_000);
}

#[test]
fn the_end_of_the_other_side_is_seen() {
    let (reader, writer) = pipe().unwrap();
    let waiter = spawn(move || wait_readable(&reader, None).unwrap());
    yield_now();
    drop(writer);
    waiter.get().unwrap();

    let (reader, writer) = pipe().unwrap();
    let mut writer = Pollable::new(writer).unwrap();
    let filler = spawn(move || writer.write_all(&vec![0; 1_000_000]).unwrap_err().kind());
    yield_now();
    drop(reader);
    assert_eq!(filler.get().unwrap(), ErrorKind::BrokenPipe);
}

#[test]
fn a_pollable_works_through_a_shared_reference() {
    let (one, other) = UnixStream::pair().unwrap();
    let (one, other) = (Rc::new(Pollable::new(one).unwrap()), Pollable::new(other).unwrap());
    let reader = {
        let one = Rc::clone(&one);
        spawn(move || (&*one).read_exact(&mut [0; 4]).unwrap())
    };
    yield_now();
    (&*one).write_all(b"ping").unwrap(); // While the reader waits.
    (&other).read_exact(&mut [0; 4]).unwrap();
    (&other).write_all(b"pong").unwrap();
    reader.get().unwrap();
    other.writable(after(LONG)).unwrap();
    assert_eq!(other.readable(after(SHORT)).unwrap_err().kind(), ErrorKind::TimedOut);
    let would_block = other.get_ref().read(&mut [0; 1]).unwrap_err();
    assert_eq!(would_block.kind(), ErrorKind::WouldBlock);
    drop(other.into_inner());
    assert_eq!((&*one).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn what_is_given_back_is_waited_for_anew() {
    let (reader, mut writer) = pipe().unwrap();
    let mut reader = Pollable::new(reader).unwrap();
    for _ in 0..3 {
        assert!(with_timeout(Duration::from_millis(2), || reader.read(&mut [0; 1])).is_err());
        reader = Pollable::new(reader.into_inner()).unwrap();
        writer.write_all(b"!").unwrap();
        assert_eq!(reader.read(&mut [0; 9]).unwrap(), 1);
    }
}

#[test]
fn a_regular_file_is_refused_clearly() {
    let file = File::open("Cargo.toml").unwrap();
    for error in [
        wait_readable(&file, None).unwrap_err(),
        wait_writable(&file, after(SHORT)).unwrap_err(),
        Pollable::new(file).unwrap_err(),
        Pollable::new(File::open("src").unwrap()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("regular file"), "{error}");
    }
}

#[test]
fn what_is_always_ready_is_not_waited_for() {
    let zero = File::open("/dev/zero").unwrap();
    wait_readable(&zero, None).unwrap();
    Pollable::new(zero).unwrap().read_exact(&mut [0; 10]).unwrap();
}

/// One that never has to wait lets the clock and the fds be looked at after each share of
/// operations, not after 64 of them.
#[test]
fn what_is_always_ready_delays_no_timer() {
    let (mut a, mut b) = greenling::net::unix::UnixStream::pair().unwrap();
    let sleeper = spawn(|| sleep(Duration::from_millis(1)));
    yield_now();
    std::thread::sleep(Duration::from_millis(2)); // It is overdue.
    let mut operations = 0;
    while !sleeper.is_finished() {
        b.write_all(b"x").unwrap();
        a.read_exact(&mut [0]).unwrap();
        operations += 2;
    }
    assert!(operations <= 1024, "{operations}");
}

/// A wait that is over before it began, here because of TCP's urgent mark, is no turn of others.
#[test]
fn a_wait_that_does_not_suspend_renews_no_budget() {
    let listener = greenling::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut mine = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    mine.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    mine.read_exact(&mut [0]).unwrap_err();
    // SAFETY: the pointer and the length are those of a byte.
    unsafe { libc::send(peer.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    sleep(Duration::from_millis(5));
    let turns = Rc::new(std::cell::Cell::new(0));
    let counted = turns.clone();
    let other = spawn(move || {
        loop {
            counted.set(counted.get() + 1);
            yield_now();
        }
    });
    for _ in 0..5000 {
        peer.write_all(b"x").unwrap();
        mine.read_exact(&mut [0; 1]).unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(mine.read(&mut [0; 64]).unwrap(), 1);
    }
    assert!(turns.get() >= 70, "{}", turns.get());
    other.kill();
}

#[test]
fn a_closed_fd_is_an_error() {
    // SAFETY: nothing is done to the fd, which is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(i32::MAX) };
    assert_eq!(wait_readable(fd, None).unwrap_err().raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_close_wakes_whoever_waits_with_an_error() {
    let (stream, _peer) = UnixStream::pair().unwrap();
    let stream = TcpStream::from(OwnedFd::from(stream));
    let fd = stream.as_raw_fd();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            spawn(move || {
                // SAFETY: open when the wait begins. That it is closed meanwhile is the test.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                wait_readable(fd, None).unwrap_err().raw_os_error()
            })
        })
        .collect();
    yield_now();
    drop(stream);
    for waiter in waiters {
        assert_eq!(waiter.get().unwrap(), Some(libc::EBADF));
    }
}

#[test]
fn a_wait_leaves_the_owners_reads_as_they_were() {
    let (client, mut server) = UnixStream::pair().unwrap();
    let mut client = greenling::net::unix::UnixStream::from(client);
    let mut buf = [0; 9];
    for _ in 0..3 {
        assert_eq!(wait_readable(&client, after(SHORT)).unwrap_err().kind(), ErrorKind::TimedOut);
        server.write_all(b"!").unwrap();
        assert_eq!(client.read(&mut buf).unwrap(), 1);
        server.write_all(b"!").unwrap();
        wait_readable(&client, None).unwrap();
        assert_eq!(client.read(&mut buf).unwrap(), 1);
    }
}

#[test]
fn an_fd_that_comes_back_under_its_old_number_wakes_nobody_else() {
    let (idle, _peer) = UnixStream::pair().unwrap();
    let idle = Rc::new(greenling::net::unix::UnixStream::from(idle));
    let bystander = {
        let idle = Rc::clone(&idle);
        spawn(move || wait_readable(&*idle, None))
    };
    let mut numbers = std::collections::BTreeSet::new();
    for round in 0..2000_u32 {
        let (reader, writer) = greenling::net::unix::UnixStream::pair().unwrap();
        numbers.insert(reader.as_raw_fd());
        let reader = spawn(move || {
            let mut got = [0; 4];
            (&reader).read_exact(&mut got).unwrap();
            u32::from_ne_bytes(got)
        });
        yield_now();
        // Foreign waits on the same numbers, whose fds are closed without a word.
        if round % 3 == 0 {
            let (stale, _peer) = UnixStream::pair().unwrap();
            let wait = wait_readable(&stale, after(Duration::from_micros(1)));
            assert_eq!(wait.unwrap_err().kind(), ErrorKind::TimedOut);
        }
        assert!(!reader.is_finished());
        (&writer).write_all(&round.to_ne_bytes()).unwrap();
        drop(writer); // Before the reader has run: its edge comes after the close.
        assert_eq!(reader.get().unwrap(), round);
    }
    assert!(numbers.len() < 100, "the numbers are not used again");
    assert!(!bystander.is_finished());
    bystander.kill();
}

#[test]
fn a_wait_is_ended_by_a_timeout_and_by_a_kill() {
    let event = Rc::new(eventfd());
    assert!(with_timeout(SHORT, || wait_readable(&*event, None)).is_err());
    let victim = {
        let event = Rc::clone(&event);
        spawn(move || wait_readable(&*event, None))
    };
    sleep(Duration::ZERO);
    victim.kill();
    assert!(victim.get().is_err());
    (&*event).write_all(&1_u64.to_ne_bytes()).unwrap();
    wait_readable(event.as_fd(), after(LONG)).unwrap();
}
