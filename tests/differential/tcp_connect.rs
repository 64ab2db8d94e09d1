//! Connecting and accepting.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use libc::{AF_INET, AF_UNIX, SOCK_NONBLOCK, SOCK_STREAM};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::common::sys;
use crate::world::{Transcript, World, tcp_pair, told};

/// A timeout that is meant to expire.
const SHORT: Duration = Duration::from_millis(20);

/// An address at which nobody listens: the socket keeps the port busy, so that nobody else will.
fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from("127.0.0.1:0".parse::<SocketAddr>().unwrap())).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A listener that accepts nobody, with a queue so full that connecting to it takes for ever, and
/// what fills it.
fn deaf() -> (TcpListener, Vec<Socket>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from("127.0.0.1:0".parse::<SocketAddr>().unwrap())).unwrap();
    socket.listen(1).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let fillers = (0..4)
        .map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&SockAddr::from(address));
            filler
        })
        .collect();
    (listener, fillers)
}

/// Nobody listens.
pub(crate) fn refused(_: World, log: &mut Transcript) {
    let (_port, address) = nobody();
    log.io("connect", TcpStream::connect(address).map(drop));
    log.io("connect_timeout", TcpStream::connect_timeout(&address, SHORT * 500).map(drop));
    let none: &[SocketAddr] = &[];
    log.io("no address", TcpStream::connect(none).map(drop));
}

/// One socket, refused several times, then not.
pub(crate) fn refused_twice(_: World, log: &mut Transcript) {
    let (port, address) = nobody();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let to = SockAddr::from(address);
    log.io("connect", socket.connect(&to));
    log.io("flags", sys::status_flags(socket.as_raw_fd()));
    log.io("error", socket.take_error().map(|error| error.is_some()));
    log.io("connect again", socket.connect(&to));
    log.io("recv", sys::recv(socket.as_raw_fd(), &mut [0; 1], 0));
    port.listen(8).unwrap();
    log.io("connect at last", socket.connect(&to));
    log.io("flags", sys::status_flags(socket.as_raw_fd()));
    log.io("once more", socket.connect(&to));
}

/// std's connect_timeout.
pub(crate) fn connect_timeout(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect_timeout(&address, SHORT * 500).unwrap();
    log.io("flags", sys::status_flags(stream.as_raw_fd()));
    log.io("error", stream.take_error().map(|error| error.is_some()));
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"x").unwrap();
    log.io("read", (&stream).read(&mut [0; 2]));
    log.io("no time", TcpStream::connect_timeout(&address, Duration::ZERO).map(drop));
    let (deaf, _fillers) = deaf();
    let address = deaf.local_addr().unwrap();
    log.io("never", TcpStream::connect_timeout(&address, SHORT).map(drop));
}

/// SO_SNDTIMEO bounds a connect.
pub(crate) fn connect_with_a_send_timeout(_: World, log: &mut Transcript) {
    let (deaf, _fillers) = deaf();
    let to = SockAddr::from(deaf.local_addr().unwrap());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_write_timeout(Some(SHORT)).unwrap();
    log.io("connect", socket.connect(&to));
    log.io("flags", sys::status_flags(socket.as_raw_fd()));
    log.io("connect again", socket.connect(&to));
    log.io("send", sys::send(socket.as_raw_fd(), b"x", libc::MSG_NOSIGNAL));
    socket.set_nonblocking(true).unwrap();
    log.io("connect, not waiting", socket.connect(&to));
    log.io("flags", sys::status_flags(socket.as_raw_fd()));
}

