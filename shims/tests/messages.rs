//! Sockets of messages, and what travels beside the bytes.
#![allow(missing_docs, clippy::undocumented_unsafe_blocks)]

mod common;

use std::io::{IoSlice, IoSliceMut, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use common::*;
use greenling_shims::runtime::{Direction, Wake};

fn udp_pair() -> (UdpSocket, UdpSocket) {
    plain(|| {
        let one = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let two = UdpSocket::bind("127.0.0.1:0").expect("bound");
        one.connect(two.local_addr().expect("an address")).expect("connected");
        two.connect(one.local_addr().expect("an address")).expect("connected");
        (one, two)
    })
}

#[test]
fn a_datagram_that_was_cut_is_no_shortage() {
    let (one, two) = udp_pair();
    let fd = two.as_raw_fd();
    let asked = green(|| {
        at_next_wait(move || {
            one.send(b"abcdef").expect("sent");
            one.send(b"gh").expect("sent");
        });
        let mut buffer = [0; 4];
        assert_eq!(two.recv(&mut buffer).expect("received"), 4);
        assert_eq!(two.recv_from(&mut buffer).expect("received").0, 2);
    });
    let read = Direction::Read;
    assert_eq!(asked, [Call::Wait(fd, read)]);
}

#[test]
fn msg_trunc_answers_the_real_length() {
    let (one, two) = udp_pair();
    green(|| {
        one.send(b"abcdef").expect("sent");
        settle(two.as_raw_fd(), libc::POLLIN);
        let mut buffer = [0_u8; 4];
        let at = buffer.as_mut_ptr().cast();
        assert_eq!(unsafe { libc::recv(two.as_raw_fd(), at, 4, libc::MSG_TRUNC) }, 6);
    });
}

#[test]
fn empty_datagrams_arrive_by_write_but_not_by_writev() {
    let (one, two) = udp_pair();
    green(|| unsafe {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        assert_eq!(libc::writev(one.as_raw_fd(), &raw const empty, 1), 0);
        assert_eq!(libc::write(one.as_raw_fd(), b"".as_ptr().cast(), 0), 0);
        one.send(b"x").expect("sent");
        settle(two.as_raw_fd(), libc::POLLIN);
        let mut buffer = [0; 4];
        assert_eq!(two.recv(&mut buffer).expect("the empty one"), 0);
        assert_eq!(two.recv(&mut buffer).expect("the other"), 1);
    });
}

#[test]
fn a_full_unix_datagram_peer_is_waited_for() {
    let (one, two) = UnixDatagram::pair().expect("a pair");
    let fd = one.as_raw_fd();
    let asked = green(|| {
        one.set_nonblocking(true).expect("set");
        while one.send(b"x").is_ok() {}
        one.set_nonblocking(false).expect("set");
        calls();
        at_next_wait(move || {
            two.recv(&mut [0; 8]).expect("received");
            std::mem::forget(two);
        });
        assert_eq!(one.send(b"y").expect("sent"), 1);
    });
    assert_eq!(asked[0], Call::Wait(fd, Direction::Write));
}

#[test]
fn a_full_peer_that_is_named_in_each_send_is_waited_for_in_naps() {
    let path = std::env::temp_dir().join(format!("greenling-datagram-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let receiver = UnixDatagram::bind(&path).expect("bound");
    let sender = UnixDatagram::unbound().expect("a socket");
    let asked = green(|| {
        sender.set_nonblocking(true).expect("set");
        while sender.send_to(b"x", &path).is_ok() {}
        sender.set_nonblocking(false).expect("set");
        calls();
        next_wait_ends(Wake::Ready);
        at_next_wait(move || {
            receiver.recv(&mut [0; 8]).expect("received");
            std::mem::forget(receiver);
        });
        assert_eq!(sender.send_to(b"y", &path).expect("sent"), 1);
    });
    assert_eq!(asked[..2], [Call::Sleep, Call::Sleep]);
    std::fs::remove_file(&path).expect("removed");
}

/// A message of one vector, with room for one fd beside it.
struct Envelope {
    vector: libc::iovec,
    room: [u64; 4],
}

impl Envelope {
    fn new(bytes: &mut [u8]) -> Envelope {
        let vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        Envelope { vector, room: [0; 4] }
    }

    fn message(&mut self) -> libc::msghdr {
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut self.vector;
        message.msg_iovlen = 1;
        message.msg_control = self.room.as_mut_ptr().cast();
        message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as usize;
        message
    }
}

#[test]
fn an_fd_goes_with_the_first_part_of_a_long_message_and_only_with_it() {
    let (one, two) = UnixStream::pair().expect("a pair");
    let mut bytes = vec![7_u8; 4 << 20];
    let (full, is_full) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        is_full.recv().expect("told");
        let (mut received, mut fds) = (0, Vec::new());
        let mut buffer = vec![0; 1 << 16];
        loop {
            let mut envelope = Envelope::new(&mut buffer);
            let mut message = envelope.message();
            let answer = unsafe { libc::recvmsg(two.as_raw_fd(), &raw mut message, 0) };
            assert!(answer >= 0);
            let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
            if !header.is_null() {
                fds.push(unsafe { libc::CMSG_DATA(header).cast::<i32>().read_unaligned() });
            }
            match answer {
                0 => return (received, fds),
                more => received += more,
            }
        }
    });
    let asked = green(|| unsafe {
        // The reader begins when the first part has filled the socket.
        at_next_wait(move || full.send(()).expect("told"));
        let mut envelope = Envelope::new(&mut bytes);
        let message = envelope.message();
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(one.as_raw_fd());
        assert_eq!(libc::sendmsg(one.as_raw_fd(), &raw const message, 0), 4 << 20);
    });
    assert!(waits(&asked) > 0);
    one.shutdown(std::net::Shutdown::Both).expect("shut down");
    let (received, fds) = reader.join().expect("the reader");
    assert_eq!((received, fds.len()), (4 << 20, 1));
    unsafe { libc::close(fds[0]) };
}

#[test]
fn a_received_fd_keeps_its_own_state() {
    let (one, two) = UnixStream::pair().expect("a pair");
    let (client, _server) = tcp_pair();
    let asked = green(|| unsafe {
        client.set_nonblocking(true).expect("set");
        let mut byte = [1];
        let mut envelope = Envelope::new(&mut byte);
        let message = envelope.message();
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(client.as_raw_fd());
        assert_eq!(libc::sendmsg(one.as_raw_fd(), &raw const message, 0), 1);
        let mut envelope = Envelope::new(&mut byte);
        let mut message = envelope.message();
        assert_eq!(libc::recvmsg(two.as_raw_fd(), &raw mut message, 0), 1);
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let fd = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
        calls();
        assert_eq!(failed(libc::recv(fd, byte.as_mut_ptr().cast(), 1, 0)), libc::EAGAIN);
        libc::close(fd);
    });
    assert_eq!(waits(&asked), 0);
}

#[test]
fn vectors_of_a_datagram_are_one_message() {
    let (one, two) = udp_pair();
    green(|| unsafe {
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
        assert_eq!(libc::writev(one.as_raw_fd(), parts.as_ptr().cast(), 2), 4);
        settle(two.as_raw_fd(), libc::POLLIN);
        let (mut first, mut second) = ([0; 1], [0; 8]);
        let mut room = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(libc::readv(two.as_raw_fd(), room.as_mut_ptr().cast(), 2), 4);
        assert_eq!((&first, &second[..3]), (b"a", &b"bcd"[..]));
    });
}

#[test]
fn a_record_of_sequenced_packets_is_one_message() {
    let mut pair = [0; 2];
    green(|| unsafe {
        let made = libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, pair.as_mut_ptr());
        assert_eq!(made, 0);
        assert_eq!(libc::write(pair[0], b"abc".as_ptr().cast(), 3), 3);
        assert_eq!(libc::write(pair[0], b"d".as_ptr().cast(), 1), 1);
        let mut buffer = [0_u8; 8];
        assert_eq!(libc::read(pair[1], buffer.as_mut_ptr().cast(), 8), 3);
        assert_eq!(libc::read(pair[1], buffer.as_mut_ptr().cast(), 8), 1);
        pair.iter().for_each(|&fd| assert_eq!(libc::close(fd), 0));
    });
}

