//! Bytes over TCP: timeouts, non-blocking, peeking, flags, large sends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use libc::{MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use socket2::SockRef;

use crate::common::sys;
use crate::world::{Transcript, World, tcp_pair, told};

/// A timeout that is meant to expire.
const SHORT: Duration = Duration::from_millis(20);

/// A request and its answer, until the end of the stream.
pub(crate) fn echo(world: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    echo_at(world, log, listener);
}

/// Likewise. (A machine without IPv6 has a transcript, too.)
pub(crate) fn echo_over_ipv6(world: World, log: &mut Transcript) {
    match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(listener) => echo_at(world, log, listener),
        Err(error) => log.io::<()>("bind", Err(error)),
    }
}

fn echo_at(world: World, log: &mut Transcript, listener: TcpListener) {
    let address = listener.local_addr().unwrap();
    let server = world.spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
        peer.ip()
    });
    let mut client = TcpStream::connect(address).unwrap();
    log.io("write", client.write(b"hello"));
    log.io("write", client.write(b", world"));
    log.io("shutdown", client.shutdown(Shutdown::Write));
    let mut answer = String::new();
    log.io("read", client.read_to_string(&mut answer));
    log.note("answer", answer);
    log.io("read at the end", client.read(&mut [0; 8]));
    log.note("peer", server.join());
}

/// A read that times out leaves the stream good.
pub(crate) fn read_timeout(_: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    let mut buffer = [0; 8];
    client.set_read_timeout(Some(SHORT)).unwrap();
    log.io("nothing", client.read(&mut buffer));
    log.io("nothing again", client.read(&mut buffer));
    log.io("nothing to peek at", client.peek(&mut buffer));
    log.io("nothing exactly", client.read_exact(&mut buffer));
    server.write_all(b"late").unwrap();
    // The bytes may need a moment.
    client.set_read_timeout(None).unwrap();
    log.io("something", client.read(&mut buffer));
    client.set_read_timeout(Some(SHORT)).unwrap();
    log.io("nothing after it", client.read(&mut buffer));
    log.io("flags", sys::status_flags(client.as_raw_fd()));
    drop(server);
    client.set_read_timeout(None).unwrap();
    log.io("the end", client.read(&mut buffer));
}

/// A send that times out after some bytes counts them.
pub(crate) fn write_timeout_sends_a_part(_: World, log: &mut Transcript) {
    let (mut client, server) = tcp_pair();
    client.set_write_timeout(Some(SHORT)).unwrap();
    let data = vec![1; 32 << 20];
    let first = client.write(&data).unwrap();
    log.note("a part", first > 0 && first < data.len());
    // What the buffers still take may come in small parts.
    let last = std::iter::repeat_with(|| told(client.write(&data))).find(|it| it.is_err());
    log.note("then", last);
    log.note("all", told(client.write_all(&data)));
    drop(server);
}

/// One send of several megabytes returns when all of it is sent.
pub(crate) fn large_send_to_a_slow_reader(world: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    let data: Vec<u8> = (0..8u32 << 20).map(|n| (n % 251) as u8).collect();
    let expected = data.clone();
    let reader = world.spawn(move || {
        let mut all = Vec::new();
        let mut chunk = vec![0; 150_000];
        loop {
            std::thread::sleep(Duration::from_millis(1));
            match server.read(&mut chunk).unwrap() {
                0 => return all,
                done => all.extend_from_slice(&chunk[..done]),
            }
        }
    });
    log.io("write", client.write(&data));
    drop(client);
    log.note("arrived", reader.join() == expected);
}

/// `O_NONBLOCK` on and off.
pub(crate) fn nonblocking_stream(_: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    let mut buffer = [0; 4];
    client.set_nonblocking(true).unwrap();
    log.io("flags", sys::status_flags(client.as_raw_fd()));
    log.io("read", client.read(&mut buffer));
    log.io("peek", client.peek(&mut buffer));
    log.io("read(2)", sys::read(client.as_raw_fd(), &mut buffer));
    let data = vec![1; 1 << 20];
    let last = std::iter::repeat_with(|| told(client.write(&data))).find(|it| it.is_err());
    log.note("write", last);
    server.write_all(b"data").unwrap();
    log.io("poll", sys::poll(&[(client.as_raw_fd(), libc::POLLIN)], -1));
    log.io("read", client.read(&mut buffer));
    log.io("read", client.read(&mut buffer));
    client.set_nonblocking(false).unwrap();
    log.io("flags", sys::status_flags(client.as_raw_fd()));
    client.set_read_timeout(Some(SHORT)).unwrap();
    log.io("read", client.read(&mut buffer));
}