/// Addresses that no packet is ever sent to.
pub(crate) fn unreachable(_: World, log: &mut Transcript) {
    for address in ["224.0.0.1:9", "255.255.255.255:9", "[ff02::1%1]:9", "[::ffff:224.0.0.1]:9"] {
        let Ok(address) = address.parse::<SocketAddr>() else {
            log.note("no address", address);
            continue;
        };
        log.io("connect", TcpStream::connect(address).map(drop));
        log.io("in time", TcpStream::connect_timeout(&address, SHORT).map(drop));
    }
    // A loopback source for a far target.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from("127.0.0.1:0".parse::<SocketAddr>().unwrap())).unwrap();
    let far = "192.0.2.1:9".parse::<SocketAddr>().unwrap();
    socket.set_write_timeout(Some(SHORT)).unwrap();
    log.io("far away", socket.connect(&SockAddr::from(far)));
    log.io("flags", sys::status_flags(socket.as_raw_fd()));
}

/// EISCONN in its forms.
pub(crate) fn connected_already(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    log.io("stream", sys::connect(stream.as_raw_fd(), address));
    log.io("flags", sys::status_flags(stream.as_raw_fd()));
    log.io("listener", sys::connect(listener.as_raw_fd(), address));
    let (server, _) = listener.accept().unwrap();
    drop(server);
    log.io("end", (&stream).read(&mut [0; 1]));
    log.io("half closed", sys::connect(stream.as_raw_fd(), address));
    log.io("shutdown", stream.shutdown(Shutdown::Both));
}

/// What is no address for the socket.
pub(crate) fn bad_addresses(_: World, log: &mut Transcript) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let fd = socket.as_raw_fd();
    log.io("another family", sys::connect(fd, "[::1]:9".parse().unwrap()));
    // SAFETY: the kernel refuses both before it reads what is not there.
    let (short, null) = unsafe {
        let address = SockAddr::from("127.0.0.1:9".parse::<SocketAddr>().unwrap());
        let short = sys::cvt(libc::connect(fd, address.as_ptr().cast(), 4) as isize);
        let null = sys::cvt(libc::connect(fd, std::ptr::null(), 16) as isize);
        (short, null)
    };
    log.io("short", short);
    log.io("null", null);
    log.io("port 0", sys::connect(fd, "127.0.0.1:0".parse().unwrap()));
    log.io("flags", sys::status_flags(fd));
    log.io("no such path", UnixStream::connect("/nonexistent/socket").map(drop));
    log.io("no socket", UnixStream::connect("/proc/self/status").map(drop));
}

/// std tries the addresses in turn.
pub(crate) fn second_address_succeeds(_: World, log: &mut Transcript) {
    let (_port, nobody) = nobody();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let both = [nobody, listener.local_addr().unwrap()];
    log.io("connect", TcpStream::connect(&both[..]).map(drop));
    log.io("accept", listener.accept().map(drop));
}

/// SO_ERROR after a connect that did not wait.
pub(crate) fn error_of_a_failed_connect(_: World, log: &mut Transcript) {
    let (_port, address) = nobody();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let fd = socket.as_raw_fd();
    let begun = told(socket.connect(&SockAddr::from(address)));
    log.note("begun", begun);
    log.io("poll", sys::poll(&[(fd, libc::POLLOUT)], -1));
    let stream = TcpStream::from(socket);
    let error = stream.take_error().unwrap();
    log.note("error", error.map(|error| (error.kind(), error.raw_os_error())));
    log.note("error again", stream.take_error().unwrap().is_none());
    log.io("recv", (&stream).read(&mut [0; 1]));
    log.io("send", (&stream).write(b"x"));
}

/// No O_NONBLOCK that the program did not ask for can be seen.
pub(crate) fn flags_after_accept(world: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    log.io("listener", sys::status_flags(listener.as_raw_fd()));
    let server = world.spawn(move || (told(listener.accept()).unwrap().0, listener));
    let client = TcpStream::connect(address).unwrap();
    let (server, listener) = server.join();
    log.io("listener", sys::status_flags(listener.as_raw_fd()));
    log.io("client", sys::status_flags(client.as_raw_fd()));
    log.io("server", sys::status_flags(server.as_raw_fd()));
    let clone = listener.try_clone().unwrap();
    log.io("listener's clone", sys::status_flags(clone.as_raw_fd()));
    clone.set_nonblocking(true).unwrap();
    log.io("listener", sys::status_flags(listener.as_raw_fd()));
    log.io("accept", listener.accept().map(drop));
    listener.set_nonblocking(false).unwrap();
    log.io("listener", sys::status_flags(clone.as_raw_fd()));
    log.io("set", sys::fcntl(clone.as_raw_fd(), libc::F_SETFL, libc::O_RDWR));
    let second = world.spawn(move || told(clone.accept().map(drop)));
    let _client = TcpStream::connect(address).unwrap();
    log.note("accept", second.join());
    log.io("close on exec", sys::fcntl(server.as_raw_fd(), libc::F_GETFD, 0));
}

