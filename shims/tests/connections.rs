//! Connecting and accepting: no thread blocks, and no user sees the flag that this takes.
#![allow(missing_docs, clippy::undocumented_unsafe_blocks)]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use common::*;
use greenling_shims::runtime::{Direction, Wake};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = plain(|| TcpListener::bind("127.0.0.1:0")).expect("a listener");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn flags(fd: RawFd) -> i32 {
    unsafe { libc::fcntl(fd, libc::F_GETFL) }
}

/// The flags as the kernel has them, read where no shim changes them.
fn really_nonblocking(fd: RawFd) -> bool {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
    i32::from_str_radix(line.trim(), 8).expect("octal") & libc::O_NONBLOCK != 0
}

#[test]
fn accept_parks_and_its_o_nonblock_stays_hidden() {
    let (listener, address) = listener();
    let fd = listener.as_raw_fd();
    let asked = green(|| {
        at_next_wait(move || {
            std::mem::forget(TcpStream::connect(address).expect("connected"));
            settle(fd, libc::POLLIN);
        });
        let (accepted, _) = listener.accept().expect("accepted");
        assert_eq!(flags(accepted.as_raw_fd()) & libc::O_NONBLOCK, 0);
        assert!(!really_nonblocking(accepted.as_raw_fd()));
    });
    let read = Direction::Read;
    assert_eq!(asked[..1], [Call::Wait(fd, read)]);
    assert!(really_nonblocking(fd));
    let copy = plain(|| listener.try_clone()).expect("a duplicate");
    for fd in [fd, copy.as_raw_fd()] {
        assert_eq!(plain(|| flags(fd)) & libc::O_NONBLOCK, 0);
    }
}

#[test]
fn what_a_user_does_to_a_listeners_flag_is_what_the_user_sees() {
    let (listener, _) = listener();
    let fd = listener.as_raw_fd();
    let asked = green(|| {
        next_wait_ends(Wake::Killed);
        assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        let copy = listener.try_clone().expect("a duplicate");
        copy.set_nonblocking(true).expect("set");
        assert_ne!(flags(fd) & libc::O_NONBLOCK, 0);
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        listener.set_nonblocking(false).expect("set");
        assert_eq!(flags(fd) & libc::O_NONBLOCK, 0);
        assert!(really_nonblocking(fd));
        next_wait_ends(Wake::Killed);
        assert!(copy.accept().is_err());
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        assert_ne!(flags(fd) & libc::O_NONBLOCK, 0);
        assert!(copy.accept().is_err());
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, 0) }, 0);
        assert_eq!(flags(fd) & libc::O_NONBLOCK, 0);
        assert!(really_nonblocking(fd));
    });
    assert_eq!(waits(&asked), 2);
}

#[test]
fn a_thread_without_a_hub_still_blocks_in_accept() {
    let (listener, address) = listener();
    green(|| {
        next_wait_ends(Wake::Killed);
        assert!(listener.accept().is_err());
    });
    let (begun, begins) = std::sync::mpsc::channel();
    let acceptor = std::thread::spawn(move || {
        begun.send(()).expect("told");
        listener.accept().map(drop)
    });
    begins.recv().expect("begun");
    std::thread::sleep(SHORT);
    let _client = TcpStream::connect(address).expect("connected");
    acceptor.join().expect("the acceptor").expect("accepted");
}

#[test]
fn accept_honours_the_receive_timeout_with_and_without_a_hub() {
    let (listener, _) = listener();
    let fd = listener.as_raw_fd();
    let time = libc::timeval { tv_sec: 0, tv_usec: 5000 };
    let (at, bytes) = ((&raw const time).cast(), size_of_val(&time) as u32);
    let accept = || unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) };
    let asked = green(|| {
        let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, at, bytes) };
        assert_eq!(set, 0);
        assert_eq!(failed(accept() as isize), libc::EAGAIN);
        assert_eq!(failed(plain(accept) as isize), libc::EAGAIN);
    });
    assert_eq!(asked, [Call::WaitUntil(fd, Direction::Read)]);
}

#[test]
fn accepted_sockets_inherit_the_listeners_timeout_as_in_the_kernel() {
    let (listener, address) = listener();
    let time = libc::timeval { tv_sec: 0, tv_usec: 5000 };
    let (at, bytes) = ((&raw const time).cast(), size_of_val(&time) as u32);
    let asked = green(|| {
        let fd = listener.as_raw_fd();
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, at, bytes) };
        let _client = plain(|| TcpStream::connect(address)).expect("connected");
        let (mut accepted, _) = listener.accept().expect("accepted");
        calls();
        assert_eq!(accepted.read(&mut [0; 8]).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    });
    assert!(matches!(asked[0], Call::WaitUntil(_, Direction::Read)));
}

#[test]
fn accept_on_what_does_not_listen_fails_as_ever() {
    let (client, _server) = tcp_pair();
    let fd = client.as_raw_fd();
    let accept = |fd| unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) };
    green(|| {
        assert_eq!(failed(accept(fd) as isize), libc::EINVAL);
        assert_eq!(failed(accept(-1) as isize), libc::EBADF);
        assert_eq!(failed(accept(0) as isize), libc::ENOTSOCK);
    });
    assert!(!really_nonblocking(fd));
}

