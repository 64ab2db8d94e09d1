//! The table of shims: which libc symbols are taken over, in which category, and what each does.
//!
//! It names every shim by address, which also makes the linker take each one out of this crate's
//! archive. One row per line, ordered by file.

use std::ffi::CStr;

use crate::gate::Category;

/// A libc symbol that this crate defines.
#[derive(Debug)]
pub struct Symbol {
    /// The symbol.
    pub name: &'static CStr,
    /// What it is patched with.
    pub category: Category,
    /// What it does once patched.
    pub doc: &'static str,
    /// Tells the address of the shim.
    pub shim: fn() -> usize,
    /// Tells where this program's calls of the symbol go, as the linker and the loader have
    /// resolved it.
    pub resolved: fn() -> usize,
}

/// What calls of `$shim` go to: the address that a call through the global offset table uses. The
/// address of the function by name would not do, since the compiler may take it for granted.
macro_rules! resolved {
    ($shim:path) => {{
        let address: usize;
        // SAFETY: the instructions load an address that the loader has stored, and no more.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!("mov {}, qword ptr [rip + {}@GOTPCREL]", out(reg) address,
                sym $shim, options(nostack, pure, readonly, preserves_flags));
            #[cfg(target_arch = "aarch64")]
            std::arch::asm!("adrp {0}, :got:{1}", "ldr {0}, [{0}, :got_lo12:{1}]",
                out(reg) address, sym $shim,
                options(nostack, pure, readonly, preserves_flags));
        }
        address
    }};
}

/// The rows: `file::symbol, Category, what it does`.
macro_rules! table {
    ($($file:ident :: $name:ident, $category:ident, $doc:literal;)*) => {
        &[$(Symbol {
            // The name comes from a Rust identifier, so it has no NUL inside.
            name: match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => unreachable!(),
            },
            category: Category::$category,
            doc: $doc,
            shim: || crate::$file::$name as *const () as usize,
            resolved: || resolved!(crate::$file::$name),
        },)*]
    };
}

/// Every libc symbol that this crate defines.
#[rustfmt::skip]
pub static TABLE: &[Symbol] = table![
    accept::accept, Socket, "parks until a connection is there";
    accept::accept4, Socket, "parks until a connection is there";
    connect::connect, Socket, "parks until the connection is made or refused";
    descriptors::close, Socket, "wakes those who wait for the fd, then closes it";
    descriptors::close_range, Socket, "as close, for each fd";
    descriptors::dup, Socket, "notes the duplicate";
    descriptors::dup2, Socket, "as close for the new fd, then notes the duplicate";
    descriptors::dup3, Socket, "as close for the new fd, then notes the duplicate";
    descriptors::fcntl, Socket, "notes duplicates and O_NONBLOCK; hides an O_NONBLOCK of the shims' own";
    descriptors::fcntl64, Socket, "notes duplicates and O_NONBLOCK; hides an O_NONBLOCK of the shims' own";
    descriptors::ioctl, Socket, "notes FIONBIO";
    descriptors::pipe, Socket, "notes both ends";
    descriptors::pipe2, Socket, "notes both ends";
    dns::getaddrinfo, Dns, "looks the name up on the threadpool, numeric ones at once";
    dns::getnameinfo, Dns, "looks the address up on the threadpool, numeric forms at once";
    hosts::gethostbyaddr, Dns, "looks the address up on the threadpool";
    hosts::gethostbyaddr_r, Dns, "looks the address up on the threadpool";
    hosts::gethostbyname, Dns, "looks the name up on the threadpool";
    hosts::gethostbyname2, Dns, "looks the name up on the threadpool";
    hosts::gethostbyname2_r, Dns, "looks the name up on the threadpool";
    hosts::gethostbyname_r, Dns, "looks the name up on the threadpool";
    poll::poll, Select, "parks until one of the fds is ready";
    poll::__poll_chk, Select, "parks until one of the fds is ready";
    poll::ppoll, Select, "parks until one of the fds is ready; the mask holds while the kernel is asked";
    poll::__ppoll_chk, Select, "parks until one of the fds is ready";
    receive::recv, Socket, "parks until there is something to receive";
    receive::__recv_chk, Socket, "parks until there is something to receive";
    receive::recvfrom, Socket, "parks until there is something to receive";
    receive::__recvfrom_chk, Socket, "parks until there is something to receive";
    receive::recvmsg, Socket, "parks until there is something to receive";
    rw::read, Socket, "on a socket as recv; else passes through";
    rw::__read_chk, Socket, "on a socket as recv; else passes through";
    rw::readv, Socket, "on a socket as recvmsg; else passes through";
    rw::write, Socket, "on a socket as send; else passes through";
    rw::writev, Socket, "on a socket as sendmsg; else passes through";
    send::send, Socket, "parks until everything is sent";
    send::sendmsg, Socket, "parks until everything is sent";
    send::sendto, Socket, "parks until everything is sent";
    socket::bind, Socket, "passes through";
    socket::getsockopt, Socket, "passes through";
    socket::listen, Socket, "passes through";
    socket::setsockopt, Socket, "notes SO_RCVTIMEO and SO_SNDTIMEO";
    socket::shutdown, Socket, "passes through; its edge wakes those who wait";
    socket::socket, Socket, "notes the new socket";
    socket::socketpair, Socket, "notes both new sockets";
    sync::syscall, Thread, "parks in SYS_futex WAIT and WAIT_BITSET, wakes those who do; passes everything else on";
    time::clock_nanosleep, Time, "parks until the time has come";
    time::nanosleep, Time, "parks until the time has come";
    time::sched_yield, Time, "lets every greenlet that is ready run";
    time::sleep, Time, "parks until the time has come";
    time::thrd_sleep, Time, "parks until the time has come";
    time::usleep, Time, "parks until the time has come";
];
