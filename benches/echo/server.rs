//! A running server, as the bench sees it: a child process, under a tracer or not.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use crate::support::{child, proc};

/// How long a server may take to end, with its tracer's last words.
const END: Duration = Duration::from_secs(10);

/// A server that runs until this is dropped.
pub(crate) struct Server {
    /// The process that was started: the server, or the tracer that started it.
    child: Child,
    /// The server's own process.
    pub(crate) pid: u32,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Kept open, so that nothing it prints ends it.
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server, under `tracer` if that is not empty.
    pub(crate) fn start(name: &str, tracer: &[String]) -> io::Result<Server> {
        let mut command = child::command(tracer, &[name]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut line = String::new();
        output.read_line(&mut line)?;
        let announced = line
            .split_once(' ')
            .and_then(|(address, pid)| Some((address.parse().ok()?, pid.trim().parse().ok()?)));
        let Some((address, pid)) = announced else {
            child.wait()?;
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server did not start"));
        };
        Ok(Server { child, pid, address, _output: output })
    }

    /// The time its threads have been on a CPU.
    pub(crate) fn cpu_nanos(&self) -> io::Result<u64> {
        proc::cpu_nanos(self.pid)
    }
}

impl Drop for Server {
    /// Ends the server as `kill` does, and waits until its tracer has written everything.
    fn drop(&mut self) {
        proc::terminate(self.pid);
        let start = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if start.elapsed() > END {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
