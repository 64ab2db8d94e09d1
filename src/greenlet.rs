//! Greenlets: spawning them, and the handles by which they are joined, killed and asked for their
//! result.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::hub::interrupt::Interrupt;
use crate::hub::reason::Reason;
use crate::hub::record::{Extras, Record, RecordRef, VTable, Wake};
use crate::hub::{self, hub};
use crate::stack::{StackSize, StackStats};

/// Spawns a greenlet: `f` will run concurrently on this OS thread, beginning when the caller next
/// blocks or yields.
///
/// `f` and its result need not be `Send`, because a greenlet never leaves its thread. Dropping the
/// handle detaches the greenlet; it goes on running. gevent's `spawn`, with the handle of
/// [`std::thread::spawn`].
///
/// # Thread-locals
///
/// Greenlets of one thread share its thread-locals. Do not hold on to what a thread-local lends
/// across a blocking call:
///
/// ```
/// use std::cell::RefCell;
/// thread_local! { static LOG: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) } }
///
/// let greenlet = greenling::spawn(|| {
///     LOG.with_borrow_mut(|log| log.push(1)); // Good: given back before the greenlet sleeps.
///     greenling::sleep(std::time::Duration::from_millis(1));
/// });
/// LOG.with_borrow_mut(|log| log.push(0));
/// greenlet.join();
/// ```
///
/// A borrow that is held while the greenlet sleeps makes every other greenlet's borrow panic, and
/// a crate that lends references for the extent of a scope (`scoped_tls`) is unsound with them. So is
/// one that keeps what a thread waits for in a thread-local, like rayon: let one greenlet of a thread
/// into it at a time.
/// Later, greenlets that are spawned after [`patch_all`](crate::monkey::patch_all) will have
/// thread-locals of their own.
///
/// # Examples
///
/// ```
/// let greenlet = greenling::spawn(|| 6 * 7);
/// assert_eq!(greenlet.get().unwrap(), 42);
/// ```
///
/// # Panics
///
/// If the OS refuses what the thread's hub needs (an epoll fd).
#[track_caller]
pub fn spawn<F, T>(f: F) -> Greenlet<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    spawn_record(f, None, None, Location::caller())
}

/// Spawns a greenlet that begins after `delay`. A kill before that keeps it from ever running.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let greenlet = greenling::spawn_later(Duration::from_millis(20), move || start.elapsed());
/// assert!(greenlet.get().unwrap() >= Duration::from_millis(20));
/// ```
#[track_caller]
pub fn spawn_later<F, T>(delay: Duration, f: F) -> Greenlet<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    spawn_record(f, None, Some(crate::time::at(delay)), Location::caller())
}

/// Lets every greenlet that is ready run before the caller goes on: gevent's `sleep(0)`.
///
/// # Cancellation
///
/// A kill point.
#[inline(always)]
pub fn yield_now() {
    let hub = hub();
    if hub.yield_now() {
        hub.unwind(Wake::Killed);
    }
}

/// The greenlet that calls. On a thread's own stack that is its main greenlet.
///
/// # Examples
///
/// ```
/// assert_eq!(greenling::getcurrent().name(), "main");
/// ```
pub fn getcurrent() -> GreenletRef {
    GreenletRef { record: hub().current() }
}

/// Waits until every one of the greenlets has ended, in whatever way.
///
/// # Examples
///
/// ```
/// use greenling::{joinall, sleep, spawn};
/// use std::time::Duration;
///
/// let greenlets: Vec<_> = (0..3).map(|n| spawn(move || sleep(Duration::from_millis(n)))).collect();
/// joinall(&greenlets);
/// assert!(greenlets.iter().all(|greenlet| greenlet.is_finished()));
/// ```
///
/// # Panics
///
/// As [`GreenletRef::join`].
///
/// # Cancellation
///
/// A kill point; the greenlets go on.
pub fn joinall<T>(greenlets: &[Greenlet<T>]) {
    for greenlet in greenlets {
        greenlet.join();
    }
}

