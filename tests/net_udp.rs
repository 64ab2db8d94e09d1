//! UDP: std's behaviour, while other greenlets run.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use greenling::net::UdpSocket;
use greenling::{spawn, yield_now};

/// Long enough to tell a wait from a failure.
const SHORT: Duration = Duration::from_millis(20);

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Two sockets, each connected to the other.
fn pair() -> (UdpSocket, UdpSocket) {
    let ((one, first), (other, second)) = (socket(), socket());
    one.connect(second).unwrap();
    other.connect(first).unwrap();
    (one, other)
}

#[test]
fn a_datagram_arrives_with_its_sender() {
    let ((here, address), (there, peer)) = (socket(), socket());
    let receiver = spawn(move || {
        let mut buf = [0; 16];
        let (len, from) = there.recv_from(&mut buf).unwrap();
        there.send_to(&buf[..len], from).unwrap();
        from
    });
    yield_now();
    assert_eq!(here.send_to(b"ping", peer).unwrap(), 4);
    let mut buf = [0; 16];
    assert_eq!(here.recv_from(&mut buf).unwrap(), (4, peer));
    assert_eq!(&buf[..4], b"ping");
    assert_eq!(receiver.get().unwrap(), address);
}

#[test]
fn what_does_not_fit_is_cut_off_and_the_next_datagram_is_whole() {
    let (here, there) = pair();
    let mut buf = [0; 2];
    for round in 0..3 {
        here.send(b"long").unwrap();
        here.send(&[round]).unwrap();
        assert_eq!(there.recv(&mut buf).unwrap(), 2);
        // The long one was short for its buffer, the short one must be seen all the same.
        assert_eq!(there.recv(&mut [0; 9]).unwrap(), 1);
    }
}

#[test]
fn datagrams_may_be_empty() {
    let (here, there) = pair();
    assert_eq!(here.send(b"").unwrap(), 0);
    assert_eq!(there.recv(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn peek_leaves_the_datagram() {
    let (here, there) = pair();
    let peeker = spawn(move || {
        let mut buf = [0; 9];
        assert_eq!(there.peek(&mut buf).unwrap(), 4);
        let (len, from) = there.peek_from(&mut buf).unwrap();
        assert_eq!((len, from), there.recv_from(&mut buf).unwrap());
        from
    });
    yield_now();
    here.send(b"ping").unwrap();
    assert_eq!(peeker.get().unwrap(), here.local_addr().unwrap());
}

#[test]
fn a_receive_that_takes_too_long_fails_as_with_std() {
    let (here, _there) = pair();
    here.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(here.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(here.recv_from(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let zero = here.set_read_timeout(Some(Duration::ZERO)).unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_nonblocking_socket_says_would_block() {
    let (here, there) = pair();
    here.set_nonblocking(true).unwrap();
    assert_eq!(here.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    there.send(b"!").unwrap();
    assert_eq!(here.recv(&mut [0; 9]).unwrap(), 1);
}

#[test]
fn a_refusal_by_the_peer_ends_the_receive() {
    let (here, _) = socket();
    let (there, peer) = socket();
    here.connect(peer).unwrap();
    drop(there);
    let receiver = {
        let clone = here.try_clone().unwrap();
        spawn(move || clone.recv(&mut [0; 9]).unwrap_err().kind())
    };
    yield_now();
    here.send(b"!").unwrap();
    assert_eq!(receiver.get().unwrap(), ErrorKind::ConnectionRefused);
}

#[test]
fn options_are_those_of_the_socket() {
    let (socket, address) = socket();
    socket.set_broadcast(true).unwrap();
    assert!(socket.broadcast().unwrap());
    socket.set_multicast_loop_v4(false).unwrap();
    assert!(!socket.multicast_loop_v4().unwrap());
    socket.set_multicast_ttl_v4(7).unwrap();
    assert_eq!(socket.multicast_ttl_v4().unwrap(), 7);
    socket.set_ttl(42).unwrap();
    assert_eq!(socket.ttl().unwrap(), 42);
    assert!(socket.take_error().unwrap().is_none());
    let std = std::net::UdpSocket::from(socket);
    assert_eq!(std.local_addr().unwrap(), address);
    assert_eq!(UdpSocket::from(std).local_addr().unwrap(), address);
}

#[test]
fn a_multicast_group_is_joined_and_left() {
    let (socket, _) = socket();
    let group = Ipv4Addr::new(239, 1, 2, 3);
    socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
    socket.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
}

#[test]
fn no_address_is_an_error() {
    let (socket, _) = socket();
    let none: &[SocketAddr] = &[];
    assert_eq!(socket.send_to(b"!", none).unwrap_err().kind(), ErrorKind::InvalidInput);
}