#[test]
fn the_fortified_names_are_the_same_calls() {
    unsafe extern "C" {
        fn __recv_chk(fd: i32, at: *mut u8, bytes: usize, room: usize, flags: i32) -> isize;
        fn __read_chk(fd: i32, at: *mut u8, bytes: usize, room: usize) -> isize;
        fn __poll_chk(fds: *mut libc::pollfd, count: u64, timeout: i32, room: usize) -> i32;
    }
    let (mut one, two) = UnixStream::pair().expect("a pair");
    let fd = two.as_raw_fd();
    let asked = green(|| unsafe {
        let mut buffer = [0_u8; 4];
        let mut writer = one.try_clone().expect("a duplicate");
        at_next_wait(move || writer.write_all(b"ab").expect("sent"));
        assert_eq!(__recv_chk(fd, buffer.as_mut_ptr(), 4, 4, 0), 2);
        let mut writer = one.try_clone().expect("a duplicate");
        at_next_wait(move || writer.write_all(b"cd").expect("sent"));
        assert_eq!(__read_chk(fd, buffer.as_mut_ptr(), 4, 4), 2);
        at_next_wait(move || one.write_all(b"e").expect("sent"));
        let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        assert_eq!(__poll_chk(&raw mut entry, 1, -1, size_of::<libc::pollfd>()), 1);
    });
    assert_eq!(waits(&asked), 3);
}
