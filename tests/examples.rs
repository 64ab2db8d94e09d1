//! Runs every example as its users do: as a process, with its real output and exit status.
//!
//! `cargo test` builds the examples first; with `--test examples`, say `--examples` as well.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// After this long an example is taken to hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// The example of this name, which `cargo test` has built next to this test.
fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop(); // The test's own name.
    path.pop(); // deps
    path.extend(["examples", name]);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    let mut command = Command::new(path);
    for (variable, _) in
        std::env::vars().filter(|(name, _)| name.to_lowercase().ends_with("_proxy"))
    {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// Sets the soft and the hard limit of open files for a process that is yet to be started.
fn limit_files(command: &mut Command, soft: u64, hard: u64) {
    // SAFETY: the closure makes one system call, which is async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || rlimit::Resource::NOFILE.set(soft, hard));
    }
}

/// Runs an example to its end.
fn run(command: &mut Command) -> Output {
    Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).finish()
}

/// A process that is killed if the test gives up on it.
struct Running(Option<Child>);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(Some(command.spawn().unwrap()))
    }

    fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.as_mut().unwrap().stdout.take().unwrap())
    }

    fn kill(&mut self) {
        self.0.as_mut().unwrap().kill().unwrap();
    }

    /// Waits for the end and collects what was not read before.
    fn finish(mut self) -> Output {
        let mut child = self.0.take().unwrap();
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let start = Instant::now();
        let mut running = Running(Some(child));
        let status = loop {
            if let Some(status) = running.0.as_mut().unwrap().try_wait().unwrap() {
                running.0 = None;
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the example hangs");
            thread::sleep(Duration::from_millis(5));
        };
        let collected = |pipe: Option<thread::JoinHandle<Vec<u8>>>| {
            pipe.map_or_else(Vec::new, |pipe| pipe.join().unwrap())
        };
        Output { status, stdout: collected(stdout), stderr: collected(stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads a pipe to its end, on a thread so that a full pipe never stops the example.
fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    })
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The lines of an example that has done everything it should.
fn lines_of_success(output: &Output) -> Vec<&str> {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout).lines().collect()
}

/// The value in a row of fetch's table, without its unit.
fn in_table(output: &Output, row: &str) -> f64 {
    let line = text(&output.stdout).lines().find(|line| line.starts_with(row));
    let line = line.unwrap_or_else(|| panic!("there is no row {row:?} in {output:?}"));
    let value = line[row.len()..].split_whitespace().next().unwrap();
    value.parse().unwrap_or_else(|error| panic!("{error} in {line:?}"))
}

/// A server that gives every client the same answer, or none, for as long as the test runs.
fn server(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(answer) = answer else {
                silent.push(stream);
                continue;
            };
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
            while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = write!(
                stream,
                "HTTP/1.1 {answer}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
            );
        }
    });
    url
}

/// A URL at which nobody listens.
fn unreachable() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

