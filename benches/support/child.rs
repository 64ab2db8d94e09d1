//! Measurements in a process of their own: the bench starts itself again with other arguments.
//!
//! What a child measures is its own memory, and stacks that nobody has touched before. A child
//! answers on its standard output and ends; one that takes too long is killed, so that a bench
//! always ends.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::proc;

/// The first argument of a process that is a child.
const CHILD: &str = "child";

/// How long a child may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The arguments of this process if it is a child. It then dies with its parent.
pub(crate) fn arguments() -> Option<Vec<String>> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == CHILD).then(|| {
        proc::die_with_parent();
        arguments.collect()
    })
}

/// A command that runs this program as a child with these arguments, under `wrapper` if it is not
/// empty.
pub(crate) fn command(wrapper: &[String], arguments: &[&str]) -> Command {
    let this = std::env::current_exe().expect("the path of this program is known");
    let mut command = match wrapper {
        [] => Command::new(this),
        [program, options @ ..] => {
            let mut command = Command::new(program);
            command.args(options).arg(this);
            command
        }
    };
    command.arg(CHILD).args(arguments).stdin(Stdio::null());
    command
}

/// Runs a child to its end and returns the numbers it printed; None if it failed.
pub(crate) fn numbers(arguments: &[&str]) -> Option<Vec<f64>> {
    let mut command = command(&[], arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().ok()? {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill().ok()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut output = String::new();
    child.stdout.take()?.read_to_string(&mut output).ok()?;
    let numbers = output.split_whitespace().map(|number| number.parse().ok()).collect();
    if status.success() { numbers } else { None }
}