/// What the stacks of this thread's greenlets amount to.
///
/// # Examples
///
/// ```
/// greenling::spawn(|| ()).join();
/// assert_eq!(greenling::stack_stats().pooled, 1); // Kept for the next greenlet.
/// ```
pub fn stack_stats() -> StackStats {
    hub().stacks.stats()
}

/// Gives the memory of free stacks back to the kernel, but for the upper 16 KiB of the `keep`
/// stacks of each size that were used last. It takes about a microsecond for each free stack.
///
/// Free stacks keep their memory, so that the next greenlets find them hot. A hub that goes idle
/// gives back what was not needed for some seconds, so this is for a program that knows better.
///
/// # Examples
///
/// ```
/// let burst: Vec<_> = (0..1000).map(|_| greenling::spawn(greenling::yield_now)).collect();
/// greenling::joinall(&burst);
/// greenling::trim_stacks(10);
/// ```
pub fn trim_stacks(keep: usize) {
    hub().stacks.trim(keep);
}

/// Settings for a greenlet that is to be spawned: [`std::thread::Builder`]'s counterpart.
///
/// # Examples
///
/// ```
/// let greenlet = greenling::Builder::new()
///     .name("resolver")
///     .stack_size(1 << 20)
///     .spawn(|| greenling::getcurrent().name())
///     .unwrap();
/// assert_eq!(greenlet.get().unwrap(), "resolver");
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder spawns nothing until `spawn` is called"]
pub struct Builder {
    /// What `name` was given.
    name: Option<Box<str>>,
    /// What `stack_size` was given, in bytes.
    stack_bytes: Option<usize>,
}

impl Builder {
    /// A builder with the default settings.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the greenlet, for reports and [`GreenletRef::name`]. `Greenlet-N` otherwise.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into().into_boxed_str());
        self
    }

    /// The usable stack in bytes, rounded up to what the allocator of stacks has; see
    /// [`default_stack_size`](crate::default_stack_size) for what it is otherwise. Stacks are
    /// committed page by page as they are used, so a large one costs address space only.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_bytes = Some(bytes);
        self
    }

    /// Spawns a greenlet with these settings; see [`spawn`](crate::spawn()).
    ///
    /// # Errors
    ///
    /// If the thread has no hub and the OS refuses what one needs.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        Ok(spawn_record(f, self.extras(), None, Location::caller()))
    }

    /// Spawns a greenlet that begins after `delay`; see [`spawn_later`](crate::spawn_later()).
    ///
    /// # Errors
    ///
    /// As [`spawn`](Builder::spawn).
    #[track_caller]
    pub fn spawn_later<F, T>(self, delay: Duration, f: F) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        Ok(spawn_record(f, self.extras(), Some(crate::time::at(delay)), Location::caller()))
    }

    fn extras(self) -> Option<Box<Extras>> {
        let Builder { name, stack_bytes } = self;
        let stack_size = stack_bytes.map(StackSize::at_least);
        Some(Box::new(Extras { name, stack_size, ..Extras::default() }))
    }
}

/// A handle to a spawned greenlet that will yield a `T`. Dropping it detaches the greenlet.
///
/// It is [`std::thread::JoinHandle`] and gevent's `Greenlet` in one: everything that does not need
/// the result's type is a method of [`GreenletRef`], to which this dereferences.
///
/// ```compile_fail
/// // One hub's objects stay on its thread.
/// let greenlet = greenling::spawn(|| ());
/// std::thread::spawn(move || greenlet.join());
/// ```
pub struct Greenlet<T> {
    /// The untyped handle.
    greenlet: GreenletRef,
    /// The result is taken out of the record as a `T`.
    result: PhantomData<T>,
}

