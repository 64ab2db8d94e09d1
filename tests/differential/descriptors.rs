//! Fds: bad ones, closed ones, duplicates, flags, pipes and files.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::common::sys;
use crate::world::{Transcript, World, tcp_pair, told};

/// Numbers from here on are given to nobody by chance. Each scenario that goes on with closed
/// numbers has a range of its own, and all fit under the usual limit of 1024.
const RESERVED: RawFd = 700;

/// Every call that takes an fd, with one that is none.
fn use_bad(log: &mut Transcript, fd: RawFd) {
    let address = "127.0.0.1:9".parse().unwrap();
    let mut byte = [0];
    log.io("recv", sys::recv(fd, &mut byte, 0));
    log.io("recvfrom", sys::recvfrom(fd, &mut byte, 0));
    log.io("recvmsg", sys::recvmsg(fd, &mut [IoSliceMut::new(&mut byte)], 0, 0).map(|_| ()));
    log.io("read", sys::read(fd, &mut byte));
    log.io("readv", sys::readv(fd, &mut [IoSliceMut::new(&mut byte)]));
    log.io("send", sys::send(fd, &byte, 0));
    log.io("sendto", sys::sendto(fd, &byte, 0, address));
    log.io("sendmsg", sys::sendmsg(fd, &[IoSlice::new(&byte)], &[], 0));
    log.io("write", sys::write(fd, &byte));
    log.io("write nothing", sys::write(fd, &[]));
    log.io("read nothing", sys::read(fd, &mut []));
    log.io("writev", sys::writev(fd, &[IoSlice::new(&byte)]));
    log.io("connect", sys::connect(fd, address));
    log.io("accept", sys::accept(fd).map(drop));
    log.io("accept4", sys::accept4(fd, 0).map(drop));
    log.io("shutdown", sys::shutdown(fd, libc::SHUT_RDWR));
    log.io("setsockopt", sys::set_option(fd, libc::SO_KEEPALIVE, 1));
    log.io("flags", sys::status_flags(fd));
    log.io("F_SETFL", sys::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK));
    log.io("F_DUPFD", sys::fcntl(fd, libc::F_DUPFD, 0));
    log.io("dup2", sys::dup2(fd, RESERVED + 299));
    log.io("dup2 itself", sys::dup2(fd, fd));
    log.io("dup3", sys::dup3(fd, RESERVED + 299, 0));
    log.io("poll", sys::poll(&[(fd, libc::POLLIN)], 0));
    log.io("close", sys::close(fd));
}

/// Numbers that are no fds.
pub(crate) fn bad_fds(_: World, log: &mut Transcript) {
    for fd in [-1, -100, RawFd::MAX, 1 << 20, (1 << 20) - 1] {
        log.note("fd", fd);
        use_bad(log, fd);
    }
}

/// A number that was a socket, and was used as one.
pub(crate) fn closed_fds(_: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let fd = sys::dup_above(&client, RESERVED).unwrap();
    server.write_all(b"ab").unwrap();
    log.io("recv", sys::recv(fd, &mut [0; 1], 0));
    log.io("close", sys::close(fd));
    use_bad(log, fd);
    log.io("the other", (&client).read(&mut [0; 1]));
}

