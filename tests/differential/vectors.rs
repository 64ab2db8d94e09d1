//! Many pieces at once: readv, writev, sendmsg, recvmsg.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use libc::{MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_WAITALL};

use crate::common::sys;
use crate::world::{Transcript, World, tcp_pair, told};

/// std's vectored reads and writes.
pub(crate) fn vectored(world: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    let (mut first, mut second, mut third) = ([0; 2], [0; 0], [0; 5]);
    let reader = world.spawn(move || {
        let mut pieces = [
            IoSliceMut::new(&mut first),
            IoSliceMut::new(&mut second),
            IoSliceMut::new(&mut third),
        ];
        let done = told(client.read_vectored(&mut pieces));
        (done, first, third, client)
    });
    let pieces = [&b"ab"[..], b"", b"cde", b"f"].map(IoSlice::new);
    log.io("write", server.write_vectored(&pieces));
    let (done, first, third, mut client) = reader.join();
    log.note("read", (done, first, third));
    client.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    log.io("nothing", client.read_vectored(&mut [IoSliceMut::new(&mut [0; 1])]));
    drop(server);
    client.set_read_timeout(None).unwrap();
    log.io("end", client.read_vectored(&mut [IoSliceMut::new(&mut [0; 1])]));
}

/// Exactly IOV_MAX pieces, and what std makes of more.
pub(crate) fn a_thousand_pieces(_: World, log: &mut Transcript) {
    let (mut client, server) = tcp_pair();
    let pieces = vec![IoSlice::new(b"xyz"); 1024];
    log.io("writev", sys::writev(client.as_raw_fd(), &pieces));
    let mut bytes = vec![0u8; 3 * 1024];
    let mut room: Vec<_> = bytes.chunks_mut(3).map(IoSliceMut::new).collect();
    let fd = server.as_raw_fd();
    let done = told(sys::recvmsg(fd, &mut room, 0, MSG_WAITALL).map(|it| (it.bytes, it.flags)));
    log.note("recvmsg", done);
    log.note("bytes", bytes.chunks(3).all(|chunk| chunk == b"xyz"));
    let pieces = vec![IoSlice::new(b"ab"); 3000];
    log.io("write_vectored", client.write_vectored(&pieces));
}

/// More than IOV_MAX pieces, and fewer than none.
pub(crate) fn too_many_pieces(_: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    let fd = client.as_raw_fd();
    let pieces = vec![IoSlice::new(b"x"); 1025];
    log.io("writev", sys::writev(fd, &pieces));
    log.io("sendmsg", sys::sendmsg(fd, &pieces, &[], MSG_NOSIGNAL));
    let mut bytes = vec![0u8; 1025];
    let mut room: Vec<_> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
    log.io("readv", sys::readv(fd, &mut room));
    log.io("recvmsg", sys::recvmsg(fd, &mut room, 0, 0).map(|it| it.bytes));
    // SAFETY: the kernel refuses the count.
    let negative = unsafe {
        (
            told(sys::cvt(libc::writev(fd, std::ptr::null(), -1))),
            told(sys::cvt(libc::readv(fd, std::ptr::null(), -1))),
        )
    };
    log.note("negative", negative);
    // SAFETY: the kernel refuses a piece of more than isize::MAX bytes before it reads any.
    let huge = unsafe {
        let piece = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: usize::MAX };
        let pieces = [piece, piece];
        told(sys::cvt(libc::writev(fd, pieces.as_ptr(), 2)))
    };
    log.note("huge", huge);
    drop(server);
}

/// A writev of more than fits goes on until all is sent.
pub(crate) fn vectors_to_a_slow_reader(world: World, log: &mut Transcript) {
    let (mut client, server) = tcp_pair();
    let reader = world.spawn(move || {
        let mut all = Vec::new();
        let mut chunk = vec![0; 100_000];
        loop {
            std::thread::sleep(Duration::from_millis(1));
            match client.read(&mut chunk).unwrap() {
                0 => return all,
                done => all.extend_from_slice(&chunk[..done]),
            }
        }
    });
    let parts: Vec<Vec<u8>> = (0..700usize).map(|n| vec![n as u8; n * 23 % 16_000]).collect();
    let pieces: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    log.io("writev", sys::writev(server.as_raw_fd(), &pieces));
    drop(server);
    log.note("arrived", reader.join() == parts.concat());
}

