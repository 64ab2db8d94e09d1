//! Walks along a caller's `iovec`s without copying more than a few of them.
//!
//! Relies on the kernel having read the vectors before (it answers `EFAULT` for bad ones, we
//! would crash). Never allocates and never writes to the caller's vectors.

use libc::iovec;

/// How many vectors one system call of a continued transfer is given at most.
pub(crate) const WINDOW: usize = 16;

/// What the kernel moves in one call at most, as whole pages (`MAX_RW_COUNT`).
pub(crate) const BYTES_MAX: usize = 0x7fff_f000;

/// How many bytes the vectors describe, up to the kernel's limit.
///
/// # Safety
///
/// `count` vectors are readable at `vectors`.
pub(crate) unsafe fn total(vectors: *const iovec, count: usize) -> usize {
    // SAFETY: the caller's promise.
    let length = |index| unsafe { (*vectors.wrapping_add(index)).iov_len };
    (0..count).map(length).fold(0, usize::saturating_add).min(BYTES_MAX)
}

/// Fills `room` with what follows the first `skipped` bytes, and says how many vectors that is.
///
/// # Safety
///
/// As for [`total`].
pub(crate) unsafe fn window(
    vectors: *const iovec,
    count: usize,
    mut skipped: usize,
    room: &mut [iovec; WINDOW],
) -> usize {
    let mut filled = 0;
    for index in 0..count {
        // SAFETY: the caller's promise.
        let vector = unsafe { *vectors.wrapping_add(index) };
        if vector.iov_len <= skipped {
            skipped -= vector.iov_len;
            continue;
        }
        let Some(slot) = room.get_mut(filled) else { break };
        *slot = iovec {
            iov_base: vector.iov_base.wrapping_byte_add(skipped),
            iov_len: vector.iov_len - skipped,
        };
        skipped = 0;
        filled += 1;
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of a few lengths over made-up addresses.
    fn vectors(lengths: &[usize]) -> Vec<iovec> {
        let base = |index: usize| ((index + 1) << 20) as *mut libc::c_void;
        let vector = |(index, &length)| iovec { iov_base: base(index), iov_len: length };
        lengths.iter().enumerate().map(vector).collect()
    }

    #[test]
    fn a_window_starts_after_the_skipped_bytes_and_leaves_empty_vectors_out() {
        let given = vectors(&[3, 0, 5, 0, 2]);
        let mut room = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; WINDOW];
        // SAFETY: the vectors are a live Vec.
        let filled = unsafe { window(given.as_ptr(), given.len(), 4, &mut room) };
        let found: Vec<_> =
            room[..filled].iter().map(|v| (v.iov_base as usize, v.iov_len)).collect();
        assert_eq!(found, [((3 << 20) + 1, 4), (5 << 20, 2)]);
    }

    #[test]
    fn a_window_is_bounded_and_the_total_is_clamped() {
        let given = vectors(&[1; 40]);
        let mut room = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; WINDOW];
        // SAFETY: the vectors are a live Vec.
        assert_eq!(unsafe { window(given.as_ptr(), given.len(), 0, &mut room) }, WINDOW);
        let huge = vectors(&[usize::MAX, 5]);
        // SAFETY: the vectors are a live Vec.
        assert_eq!(unsafe { total(huge.as_ptr(), huge.len()) }, BYTES_MAX);
    }
}
