//! What the tests of patched code share: a watchdog, safe forms of libc's calls, a generator of
//! random numbers.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod sys;

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// Ends the process if it is still alive after `limit`: a hang is a failure, not a wait for the
/// patience of whoever runs the tests.
pub(crate) struct Watchdog(#[allow(dead_code, reason = "its drop calls the dog off")] Sender<()>);

impl Watchdog {
    /// Lets the dog out. It runs on a thread without a hub.
    pub(crate) fn new(what: &'static str, limit: Duration) -> Watchdog {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}: not over after {limit:?}");
                std::process::abort();
            }
        });
        Watchdog(sender)
    }
}

/// xorshift64: the same numbers in every run.
pub(crate) struct Random(u64);

impl Random {
    /// A generator whose numbers depend on `seed` alone.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// How many fds the process has open.
pub(crate) fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// For tests that count or limit what a process has: true in a process of its own, which runs
/// nothing but the test `name`. Elsewhere it starts that process, waits for it, and says false.
pub(crate) fn alone(name: &str) -> bool {
    alone_with(name, &[])
}

/// [`alone`], with more environment variables.
pub(crate) fn alone_with(name: &str, variables: &[(&str, &std::ffi::OsStr)]) -> bool {
    const ALONE: &str = "GREENLING_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}{errors}", output.status);
    assert!(text.contains("1 passed"), "{name} is no test of this binary");
    false
}
