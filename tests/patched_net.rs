//! Patched sockets under load: disconnects, full fd tables, panics, closes from everywhere, several
//! threads, child processes, and nothing left behind.

mod common;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{Random, Watchdog, alone, open_fds, sys};
use greenling::monkey::patch_all;
use greenling::{joinall, spawn};
use socket2::SockRef;

/// How long a test may take on a very busy machine.
const LIMIT: Duration = Duration::from_secs(100);

/// A moment: long enough for others to come to their waits, and nothing depends on it.
const MOMENT: Duration = Duration::from_millis(3);

/// Sends back what comes, until the end or an error.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            done => stream.write_all(&buffer[..done])?,
        }
    }
}

/// A server that echoes, on a greenlet per connection. It ends with the thread's hub.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            spawn(move || echo(stream));
        }
    });
    address
}

/// One client that talks, and leaves in one of the ways in which clients leave.
fn client(address: SocketAddr, random: &mut Random) {
    let mut stream = TcpStream::connect(address).unwrap();
    for _ in 0..random.below(4) {
        let message = vec![random.below(256) as u8; 1 + random.below(1000) as usize];
        stream.write_all(&message).unwrap();
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, message);
        if random.below(3) == 0 {
            std::thread::sleep(Duration::from_millis(random.below(5)));
        }
    }
    match random.below(6) {
        // In the middle of an answer.
        0 => stream.write_all(&[1; 600]).unwrap(),
        // With a reset.
        1 => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        // With a reset in the middle of an answer.
        2 => {
            stream.write_all(&[1; 600]).unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        // Politely.
        3 => {
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        }
        // Impatiently.
        4 => {
            stream.set_read_timeout(Some(Duration::from_micros(300))).unwrap();
            let error = stream.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        _ => {}
    }
}

#[test]
fn two_thousand_clients_leave_in_every_way() {
    if !alone("two_thousand_clients_leave_in_every_way") {
        return;
    }
    let _watchdog = Watchdog::new("two_thousand_clients", LIMIT);
    let fds_max = rlimit::increase_nofile_limit(4_500).unwrap();
    let clients = ((fds_max - 100) / 2).min(2_000);
    patch_all();
    let address = echo_server();
    // The first greenlet makes what stays for good.
    spawn(move || client(address, &mut Random::new(0))).get().unwrap();
    let before = open_fds();
    for round in 0..2 {
        let clients: Vec<_> = (0..clients)
            .map(|n| spawn(move || client(address, &mut Random::new(n + round * 10_000))))
            .collect();
        for client in clients {
            client.get().unwrap();
        }
    }
    // The server's side of the last ones may still be at its end.
    let mut patience = 1_000;
    while open_fds() > before && patience > 0 {
        patience -= 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(open_fds() <= before, "{} fds, then {}", before, open_fds());
}

#[test]
fn a_full_fd_table_is_recovered_from() {
    if !alone("a_full_fd_table_is_recovered_from") {
        return;
    }
    let _watchdog = Watchdog::new("a_full_fd_table", LIMIT);
    patch_all();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let is_full = |error: &io::Error| error.raw_os_error() == Some(libc::EMFILE);
    let used = open_fds() as u64;
    rlimit::setrlimit(rlimit::Resource::NOFILE, used + 20, used + 20).unwrap();
    const CLIENTS: usize = 100;
    // The clients leave the server some room, but not as much as it needs.
    let places = Rc::new((Mutex::new(12), Condvar::new()));
    let server = spawn(move || {
        let (mut served, mut refusals) = (Vec::new(), 0);
        while served.len() < CLIENTS {
            match listener.accept() {
                Ok((mut stream, _)) => served.push(spawn(move || {
                    std::thread::sleep(MOMENT);
                    stream.read_exact(&mut [0; 1]).unwrap();
                    stream.write_all(b"x").unwrap();
                })),
                Err(error) if is_full(&error) => {
                    refusals += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
        joinall(&served);
        refusals
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let places = Rc::clone(&places);
            spawn(move || {
                let (free, freed) = &*places;
                *freed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap() -= 1;
                let mut stream = loop {
                    match TcpStream::connect(address) {
                        Ok(stream) => break stream,
                        Err(error) if is_full(&error) => {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        Err(error) => panic!("{error}"),
                    }
                };
                stream.write_all(b"x").unwrap();
                stream.read_exact(&mut [0; 1]).unwrap();
                drop(stream);
                *free.lock().unwrap() += 1;
                freed.notify_one();
            })
        })
        .collect();
    for client in clients {
        client.get().unwrap();
    }
    assert!(server.get().unwrap() > 0, "the fd table was never full");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_greenlet_that_panics_takes_nobody_with_it() {
    let _watchdog = Watchdog::new("a_greenlet_that_panics", LIMIT);
    patch_all();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            spawn(move || {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    // Without the panic hook: its output means nothing here.
                    if byte[0] == b'!' {
                        std::panic::resume_unwind(Box::new("on purpose"));
                    }
                    stream.write_all(&byte).unwrap();
                }
            });
        }
    });
    let clients: Vec<_> = (0..40)
        .map(|n| {
            spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let mut byte = [0];
                for round in 0..5 {
                    if n % 4 == 0 && round == 2 {
                        stream.write_all(b"!").unwrap();
                        // The panic closes the stream.
                        assert_eq!(stream.read(&mut byte).unwrap(), 0);
                        return 0;
                    }
                    stream.write_all(b"x").unwrap();
                    stream.read_exact(&mut byte).unwrap();
                    std::thread::sleep(Duration::from_micros(200));
                }
                1
            })
        })
        .collect();
    let survivors: i32 = clients.into_iter().map(|client| client.get().unwrap()).sum();
    assert_eq!(survivors, 30);
}

/// What a wait in `call` on the fd ends with when another greenlet ends the fd with `end`.
fn ended<T: 'static>(
    fd: RawFd,
    call: impl FnOnce(RawFd) -> io::Result<T> + 'static,
    end: impl FnOnce(RawFd),
) -> io::Result<T> {
    let waiter = spawn(move || call(fd));
    std::thread::sleep(MOMENT);
    assert!(!waiter.is_finished());
    end(fd);
    waiter.get().unwrap()
}

