//! The self-check: which shims are really in the way of the calls they are meant for.
//!
//! A shim takes over a symbol by being the first definition that the linker, or the dynamic
//! loader, finds. Nobody says so if it is not. What was measured (rustc 1.95, glibc 2.36, x86_64):
//!
//! - An executable that links this crate exports the shims without any flag, since a linker
//!   exports what a shared library on its command line defines too (here libc.so.6). So calls of
//!   the executable, of the shared libraries it is linked with, and of those it opens with
//!   `dlopen` all end in the shims. In debug, release and with fat LTO; with lld (rustc's
//!   default here) and GNU ld; with `-C prefer-dynamic`, where std is a shared library itself.
//! - A static executable (`-C target-feature=+crt-static`) does not link: in libc.a the object
//!   of getaddrinfo also holds functions that are not replaced, so it is a duplicate definition.
//!   (With the sleeps alone it does link; then its own calls are taken over, and no others.)
//! - A shared library (`cdylib`) that holds the shims and is opened by a program without them
//!   comes after libc in the loader's order: nothing is taken over, not even the library's own
//!   calls. `LD_PRELOAD` of it takes over everything, linking it with `-Bsymbolic` its own calls.
//!
//! What no look-up shows: calls inside libc itself, system calls made by hand, and libraries
//! linked with `-Bsymbolic` to something that has the symbol too.

use std::ffi::CString;
use std::fmt;
use std::ptr::null;

use crate::TABLE;

/// Where calls of a symbol end up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// In the shim, from everywhere in the process.
    Bound,
    /// In the shim from the code that it is linked with, but not from other shared libraries.
    OwnCodeOnly,
    /// Somewhere else, from everywhere: the symbol can't be patched in this process.
    NotBound,
}

impl fmt::Display for Binding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Binding::Bound => "calls from this program and from shared libraries are patched",
            Binding::OwnCodeOnly => {
                "calls from this program are patched, but those from shared libraries are not, \
                 since they find another definition first (is this a library linked with -Bsymbolic?)"
            }
            Binding::NotBound => {
                "no call is patched, since another definition comes first (are the shims in a \
                 shared library that was loaded later?)"
            }
        })
    }
}

/// Where calls of each shim's symbol end up in this process.
pub fn bindings() -> impl Iterator<Item = (&'static str, Binding)> {
    // The program and what it was started with, in the loader's order: where calls of every
    // library are looked up first. Not RTLD_DEFAULT, which begins with this very object if it
    // is a library linked with -Bsymbolic. The handle is the program's own and needs no closing.
    // SAFETY: no file is opened, so no constructor runs.
    let program = unsafe { libc::dlopen(null(), libc::RTLD_LAZY) };
    TABLE.iter().map(move |symbol| {
        let name = CString::new(symbol.name).unwrap_or_default();
        // SAFETY: the name is a C string, and the handle is the program's.
        let from_libraries = unsafe { libc::dlsym(program, name.as_ptr()) } as usize;
        // The table's address is what the loader found for this code: where a symbol can be
        // overridden, the linker leaves it to the loader, however sure the compiler was.
        let binding = match (is_ours(from_libraries), is_ours(symbol.shim.get())) {
            (true, true) => Binding::Bound,
            (false, true) => Binding::OwnCodeOnly,
            (_, false) => Binding::NotBound,
        };
        (symbol.name, binding)
    })
}

/// The symbols whose calls are not all patched. Empty in an ordinary executable.
pub fn unbound() -> Vec<&'static str> {
    bindings().filter(|&(_, binding)| binding != Binding::Bound).map(|(name, _)| name).collect()
}

/// Whether `address` lies in the executable or library that this code is part of: then it is the
/// shim, since one link has one definition of a symbol.
fn is_ours(address: usize) -> bool {
    match (object(address), object(is_ours as *const () as usize)) {
        (Some(its), Some(ours)) => its == ours,
        // A static executable may know nothing of itself. Then the address comes from the link,
        // or there is none.
        (_, None) => address != 0,
        (None, Some(_)) => false,
    }
}

/// Where the loaded object that `address` lies in begins.
fn object(address: usize) -> Option<usize> {
    // SAFETY: all zeros is a valid Dl_info.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the address is compared, never read, and `found` is writable.
    let answer = unsafe { libc::dladdr(address as *const libc::c_void, &mut found) };
    (answer != 0).then_some(found.dli_fbase as usize)
}