impl<T> Greenlet<T> {
    /// Waits for the greenlet to end and returns what it returned.
    ///
    /// # Errors
    ///
    /// [`GreenletError::Panicked`] with the payload if it panicked, [`GreenletError::Killed`] if
    /// it was killed.
    ///
    /// # Panics
    ///
    /// As [`join`](GreenletRef::join).
    ///
    /// # Cancellation
    ///
    /// A kill point; the greenlet that is waited for goes on.
    pub fn get(self) -> Result<T, GreenletError> {
        self.join();
        if !self.is_finished() {
            // Only under `panic = "abort"`: a kill ended the join.
            return Err(GreenletError::Killed);
        }
        // SAFETY: the greenlet is finished, and it was spawned with this `T`: `spawn_record` makes
        // the record and the handle.
        let result: Option<Result<T, GreenletError>> = unsafe { self.greenlet.record.take() };
        result.expect("`get` takes the only typed handle")
    }
}

impl<T> Drop for Greenlet<T> {
    /// Sees to it that the result is dropped on a greenlet's stack, here or on the greenlet's own.
    /// The hub may be the one that gives up the last reference.
    fn drop(&mut self) {
        let record = &self.greenlet.record;
        if !record.is_finished() {
            record.detached.set(true);
        } else if !record.is_last() {
            // SAFETY: as in `get`.
            drop(unsafe { record.take::<Option<Result<T, GreenletError>>>() });
        }
    }
}

impl<T> std::ops::Deref for Greenlet<T> {
    type Target = GreenletRef;

    fn deref(&self) -> &GreenletRef {
        &self.greenlet
    }
}

impl<T> fmt::Debug for Greenlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.greenlet.record.fmt(f)
    }
}

/// A handle to a greenlet whatever its result, as [`getcurrent`] returns it. Cloning it is cheap.
#[derive(Clone)]
pub struct GreenletRef {
    /// The greenlet's record.
    record: RecordRef,
}

impl GreenletRef {
    /// Waits for the greenlet to end. It never returns the greenlet's failure: that is what
    /// [`Greenlet::get`] is for.
    ///
    /// # Panics
    ///
    /// In the main greenlet, if nothing is left that could ever wake it: a deadlock. The message
    /// names every greenlet that is stuck. The hub stays usable. gevent raises `LoopExit`.
    ///
    /// # Cancellation
    ///
    /// A kill point; the greenlet that is waited for goes on.
    pub fn join(&self) {
        self.join_until(None);
    }

    /// Waits for the greenlet to end for at most `timeout`, and says whether it has.
    ///
    /// # Cancellation
    ///
    /// A kill point; the greenlet that is waited for goes on.
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.join_until(crate::time::after(timeout));
        self.is_finished()
    }

    /// Waits for the greenlet to end, or for `deadline`.
    fn join_until(&self, deadline: Option<Instant>) {
        // A handle may outlive its hub.
        while !self.record.is_finished() {
            let hub = hub();
            let ticket = hub.ticket();
            self.record.joiners.borrow_mut().push(ticket.clone());
            let reason = Reason::Join(self.id().0);
            let wake = hub.park(reason, hub::park::Kill::Delivered, deadline);
            if wake != Wake::Ready {
                self.record.joiners.borrow_mut().remove(|joiner| joiner.is(&ticket));
                hub.surface(wake, reason);
                return;
            }
        }
    }

    /// Kills the greenlet and waits until it is dead: at its next blocking call (its kill point)
    /// it unwinds, so that destructors run, and its result is [`GreenletError::Killed`]. One that
    /// has not started never runs. One that has ended stays as it is. Killing oneself unwinds at
    /// once. A destructor that kills while its own greenlet unwinds doesn't wait: no other
    /// greenlet may run before the unwinding is over.
    ///
    /// In a call of the standard library that was [patched](crate::monkey), the greenlet does not
    /// unwind, because there may be foreign frames on its stack: the call fails with `ECANCELED`
    /// and so does every later one.
    ///
    /// # Panics
    ///
    /// If the greenlet is a main greenlet: its stack is the OS thread's own.
    ///
    /// # Cancellation
    ///
    /// A kill point itself; the greenlet that is being killed dies all the same.
    pub fn kill(&self) {
        self.kill_nowait();
        // While a greenlet unwinds, it can neither wait nor unwind once more.
        if self.is_finished() || std::thread::panicking() {
            return;
        }
        if std::ptr::eq(&raw const *self.record, hub().me()) {
            hub().unwind(Wake::Killed);
        } else {
            self.join();
        }
    }

    /// Kills the greenlet as [`kill`](GreenletRef::kill) does, without waiting for its death:
    /// gevent's `kill(block=False)`.
    ///
    /// # Panics
    ///
    /// If the greenlet is a main greenlet.
    pub fn kill_nowait(&self) {
        if self.is_finished() {
            return;
        }
        assert!(!self.record.is(&hub().main), "the main greenlet can't be killed");
        hub().kill(&self.record);
    }

    /// Whether the greenlet has ended.
    pub fn is_finished(&self) -> bool {
        self.record.is_finished()
    }

    /// The name given to [`Builder::name`], or `Greenlet-N`; `main` for a main greenlet.
    pub fn name(&self) -> String {
        self.record.display_name()
    }

    /// The greenlet's id, unique on its hub.
    pub fn id(&self) -> GreenletId {
        GreenletId(self.record.id.get().to_u64())
    }

    /// The line that spawned the greenlet.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.record.spawned_at
    }
}