/// SO_RCVTIMEO bounds an accept.
pub(crate) fn accept_timeout(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_read_timeout(Some(SHORT)).unwrap();
    log.io("accept", listener.accept().map(drop));
    log.io("accept again", listener.accept().map(drop));
    log.io("flags", sys::status_flags(listener.as_raw_fd()));
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    SockRef::from(&listener).set_read_timeout(None).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    log.io("inherited", stream.read_timeout());
    // A timeout of the listener is the accepted socket's, too.
    SockRef::from(&listener).set_read_timeout(Some(SHORT)).unwrap();
    let _second = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (heir, _) = listener.accept().unwrap();
    log.io("inherited", heir.read_timeout().map(|timeout| timeout.is_some()));
    heir.set_read_timeout(Some(SHORT)).unwrap();
    log.io("read", (&heir).read(&mut [0; 1]));
    stream.set_read_timeout(Some(SHORT)).unwrap();
    log.io("read", stream.read(&mut [0; 1]));
}

/// A listener that does not wait.
pub(crate) fn accept_without_waiting(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    log.io("accept", listener.accept().map(drop));
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    log.io("poll", sys::poll(&[(listener.as_raw_fd(), libc::POLLIN)], -1));
    let (stream, _) = listener.accept().unwrap();
    log.io("flags", sys::status_flags(stream.as_raw_fd()));
    log.io("accept", listener.accept().map(drop));
    let incoming = listener.incoming().next().map(|it| told(it.map(drop)));
    log.note("incoming", incoming);
}

/// accept4's flags, and accept's lack of them.
pub(crate) fn accept_nonblocking_stream(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    let stream = sys::accept4(listener.as_raw_fd(), SOCK_NONBLOCK).unwrap();
    log.io("flags", sys::status_flags(stream.as_raw_fd()));
    log.io("close on exec", sys::fcntl(stream.as_raw_fd(), libc::F_GETFD, 0));
    log.io("recv", sys::recv(stream.as_raw_fd(), &mut [0; 1], 0));
    let stream = sys::accept(listener.as_raw_fd()).unwrap();
    log.io("flags", sys::status_flags(stream.as_raw_fd()));
    log.io("close on exec", sys::fcntl(stream.as_raw_fd(), libc::F_GETFD, 0));
    log.io("bad flags", sys::accept4(listener.as_raw_fd(), 1 << 20).map(drop));
}

/// What can't be accepted from.
pub(crate) fn accept_on_what_does_not_listen(_: World, log: &mut Transcript) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    log.io("fresh", sys::accept(socket.as_raw_fd()).map(drop));
    let (client, _server) = tcp_pair();
    log.io("connected", sys::accept(client.as_raw_fd()).map(drop));
    log.io("flags", sys::status_flags(client.as_raw_fd()));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    log.io("udp", sys::accept(udp.as_raw_fd()).map(drop));
    let file = std::fs::File::open("/proc/self/status").unwrap();
    log.io("file", sys::accept(file.as_raw_fd()).map(drop));
    let (pair, _other) = UnixStream::pair().unwrap();
    log.io("pair", sys::accept(pair.as_raw_fd()).map(drop));
}

