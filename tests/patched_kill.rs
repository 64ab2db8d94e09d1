//! Kills and timeouts of greenlets that are in patched calls: the call fails, nothing unwinds, and
//! whoever ignores the failure holds nobody up.

mod common;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Watchdog, sys};
use greenling::monkey::patch_all;
use greenling::{Greenlet, GreenletError, spawn, with_timeout, yield_now};
use libc::{ECANCELED, ETIMEDOUT};
use socket2::{Domain, SockAddr, Socket, Type};

/// How long a test may take on a very busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A moment.
const MOMENT: Duration = Duration::from_millis(2);

/// For ever, as far as a test is concerned.
const EVER: Duration = Duration::from_secs(1_000);

/// A listener whose queue is full, and what fills it.
fn deaf() -> (Socket, SocketAddr, Vec<Socket>) {
    let new = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&SockAddr::from("127.0.0.1:0".parse::<SocketAddr>().unwrap())).unwrap();
    listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let fillers = (0..4)
        .map(|_| {
            let filler = new();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&SockAddr::from(address));
            filler
        })
        .collect();
    (listener, address, fillers)
}

/// A call that blocks for ever, and what keeps it from ending.
type Blocking = Box<dyn FnOnce() -> io::Result<()>>;

/// Every patched call that can fail, in a form in which it blocks.
fn blocking_calls() -> Vec<(&'static str, Blocking)> {
    let mut calls: Vec<(&'static str, Blocking)> = Vec::new();
    let mut add = |name, call: Blocking| calls.push((name, call));
    let stream = || UnixStream::pair().unwrap();

    let (mut left, right) = stream();
    add("recv", Box::new(move || left.read(&mut [0; 1]).map(|_| drop(right))));
    let (mut left, right) = stream();
    add("read_exact", Box::new(move || left.read_exact(&mut [0; 1]).map(|_| drop(right))));
    let (left, right) = stream();
    add("read", Box::new(move || sys::read(left.as_raw_fd(), &mut [0; 1]).map(|_| drop(right))));
    let (mut left, right) = stream();
    add(
        "readv",
        Box::new(move || {
            left.read_vectored(&mut [io::IoSliceMut::new(&mut [0; 1])]).map(|_| drop(right))
        }),
    );
    let (left, right) = stream();
    add(
        "MSG_WAITALL",
        Box::new(move || {
            let flags = libc::MSG_WAITALL;
            sys::recv(left.as_raw_fd(), &mut [0; 9], flags).map(|_| drop(right))
        }),
    );
    let (left, right) = stream();
    add(
        "recvmsg",
        Box::new(move || {
            let mut byte = [0];
            let mut room = [io::IoSliceMut::new(&mut byte)];
            sys::recvmsg(left.as_raw_fd(), &mut room, 1, 0).map(|_| drop(right))
        }),
    );
    let full = || {
        let (left, right) = stream();
        left.set_nonblocking(true).unwrap();
        while (&left).write(&[0; 4096]).is_ok() {}
        left.set_nonblocking(false).unwrap();
        (left, right)
    };
    let (mut left, right) = full();
    add("send", Box::new(move || left.write(&[0; 4096]).map(|_| drop(right))));
    let (mut left, right) = full();
    add("write_all", Box::new(move || left.write_all(&[0; 4096]).map(|_| drop(right))));
    let (mut left, right) = full();
    add(
        "writev",
        Box::new(move || left.write_vectored(&[io::IoSlice::new(&[0; 9])]).map(|_| drop(right))),
    );
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    add("recvfrom", Box::new(move || udp.recv_from(&mut [0; 1]).map(drop)));
    let (left, right) = UnixDatagram::pair().unwrap();
    left.set_nonblocking(true).unwrap();
    while left.send(b"x").is_ok() {}
    left.set_nonblocking(false).unwrap();
    add("datagram", Box::new(move || left.send(b"x").map(|_| drop(right))));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    add("accept", Box::new(move || listener.accept().map(drop)));
    let (listener, address, fillers) = deaf();
    add(
        "connect",
        Box::new(move || TcpStream::connect(address).map(|_| drop((listener, fillers)))),
    );
    let (listener, address, fillers) = deaf();
    add(
        "connect_timeout",
        Box::new(move || {
            TcpStream::connect_timeout(&address, EVER).map(|_| drop((listener, fillers)))
        }),
    );
    let (left, right) = stream();
    add(
        "poll",
        Box::new(move || {
            let fds = [(left.as_raw_fd(), libc::POLLIN)];
            sys::poll(&fds, -1).map(|_| drop(right))
        }),
    );
    add("poll of nothing", Box::new(|| sys::poll(&[], 1_000_000).map(drop)));
    add("poll for ever", Box::new(|| sys::poll(&[(-1, libc::POLLIN)], -1).map(drop)));
    calls
}

#[test]
fn a_kill_fails_the_call_it_meets() {
    let _watchdog = Watchdog::new("a_kill_fails", LIMIT);
    patch_all();
    // Something else must be going on, for a poll of nothing waits for ever.
    let _other = spawn(|| std::thread::sleep(EVER));
    for (name, call) in blocking_calls() {
        let greenlet = spawn(call);
        std::thread::sleep(MOMENT);
        assert!(!greenlet.is_finished(), "{name} does not block");
        greenlet.kill();
        let error = greenlet.get().unwrap().expect_err(name);
        assert_eq!(error.raw_os_error(), Some(ECANCELED), "{name}");
    }
}

#[test]
fn a_timeout_fails_the_call_it_meets() {
    let _watchdog = Watchdog::new("a_timeout_fails", LIMIT);
    patch_all();
    for (name, call) in blocking_calls() {
        let greenlet = spawn(move || {
            let mut answer = None;
            let result = with_timeout(MOMENT, || answer = Some(call()));
            (result, answer.unwrap())
        });
        let (result, answer) = greenlet.get().unwrap();
        assert!(result.is_err(), "{name}");
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(ETIMEDOUT), "{name}");
    }
    // The main greenlet has timeouts as well.
    for (name, call) in blocking_calls() {
        let mut answer = None;
        assert!(with_timeout(MOMENT, || answer = Some(call())).is_err(), "{name}");
        assert_eq!(answer.unwrap().unwrap_err().raw_os_error(), Some(ETIMEDOUT), "{name}");
    }
}

