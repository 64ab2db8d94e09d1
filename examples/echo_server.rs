//! An echo server of plain `std::net`, written as if it had one client: every connection gets a
//! greenlet, so it serves thousands on one OS thread.
//!
//! ```text
//! cargo run --example echo_server -- 127.0.0.1:7777
//! cargo run --example echo_client -- 127.0.0.1:7777      # in another terminal
//! ```

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Parser;
use greenling::Greenlet;

/// Sends back whatever its clients send, until it is killed.
///
/// Try it with the echo_client example: cargo run --example echo_client -- ADDRESS
#[derive(Parser)]
#[command(name = "echo_server")]
struct Options {
    /// Where to listen. With port 0 the system chooses one; the first line of output names it.
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:7777")]
    address: String,

    /// End after this many connections instead of never.
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    greenling::monkey::patch_all();
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_server: {}: {error}", options.address);
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> io::Result<()> {
    let listener = TcpListener::bind(&options.address)?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    match options.connections {
        None => loop {
            accept(&listener)?;
        },
        Some(count) => {
            let connections = (0..count).map(|_| accept(&listener)).collect::<io::Result<Vec<_>>>();
            greenling::joinall(&connections?);
            Ok(())
        }
    }
}

/// Waits for the next client and gives it a greenlet. An error or a panic in there ends that
/// greenlet and closes its connection; the others don't notice.
fn accept(listener: &TcpListener) -> io::Result<Greenlet<()>> {
    let mut pause = Duration::from_millis(10);
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                return Ok(greenling::spawn(move || {
                    if let Err(error) = echo(&stream) {
                        eprintln!("echo_server: {peer}: {error}");
                    }
                }));
            }
            // Too many open files, or the client has gone already. The connections that end
            // meanwhile give their file descriptors back.
            Err(error) if is_passing(&error) => {
                eprintln!("echo_server: {error}; trying again");
                sleep(pause);
                pause = Duration::from_secs(1).min(pause * 2);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether an error of `accept` says nothing of the listener.
fn is_passing(error: &io::Error) -> bool {
    let listener_is_useless = [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::ECANCELED];
    !error.raw_os_error().is_some_and(|errno| listener_is_useless.contains(&errno))
}

fn echo(mut stream: &TcpStream) -> io::Result<()> {
    io::copy(&mut &*stream, &mut stream)?;
    Ok(())
}