/// The flag belongs to what the duplicates share.
pub(crate) fn nonblocking_through_a_duplicate(world: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    let mut clone = client.try_clone().unwrap();
    let mut buffer = [0; 4];
    clone.set_nonblocking(true).unwrap();
    log.io("flags", sys::status_flags(client.as_raw_fd()));
    log.io("read", client.read(&mut buffer));
    log.io("set", sys::fcntl(client.as_raw_fd(), libc::F_SETFL, 0));
    log.io("flags", sys::status_flags(clone.as_raw_fd()));
    let reader = world.spawn(move || (told(clone.read(&mut buffer)), buffer));
    server.write_all(b"data").unwrap();
    log.note("read", reader.join());
    client.set_nonblocking(true).unwrap();
    let clone = client.try_clone().unwrap();
    drop(client);
    log.io("flags", sys::status_flags(clone.as_raw_fd()));
    log.io("read", (&clone).read(&mut buffer));
}

/// What was peeked at stays.
pub(crate) fn peek(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let mut buffer = [0; 8];
    let peeker = world.spawn(move || {
        let mut buffer = [0; 8];
        (told(client.peek(&mut buffer)), buffer, client)
    });
    server.write_all(b"abcd").unwrap();
    let (peeked, seen, mut client) = peeker.join();
    log.note("peek", (peeked, seen));
    log.io("peek at some", client.peek(&mut buffer[..2]));
    log.io("read some", client.read(&mut buffer[..3]));
    log.io("peek at the rest", client.peek(&mut buffer));
    log.note("buffer", buffer);
    log.io("read", client.read(&mut buffer));
    drop(server);
    log.io("peek at the end", client.peek(&mut buffer));
    log.io("read the end", client.read(&mut buffer));
}

/// MSG_WAITALL waits for all of it, however it comes.
pub(crate) fn wait_all(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let writer = world.spawn(move || {
        for piece in [&b"abc"[..], b"defg", b"hijklm"] {
            server.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(3));
        }
        server
    });
    let mut buffer = [0; 10];
    log.io("recv", sys::recv(client.as_raw_fd(), &mut buffer, MSG_WAITALL));
    log.note("buffer", buffer);
    let _server = writer.join();
    client.set_read_timeout(Some(SHORT)).unwrap();
    log.io("a part", sys::recv(client.as_raw_fd(), &mut buffer, MSG_WAITALL));
    log.io("nothing", sys::recv(client.as_raw_fd(), &mut buffer, MSG_WAITALL));
}

/// MSG_WAITALL and the end of the stream, and an error.
pub(crate) fn wait_all_ends_early(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let reader = world.spawn(move || {
        let mut buffer = [0; 10];
        let first = told(sys::recv(client.as_raw_fd(), &mut buffer, MSG_WAITALL));
        let second = told(sys::recv(client.as_raw_fd(), &mut buffer, MSG_WAITALL));
        (first, second)
    });
    server.write_all(b"abc").unwrap();
    std::thread::sleep(Duration::from_millis(3));
    drop(server);
    log.note("recv", reader.join());
    let (client, server) = tcp_pair();
    (&server).write_all(b"abc").unwrap();
    client.set_nonblocking(true).unwrap();
    log.io("poll", sys::poll(&[(client.as_raw_fd(), libc::POLLIN)], -1));
    let mut buffer = [0; 10];
    log.io("without waiting", sys::recv(client.as_raw_fd(), &mut buffer, MSG_WAITALL));
}

/// MSG_PEEK and MSG_WAITALL together.
pub(crate) fn peek_and_wait_all(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let reader = world.spawn(move || {
        let mut buffer = [0; 6];
        let fd = client.as_raw_fd();
        let peeked = told(sys::recv(fd, &mut buffer, MSG_PEEK | MSG_WAITALL));
        (peeked, buffer, client)
    });
    server.write_all(b"abc").unwrap();
    std::thread::sleep(Duration::from_millis(3));
    server.write_all(b"defgh").unwrap();
    let (peeked, seen, client) = reader.join();
    log.note("peek", (peeked, seen));
    let mut buffer = [0; 8];
    log.io("recv", sys::recv(client.as_raw_fd(), &mut buffer, MSG_WAITALL));
    log.note("buffer", buffer);
}