/// Closes a number that nobody owns.
fn close(fd: RawFd) {
    sys::close(fd).unwrap();
}

/// Puts something else at a number.
fn replace(fd: RawFd) {
    let (other, _) = UnixStream::pair().unwrap();
    sys::dup2(other.as_raw_fd(), fd).unwrap();
}

#[test]
fn a_close_ends_the_waits_of_others() {
    let _watchdog = Watchdog::new("a_close_ends", LIMIT);
    patch_all();
    for end in [close, replace] {
        let pair = || UnixStream::pair().unwrap();
        let (left, _peer) = pair();
        let received =
            ended(left.into_raw_fd(), |fd| sys::recv(fd, &mut [0; 1], 0).map(|_| ()), end);
        assert_eq!(received.unwrap_err().raw_os_error(), Some(libc::EBADF));

        let (left, _peer) = pair();
        let read = ended(left.into_raw_fd(), |fd| sys::read(fd, &mut [0; 1]).map(|_| ()), end);
        assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EBADF));

        let (left, _peer) = pair();
        // Bytes have moved, so the call has succeeded.
        let sent = ended(left.into_raw_fd(), |fd| sys::send(fd, &[0; 8 << 20], 0), end);
        assert!(sent.is_ok_and(|sent| sent > 0 && sent < 8 << 20));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accepted = ended(listener.into_raw_fd(), |fd| sys::accept(fd).map(drop), end);
        assert_eq!(accepted.unwrap_err().raw_os_error(), Some(libc::EBADF));

        let (left, _peer) = pair();
        let polled = ended(
            left.into_raw_fd(),
            |fd| sys::poll(&[(fd, libc::POLLIN)], -1).map(|(_, events)| events[0]),
            end,
        );
        // What poll reports is what is at the number now: nothing, or the end of a stream.
        let events = polled.unwrap();
        assert!(events == libc::POLLNVAL || events & libc::POLLHUP != 0, "{events}");
    }
}

