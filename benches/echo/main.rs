//! Echo over TCP: what a request costs the server, through greenling's own types and through the
//! patched standard library.
//!
//! The limit is an epoll loop written by hand. The servers are processes on one CPU, the load
//! comes from this process on another; where there is only one, both share it. What is measured
//! is the server's own: instructions, syscalls and CPU time of a request, and CPU time of
//! connections that say nothing.

mod counts;
mod epoll;
mod load;
mod server;
mod servers;
#[path = "../support/mod.rs"]
mod support;

use std::io;
use std::time::{Duration, Instant};

use load::Load;
use server::Server;
use servers::{LIMIT, SERVERS};
use support::mode::{self, Mode};
use support::pairs::{Contender, interleave};
use support::row::{self, Row};
use support::{child, proc, results};

fn main() {
    if let Some(arguments) = child::arguments() {
        return servers::serve(&arguments[0]);
    }
    proc::raise_fd_limit();
    proc::pin(proc::cpus() - 1);
    let mut criterion = mode::criterion();
    let mut group = criterion.benchmark_group("echo, 100 requests of 100 connections");
    for (name, _) in SERVERS {
        let Some((_server, mut load)) = started(name, 100) else { continue };
        group.bench_function(name, |bencher| {
            bencher.iter(|| load.run(|_| true).expect("the server answers"));
        });
    }
    group.finish();
    criterion.final_summary();

    let mode = Mode::of_this_run();
    if mode == Mode::Test {
        return;
    }
    let mut rows = counts::rows(mode);
    rows.extend(cpu_per_request(mode, 100));
    rows.extend(cpu_per_request(mode, mode.pick(1_000, 200)));
    rows.extend(["own types", "patched std"].map(|name| idle(mode, name)));
    results::publish("echo", &rows);
}

/// A server with connections to it; None, and a word why, if it could not be had.
fn started(name: &str, connections: usize) -> Option<(Server, Load)> {
    let start = || -> io::Result<_> {
        let server = Server::start(name, &[])?;
        let load = Load::connect(server.address, connections)?;
        Ok((server, load))
    };
    start().inspect_err(|error| println!("{name} with {connections} connections: {error}")).ok()
}

/// The server's CPU time of a request. All servers are up all the time and take turns.
fn cpu_per_request(mode: Mode, connections: usize) -> Vec<Row> {
    let (warm_up, time) = (Duration::from_millis(100), Duration::from_millis(600));
    let contenders = SERVERS.map(|(name, _)| {
        let mut started = started(name, connections);
        let mut measure = move || -> io::Result<f64> {
            let (server, load) = started.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            run_for(load, warm_up)?;
            let before = server.cpu_nanos()?;
            let requests = run_for(load, time)?;
            Ok((server.cpu_nanos()? - before) as f64 / 1_000.0 / requests as f64)
        };
        Contender::new(name, move || measure().unwrap_or(f64::NAN))
    });
    let samples = interleave(mode.pick(10, 2), contenders.into());
    let figure = format!("echo, server CPU per request, {connections} connections");
    row::compare(&figure, "us", &samples, LIMIT, Some((1.10, 1.03)))
}

/// Makes requests for that long and returns how many were answered.
fn run_for(load: &mut Load, time: Duration) -> io::Result<u64> {
    let start = Instant::now();
    load.run(|_| start.elapsed() >= time)
}

/// The CPU time that connections take which say nothing.
fn idle(mode: Mode, name: &str) -> Row {
    let connections = mode.pick(10_000, 500);
    let time = mode.pick(Duration::from_secs(10), Duration::from_secs(1));
    let figure = format!("CPU of {connections} idle connections over {time:?}: {name}");
    let measure = || -> io::Result<f64> {
        let (server, mut load) = started(name, connections).ok_or(io::ErrorKind::NotConnected)?;
        // Everyone was served once, and the server has had the time to settle.
        load.run(|_| true)?;
        std::thread::sleep(Duration::from_millis(500));
        let before = server.cpu_nanos()?;
        std::thread::sleep(time);
        Ok((server.cpu_nanos()? - before) as f64 / 1_000.0)
    };
    match measure() {
        Ok(micros) => Row::alone(figure, micros, "us"),
        Err(error) => Row::missing(figure, error.to_string()),
    }
    .value_goal(0.0, 0.0)
}
