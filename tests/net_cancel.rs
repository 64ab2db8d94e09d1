//! Kills and timeouts at every call of a socket that waits: the greenlet unwinds, and the socket
//! is as good as before.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::rc::Rc;
use std::time::Duration;

use greenling::net::unix::{UnixDatagram, UnixListener, UnixStream};
use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::{GreenletError, spawn, with_timeout, yield_now};

/// Long enough for a call to begin to wait.
const SHORT: Duration = Duration::from_millis(2);

/// Sets its flag when it is dropped.
struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// Sees to it that `call`, which would wait for ever, is ended by a timeout and by a kill.
fn ends<R: 'static>(call: impl Fn() -> R + Clone + 'static) {
    assert!(with_timeout(SHORT, &call).is_err());
    let dropped = Rc::new(Cell::new(false));
    let victim = {
        let (call, witness) = (call.clone(), Dropped(Rc::clone(&dropped)));
        spawn(move || {
            let _witness = witness;
            call();
            panic!("the call returned");
        })
    };
    yield_now();
    assert!(!victim.is_finished());
    victim.kill();
    assert!(dropped.get());
    assert!(matches!(victim.get(), Err(GreenletError::Killed)));
    // Killed before it could begin to wait: data that is there is not taken.
    let killed_early = spawn(call);
    killed_early.kill();
    assert!(killed_early.get().is_err());
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn accepting() {
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    ends({
        let listener = Rc::clone(&listener);
        move || listener.accept()
    });
    let client = TcpStream::connect(address).unwrap();
    assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());

    let name = format!("greenling-cancel-{}", std::process::id());
    let address = greenling::net::unix::SocketAddr::from_abstract_name(name).unwrap();
    let listener = Rc::new(UnixListener::bind_addr(&address).unwrap());
    ends({
        let listener = Rc::clone(&listener);
        move || listener.accept()
    });
    let _client = UnixStream::connect_addr(&address).unwrap();
    listener.accept().unwrap();
}

#[test]
fn reading_and_peeking() {
    let (client, mut server) = tcp_pair();
    let client = Rc::new(client);
    let read = Rc::clone(&client);
    ends(move || (&*read).read(&mut [0; 9]));
    let exact = Rc::clone(&client);
    ends(move || (&*exact).read_exact(&mut [0; 9]));
    let vectored = Rc::clone(&client);
    ends(move || (&*vectored).read_vectored(&mut [std::io::IoSliceMut::new(&mut [0; 9])]));
    let peek = Rc::clone(&client);
    ends(move || peek.peek(&mut [0; 9]));
    server.write_all(b"all of it").unwrap();
    let mut buf = [0; 9];
    (&*client).read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"all of it");
}

#[test]
fn writing() {
    let (client, mut server) = tcp_pair();
    let client = Rc::new(client);
    let writer = Rc::clone(&client);
    ends(move || {
        loop {
            (&*writer).write_all(&[7; 4096]).unwrap();
        }
    });
    let reader = spawn(move || {
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        got.ends_with(b"7777the end")
            || (got.ends_with(b"the end") && got[..got.len() - 7].iter().all(|&byte| byte == 7))
    });
    (&*client).write_all(b"the end").unwrap();
    drop(client);
    assert!(reader.get().unwrap());
}

#[test]
fn connecting() {
    let listener = TcpListener::builder().backlog(0).bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, 10 * SHORT) {
        clients.push(client);
    }
    ends(move || TcpStream::connect(address));
    for _ in clients {
        listener.accept().unwrap();
    }
}

#[test]
fn receiving_datagrams() {
    let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = socket.local_addr().unwrap();
    let receiver = Rc::clone(&socket);
    ends(move || receiver.recv_from(&mut [0; 9]));
    let receiver = Rc::clone(&socket);
    ends(move || receiver.peek(&mut [0; 9]));
    socket.send_to(b"!", address).unwrap();
    assert_eq!(socket.recv_from(&mut [0; 9]).unwrap(), (1, address));

    let (here, there) = UnixDatagram::pair().unwrap();
    let here = Rc::new(here);
    let receiver = Rc::clone(&here);
    ends(move || receiver.recv(&mut [0; 9]));
    there.send(b"!").unwrap();
    assert_eq!(here.recv(&mut [0; 9]).unwrap(), 1);
}

#[test]
fn sending_datagrams() {
    let (here, there) = UnixDatagram::pair().unwrap();
    let here = Rc::new(here);
    let sender = Rc::clone(&here);
    ends(move || {
        loop {
            sender.send(b"!").unwrap();
        }
    });
    there.set_nonblocking(true).unwrap();
    while there.recv(&mut [0; 9]).is_ok() {}
    here.send(b"last").unwrap();
    assert_eq!(there.recv(&mut [0; 9]).unwrap(), 4);
}

#[test]
fn a_socket_that_never_waits_is_a_kill_point_now_and_then() {
    let (client, server) = UnixStream::pair().unwrap();
    let flood = spawn(move || {
        loop {
            (&server).write_all(b"x").unwrap();
            (&client).read_exact(&mut [0]).unwrap();
        }
    });
    yield_now();
    flood.kill();
    assert!(flood.get().is_err());
}
