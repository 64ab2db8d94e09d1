//! The overflow report: what a greenlet that runs into its guard says before the process aborts.
//!
//! std reports the overflow of a thread by a SIGSEGV handler that knows the thread's guard. This one does the same for slots, and
//! passes every other fault on to the handler it found, which is std's. Whatever runs in the handler must not allocate, wait for a
//! lock, switch greenlets or touch thread-locals, and it has an alternate stack of a few KiB.

use std::fmt::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::{mem, ptr};

use super::slot::{GRAIN, GUARD_BYTES, StackSize};

/// Writes a description of the greenlet that runs on the stack with this base, such as `greenlet 'name' (id 7), spawned at
/// src/main.rs:10:5,`, or nothing if it doesn't know it. It runs in a signal handler: see this file's first lines.
pub(crate) type Describe = fn(base: usize, out: &mut dyn FnMut(&[u8]));

/// The function that describes greenlets, as a pointer; null until [`set_describe`].
static DESCRIBE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Tells the report how to describe a greenlet.
pub(crate) fn set_describe(describe: Describe) {
    DESCRIBE.store(describe as *mut (), Ordering::Release);
}

/// The first entry of the list of slabs. Entries are never freed, because a handler on another thread may stand on one.
static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// One registered slab, or a free entry.
///
/// A handler reads it while another thread changes it. It reads `start` first and last: an entry is changed only while `start` is
/// zero or [`CLAIMED`].
#[derive(Debug)]
struct Entry {
    /// The slab's lowest address with its size class in the low bits; zero if the entry is free.
    start: AtomicUsize,
    /// The slab's length.
    bytes: AtomicUsize,
    /// The entry after this one; never changed once the entry is in the list.
    next: *mut Entry,
}

/// The `start` of an entry that somebody took and hasn't filled yet.
const CLAIMED: usize = 1;

/// The low bits of `start`.
const CLASS_MASK: usize = GRAIN - 1;

/// A slab's place in the list. It stays there unless it is removed: an abandoned stack may still overflow.
#[derive(Debug)]
pub(super) struct Registration(
    /// Ours alone until [`Registration::remove`].
    &'static Entry,
);

impl Registration {
    /// Makes a slab known to the handler.
    pub(super) fn new(start: usize, bytes: usize, size: StackSize) -> Registration {
        let entry = reuse().unwrap_or_else(extend);
        entry.bytes.store(bytes, Ordering::Relaxed);
        entry.start.store(start | size.index(), Ordering::Release);
        Registration(entry)
    }

    /// Makes the handler forget the slab.
    pub(super) fn remove(self) {
        self.0.start.store(0, Ordering::Release);
    }
}

/// Takes a free entry.
fn reuse() -> Option<&'static Entry> {
    entries().find(|entry| {
        entry.start.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    })
}

/// Adds a claimed entry to the list.
fn extend() -> &'static Entry {
    let entry = Box::leak(Box::new(Entry {
        start: AtomicUsize::new(CLAIMED),
        bytes: AtomicUsize::new(0),
        next: ptr::null_mut(),
    }));
    let mut first = ENTRIES.load(Ordering::Relaxed);
    loop {
        entry.next = first;
        match ENTRIES.compare_exchange_weak(first, entry, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return entry,
            Err(now) => first = now,
        }
    }
}

/// All entries.
fn entries() -> impl Iterator<Item = &'static Entry> {
    let mut next = ENTRIES.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: the list holds null or leaked entries, which `extend` published with Release when they were complete.
        let entry: &'static Entry = unsafe { next.as_ref()? };
        next = entry.next;
        Some(entry)
    })
}

/// The slot that a thread overflows whose stack pointer is `stack_pointer` and whose access of `address` faulted: its size and its
/// stack's base. A wild write into another greenlet's guard is no overflow, so both have to lie in one slot.
fn overflowed(address: usize, stack_pointer: Option<usize>) -> Option<(StackSize, usize)> {
    entries().find_map(|entry| {
        let tagged = entry.start.load(Ordering::Acquire);
        let bytes = entry.bytes.load(Ordering::Acquire);
        let start = tagged & !CLASS_MASK;
        let offset = address.checked_sub(start).filter(|&offset| offset < bytes)?;
        if start == 0 || entry.start.load(Ordering::Relaxed) != tagged {
            return None;
        }
        let size = StackSize::from_index(tagged & CLASS_MASK);
        let (index, depth) = (offset / size.stride(), offset % size.stride());
        let low = address - depth;
        let runs_there =
            stack_pointer.is_none_or(|pointer| (low..low + size.stride()).contains(&pointer));
        (depth < GUARD_BYTES && runs_there).then(|| (size, low + size.base_offset(index)))
    })
}