#[test]
fn a_duplicate_outlives_a_close() {
    let _watchdog = Watchdog::new("a_duplicate", LIMIT);
    patch_all();
    for closes_waited in [true, false] {
        let (left, mut peer) = UnixStream::pair().unwrap();
        let copy = left.try_clone().unwrap();
        let (waited, other) = if closes_waited { (left, copy) } else { (copy, left) };
        let fd = waited.as_raw_fd();
        // Both numbers are known to the reactor.
        other.set_read_timeout(Some(MOMENT)).unwrap();
        (&other).read(&mut [0; 1]).unwrap_err();
        (&waited).read(&mut [0; 1]).unwrap_err();
        other.set_read_timeout(None).unwrap();
        let first = spawn(move || sys::recv(fd, &mut [0; 1], 0));
        std::thread::sleep(MOMENT);
        drop(waited);
        assert_eq!(first.get().unwrap().unwrap_err().raw_os_error(), Some(libc::EBADF));
        // A new socket gets the number, and must not be woken by the old one's events.
        let (fresh, mut fresh_peer) = UnixStream::pair().unwrap();
        let mut fresh_reader = fresh.try_clone().unwrap();
        let fresh_waiter = spawn(move || {
            let mut byte = [0];
            fresh_reader.read_exact(&mut byte).map(|()| byte[0])
        });
        let mut reading = other.try_clone().unwrap();
        let second = spawn(move || {
            let mut byte = [0];
            reading.read_exact(&mut byte).map(|()| byte[0])
        });
        std::thread::sleep(MOMENT);
        peer.write_all(b"p").unwrap();
        assert_eq!(second.get().unwrap().unwrap(), b'p');
        std::thread::sleep(MOMENT);
        assert!(!fresh_waiter.is_finished());
        fresh_peer.write_all(b"f").unwrap();
        assert_eq!(fresh_waiter.get().unwrap().unwrap(), b'f');
    }
}

#[test]
fn reused_numbers_wake_nobody_else() {
    let _watchdog = Watchdog::new("reused_numbers", LIMIT);
    patch_all();
    // Those who wait all the time, between numbers that come and go.
    let waiters: Vec<_> = (0..20)
        .map(|n: u8| {
            let (mut left, right) = UnixStream::pair().unwrap();
            let waiter = spawn(move || {
                let mut buffer = [0; 9];
                let done = left.read(&mut buffer).unwrap();
                (done, buffer[0])
            });
            (n, waiter, right)
        })
        .collect();
    let churners: Vec<_> = (0..10u64)
        .map(|seed| {
            spawn(move || {
                let mut random = Random::new(seed);
                for round in 0..400u32 {
                    let (mut left, mut right) = UnixStream::pair().unwrap();
                    let reader = spawn(move || {
                        let mut buffer = [0; 4];
                        left.read_exact(&mut buffer).map(|()| u32::from_le_bytes(buffer))
                    });
                    match random.below(4) {
                        0 => greenling::yield_now(),
                        1 => std::thread::sleep(Duration::from_micros(50)),
                        _ => {}
                    }
                    if random.below(3) == 0 {
                        drop(right);
                        assert!(reader.get().unwrap().is_err());
                    } else {
                        right.write_all(&round.to_le_bytes()).unwrap();
                        assert_eq!(reader.get().unwrap().unwrap(), round);
                    }
                }
            })
        })
        .collect();
    for churner in churners {
        churner.get().unwrap();
    }
    for (n, waiter, mut right) in waiters {
        assert!(!waiter.is_finished());
        right.write_all(&[n]).unwrap();
        assert_eq!(waiter.get().unwrap(), (1, n));
    }
}

#[test]
fn a_number_that_a_foreign_thread_closed_is_good_again() {
    let _watchdog = Watchdog::new("a_number_that_a_foreign_thread_closed", LIMIT);
    patch_all();
    for _ in 0..20 {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.set_read_timeout(Some(Duration::from_micros(100))).unwrap();
        left.read(&mut [0; 1]).unwrap_err();
        // A thread without a hub closes what this hub has waited for.
        std::thread::spawn(move || drop((left, right))).join().unwrap();
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let waiter = spawn(move || left.read(&mut [0; 1]));
        std::thread::sleep(Duration::from_micros(200));
        right.write_all(b"x").unwrap();
        assert_eq!(waiter.get().unwrap().unwrap(), 1);
    }
}

