//! Exact counts of a request: instructions in user space, by callgrind, and syscalls, by strace.
//!
//! Each is the difference of two runs that make different numbers of requests, so starting,
//! connecting and ending are not in it.
//!
//! The requests come in rounds: one from every connection, and the next when all are answered. A
//! server under a tracer is so slow that clients which don't wait for each other have always
//! asked again before it looks: then a server that tries first never waits, and what it would
//! cost to wait is not counted.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::load::Load;
use crate::server::Server;
use crate::support::mode::Mode;
use crate::support::results;
use crate::support::row::Row;
use crate::{LIMIT, SERVERS};

/// How many connections make the requests.
const CONNECTIONS: usize = 50;

/// A tracer that counts.
struct Tracer {
    /// The command.
    program: &'static str,
    /// What it counts.
    figure: &'static str,
    /// Its options, when it is to leave its count in this file.
    options: fn(&str) -> Vec<String>,
    /// Finds the count in the file.
    read: fn(&str) -> Option<f64>,
    /// The goals of the servers: who, within reach, aim.
    goals: &'static [(&'static str, f64, f64)],
}

/// The tracers.
const TRACERS: [Tracer; 2] = [
    Tracer {
        program: "valgrind",
        figure: "echo, user instructions per request",
        options: |file| {
            let (log, out) = (format!("--log-file={file}"), "--callgrind-out-file=/dev/null");
            ["--tool=callgrind", out, &log].map(String::from).into()
        },
        read: instructions,
        goals: &[("own types", 300.0, 200.0), ("patched std", 450.0, 300.0)],
    },
    Tracer {
        program: "strace",
        figure: "echo, syscalls per request",
        options: |file| ["-f", "-c", "-o", file].map(String::from).into(),
        read: syscalls,
        goals: &[("own types", 2.1, 2.05), ("patched std", 2.1, 2.05)],
    },
];

/// The counts of every server.
pub(crate) fn rows(mode: Mode) -> Vec<Row> {
    let rounds = mode.pick((100, 500), (10, 50));
    TRACERS.iter().flat_map(|tracer| counted(tracer, rounds)).collect()
}

/// What a tracer counts of every server, or one row that says why it can't.
fn counted(tracer: &Tracer, rounds: (u64, u64)) -> Vec<Row> {
    let mut version = Command::new(tracer.program);
    let version = version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        let program = tracer.program;
        let note = format!("{program} is missing: `apt-get install {program}`");
        return vec![Row::missing(tracer.figure, note)];
    }
    let counts = SERVERS.map(|(name, _)| (name, per_request(tracer, name, rounds)));
    let limit = counts.iter().find(|(name, _)| *name == LIMIT).map(|(_, count)| count);
    let limit = limit.and_then(|count| count.as_ref().ok()).copied().unwrap_or(f64::NAN);
    let others = counts.iter().filter(|(name, _)| *name != LIMIT);
    let row = |(name, count): &(&str, io::Result<f64>)| {
        let figure = format!("{}: {name}", tracer.figure);
        let row = match count {
            Ok(count) => Row::alone(figure, *count, "").against(LIMIT, limit),
            Err(error) => Row::missing(figure, error.to_string()),
        };
        match tracer.goals.iter().find(|(server, ..)| server == name) {
            Some((_, reach, aim)) => row.value_goal(*reach, *aim),
            None => row,
        }
    };
    others.map(row).collect()
}

/// What a server's request counts for.
fn per_request(tracer: &Tracer, name: &str, (few, many): (u64, u64)) -> io::Result<f64> {
    let [fewer, more] = [total(tracer, name, few)?, total(tracer, name, many)?];
    Ok((more - fewer) / ((many - few) * CONNECTIONS as u64) as f64)
}

/// The count of a server's whole life, in which it answers that many rounds of requests.
fn total(tracer: &Tracer, name: &str, rounds: u64) -> io::Result<f64> {
    let file = results::directory().join(format!("{}.count", tracer.program));
    let path = file.to_string_lossy();
    let command = [vec![tracer.program.to_string()], (tracer.options)(&path)].concat();
    let server = Server::start(name, &command)?;
    let mut load = Load::connect(server.address, CONNECTIONS)?;
    for _ in 0..rounds {
        load.run(|_| true)?;
    }
    // The server goes first: the ends of its connections are not to be counted.
    drop(server);
    read(&file, tracer.read)
}

/// Reads a tracer's file.
fn read(file: &Path, find: fn(&str) -> Option<f64>) -> io::Result<f64> {
    let text = fs::read_to_string(file)?;
    fs::remove_file(file)?;
    find(&text).ok_or_else(|| {
        io::Error::other(format!("no count in what the tracer says: {:?}", text.lines().last()))
    })
}

/// callgrind's last words: `==123== Collected : 456`.
fn instructions(text: &str) -> Option<f64> {
    let (_, rest) = text.rsplit_once("Collected :")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// strace's last line: `100.00 0.224020 21 10591 53 total`, where the fourth field has the calls.
fn syscalls(text: &str) -> Option<f64> {
    let total = text.lines().rfind(|line| line.trim_end().ends_with(" total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}
