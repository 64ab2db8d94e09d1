//! Unix sockets: streams, datagrams, records, fds in messages.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_SEQPACKET, SOCK_STREAM};

use crate::common::sys;
use crate::world::{Transcript, World, tcp_pair, told};

/// A timeout that is meant to expire.
const SHORT: Duration = Duration::from_millis(20);

/// A name that nobody else has.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("greenling-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A path that nobody else has; removed on drop.
struct Path(PathBuf);

impl Path {
    fn new() -> Path {
        Path(std::env::temp_dir().join(unique()))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A pair of streams.
pub(crate) fn stream_pair(world: World, log: &mut Transcript) {
    let (mut left, mut right) = UnixStream::pair().unwrap();
    let echo = world.spawn(move || {
        let mut all = Vec::new();
        right.read_to_end(&mut all).unwrap();
        told(right.write(&all))
    });
    log.io("write", left.write_all(&vec![3; 1 << 20]));
    log.io("shutdown", left.shutdown(Shutdown::Write));
    let mut all = Vec::new();
    log.io("read", left.read_to_end(&mut all));
    log.note("threes", all.iter().all(|&byte| byte == 3));
    log.note("echo", echo.join());
    log.io("write", left.write(b"x"));
}

/// A listener at a path.
pub(crate) fn stream_by_path(world: World, log: &mut Transcript) {
    let path = Path::new();
    let listener = UnixListener::bind(&path.0).unwrap();
    log.io("bind again", UnixListener::bind(&path.0).map(drop));
    let serving = world.spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&buffer).unwrap();
        (peer.is_unnamed(), listener)
    });
    let mut client = UnixStream::connect(&path.0).unwrap();
    client.write_all(b"ping").unwrap();
    let mut answer = Vec::new();
    log.io("read", client.read_to_end(&mut answer));
    log.note("answer", answer);
    let (unnamed, listener) = serving.join();
    log.note("peer without a name", unnamed);
    drop(listener);
    log.io("nobody listens", UnixStream::connect(&path.0).map(drop));
    drop(path);
}

/// Abstract names.
pub(crate) fn abstract_names(world: World, log: &mut Transcript) {
    let address = SocketAddr::from_abstract_name(unique()).unwrap();
    log.io("nobody", UnixStream::connect_addr(&address).map(drop));
    let listener = UnixListener::bind_addr(&address).unwrap();
    log.io("taken", UnixListener::bind_addr(&address).map(drop));
    let serving = world.spawn(move || listener.accept().unwrap().0);
    let client = UnixStream::connect_addr(&address).unwrap();
    let mut server = serving.join();
    server.write_all(b"hello").unwrap();
    log.io("read", (&client).read(&mut [0; 9]));
    let is_abstract = |address: SocketAddr| address.as_abstract_name().is_some();
    log.io("peer", client.peer_addr().map(is_abstract));
    let datagram = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(unique()).unwrap());
    let datagram = datagram.unwrap();
    log.io("another type", datagram.connect_addr(&address));
    log.io("itself", datagram.send_to_addr(b"abc", &datagram.local_addr().unwrap()));
    log.io("recv", datagram.recv_from(&mut [0; 9]).map(|(done, from)| (done, is_abstract(from))));
}

/// Datagrams that do not fit.
pub(crate) fn datagram_truncation(_: World, log: &mut Transcript) {
    let (left, right) = UnixDatagram::pair().unwrap();
    let mut buffer = [0; 4];
    for _ in 0..3 {
        left.send(b"abcdefgh").unwrap();
    }
    left.send(b"").unwrap();
    log.io("recv", right.recv(&mut buffer));
    log.note("buffer", buffer);
    log.io("true size", sys::recv(right.as_raw_fd(), &mut buffer, libc::MSG_TRUNC));
    let mut room = [IoSliceMut::new(&mut buffer)];
    let message = sys::recvmsg(right.as_raw_fd(), &mut room, 0, 0);
    log.io("recvmsg", message.map(|it| (it.bytes, it.flags)));
    log.io("empty", right.recv(&mut buffer));
    log.io("gone", sys::recv(right.as_raw_fd(), &mut buffer, MSG_DONTWAIT));
    log.io("too large", left.send(&vec![0; 4 << 20]));
}

