//! Threads for what must block: name lookups, files, whatever has no readiness.
//!
//! One pool per process, shared by all hubs. A thread is made when there is a job and nobody idle,
//! up to [`THREADS_MAX`]; one that has been idle for [`IDLE_MAX`] leaves. The queue has no limit of
//! its own, because each job in it has a greenlet that waits for it (or did, until it was killed):
//! whoever bounds the greenlets bounds the queue, and to refuse a job would only move the waiting
//! into the caller. A hub never waits for the pool's lock for longer than a push or a pop takes.
//!
//! A job runs to its end even if nobody waits for it any more, so it owns what it needs. A panic
//! ends the job, not the thread.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use crate::hub::core::Hub;
use crate::hub::hub;
use crate::hub::park::Kill;
use crate::hub::reason::Reason;
use crate::hub::record::Wake;
use crate::hub::remote::RemoteTicket;

/// The most threads. gevent has 10, so that ten lookups of a name whose server is silent (each
/// takes 10 seconds or more) stall all others. A blocked thread costs some 20 KiB, so there may
/// be more; not so many that a burst of lookups looks like an attack to the resolver.
const THREADS_MAX: usize = 64;

/// How long a thread waits for a job before it leaves.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// What the pool runs.
type Job = Box<dyn FnOnce() + Send>;

/// The process's pool: null until the first job, and again in a forked child, in which the
/// parent's threads do not exist and its lock may be held for ever.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());

/// The pool. Lives for ever.
struct Pool {
    /// The jobs, and who works on them.
    state: Mutex<State>,
    /// Tells an idle thread of a job.
    work: Condvar,
}

/// The part of the pool that its lock protects.
struct State {
    /// The jobs that nobody has begun, the oldest first.
    queue: VecDeque<Job>,
    /// How many threads there are.
    threads: usize,
    /// How many of them wait for a job.
    idle: usize,
    /// How many threads there ever were: names them.
    started: usize,
}

/// Runs `f` on a thread that may block, and suspends the greenlet until it has run. A panic of `f`
/// goes on in the caller.
///
/// A kill or a timeout unwinds the caller; `f` still runs to its end, and its result is dropped.
/// Under `panic = "abort"`, where nothing can unwind, the kill or the timeout is returned.
pub(crate) fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, Wake> {
    let result = Arc::new(Mutex::new(None::<Result<T, Box<dyn Any + Send>>>));
    let job = {
        let result = Arc::clone(&result);
        move || {
            let value = catch_unwind(AssertUnwindSafe(f));
            *lock(&result) = Some(value);
        }
    };
    let hub = hub();
    let wake = hub.surface(hub.offload(Box::new(job)), Reason::Offload);
    let result = lock(&result).take();
    match result {
        Some(Ok(value)) => Ok(value),
        Some(Err(panic)) => resume_unwind(panic),
        None => Err(wake),
    }
}

impl Hub {
    /// Runs `job` on a thread that may block, and suspends the greenlet until it has run. Ended
    /// early by a kill or a timeout, the job still runs to its end.
    pub(crate) fn offload(&self, job: Job) -> Wake {
        // A greenlet that is panicking must not switch, so there is nobody to run meanwhile.
        if thread::panicking() {
            job();
            return Wake::Ready;
        }
        let waiter = Arc::new(Waiter { state: Mutex::new(Waiting::Nobody) });
        let done = Done(Arc::clone(&waiter));
        submit(Box::new(move || {
            let _done = done;
            job();
        }));
        self.remote_waits.set(self.remote_waits.get() + 1);
        let wake = waiter.wait(self);
        self.remote_waits.set(self.remote_waits.get() - 1);
        wake
    }
}

/// Where a job and the greenlet that waits for it meet.
struct Waiter {
    /// Who waits, or that nobody need.
    state: Mutex<Waiting>,
}

/// The state of a [`Waiter`].
enum Waiting {
    /// Nobody waits: not yet, or not any more because of a kill or a timeout. The first state.
    Nobody,
    /// The park to end when the job has run. Set by the greenlet before each park.
    Until(RemoteTicket),
    /// The job has run. Set by the job, never left.
    Done,
}

