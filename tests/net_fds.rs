//! Fds: none is leaked, and running out of them is an error to recover from. Alone in a process,
//! because it counts and limits them.

use std::io::{Read, Write};
use std::time::Duration;

use greenling::io::Pollable;
use greenling::net::unix::{UnixDatagram, UnixStream};
use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::{sleep, spawn, with_timeout, yield_now};

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Opens what there is to open, uses it and lets it go in every way.
fn open_and_close(round: u32) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    let clone = server.try_clone().unwrap();
    let waiter = spawn(move || (&clone).read(&mut [0; 1]));
    let connecting = spawn(move || TcpStream::connect(address));
    yield_now();
    match round % 3 {
        0 => waiter.kill(),
        1 => drop(with_timeout(Duration::from_millis(1), || client.read(&mut [0; 1]))),
        _ => client.write_all(b"!").unwrap(),
    }
    connecting.kill();
    drop(std::net::TcpStream::from(server));
    drop(client);
    waiter.join();
    let _ = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _ = (UnixStream::pair().unwrap(), UnixDatagram::pair().unwrap());
    let (reader, writer) = std::io::pipe().unwrap();
    let reader = Pollable::new(reader).unwrap();
    assert!(with_timeout(Duration::from_micros(1), || (&reader).read(&mut [0; 1])).is_err());
    let mut file = reader.into_inner();
    drop(writer);
    assert_eq!(file.read(&mut [0; 1]).unwrap(), 0);
}

/// A server that sleeps when accept fails goes on when there are fds again.
fn a_server_recovers_from_a_full_fd_table() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        let mut failures = 0;
        for stream in listener.incoming() {
            match stream {
                Ok(mut stream) => {
                    stream.write_all(b"!").unwrap();
                    return failures;
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                    failures += 1;
                    sleep(Duration::from_millis(1));
                }
            }
        }
        unreachable!("incoming has no end")
    });
    yield_now();
    // The client gets the last fd.
    let mut fds = Vec::new();
    while let Ok(fd) = std::fs::File::open("/dev/null") {
        fds.push(fd);
    }
    drop(fds.pop());
    let mut client = TcpStream::connect(address).unwrap();
    sleep(Duration::from_millis(20));
    assert!(!server.is_finished());
    drop(fds);
    client.read_exact(&mut [0; 1]).unwrap();
    assert!(server.get().unwrap() > 0);
}

#[test]
fn fds_are_given_back() {
    let limit = libc::rlimit { rlim_cur: 200, rlim_max: 200 };
    // SAFETY: the pointer is to a live rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    // What the hub itself needs is made in these.
    (0..3).for_each(open_and_close);
    let before = open_fds();
    for round in 0..300 {
        open_and_close(round);
    }
    assert_eq!(open_fds(), before);
    a_server_recovers_from_a_full_fd_table();
    assert_eq!(open_fds(), before);
}
