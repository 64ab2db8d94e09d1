//! A question that only a blocking library function can answer, asked on a thread that may block.
//!
//! What all the shims around name resolution share. The question owns whatever it needs and the
//! answer owns what it holds, so that a greenlet which is killed meanwhile leaves nothing behind:
//! the late answer is dropped by the thread that found it. These shims do allocate, as the
//! functions they stand for do.

use std::ffi::CStr;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::errno::Errno;
use crate::runtime::{Runtime, Wake};

/// Runs `question` elsewhere and parks until it is answered. A kill is `ECANCELED`, a timeout
/// `ETIMEDOUT`, and a question that was never asked (the runtime is shutting down) `EAGAIN`.
pub(crate) fn ask<T: Send + 'static>(
    runtime: &dyn Runtime,
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Errno> {
    let answer = Arc::new(Mutex::new(None));
    let job = {
        let answer = Arc::clone(&answer);
        move || {
            let found = question();
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
    };
    match runtime.offload(Box::new(job)) {
        Wake::Killed => Err(Errno(libc::ECANCELED)),
        Wake::Expired => Err(Errno(libc::ETIMEDOUT)),
        // The job is over, so nobody holds the lock.
        _ => {
            let found = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            found.ok_or(Errno(libc::EAGAIN))
        }
    }
}

/// Whether `name` is an address in its usual notation, maybe with a scope (`fe80::1%eth0`): then
/// the library does not ask anybody. It also knows `127.1` and the like, which merely take the
/// long way.
pub(crate) fn is_address(name: &CStr) -> bool {
    let Ok(name) = name.to_str() else { return false };
    let address = name.split_once('%').map_or(name, |(address, _scope)| address);
    address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_addresses() {
        for name in [c"127.0.0.1", c"::1", c"fe80::1%lo", c"::ffff:1.2.3.4"] {
            assert!(is_address(name), "{name:?}");
        }
        for name in [c"", c"localhost", c"1.2.3.4.5", c"a%b", c"\xff"] {
            assert!(!is_address(name), "{name:?}");
        }
    }
}
