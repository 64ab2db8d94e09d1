//! The limit: an edge-triggered epoll loop, written by hand, and the epoll of the load generator.
//!
//! Linking greenling brings shims over libc's symbols into this program. What is called here is
//! libc itself, so that the limit does not pay for them.

use std::ffi::CStr;
use std::io::{self, ErrorKind};
use std::mem::transmute;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::servers::BUFFER_BYTES;

/// How many events one wait brings at most.
const EVENTS_MAX: usize = 1_024;

/// The address of a function.
type Address = *mut libc::c_void;

/// epoll_wait(2).
type EpollWait = unsafe extern "C" fn(RawFd, *mut libc::epoll_event, i32, i32) -> i32;

/// recv(2).
type Recv = unsafe extern "C" fn(RawFd, *mut u8, usize, i32) -> isize;

/// send(2).
type Send = unsafe extern "C" fn(RawFd, *const u8, usize, i32) -> isize;

/// An epoll with room for its events.
pub(crate) struct Epoll {
    /// The epoll's fd.
    fd: OwnedFd,
    /// Where a wait puts what it found.
    events: Vec<libc::epoll_event>,
    /// libc's `epoll_wait`.
    wait: EpollWait,
}

impl Epoll {
    /// An epoll that watches nothing.
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers are passed; a negative answer is turned into an error.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `epoll_create1` has just made this fd; the symbol has this signature.
        let (fd, wait) = unsafe {
            (OwnedFd::from_raw_fd(fd), transmute::<Address, EpollWait>(real(c"epoll_wait")))
        };
        Ok(Epoll { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX], wait })
    }

    /// Watches for what can be read from `fd`. Events will carry `data`.
    pub(crate) fn add(&self, fd: RawFd, data: u64, flags: libc::c_int) -> io::Result<()> {
        let events = (libc::EPOLLIN | flags) as u32;
        let mut event = libc::epoll_event { events, u64: data };
        let epoll = self.fd.as_raw_fd();
        // SAFETY: the event is alive for the call.
        match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits for events, for that many milliseconds or for ever if negative.
    pub(crate) fn wait(&mut self, milliseconds: i32) -> impl Iterator<Item = u64> {
        let (fd, room) = (self.fd.as_raw_fd(), self.events.as_mut_ptr());
        // SAFETY: there is room for that many events.
        let count = unsafe { (self.wait)(fd, room, EVENTS_MAX as i32, milliseconds) };
        self.events[..count.max(0) as usize].iter().map(|event| event.u64)
    }
}

/// Serves every connection of the listener, for ever.
pub(crate) fn serve(listener: &TcpListener) {
    listener.set_nonblocking(true).expect("a socket has this mode");
    let mut epoll = Epoll::new().expect("an epoll can be had");
    let waiting = listener.as_raw_fd();
    epoll.add(waiting, waiting as u64, 0).expect("a socket can be watched");
    let calls = Calls::of_libc();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut accepting = false;
    loop {
        for fd in epoll.wait(-1) {
            if fd == waiting as u64 {
                accepting = true;
            } else {
                echo(&calls, fd as RawFd, &mut buffer);
            }
        }
        if std::mem::take(&mut accepting) {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true).expect("a TCP socket has this option");
                stream.set_nonblocking(true).expect("a socket has this mode");
                let fd = stream.into_raw_fd();
                epoll.add(fd, fd as u64, libc::EPOLLET).expect("a socket can be watched");
            }
        }
    }
}

/// Sends back what can be read. A short read is the last one of an edge.
fn echo(calls: &Calls, fd: RawFd, buffer: &mut [u8]) {
    loop {
        // SAFETY: the buffer is as long as it says, and the fd is a connection of `serve`'s, which
        // is closed here alone.
        let received = unsafe { (calls.recv)(fd, buffer.as_mut_ptr(), buffer.len(), 0) };
        if received < 0 && io::Error::last_os_error().kind() == ErrorKind::WouldBlock {
            return;
        }
        if received <= 0 {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
            return;
        }
        let mut unsent = &buffer[..received as usize];
        while !unsent.is_empty() {
            // SAFETY: as above.
            let sent =
                unsafe { (calls.send)(fd, unsent.as_ptr(), unsent.len(), libc::MSG_NOSIGNAL) };
            // A peer that does not read what it asked for is not served: nothing here waits.
            let Ok(sent) = usize::try_from(sent) else { break };
            unsent = &unsent[sent..];
        }
        if (received as usize) < buffer.len() {
            return;
        }
    }
}

/// libc's own functions.
struct Calls {
    /// recv(2).
    recv: Recv,
    /// send(2).
    send: Send,
}

impl Calls {
    fn of_libc() -> Calls {
        // SAFETY: the symbols have these signatures.
        unsafe {
            Calls {
                recv: transmute::<Address, Recv>(real(c"recv")),
                send: transmute::<Address, Send>(real(c"send")),
            }
        }
    }
}

/// The address of a function of libc, whatever this program defines under the same name.
fn real(name: &CStr) -> Address {
    // SAFETY: the name ends in a zero.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!address.is_null(), "libc has no {name:?}");
    address
}