/// Likewise with sendmsg, over a Unix socket.
pub(crate) fn sendmsg_to_a_slow_reader(world: World, log: &mut Transcript) {
    let (mut client, server) = std::os::unix::net::UnixStream::pair().unwrap();
    let reader = world.spawn(move || {
        let mut all = Vec::new();
        let mut chunk = vec![0; 100_000];
        loop {
            std::thread::sleep(Duration::from_millis(1));
            match client.read(&mut chunk).unwrap() {
                0 => return all,
                done => all.extend_from_slice(&chunk[..done]),
            }
        }
    });
    let parts: Vec<Vec<u8>> = (0..500usize).map(|n| vec![n as u8; n * 31 % 9_000]).collect();
    let pieces: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    log.io("sendmsg", sys::sendmsg(server.as_raw_fd(), &pieces, &[], MSG_NOSIGNAL));
    drop(server);
    log.note("arrived", reader.join() == parts.concat());
}

/// Vectors without any bytes.
pub(crate) fn empty_vectors(_: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    let fd = client.as_raw_fd();
    log.io("writev of none", sys::writev(fd, &[]));
    log.io("readv of none", sys::readv(fd, &mut []));
    log.io("writev of nothing", sys::writev(fd, &[IoSlice::new(&[]); 3]));
    log.io("readv of nothing", sys::readv(fd, &mut [IoSliceMut::new(&mut [])]));
    log.io("sendmsg of none", sys::sendmsg(fd, &[], &[], MSG_NOSIGNAL));
    let empty = sys::recvmsg(fd, &mut [], 0, MSG_DONTWAIT).map(|it| it.bytes);
    log.io("recvmsg of none", empty);
    drop(server);
}

/// Memory that is not there.
pub(crate) fn bad_pointers(_: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let fd = client.as_raw_fd();
    server.write_all(b"data").unwrap();
    log.io("poll", sys::poll(&[(fd, libc::POLLIN)], -1));
    let bad = std::ptr::without_provenance_mut::<libc::c_void>(8);
    // SAFETY: it is the kernel that looks at the pointers, and it refuses them.
    let results = unsafe {
        [
            libc::recv(fd, bad, 4, 0),
            libc::recv(fd, bad, 4, MSG_PEEK),
            libc::read(fd, bad, 4),
            libc::recvfrom(fd, bad, 4, 0, std::ptr::null_mut(), std::ptr::null_mut()),
            libc::send(fd, bad, 4, MSG_NOSIGNAL),
            libc::write(fd, bad, 4),
            libc::recvmsg(fd, bad.cast(), 0),
            libc::sendmsg(fd, bad.cast(), MSG_NOSIGNAL),
            libc::readv(fd, bad.cast(), 1),
            libc::writev(fd, bad.cast(), 1),
            libc::poll(bad.cast(), 1, 0) as isize,
            libc::accept(fd, bad.cast(), bad.cast()) as isize,
        ]
        .map(|result| told(sys::cvt(result)))
    };
    log.note("refused", results);
    let mut buffer = [0; 4];
    log.io("still there", sys::recv(fd, &mut buffer, 0));
    log.note("buffer", buffer);
}

/// recvmsg with MSG_WAITALL fills all its pieces.
pub(crate) fn messages_wait_for_all(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let reader = world.spawn(move || {
        let (mut first, mut second) = ([0; 4], [0; 6]);
        let mut room = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        let fd = client.as_raw_fd();
        let all = told(sys::recvmsg(fd, &mut room, 0, MSG_WAITALL).map(|it| it.bytes));
        let end = told(sys::recvmsg(fd, &mut room, 0, MSG_WAITALL).map(|it| it.bytes));
        (all, end, first, second)
    });
    for piece in [&b"a"[..], b"bcdef", b"ghijk", b"l"] {
        server.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(server);
    log.note("recvmsg", reader.join());
}