#[test]
fn sleeps_end_early_and_say_nothing() {
    let _watchdog = Watchdog::new("sleeps_end_early", LIMIT);
    patch_all();
    let start = Instant::now();
    let sleeper = spawn(|| {
        std::thread::sleep(EVER);
        // SAFETY: no pointers.
        let left = unsafe { (libc::usleep(u32::MAX), libc::sleep(1_000)) };
        let (mut stream, _peer) = UnixStream::pair().unwrap();
        (left, stream.read(&mut [0; 1]).unwrap_err().raw_os_error())
    });
    yield_now();
    sleeper.kill();
    // The kill stays, so the sleeps that follow end early as well, and what can fail does.
    assert_eq!(sleeper.get().unwrap(), ((0, 0), Some(ECANCELED)));
    assert!(with_timeout(MOMENT, || std::thread::sleep(EVER)).is_err());
    // After its end a timeout is over.
    with_timeout(EVER, || std::thread::sleep(MOMENT)).unwrap();
    assert!(start.elapsed() < EVER);
}

/// Here a lookup may be faster than the kill; `patched_dns` has slow ones.
#[test]
fn lookups_are_kill_points() {
    let _watchdog = Watchdog::new("lookups", LIMIT);
    patch_all();
    let lookup = || ("localhost", 80).to_socket_addrs().map(|addresses| addresses.count());
    let expect = |answer: io::Result<usize>, errno| match answer {
        Ok(count) => assert!(count > 0),
        Err(error) => assert_eq!(error.raw_os_error(), Some(errno)),
    };
    for _ in 0..20 {
        let greenlet = spawn(lookup);
        yield_now();
        greenlet.kill();
        expect(greenlet.get().unwrap(), ECANCELED);
        let mut answer = None;
        let result = with_timeout(Duration::from_micros(100), || {
            std::thread::sleep(EVER);
            answer = Some(lookup());
        });
        assert!(result.is_err());
        expect(answer.unwrap(), ETIMEDOUT);
    }
    assert!(lookup().unwrap() > 0);
}

