//! Calls from everywhere end in the shims, and the self-check says so.

mod threads;

use std::ffi::{CString, c_int, c_void};
use std::fs;
use std::mem::transmute;
use std::path::PathBuf;
use std::process::Command;

use greenling_shims::check::{self, Binding};
use threads::{Counts, counts, green, patch};

const LIBRARY: &str = "
#include <unistd.h>
#include <sys/syscall.h>
int sleep_a_little(void) { return usleep(100000); }
int yield_by_sleep(void) { return (int)sleep(0); }
int pid_by_syscall(void) { return (int)syscall(SYS_getpid); }
";

/// A shared library that is built now and opened with dlopen. Its functions take nothing.
struct Library(*mut c_void);

impl Library {
    fn build() -> Library {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("binding");
        fs::create_dir_all(&folder).expect("a folder for the library");
        let (source, library) = (folder.join("library.c"), folder.join("library.so"));
        fs::write(&source, LIBRARY).expect("the source is written");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-D_GNU_SOURCE", "-o"])
            .args([&library, &source])
            .status()
            .expect("this test needs a C compiler named cc");
        assert!(built.success(), "cc failed: {built}");
        let path = CString::new(library.to_str().expect("a path in UTF-8")).unwrap();
        // SAFETY: the path is a C string; the library has no constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "the library can't be opened");
        Library(handle)
    }

    fn function(&self, name: &str) -> extern "C" fn() -> c_int {
        let name = CString::new(name).unwrap();
        // SAFETY: the handle is open, and never closed.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!address.is_null());
        // SAFETY: all functions of the library have this type.
        unsafe { transmute::<*mut c_void, extern "C" fn() -> c_int>(address) }
    }
}

#[test]
fn every_shim_is_bound_in_an_executable() {
    for (name, binding) in check::bindings() {
        assert_eq!(binding, Binding::Bound, "{name}: {binding}");
    }
    assert_eq!(check::unbound(), [""; 0]);
}

#[test]
fn calls_of_a_library_that_is_opened_at_run_time_end_in_the_shims() {
    patch();
    let library = Library::build();
    let [little, none, pid] =
        ["sleep_a_little", "yield_by_sleep", "pid_by_syscall"].map(|name| library.function(name));
    let used = green(move || {
        assert_eq!((little(), none()), (0, 0));
        // A system call of another kind passes through.
        assert_eq!(pid() as u32, std::process::id());
        counts()
    });
    assert_eq!(used, Counts { sleeps: 1, yields: 1, ..Counts::NONE });
}
