//! The default stack size and the variable that changes it.
//!
//! Read once; it must never look at the environment on a spawn.

use std::sync::OnceLock;

use super::slot::StackSize;

/// The usable stack a greenlet has unless it or the environment asks for another. With its guard,
/// its room for thread-local storage and the colours it takes 268 KiB of address space, of which a
/// parked greenlet touches one page.
const DEFAULT_BYTES: usize = 192 << 10;

/// The variable that replaces [`DEFAULT_BYTES`].
const VARIABLE: &str = "GREENLING_STACK_SIZE";

/// The usable stack, in bytes, of a greenlet that doesn't ask for another: 192 KiB, or what the
/// environment variable `GREENLING_STACK_SIZE` says (a number of bytes, or with a suffix `K`, `M`
/// or `G`), rounded up to the next size the runtime has.
///
/// The variable is read once, at the first call.
///
/// # Panics
///
/// If the variable is set to something that isn't a size.
pub fn default_stack_size() -> usize {
    default_class().bytes()
}

/// The size class of [`default_stack_size`].
pub(super) fn default_class() -> StackSize {
    static DEFAULT: OnceLock<StackSize> = OnceLock::new();
    *DEFAULT.get_or_init(|| {
        let bytes = match std::env::var_os(VARIABLE) {
            None => DEFAULT_BYTES,
            Some(text) => {
                parse(&text.to_string_lossy()).unwrap_or_else(|message| panic!("{message}"))
            }
        };
        StackSize::at_least(bytes)
    })
}

/// Reads a size such as `262144`, `256K` or `1M`.
pub(super) fn parse(text: &str) -> Result<usize, String> {
    let digits = text.trim().trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.trim()[digits.len()..].to_ascii_lowercase().as_str() {
        "" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        _ => None,
    };
    shift
        .zip(digits.parse::<usize>().ok())
        .and_then(|(shift, number)| number.checked_mul(1 << shift))
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| {
            format!(
                "{VARIABLE} must be a number of bytes above zero, such as 262144, 256K or 1M; \
                 it is `{text}`"
            )
        })
}
