//! How connections end: resets, half closes, shutdowns.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::SockRef;

use crate::common::sys;
use crate::world::{Transcript, World, tcp_pair, told};

/// Closes with a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Waits until the kernel knows of the end of `stream`.
fn wait_for_hang_up(stream: &TcpStream) {
    sys::poll(&[(stream.as_raw_fd(), libc::POLLRDHUP)], -1).unwrap();
}

/// SO_LINGER of zero.
pub(crate) fn reset_by_linger(_: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    server.write_all(b"lost or not").unwrap();
    reset(server);
    wait_for_hang_up(&client);
    log.io("poll", sys::poll(&[(client.as_raw_fd(), libc::POLLIN)], 0));
    log.io("read", client.read(&mut [0; 4]));
    log.io("read again", client.read(&mut [0; 4]));
    log.io("write", client.write(b"x"));
    log.io("error", client.take_error().map(|error| error.is_some()));
    log.io("peer", client.peer_addr().map(drop));
    log.io("shutdown", client.shutdown(Shutdown::Both));
}

/// A reset meets a reader that waits.
pub(crate) fn reset_while_reading(world: World, log: &mut Transcript) {
    let (mut client, server) = tcp_pair();
    let reader = world.spawn(move || {
        let first = told(client.read(&mut [0; 4]));
        (first, told(client.read(&mut [0; 4])))
    });
    std::thread::sleep(Duration::from_millis(5));
    reset(server);
    log.note("read", reader.join());
}

/// A reset meets a writer that waits.
pub(crate) fn reset_while_writing(world: World, log: &mut Transcript) {
    let (mut client, server) = tcp_pair();
    let writer = world.spawn(move || {
        let data = vec![1; 1 << 20];
        let error = std::iter::repeat_with(|| told(client.write(&data))).find(|it| it.is_err());
        (error, told(client.write(&data)))
    });
    std::thread::sleep(Duration::from_millis(10));
    reset(server);
    let (first, second) = writer.join();
    // The known difference: an error that ends a send which moved bytes may be used up.
    let ends = |errno| errno == Some(libc::ECONNRESET) || errno == Some(libc::EPIPE);
    log.note("write", first.is_some_and(|it| it.is_err_and(|(_, errno)| ends(errno))));
    log.note("write again", second);
}

/// The first write after the peer's close brings the reset, the next one fails.
pub(crate) fn write_after_peer_close(_: World, log: &mut Transcript) {
    let (mut client, server) = tcp_pair();
    drop(server);
    wait_for_hang_up(&client);
    log.io("write", client.write(b"x"));
    log.io("poll", sys::poll(&[(client.as_raw_fd(), 0)], -1));
    log.io("write", client.write(b"x"));
    log.io("write(2)", sys::write(client.as_raw_fd(), b"x"));
    log.io("vectored", client.write_vectored(&[std::io::IoSlice::new(b"x")]));
    log.io("read", client.read(&mut [0; 1]));
}

/// One direction ends, the other goes on.
pub(crate) fn half_close(world: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    let serving = world.spawn(move || {
        let mut all = String::new();
        server.read_to_string(&mut all).unwrap();
        for part in 0..3 {
            server.write_all(format!("{all} {part},").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    client.write_all(b"question").unwrap();
    log.io("shutdown", client.shutdown(Shutdown::Write));
    log.io("write", client.write(b"x"));
    let mut answer = String::new();
    log.io("read", client.read_to_string(&mut answer));
    log.note("answer", answer);
    serving.join();
}

/// A shutdown of the reading side ends a read that waits.
pub(crate) fn shutdown_while_reading(world: World, log: &mut Transcript) {
    for how in [Shutdown::Read, Shutdown::Both] {
        let (client, mut server) = tcp_pair();
        let mut reading = client.try_clone().unwrap();
        let reader = world.spawn(move || told(reading.read(&mut [0; 4])));
        std::thread::sleep(Duration::from_millis(5));
        log.io("shutdown", client.shutdown(how));
        log.note("read", reader.join());
        log.io("read again", (&client).read(&mut [0; 4]));
        // What comes after a shutdown of the reading side can be read all the same.
        log.io("peer writes", server.write(b"data"));
        if how == Shutdown::Read {
            log.io("poll", sys::poll(&[(client.as_raw_fd(), libc::POLLIN)], -1));
        }
    }
}

/// A shutdown of the writing side while a reader waits leaves the reader alone.
pub(crate) fn shutdown_write(world: World, log: &mut Transcript) {
    let (client, mut server) = tcp_pair();
    let mut reading = client.try_clone().unwrap();
    let reader = world.spawn(move || told(reading.read(&mut [0; 4])));
    std::thread::sleep(Duration::from_millis(5));
    log.io("shutdown", client.shutdown(Shutdown::Write));
    log.io("write", (&client).write(b"x"));
    log.io("peer reads", server.read(&mut [0; 4]));
    log.io("peer writes", server.write(b"data"));
    log.note("read", reader.join());
}

/// A shutdown of both sides, again and again.
pub(crate) fn shutdown_both(_: World, log: &mut Transcript) {
    let (mut client, mut server) = tcp_pair();
    log.io("shutdown", client.shutdown(Shutdown::Both));
    log.io("read", client.read(&mut [0; 4]));
    log.io("write", client.write(b"x"));
    log.io("peer reads", server.read(&mut [0; 4]));
    log.io("again", client.shutdown(Shutdown::Both));
    log.io("peer", server.shutdown(Shutdown::Write));
    log.io("bad", sys::shutdown(client.as_raw_fd(), 9));
}

/// write(2) and send(2) without MSG_NOSIGNAL: std's runtime ignores the signal.
pub(crate) fn sigpipe_is_ignored(_: World, log: &mut Transcript) {
    let (client, server) = tcp_pair();
    reset(server);
    wait_for_hang_up(&client);
    let fd = client.as_raw_fd();
    log.io("read", sys::read(fd, &mut [0; 1]));
    log.io("write", sys::write(fd, b"x"));
    log.io("send", sys::send(fd, b"x", 0));
    log.io("send nothing", sys::send(fd, b"", 0));
    log.io("writev", sys::writev(fd, &[std::io::IoSlice::new(b"x")]));
}
