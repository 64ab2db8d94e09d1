//! What a scenario is given: somebody to run its tasks, and a transcript to write.

use std::fmt::Debug;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use greenling::Greenlet;

/// Who runs the tasks of a scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) enum World {
    /// OS threads.
    Threads,
    /// Greenlets of the calling thread.
    Greenlets,
}

/// A running task.
pub(crate) enum Task<T> {
    /// On an OS thread.
    Thread(JoinHandle<T>),
    /// On a greenlet.
    Greenlet(Greenlet<T>),
}

impl World {
    /// Begins a task.
    pub(crate) fn spawn<T: Send + 'static>(
        self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Task<T> {
        match self {
            World::Threads => Task::Thread(std::thread::spawn(f)),
            World::Greenlets => Task::Greenlet(greenling::spawn(f)),
        }
    }
}

impl<T> Task<T> {
    /// Waits for the task; None if it panicked.
    pub(crate) fn outcome(self) -> Option<T> {
        match self {
            Task::Thread(thread) => thread.join().ok(),
            Task::Greenlet(greenlet) => greenlet.get().ok(),
        }
    }

    /// Waits for the task, which must not panic.
    pub(crate) fn join(self) -> T {
        self.outcome().expect("a task panicked")
    }
}

/// What a scenario was told.
#[derive(Default)]
pub(crate) struct Transcript(Vec<String>);

impl Transcript {
    /// Writes down a value.
    pub(crate) fn note(&mut self, what: &str, value: impl Debug) {
        self.0.push(format!("{what}: {value:?}"));
    }

    /// Writes down a result: of an error the kind and the number.
    pub(crate) fn io<T: Debug>(&mut self, what: &str, result: io::Result<T>) {
        self.note(what, told(result));
    }

    /// The lines.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.0
    }
}

/// A result without what may differ: of an error the kind and the number.
pub(crate) fn told<T>(result: io::Result<T>) -> Result<T, (io::ErrorKind, Option<i32>)> {
    result.map_err(|error| (error.kind(), error.raw_os_error()))
}

/// A connected pair of TCP sockets: the client's and the server's.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}
