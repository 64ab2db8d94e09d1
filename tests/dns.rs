//! Names are looked up without blocking the thread.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream, ToSocketAddrs};
use greenling::{spawn, yield_now};

fn addresses(of: impl ToSocketAddrs) -> Vec<SocketAddr> {
    of.to_socket_addrs().unwrap().collect()
}

#[test]
fn localhost_is_found() {
    let found = addresses("localhost:80");
    assert!(found.iter().any(|address| address.ip().is_loopback()), "{found:?}");
    assert_eq!(found, addresses(("localhost", 80)));
    assert_eq!(found, addresses((String::from("localhost"), 80)));
    assert_eq!(
        found,
        std::net::ToSocketAddrs::to_socket_addrs("localhost:80").unwrap().collect::<Vec<_>>()
    );
}

#[test]
fn addresses_in_digits_are_taken_as_they_are() {
    let v4: SocketAddr = "1.2.3.4:5".parse().unwrap();
    assert_eq!(addresses("1.2.3.4:5"), [v4]);
    assert_eq!(addresses(("1.2.3.4", 5)), [v4]);
    assert_eq!(addresses(String::from("1.2.3.4:5")), [v4]);
    assert_eq!(addresses(v4), [v4]);
    assert_eq!(addresses((v4.ip(), 5)), [v4]);
    assert_eq!(addresses(&[v4, v4][..]), [v4, v4]);
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 5);
    assert_eq!(addresses("[::1]:5"), [v6]);
    assert_eq!(addresses(("::1", 5)), [v6]);
}

#[test]
fn others_run_during_a_lookup() {
    let ran = Rc::new(Cell::new(false));
    let other = {
        let ran = Rc::clone(&ran);
        spawn(move || ran.set(true))
    };
    addresses(("localhost", 80));
    assert!(ran.get());
    other.join();
}

#[test]
fn the_errors_are_those_of_std() {
    for name in ["no port", "host:port", "host:99999", "a name\0with a zero byte:80"] {
        let std = std::net::ToSocketAddrs::to_socket_addrs(name).map(drop).unwrap_err();
        let ours = ToSocketAddrs::to_socket_addrs(name).map(drop).unwrap_err();
        assert_eq!(ours.kind(), ErrorKind::InvalidInput);
        assert_eq!(ours.to_string(), std.to_string());
    }
}

#[test]
fn a_name_is_connected_to() {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("localhost", port)).unwrap();
    assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
}

#[test]
fn many_lookups_at_one_time() {
    let lookups: Vec<_> =
        (0..500).map(|port| spawn(move || addresses(("localhost", port)))).collect();
    for (port, lookup) in (0..).zip(lookups) {
        assert!(lookup.get().unwrap().iter().all(|address| address.port() == port));
    }
}

#[test]
fn lookups_that_nobody_waits_for_any_more_harm_nobody() {
    for _ in 0..50 {
        let victim = spawn(|| addresses(("localhost", 80)));
        yield_now();
        victim.kill(); // The lookup may be over already.
        assert!(victim.is_finished());
    }
    let mut looked_up = false;
    let result = greenling::with_timeout(Duration::from_micros(1), || {
        looked_up = !addresses(("localhost", 80)).is_empty();
    });
    assert_eq!(result.is_ok(), looked_up);
    assert!(!addresses(("localhost", 80)).is_empty());
}
