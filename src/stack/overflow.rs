//! The overflow report: what a greenlet that runs into its guard says before the process aborts.
//!
//! std reports the overflow of a thread by a SIGSEGV handler that knows the thread's guard. This
//! one does the same for slots, and passes every other fault on to the handler it found, which is
//! std's. Whatever runs in the handler must not allocate, wait for a lock, switch greenlets or
//! touch thread-locals, and it has an alternate stack of a few KiB.

use std::fmt::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::{mem, ptr};

use super::registry::overflowed;
use super::slot::StackSize;

/// Writes a description of the greenlet that runs on the stack with this base, such as `greenlet
/// 'name' (id 7), spawned at src/main.rs:10:5,`, or nothing if it doesn't know it. It runs in a
/// signal handler: see this file's first lines.
pub(crate) type Describe = fn(base: usize, out: &mut dyn FnMut(&[u8]));

/// The function that describes greenlets, as a pointer; null until [`set_describe`].
static DESCRIBE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Tells the report how to describe a greenlet.
pub(crate) fn set_describe(describe: Describe) {
    DESCRIBE.store(describe as *mut (), Ordering::Release);
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
            // SAFETY: an all-zero sigaction is a valid value; both calls get pointers to live ones,
            // and the handler keeps to what is allowed in one (this file's first lines).
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                libc::sigaction(signal, ptr::null(), &mut action);
                previous.handler.store(action.sa_sigaction, Ordering::Relaxed);
                previous
                    .takes_info
                    .store((action.sa_flags & libc::SA_SIGINFO) as usize, Ordering::Release);
                // The mask and these two flags stay as the previous handler wants them. Without
                // SA_NODEFER a fault in the handler kills the process instead of calling it again.
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
    // A code above zero means a fault; others are signals that somebody sent, which have no
    // address.
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
        // On return the instruction faults again and the default action kills the process. A signal
        // that was sent has to be sent once more for that; it is delivered on return, too.
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
    let _machine = unsafe { &context.as_ref()?.uc_mcontext };
    cfg_select! {
        all(target_os = "linux", target_arch = "x86_64") => {
            Some(_machine.gregs[libc::REG_RSP as usize] as usize)
        }
        all(target_os = "linux", target_arch = "aarch64") => Some(_machine.sp as usize),
        all(target_os = "linux", target_arch = "riscv64") => {
            Some(_machine.__gregs[libc::REG_SP] as usize)
        }
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
        // SAFETY: `set_describe` is the only one that stores a pointer other than null, and stores
        // a `Describe`.
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
            target_os = "linux" => unsafe {
                libc::syscall(libc::SYS_write, libc::STDERR_FILENO, bytes, length)
            },
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