#[test]
fn a_kill_stays_pending() {
    let _watchdog = Watchdog::new("a_kill_stays", LIMIT);
    patch_all();
    let greenlet = spawn(|| {
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = left.read(&mut [0; 1]).unwrap_err().raw_os_error();
        let mut errors = vec![first];
        errors.push(listener.accept().unwrap_err().raw_os_error());
        errors.push(left.read(&mut [0; 1]).unwrap_err().raw_os_error());
        // What does not have to wait still works, so that a goodbye can be said.
        right.write_all(b"bye").unwrap();
        errors
    });
    std::thread::sleep(MOMENT);
    greenlet.kill();
    assert_eq!(greenlet.get().unwrap(), [Some(ECANCELED); 3]);
}

#[test]
fn a_call_s_own_timeout_is_not_the_scope_s() {
    let _watchdog = Watchdog::new("own_timeout", LIMIT);
    patch_all();
    let (left, mut right) = UnixStream::pair().unwrap();
    left.set_read_timeout(Some(MOMENT)).unwrap();
    let error = with_timeout(EVER, || (&left).read(&mut [0; 1])).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    left.set_read_timeout(Some(EVER)).unwrap();
    let mut inner = None;
    let outer = with_timeout(EVER, || {
        inner = Some(with_timeout(MOMENT, || (&left).read(&mut [0; 1]).map_err(|_| ())));
        right.write_all(b"x").unwrap();
        (&left).read(&mut [0; 1]).unwrap()
    });
    assert!(inner.unwrap().is_err());
    assert_eq!(outer, Ok(1));
    // The other way round: the outer one expires.
    let mut inner = None;
    let outer = with_timeout(MOMENT, || {
        inner = Some(with_timeout(EVER, || (&left).read(&mut [0; 1]).map_err(|e| e.kind())));
    });
    assert!(outer.is_err());
    assert_eq!(inner, Some(Ok(Err(io::ErrorKind::TimedOut))));
    // Whatever the scope makes of the error, it has timed out.
    assert!(with_timeout(MOMENT, || (&left).read(&mut [0; 1]).unwrap_or(7)).is_err());
    // And data that is there is data.
    right.write_all(b"xy").unwrap();
    assert_eq!(with_timeout(MOMENT, || (&left).read(&mut [0; 2]).unwrap()), Ok(2));
}

#[test]
fn a_partial_send_counts() {
    let _watchdog = Watchdog::new("a_partial_send", LIMIT);
    patch_all();
    let (mut left, mut right) = UnixStream::pair().unwrap();
    let sender = spawn(move || left.write(&[1; 8 << 20]));
    std::thread::sleep(MOMENT);
    sender.kill();
    let sent = sender.get().unwrap().unwrap();
    let mut all = Vec::new();
    right.read_to_end(&mut all).unwrap();
    assert_eq!(sent, all.len());
}

#[test]
fn locks_are_no_kill_points() {
    let _watchdog = Watchdog::new("locks", LIMIT);
    patch_all();
    let lock = Arc::new(Mutex::new(0));
    let guard = lock.lock().unwrap();
    let waiter = {
        let lock = Arc::clone(&lock);
        spawn(move || {
            *lock.lock().unwrap() += 1;
            let (mut left, _right) = UnixStream::pair().unwrap();
            left.read(&mut [0; 1]).unwrap_err().raw_os_error()
        })
    };
    std::thread::sleep(MOMENT);
    waiter.kill_nowait();
    std::thread::sleep(MOMENT);
    assert!(!waiter.is_finished());
    drop(guard);
    assert_eq!(waiter.get().unwrap(), Some(ECANCELED));
    assert_eq!(*lock.lock().unwrap(), 1);
    assert!(!lock.is_poisoned());
}