#[test]
fn two_threads_with_hubs_share_sockets() {
    let _watchdog = Watchdog::new("two_threads_with_hubs", LIMIT);
    const MESSAGES: u32 = 500;
    let (left, right) = UnixStream::pair().unwrap();
    let (left, right) = (Arc::new(left), Arc::new(right));
    let seen = Arc::new(AtomicU32::new(0));
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (left, right) = (Arc::clone(&left), Arc::clone(&right));
            let (seen, listener) = (Arc::clone(&seen), Arc::clone(&listener));
            std::thread::spawn(move || {
                patch_all();
                // Each hub reads and writes the very same fds, and accepts from the same listener.
                let readers: Vec<_> = (0..2)
                    .map(|_| {
                        let (left, seen) = (Arc::clone(&left), Arc::clone(&seen));
                        spawn(move || {
                            let mut byte = [0];
                            while (&*left).read(&mut byte).unwrap() == 1 && byte != [0] {
                                seen.fetch_add(1, Ordering::Relaxed);
                            }
                        })
                    })
                    .collect();
                let writer = spawn(move || {
                    for n in 0..MESSAGES {
                        (&*right).write_all(b"x").unwrap();
                        if n % 16 == 0 {
                            std::thread::sleep(Duration::from_micros(50));
                        }
                    }
                    // One end for each reader of a thread.
                    (&*right).write_all(&[0, 0]).unwrap();
                });
                let acceptor = spawn(move || {
                    for _ in 0..20 {
                        echo(listener.accept().unwrap().0).unwrap();
                    }
                });
                let clients: Vec<_> = (0..20)
                    .map(|_| {
                        spawn(move || {
                            let mut stream = TcpStream::connect(address).unwrap();
                            stream.write_all(b"x").unwrap();
                            stream.read_exact(&mut [0; 1]).unwrap();
                        })
                    })
                    .collect();
                readers.into_iter().chain(clients).chain([writer, acceptor]).for_each(|it| {
                    it.get().unwrap();
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(seen.load(Ordering::Relaxed), 2 * MESSAGES);
}

#[test]
fn foreign_threads_use_the_same_sockets() {
    let _watchdog = Watchdog::new("foreign_threads", LIMIT);
    patch_all();
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    const EACH: usize = 30;
    // The greenlet accepts first, so the listener has the shims' O_NONBLOCK when the thread comes.
    let green = {
        let listener = Arc::clone(&listener);
        spawn(move || (0..EACH).for_each(|_| echo(listener.accept().unwrap().0).unwrap()))
    };
    std::thread::sleep(MOMENT);
    let foreign = {
        let listener = Arc::clone(&listener);
        std::thread::spawn(move || {
            (0..EACH).for_each(|_| echo(listener.accept().unwrap().0).unwrap());
        })
    };
    let talk = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    };
    let clients: Vec<_> = (0..EACH).map(|_| spawn(talk)).collect();
    let thread = std::thread::spawn(move || (0..EACH).for_each(|_| talk()));
    for client in clients {
        client.get().unwrap();
    }
    green.get().unwrap();
    // A join of a thread holds the hub, which has nothing left to do.
    thread.join().unwrap();
    foreign.join().unwrap();
    // Nobody comes any more: a timeout of the listener holds on a thread, too.
    let late = std::thread::spawn(move || {
        SockRef::from(&*listener).set_read_timeout(Some(MOMENT)).unwrap();
        listener.accept().map(drop).unwrap_err().kind()
    });
    assert_eq!(late.join().unwrap(), io::ErrorKind::WouldBlock);
    // One stream, written by a thread and read by a greenlet.
    let (mut left, mut right) = UnixStream::pair().unwrap();
    let writer = std::thread::spawn(move || {
        for n in 0..100u8 {
            right.write_all(&[n]).unwrap();
            if n % 10 == 0 {
                std::thread::sleep(Duration::from_micros(300));
            }
        }
    });
    let reader = spawn(move || {
        let mut all = Vec::new();
        left.read_to_end(&mut all).map(|_| all)
    });
    assert_eq!(reader.get().unwrap().unwrap(), (0..100).collect::<Vec<u8>>());
    writer.join().unwrap();
}

#[test]
fn child_processes_are_not_patched() {
    let _watchdog = Watchdog::new("child_processes", LIMIT);
    patch_all();
    let ticks = Rc::new(Cell::new(0));
    let ticker = {
        let ticks = Rc::clone(&ticks);
        spawn(move || {
            while ticks.get() < 1_000 {
                ticks.set(ticks.get() + 1);
                std::thread::sleep(Duration::from_micros(100));
            }
        })
    };
    let address = echo_server();
    let runners: Vec<_> = (0..5)
        .map(|n| {
            spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let mut child = Command::new("/bin/sh")
                    .args(["-c", "read line; sleep 0.01; echo \"$line $0\"; exit 7"])
                    .arg(n.to_string())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                child.stdin.take().unwrap().write_all(b"line\n").unwrap();
                stream.write_all(b"x").unwrap();
                let output = child.wait_with_output().unwrap();
                assert_eq!(output.status.code(), Some(7));
                assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("line {n}\n"));
                stream.read_exact(&mut [0; 1]).unwrap();
                // With code between fork and exec: std forks by hand then.
                let mut command = Command::new("/bin/true");
                // SAFETY: all that runs in the child is a sleep and a close of no fd.
                unsafe {
                    command.pre_exec(|| {
                        std::thread::sleep(Duration::from_millis(1));
                        libc::close(-1);
                        Ok(())
                    });
                }
                assert!(command.status().unwrap().success());
                // An exec that fails is told through a pipe, or as an error of posix_spawn.
                let missing = Command::new("/nonexistent/program").status().unwrap_err();
                assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            })
        })
        .collect();
    for runner in runners {
        runner.get().unwrap();
    }
    ticker.get().unwrap();
    assert_eq!(ticks.get(), 1_000);
}