#[test]
fn accept4_and_sock_nonblock_are_known_from_birth() {
    let (listener, address) = listener();
    let asked = green(|| {
        let _client = plain(|| TcpStream::connect(address)).expect("connected");
        let (fd, null) = (listener.as_raw_fd(), std::ptr::null_mut());
        let new = unsafe { libc::accept4(fd, null, null.cast(), libc::SOCK_NONBLOCK) };
        let mut accepted = unsafe { TcpStream::from_raw_fd(new) };
        assert_eq!(accepted.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
    assert_eq!(waits(&asked), 0);
}

#[test]
fn connect_parks_and_leaves_a_blocking_socket_behind() {
    let (listener, address) = listener();
    let asked = green(|| {
        let mut client = TcpStream::connect(address).expect("connected");
        assert!(!really_nonblocking(client.as_raw_fd()));
        let (mut server, _) = plain(|| listener.accept()).expect("accepted");
        plain(|| server.write_all(b"abc")).expect("sent");
        assert_eq!(client.read(&mut [0; 3]).expect("read"), 3);
        assert_eq!(connect_to(&client, address), Err(libc::EISCONN));
    });
    assert!(matches!(asked[0], Call::Wait(_, Direction::Write)), "{asked:?}");
}

/// connect(2), as std does not show it.
fn connect_to(socket: &impl AsRawFd, address: SocketAddr) -> Result<(), i32> {
    let SocketAddr::V4(address) = address else { panic!("an IPv4 address") };
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let bytes = size_of_val(&name) as u32;
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), bytes) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

fn tcp_socket(flags: i32) -> OwnedFd {
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | flags, 0) };
    assert!(fd >= 0);
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn a_refused_connect_says_so() {
    let (listener, address) = listener();
    drop(listener);
    green(|| {
        let socket = tcp_socket(0);
        assert_eq!(connect_to(&socket, address), Err(libc::ECONNREFUSED));
        assert!(!really_nonblocking(socket.as_raw_fd()));
        let socket = tcp_socket(libc::SOCK_NONBLOCK);
        assert_eq!(connect_to(&socket, address), Err(libc::EINPROGRESS));
        assert!(really_nonblocking(socket.as_raw_fd()));
    });
}

#[test]
fn a_wait_of_connect_ends_as_its_wake_says() {
    let expected = [
        (Wake::TimedOut, libc::EINPROGRESS),
        (Wake::Killed, libc::ECANCELED),
        (Wake::Expired, libc::ETIMEDOUT),
        (Wake::Closed, libc::EBADF),
    ];
    for (wake, error) in expected {
        let (_listener, address) = listener();
        green(|| {
            let socket = tcp_socket(0);
            next_wait_ends(wake);
            assert_eq!(connect_to(&socket, address), Err(error));
            assert_eq!(flags(socket.as_raw_fd()) & libc::O_NONBLOCK, 0);
            assert_eq!(really_nonblocking(socket.as_raw_fd()), wake == Wake::Closed);
        });
    }
}

#[test]
fn a_second_connect_joins_the_first() {
    let (_listener, address) = listener();
    green(|| {
        let socket = tcp_socket(0);
        next_wait_ends(Wake::Killed);
        assert_eq!(connect_to(&socket, address), Err(libc::ECANCELED));
        assert_eq!(connect_to(&socket, address), Ok(()));
        assert_eq!(connect_to(&socket, address), Err(libc::EISCONN));
    });
}

#[test]
fn a_flag_set_while_connecting_is_kept() {
    let (_listener, address) = listener();
    green(|| {
        let socket = tcp_socket(0);
        let fd = socket.as_raw_fd();
        at_next_wait(move || {
            assert_eq!(flags(fd) & libc::O_NONBLOCK, 0);
            assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        });
        assert_eq!(connect_to(&socket, address), Ok(()));
        assert!(really_nonblocking(fd));
        assert_ne!(flags(fd) & libc::O_NONBLOCK, 0);
    });
}

#[test]
fn connect_timeout_of_std_polls_and_connects() {
    let (_listener, address) = listener();
    let asked = green(|| {
        let client = TcpStream::connect_timeout(&address, std::time::Duration::from_secs(20));
        assert!(!really_nonblocking(client.expect("connected").as_raw_fd()));
    });
    assert!(!asked.iter().any(|call| matches!(call, Call::Wait(..) | Call::WaitUntil(..))));
}

#[test]
fn a_full_backlog_of_a_unix_listener_is_waited_for_in_naps() {
    let path = std::env::temp_dir().join(format!("greenling-backlog-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("a listener");
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let first = plain(|| UnixStream::connect(&path)).expect("the backlog's one place");
    let asked = green(|| {
        next_wait_ends(Wake::Ready);
        let second = listener.try_clone().expect("a duplicate");
        at_next_wait(move || drop(second.accept().expect("accepted")));
        UnixStream::connect(&path).expect("connected in the end");
        next_wait_ends(Wake::Killed);
        let error = UnixStream::connect(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    });
    assert_eq!(asked.iter().filter(|call| **call == Call::Sleep).count(), 3);
    drop(first);
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn connecting_a_datagram_socket_does_not_touch_it() {
    let asked = green(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        socket.connect((Ipv4Addr::LOCALHOST, 9)).expect("connected");
        assert!(!really_nonblocking(socket.as_raw_fd()));
        std::mem::forget(socket);
    });
    assert_eq!(waits(&asked), 0);
}