#[test]
fn greenling_s_own_calls_unwind_among_patched_ones() {
    let _watchdog = Watchdog::new("own_calls", LIMIT);
    patch_all();
    let dropped = Rc::new(Cell::new(false));
    struct Drops(Rc<Cell<bool>>);
    impl Drop for Drops {
        fn drop(&mut self) {
            // A blocking call in a destructor while unwinding: it has the thread to itself.
            std::thread::sleep(Duration::from_micros(100));
            self.0.set(true);
        }
    }
    let greenlet = {
        let dropped = Rc::clone(&dropped);
        spawn(move || {
            let _drops = Drops(dropped);
            let (mut left, _right) = UnixStream::pair().unwrap();
            let error = left.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(ECANCELED));
            greenling::sleep(EVER);
        })
    };
    std::thread::sleep(MOMENT);
    greenlet.kill();
    assert!(dropped.get());
    assert!(matches!(greenlet.get(), Err(GreenletError::Killed)));
}

/// Loops that ignore every error.
fn stubborn_loops() -> Vec<Greenlet<()>> {
    let (mut left, right) = UnixStream::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    vec![
        spawn(|| {
            loop {
                std::thread::sleep(EVER);
            }
        }),
        spawn(move || {
            let _right = right;
            loop {
                let _ = left.read(&mut [0; 1]);
            }
        }),
        spawn(move || listener.incoming().for_each(drop)),
        spawn(move || {
            loop {
                let _ = udp.recv(&mut [0; 1]);
            }
        }),
        spawn(|| {
            loop {
                let _ = sys::poll(&[(-1, 0)], -1);
            }
        }),
        spawn(|| {
            loop {
                let _ = ("localhost", 80).to_socket_addrs();
            }
        }),
        spawn(|| {
            loop {
                std::thread::yield_now();
            }
        }),
    ]
}

#[test]
fn loops_that_ignore_errors_hold_nobody_up() {
    let _watchdog = Watchdog::new("loops_that_ignore_errors", LIMIT);
    // On a thread of its own, whose end they do not hold up either.
    let thread = std::thread::spawn(|| {
        patch_all();
        let loops = stubborn_loops();
        std::thread::sleep(MOMENT);
        loops.iter().for_each(|greenlet| greenlet.kill_nowait());
        // Others get their sleeps, their bytes and their time.
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let echo = spawn(move || {
            let mut byte = [0];
            while left.read(&mut byte).unwrap() == 1 {
                left.write_all(&byte).unwrap();
            }
        });
        for n in 0..100u8 {
            right.write_all(&[n]).unwrap();
            let mut byte = [0];
            right.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [n]);
            if n % 10 == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        drop(right);
        echo.get().unwrap();
        assert!(loops.iter().all(|greenlet| !greenlet.is_finished()));
    });
    thread.join().unwrap();
}

#[test]
fn greenlets_in_patched_calls_end_with_their_thread() {
    let _watchdog = Watchdog::new("end_with_their_thread", LIMIT);
    let thread = std::thread::spawn(|| {
        patch_all();
        let ended = Arc::new(Mutex::new(Vec::new()));
        let count = blocking_calls().len();
        for (name, call) in blocking_calls() {
            let ended = Arc::clone(&ended);
            spawn(move || {
                let error = call().map_err(|error| error.raw_os_error());
                ended.lock().unwrap().push((name, error));
            });
        }
        let sleeping = Arc::clone(&ended);
        spawn(move || {
            std::thread::sleep(EVER);
            sleeping.lock().unwrap().push(("sleep", Err(Some(ECANCELED))));
        });
        // Never begun, begun, and in the middle of it.
        let unstarted = Arc::clone(&ended);
        std::thread::sleep(MOMENT);
        spawn(move || unstarted.lock().unwrap().push(("unstarted", Ok(()))));
        (ended, count + 1)
    });
    let (ended, count) = thread.join().unwrap();
    let ended = ended.lock().unwrap();
    assert_eq!(ended.len(), count, "{ended:?}");
    for (name, error) in ended.iter() {
        assert_eq!(*error, Err(Some(ECANCELED)), "{name}");
    }
}