#[test]
fn a_forked_child_can_use_its_sockets() {
    let _watchdog = Watchdog::new("a_forked_child", LIMIT);
    patch_all();
    let forker = spawn(|| {
        let (left, mut right) = UnixStream::pair().unwrap();
        // The hub knows the fd, and others wait for it, when the fork comes.
        let mut reading = left.try_clone().unwrap();
        let reader = spawn(move || {
            let mut all = Vec::new();
            reading.read_to_end(&mut all).map(|_| all)
        });
        std::thread::sleep(MOMENT);
        // SAFETY: the child calls nothing but what a child of a process with threads may call
        // (reads, writes, sleeps), and ends with _exit.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            std::thread::sleep(Duration::from_millis(2));
            let written = sys::write(right.as_raw_fd(), b"from the child");
            let mut pair = [0; 2];
            // SAFETY: room for two fds; the process ends right after.
            unsafe {
                libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr());
                let sent = sys::send(pair[0], b"x", 0);
                let received = sys::recv(pair[1], &mut [0; 4], 0);
                let good = [written, sent, received].iter().all(|result| result.is_ok());
                libc::_exit(if good { 0 } else { 1 });
            }
        }
        let mut status = -1;
        // SAFETY: the child is ours, and the status a local.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        right.write_all(b", from the parent").unwrap();
        drop((left, right));
        reader.get().unwrap().unwrap()
    });
    let all = forker.get().unwrap();
    assert_eq!(String::from_utf8(all).unwrap(), "from the child, from the parent");
}

/// The memory in use, in bytes, and the number of mappings.
fn memory() -> (u64, usize) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (pages * 4096, maps.lines().count())
}

/// Fewer in a debug build, which is several times slower.
const CONNECTIONS: usize = if cfg!(debug_assertions) { 20_000 } else { 100_000 };

#[test]
fn nothing_is_left_of_many_connections() {
    if !alone("nothing_is_left_of_many_connections") {
        return;
    }
    let _watchdog = Watchdog::new("nothing_is_left", LIMIT);
    patch_all();
    let address = echo_server();
    let talk = move |connections: usize| {
        let clients: Vec<_> = (0..20)
            .map(|_| {
                spawn(move || {
                    for n in 0..connections / 20 {
                        let mut stream = TcpStream::connect(address).unwrap();
                        stream.write_all(b"x").unwrap();
                        stream.read_exact(&mut [0; 1]).unwrap();
                        if n % 2 == 0 {
                            let copy = stream.try_clone().unwrap();
                            let waiter = spawn(move || (&copy).read(&mut [0; 1]));
                            greenling::yield_now();
                            stream.shutdown(Shutdown::Both).unwrap();
                            assert_eq!(waiter.get().unwrap().unwrap(), 0);
                        }
                        // A reset, so that the port is free again at once.
                        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                })
            })
            .collect();
        for client in clients {
            client.get().unwrap();
        }
        // The server's side may still be at its end.
        std::thread::sleep(Duration::from_millis(50));
    };
    talk(CONNECTIONS / 10);
    // The hub's clock for less than a millisecond needs an fd of its own.
    std::thread::sleep(Duration::from_micros(100));
    let (fds, (bytes, maps)) = (open_fds(), memory());
    talk(CONNECTIONS);
    let (fds_now, (bytes_now, maps_now)) = (open_fds(), memory());
    assert!(fds_now <= fds, "{fds} fds, then {fds_now}");
    assert!(maps_now <= maps + 8, "{maps} mappings, then {maps_now}");
    // A leak of 100 bytes a connection would be seen.
    let room = 100 * CONNECTIONS as u64;
    assert!(bytes_now <= bytes + room, "{bytes} bytes, then {bytes_now}");
}
