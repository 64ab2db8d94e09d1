//! gethostbyname, gethostbyname2, gethostbyaddr, and the reentrant form (`_r`) of each.
//!
//! As in [`dns`](crate::dns), the real function runs on a thread that may block: always the
//! reentrant one, whose answer is copied to the caller. What the other three answer is kept in
//! [`KEPT`], which is the process's, as glibc's static buffer is.
//!
//! A killed or timed-out call fails with `TRY_AGAIN`, and `ECANCELED` or `ETIMEDOUT` in errno
//! (which the reentrant form also returns).

use std::ffi::{CStr, CString, c_void};
use std::mem::transmute;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use libc::{c_char, c_int, hostent, size_t, socklen_t};

use crate::errno;
use crate::gate::{self, Category};
use crate::host::{Host, KeptHost};
use crate::lookup::{ask, is_address};
use crate::real::Next;
use crate::runtime::Runtime;

/// netdb.h: the name may exist, ask again later.
const TRY_AGAIN: c_int = 2;
/// netdb.h: the error is in errno.
const NETDB_INTERNAL: c_int = -1;

/// How much the real function's buffer may grow.
const BUFFER_BYTES_MAX: usize = 1 << 20;

unsafe extern "C" {
    /// Where the calling thread's h_errno is.
    safe fn __h_errno_location() -> *mut c_int;
}

/// The last answers of the functions that return a pointer to one. POSIX allows the next call to
/// overwrite an answer, but a greenlet does not see the calls of others coming: with a few of
/// them kept, it can read its own at leisure.
static KEPT: [AtomicPtr<KeptHost>; 16] = [const { AtomicPtr::new(null_mut()) }; 16];

/// Grows with each answer in [`KEPT`].
static KEPT_NEXT: AtomicUsize = AtomicUsize::new(0);

/// POSIX.1-2001 `gethostbyname`.
///
/// # Safety
///
/// `name` is a C string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    static REAL: Next = Next::new(c"gethostbyname");
    // SAFETY: the caller's promise.
    if let Some((runtime, question)) = unsafe { Question::name(name, None) } {
        return question.answer_kept(runtime);
    }
    type Real = unsafe extern "C" fn(*const c_char) -> *mut hostent;
    let Some(real) = REAL.get() else { return no_such_function() };
    // SAFETY: the type of the C library's function; the caller's promise.
    unsafe { transmute::<NonNull<c_void>, Real>(real)(name) }
}

/// GNU `gethostbyname2`.
///
/// # Safety
///
/// `name` is a C string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    static REAL: Next = Next::new(c"gethostbyname2");
    // SAFETY: the caller's promise.
    if let Some((runtime, question)) = unsafe { Question::name(name, Some(family)) } {
        return question.answer_kept(runtime);
    }
    type Real = unsafe extern "C" fn(*const c_char, c_int) -> *mut hostent;
    let Some(real) = REAL.get() else { return no_such_function() };
    // SAFETY: the type of the C library's function; the caller's promise.
    unsafe { transmute::<NonNull<c_void>, Real>(real)(name, family) }
}

/// POSIX.1-2001 `gethostbyaddr`.
///
/// # Safety
///
/// `bytes` bytes can be read at `address`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyaddr(
    address: *const c_void,
    bytes: socklen_t,
    family: c_int,
) -> *mut hostent {
    static REAL: Next = Next::new(c"gethostbyaddr");
    // SAFETY: the caller's promise.
    if let Some((runtime, question)) = unsafe { Question::address(address, bytes, family) } {
        return question.answer_kept(runtime);
    }
    type Real = unsafe extern "C" fn(*const c_void, socklen_t, c_int) -> *mut hostent;
    let Some(real) = REAL.get() else { return no_such_function() };
    // SAFETY: the type of the C library's function; the caller's promise.
    unsafe { transmute::<NonNull<c_void>, Real>(real)(address, bytes, family) }
}

/// GNU `gethostbyname_r`.
///
/// # Safety
///
/// As glibc says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname_r(
    name: *const c_char,
    entry: *mut hostent,
    buffer: *mut c_char,
    bytes: size_t,
    result: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    let target = Target { entry, buffer, bytes, result, h_errno };
    // SAFETY: the caller's promise.
    unsafe {
        match Question::name(name, None) {
            Some((runtime, question)) => question.answer_into(runtime, target),
            None => call_name(name, target),
        }
    }
}

