//! Batches of JSON POSTs through one session that keeps at most ten idle connections, with a
//! semaphore that bounds how many run at once. ureq is a blocking client and knows nothing of
//! greenling; the server, in the same process and on the same OS thread, is plain `std::net`.
//!
//! ```text
//! cargo run --example batch_post
//! cargo run --example batch_post -- --batches 3 --requests 500 http://localhost:8080/
//! ```

mod http_server;

use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Parser, value_parser};
use greenling::sync::Semaphore;
use http_server::Response;
use serde_json::{Value, json};

/// How many idle connections the session keeps.
const IDLE_CONNECTIONS_MAX: usize = 10;

/// How long the server takes to answer.
const SERVER_DELAY: Duration = Duration::from_millis(20);

/// Posts batches of JSON documents and says how long each batch took.
#[derive(Parser)]
#[command(name = "batch_post")]
struct Options {
    /// Where to post to. Without it, to a server in this process.
    url: Option<String>,

    /// How many batches, one after another.
    #[arg(long, value_name = "N", default_value_t = 5)]
    batches: usize,

    /// How many requests a batch has.
    #[arg(long, value_name = "N", default_value_t = 100)]
    requests: usize,

    /// How many requests run at once.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u16).range(1..))]
    concurrency: u16,
}

fn main() -> ExitCode {
    let options = Options::parse();
    greenling::monkey::patch_all();
    match run(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("batch_post: {failures} requests failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                eprintln!("batch_post: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Posts all batches and returns how many requests failed.
fn run(options: Options) -> io::Result<usize> {
    let mut config = ureq::Agent::config_builder();
    let url = match options.url {
        Some(url) => url,
        None => {
            config = config.proxy(None);
            format!("http://{}/", http_server::start(answer)?)
        }
    };
    let session: ureq::Agent = config
        .max_idle_connections(IDLE_CONNECTIONS_MAX)
        .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
        .build()
        .into();
    let semaphore = Rc::new(Semaphore::new(options.concurrency.into()));

    let mut failures = 0;
    for batch in 1..=options.batches {
        let start = Instant::now();
        let greenlets: Vec<_> = (0..options.requests)
            .map(|number| {
                let (session, semaphore, url) = (session.clone(), semaphore.clone(), url.clone());
                greenling::spawn(move || {
                    let _permit = semaphore.acquire();
                    post(&session, &url, &json!({ "batch": batch, "number": number }))
                })
            })
            .collect();
        for greenlet in greenlets {
            let error: Box<dyn std::error::Error> = match greenlet.get() {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error,
                Err(error) => error.into(),
            };
            failures += 1;
            eprintln!("batch_post: {url}: {error}");
        }
        writeln!(
            io::stdout(),
            "{batch}th, request_num: {}, time_cost: {:.3}",
            options.requests,
            start.elapsed().as_secs_f64()
        )?;
    }
    Ok(failures)
}

/// Posts one document and returns the one that comes back.
fn post(
    session: &ureq::Agent,
    url: &str,
    document: &Value,
) -> Result<Value, Box<dyn std::error::Error>> {
    let request = session.post(url).content_type("application/json");
    let answer = request.send(document.to_string())?.into_body().read_to_string()?;
    Ok(serde_json::from_str(&answer)?)
}

/// The server's side: it takes its time and sends the document back.
fn answer(document: &[u8]) -> Response {
    sleep(SERVER_DELAY);
    match serde_json::from_slice::<Value>(document) {
        Ok(document) => Response {
            status: "200 OK",
            content_type: "application/json",
            body: json!({ "received": document }).to_string().into(),
        },
        Err(_) => Response::of_status("400 Bad Request"),
    }
}