/// The signals an access to a guard raises: SIGSEGV on Linux, SIGBUS on some others.
const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// The handlers that were there before, for each of [`SIGNALS`]: written before ours is installed.
static PREVIOUS: [Previous; 2] = [const { Previous::none() }; 2];

/// A handler that was there before.
struct Previous {
    /// Its address, or `SIG_DFL` or `SIG_IGN`.
    handler: AtomicUsize,
    /// Whether it takes three arguments: `SA_SIGINFO`.
    takes_info: AtomicUsize,
}

impl Previous {
    /// The default action.
    const fn none() -> Previous {
        Previous { handler: AtomicUsize::new(libc::SIG_DFL), takes_info: AtomicUsize::new(0) }
    }
}

/// Installs the handler for the process, once.
pub(super) fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
            // SAFETY: an all-zero sigaction is a valid value; both calls get pointers to live ones, and the handler keeps to what
            // is allowed in one (this file's first lines).
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                libc::sigaction(signal, ptr::null(), &mut action);
                previous.handler.store(action.sa_sigaction, Ordering::Relaxed);
                previous
                    .takes_info
                    .store((action.sa_flags & libc::SA_SIGINFO) as usize, Ordering::Release);
                // The mask and these two flags stay as the previous handler wants them. Without SA_NODEFER a fault in the
                // handler kills the process instead of calling it again.
                action.sa_flags &= libc::SA_NODEFER | libc::SA_RESTART;
                action.sa_flags |= libc::SA_SIGINFO | libc::SA_ONSTACK;
                action.sa_sigaction = on_fault as *const () as usize;
                libc::sigaction(signal, &action, ptr::null_mut());
            }
        }
    });
}

/// The handler.
unsafe extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // A code above zero means a fault; others are signals that somebody sent, which have no address.
    let sent = code <= 0;
    // SAFETY: the kernel passes a valid context to a handler with SA_SIGINFO.
    let stack_pointer = unsafe { stack_pointer(context) };
    if !sent && let Some((size, base)) = overflowed(address, stack_pointer) {
        report(size, base);
        // SAFETY: abort may be called anywhere.
        unsafe { libc::abort() }
    }
    let previous = &PREVIOUS[usize::from(signal == SIGNALS[1])];
    match (previous.handler.load(Ordering::Relaxed), previous.takes_info.load(Ordering::Acquire)) {
        (libc::SIG_IGN, _) if sent => {}
        // On return the instruction faults again and the default action kills the process. A signal that was sent has to be sent
        // once more for that; it is delivered on return, too.
        // SAFETY: an all-zero sigaction has an empty mask and, as checked here, the default action.
        (libc::SIG_DFL | libc::SIG_IGN, _) => unsafe {
            const { assert!(libc::SIG_DFL == 0) };
            libc::sigaction(signal, &mem::zeroed(), ptr::null_mut());
            if sent {
                libc::raise(signal);
            }
        },
        (handler, 0) => {
            // SAFETY: a handler without SA_SIGINFO takes the signal; the kernel would call it so.
            let handler: extern "C" fn(libc::c_int) = unsafe { mem::transmute(handler) };
            handler(signal);
        }
        (handler, _) => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: a handler with SA_SIGINFO takes all three; the kernel would call it so.
            let handler: Handler = unsafe { mem::transmute(handler) };
            handler(signal, info, context);
        }
    }
}

/// The stack pointer of the code that a signal interrupted, where we know how to find it.
///
/// # Safety
///
/// `context` is what the kernel passed to a handler with SA_SIGINFO.
unsafe fn stack_pointer(context: *mut libc::c_void) -> Option<usize> {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the caller guarantees that the context is valid.
    let _context = unsafe { context.as_ref()? };
    cfg_select! {
        all(target_os = "linux", target_arch = "x86_64") => Some(_context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize),
        all(target_os = "linux", target_arch = "aarch64") => Some(_context.uc_mcontext.sp as usize),
        all(target_os = "linux", target_arch = "riscv64") => Some(_context.uc_mcontext.__gregs[libc::REG_SP] as usize),
        _ => None,
    }
}