impl Waiter {
    /// Suspends the greenlet until the job has run.
    fn wait(&self, hub: &Hub) -> Wake {
        if matches!(*lock(&self.state), Waiting::Done) {
            // So soon that there is nothing to wait for. The others get their turn all the same:
            // a greenlet that has one quick job after the other must not hold the hub.
            hub.yield_now();
            return Wake::Ready;
        }
        loop {
            match &mut *lock(&self.state) {
                Waiting::Done => return Wake::Ready,
                state => *state = Waiting::Until(hub.remote_ticket()),
            }
            let wake = hub.park(Reason::Offload, Kill::Delivered, None);
            if wake != Wake::Ready {
                let mut state = lock(&self.state);
                if !matches!(*state, Waiting::Done) {
                    *state = Waiting::Nobody;
                }
                return wake;
            }
        }
    }
}

/// Tells the waiter when it is dropped: the job has run, or has panicked.
struct Done(Arc<Waiter>);

impl Drop for Done {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *lock(&self.0.state), Waiting::Done);
        if let Waiting::Until(ticket) = before {
            Hub::unpark_remote(crate::hub::try_hub(), ticket);
        }
    }
}

/// Queues a job and sees to it that somebody will run it. With no thread there and none to be had,
/// the caller runs it itself: a name lookup that blocks is better than none.
fn submit(job: Job) {
    let pool = pool();
    let mut state = lock(&pool.state);
    state.queue.push_back(job);
    if state.queue.len() > state.idle && state.threads < THREADS_MAX {
        state.threads += 1;
        state.started += 1;
        let name = format!("greenling-pool-{}", state.started);
        drop(state);
        if spawn_worker(pool, name).is_ok() {
            return;
        }
        state = lock(&pool.state);
        state.threads -= 1;
        if state.threads == 0 {
            // All of them, because others may have counted on the thread that was to be.
            while let Some(job) = state.queue.pop_front() {
                drop(state);
                run_job(job);
                state = lock(&pool.state);
            }
            return;
        }
    }
    drop(state);
    pool.work.notify_one();
}

/// The process's pool, which is made if there is none.
fn pool() -> &'static Pool {
    let mut pool = POOL.load(Ordering::Acquire);
    if pool.is_null() {
        register_atfork();
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0, started: 0 };
        let new = Box::into_raw(Box::new(Pool { state: Mutex::new(state), work: Condvar::new() }));
        match POOL.compare_exchange(pool, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => pool = new,
            Err(other) => {
                // SAFETY: another thread was faster, and nobody has seen this one.
                drop(unsafe { Box::from_raw(new) });
                pool = other;
            }
        }
    }
    // SAFETY: a pointer in `POOL` is null or was made by `Box::into_raw` above, and a pool that
    // has been there is never freed.
    unsafe { &*pool }
}

