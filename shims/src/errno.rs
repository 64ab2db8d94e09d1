//! errno, the one output channel of a libc call besides its value.
//!
//! Inside the crate errors travel as [`Errno`] values; the thread's `errno` is written once, at
//! the very end of a shim and so after any switch. Relies on `__errno_location` alone. Nothing
//! here may allocate, lock or unwind.

use libc::c_int;

/// An error number of the kernel's, positive as in `<errno.h>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

/// What the calling thread's `errno` holds.
#[inline]
pub(crate) fn get() -> c_int {
    // SAFETY: __errno_location answers with a pointer to the calling thread's own errno, valid
    // for as long as the thread runs (errno(3)).
    unsafe { *libc::__errno_location() }
}

/// Writes the calling thread's `errno`.
#[inline]
pub(crate) fn set(value: c_int) {
    // SAFETY: as in `get`.
    unsafe { *libc::__errno_location() = value }
}

/// Runs `step`, which may switch to greenlets that write `errno`, and puts the value back that
/// was there before.
#[inline]
pub(crate) fn kept<T>(step: impl FnOnce() -> T) -> T {
    let before = get();
    let answer = step();
    set(before);
    answer
}

/// A shim's answer as libc gives it: the value, or -1 and `errno`. On success `errno` stays.
#[inline]
pub(crate) fn answer(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(value) => value as isize,
        Err(error) => fail(error),
    }
}

/// [`answer`], for the calls that return an `int`.
#[inline]
pub(crate) fn answer_int(result: Result<usize, Errno>) -> c_int {
    answer(result) as c_int
}

/// Writes `error` to `errno` and answers -1.
#[cold]
fn fail(error: Errno) -> isize {
    set(error.0);
    -1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_is_kept_across_a_step_and_on_success() {
        set(libc::EXDEV);
        kept(|| set(libc::EIO));
        assert_eq!(get(), libc::EXDEV);
        assert_eq!(answer(Ok(3)), 3);
        assert_eq!(get(), libc::EXDEV);
        assert_eq!(answer_int(Err(Errno(libc::EPIPE))), -1);
        assert_eq!(get(), libc::EPIPE);
    }
}
