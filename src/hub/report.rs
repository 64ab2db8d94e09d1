//! What the hub says when something is wrong: the deadlock report and the end of the hub.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::fiber::Resume;
use crate::hub::core::Hub;
use crate::hub::reason::Reason;
use crate::hub::record::{RecordRef, State, Wake, pending};

/// How many stuck greenlets a report names; the rest are counted.
const REPORTED_MAX: usize = 100;

/// How many resumes each greenlet gets to come to its end when its hub ends.
const LAST_RESUMES: usize = 64;

/// How many generations of greenlets that are spawned while the hub ends are killed.
const LAST_ROUNDS: usize = 16;

/// Prints a line to stderr and never fails.
#[macro_export]
#[doc(hidden)]
macro_rules! report {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        // In one piece, so that what others write does not come in between.
        let line = format!("greenling: {}\n", format_args!($($arg)*));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}

impl Hub {
    /// Names every parked greenlet, what it waits for and where it was spawned.
    pub(crate) fn deadlock_report(&self, main_waits: Reason) -> String {
        let stuck = self.live();
        let mut report = format!(
            "this operation would block forever: the main greenlet {main_waits}, and nothing is \
             left that could wake it (no greenlet is ready, no timer, fd or other thread is waited \
             for)"
        );
        if !stuck.is_empty() {
            let _ = write!(report, "\n{} greenlet(s) are stuck:", stuck.len());
        }
        let traces = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
        for greenlet in stuck.iter().take(REPORTED_MAX) {
            let _ = write!(report, "\n  {}", describe(greenlet));
            if traces && let Some(trace) = self.stack_trace(greenlet) {
                let _ = write!(report, "\n{trace}");
            }
        }
        if stuck.len() > REPORTED_MAX {
            let _ = write!(report, "\n  ... and {} more", stuck.len() - REPORTED_MAX);
        }
        report
    }

    /// Every greenlet that is not finished but the main one.
    fn live(&self) -> Vec<RecordRef> {
        let greenlets = self.greenlets.borrow();
        greenlets.iter().map(|(_, g)| g.clone()).filter(|g| !g.is(&self.main)).collect()
    }

    /// Where a parked greenlet is: it is resumed just to look.
    fn stack_trace(&self, greenlet: &RecordRef) -> Option<Backtrace> {
        if greenlet.state.get() != State::Parked {
            return None;
        }
        let trace = Cell::new(None);
        // SAFETY: the greenlet is parked, so the hub is not in another call for its fiber, and it
        // parks again before this returns. The main greenlet has none.
        let fiber = unsafe { (*greenlet.fiber.get()).as_mut() }?;
        // Capturing takes a lock of std's. On a stack that is not the running greenlet's nothing may
        // park, so meanwhile it is the hub that is on the CPU.
        let running = self.take_running();
        fiber.resume(Resume::Inspect(&|| trace.set(Some(Backtrace::force_capture()))));
        self.set_running(running);
        trace.into_inner()
    }

    /// Makes a blocking call with the OS thread itself, because it is panicking: the panic count
    /// belongs to the thread, so another greenlet that ran now would see it and, say, poison a
    /// mutex that has nothing to do with it.
    #[cold]
    pub(crate) fn block_thread(&self, reason: Reason, deadline: Option<Instant>) -> Wake {
        // The park is over without having begun. Below it may be left by a panic that a destructor
        // catches, and then copies of its ticket are left behind: they must not end the next park.
        let generation = &self.me().generation;
        generation.set(generation.get().wrapping_add(1));
        match reason {
            Reason::Sleep => {
                if let Some(deadline) = deadline {
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                }
                Wake::TimedOut
            }
            Reason::Join(_) if deadline.is_some() => self.block_thread(Reason::Sleep, deadline),
            // The caller polls the fd itself.
            Reason::Fd(..) | Reason::Fds(_) => Wake::Unpollable,
            _ => panic!(
                "a greenlet that is panicking {reason}: no other greenlet may run until the panic \
                 is over, so this would block forever"
            ),
        }
    }

