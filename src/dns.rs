//! Looking names up on threads that may block.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::io::interrupted;
use crate::threadpool;

/// The addresses of `host`, with `port`. An address in digits takes no thread.
pub(crate) fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    resolve((host.to_owned(), port))
}

/// The addresses of `host`, which ends in a colon and the port.
pub(crate) fn lookup_with_port(host: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    resolve(host.to_owned())
}

/// Lets std do it, so that the errors are std's.
fn resolve(name: impl ToSocketAddrs + Send + 'static) -> io::Result<Vec<SocketAddr>> {
    threadpool::run(move || name.to_socket_addrs().map(Iterator::collect)).map_err(interrupted)?
}
