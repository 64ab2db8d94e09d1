//! poll and ppoll.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, POLLRDNORM};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::common::sys;
use crate::world::{Transcript, World, tcp_pair, told};

/// A time that is meant to pass, in milliseconds.
const SHORT: i32 = 10;

/// Everything poll can be asked about at one time.
pub(crate) fn poll_shapes(_: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let fd = client.as_raw_fd();
    log.io("nothing at all", sys::poll(&[], 0));
    log.io("a pause", sys::poll(&[], SHORT));
    log.io("negative fds", sys::poll(&[(-1, POLLIN), (-7, POLLOUT)], SHORT));
    log.io("not now", sys::poll(&[(fd, POLLIN)], 0));
    log.io("not in time", sys::poll(&[(fd, POLLIN)], SHORT));
    log.io("no events", sys::poll(&[(fd, 0)], SHORT));
    log.io("writable", sys::poll(&[(fd, POLLIN | POLLOUT)], -1));
    log.io("the same twice", sys::poll(&[(fd, POLLIN), (fd, POLLOUT), (fd, POLLIN)], -1));
    server.write_all(b"x").unwrap();
    log.io("readable", sys::poll(&[(fd, POLLIN | POLLRDNORM | POLLPRI)], -1));
    log.io("readable in time", sys::poll(&[(fd, POLLIN)], 10_000));
    log.io("with a negative one", sys::poll(&[(-1, POLLIN), (fd, POLLIN), (-2, 0)], -1));
    log.io("still not hung up", sys::poll(&[(fd, POLLRDHUP)], SHORT));
    let file = std::fs::File::open("/proc/self/status").unwrap();
    log.io("a file", sys::poll(&[(file.as_raw_fd(), POLLIN)], -1));
    log.io(
        "a file and a socket",
        sys::poll(&[(file.as_raw_fd(), POLLOUT), (fd, POLLRDHUP)], SHORT),
    );
    let program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    log.io("a regular file", sys::poll(&[(program.as_raw_fd(), POLLIN | POLLOUT)], -1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    log.io("a listener", sys::poll(&[(listener.as_raw_fd(), POLLIN)], SHORT));
    let fresh = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    log.io("a fresh socket", sys::poll(&[(fresh.as_raw_fd(), POLLIN | POLLOUT)], SHORT));
    log.io("flags", sys::status_flags(fd));
}

/// An event that comes while the call waits.
pub(crate) fn poll_wakes_on_data(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let (idle, _idle_peer) = UnixStream::pair().unwrap();
    let (pipe_reader, mut pipe_writer) = std::io::pipe().unwrap();
    let fds = [client.as_raw_fd(), idle.as_raw_fd(), pipe_reader.as_raw_fd()];
    let asking = fds.map(|fd| (fd, POLLIN));
    let poller = world.spawn(move || told(sys::poll(&asking, -1)));
    std::thread::sleep(Duration::from_millis(3));
    server.write_all(b"x").unwrap();
    log.note("stream", poller.join());
    log.io("read", (&client).read(&mut [0; 9]));
    let poller = world.spawn(move || told(sys::poll(&asking, 60_000)));
    std::thread::sleep(Duration::from_millis(3));
    pipe_writer.write_all(b"x").unwrap();
    log.note("pipe", poller.join());
    log.io("read", (&pipe_reader).read(&mut [0; 9]));
    let poller = world.spawn(move || told(sys::poll(&asking, 60_000)));
    drop(pipe_writer);
    log.note("pipe's end", poller.join());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = listener.as_raw_fd();
    let poller = world.spawn(move || told(sys::poll(&[(fd, POLLIN)], -1)));
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    log.note("listener", poller.join());
    let (left, right) = UnixDatagram::pair().unwrap();
    let fd = left.as_raw_fd();
    let poller = world.spawn(move || told(sys::poll(&[(fd, POLLIN)], -1)));
    right.send(b"").unwrap();
    log.note("datagram", poller.join());
}

/// Ends and errors are told unasked.
pub(crate) fn poll_hang_ups(world: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    let fd = client.as_raw_fd();
    let poller = world.spawn(move || told(sys::poll(&[(fd, POLLRDHUP)], -1)));
    std::thread::sleep(Duration::from_millis(3));
    server.shutdown(Shutdown::Write).unwrap();
    log.note("half", poller.join());
    log.io("all of it", sys::poll(&[(fd, POLLIN | POLLOUT | POLLRDHUP)], -1));
    client.shutdown(Shutdown::Write).unwrap();
    log.io("both halves", sys::poll(&[(fd, 0)], -1));
    let (left, right) = UnixStream::pair().unwrap();
    let fd = left.as_raw_fd();
    let poller = world.spawn(move || told(sys::poll(&[(fd, 0)], -1)));
    std::thread::sleep(Duration::from_millis(3));
    drop(right);
    log.note("unix", poller.join());
    let (reader, writer) = std::io::pipe().unwrap();
    let fd = reader.as_raw_fd();
    let poller = world.spawn(move || told(sys::poll(&[(fd, POLLIN)], -1)));
    drop(writer);
    log.note("pipe", poller.join());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    log.io("broken pipe", sys::poll(&[(writer.as_raw_fd(), POLLOUT)], -1));
    log.io("not asked", sys::poll(&[(writer.as_raw_fd(), 0)], -1));
}

/// More fds than fit on a stack.
pub(crate) fn poll_many(world: World, log: &mut Transcript) {
    let pairs: Vec<_> = (0..60).map(|_| UnixStream::pair().unwrap()).collect();
    let asking: Vec<_> =
        pairs.iter().cycle().take(600).map(|(left, _)| (left.as_raw_fd(), POLLIN)).collect();
    log.io("none", sys::poll(&asking, SHORT));
    let again = asking.clone();
    let poller = world.spawn(move || told(sys::poll(&again, -1)));
    std::thread::sleep(Duration::from_millis(3));
    (&pairs[42].1).write_all(b"x").unwrap();
    let (ready, events) = poller.join().unwrap();
    log.note("ready", ready);
    let which: Vec<_> = events.iter().enumerate().filter(|(_, events)| **events != 0).collect();
    log.note("which", which);
    let all: Vec<_> = pairs.iter().map(|(left, _)| (left.as_raw_fd(), POLLOUT)).collect();
    log.io("all", sys::poll(&all, -1).map(|(ready, _)| ready));
}

/// An error is an event.
pub(crate) fn poll_errors(_: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let fd = client.as_raw_fd();
    log.io("reset", sys::poll(&[(fd, POLLRDHUP)], -1));
    log.io("all of it", sys::poll(&[(fd, POLLIN | POLLOUT | POLLRDHUP)], -1));
    log.io("read", (&client).read(&mut [0; 1]));
    log.io("after it", sys::poll(&[(fd, POLLIN | POLLOUT)], -1));
    log.note("masks", (POLLERR, POLLHUP));
}

/// ppoll's timeouts.
pub(crate) fn ppoll_times(_: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let asking = [(client.as_raw_fd(), POLLIN)];
    let time = |tv_sec, tv_nsec| Some(libc::timespec { tv_sec, tv_nsec });
    log.io("now", sys::ppoll(&asking, time(0, 0)));
    log.io("a nanosecond", sys::ppoll(&asking, time(0, 1)));
    log.io("soon", sys::ppoll(&asking, time(0, 3_000_000)));
    log.io("a pause", sys::ppoll(&[], time(0, 3_000_000)));
    log.io("bad", sys::ppoll(&asking, time(0, 1_000_000_000)));
    log.io("negative", sys::ppoll(&asking, time(-1, 0)));
    log.io("negative part", sys::ppoll(&asking, time(0, -1)));
    server.write_all(b"x").unwrap();
    log.io("for ever", sys::ppoll(&asking, None));
    log.io("for ages", sys::ppoll(&asking, time(i64::MAX, 999_999_999)));
    log.io("bad, but ready", sys::ppoll(&asking, time(0, 1_000_000_000)));
}

/// The way in which std waits for a connection.
pub(crate) fn poll_and_connect(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let fd = socket.as_raw_fd();
    socket.set_nonblocking(true).unwrap();
    log.io("connect", socket.connect(&SockAddr::from(listener.local_addr().unwrap())));
    log.io("poll", sys::poll(&[(fd, POLLOUT)], -1));
    log.io("error", socket.take_error().map(|error| error.is_some()));
    log.io("connect", socket.connect(&SockAddr::from(listener.local_addr().unwrap())));
    socket.set_nonblocking(false).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"abc").unwrap();
    log.io("recv", sys::recv(fd, &mut [0; 3], libc::MSG_WAITALL));
}

/// POLLNVAL.
pub(crate) fn poll_of_a_bad_fd(_: World, log: &mut Transcript) {
    let (client, _server) = tcp_pair();
    let number = sys::dup_above(&client, 940).unwrap();
    sys::close(number).unwrap();
    log.io("alone", sys::poll(&[(number, POLLIN)], -1));
    log.io("not asked", sys::poll(&[(number, 0)], -1));
    log.io("with a good one", sys::poll(&[(client.as_raw_fd(), POLLIN), (number, POLLIN)], -1));
}
