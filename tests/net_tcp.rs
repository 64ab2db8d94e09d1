//! TCP: std's behaviour, while other greenlets run.

use std::cell::Cell;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
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
