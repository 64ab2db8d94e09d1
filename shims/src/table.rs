//! The table of shims: which libc symbols are taken over, in which category, and what each does.
//!
//! It names every shim by address, which also makes the linker take each one out of this crate's
//! archive. One row per line, ordered by file.

use crate::gate::Category;
use crate::{
    accept, connect, descriptors, dns, hosts, poll, receive, rw, send, socket, sync, time,
};

/// A libc symbol that this crate defines.
#[derive(Debug)]
pub struct Symbol {
    /// The symbol.
    pub name: &'static str,
    /// What it is patched with.
    pub category: Category,
    /// What it does once patched.
    pub doc: &'static str,
    /// The shim.
    pub shim: Address,
}

/// The address of a shim, to be compared and never called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(*const ());

// SAFETY: the address of a function is a number to everyone; nothing is read through it.
unsafe impl Sync for Address {}

impl Address {
    /// The address as a number.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// One row.
const fn row(name: &'static str, category: Category, shim: *const (), doc: &'static str) -> Symbol {
    Symbol { name, category, doc, shim: Address(shim) }
}

/// Every libc symbol that this crate defines.
#[rustfmt::skip]
pub static TABLE: &[Symbol] = &[
    row("accept", Category::Socket, accept::accept as *const (), "parks until a connection is there"),
    row("accept4", Category::Socket, accept::accept4 as *const (), "parks until a connection is there"),
    row("connect", Category::Socket, connect::connect as *const (), "parks until the connection is made or refused"),
    row("close", Category::Socket, descriptors::close as *const (), "wakes those who wait for the fd, then closes it"),
    row("close_range", Category::Socket, descriptors::close_range as *const (), "as close, for each fd"),
    row("dup", Category::Socket, descriptors::dup as *const (), "notes the duplicate"),
    row("dup2", Category::Socket, descriptors::dup2 as *const (), "as close for the new fd, then notes the duplicate"),
    row("dup3", Category::Socket, descriptors::dup3 as *const (), "as close for the new fd, then notes the duplicate"),
    row("fcntl", Category::Socket, descriptors::fcntl as *const (), "notes duplicates and O_NONBLOCK; hides an O_NONBLOCK of the shims' own"),
    row("fcntl64", Category::Socket, descriptors::fcntl64 as *const (), "notes duplicates and O_NONBLOCK; hides an O_NONBLOCK of the shims' own"),
    row("ioctl", Category::Socket, descriptors::ioctl as *const (), "notes FIONBIO"),
    row("pipe", Category::Socket, descriptors::pipe as *const (), "notes both ends"),
    row("pipe2", Category::Socket, descriptors::pipe2 as *const (), "notes both ends"),
    row("getaddrinfo", Category::Dns, dns::getaddrinfo as *const (), "runs on another thread unless the node is an address"),
    row("getnameinfo", Category::Dns, dns::getnameinfo as *const (), "runs on another thread unless the host is to be a number"),
    row("gethostbyaddr", Category::Dns, hosts::gethostbyaddr as *const (), "runs on another thread"),
    row("gethostbyaddr_r", Category::Dns, hosts::gethostbyaddr_r as *const (), "runs on another thread"),
    row("gethostbyname", Category::Dns, hosts::gethostbyname as *const (), "runs on another thread"),
    row("gethostbyname2", Category::Dns, hosts::gethostbyname2 as *const (), "runs on another thread"),
    row("gethostbyname2_r", Category::Dns, hosts::gethostbyname2_r as *const (), "runs on another thread"),
    row("gethostbyname_r", Category::Dns, hosts::gethostbyname_r as *const (), "runs on another thread"),
    row("__poll_chk", Category::Select, poll::__poll_chk as *const (), "parks until one of the fds is ready"),
    row("__ppoll_chk", Category::Select, poll::__ppoll_chk as *const (), "parks until one of the fds is ready"),
    row("poll", Category::Select, poll::poll as *const (), "parks until one of the fds is ready"),
    row("ppoll", Category::Select, poll::ppoll as *const (), "parks until one of the fds is ready; the mask holds while the kernel is asked"),
    row("__recv_chk", Category::Socket, receive::__recv_chk as *const (), "parks until there is something to receive"),
    row("__recvfrom_chk", Category::Socket, receive::__recvfrom_chk as *const (), "parks until there is something to receive"),
    row("recv", Category::Socket, receive::recv as *const (), "parks until there is something to receive"),
    row("recvfrom", Category::Socket, receive::recvfrom as *const (), "parks until there is something to receive"),
    row("recvmsg", Category::Socket, receive::recvmsg as *const (), "parks until there is something to receive"),
    row("__read_chk", Category::Socket, rw::__read_chk as *const (), "on a socket as recv; else passes through"),
    row("read", Category::Socket, rw::read as *const (), "on a socket as recv; else passes through"),
    row("readv", Category::Socket, rw::readv as *const (), "on a socket as recvmsg; else passes through"),
    row("write", Category::Socket, rw::write as *const (), "on a socket as send; else passes through"),
    row("writev", Category::Socket, rw::writev as *const (), "on a socket as sendmsg; else passes through"),
    row("send", Category::Socket, send::send as *const (), "parks until everything is sent"),
    row("sendmsg", Category::Socket, send::sendmsg as *const (), "parks until everything is sent"),
    row("sendto", Category::Socket, send::sendto as *const (), "parks until everything is sent"),
    row("bind", Category::Socket, socket::bind as *const (), "passes through"),
    row("getsockopt", Category::Socket, socket::getsockopt as *const (), "passes through"),
    row("listen", Category::Socket, socket::listen as *const (), "passes through"),
    row("setsockopt", Category::Socket, socket::setsockopt as *const (), "notes SO_RCVTIMEO and SO_SNDTIMEO"),
    row("shutdown", Category::Socket, socket::shutdown as *const (), "notes it, since it ends receives of datagrams; its edge wakes those who wait"),
    row("socket", Category::Socket, socket::socket as *const (), "notes the new socket"),
    row("socketpair", Category::Socket, socket::socketpair as *const (), "notes both new sockets"),
    row("syscall", Category::Thread, sync::syscall as *const (), "a private futex: WAIT parks, WAKE serves greenlets first; every other call passes through"),
    row("clock_nanosleep", Category::Time, time::clock_nanosleep as *const (), "parks until the time has come; no kill fails it"),
    row("nanosleep", Category::Time, time::nanosleep as *const (), "as clock_nanosleep"),
    row("sched_yield", Category::Thread, time::sched_yield as *const (), "lets the other greenlets run"),
    row("sleep", Category::Time, time::sleep as *const (), "as clock_nanosleep"),
    row("thrd_sleep", Category::Time, time::thrd_sleep as *const (), "as clock_nanosleep"),
    row("usleep", Category::Time, time::usleep as *const (), "as clock_nanosleep"),
];
