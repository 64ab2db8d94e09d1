//! `println!` of many greenlets, patched, where stdout is a socket: std holds a lock and a borrow of
//! the thread's while it writes, so no other greenlet may run meanwhile.
#![cfg(feature = "monkey")]

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the child what it is.
const CHILD: &str = "GREENLING_TEST_PRINTS";
/// How many greenlets print, and how many lines each.
const PRINTERS: usize = 50;
const LINES: usize = 200;

#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    greenling::monkey::patch_all();
    let printers: Vec<_> = (0..PRINTERS)
        .map(|n| {
            greenling::spawn(move || {
                for line in 0..LINES {
                    println!("printer {n:3} line {line:3} {}", "x".repeat(100));
                    if line % 16 == 0 {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
            })
        })
        .collect();
    for printer in printers {
        printer.get().unwrap();
    }
}

#[test]
fn lines_of_many_greenlets_into_a_slow_socket_are_whole() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = 0;
    let tail = format!(" {}", "x".repeat(100));
    for line in BufReader::new(ours).lines().map(Result::unwrap) {
        // libtest prefixes the first line with the test's name.
        if let Some(at) = line.find("printer ") {
            assert!(line.ends_with(&tail) && line[at..].len() == 121, "torn: {line}");
            lines += 1;
            if lines % 1000 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    let text = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert_eq!(lines, PRINTERS * LINES);
}
