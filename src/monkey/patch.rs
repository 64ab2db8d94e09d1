//! What is patched: gevent's flags.

use std::sync::Once;

use greenling_shims::{Category, check};

use crate::monkey::runtime::HubRuntime;

/// Patches everything there is: `Patch::all().apply()`.
///
/// # Examples
///
/// ```
/// greenling::monkey::patch_all();
/// assert!(greenling::monkey::is_patched(greenling::monkey::Category::Socket));
/// ```
///
/// # Panics
///
/// If the OS refuses what the calling thread's hub needs.
pub fn patch_all() {
    Patch::all().apply();
}

/// Patches sockets, and with them `poll`, in which `TcpStream::connect_timeout` waits.
pub fn patch_socket() {
    Patch::none().socket(true).select(true).apply();
}

/// Patches sleeping.
pub fn patch_time() {
    Patch::none().time(true).apply();
}

/// Patches name resolution.
pub fn patch_dns() {
    Patch::none().dns(true).apply();
}

/// Whether the symbols of `category` are patched.
pub fn is_patched(category: Category) -> bool {
    greenling_shims::is_patched(category)
}

/// Which parts of the standard library's blocking calls are to be patched. The flags have gevent's
/// names; what a flag means here, or why Rust needs nothing for it, is said with each.
///
/// # Examples
///
/// ```
/// use greenling::monkey::{Category, Patch, is_patched};
///
/// Patch::all().dns(false).apply();
/// assert!(is_patched(Category::Time) && !is_patched(Category::Dns));
/// Patch::none().dns(true).apply(); // Patching twice gives the union.
/// assert!(is_patched(Category::Time) && is_patched(Category::Dns));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nothing is patched until `apply` is called"]
pub struct Patch {
    /// As [`Patch::socket`].
    socket: bool,
    /// As [`Patch::dns`].
    dns: bool,
    /// As [`Patch::time`].
    time: bool,
    /// As [`Patch::select`].
    select: bool,
    /// As [`Patch::thread`].
    thread: bool,
}

impl Patch {
    /// Everything, gevent's `patch_all()`.
    pub fn all() -> Patch {
        Patch { socket: true, dns: true, time: true, select: true, thread: true }
    }

    /// Nothing, to switch single parts on.
    pub fn none() -> Patch {
        Patch { socket: false, dns: false, time: false, select: false, thread: false }
    }

    /// `recv`, `send`, `read` and `write` on sockets, `connect`, `accept`, and what keeps the
    /// books about fds (`close`, `dup`, `fcntl` ...): so `std::net` and `std::os::unix::net`.
    pub fn socket(mut self, yes: bool) -> Patch {
        self.socket = yes;
        self
    }

    /// `getaddrinfo` and its relatives: they run on threads of their own.
    pub fn dns(mut self, yes: bool) -> Patch {
        self.dns = yes;
        self
    }

    /// `sleep`, `usleep`, `nanosleep`, `clock_nanosleep`: so `std::thread::sleep`.
    pub fn time(mut self, yes: bool) -> Patch {
        self.time = yes;
        self
    }

    /// `poll` and `ppoll`. The rest of gevent's `select` (select, epoll) is still to come.
    pub fn select(mut self, yes: bool) -> Patch {
        self.select = yes;
        self
    }

    /// Waiting for a lock: std's `Mutex`, `RwLock`, `Condvar`, `Once` (futexes). A greenlet may be
    /// switched out while it holds one; with this, whoever wants it waits without holding the
    /// hub. Threads that are greenlets, gevent's meaning of the flag, are still to come.
    pub fn thread(mut self, yes: bool) -> Patch {
        self.thread = yes;
        self
    }

    /// Processes (gevent's `fork`, `waitpid`): still to come. A forked child is left alone as it
    /// is.
    pub fn os(self, _yes: bool) -> Patch {
        self
    }

    /// Nothing to do: TLS libraries sit on sockets, and those are patched below them.
    pub fn ssl(self, _yes: bool) -> Patch {
        self
    }

    /// Child processes: still to come. Until then `Child::wait` holds the hub.
    pub fn subprocess(self, _yes: bool) -> Patch {
        self
    }

    /// Standard input and output (gevent's default is off): writes to fds 0 to 2 never yield.
    pub fn sys(self, _yes: bool) -> Patch {
        self
    }

    /// Nothing to do: gevent removes what it can't patch, but there is no call here that a program
    /// could fall back from.
    pub fn aggressive(self, _yes: bool) -> Patch {
        self
    }

    /// Nothing to do: `std` has no event type, and its `Condvar` comes with
    /// [`thread`](Patch::thread).
    pub fn event(self, _yes: bool) -> Patch {
        self
    }

    /// Nothing to do: Rust has no builtins to replace.
    pub fn builtins(self, _yes: bool) -> Patch {
        self
    }

    /// Waiting for signals: still to come. Handlers run as ever.
    pub fn signal(self, _yes: bool) -> Patch {
        self
    }

    /// Nothing to do yet: `std`'s `mpsc` needs greenlets with thread-locals of their own.
    pub fn queue(self, _yes: bool) -> Patch {
        self
    }

    /// Nothing to do: Rust has no context variables.
    pub fn contextvars(self, _yes: bool) -> Patch {
        self
    }

    /// Patches, in the whole process and for good, and gives the calling thread a hub. What an
    /// earlier call has patched stays patched.
    ///
    /// If a symbol turns out not to be bound to its shim, that is said on stderr, once;
    /// [`report`](crate::monkey::report()) has the details.
    ///
    /// # Panics
    ///
    /// If the OS refuses what the calling thread's hub needs.
    pub fn apply(self) {
        crate::hub::hub();
        let flags = [
            (self.socket, Category::Socket),
            (self.dns, Category::Dns),
            (self.time, Category::Time),
            (self.select, Category::Select),
            (self.thread, Category::Thread),
        ];
        let categories: Vec<Category> =
            flags.iter().filter(|(yes, _)| *yes).map(|&(_, category)| category).collect();
        greenling_shims::install(&HubRuntime, &categories);
        static CHECK: Once = Once::new();
        CHECK.call_once(warn_of_unbound);
    }
}

/// Says which symbols are defined by somebody else, so that patching them does nothing.
fn warn_of_unbound() {
    let unbound = check::unbound();
    if !unbound.is_empty() {
        crate::report!(
            "calls of these symbols are not (all) patched: {}; see monkey::report()",
            unbound.join(", ")
        );
    }
}