/// Makes `fork` forget the pool in the child. Once in a process.
fn register_atfork() {
    static REGISTER: Once = Once::new();
    unsafe extern "C" fn in_child() {
        POOL.store(ptr::null_mut(), Ordering::Release);
    }
    REGISTER.call_once(|| {
        // SAFETY: the handler is a plain function that lives as long as the process.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Starts a thread of the pool. It inherits the signal mask: signals are for the program's own
/// threads, and one that was handled here would interrupt a job with `EINTR`.
fn spawn_worker(pool: &'static Pool, name: String) -> io::Result<()> {
    let _mask = SignalsBlocked::new();
    thread::Builder::new().name(name).spawn(move || work(pool)).map(drop)
}

/// What a thread of the pool does.
fn work(pool: &'static Pool) {
    let mut state = lock(&pool.state);
    loop {
        if let Some(job) = state.queue.pop_front() {
            drop(state);
            run_job(job);
            state = lock(&pool.state);
            continue;
        }
        state.idle += 1;
        let waited = pool.work.wait_timeout_while(state, IDLE_MAX, |state| state.queue.is_empty());
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.idle -= 1;
        if state.queue.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

/// Runs a job. Its panic has been reported by the panic hook, and `run` hands it to the caller.
fn run_job(job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(job));
}

/// Locks, whoever panicked while holding the lock: none of the data here is ever half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks the calling thread's signals until it is dropped.
struct SignalsBlocked {
    /// The mask that comes back.
    before: libc::sigset_t,
}

/// The signals that a thread causes itself. They must stay what they are: a report and an abort.
const OWN_SIGNALS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
];

impl SignalsBlocked {
    fn new() -> SignalsBlocked {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the one set, pthread_sigmask the other; with these
        // arguments neither can fail.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for signal in OWN_SIGNALS {
                libc::sigdelset(all.as_mut_ptr(), signal);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            SignalsBlocked { before: before.assume_init() }
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the pointer is to an initialised set, and the old mask is not asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
        };
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::{THREADS_MAX, run};
    use crate::{GreenletError, joinall, spawn, with_timeout, yield_now};

    #[test]
    fn others_run_while_a_job_blocks() {
        let (sender, receiver) = channel();
        let blocked = spawn(move || run(move || receiver.recv().unwrap()).unwrap());
        yield_now();
        assert!(!blocked.is_finished());
        sender.send(7).unwrap();
        assert_eq!(blocked.get().unwrap(), 7);
    }

    #[test]
    fn jobs_run_on_named_threads_with_signals_blocked() {
        let (name, blocked) = run(|| {
            let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: with these arguments pthread_sigmask only fills the old mask.
            let blocked = unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), mask.as_mut_ptr());
                libc::sigismember(mask.as_ptr(), libc::SIGTERM)
            };
            (thread::current().name().map(str::to_owned), blocked)
        })
        .unwrap();
        assert!(name.unwrap().starts_with("greenling-pool-"));
        assert_eq!(blocked, 1);
    }

    #[test]
    fn a_panic_comes_back_and_the_pool_goes_on() {
        for _ in 0..3 {
            let panic = catch_unwind(|| run(|| panic!("on purpose"))).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        }
        assert_eq!(run(|| 7).unwrap(), 7);
    }

    #[test]
    fn a_killed_caller_unwinds_and_the_job_runs_to_its_end() {
        let (start, may_start) = channel::<()>();
        let (finish, finished) = channel();
        let victim = spawn(move || {
            run(move || {
                may_start.recv().unwrap();
                finish.send(()).unwrap();
            })
        });
        yield_now();
        victim.kill();
        assert!(matches!(victim.get(), Err(GreenletError::Killed)));
        start.send(()).unwrap();
        finished.recv().unwrap();
    }

    #[test]
    fn a_timeout_ends_the_wait() {
        let (sender, receiver) = channel::<()>();
        let waited = with_timeout(Duration::from_millis(5), || run(move || receiver.recv()));
        assert!(waited.is_err());
        drop(sender);
        assert_eq!(run(|| 7).unwrap(), 7);
    }

    #[test]
    fn more_jobs_than_threads_are_all_done() {
        let jobs: Vec<_> = (0..THREADS_MAX * 3)
            .map(|_| spawn(|| run(|| thread::sleep(Duration::from_millis(2))).unwrap()))
            .collect();
        joinall(&jobs);
        assert!(jobs.iter().all(|job| job.is_finished()));
    }

    #[test]
    fn a_panicking_thread_does_the_job_itself() {
        struct OnDrop;
        impl Drop for OnDrop {
            fn drop(&mut self) {
                let here = thread::current().id();
                assert_eq!(run(|| thread::current().id()).unwrap(), here);
            }
        }
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _on_drop = OnDrop;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
    }

    #[test]
    fn a_forked_child_has_a_pool_of_its_own() {
        run(|| ()).unwrap();
        // SAFETY: the child calls only what needs none of the parent's other threads, and leaves
        // by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let (sender, receiver) = channel();
            super::submit(Box::new(move || sender.send(7).unwrap()));
            let done = receiver.recv_timeout(Duration::from_secs(30)) == Ok(7);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if done { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: the pointer is to a live int.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
}