/// Named and connected peers.
pub(crate) fn datagram_peers(world: World, log: &mut Transcript) {
    let (here, there) = (Path::new(), Path::new());
    let server = UnixDatagram::bind(&there.0).unwrap();
    let serving = world.spawn(move || {
        let mut buffer = [0; 9];
        let (done, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..done], from.as_pathname().unwrap()).unwrap();
        server
    });
    let client = UnixDatagram::bind(&here.0).unwrap();
    log.io("send_to", client.send_to(b"abc", &there.0));
    log.io("recv", client.recv(&mut [0; 9]));
    let server = serving.join();
    log.io("not connected", client.send(b"x"));
    log.io("connect", client.connect(&there.0));
    log.io("send", client.send(b"xy"));
    log.io("recv", server.recv(&mut [0; 9]));
    // Only its peer may send to a connected socket.
    let stranger = UnixDatagram::unbound().unwrap();
    log.io("stranger", stranger.send_to(b"x", &here.0));
    log.io("no such path", stranger.send_to(b"x", "/nonexistent/socket"));
    drop(server);
    log.io("peer gone", client.send(b"x"));
    log.io("refused", stranger.send_to(b"x", &there.0));
}

/// A full queue holds a named send up.
pub(crate) fn datagrams_to_a_slow_reader(world: World, log: &mut Transcript) {
    let address = SocketAddr::from_abstract_name(unique()).unwrap();
    let server = UnixDatagram::bind_addr(&address).unwrap();
    let client = UnixDatagram::unbound().unwrap();
    client.set_nonblocking(true).unwrap();
    let full = std::iter::repeat_with(|| told(client.send_to_addr(b"x", &address)));
    log.note("full", full.into_iter().find(|it| it.is_err()));
    client.set_nonblocking(false).unwrap();
    client.set_write_timeout(Some(SHORT)).unwrap();
    log.io("still full", client.send_to_addr(b"x", &address));
    client.set_write_timeout(None).unwrap();
    let reader = world.spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        let mut byte = [0];
        while byte != *b"!" {
            server.recv(&mut byte).unwrap();
        }
    });
    for _ in 0..100 {
        client.send_to_addr(b"y", &address).unwrap();
    }
    log.io("last", client.send_to_addr(b"!", &address));
    reader.join();
}

/// Likewise a connected one.
pub(crate) fn connected_datagrams_to_a_slow_reader(world: World, log: &mut Transcript) {
    let (client, server) = UnixDatagram::pair().unwrap();
    let reader = world.spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        let mut count = 0;
        let mut buffer = [0; 2000];
        while server.recv(&mut buffer).unwrap() != 0 {
            count += 1;
        }
        count
    });
    for _ in 0..500 {
        client.send(&[1; 2000]).unwrap();
    }
    client.send(&[]).unwrap();
    log.note("arrived", reader.join());
}

/// A socket of records.
pub(crate) fn records(world: World, log: &mut Transcript) {
    let (left, right) = sys::socketpair(SOCK_SEQPACKET).unwrap();
    let (fd, peer) = (left.as_raw_fd(), right.as_raw_fd());
    let reader = world.spawn(move || {
        let mut buffer = [0; 6];
        let first = told(sys::read(peer, &mut buffer));
        let mut room = [IoSliceMut::new(&mut buffer[..3])];
        let second = told(sys::recvmsg(peer, &mut room, 0, 0).map(|it| (it.bytes, it.flags)));
        let third = told(sys::recv(peer, &mut buffer, libc::MSG_WAITALL));
        let fourth = told(sys::readv(peer, &mut [IoSliceMut::new(&mut buffer)]));
        (first, second, third, fourth, buffer)
    });
    log.io("write", sys::write(fd, b"abcd"));
    log.io("writev", sys::writev(fd, &[IoSlice::new(b"efg"), IoSlice::new(b"hijk")]));
    log.io("send", sys::send(fd, b"lm", 0));
    log.io("send", sys::send(fd, b"n", MSG_NOSIGNAL));
    log.note("read", reader.join());
    log.io("too large", sys::send(fd, &vec![0; 4 << 20], 0));
    drop(right);
    log.io("read", sys::read(fd, &mut [0; 1]));
    log.io("write", sys::write(fd, b"x"));
}