    /// Ends the hub: unwinds every greenlet so that destructors run, and abandons those that do
    /// not come to an end.
    pub(crate) fn end(&self) {
        // The dying may spawn, so this takes rounds.
        for round in 0..LAST_ROUNDS {
            // Those that somebody else has killed have not had their turn yet.
            let to_kill = |greenlet: &RecordRef| round == 0 || !greenlet.is_pending(pending::KILL);
            let alive: Vec<RecordRef> = self.live().into_iter().filter(to_kill).collect();
            if alive.is_empty() {
                break;
            }
            for greenlet in &alive {
                // Here a function that was never run is dropped. A panic of that was reported.
                let _ = catch_unwind(AssertUnwindSafe(|| self.kill(greenlet)));
            }
            let mut resumes = self.live().len().saturating_mul(LAST_RESUMES);
            drop(self.take_running());
            while resumes > 0
                && let Some(greenlet) = self.woken.pop().or_else(|| self.ready.pop())
            {
                resumes -= 1;
                match greenlet.state.get() {
                    // Spawned by a dying one: it is killed in the next round, and never runs.
                    State::Unstarted => {}
                    _ => self.resume(greenlet),
                }
            }
            self.set_running(self.main.clone());
        }
        drop(self.take_running());
        // Who was woken by another thread gets to know it: the wake-up of a lock, say, would be
        // lost to all who wait for it.
        self.mailbox.close(|ticket| self.unpark_local(ticket));
        let mut resumes = self.live().len().saturating_mul(LAST_RESUMES);
        while resumes > 0
            && let Some(greenlet) = self.ready.pop()
        {
            resumes -= 1;
            if greenlet.state.get() != State::Unstarted {
                self.resume(greenlet);
            }
        }
        let abandoned = self.live();
        for greenlet in &abandoned {
            greenlet.abandon();
            // Dropping what it owns would run code that may want a hub.
            std::mem::forget(greenlet.clone());
        }
        while self.woken.pop().or_else(|| self.ready.pop()).is_some() {}
        *self.timers.borrow_mut() = crate::timers::Timers::new();
        self.mailbox.vacate();
        if !abandoned.is_empty() {
            crate::report!(
                "the thread's hub has ended; {} greenlet(s) did not come to an end when killed \
                 and were abandoned, the first: {}",
                abandoned.len(),
                describe(&abandoned[0])
            );
        }
        // Not before: if another thread held the lock around stderr, the main greenlet would wait
        // for it in a hub to which nobody writes any more.
        self.set_running(self.main.clone());
    }
}

/// A greenlet in one line.
fn describe(greenlet: &RecordRef) -> String {
    let reason = match greenlet.state.get() {
        // SAFETY: the reason of a parked greenlet lives in the frame of its `park`, which can't
        // return before the greenlet is unparked.
        State::Parked => unsafe { *greenlet.reason.get() }.to_string(),
        State::Unstarted => "has not started".to_owned(),
        _ => Reason::Turn.to_string(),
    };
    format!(
        "'{}' (id {}), spawned at {}: {reason}",
        greenlet.display_name(),
        greenlet.id.get().to_u64(),
        greenlet.spawned_at
    )
}

/// Whether the process has threads besides the calling one.
pub(crate) fn has_other_threads() -> bool {
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => tasks.count() > 1,
        // Unknown, so better no false alarm.
        Err(_) => true,
    }
}

/// What the stack overflow report says of the running greenlet. Called from a signal handler on
/// whatever thread has overflowed, so it neither allocates nor locks.
pub(crate) fn describe_running(_base: usize, out: &mut dyn FnMut(&[u8])) {
    let Some(hub) = super::current::try_hub().filter(|hub| hub.in_greenlet()) else {
        return out(b"a greenlet");
    };
    let me = hub.me();
    let id = me.id.get();
    out(b"greenlet '");
    // The handler may have interrupted a change of the extras: then the name is not to be had.
    match me.try_extras(|extras| extras.name.as_deref().map(|name| out(name.as_bytes()))) {
        Some(Some(())) => {}
        _ => {
            out(b"Greenlet-");
            write_number(u64::from(id.index()), out);
        }
    }
    out(b"' (id ");
    write_number(id.to_u64(), out);
    out(b"), spawned at ");
    out(me.spawned_at.file().as_bytes());
    out(b":");
    write_number(me.spawned_at.line().into(), out);
    out(b":");
    write_number(me.spawned_at.column().into(), out);
}

/// Writes a number in decimal without allocating.
fn write_number(mut number: u64, out: &mut dyn FnMut(&[u8])) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out(&digits[first..]);
        }
    }
}