/// The name that comes with a connection.
pub(crate) fn accept_names(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let mut name = [0u8; 4];
    let mut bytes = 4;
    // SAFETY: the name is as long as is said.
    let accepted = unsafe {
        sys::cvt(libc::accept(listener.as_raw_fd(), name.as_mut_ptr().cast(), &mut bytes) as isize)
    };
    let stream = accepted.map(|fd| {
        // SAFETY: the fd is fresh.
        unsafe { TcpStream::from_raw_fd(fd as i32) }
    });
    log.note("length", bytes);
    log.note("family", name[0]);
    log.io("peer", stream.unwrap().peer_addr().map(|it| it == client.local_addr().unwrap()));
    // SAFETY: the kernel refuses the size before it writes anything.
    let negative = unsafe {
        let mut bytes = libc::socklen_t::MAX;
        let _second = TcpStream::connect(address).unwrap();
        sys::cvt(libc::accept(listener.as_raw_fd(), name.as_mut_ptr().cast(), &mut bytes) as isize)
    };
    log.io("negative size", negative);
}

/// Several tasks accept from one listener.
pub(crate) fn several_acceptors(world: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let acceptors: Vec<_> = (0..5)
        .map(|_| {
            let listener = listener.try_clone().unwrap();
            world.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                byte[0]
            })
        })
        .collect();
    for byte in 0..5 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[byte]).unwrap();
    }
    let mut seen: Vec<u8> = acceptors.into_iter().map(|acceptor| acceptor.join()).collect();
    seen.sort_unstable();
    log.note("seen", seen);
}

/// A connection that nobody accepted is reset with its listener.
pub(crate) fn listener_dropped(_: World, log: &mut Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"x").unwrap();
    drop(listener);
    log.io("read", client.read(&mut [0; 1]));
    log.io("read again", client.read(&mut [0; 1]));
}

/// A socket that is not connected.
pub(crate) fn unconnected(_: World, log: &mut Transcript) {
    let socket = sys::socket(AF_INET, SOCK_STREAM, 0).unwrap();
    let fd = socket.as_raw_fd();
    log.io("recv", sys::recv(fd, &mut [0; 1], 0));
    log.io("read", sys::read(fd, &mut [0; 1]));
    log.io("send", sys::send(fd, b"x", libc::MSG_NOSIGNAL));
    log.io("shutdown", sys::shutdown(fd, libc::SHUT_RDWR));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    log.io("recv of a listener", sys::recv(listener.as_raw_fd(), &mut [0; 1], 0));
    log.io("send of a listener", sys::send(listener.as_raw_fd(), b"x", libc::MSG_NOSIGNAL));
    let unix = sys::socket(AF_UNIX, SOCK_STREAM, 0).unwrap();
    log.io("unix recv", sys::recv(unix.as_raw_fd(), &mut [0; 1], 0));
    log.io("unix send", sys::send(unix.as_raw_fd(), b"x", libc::MSG_NOSIGNAL));
    log.io("bad family", sys::socket(9999, SOCK_STREAM, 0).map(drop));
}

/// A Unix listener whose queue is full.
pub(crate) fn unix_backlog_full(world: World, log: &mut Transcript) {
    let name = format!("greenling-backlog-{}-{:p}", std::process::id(), &log);
    let address = SockAddr::unix(format!("\0{name}")).unwrap();
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&address).unwrap();
    socket.listen(0).unwrap();
    let client = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let first = client();
    log.io("first", first.connect(&address));
    let second = client();
    second.set_nonblocking(true).unwrap();
    log.io("no waiting", second.connect(&address));
    second.set_nonblocking(false).unwrap();
    second.set_write_timeout(Some(SHORT)).unwrap();
    log.io("in time", second.connect(&address));
    second.set_write_timeout(None).unwrap();
    let connecting = world.spawn(move || (told(second.connect(&address)), second));
    // SAFETY: the fd is given away.
    let listener = unsafe { UnixListener::from_raw_fd(socket.into_raw_fd()) };
    log.io("accept", listener.accept().map(drop));
    log.io("accept", listener.accept().map(drop));
    let (connected, second) = connecting.join();
    log.note("connected", connected);
    log.io("flags", sys::status_flags(second.as_raw_fd()));
}