/// A socket that comes in a message can be waited with.
pub(crate) fn fds_in_messages(world: World, log: &mut Transcript) {
    let (left, right) = UnixStream::pair().unwrap();
    let receiver = world.spawn(move || {
        let mut byte = [0; 4];
        let mut room = [IoSliceMut::new(&mut byte)];
        let message = sys::recvmsg(right.as_raw_fd(), &mut room, 2, 0).unwrap();
        (message, byte)
    });
    let (client, mut server) = tcp_pair();
    let (pipe_reader, pipe_writer) = std::io::pipe().unwrap();
    let fds = [client.as_raw_fd(), pipe_writer.as_raw_fd()];
    let sent = sys::sendmsg(left.as_raw_fd(), &[IoSlice::new(b"fds")], &fds, MSG_NOSIGNAL);
    log.io("sendmsg", sent);
    let (message, byte) = receiver.join();
    log.note("recvmsg", (message.bytes, message.fds.len(), byte));
    drop((client, pipe_writer));
    let [socket, pipe] = message.fds.try_into().unwrap();
    log.io("flags", sys::status_flags(socket.as_raw_fd()));
    let mut stream = std::net::TcpStream::from(socket);
    let reader = world.spawn(move || {
        let mut buffer = [0; 5];
        told(stream.read_exact(&mut buffer).map(|()| buffer))
    });
    server.write_all(b"he").unwrap();
    std::thread::sleep(Duration::from_millis(2));
    server.write_all(b"llo").unwrap();
    log.note("read", reader.join());
    log.io("write to the pipe", sys::write(pipe.as_raw_fd(), b"x"));
    drop(pipe);
    let mut all = String::new();
    log.io("read from the pipe", (&pipe_reader).read_to_string(&mut all));
}

/// Fds that there is no room for are closed.
pub(crate) fn truncated_control(_: World, log: &mut Transcript) {
    let (left, right) = UnixStream::pair().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let fds = [writer.as_raw_fd(), writer.as_raw_fd(), writer.as_raw_fd()];
    log.io("send", sys::sendmsg(left.as_raw_fd(), &[IoSlice::new(b"x")], &fds, 0));
    let mut byte = [0];
    let message = sys::recvmsg(right.as_raw_fd(), &mut [IoSliceMut::new(&mut byte)], 0, 0);
    log.io("recvmsg", message.map(|it| (it.bytes, it.flags, it.fds.len())));
    log.io("send", sys::sendmsg(left.as_raw_fd(), &[IoSlice::new(b"x")], &fds, 0));
    log.io("plain recv", sys::recv(right.as_raw_fd(), &mut byte, 0));
    log.io("bad fd", sys::sendmsg(left.as_raw_fd(), &[IoSlice::new(b"x")], &[-1], 0));
    drop(writer);
    log.io("nobody holds the pipe", (&reader).read(&mut byte));
}