impl PartialEq for GreenletRef {
    fn eq(&self, other: &GreenletRef) -> bool {
        self.record.is(&other.record)
    }
}

impl Eq for GreenletRef {}

impl fmt::Debug for GreenletRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// Identifies a greenlet among all that its hub has ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GreenletId(u64);

impl fmt::Display for GreenletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a greenlet has no result.
#[non_exhaustive]
pub enum GreenletError {
    /// It panicked, with this payload.
    Panicked(Box<dyn Any + Send + 'static>),
    /// It was killed.
    Killed,
}

impl GreenletError {
    /// The payload of a panic, to go on with it by [`std::panic::resume_unwind`].
    ///
    /// # Errors
    ///
    /// The error itself if it is not a panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send + 'static>, GreenletError> {
        match self {
            GreenletError::Panicked(payload) => Ok(payload),
            other => Err(other),
        }
    }
}

impl fmt::Debug for GreenletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GreenletError::Panicked(payload) => {
                f.debug_tuple("Panicked").field(&message(payload.as_ref())).finish()
            }
            GreenletError::Killed => f.write_str("Killed"),
        }
    }
}

impl fmt::Display for GreenletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GreenletError::Panicked(payload) => {
                write!(f, "the greenlet panicked: {}", message(payload.as_ref()))
            }
            GreenletError::Killed => f.write_str("the greenlet was killed"),
        }
    }
}

impl std::error::Error for GreenletError {}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(message) = payload.downcast_ref::<&str>() {
        message
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message
    } else {
        "(a payload that is no string)"
    }
}

/// A record with its function or result behind it.
#[repr(C)]
struct Task<F, T> {
    /// The untyped part. First, so that a pointer to it is one to the task.
    record: Record,
    /// The typed part. Touched only through the vtable.
    stage: UnsafeCell<Stage<F, T>>,
}

/// The typed part of a task.
enum Stage<F, T> {
    /// The function that will run.
    Unstarted(F),
    /// It is running, on the greenlet's stack.
    Running,
    /// The result, until `get` takes it.
    Finished(Result<T, GreenletError>),
    /// The result was taken.
    Taken,
}

impl<F: FnOnce() -> T, T> Task<F, T> {
    const VTABLE: VTable =
        VTable { run: Self::run, cancel: Self::cancel, take: Self::take, free: Self::free };

    /// The typed part of the task that begins with `record`.
    ///
    /// # Safety
    ///
    /// `record` is the record of a live `Task<F, T>`, and nobody else looks at its stage now.
    unsafe fn stage<'a>(record: NonNull<Record>) -> &'a mut Stage<F, T> {
        // SAFETY: a task begins with its record, and the pointer was made from the whole task
        // (`spawn_record`); the rest is the caller's promise.
        unsafe { &mut *record.cast::<Task<F, T>>().as_ref().stage.get() }
    }