/// MSG_DONTWAIT in both directions.
pub(crate) fn dont_wait(_: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    let (fd, peer) = (client.as_raw_fd(), server.as_raw_fd());
    log.io("recv", sys::recv(fd, &mut [0; 4], MSG_DONTWAIT));
    log.io("recvfrom", sys::recvfrom(fd, &mut [0; 4], MSG_DONTWAIT));
    log.io("both", sys::recv(fd, &mut [0; 4], MSG_DONTWAIT | MSG_WAITALL));
    let data = vec![1; 1 << 20];
    let send = || told(sys::send(fd, &data, MSG_DONTWAIT | MSG_NOSIGNAL));
    log.note("send", std::iter::repeat_with(send).find(|it| it.is_err()));
    log.io("errors", sys::recv(fd, &mut [0; 4], libc::MSG_ERRQUEUE));
    log.io("peer", sys::recv(peer, &mut [0; 4], MSG_WAITALL));
    log.io("flags", sys::status_flags(fd));
}

/// Reading and writing nothing.
pub(crate) fn zero_bytes(_: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    let fd = client.as_raw_fd();
    log.io("read(2), nothing there", sys::read(fd, &mut []));
    log.io("write", client.write(&[]));
    log.io("write(2)", sys::write(fd, &[]));
    log.io("send", sys::send(fd, &[], 0));
    server.write_all(b"x").unwrap();
    log.io("poll", sys::poll(&[(fd, libc::POLLIN)], -1));
    log.io("recv", client.read(&mut []));
    log.io("read(2)", sys::read(fd, &mut []));
    log.io("recv", client.read(&mut [0; 1]));
    drop(server);
    log.io("poll", sys::poll(&[(fd, libc::POLLIN)], -1));
    log.io("recv at the end", client.read(&mut []));
    log.io("read(2) at the end", sys::read(fd, &mut []));
}

/// A reader and a writer on two fds of one connection.
pub(crate) fn clones_read_and_write(world: World, log: &mut Transcript) {
    let (mut writer, server) = tcp_pair();
    let mut reader = writer.try_clone().unwrap();
    let mut echo_reader = server.try_clone().unwrap();
    let mut echo_writer = server;
    let echo = world.spawn(move || {
        let done = io::copy(&mut echo_reader, &mut echo_writer);
        echo_writer.shutdown(Shutdown::Write).unwrap();
        told(done)
    });
    let reading = world.spawn(move || {
        let mut all = Vec::new();
        told(
            reader
                .read_to_end(&mut all)
                .map(|_| all.iter().map(|&byte| u64::from(byte)).sum::<u64>()),
        )
    });
    let data: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    log.io("write", writer.write_all(&data));
    log.io("shutdown", writer.shutdown(Shutdown::Write));
    log.note("echo", echo.join());
    log.note("sum", reading.join());
}

/// Two readers of one stream: each byte reaches one of them.
pub(crate) fn two_readers(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let readers = [client.try_clone().unwrap(), client].map(|mut stream| {
        world.spawn(move || {
            let mut seen = Vec::new();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() == 1 {
                seen.push(byte[0]);
            }
            seen
        })
    });
    for byte in 0..100 {
        server.write_all(&[byte]).unwrap();
    }
    drop(server);
    let mut all: Vec<u8> = readers.into_iter().flat_map(|reader| reader.join()).collect();
    all.sort_unstable();
    log.note("all", all);
}

/// Out-of-band data.
pub(crate) fn urgent_data(_: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    let (fd, peer) = (client.as_raw_fd(), server.as_raw_fd());
    let mut buffer = [0; 8];
    log.io("none", sys::recv(fd, &mut buffer, MSG_OOB));
    log.io("send", sys::send(peer, b"ab", 0));
    log.io("send", sys::send(peer, b"!", MSG_OOB));
    log.io("send", sys::send(peer, b"cd", 0));
    log.io("poll", sys::poll(&[(fd, libc::POLLPRI)], -1));
    log.io("wait", sys::recv(fd, &mut [0; 4], MSG_PEEK | MSG_WAITALL).map(|_| ()));
    log.io("urgent", sys::recv(fd, &mut buffer, MSG_OOB));
    log.io("up to the mark", sys::recv(fd, &mut buffer, 0));
    log.io("behind the mark", sys::recv(fd, &mut buffer, 0));
    log.note("buffer", buffer);
}