/// socketpair's flags.
pub(crate) fn socketpair_flags(_: World, log: &mut Transcript) {
    let (left, _right) = sys::socketpair(SOCK_STREAM | SOCK_NONBLOCK).unwrap();
    log.io("flags", sys::status_flags(left.as_raw_fd()));
    log.io("read", sys::read(left.as_raw_fd(), &mut [0; 1]));
    let (left, right) = sys::socketpair(SOCK_DGRAM).unwrap();
    log.io("flags", sys::status_flags(left.as_raw_fd()));
    log.io("send", sys::send(left.as_raw_fd(), b"ab", 0));
    log.io("recv", sys::recv(right.as_raw_fd(), &mut [0; 1], 0));
    log.io("bad", sys::socketpair(77).map(drop));
    let fresh = sys::socket(libc::AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0).unwrap();
    log.io("flags", sys::status_flags(fresh.as_raw_fd()));
}

/// Timeouts of both directions.
pub(crate) fn unix_timeouts(_: World, log: &mut Transcript) {
    let (left, right) = UnixStream::pair().unwrap();
    left.set_read_timeout(Some(SHORT)).unwrap();
    left.set_write_timeout(Some(SHORT)).unwrap();
    log.io("read", (&left).read(&mut [0; 1]));
    let data = vec![1; 4 << 20];
    let first = (&left).write(&data).unwrap();
    log.note("a part", first > 0 && first < data.len());
    let error = std::iter::repeat_with(|| told((&left).write(&data))).find(|it| it.is_err());
    log.note("then", error);
    let datagrams = UnixDatagram::pair().unwrap();
    datagrams.0.set_read_timeout(Some(SHORT)).unwrap();
    datagrams.0.set_write_timeout(Some(SHORT)).unwrap();
    log.io("recv", datagrams.0.recv(&mut [0; 1]));
    let error = std::iter::repeat_with(|| told(datagrams.0.send(b"x"))).find(|it| it.is_err());
    log.note("send", error);
    drop(right);
}

/// The other end goes away while one waits.
pub(crate) fn vanished_peer(world: World, log: &mut Transcript) {
    let (mut left, right) = UnixStream::pair().unwrap();
    let reader = world.spawn(move || {
        let end = told(left.read(&mut [0; 1]));
        (end, told(left.write(b"x")), told(left.read(&mut [0; 1])))
    });
    std::thread::sleep(Duration::from_millis(3));
    drop(right);
    log.note("read", reader.join());
    // Unread data makes the close a reset.
    let (left, right) = UnixStream::pair().unwrap();
    (&left).write_all(b"unread").unwrap();
    drop(right);
    log.io("reset", (&left).read(&mut [0; 1]));
    log.io("then", (&left).read(&mut [0; 1]));
    let (left, right) = UnixDatagram::pair().unwrap();
    drop(right);
    log.io("datagram", left.send(b"x"));
}

/// A shutdown of datagrams.
pub(crate) fn datagram_shutdown(world: World, log: &mut Transcript) {
    let (left, right) = UnixDatagram::pair().unwrap();
    let receiving = left.try_clone().unwrap();
    let reader = world.spawn(move || told(receiving.recv(&mut [0; 9])));
    std::thread::sleep(Duration::from_millis(3));
    log.io("send", right.send(b"before"));
    log.note("recv", reader.join());
    log.io("send", right.send(b"left"));
    log.io("shutdown", left.shutdown(Shutdown::Read));
    log.io("recv", left.recv(&mut [0; 9]));
    log.io("recv", left.recv(&mut [0; 9]));
    log.io("recv_from", left.recv_from(&mut [0; 9]).map(|(done, _)| done));
    log.io("send", right.send(b"after"));
    log.io("shutdown", right.shutdown(Shutdown::Write));
    log.io("send", right.send(b"after"));
    let (left, right) = sys::socketpair(SOCK_SEQPACKET).unwrap();
    let fd = left.as_raw_fd();
    let reader = world.spawn(move || (told(sys::read(fd, &mut [0; 9])), left));
    std::thread::sleep(Duration::from_millis(3));
    log.io("shutdown", sys::shutdown(right.as_raw_fd(), libc::SHUT_WR));
    log.note("records", reader.join().0);
}