/// GNU `gethostbyname2_r`.
///
/// # Safety
///
/// As glibc says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    entry: *mut hostent,
    buffer: *mut c_char,
    bytes: size_t,
    result: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    let target = Target { entry, buffer, bytes, result, h_errno };
    // SAFETY: the caller's promise.
    unsafe {
        match Question::name(name, Some(family)) {
            Some((runtime, question)) => question.answer_into(runtime, target),
            None => call_name2(name, family, target),
        }
    }
}

/// GNU `gethostbyaddr_r`.
///
/// # Safety
///
/// As glibc says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyaddr_r(
    address: *const c_void,
    address_bytes: socklen_t,
    family: c_int,
    entry: *mut hostent,
    buffer: *mut c_char,
    bytes: size_t,
    result: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    let target = Target { entry, buffer, bytes, result, h_errno };
    // SAFETY: the caller's promise.
    unsafe {
        match Question::address(address, address_bytes, family) {
            Some((runtime, question)) => question.answer_into(runtime, target),
            None => call_address(address, address_bytes, family, target),
        }
    }
}

/// Where a reentrant function puts its answer.
struct Target {
    entry: *mut hostent,
    buffer: *mut c_char,
    bytes: size_t,
    result: *mut *mut hostent,
    h_errno: *mut c_int,
}

/// The arguments of a look-up, owned.
enum Question {
    /// The name, and the family unless it is left open.
    Name(CString, Option<c_int>),
    /// The address and its family.
    Address(Vec<u8>, c_int),
}

/// A real function's answer: the host, or nothing with the reason in `h_errno`.
struct Answer {
    code: c_int,
    h_errno: c_int,
    host: Option<Host>,
}

impl Question {
    /// A question to be asked elsewhere, or `None` if the real function is to be called here.
    ///
    /// # Safety
    ///
    /// `name` is null or a C string.
    unsafe fn name(
        name: *const c_char,
        family: Option<c_int>,
    ) -> Option<(&'static dyn Runtime, Question)> {
        let runtime = gate::enter(Category::Dns).ok()?;
        if name.is_null() {
            return None;
        }
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) };
        (!is_address(name)).then(|| (runtime, Question::Name(name.to_owned(), family)))
    }

    /// As [`name`](Question::name).
    ///
    /// # Safety
    ///
    /// `bytes` bytes can be read at `address`.
    unsafe fn address(
        address: *const c_void,
        bytes: socklen_t,
        family: c_int,
    ) -> Option<(&'static dyn Runtime, Question)> {
        let runtime = gate::enter(Category::Dns).ok()?;
        let bytes = bytes as usize;
        let known = match family {
            libc::AF_INET => bytes == size_of::<Ipv4Addr>(),
            libc::AF_INET6 => bytes == size_of::<Ipv6Addr>(),
            _ => false,
        };
        if !known || address.is_null() {
            return None;
        }
        // SAFETY: the caller's promise.
        let address = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), bytes) };
        Some((runtime, Question::Address(address.to_vec(), family)))
    }

    /// The answer as the functions without `_r` give it.
    fn answer_kept(self, runtime: &dyn Runtime) -> *mut hostent {
        let (code, h_errno) = match errno::kept(|| ask(runtime, move || self.put())) {
            Ok(Answer { host: Some(host), .. }) => {
                let kept = Box::into_raw(Box::new(KeptHost::new(&host)));
                let slot = KEPT_NEXT.fetch_add(1, Ordering::Relaxed) % KEPT.len();
                let old = KEPT[slot].swap(kept, Ordering::AcqRel);
                if !old.is_null() {
                    // SAFETY: it came from a Box, and the swap gave it to this call alone. Its
                    // reader was told that later calls overwrite it.
                    drop(unsafe { Box::from_raw(old) });
                }
                // SAFETY: it is alive until it is swapped out.
                return unsafe { (*kept).entry() };
            }
            Ok(answer) => (answer.code, answer.h_errno),
            Err(error) => (error.0, TRY_AGAIN),
        };
        if code != 0 {
            errno::set(code);
        }
        // SAFETY: the location is the calling thread's own.
        unsafe { *__h_errno_location() = h_errno };
        null_mut()
    }

    /// The answer as the functions with `_r` give it.
    ///
    /// # Safety
    ///
    /// All of `target` is writable.
    unsafe fn answer_into(self, runtime: &dyn Runtime, target: Target) -> c_int {
        let (code, h_errno) = match errno::kept(|| ask(runtime, move || self.put())) {
            Ok(Answer { host: Some(host), .. }) => {
                // SAFETY: the caller's promise.
                match unsafe { host.pack(target.buffer.cast(), target.bytes) } {
                    Some(entry) => {
                        // SAFETY: the caller's promise.
                        unsafe {
                            target.entry.write(entry);
                            target.result.write(target.entry);
                        }
                        return 0;
                    }
                    None => (libc::ERANGE, NETDB_INTERNAL),
                }
            }
            Ok(answer) => (answer.code, answer.h_errno),
            Err(error) => (error.0, TRY_AGAIN),
        };
        if code != 0 {
            errno::set(code);
        }
        // SAFETY: the caller's promise.
        unsafe {
            target.h_errno.write(h_errno);
            target.result.write(null_mut());
        }
        code
    }

    /// Calls the real function, which blocks.
    fn put(self) -> Answer {
        let mut buffer = vec![0u8; 2048];
        loop {
            let (mut result, mut h_errno) = (null_mut(), 0);
            // SAFETY: all zeros is a valid hostent.
            let mut entry: hostent = unsafe { std::mem::zeroed() };
            let target = Target {
                entry: &mut entry,
                buffer: buffer.as_mut_ptr().cast(),
                bytes: buffer.len(),
                result: &mut result,
                h_errno: &mut h_errno,
            };
            // SAFETY: the question and the target are alive during the call.
            let code = unsafe {
                match &self {
                    Question::Name(name, None) => call_name(name.as_ptr(), target),
                    Question::Name(name, Some(family)) => {
                        call_name2(name.as_ptr(), *family, target)
                    }
                    Question::Address(bytes, family) => {
                        call_address(bytes.as_ptr().cast(), bytes.len() as _, *family, target)
                    }
                }
            };
            if code == libc::ERANGE && buffer.len() < BUFFER_BYTES_MAX {
                buffer.resize(buffer.len() * 2, 0);
                continue;
            }
            // SAFETY: the result is null or a host in `buffer`, which is alive.
            let host = unsafe { result.as_ref().map(|entry| Host::copy(entry)) };
            return Answer { code, h_errno, host };
        }
    }
}

