//! Cases that need a process of their own, because they end it or measure it.
//!
//! The test binary is run again with [`CASE`] set, and only the test named `child`, which looks
//! for [`case`] and does nothing if there is none.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// The variable that names the case.
const CASE: &str = "GREENLING_TEST_CASE";

/// What a child did.
#[derive(Debug)]
pub(crate) struct Child {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

impl Child {
    /// Asserts that the child came to its end.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Child {
        assert!(self.status.success(), "{:?}\n{}", self.status, self.stderr);
        self
    }

    /// Asserts that the child was aborted.
    #[track_caller]
    pub(crate) fn aborted(self) -> Child {
        assert_eq!(self.status.signal(), Some(6), "{:?}\n{}", self.status, self.stderr);
        self
    }

    /// Asserts that the child wrote these texts to standard error, in this order.
    #[track_caller]
    pub(crate) fn said(self, texts: &[&str]) -> Child {
        let mut rest = self.stderr.as_str();
        for text in texts {
            let Some(at) = rest.find(text) else {
                panic!("`{text}` is not, or not there, in:\n{}", self.stderr)
            };
            rest = &rest[at + text.len()..];
        }
        self
    }
}

/// Runs a case in a process of its own, with these variables set.
pub(crate) fn run(case: &str, variables: &[(&str, &str)]) -> Child {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env_remove("RUST_BACKTRACE")
        .env(CASE, case)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Child { status: output.status, stderr }
}

/// The case that this process is to run, if it is a child.
pub(crate) fn case() -> Option<String> {
    std::env::var(CASE).ok()
}
