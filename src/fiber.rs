//! A fiber: one stack with a function running on it, entered and left by a switch.
//!
//! With `stack`, the only file that names corosensei. It knows nothing of hubs and greenlets: the
//! hub resumes a fiber, the code on the fiber suspends itself. Here is also the one place where a
//! switch happens, so whatever must be swapped with the stack (thread-local storage, later) is
//! swapped here.

use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::stack::Stack;

/// What a resumed fiber is asked to do.
#[derive(Clone, Copy)]
pub(crate) enum Resume<'a> {
    /// Go on.
    Run,
    /// Call this function where the fiber is suspended, then suspend again: how the stack trace
    /// of a parked greenlet is taken.
    Inspect(&'a dyn Fn()),
}

/// The form in which [`Resume`] crosses the switch: null to go on, else a pointer to the function
/// to call. One word, so that the usual case costs one test.
type Input = *const &'static dyn Fn();

/// A suspended or unstarted computation with its stack. Dropping one that has started but not
/// finished aborts the process, because unwinding it could pass through foreign frames: its owner
/// runs it to its end or abandons it.
pub(crate) struct Fiber(Coroutine<Input, (), (), Stack>);

impl Fiber {
    /// A fiber that will run `entry` on `stack`. `entry` must not unwind.
    #[inline]
    pub(crate) fn new(stack: Stack, entry: impl FnOnce(&Suspender) + 'static) -> Fiber {
        Fiber(Coroutine::with_stack(stack, move |yielder, _: Input| {
            entry(Suspender::from_yielder(yielder));
        }))
    }

    /// Switches to the fiber until it suspends or ends. True if it has ended.
    #[inline]
    pub(crate) fn resume(&mut self, resume: Resume<'_>) -> bool {
        let result = match resume {
            Resume::Run => self.0.resume(std::ptr::null()),
            Resume::Inspect(inspect) => self.0.resume((&raw const inspect).cast()),
        };
        matches!(result, CoroutineResult::Return(()))
    }

    /// The stack of a fiber that has ended.
    #[inline]
    pub(crate) fn into_stack(self) -> Stack {
        self.0.into_stack()
    }

    /// Gives the fiber up where it is suspended. Its frames stay as they are and its stack is
    /// never used again, so that references into it stay valid.
    pub(crate) fn abandon(self) {
        std::mem::forget(self);
    }
}

/// How the code on a fiber suspends itself.
#[repr(transparent)]
pub(crate) struct Suspender(Yielder<Input, ()>);

impl Suspender {
    #[inline]
    fn from_yielder(yielder: &Yielder<Input, ()>) -> &Suspender {
        // SAFETY: `Suspender` is a transparent wrapper around `Yielder`.
        unsafe { &*std::ptr::from_ref(yielder).cast::<Suspender>() }
    }

    /// Suspends the fiber until it is resumed to run.
    #[inline(always)]
    pub(crate) fn suspend(&self) {
        loop {
            let input = self.0.suspend(());
            if input.is_null() {
                return;
            }
            // SAFETY: only `Fiber::resume` makes inputs, and it does not return before this fiber
            // suspends again.
            unsafe { inspect(input) };
        }
    }
}

/// Does what [`Resume::Inspect`] asks for.
///
/// # Safety
///
/// `input` is the address of a live `&dyn Fn()`.
#[cold]
unsafe fn inspect(input: Input) {
    // SAFETY: the caller's promise.
    unsafe { (*input)() }
}
