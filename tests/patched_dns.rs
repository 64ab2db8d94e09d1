//! Patched name lookups: they run on threads of their own and stall nobody.

mod common;

use std::cell::Cell;
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::net::ToSocketAddrs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::time::Duration;

use common::{Watchdog, alone_with};
use greenling::monkey::patch_all;
use greenling::{spawn, with_timeout};

/// How long a test may take on a very busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Looks up the one name that every machine knows.
fn lookup() -> usize {
    let mut addresses = ("localhost", 80).to_socket_addrs().unwrap();
    let count = addresses.len();
    assert!(addresses.all(|address| address.ip().is_loopback() && address.port() == 80));
    count
}

#[test]
fn a_hundred_lookups_at_a_time() {
    let _watchdog = Watchdog::new("a_hundred_lookups", LIMIT);
    patch_all();
    let expected = lookup();
    assert!(expected > 0);
    let answered = Rc::new(Cell::new(0));
    let lookups: Vec<_> = (0..100)
        .map(|_| {
            let answered = Rc::clone(&answered);
            spawn(move || {
                let found = lookup();
                answered.set(answered.get() + 1);
                found
            })
        })
        .collect();
    // All of them have begun and none holds the thread.
    let seen = spawn(move || answered.get()).get().unwrap();
    assert!(seen < 100);
    for lookup in lookups {
        assert_eq!(lookup.get().unwrap(), expected);
    }
}

#[test]
fn lookups_of_several_threads_share_the_pool() {
    let _watchdog = Watchdog::new("lookups_of_several_threads", LIMIT);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(|| {
                patch_all();
                let lookups: Vec<_> = (0..30).map(|_| spawn(lookup)).collect();
                lookups.into_iter().for_each(|lookup| assert!(lookup.get().unwrap() > 0));
            })
        })
        .collect();
    // One that has no hub.
    assert!(lookup() > 0);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// The name of the test below.
const SLOW: &str = "a_slow_lookup_stalls_nobody";

/// A lookup is slow at will where the C library reads the aliases of host names (hostname(7)) from
/// a pipe that nobody writes to yet.
#[test]
fn a_slow_lookup_stalls_nobody() {
    let pipe = std::env::temp_dir().join(format!("greenling-aliases-{}", std::process::id()));
    let path = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // In the child the path is another, and no pipe is made there.
    if std::env::var_os("HOSTALIASES").is_none() {
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    }
    let variables: [(&str, &OsStr); 1] = [("HOSTALIASES", pipe.as_os_str())];
    if alone_with(SLOW, &variables) {
        slow_lookups();
    } else {
        std::fs::remove_file(pipe).unwrap();
    }
}

fn slow_lookups() {
    let _watchdog = Watchdog::new(SLOW, LIMIT);
    patch_all();
    let slow = || ("slowname", 80).to_socket_addrs().map(|addresses| addresses.count());
    let waiting = spawn(slow);
    std::thread::sleep(Duration::from_millis(5));
    // Others look up, sleep and end meanwhile.
    let others: Vec<_> = (0..20)
        .map(|_| {
            spawn(|| {
                std::thread::sleep(Duration::from_millis(1));
                lookup()
            })
        })
        .collect();
    for other in others {
        assert!(other.get().unwrap() > 0);
    }
    if waiting.is_finished() {
        eprintln!("this machine's lookups do not read the aliases: nothing is slow");
        return;
    }
    release();
    assert!(waiting.get().unwrap().is_err());
    // A kill and a timeout end the call; the lookup itself goes on.
    let killed = spawn(slow);
    std::thread::sleep(Duration::from_millis(5));
    killed.kill();
    let error = killed.get().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    release();
    let mut answer = None;
    assert!(with_timeout(Duration::from_millis(5), || answer = Some(slow())).is_err());
    assert_eq!(answer.unwrap().unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    release();
    assert!(lookup() > 0);
}

/// Lets a slow lookup read its alias. It is one that no query can be made of, so that no packet
/// leaves the machine.
fn release() {
    let path = std::env::var_os("HOSTALIASES").unwrap();
    let open =
        || std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let mut pipe = loop {
        match open() {
            Ok(pipe) => break pipe,
            // Nobody reads yet.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    writeln!(pipe, "slowname {}.", "a".repeat(80)).unwrap();
}