/// One fd replaces another.
pub(crate) fn dup_over(world: World, log: &mut Transcript) {
    let (first, mut first_peer) = tcp_pair();
    let (second, mut second_peer) = tcp_pair();
    log.io("dup2", sys::dup2(second.as_raw_fd(), first.as_raw_fd()).map(|_| ()));
    log.io("peer", first_peer.read(&mut [0; 1]));
    second_peer.write_all(b"new").unwrap();
    let mut buffer = [0; 3];
    log.io("read", (&first).read_exact(&mut buffer));
    log.note("buffer", buffer);
    drop(second);
    let mut reading = first.try_clone().unwrap();
    let reader = world.spawn(move || told(reading.read(&mut [0; 8])));
    second_peer.write_all(b"still").unwrap();
    log.note("read", reader.join());
    log.io("itself", sys::dup2(first.as_raw_fd(), first.as_raw_fd()).map(|_| ()));
    log.io("dup3 itself", sys::dup3(first.as_raw_fd(), first.as_raw_fd(), 0).map(|_| ()));
    log.io("to a bad number", sys::dup2(first.as_raw_fd(), -1));
    log.io("bad flags", sys::dup3(first.as_raw_fd(), RESERVED + 40, 77));
    // A nonblocking one takes the place of a blocking one, and the other way round.
    let (third, _third_peer) = tcp_pair();
    third.set_nonblocking(true).unwrap();
    log.io("dup3", sys::dup3(third.as_raw_fd(), first.as_raw_fd(), 0).map(|_| ()));
    log.io("read", (&first).read(&mut [0; 1]));
    log.io("flags", sys::status_flags(first.as_raw_fd()));
    let (fourth, fourth_peer) = UnixStream::pair().unwrap();
    log.io("dup2", sys::dup2(fourth.as_raw_fd(), first.as_raw_fd()).map(|_| ()));
    (&fourth_peer).write_all(b"unix").unwrap();
    log.io("read", (&first).read(&mut [0; 8]));
    log.io("flags", sys::status_flags(first.as_raw_fd()));
    let file = std::fs::File::open("/proc/self/status").unwrap();
    log.io("dup2", sys::dup2(file.as_raw_fd(), first.as_raw_fd()).map(|_| ()));
    log.io("read", sys::read(first.as_raw_fd(), &mut [0; 4]));
    log.io("recv", (&first).read(&mut [0; 4]));
}

/// Duplicates of duplicates; the last one counts.
pub(crate) fn duplicates(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let mut clones: Vec<TcpStream> = (0..5).map(|_| client.try_clone().unwrap()).collect();
    drop(client);
    for (round, mut clone) in clones.drain(..).enumerate() {
        let reader = world.spawn(move || (told(clone.read(&mut [0; 9])), clone));
        server.write_all(&vec![1; round + 1]).unwrap();
        let (read, last) = reader.join();
        log.note("read", read);
        if round == 4 {
            server.set_nonblocking(true).unwrap();
            log.io("not the end", server.read(&mut [0; 1]));
            drop(last);
        }
    }
    server.set_nonblocking(false).unwrap();
    log.io("the end", server.read(&mut [0; 1]));
}

/// fcntl's view.
pub(crate) fn flags_of_fds(_: World, log: &mut Transcript) {
    let (client, _server) = tcp_pair();
    let fd = client.as_raw_fd();
    log.io("F_GETFD", sys::fcntl(fd, libc::F_GETFD, 0));
    log.io("F_SETFD", sys::fcntl(fd, libc::F_SETFD, 0));
    log.io("F_GETFD", sys::fcntl(fd, libc::F_GETFD, 0));
    let copy = sys::dup_above(&client, RESERVED + 60).unwrap();
    log.io("F_GETFD", sys::fcntl(copy, libc::F_GETFD, 0));
    log.io("F_SETFL", sys::fcntl(copy, libc::F_SETFL, libc::O_NONBLOCK));
    log.io("flags", sys::status_flags(fd));
    log.io("read", sys::read(fd, &mut [0; 1]));
    let mut waiting: libc::c_int = -1;
    // SAFETY: FIONREAD writes an int.
    let asked = unsafe { sys::cvt(libc::ioctl(fd, libc::FIONREAD, &mut waiting) as isize) };
    log.io("FIONREAD", asked);
    log.note("bytes", waiting);
    let off: libc::c_int = 0;
    // SAFETY: FIONBIO reads an int.
    log.io("FIONBIO", unsafe { sys::cvt(libc::ioctl(copy, libc::FIONBIO, &off) as isize) });
    log.io("flags", sys::status_flags(fd));
    // SAFETY: the request is refused.
    log.io("bad request", unsafe { sys::cvt(libc::ioctl(fd, 0xffff, 0) as isize) });
    log.io("bad command", sys::fcntl(fd, 7777, 0));
    log.io("F_GETOWN", sys::fcntl(fd, libc::F_GETOWN, 0));
    log.io("close", sys::close(copy));
}

/// Which flags an accepted fd has.
pub(crate) fn accept_flags(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for nonblocking in [false, true] {
        let _client = TcpStream::connect(address).unwrap();
        listener.set_nonblocking(nonblocking).unwrap();
        sys::poll(&[(listener.as_raw_fd(), libc::POLLIN)], -1).unwrap();
        for flags in [0, libc::SOCK_CLOEXEC, libc::SOCK_NONBLOCK] {
            let _client = TcpStream::connect(address).unwrap();
            let stream = sys::accept4(listener.as_raw_fd(), flags).unwrap();
            log.io("flags", sys::status_flags(stream.as_raw_fd()));
            log.io("F_GETFD", sys::fcntl(stream.as_raw_fd(), libc::F_GETFD, 0));
        }
    }
}

