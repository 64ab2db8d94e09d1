//! A thousand HTTP requests on one OS thread, in little more than the time of one.
//!
//! The client is [ureq], a blocking HTTP client; the server is plain blocking `std::net`, and it
//! takes one second over every response, with `std::thread::sleep`. Neither knows of greenling.
//! After `patch_all()` they run side by side, and nobody waits for anybody else's second.
//!
//! ```text
//! cargo run --release --example fetch
//! cargo run --release --example fetch -- https://www.rust-lang.org https://crates.io
//! cargo run --release --example fetch -- --file urls.txt --concurrency 100 --timeout 5
//! ```
//!
//! [ureq]: https://docs.rs/ureq

mod http_server;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Parser, value_parser};
use greenling::sync::Semaphore;
use greenling::{GreenletId, getcurrent};
use http_server::Response;
use indicatif::{ProgressBar, ProgressStyle};

/// How long the server of this process takes over every response.
const SERVER_DELAY: Duration = Duration::from_secs(1);

/// The size of either buffer of a connection. ureq's default, 128 KiB, is much for a thousand.
const BUFFER_BYTES: usize = 32 << 10;

/// File descriptors a request needs at most: the client's and the server's end of a connection, or
/// the connection and an idle one that the agent keeps.
const FDS_PER_REQUEST: u64 = 2;

/// File descriptors for everything else: the hub's own, and those of name look-ups.
const FDS_RESERVED: u64 = 64;

/// Fetches many URLs at once on one OS thread, and says how long it took.
///
/// Without any URL it shows what greenling is for: it starts an HTTP server in this process that
/// takes one second over every response, and sends it a thousand requests.
///
/// The exit status is 0 if everything was fetched, 1 if something was not, 2 if the command line
/// or LIST is no good.
#[derive(Parser)]
#[command(name = "fetch")]
struct Options {
    /// What to fetch: http:// or https:// addresses.
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// Fetch the URLs in this file as well: one a line, empty lines and # comments aside. - is the
    /// standard input.
    #[arg(long, value_name = "LIST")]
    file: Option<PathBuf>,

    /// How many requests run at once, at most.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..))]
    concurrency: u32,

    /// When to give up on a URL.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,

