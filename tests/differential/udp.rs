//! UDP.

use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use libc::{MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};

use crate::common::sys;
use crate::world::{Transcript, World, told};

/// A timeout that is meant to expire.
const SHORT: Duration = Duration::from_millis(20);

/// Two sockets that are connected to each other.
fn pair() -> (UdpSocket, UdpSocket) {
    let (left, right) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    left.connect(right.local_addr().unwrap()).unwrap();
    right.connect(left.local_addr().unwrap()).unwrap();
    (left, right)
}

/// There and back, with names.
pub(crate) fn datagrams(world: World, log: &mut Transcript) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let serving = world.spawn(move || {
        let mut buffer = [0; 100];
        for _ in 0..3 {
            let (done, peer) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..done], peer).unwrap();
        }
    });
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut buffer = [0; 100];
    for message in [&b"one"[..], b"two", b"three"] {
        log.io("send_to", client.send_to(message, address));
        let (done, peer) = client.recv_from(&mut buffer).unwrap();
        log.note("answer", (&buffer[..done], peer == address));
    }
    serving.join();
}

/// What does not fit is lost.
pub(crate) fn truncation(_: World, log: &mut Transcript) {
    let (left, right) = pair();
    let message: Vec<u8> = (0..100).collect();
    let mut buffer = [0; 10];
    for _ in 0..4 {
        left.send(&message).unwrap();
    }
    left.send(b"next").unwrap();
    log.io("recv", right.recv(&mut buffer));
    log.note("buffer", buffer);
    log.io("true size", sys::recv(right.as_raw_fd(), &mut buffer, MSG_TRUNC));
    let mut room = [std::io::IoSliceMut::new(&mut buffer)];
    let message = sys::recvmsg(right.as_raw_fd(), &mut room, 0, 0);
    log.io("recvmsg", message.map(|it| (it.bytes, it.flags)));
    log.io("read", sys::read(right.as_raw_fd(), &mut buffer));
    log.io("next", right.recv(&mut buffer));
    log.note("buffer", &buffer[..4]);
}

/// Datagrams of no bytes.
pub(crate) fn empty_datagrams(world: World, log: &mut Transcript) {
    let (left, right) = pair();
    let reader = world.spawn(move || {
        let mut buffer = [0; 4];
        let fd = right.as_raw_fd();
        let seen = [
            told(right.recv(&mut buffer)),
            told(sys::read(fd, &mut buffer)),
            told(sys::recv(fd, &mut buffer, MSG_WAITALL)),
            told(right.recv(&mut [])),
            told(right.recv(&mut buffer)),
        ];
        (seen, right)
    });
    log.io("send", left.send(&[]));
    log.io("write", sys::send(left.as_raw_fd(), &[], 0));
    log.io("send", left.send(&[]));
    log.io("send", left.send(b"lost"));
    log.io("send", left.send(b"seen"));
    let (seen, right) = reader.join();
    log.note("seen", seen);
    // write(2) and writev(2) of nothing.
    log.io("write(2)", sys::write(left.as_raw_fd(), &[]));
    log.io("recv", sys::recv(right.as_raw_fd(), &mut [0; 1], MSG_DONTWAIT).map(|_| ()));
    log.io("writev", sys::writev(left.as_raw_fd(), &[std::io::IoSlice::new(&[])]));
    log.io("recv", sys::recv(right.as_raw_fd(), &mut [0; 1], MSG_DONTWAIT).map(|_| ()));
}

/// SO_RCVTIMEO.
pub(crate) fn udp_timeout(_: World, log: &mut Transcript) {
    let (left, right) = pair();
    right.set_read_timeout(Some(SHORT)).unwrap();
    let mut buffer = [0; 4];
    log.io("recv", right.recv(&mut buffer));
    log.io("recv_from", right.recv_from(&mut buffer));
    log.io("peek_from", right.peek_from(&mut buffer));
    log.io("all", sys::recv(right.as_raw_fd(), &mut buffer, MSG_WAITALL));
    left.send(b"data").unwrap();
    log.io("recv", right.recv(&mut buffer));
}

/// Nobody listens: the next call hears of it.
pub(crate) fn udp_refused(_: World, log: &mut Transcript) {
    let (left, right) = pair();
    drop(right);
    log.io("send", left.send(b"x"));
    log.io("recv", left.recv(&mut [0; 1]));
    log.io("send", left.send(b"x"));
    log.io("poll", sys::poll(&[(left.as_raw_fd(), libc::POLLIN)], -1));
    log.io("send", left.send(b"x"));
    log.io("poll", sys::poll(&[(left.as_raw_fd(), libc::POLLIN)], 0).map(|_| ()));
    left.set_read_timeout(Some(SHORT)).unwrap();
    log.io("recv", left.recv(&mut [0; 1]));
    log.io("send", left.send(b"x"));
    let error = left.take_error().unwrap();
    log.note("error", error.map(|error| error.raw_os_error()));
    log.io("recv", left.recv(&mut [0; 1]));
}