    unsafe fn run(record: NonNull<Record>) {
        // SAFETY: `RecordRef::run` calls this once; no reference to the stage outlives its line.
        let f = match unsafe { std::mem::replace(Self::stage(record), Stage::Running) } {
            Stage::Unstarted(f) => f,
            _ => unreachable!("a greenlet runs once"),
        };
        // SAFETY: the record is alive while its greenlet runs.
        let task = unsafe { record.as_ref() };
        let result = catch_unwind(AssertUnwindSafe(f)).map_err(|payload| failure(payload, task));
        let stage = if task.detached.get() {
            discard(result, task);
            Stage::Taken
        } else {
            Stage::Finished(result)
        };
        // SAFETY: as above.
        unsafe { *Self::stage(record) = stage };
    }

    unsafe fn cancel(record: NonNull<Record>) {
        let result = Stage::Finished(Err(GreenletError::Killed));
        // SAFETY: `RecordRef::cancel` calls this only for a greenlet that never ran. The function
        // is dropped after the stage is no longer borrowed.
        let function = unsafe { std::mem::replace(Self::stage(record), result) };
        drop(function);
    }

    unsafe fn take(record: NonNull<Record>, out: *mut ()) {
        // SAFETY: `RecordRef::take` calls this for a finished greenlet, so the stage is idle.
        let stage = unsafe { Self::stage(record) };
        let result = match std::mem::replace(stage, Stage::Taken) {
            Stage::Finished(result) => Some(result),
            _ => None,
        };
        // SAFETY: the caller passes room for this type.
        unsafe { out.cast::<Option<Result<T, GreenletError>>>().write(result) };
    }

    unsafe fn free(record: NonNull<Record>) {
        // SAFETY: `spawn_record` made the pointer by `Box::into_raw`, and the last reference is
        // gone.
        drop(unsafe { Box::from_raw(record.cast::<Task<F, T>>().as_ptr()) });
    }
}

/// What the payload of an unwound greenlet means. A panic was reported by the panic hook, which
/// knows threads only, so this adds which greenlet it was.
#[cold]
fn failure(payload: Box<dyn Any + Send>, record: &Record) -> GreenletError {
    if payload.downcast_ref::<Interrupt>() == Some(&Interrupt::Killed) {
        return GreenletError::Killed;
    }
    crate::report!(
        "that panic ended greenlet '{}' (id {}), spawned at {}",
        record.display_name(),
        record.id.get().to_u64(),
        record.spawned_at
    );
    GreenletError::Panicked(payload)
}

/// Drops the result of a greenlet without a handle, on its own stack: the destructor may block,
/// which the hub must not, and may panic.
fn discard<T>(result: Result<T, GreenletError>, record: &Record) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(result))) {
        // The payload's destructor may panic, too.
        std::mem::forget(failure(payload, record));
    }
}

/// Makes a greenlet and hands it to the hub.
#[inline]
fn spawn_record<F, T>(
    f: F,
    extras: Option<Box<Extras>>,
    start: Option<Instant>,
    spawned_at: &'static Location<'static>,
) -> Greenlet<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let record = new_record(f, extras, spawned_at);
    hub().spawn(record.clone(), start);
    Greenlet { greenlet: GreenletRef { record }, result: PhantomData }
}

/// Makes a record with `f` behind it.
#[inline]
fn new_record<F, T>(
    f: F,
    extras: Option<Box<Extras>>,
    spawned_at: &'static Location<'static>,
) -> RecordRef
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let task = Box::new(Task::<F, T> {
        record: Record::new(&Task::<F, T>::VTABLE, spawned_at, extras),
        stage: UnsafeCell::new(Stage::Unstarted(f)),
    });
    let task = NonNull::from(Box::leak(task));
    // SAFETY: the record is at the start of the task's allocation, its vtable is the task's, and
    // `Record::new` counted one reference, which is this one.
    unsafe { RecordRef::from_counted(task.cast()) }
}

/// The record of a thread's main greenlet. Its function never runs.
#[track_caller]
pub(crate) fn main_record() -> RecordRef {
    let extras = Extras { name: Some("main".into()), ..Extras::default() };
    new_record(|| (), Some(Box::new(extras)), Location::caller())
}
