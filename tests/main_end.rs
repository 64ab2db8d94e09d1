//! The end of a program whose main thread has a hub: `main` returns, panics, or `exit` is called
//! from wherever. Without libtest, which never lets a test run on the main thread.

use std::panic::{catch_unwind, panic_any};
use std::process::{Command, Output};
use std::time::Duration;

use greenling::{getcurrent, sleep, spawn, spawn_later, yield_now};

/// The variable that makes this program a case.
const CASE: &str = "GREENLING_TEST_CASE";

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

/// What is expected of a case.
struct Expected {
    /// Its name.
    case: &'static str,
    /// The exit status.
    status: i32,
    /// Whether the destructors of greenlets run.
    unwound: bool,
    /// What standard error contains.
    said: &'static str,
}

/// All cases.
const CASES: [Expected; 9] = [
    Expected { case: "return", status: 0, unwound: true, said: "" },
    Expected { case: "panic", status: 101, unwound: true, said: "panicked" },
    Expected { case: "deadlock", status: 101, unwound: true, said: "would block forever" },
    Expected { case: "exit", status: 3, unwound: true, said: "" },
    // These frames are live, so nothing is unwound, as if a thread had called it.
    Expected { case: "exit-in-greenlet", status: 4, unwound: false, said: "" },
    Expected { case: "exit-in-thread", status: 5, unwound: false, said: "" },
    Expected { case: "exit-in-threads-greenlet", status: 6, unwound: false, said: "" },
    Expected { case: "exit-in-destructor", status: 7, unwound: true, said: "panicked" },
    Expected { case: "undead", status: 0, unwound: true, said: "'undead'" },
];

fn main() {
    match std::env::var(CASE) {
        Ok(case) => run(&case),
        Err(_) => CASES.iter().for_each(check),
    }
}

/// Runs a case in a process of its own.
fn check(expected: &Expected) {
    let Output { status, stdout, stderr } = Command::new(std::env::current_exe().unwrap())
        .env(CASE, expected.case)
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    let case = expected.case;
    assert_eq!(status.code(), Some(expected.status), "{case}: {status:?}\n{stderr}");
    assert_eq!(stdout == "unwound\n", expected.unwound, "{case}: {stdout}");
    assert!(stderr.contains(expected.said), "{case}: {stderr}");
    assert_eq!(stderr.is_empty(), expected.said.is_empty(), "{case}: {stderr}");
    println!("{case} ... ok");
}

/// Prints a line when it is dropped.
struct PrintOnDrop;

impl Drop for PrintOnDrop {
    fn drop(&mut self) {
        println!("unwound");
    }
}

/// Exits when it is dropped.
struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        std::process::exit(7);
    }
}

/// The case. Each leaves live greenlets behind.
fn run(case: &str) {
    if case == "deadlock" {
        let stuck = spawn(|| {
            let _guard = PrintOnDrop;
            getcurrent().join();
        });
        return stuck.join();
    }
    spawn(|| {
        let _guard = PrintOnDrop;
        sleep(LONG);
    });
    spawn_later(LONG, || ());
    yield_now();
    spawn(|| ());
    match case {
        "return" => {}
        "panic" => panic_any("the end"),
        "exit" => std::process::exit(3),
        "exit-in-greenlet" => spawn(|| std::process::exit(4)).join(),
        "exit-in-thread" => std::thread::spawn(|| std::process::exit(5)).join().unwrap(),
        "exit-in-threads-greenlet" => {
            std::thread::spawn(|| spawn(|| std::process::exit(6)).join()).join().unwrap();
        }
        "exit-in-destructor" => {
            let _exit = ExitOnDrop;
            panic_any("unwinds");
        }
        "undead" => {
            let undead = greenling::Builder::new().name("undead");
            undead
                .spawn(|| {
                    loop {
                        _ = catch_unwind(|| sleep(LONG))
                    }
                })
                .unwrap();
            yield_now();
        }
        other => panic!("no such case: {other}"),
    }
}
