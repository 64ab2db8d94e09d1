//! Many clients of an echo server at once, with plain `std::net` on one OS thread.
//!
//! ```text
//! cargo run --example echo_server -- 127.0.0.1:7777
//! cargo run --example echo_client -- 127.0.0.1:7777      # in another terminal
//! ```

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;

use clap::Parser;

/// Each of many clients sends "Hello from client!" to an echo server, all at once, and prints what
/// it receives.
///
/// Start the server first: cargo run --example echo_server
#[derive(Parser)]
#[command(name = "echo_client")]
struct Options {
    /// Where the echo server listens.
    #[arg(value_name = "ADDRESS")]
    address: String,

    /// How many clients.
    #[arg(default_value_t = 10)]
    clients: usize,
}

fn main() -> ExitCode {
    let Options { address, clients } = Options::parse();
    greenling::monkey::patch_all();
    let greenlets: Vec<_> = (0..clients)
        .map(|_| {
            let address = address.clone();
            greenling::spawn(move || say_hello(&address))
        })
        .collect();

    let mut status = ExitCode::SUCCESS;
    for greenlet in greenlets {
        match greenlet.get() {
            Ok(Ok(received)) => {
                if writeln!(io::stdout(), "Received: {received}").is_err() {
                    return ExitCode::FAILURE; // Nobody reads any more.
                }
            }
            Ok(Err(error)) => {
                eprintln!("echo_client: {address}: {error}");
                status = ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("echo_client: {error}");
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

fn say_hello(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"Hello from client!")?;
    stream.shutdown(Shutdown::Write)?;
    let mut received = String::new();
    stream.read_to_string(&mut received)?;
    Ok(received)
}
