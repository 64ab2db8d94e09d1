//! Edges of fds that must not be lost. Each of these once made a greenlet wait for ever.

use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use greenling::net::unix::UnixStream;
use greenling::net::{TcpListener, TcpStream};
use greenling::{joinall, sleep, spawn, with_timeout, yield_now};

const MOMENT: Duration = Duration::from_millis(20);

/// Two messages and the end of the stream come while nobody waits, so that the edge of the end is
/// used up by a read that comes short.
macro_rules! the_end_after_two_short_reads {
    ($listener:ty, $stream:ty) => {{
        let listener = <$listener>::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            sleep(MOMENT);
            stream.write_all(b"one").unwrap();
            sleep(MOMENT);
            stream.write_all(b"three").unwrap();
        });
        let mut stream = <$stream>::connect(address).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(stream.read(&mut buffer).unwrap(), 3);
        sleep(5 * MOMENT);
        assert_eq!(stream.read(&mut buffer).unwrap(), 5);
        let end = with_timeout(50 * MOMENT, || stream.read(&mut buffer).ok());
        assert_eq!(end, Ok(Some(0)), "the end of the stream was missed");
    }};
}

#[test]
fn the_end_comes_after_two_short_reads() {
    the_end_after_two_short_reads!(greenling::net::TcpListener, greenling::net::TcpStream);
}

#[cfg(feature = "monkey")]
#[test]
fn the_end_comes_after_two_short_patched_reads() {
    greenling::monkey::patch_all();
    the_end_after_two_short_reads!(std::net::TcpListener, std::net::TcpStream);
}

/// A patched server that says a byte to each of its clients, after a moment.
#[cfg(feature = "monkey")]
fn slow_server() -> std::net::SocketAddr {
    greenling::monkey::patch_all();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            spawn(move || {
                sleep(MOMENT);
                // The client may be gone.
                let _ = stream.write_all(b"x");
                sleep(50 * MOMENT);
            });
        }
    });
    address
}

/// The number of a socket that a thread without a hub has closed comes back, and the hub must not
/// take the new socket for the one that it has registered.
#[cfg(feature = "monkey")]
#[test]
fn a_number_that_a_plain_thread_has_closed_is_registered_anew() {
    use std::net::TcpStream;

    let address = slow_server();
    for _ in 0..3 {
        let read = with_timeout(50 * MOMENT, || {
            let mut stream = TcpStream::connect(address).ok()?;
            stream.read_exact(&mut [0]).ok()?;
            Some(stream)
        });
        let stream = read.expect("an edge was lost").unwrap();
        std::thread::spawn(move || drop(stream)).join().unwrap();
    }
}

/// libc closes a socket inside `fclose`, where no shim sees it, and the number comes back.
#[cfg(feature = "monkey")]
#[test]
fn a_number_that_fclose_has_freed_is_registered_anew() {
    use std::net::TcpStream;
    use std::os::fd::{AsRawFd, IntoRawFd};

    let address = slow_server();
    // Tests on other threads may be quicker to take the number.
    for _ in 0..100 {
        let mut first = TcpStream::connect(address).unwrap();
        first.read_exact(&mut [0]).unwrap();
        let number = first.into_raw_fd();
        // SAFETY: the fd is open and its owner has given it up; the stream is closed right away.
        let closed = unsafe { libc::fclose(libc::fdopen(number, c"r".as_ptr())) };
        assert_eq!(closed, 0);
        let connected = with_timeout(50 * MOMENT, || TcpStream::connect(address));
        let mut second = connected.expect("the edge was missed").unwrap();
        if second.as_raw_fd() != number {
            continue;
        }
        let read = with_timeout(50 * MOMENT, || second.read_exact(&mut [0]));
        assert!(matches!(read, Ok(Ok(()))), "the edge was missed: {read:?}");
        return;
    }
    panic!("the number never came back");
}

/// A connection, one end of which is to be shared.
fn connection() -> (Rc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    (Rc::new(stream), peer)
}

/// An edge that comes between the kill of a reader and its death is the other reader's.
#[test]
fn a_reader_that_is_dying_uses_no_edge_up() {
    let (stream, mut peer) = connection();
    // So many that the hub looks at the fds before the killed one has its turn.
    let others: Vec<_> = (0..200).map(|_| spawn(|| (0..20).for_each(|_| yield_now()))).collect();
    let same = stream.clone();
    let victim = spawn(move || (&*same).read(&mut [0; 64]).map(drop));
    (0..3).for_each(|_| yield_now());
    peer.write_all(b"x").unwrap();
    assert_eq!((&*stream).read(&mut [0; 64]).unwrap(), 1);
    victim.kill_nowait();
    peer.write_all(b"yy").unwrap();
    victim.join();
    let read = with_timeout(50 * MOMENT, || (&*stream).read(&mut [0; 64]).unwrap());
    assert_eq!(read, Ok(2), "the edge was lost");
    joinall(&others);
}

/// As above, but the other reader waits already when the killed one has its turn.
#[test]
fn a_reader_that_is_dying_passes_the_edge_on() {
    let (stream, mut peer) = connection();
    let others: Vec<_> = (0..200).map(|_| spawn(|| (0..20).for_each(|_| yield_now()))).collect();
    let same = stream.clone();
    let victim = spawn(move || (&*same).read(&mut [0; 64]).map(drop));
    (0..3).for_each(|_| yield_now());
    peer.write_all(b"x").unwrap();
    assert_eq!((&*stream).read(&mut [0; 64]).unwrap(), 1);
    // Woken by the same poll, and ahead of the victim.
    let (mine, mut other) = UnixStream::pair().unwrap();
    let same = stream.clone();
    let reader = spawn(move || {
        (&mine).read_exact(&mut [0]).unwrap();
        (&*same).read(&mut [0; 64]).unwrap()
    });
    (0..2).for_each(|_| yield_now());
    victim.kill_nowait();
    other.write_all(b"z").unwrap();
    peer.write_all(b"yy").unwrap();
    victim.join();
    let read = with_timeout(50 * MOMENT, || reader.get().unwrap());
    assert_eq!(read, Ok(2), "the edge was lost");
    joinall(&others);
}
