//! The echo servers: each is a child process, says where it listens, and serves until it is
//! killed.
//!
//! All do the same with the same buffer: read what is there, write it back. They differ only in
//! who waits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::epoll;
use crate::support::proc;

/// The servers, by the names that the table shows.
pub(crate) const SERVERS: [(&str, fn()); 6] = [
    ("own types", own),
    ("patched std", patched),
    (LIMIT, raw_epoll),
    ("tokio", tokio_tasks),
    ("may", may_coroutines),
    ("OS threads", threads),
];

/// The server that the others are compared with.
pub(crate) const LIMIT: &str = "raw epoll loop";

/// How much one read may bring.
pub(crate) const BUFFER_BYTES: usize = 16_384;

/// Where a server listens: the kernel picks the port.
const ANY_PORT: (&str, u16) = ("127.0.0.1", 0);

/// Serves as `name` until the process is killed.
pub(crate) fn serve(name: &str) {
    proc::raise_fd_limit();
    proc::pin(0);
    let (_, server) = SERVERS.iter().find(|(other, _)| *other == name).expect("a known server");
    server();
}

/// Tells the bench where to connect, and which process it measures: under a tracer it is not its
/// own child.
fn announce(address: SocketAddr) {
    println!("{address} {}", std::process::id());
}

/// Sends back what comes, until the other side has nothing more to say.
fn echo(mut stream: impl Read + Write) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        }
    }
}

/// A connection as every server wants it. A server that can't have one more can't be measured.
fn prepared(connection: std::io::Result<TcpStream>) -> TcpStream {
    let stream = connection.expect("a connection can be accepted");
    stream.set_nodelay(true).expect("a TCP socket has this option");
    stream
}

/// greenling's own types.
fn own() {
    let listener = greenling::net::TcpListener::bind(ANY_PORT).expect("a port is free");
    announce(listener.local_addr().expect("it is bound"));
    for stream in listener.incoming() {
        let stream = stream.expect("a connection can be accepted");
        stream.set_nodelay(true).expect("a TCP socket has this option");
        greenling::spawn(|| echo(stream));
    }
}

/// std's types, patched.
fn patched() {
    greenling::monkey::patch_all();
    let listener = TcpListener::bind(ANY_PORT).expect("a port is free");
    announce(listener.local_addr().expect("it is bound"));
    for stream in listener.incoming() {
        let stream = prepared(stream);
        greenling::spawn(|| echo(stream));
    }
}

/// No runtime.
fn raw_epoll() {
    let listener = TcpListener::bind(ANY_PORT).expect("a port is free");
    announce(listener.local_addr().expect("it is bound"));
    epoll::serve(&listener);
}

/// std's types, with a thread for each connection.
fn threads() {
    let listener = TcpListener::bind(ANY_PORT).expect("a port is free");
    announce(listener.local_addr().expect("it is bound"));
    for stream in listener.incoming() {
        let stream = prepared(stream);
        std::thread::spawn(|| echo(stream));
    }
}

fn may_coroutines() {
    may::config().set_workers(1);
    let listener = may::net::TcpListener::bind(ANY_PORT).expect("a port is free");
    announce(listener.local_addr().expect("it is bound"));
    for stream in listener.incoming() {
        let stream = stream.expect("a connection can be accepted");
        stream.set_nodelay(true).expect("a TCP socket has this option");
        may::go!(move || echo(stream));
    }
}

fn tokio_tasks() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_io().build().expect("an epoll can be had").block_on(async {
        let listener = tokio::net::TcpListener::bind(ANY_PORT).await.expect("a port is free");
        announce(listener.local_addr().expect("it is bound"));
        loop {
            let accepted = listener.accept().await;
            let (mut stream, _) = accepted.expect("a connection can be accepted");
            stream.set_nodelay(true).expect("a TCP socket has this option");
            tokio::spawn(async move {
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(length) => {
                            if stream.write_all(&buffer[..length]).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
}