/// MSG_TRUNC throws bytes of a stream away.
pub(crate) fn truncating_receive(_: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    (&server).write_all(b"abcdef").unwrap();
    log.io("poll", sys::poll(&[(client.as_raw_fd(), libc::POLLIN)], -1));
    let mut buffer = [0; 3];
    log.io("thrown away", sys::recv(client.as_raw_fd(), &mut buffer, MSG_TRUNC));
    log.io("kept", sys::recv(client.as_raw_fd(), &mut buffer, 0));
    log.note("buffer", buffer);
}

/// A stream's bytes come without a name, and a name for a send is ignored.
pub(crate) fn recvfrom_on_a_stream(world: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    let fd = client.as_raw_fd();
    let reader = world.spawn(move || (told(sys::recvfrom(fd, &mut [0; 8], 0)), client));
    let elsewhere = "127.0.0.1:1".parse().unwrap();
    log.io("sendto", sys::sendto(server.as_raw_fd(), b"abc", 0, elsewhere));
    log.note("recvfrom", reader.join().0);
}

/// std's BufReader.
pub(crate) fn buffered_lines(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let writer = world.spawn(move || {
        for piece in ["one\ntw", "o\nthr", "ee", "\nlast"] {
            server.write_all(piece.as_bytes()).unwrap();
            std::thread::yield_now();
        }
    });
    let lines: io::Result<Vec<String>> = BufReader::new(client).lines().collect();
    log.io("lines", lines);
    writer.join();
}

/// io::copy between sockets and between a file and a socket, where std uses other calls.
pub(crate) fn io_copy(world: World, log: &mut Transcript) {
    let (mut source, feeder) = tcp_pair();
    let (mut sink, mut end) = tcp_pair();
    let copy = world.spawn(move || {
        let done = told(io::copy(&mut source, &mut sink));
        let program = std::env::current_exe().unwrap();
        let file = std::fs::File::open(program).unwrap();
        let sent = told(io::copy(&mut file.take(100_000), &mut sink));
        (done, sent)
    });
    (&feeder).write_all(&[7; 100_000]).unwrap();
    drop(feeder);
    let mut all = Vec::new();
    log.io("read", end.read_to_end(&mut all));
    log.note("sevens", all[..100_000].iter().all(|&byte| byte == 7));
    log.note("magic", &all[100_000..100_004]);
    log.note("copy", copy.join());
}

/// Timeouts and other options go in and come out as ever.
pub(crate) fn socket_timeouts_can_be_read_back(_: World, log: &mut Transcript) {
    let (client, _server) = tcp_pair();
    log.io("none", client.read_timeout());
    for micros in [1, 999, 1_000, 1_500_000] {
        let timeout = Some(Duration::from_micros(micros));
        log.io("set", client.set_read_timeout(timeout));
        // The kernel counts in jiffies: only compare.
        log.io("is", client.read_timeout());
        log.io("set", client.set_write_timeout(timeout));
        log.io("is", client.write_timeout());
    }
    log.io("zero", client.set_read_timeout(Some(Duration::ZERO)));
    log.io("a nanosecond", client.set_read_timeout(Some(Duration::from_nanos(1))));
    log.io("is", client.read_timeout());
    log.io("off", client.set_read_timeout(None));
    log.io("is", client.read_timeout());
    let bad = libc::timeval { tv_sec: 0, tv_usec: 2_000_000 };
    log.io("bad", sys::set_option(client.as_raw_fd(), libc::SO_RCVTIMEO, bad));
    log.io("short", sys::set_option(client.as_raw_fd(), libc::SO_RCVTIMEO, 1u8));
    let negative = libc::timeval { tv_sec: -1, tv_usec: 0 };
    log.io("negative", sys::set_option(client.as_raw_fd(), libc::SO_RCVTIMEO, negative));
    log.io("read", (&client).read(&mut [0; 1]));
    log.io("nodelay", client.set_nodelay(true).and_then(|()| client.nodelay()));
    log.io("keepalive", SockRef::from(&client).set_keepalive(true));
    log.io("is", SockRef::from(&client).keepalive());
    log.io("error", client.take_error().map(|error| error.is_some()));
    let clone: TcpStream = client.try_clone().unwrap();
    log.io("set", clone.set_read_timeout(Some(SHORT)));
    log.io("read", (&client).read(&mut [0; 1]));
}
