//! TCP: std's behaviour, while other greenlets run.

use std::cell::Cell;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::net::{TcpListener, TcpStream};
use greenling::{joinall, sleep, spawn, with_timeout, yield_now};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Long enough to tell a wait from a failure.
const SHORT: Duration = Duration::from_millis(20);

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen();
    let client = TcpStream::connect(address).unwrap();
    (client, listener.accept().unwrap().0)
}

/// An address at which nobody listens, and what keeps others from listening there.
fn refused() -> (socket2::Socket, SocketAddr) {
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = bound.local_addr().unwrap().as_socket().unwrap();
    (bound, address)
}

/// Sends everything back until the peer ends.
fn echo(mut stream: TcpStream) {
    let mut buf = [0; 1024];
    while let Ok(len @ 1..) = stream.read(&mut buf) {
        if stream.write_all(&buf[..len]).is_err() {
            return;
        }
    }
}

#[test]
fn echo_among_many_greenlets() {
    let (listener, address) = listen();
    let server = spawn(move || {
        for stream in listener.incoming().take(100) {
            let stream = stream.unwrap();
            spawn(move || echo(stream));
        }
    });
    let clients: Vec<_> = (0..100_u32)
        .map(|n| {
            spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                for round in 0..20 {
                    let message = (n * 1000 + round).to_be_bytes();
                    stream.write_all(&message).unwrap();
                    let mut answer = [0; 4];
                    stream.read_exact(&mut answer).unwrap();
                    assert_eq!(answer, message);
                }
            })
        })
        .collect();
    for client in clients {
        client.get().unwrap();
    }
    server.get().unwrap();
}

#[test]
fn one_greenlet_reads_while_another_writes() {
    let (client, server) = pair();
    let client = Rc::new(client);
    let reader = {
        let client = Rc::clone(&client);
        spawn(move || {
            let mut got = vec![0; 4_000_000];
            (&*client).read_exact(&mut got).unwrap();
            got.iter().all(|&byte| byte == 7)
        })
    };
    let echo = spawn(move || echo(server));
    // More than the buffers of both ends hold, so it can only end if the reader runs.
    (&*client).write_all(&vec![7; 4_000_000]).unwrap();
    assert!(reader.get().unwrap());
    client.shutdown(Shutdown::Write).unwrap();
    echo.get().unwrap();
}

#[test]
fn several_acceptors_of_one_listener_are_all_served() {
    let (listener, address) = listen();
    let listener = Rc::new(listener);
    let acceptors: Vec<_> = (0..5)
        .map(|_| {
            let listener = Rc::clone(&listener);
            spawn(move || listener.accept().unwrap().1)
        })
        .collect();
    yield_now();
    let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut accepted: Vec<_> = acceptors.into_iter().map(|a| a.get().unwrap()).collect();
    let mut connected: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
    accepted.sort();
    connected.sort();
    assert_eq!(accepted, connected);
}

#[test]
fn data_and_end_on_one_edge_are_both_seen() {
    for _ in 0..100 {
        let (mut client, mut server) = pair();
        let reader = spawn(move || {
            let mut buf = [0; 100];
            // A short read, which would mean that nothing is left if the end were not there.
            assert_eq!(client.read(&mut buf).unwrap(), 3);
            assert_eq!(client.read(&mut buf).unwrap(), 0);
            assert_eq!(client.read(&mut buf).unwrap(), 0);
        });
        yield_now();
        server.write_all(b"bye").unwrap();
        drop(server);
        reader.get().unwrap();
    }
}

#[test]
fn data_after_a_short_read_is_seen() {
    let (mut client, mut server) = pair();
    let mut buf = [0; 100];
    for _ in 0..100 {
        server.write_all(b"ab").unwrap();
        assert_eq!(client.read(&mut buf).unwrap(), 2);
    }
}