    /// How many requests to send to the server of this process.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..), conflicts_with_all = ["urls", "file"])]
    requests: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("not a time to wait".to_owned()),
    }
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if let Err(error) = options.read_list() {
        complain(&error);
        return ExitCode::from(2);
    }
    greenling::monkey::patch_all();
    match run(&options) {
        Ok(report) if report.failures == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        // Who read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

impl Options {
    /// Adds the URLs of the file, if one is given.
    fn read_list(&mut self) -> Result<(), String> {
        let Some(path) = &self.file else { return Ok(()) };
        let list = if path.as_os_str() == "-" {
            io::read_to_string(io::stdin())
        } else {
            fs::read_to_string(path)
        };
        let list = list.map_err(|error| format!("{}: {error}", path.display()))?;
        let urls = list.lines().map(str::trim).filter(|line| !line.is_empty());
        self.urls.extend(urls.filter(|line| !line.starts_with('#')).map(str::to_owned));
        if self.urls.is_empty() {
            return Err(format!("{}: there is no URL in it", path.display()));
        }
        Ok(())
    }
}

/// Fetches everything, prints what became of each URL and the table.
fn run(options: &Options) -> io::Result<Report> {
    let mut config = ureq::Agent::config_builder();
    let by_ourselves = options.urls.is_empty();
    let urls = if by_ourselves {
        let address = http_server::start(|_| {
            note_caller();
            sleep(SERVER_DELAY);
            Response { status: "200 OK", content_type: "text/plain", body: b"hello\n".to_vec() }
        })?;
        config = config.proxy(None);
        vec![format!("http://{address}/"); options.requests as usize]
    } else {
        options.urls.clone()
    };

    let concurrency = affordable(urls.len().min(options.concurrency as usize));
    // One agent, and so one pool of connections, for all. No timeouts of its own: with them it
    // would resolve names on OS threads.
    let agent: ureq::Agent = config
        .max_idle_connections(concurrency)
        .max_idle_connections_per_host(concurrency)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .build()
        .into();
    let semaphore = Rc::new(Semaphore::new(concurrency));
    let style = "{wide_bar} {pos}/{len} in {elapsed}";
    let style = ProgressStyle::with_template(style).map_err(io::Error::other)?;
    let bar = ProgressBar::new(urls.len() as u64).with_style(style);

    let start = Instant::now();
    let timeout = options.timeout;
    let greenlets: Vec<_> = urls
        .iter()
        .map(|url| {
            let (agent, semaphore) = (agent.clone(), semaphore.clone());
            let (url, bar) = (url.clone(), bar.clone());
            greenling::spawn(move || {
                let _permit = semaphore.acquire();
                note_caller();
                let start = Instant::now();
                let result = greenling::with_timeout(timeout, || fetch(&agent, &url));
                bar.inc(1);
                (start.elapsed(), result)
            })
        })
        .collect();

    let mut report = Report::default();
    for (url, greenlet) in urls.iter().zip(greenlets) {
        let (latency, result) = match greenlet.get() {
            Ok((latency, Ok(result))) => (latency, result.map_err(|error| error.to_string())),
            Ok((latency, Err(_))) => (latency, Err(format!("no answer within {timeout:?}"))),
            Err(panic) => (Duration::ZERO, Err(panic.to_string())),
        };
        report.latencies.push(latency);
        report.failures += usize::from(result.is_err());
        let line = match result {
            Ok(_) if by_ourselves => continue,
            Ok(bytes) => format!("ok      {url}  {bytes} bytes in {:.3} s", latency.as_secs_f64()),
            Err(error) => format!("failed  {url}  {error}"),
        };
        bar.suspend(|| writeln!(io::stdout(), "{line}"))?;
    }
    report.wall_time = start.elapsed();
    (report.greenlets, report.hub_threads) = callers();
    bar.finish_and_clear();
    report.print(io::stdout())?;
    Ok(report)
}

/// Fetches a URL with the plain blocking client and returns how many bytes came.
fn fetch(agent: &ureq::Agent, url: &str) -> Result<u64, ureq::Error> {
    let response = agent.get(url).call()?;
    Ok(io::copy(&mut response.into_body().into_reader(), &mut io::sink())?)
}

/// What became of the requests.
#[derive(Default)]
struct Report {
    latencies: Vec<Duration>,
    failures: usize,
    wall_time: Duration,
    greenlets: usize,
    hub_threads: usize,
}

impl Report {
    fn print(&mut self, mut out: impl Write) -> io::Result<()> {
        self.latencies.sort_unstable();
        let serial: Duration = self.latencies.iter().sum();
        let count = self.latencies.len();
        let percentile = |percent: usize| {
            let index = (count * percent).div_ceil(100).max(1) - 1;
            self.latencies.get(index).copied().unwrap_or_default()
        };
        let seconds = |duration: Duration| format!("{:.3} s", duration.as_secs_f64());

        let mut row = |name: &str, value: String| writeln!(out, "{name:<24}{value:>12}");
        row("requests", count.to_string())?;
        row("failures", self.failures.to_string())?;
        row("wall time", seconds(self.wall_time))?;
        row("one after another", seconds(serial))?;
        row("greenlets", self.greenlets.to_string())?;
        row("OS threads of the hub", self.hub_threads.to_string())?;
        row("latency, median", seconds(percentile(50)))?;
        row("latency, 90 %", seconds(percentile(90)))?;
        row("latency, 99 %", seconds(percentile(99)))?;
        row("latency, slowest", seconds(percentile(100)))
    }
}

/// The greenlets and the OS threads that had a part in it, on the client's or the server's side.
static CALLERS: Mutex<(BTreeSet<GreenletId>, BTreeSet<PathBuf>)> =
    Mutex::new((BTreeSet::new(), BTreeSet::new()));

/// Notes which greenlet and which OS thread runs this.
fn note_caller() {
    let thread = fs::read_link("/proc/thread-self").unwrap_or_default();
    let (greenlets, threads) = &mut *CALLERS.lock().unwrap();
    greenlets.insert(getcurrent().id());
    threads.insert(thread);
}

/// How many greenlets and how many OS threads have been noted.
fn callers() -> (usize, usize) {
    let (greenlets, threads) = &*CALLERS.lock().unwrap();
    (greenlets.len(), threads.len())
}

/// How many requests can run at once: `wanted`, unless the limit of open files is too low for that
/// even after it has been raised as far as this process may.
fn affordable(wanted: usize) -> usize {
    let needed = FDS_RESERVED + FDS_PER_REQUEST * wanted as u64;
    let limit = rlimit::increase_nofile_limit(needed).unwrap_or(0);
    if limit >= needed {
        return wanted;
    }
    let fewer = limit.saturating_sub(FDS_RESERVED) / FDS_PER_REQUEST;
    let fewer = usize::try_from(fewer).unwrap_or(wanted).clamp(1, wanted);
    complain(&format!(
        "only {limit} files may be open (see ulimit -Hn): at most {fewer} requests at once, not \
         {wanted}"
    ));
    fewer
}

/// Tells the user something, if there is still anybody who reads it.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "fetch: {what}");
}