#[test]
fn eat_play() {
    let start = Instant::now();
    let output = run(&mut example("eat_play"));
    assert_eq!(lines_of_success(&output), ["eat food 1", "play 1", "play 2", "eat food 2", "end"]);
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[test]
fn count() {
    let output = run(&mut example("count"));
    let lines = lines_of_success(&output);
    assert_eq!(lines[..6], ["One", "One", "One", "Two", "Two", "Two"]);
    let seconds = lines[6].strip_prefix("count took ").unwrap();
    let seconds: f64 = seconds.strip_suffix(" seconds.").unwrap().parse().unwrap();
    assert!((1.0..3.0).contains(&seconds), "{seconds}");
    assert_eq!(lines.len(), 7);
}

#[test]
fn fetch_a_thousand() {
    let output = run(&mut example("fetch"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(in_table(&output, "requests"), 1000.0);
    assert_eq!(in_table(&output, "failures"), 0.0);
    assert_eq!(in_table(&output, "OS threads of the hub"), 1.0);
    assert!(in_table(&output, "one after another") >= 1000.0);
    assert!((1.0..60.0).contains(&in_table(&output, "wall time")), "{output:?}");
    assert!(in_table(&output, "latency, median") >= 1.0);
}

#[test]
fn fetch_goes_on_when_a_host_is_unreachable() {
    let (good, bad) = (server(Some("200 OK")), unreachable());
    let output = run(example("fetch").args([&bad, &good, "no URL"]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdout = text(&output.stdout);
    let failed = format!("failed  {bad}  io: Connection refused");
    assert!(stdout.contains(&failed), "{stdout}");
    assert!(stdout.contains(&format!("ok      {good}  5 bytes")), "{stdout}");
    assert!(stdout.contains("failed  no URL  "), "{stdout}");
    assert_eq!(in_table(&output, "requests"), 3.0);
    assert_eq!(in_table(&output, "failures"), 2.0);
}

#[test]
fn fetch_counts_an_error_of_the_server() {
    let url = server(Some("404 Not Found"));
    let output = run(example("fetch").arg(&url));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("404"), "{output:?}");
}

#[test]
fn fetch_reads_a_list() {
    let (one, other) = (server(Some("200 OK")), server(Some("200 OK")));
    let mut list = tempfile::NamedTempFile::new().unwrap();
    write!(list, "# Two servers.\n\n  {one}\n{other}").unwrap();
    let output = run(example("fetch").arg("--file").arg(list.path()).args(["--concurrency", "1"]));
    assert!(output.status.success(), "{output:?}");
    let stdout = text(&output.stdout);
    assert!(stdout.contains(&one) && stdout.contains(&other), "{stdout}");
    assert_eq!(in_table(&output, "requests"), 2.0);
}

#[test]
fn fetch_refuses_a_list_without_urls() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let output = run(example("fetch").arg("--file").arg(empty.path()));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("there is no URL in it"), "{output:?}");

    let output = run(example("fetch").args(["--file", "/nonexistent/list"]));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("/nonexistent/list: No such file"), "{output:?}");
}

#[test]
fn fetch_runs_no_more_at_once_than_it_is_told() {
    let output = run(example("fetch").args(["--requests", "9", "--concurrency", "3"]));
    assert!(output.status.success(), "{output:?}");
    assert!(in_table(&output, "wall time") >= 3.0, "{output:?}");
    // Nine clients and, because connections are used again, three connections.
    assert_eq!(in_table(&output, "greenlets"), 12.0);
}

#[test]
fn fetch_gives_up_on_a_server_that_never_answers() {
    let (silent, good) = (server(None), server(Some("200 OK")));
    let output = run(example("fetch").args([&silent, &good, "--timeout", "0.5"]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdout = text(&output.stdout);
    assert!(stdout.contains(&format!("failed  {silent}  no answer within 500ms")), "{stdout}");
    assert!(stdout.contains(&format!("ok      {good}")), "{stdout}");
    assert_eq!(in_table(&output, "failures"), 1.0);
}

#[test]
fn fetch_explains_itself() {
    for arguments in [
        &["--no-such-option"][..],
        &["--concurrency", "0"],
        &["--concurrency", "many"],
        &["--timeout", "0"],
        &["--timeout", "-1"],
        &["--timeout", "soon"],
        &["--requests", "5", "http://localhost/"],
    ] {
        let output = run(example("fetch").args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains("error: "), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains("--help"), "{arguments:?}: {output:?}");
    }
    let output = run(example("fetch").arg("--help"));
    let help = lines_of_success(&output).join("\n");
    for option in ["URL", "--file", "--concurrency", "--timeout", "--requests"] {
        assert!(help.contains(option), "{help}");
    }
}

#[test]
fn fetch_ends_quietly_when_its_output_is_no_longer_read() {
    let (good, bad) = (server(Some("200 OK")), unreachable());
    let mut fetch = example("fetch");
    fetch.args([&good, &bad, &good, &bad]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut fetch = Running::start(&mut fetch);
    drop(fetch.stdout());
    let output = fetch.finish();
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.signal().is_none(), "{output:?}");
}

#[test]
fn fetch_makes_do_with_few_file_descriptors() {
    let mut fetch = example("fetch");
    fetch.args(["--requests", "100"]);
    limit_files(&mut fetch, 128, 128);
    let output = run(&mut fetch);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(in_table(&output, "failures"), 0.0);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("only 128 files may be open"), "{stderr}");
    assert!(stderr.contains("at most 32 requests at once, not 100"), "{stderr}");
}

#[test]
fn fetch_raises_its_limit_of_open_files() {
    let mut fetch = example("fetch");
    fetch.args(["--requests", "200"]);
    limit_files(&mut fetch, 128, 1024);
    let output = run(&mut fetch);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(in_table(&output, "failures"), 0.0);
}

/// Starts an echo server, perhaps with a limit of open files, and reads from its first line where
/// it listens.
fn echo_server(arguments: &[&str], files_max: Option<u64>) -> (Running, String) {
    let mut command = example("echo_server");
    if let Some(files_max) = files_max {
        limit_files(&mut command, files_max, files_max);
    }
    command.arg("127.0.0.1:0").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Running::start(&mut command);
    let mut line = String::new();
    server.stdout().read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    (server, address)
}

#[test]
fn echo() {
    let (server, address) = echo_server(&["--connections", "25"], None);
    let output = run(example("echo_client").args([&address, "25"]));
    assert_eq!(lines_of_success(&output), ["Received: Hello from client!"; 25]);
    let output = server.finish();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn echo_serves_the_others_while_a_client_is_slow_or_breaks_off() {
    let (_server, address) = echo_server(&[], None);
    let mut slow = TcpStream::connect(&address).unwrap();
    slow.write_all(b"slo").unwrap();
    drop(TcpStream::connect(&address).unwrap());
    let output = run(example("echo_client").arg(&address));
    assert_eq!(lines_of_success(&output), ["Received: Hello from client!"; 10]);
    slow.write_all(b"w").unwrap();
    let mut echoed = [0; 4];
    slow.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"slow");
}

#[test]
fn echo_server_recovers_from_too_many_open_files() {
    let (mut server, address) = echo_server(&[], Some(32));
    // More than it can hold. Those it can't accept wait in the listener's backlog.
    let crowd: Vec<_> = (0..40).map(|_| TcpStream::connect(&address).unwrap()).collect();
    thread::sleep(Duration::from_millis(100));
    drop(crowd);
    let output = run(example("echo_client").arg(&address));
    assert_eq!(lines_of_success(&output), ["Received: Hello from client!"; 10]);
    server.kill();
    let stderr = server.finish().stderr;
    assert!(text(&stderr).contains("Too many open files"), "{:?}", text(&stderr));
}

#[test]
fn echo_client_reports_what_fails() {
    let address = unreachable();
    let address = address.strip_prefix("http://").unwrap().strip_suffix('/').unwrap();
    let output = run(example("echo_client").args([address, "2"]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stderr).matches("Connection refused").count(), 2, "{output:?}");

    let output = run(example("echo_client").arg("nowhere"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = run(&mut example("echo_client"));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn echo_server_says_why_it_can_not_listen() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(example("echo_server").arg(&address));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains(&address) && stderr.contains("Address already in use"), "{stderr}");
}

#[test]
fn batch_post() {
    let output = run(example("batch_post").args(["--batches", "3", "--requests", "30"]));
    let lines = lines_of_success(&output);
    assert_eq!(lines.len(), 3);
    for (line, number) in lines.iter().zip(1..) {
        let seconds = line.strip_prefix(&format!("{number}th, request_num: 30, time_cost: "));
        let seconds: f64 = seconds.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        // Thirty requests of 20 ms, ten at a time.
        assert!((0.06..30.0).contains(&seconds), "{line:?}");
    }
}

#[test]
fn batch_post_counts_what_fails() {
    let url = unreachable();
    let output = run(example("batch_post").args(["--batches", "1", "--requests", "3", &url]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).starts_with("1th, request_num: 3, time_cost: "), "{output:?}");
    assert!(text(&output.stderr).contains("3 requests failed"), "{output:?}");
}
