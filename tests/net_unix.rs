//! Unix domain sockets: std's behaviour, while other greenlets run.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use greenling::net::unix::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use greenling::{sleep, spawn, with_timeout, yield_now};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Long enough to tell a wait from a failure.
const SHORT: Duration = Duration::from_millis(20);

/// A name that nobody else has.
fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("greenling-test-{}-{count}", std::process::id())
}

/// A path that nobody else has; the file is removed when this is dropped.
struct TempPath(PathBuf);

impl TempPath {
    fn new() -> TempPath {
        TempPath(std::env::temp_dir().join(name()))
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn connecting_and_accepting_by_path() {
    let path = TempPath::new();
    let listener = UnixListener::bind(&path.0).unwrap();
    let local = listener.local_addr().unwrap();
    assert_eq!(local.as_pathname(), Some(&*path.0));
    let server = spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (text, peer.is_unnamed())
    });
    yield_now();
    let mut client = UnixStream::connect(&path.0).unwrap();
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path.0));
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.get().unwrap(), ("hello".to_owned(), true));
}

#[test]
fn the_peers_of_accepted_connections_are_told() {
    let listener_name = SocketAddr::from_abstract_name(name()).unwrap();
    let listener = UnixListener::bind_addr(&listener_name).unwrap();
    let (by_path, by_name) = (TempPath::new(), name());
    for client in [
        socket2::SockAddr::unix(&by_path.0).unwrap(),
        socket2::SockAddr::unix(format!("\0{by_name}")).unwrap(),
    ] {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&client).unwrap();
        let server_name = listener_name.as_abstract_name().unwrap();
        let server = [b"\0", server_name].concat();
        let server = socket2::SockAddr::unix(String::from_utf8(server).unwrap()).unwrap();
        socket.connect(&server).unwrap();
    }
    let (_, first) = listener.accept().unwrap();
    assert_eq!(first.as_pathname(), Some(&*by_path.0));
    let (_, second) = listener.accept().unwrap();
    assert_eq!(second.as_abstract_name(), Some(by_name.as_bytes()));
}

#[test]
fn abstract_addresses_need_no_file() {
    let address = SocketAddr::from_abstract_name(name()).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let client = UnixStream::connect_addr(&address).unwrap();
    let server = (&listener).into_iter().next().unwrap().unwrap();
    (&client).write_all(b"!").unwrap();
    assert_eq!((&server).read(&mut [0; 9]).unwrap(), 1);
}

#[test]
fn a_missing_listener_is_an_error() {
    let path = TempPath::new();
    assert_eq!(UnixStream::connect(&path.0).unwrap_err().kind(), ErrorKind::NotFound);
    drop(UnixListener::bind(&path.0).unwrap());
    assert_eq!(UnixStream::connect(&path.0).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_connect_waits_for_room_in_the_backlog() {
    let path = TempPath::new();
    let listener = UnixListener::bind(&path.0).unwrap();
    // A later listen(2) changes the backlog.
    socket2::SockRef::from(&listener).listen(1).unwrap();
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let path = path.0.clone();
            spawn(move || UnixStream::connect(path).unwrap())
        })
        .collect();
    sleep(SHORT);
    assert!(clients.iter().any(|client| !client.is_finished()));
    let servers: Vec<_> = listener.incoming().take(10).collect();
    assert_eq!(servers.len(), 10);
    for client in clients {
        client.get().unwrap();
    }
}

#[test]
fn a_connect_to_a_full_backlog_can_be_given_up() {
    let path = TempPath::new();
    let listener = UnixListener::bind(&path.0).unwrap();
    socket2::SockRef::from(&listener).listen(0).unwrap();
    let _first = UnixStream::connect(&path.0).unwrap();
    assert!(with_timeout(SHORT, || UnixStream::connect(&path.0)).is_err());
    let victim = {
        let path = path.0.clone();
        spawn(move || UnixStream::connect(path))
    };
    yield_now();
    victim.kill();
    assert!(victim.get().is_err());
}

#[test]
fn a_pair_is_read_and_written_at_the_same_time() {
    let (here, mut there) = UnixStream::pair().unwrap();
    let mut here_too = here.try_clone().unwrap();
    let reader = spawn(move || {
        let mut got = Vec::new();
        here_too.read_to_end(&mut got).unwrap();
        got.len()
    });
    let echo = spawn(move || {
        let mut clone = there.try_clone().unwrap();
        std::io::copy(&mut there, &mut clone).unwrap()
    });
    (&here).write_all(&vec![0; 1_000_000]).unwrap();
    here.shutdown(Shutdown::Write).unwrap();
    assert_eq!(echo.get().unwrap(), 1_000_000);
    assert_eq!(reader.get().unwrap(), 1_000_000);
}