/// # Safety
///
/// As glibc says of gethostbyname_r.
unsafe fn call_name(name: *const c_char, t: Target) -> c_int {
    type Real = unsafe extern "C" fn(
        *const c_char,
        *mut hostent,
        *mut c_char,
        size_t,
        *mut *mut hostent,
        *mut c_int,
    ) -> c_int;
    static REAL: Next = Next::new(c"gethostbyname_r");
    let Some(real) = REAL.get() else { return libc::ENOSYS };
    // SAFETY: the type of the C library's function; the caller's promise.
    unsafe {
        transmute::<NonNull<c_void>, Real>(real)(
            name, t.entry, t.buffer, t.bytes, t.result, t.h_errno,
        )
    }
}

/// # Safety
///
/// As glibc says of gethostbyname2_r.
unsafe fn call_name2(name: *const c_char, family: c_int, t: Target) -> c_int {
    type Real = unsafe extern "C" fn(
        *const c_char,
        c_int,
        *mut hostent,
        *mut c_char,
        size_t,
        *mut *mut hostent,
        *mut c_int,
    ) -> c_int;
    static REAL: Next = Next::new(c"gethostbyname2_r");
    let Some(real) = REAL.get() else { return libc::ENOSYS };
    // SAFETY: the type of the C library's function; the caller's promise.
    unsafe {
        transmute::<NonNull<c_void>, Real>(real)(
            name, family, t.entry, t.buffer, t.bytes, t.result, t.h_errno,
        )
    }
}

/// # Safety
///
/// As glibc says of gethostbyaddr_r.
unsafe fn call_address(
    address: *const c_void,
    bytes: socklen_t,
    family: c_int,
    t: Target,
) -> c_int {
    type Real = unsafe extern "C" fn(
        *const c_void,
        socklen_t,
        c_int,
        *mut hostent,
        *mut c_char,
        size_t,
        *mut *mut hostent,
        *mut c_int,
    ) -> c_int;
    static REAL: Next = Next::new(c"gethostbyaddr_r");
    let Some(real) = REAL.get() else { return libc::ENOSYS };
    // SAFETY: the type of the C library's function; the caller's promise.
    unsafe {
        let real = transmute::<NonNull<c_void>, Real>(real);
        real(address, bytes, family, t.entry, t.buffer, t.bytes, t.result, t.h_errno)
    }
}

/// The answer where the C library is linked statically and has no second definition.
fn no_such_function() -> *mut hostent {
    errno::set(libc::ENOSYS);
    // SAFETY: the location is the calling thread's own.
    unsafe { *__h_errno_location() = NETDB_INTERNAL };
    null_mut()
}