/// Pipes, as far as nobody has to wait.
pub(crate) fn pipes(_: World, log: &mut Transcript) {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    log.io("write", writer.write(b"abc"));
    log.io("read", reader.read(&mut [0; 2]));
    log.io("flags", sys::status_flags(reader.as_raw_fd()));
    log.io("F_SETFL", sys::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK));
    log.io("flags", sys::status_flags(reader.as_raw_fd()));
    log.io("read", reader.read(&mut [0; 2]));
    log.io("read", reader.read(&mut [0; 2]));
    log.io("recv", sys::recv(reader.as_raw_fd(), &mut [0; 2], 0));
    let mut clone = reader.try_clone().unwrap();
    log.io("read", clone.read(&mut [0; 2]));
    log.io("F_SETFL", sys::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK));
    let full = std::iter::repeat_with(|| told(writer.write(&[1; 60_000]))).find(|it| it.is_err());
    log.note("full", full);
    log.io("wrong end", sys::read(writer.as_raw_fd(), &mut [0; 1]));
    drop((reader, clone));
    log.io("broken", writer.write(b"x"));
}

/// close_range.
pub(crate) fn closed_ranges(_: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let first = sys::dup_above(&client, RESERVED + 100).unwrap();
    let second = sys::dup_above(&client, first + 1).unwrap();
    let third = sys::dup_above(&client, second + 1).unwrap();
    let range = |first: RawFd, last: RawFd, flags: i32| {
        // SAFETY: no pointers; the numbers are the scenario's own.
        told(sys::cvt(unsafe { libc::close_range(first as u32, last as u32, flags) } as isize))
    };
    log.note("close", range(first, second, 0));
    log.io("first", sys::status_flags(first));
    log.io("second", sys::recv(second, &mut [0; 1], 0));
    server.write_all(b"x").unwrap();
    log.io("third", sys::recv(third, &mut [0; 1], 0));
    log.note("backwards", range(third, first, 0));
    log.note("bad flags", range(third, third, 1 << 20));
    log.note("close on exec", range(third, third, libc::CLOSE_RANGE_CLOEXEC as i32));
    log.io("still there", sys::fcntl(third, libc::F_GETFD, 0));
    log.io("close", sys::close(third));
}

/// Files are read and written, and are no sockets.
pub(crate) fn files_are_no_sockets(_: World, log: &mut Transcript) {
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let fd = file.as_raw_fd();
    log.io("read", sys::read(fd, &mut [0; 5]));
    log.io("readv", sys::readv(fd, &mut [IoSliceMut::new(&mut [0; 2])]));
    log.io("write", sys::write(fd, b"x"));
    log.io("recv", sys::recv(fd, &mut [0; 5], 0));
    log.io("send", sys::send(fd, b"x", 0));
    log.io("connect", sys::connect(fd, "127.0.0.1:9".parse().unwrap()));
    log.io("poll", sys::poll(&[(fd, libc::POLLIN | libc::POLLOUT)], -1));
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    log.io("null", (&null).write(b"xyz"));
    log.io("vectored", (&null).write_vectored(&[IoSlice::new(b"xyz"), IoSlice::new(b"a")]));
    let mut zero = std::fs::File::open("/dev/zero").unwrap();
    log.io("zero", zero.read(&mut [1; 3]));
}

/// The number of one connection becomes another's: what was known of the first does not stick.
pub(crate) fn replaced_while_connected(world: World, log: &mut Transcript) {
    for round in 0..20u8 {
        let (mut client, server) = tcp_pair();
        if round % 2 == 0 {
            client.set_nonblocking(true).unwrap();
            log.io("nothing", client.read(&mut [0; 4]));
            client.set_nonblocking(false).unwrap();
        } else {
            client.set_read_timeout(Some(std::time::Duration::from_millis(1))).unwrap();
            log.io("nothing", client.read(&mut [0; 4]));
            client.set_read_timeout(None).unwrap();
        }
        let reader = world.spawn(move || {
            let mut buffer = [0; 4];
            (told(client.read_exact(&mut buffer)), buffer)
        });
        (&server).write_all(&[round; 4]).unwrap();
        log.note("read", reader.join());
    }
}