#[test]
fn a_read_that_takes_too_long_fails_as_with_std() {
    let (mut here, mut there) = UnixStream::pair().unwrap();
    here.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(here.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    there.set_write_timeout(Some(SHORT)).unwrap();
    let error = there.write_all(&vec![0; 8 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    there.set_nonblocking(true).unwrap();
    assert_eq!(there.write(b"!").unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Sends a byte together with an fd, which keeps the kernel from joining it with its neighbours.
fn send_with_fd(stream: &UnixStream, byte: u8) {
    use std::os::fd::AsRawFd;
    let mut control = [0_u64; 8];
    let mut data = IoSlice::new(std::slice::from_ref(&byte));
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = (&raw mut data).cast();
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the lengths are those of one int, for which the control buffer has room; the header
    // that CMSG_FIRSTHDR finds lies in it.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(stream.as_raw_fd());
        libc::sendmsg(stream.as_raw_fd(), &raw const message, 0)
    };
    assert_eq!(sent, 1);
}

#[test]
fn a_short_read_at_a_message_with_an_fd_leaves_the_rest_readable() {
    let (here, mut there) = UnixStream::pair().unwrap();
    let reader = spawn(move || {
        let mut got = 0;
        while got < 4 {
            got += there.read(&mut [0; 100]).unwrap();
        }
    });
    yield_now(); // The reader waits already, so that all comes with one edge.
    (&here).write_all(b"a").unwrap();
    send_with_fd(&here, b'b');
    send_with_fd(&here, b'c');
    (&here).write_all(b"d").unwrap();
    assert!(with_timeout(LONG, || reader.get().unwrap()).is_ok());
}

#[test]
fn datagrams_by_path_and_by_pair() {
    let (path, reply) = (TempPath::new(), TempPath::new());
    let server = UnixDatagram::bind(&path.0).unwrap();
    let client = UnixDatagram::bind(&reply.0).unwrap();
    let echo = spawn(move || {
        let mut buf = [0; 16];
        let (len, from) = server.recv_from(&mut buf).unwrap();
        server.send_to_addr(&buf[..len], &from).unwrap();
    });
    yield_now();
    client.send_to(b"ping", &path.0).unwrap();
    let mut buf = [0; 16];
    assert_eq!(client.recv(&mut buf).unwrap(), 4);
    echo.get().unwrap();

    let (here, there) = UnixDatagram::pair().unwrap();
    here.send(b"a datagram").unwrap();
    assert_eq!(there.recv(&mut buf[..1]).unwrap(), 1); // The rest is cut off.
    there.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(there.recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_shutdown_ends_the_receives_of_a_datagram_socket() {
    let (here, _there) = UnixDatagram::pair().unwrap();
    let clone = here.try_clone().unwrap();
    let receiver = spawn(move || clone.recv(&mut [0; 9]).unwrap());
    yield_now();
    here.shutdown(Shutdown::Read).unwrap();
    assert_eq!(receiver.get().unwrap(), 0);
    assert_eq!(here.recv_from(&mut [0; 9]).unwrap().0, 0);
}

#[test]
fn a_sender_waits_while_the_receivers_queue_is_full() {
    let address = SocketAddr::from_abstract_name(name()).unwrap();
    let receiver = UnixDatagram::bind_addr(&address).unwrap();
    for connected in [false, true] {
        let sender = UnixDatagram::unbound().unwrap();
        let address = address.clone();
        let sender = spawn(move || {
            if connected {
                sender.connect_addr(&address).unwrap();
            }
            for n in 0..1000_u32 {
                let datagram = n.to_be_bytes();
                let sent = match connected {
                    true => sender.send(&datagram),
                    false => sender.send_to_addr(&datagram, &address),
                };
                assert_eq!(sent.unwrap(), 4);
            }
        });
        sleep(SHORT);
        assert!(!sender.is_finished());
        let mut buf = [0; 16];
        for n in 0..1000_u32 {
            assert_eq!(receiver.recv(&mut buf).unwrap(), 4);
            assert_eq!(buf[..4], n.to_be_bytes());
        }
        sender.get().unwrap();
    }
}

#[test]
fn conversions_from_and_to_std() {
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let (here, mut there) = (UnixStream::from(here), UnixStream::from(there));
    let reader = spawn(move || {
        let mut buf = [0; 4];
        there.read_exact(&mut buf).unwrap();
        there
    });
    yield_now();
    (&here).write_all(b"ping").unwrap();
    let mut there = std::os::unix::net::UnixStream::from(reader.get().unwrap());
    drop(here);
    assert_eq!(there.read(&mut [0; 1]).unwrap(), 0);
}