/// Writes the report to standard error.
#[cold]
fn report(size: StackSize, base: usize) {
    let mut report = Report { bytes: [0; 512], length: 0 };
    report.push(b"\n");
    let describe = DESCRIBE.load(Ordering::Acquire);
    if !describe.is_null() {
        // SAFETY: `set_describe` is the only one that stores a pointer other than null, and stores a `Describe`.
        let describe: Describe = unsafe { mem::transmute(describe) };
        describe(base, &mut |piece| report.push(piece));
    }
    if report.length == 1 {
        report.push(b"a greenlet");
    }
    // Formatting integers doesn't allocate, and `Report` doesn't fail.
    let _ = writeln!(report, " has overflowed its stack of {} KiB", size.bytes() >> 10);
    report.push(b"help: raise it with Builder::stack_size or GREENLING_STACK_SIZE\n");
    report.push(b"fatal runtime error: stack overflow, aborting\n");
    report.flush();
}

/// A text on its way to standard error, so that it is written in as few calls as possible.
struct Report {
    /// What isn't written yet.
    bytes: [u8; 512],
    /// How much of `bytes` that is.
    length: usize,
}

impl Report {
    /// Adds a piece.
    fn push(&mut self, piece: &[u8]) {
        for &byte in piece {
            if self.length == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
    }

    /// Writes what there is. An error has nowhere to go.
    fn flush(&mut self) {
        let length = mem::take(&mut self.length);
        let bytes = self.bytes.as_ptr();
        cfg_select! {
            // Not libc's `write`: in a program with the shims that one is theirs.
            // SAFETY: the buffer is valid for `length` bytes.
            target_os = "linux" => unsafe { libc::syscall(libc::SYS_write, libc::STDERR_FILENO, bytes, length) },
            // SAFETY: the buffer is valid for `length` bytes.
            _ => unsafe { libc::write(libc::STDERR_FILENO, bytes.cast(), length) },
        };
    }
}

impl fmt::Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// A signal stack for a thread that came without one: a thread std didn't make.
#[derive(Debug)]
pub(super) struct AlternateStack {
    /// Its mapping, a guard at the low end included.
    start: *mut libc::c_void,
    /// The mapping's length.
    bytes: usize,
}

impl AlternateStack {
    /// Makes one for the calling thread unless it has one. Without memory for it an overflow still kills the process, only
    /// silently, so that is no error.
    pub(super) fn ensure() -> Option<AlternateStack> {
        // The kernel needs room for the registers, 3 KiB with AVX-512 and 64 KiB with SME.
        #[cfg(target_os = "linux")]
        // SAFETY: getauxval takes any number.
        let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        #[cfg(not(target_os = "linux"))]
        let frame = libc::MINSIGSTKSZ;
        let usable = (frame + (32 << 10)).next_multiple_of(GRAIN);
        let bytes = GRAIN + usable;
        // SAFETY: the first call fills a live value; the mapping is new, its guard is its own low end, and the kernel gets the
        // rest, which stays mapped until `drop`.
        unsafe {
            let mut current: libc::stack_t = mem::zeroed();
            if libc::sigaltstack(ptr::null(), &mut current) != 0
                || current.ss_flags & libc::SS_DISABLE == 0
            {
                return None;
            }
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
            let start = libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            );
            if start == libc::MAP_FAILED {
                return None;
            }
            libc::mprotect(start, GRAIN, libc::PROT_NONE);
            let stack = AlternateStack { start, bytes };
            let wanted =
                libc::stack_t { ss_sp: start.byte_add(GRAIN), ss_flags: 0, ss_size: usable };
            (libc::sigaltstack(&wanted, ptr::null_mut()) == 0).then_some(stack)
        }
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // SAFETY: we are on the thread that made it (`Stacks` isn't `Send`), so the kernel doesn't use it any more once it isn't
        // this thread's alternate stack, which the first lines see to.
        unsafe {
            let mut current: libc::stack_t = mem::zeroed();
            libc::sigaltstack(ptr::null(), &mut current);
            if current.ss_sp == self.start.byte_add(GRAIN) {
                let off = libc::stack_t {
                    ss_sp: ptr::null_mut(),
                    ss_flags: libc::SS_DISABLE,
                    ss_size: self.bytes,
                };
                libc::sigaltstack(&off, ptr::null_mut());
            }
            libc::munmap(self.start, self.bytes);
        }
    }
}