#[test]
fn data_behind_the_urgent_mark_is_seen() {
    for registered in [false, true] {
        let (mut client, server) = pair();
        if registered {
            client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            assert_eq!(client.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
            client.set_read_timeout(None).unwrap();
        }
        (&server).write_all(b"abc").unwrap();
        socket2::SockRef::from(&server).send_out_of_band(b"!").unwrap();
        (&server).write_all(b"def").unwrap();
        let mut buf = [0; 100];
        assert_eq!(client.read(&mut buf).unwrap(), 3); // Stops at the mark.
        let rest = with_timeout(LONG, || client.read(&mut buf).unwrap());
        assert_eq!(rest, Ok(3));
        drop(server);
        assert_eq!(client.read(&mut buf).unwrap(), 0);
    }
}

#[test]
fn a_read_that_takes_too_long_fails_as_with_std() {
    let (mut client, mut server) = pair();
    client.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(client.read_timeout().unwrap(), Some(SHORT));
    let start = Instant::now();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(start.elapsed() >= SHORT);
    server.write_all(b"!").unwrap();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 1);
    let zero = client.set_read_timeout(Some(Duration::ZERO)).unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_write_to_a_slow_reader_times_out() {
    let (client, _server) = pair();
    client.set_write_timeout(Some(SHORT)).unwrap();
    let error = (&client).write_all(&vec![0; 64 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_refused_connection_is_an_error() {
    let (_bound, address) = refused();
    let error = TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let error = TcpStream::connect_timeout(&address, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// A listener that answers no more: its backlog is full.
fn full_listener() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let listener = TcpListener::builder().backlog(0).bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, SHORT) {
        clients.push(client);
        assert!(clients.len() < 100, "the backlog never fills");
    }
    (listener, address, clients)
}

#[test]
fn a_connection_that_is_not_answered_times_out() {
    let (_listener, address, _clients) = full_listener();
    let error = TcpStream::connect_timeout(&address, SHORT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let zero = TcpStream::connect_timeout(&address, Duration::ZERO).unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_addresses_are_tried_in_turn() {
    let (_bound, refused) = refused();
    let (_listener, address) = listen();
    let stream = TcpStream::connect(&[refused, address][..]).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    let none: &[SocketAddr] = &[];
    assert_eq!(TcpStream::connect(none).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn shutdown_ends_the_peers_read_and_the_own_one() {
    let (client, mut server) = pair();
    let client = Rc::new(client);
    let reader = {
        let client = Rc::clone(&client);
        spawn(move || (&*client).read(&mut [0; 1]).unwrap())
    };
    yield_now();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    assert!((&*client).write(b"!").is_err());
    assert!(!reader.is_finished());
    client.shutdown(Shutdown::Read).unwrap();
    assert_eq!(reader.get().unwrap(), 0);
}

#[test]
fn peek_leaves_the_data() {
    let (client, mut server) = pair();
    let writer = spawn(move || server.write_all(b"hello").unwrap());
    let mut buf = [0; 9];
    assert_eq!(client.peek(&mut buf[..2]).unwrap(), 2);
    assert_eq!(client.peek(&mut buf).unwrap(), 5);
    assert_eq!((&client).read(&mut buf).unwrap(), 5);
    writer.get().unwrap();
}

#[test]
fn vectored_reads_and_writes() {
    let (mut client, mut server) = pair();
    let (hello, world) = (IoSlice::new(b"hello, "), IoSlice::new(b"world"));
    let writer = spawn(move || server.write_vectored(&[hello, world]).unwrap());
    let (mut a, mut b) = ([0; 5], [0; 20]);
    let read =
        client.read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]).unwrap();
    assert_eq!((read, &a, &b[..7]), (12, b"hello", &b", world"[..]));
    assert_eq!(writer.get().unwrap(), 12);
}

#[test]
fn a_clone_shares_the_socket_and_its_settings() {
    let (client, mut server) = pair();
    let mut clone = client.try_clone().unwrap();
    client.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(clone.read_timeout().unwrap(), Some(SHORT));
    assert_eq!(clone.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_read_timeout(None).unwrap();

    let reader = spawn(move || {
        let mut buf = [0; 4];
        clone.read_exact(&mut buf).unwrap();
        buf
    });
    yield_now();
    (&client).write_all(b"ping").unwrap();
    drop(client); // The clone goes on.
    let mut buf = [0; 4];
    server.read_exact(&mut buf).unwrap();
    server.write_all(b"pong").unwrap();
    assert_eq!(&reader.get().unwrap(), b"pong");
    assert_eq!(server.read(&mut buf).unwrap(), 0);
}

#[test]
fn a_nonblocking_socket_says_would_block() {
    let (listener, address) = listen();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut client = TcpStream::connect(address).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.write_all(b"!").unwrap();
    greenling::io::wait_readable(&client, None).unwrap();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 1);
    client.set_nonblocking(false).unwrap();
    let reader = spawn(move || client.read(&mut [0; 1]).unwrap());
    yield_now();
    server.write_all(b"!").unwrap();
    assert_eq!(reader.get().unwrap(), 1);
}

#[test]
fn conversions_from_and_to_std_keep_what_was_set() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let listener = TcpListener::from(listener);
    let (mut server, _) = listener.accept().unwrap();

    let green = TcpStream::from(client);
    assert_eq!(green.read_timeout().unwrap(), Some(Duration::from_millis(500)));
    green.set_read_timeout(None).unwrap();
    green.set_write_timeout(Some(LONG)).unwrap();
    let reader = spawn(move || {
        assert_eq!((&green).read(&mut [0; 1]).unwrap(), 1);
        green
    });
    yield_now();
    server.write_all(b"!").unwrap();
    client = reader.get().unwrap().into();
    assert_eq!(client.read_timeout().unwrap(), None);
    assert_eq!(client.write_timeout().unwrap(), Some(LONG));
    // Blocking again, and on another thread.
    let reader = std::thread::spawn(move || client.read(&mut [0; 1]).unwrap());
    sleep(SHORT);
    server.write_all(b"!").unwrap();
    assert_eq!(reader.join().unwrap(), 1);
}

#[test]
fn conversions_from_and_to_fds() {
    let (client, mut server) = pair();
    let fd = client.into_raw_fd();
    // SAFETY: the fd was given away in the line before.
    let client = unsafe { TcpStream::from_raw_fd(fd) };
    assert_eq!(client.as_raw_fd(), fd);
    let mut client = TcpStream::from(OwnedFd::from(client));
    server.write_all(b"!").unwrap();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 1);
}

#[test]
fn sockets_of_several_threads_talk_to_each_other() {
    let (listener, address) = listen();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let greenlets: Vec<_> = (0..10)
                    .map(|_| {
                        spawn(move || {
                            let mut stream = TcpStream::connect(address).unwrap();
                            for _ in 0..50 {
                                stream.write_all(b"ping").unwrap();
                                stream.read_exact(&mut [0; 4]).unwrap();
                            }
                        })
                    })
                    .collect();
                greenlets.into_iter().for_each(|greenlet| greenlet.get().unwrap());
            })
        })
        .collect();
    let echoes: Vec<_> =
        listener.incoming().take(40).map(|s| s.unwrap()).map(|s| spawn(|| echo(s))).collect();
    joinall(&echoes);
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn options_are_those_of_the_socket() {
    let (client, server) = pair();
    client.set_nodelay(true).unwrap();
    assert!(client.nodelay().unwrap());
    client.set_ttl(42).unwrap();
    assert_eq!(client.ttl().unwrap(), 42);
    client.set_linger(Some(Duration::from_secs(3))).unwrap();
    assert_eq!(client.linger().unwrap(), Some(Duration::from_secs(3)));
    assert!(client.take_error().unwrap().is_none());
    assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    assert!(format!("{client:?}").contains("TcpStream"));
}

#[test]
fn a_builder_sets_what_bind_does_not() {
    let builder = TcpListener::builder().reuse_port(true).backlog(16).nodelay(true);
    let listener = builder.bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let twin = builder.bind(address).unwrap();
    assert_eq!(twin.local_addr().unwrap(), address);
    drop(twin);
    let _client = TcpStream::connect(address).unwrap();
    assert!(listener.accept().unwrap().0.nodelay().unwrap());
    let taken = TcpListener::bind(address).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_socket_that_is_always_ready_starves_nobody() {
    let (mut client, server) = pair();
    let stop = Rc::new(Cell::new(false));
    let flood = {
        let stop = Rc::clone(&stop);
        spawn(move || {
            while !stop.get() {
                // Never full: it is read at once, and never waits.
                (&server).write_all(b"x").unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
        })
    };
    sleep(SHORT); // Comes back only if the flood lets it.
    stop.set(true);
    flood.get().unwrap();
}

#[test]
fn a_thread_that_panics_still_reads_and_writes() {
    struct OnDrop(TcpStream);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            self.0.write_all(b"ping").unwrap();
            self.0.read_exact(&mut [0; 4]).unwrap();
        }
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut buf = [0; 4];
        stream.read_exact(&mut buf).unwrap();
        std::thread::sleep(SHORT);
        stream.write_all(&buf).unwrap();
    });
    let stream = OnDrop(TcpStream::connect(address).unwrap());
    let panicked = spawn(move || {
        let _stream = stream;
        panic!("on purpose");
    });
    assert!(panicked.get().is_err());
    server.join().unwrap();
}

#[test]
fn connections_that_end_at_any_time() {
    // All connect before the first is accepted; a full backlog would cost them a second.
    let listener = TcpListener::builder().backlog(128).bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        let echoes: Vec<_> =
            listener.incoming().take(1000).map(|s| s.unwrap()).map(|s| spawn(|| echo(s))).collect();
        joinall(&echoes);
    });
    let clients: Vec<_> = (0..1000_u32)
        .map(|n| {
            spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                // Leaves at a different point each: before, amid and after the exchange.
                let random = n.wrapping_mul(2_654_435_761) >> 16;
                for _ in 0..random % 5 {
                    stream.write_all(&[0; 100]).unwrap();
                    stream.read_exact(&mut [0; 100][..(random % 100) as usize]).unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.get().unwrap();
    }
    server.get().unwrap();
}