/// IPv6.
pub(crate) fn udp_over_ipv6(_: World, log: &mut Transcript) {
    match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Err(error) => log.io::<()>("bind", Err(error)),
        Ok(socket) => {
            let address = socket.local_addr().unwrap();
            log.io("send_to", socket.send_to(b"myself", address));
            let mut buffer = [0; 8];
            log.io(
                "recv_from",
                socket.recv_from(&mut buffer).map(|(n, from)| (n, from == address)),
            );
            log.note("buffer", buffer);
        }
    }
}

/// What can't be sent.
pub(crate) fn udp_errors(_: World, log: &mut Transcript) {
    let (left, _right) = pair();
    log.io("too large", left.send(&vec![0; 70_000]));
    let fresh = UdpSocket::bind("127.0.0.1:0").unwrap();
    log.io("nowhere", fresh.send(b"x"));
    log.io("port 0", fresh.send_to(b"x", "127.0.0.1:0"));
    log.io("no broadcast", fresh.send_to(b"x", "255.255.255.255:9"));
    log.io("another family", fresh.send_to(b"x", "[::1]:9"));
    log.io("far", fresh.send_to(b"x", "192.0.2.1:9"));
    log.io("not connected", fresh.peer_addr());
    log.io("connect elsewhere", left.connect(fresh.local_addr().unwrap()));
    log.io("send", left.send(b"to fresh"));
    log.io("recv", fresh.recv(&mut [0; 20]));
}

/// A shutdown of the reading side ends receives that wait, and those that come later.
pub(crate) fn udp_shutdown(world: World, log: &mut Transcript) {
    let fresh = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [pair().0, fresh] {
        let fd = socket.as_raw_fd();
        let receiving = socket.try_clone().unwrap();
        let reader = world.spawn(move || {
            let mut buffer = [0; 9];
            let first = told(receiving.recv(&mut buffer));
            (first, told(receiving.recv_from(&mut buffer).map(|(done, _)| done)))
        });
        std::thread::sleep(Duration::from_millis(3));
        log.io("shutdown", sys::shutdown(fd, libc::SHUT_RD));
        log.note("recv", reader.join());
        log.io("recv", socket.recv(&mut [0; 9]));
        log.io("without waiting", sys::recv(fd, &mut [0; 9], MSG_DONTWAIT));
        log.io("recv", socket.recv(&mut [0; 9]));
        log.io("read", sys::read(fd, &mut [0; 9]));
        let mut room = [0; 9];
        let mut pieces = [std::io::IoSliceMut::new(&mut room)];
        log.io("readv", sys::readv(fd, &mut pieces));
        log.io("recvmsg", sys::recvmsg(fd, &mut pieces, 0, 0).map(|it| it.bytes));
    }
}

/// Peeking.
pub(crate) fn udp_peek(world: World, log: &mut Transcript) {
    let (left, right) = pair();
    let peeker = world.spawn(move || {
        let mut buffer = [0; 3];
        let peeked = told(right.peek(&mut buffer));
        (peeked, told(right.peek_from(&mut buffer).map(|(done, _)| done)), right)
    });
    left.send(b"abcdef").unwrap();
    let (first, second, right) = peeker.join();
    log.note("peek", (first, second));
    let mut buffer = [0; 10];
    let flags = MSG_PEEK | MSG_TRUNC;
    log.io("true size", sys::recv(right.as_raw_fd(), &mut buffer[..2], flags));
    log.io("recv", right.recv(&mut buffer));
    log.note("buffer", buffer);
    log.io("gone", sys::recv(right.as_raw_fd(), &mut buffer, MSG_DONTWAIT | MSG_PEEK));
}

/// O_NONBLOCK.
pub(crate) fn udp_nonblocking(_: World, log: &mut Transcript) {
    let (left, right) = pair();
    right.set_nonblocking(true).unwrap();
    log.io("recv", right.recv(&mut [0; 4]));
    log.io("recv_from", right.recv_from(&mut [0; 4]));
    log.io("read", sys::read(right.as_raw_fd(), &mut [0; 4]));
    log.io("flags", sys::status_flags(right.as_raw_fd()));
    left.send(b"data").unwrap();
    log.io("poll", sys::poll(&[(right.as_raw_fd(), libc::POLLIN)], -1));
    log.io("recv", right.recv(&mut [0; 4]));
    right.set_nonblocking(false).unwrap();
    log.io("flags", sys::status_flags(right.as_raw_fd()));
    log.io("send", right.send(b"back"));
    log.io("recv", left.recv(&mut [0; 4]));
}

/// Two readers: each datagram reaches one of them, whole.
pub(crate) fn udp_two_at_a_time(world: World, log: &mut Transcript) {
    let (left, right) = pair();
    let readers = [right.try_clone().unwrap(), right].map(|socket| {
        world.spawn(move || {
            let mut seen = Vec::new();
            let mut buffer = [0; 4];
            while socket.recv(&mut buffer).unwrap() == 2 {
                seen.push((buffer[0], buffer[1]));
            }
            seen
        })
    });
    for n in 0..50 {
        left.send(&[n, n]).unwrap();
    }
    // One end for each reader.
    left.send(&[]).unwrap();
    left.send(&[]).unwrap();
    let mut all: Vec<_> = readers.into_iter().flat_map(|reader| reader.join()).collect();
    all.sort_unstable();
    log.note("all", all);
}
