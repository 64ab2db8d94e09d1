//! libc's blocking calls, taken over: the boundary layer of `greenling`.
//!
//! This crate defines the libc symbols that blocking code ends in ([`TABLE`] lists them). A
//! program that links it calls these definitions instead of libc's, from Rust, from C libraries
//! it is linked with and from those it opens; no `LD_PRELOAD` is needed. Until [`install`] is
//! called each is one relaxed load and the real call. From then on, on threads whose scheduler
//! says so, a call that would block the thread parks the calling greenlet through the
//! [`Runtime`](runtime::Runtime) instead, and answers what the real call would have answered,
//! error number for error number.
//!
//! Users of greenling never name this crate: `greenling::monkey::patch_all()` does. It is of its
//! own because `links = "greenling_shims"` makes cargo refuse two versions in one program, which
//! would define every symbol twice.
//!
//! # How a shim is made
//!
//! Signature check, gate, try, wait, real call. The check (`if false { return libc::recv(..) }`)
//! makes a wrong C signature a compile error. The [gate] decides: park or pass through, and
//! every way around it has a [name](runtime::Bypass). No allocation, logging, lock or unwinding in
//! a shim: it may run in a signal handler, before `main` and in a forked child. (The exceptions
//! are name lookups, which allocate as the functions they stand for do.)
//!
//! # Known differences that are accepted
//!
//! Of all shims:
//!
//! - System calls that code makes by itself (rustix's `linux_raw`, Go, hand-written assembly) and
//!   those inside libc (stdio, `pthread_join`) are not seen.
//! - A signal handler runs, but does not end a parked call with `EINTR`.
//! - A shim is no cancellation point of `pthread_cancel`.
//! - A killed greenlet's calls fail with `ECANCELED`, those within an expired timeout with
//!   `ETIMEDOUT`; code that ignores errors and tries again gets them again.
//!
//! Of files and descriptors:
//!
//! - Regular files are always ready, so reading and writing them blocks the thread; and so, for
//!   now, do pipes, terminals and everything else that is no socket.
//! - `close` of a socket with `SO_LINGER` may block the thread.
//! - An fd that another thread closes wakes nobody who waits for it.
//! - A number that was closed where no shim sees it (inside libc, by a raw system call) keeps what
//!   was known of it until a shim gives birth to the number again, or the kernel says `ENOTSOCK`.
//! - A child made by vfork(2) shares the books about fds with its parent.
//! - Fds from 2^20 on are not tracked, and calls on them pass through.
//! - A listener has a real `O_NONBLOCK` from its first `accept` on, a connecting socket while it
//!   connects. The program does not see it; another process that shares the socket does.
//!
//! Of receiving and sending:
//!
//! - `SO_RCVLOWAT` does not hold a receive back once bytes are there.
//! - An error that ends a send which has moved bytes already is used up, where the kernel keeps it
//!   for the next call.
//! - With `MSG_FASTOPEN` a send blocks the thread.
//! - `writev` of a bad vector array to a datagram socket crashes instead of failing with `EFAULT`.
//! - A negative `SO_RCVTIMEO` or `SO_SNDTIMEO` that was set before patching counts as none.
//!
//! Of `poll`: out-of-band data alone (`POLLPRI`) may go unnoticed until something else happens on
//! the fd, and `ppoll`'s mask holds only while the kernel is asked. `select` and `epoll_wait` are
//! not shims yet: they block the thread.
//!
//! Of sleeping and locks:
//!
//! - A killed or timed-out sleep returns early and says that it slept to the end: std asserts that
//!   a failed sleep failed with `EINTR`, and sleeps on.
//! - A futex wait is no kill point, for std takes any failure for `EINTR`. Futexes without
//!   `FUTEX_PRIVATE_FLAG` and the priority-inheriting ones block the thread; `FUTEX_REQUEUE` wakes
//!   greenlets it should move. Greenlets that wait on a futex are woken before threads that do.
//! - A sleep that has nothing to wait for lets the other greenlets run.
//! - `pthread_mutex_lock`, `pthread_cond_wait`, `sem_wait` and the like end in futexes inside libc:
//!   they block the thread.
//!
//! Of names: the lookups run on a thread pool, so what a resolver keeps for each thread is another
//! thread's there. The answers of `gethostbyname` and its like are kept for the process.

mod accept;
mod blocking;
pub mod check;
mod clock;
mod connect;
mod descriptors;
mod dns;
mod errno;
mod fds;
mod futex;
pub mod gate;
mod host;
mod hosts;
mod iovecs;
mod kind;
mod lookup;
mod poll;
mod real;
mod receive;
pub mod runtime;
mod rw;
mod send;
mod shard;
mod socket;
mod sync;
mod table;
mod time;
mod wait;

pub use gate::{Category, install, is_patched};
pub use table::{Address, Symbol, TABLE};
