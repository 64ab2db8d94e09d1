//! The load: many connections of one thread, each with one request on its way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::epoll::Epoll;

/// How many bytes a request has.
const REQUEST: [u8; 64] = [b'x'; 64];

/// How long a server may be silent before it counts as broken.
const SILENCE: Duration = Duration::from_secs(20);

/// Connections to one server.
pub(crate) struct Load {
    /// The connections.
    streams: Vec<TcpStream>,
    /// How much of its answer each of them still waits for; none if it has no request out.
    missing: Vec<usize>,
    /// Watches all of them, by index.
    epoll: Epoll,
}

impl Load {
    /// Opens that many connections, and sends nothing.
    pub(crate) fn connect(address: SocketAddr, count: usize) -> io::Result<Load> {
        let (mut streams, epoll) = (Vec::with_capacity(count), Epoll::new()?);
        for index in 0..count {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll.add(stream.as_raw_fd(), index as u64, 0)?;
            streams.push(stream);
        }
        Ok(Load { missing: vec![0; count], streams, epoll })
    }

    /// Makes requests until `enough`, which is told how many have been answered, says so; then
    /// waits for the answers that are under way. Returns how many there were in all.
    pub(crate) fn run(&mut self, mut enough: impl FnMut(u64) -> bool) -> io::Result<u64> {
        let (mut answered, mut asking) = (0, true);
        for index in 0..self.streams.len() {
            self.ask(index)?;
        }
        let mut under_way = self.streams.len();
        let mut heard = Instant::now();
        let mut buffer = [0; 4_096];
        while under_way > 0 {
            let ready: Vec<u64> = self.epoll.wait(1_000).collect();
            if !ready.is_empty() {
                heard = Instant::now();
            } else if heard.elapsed() > SILENCE {
                return Err(ErrorKind::TimedOut.into());
            }
            asking = asking && !enough(answered);
            for index in ready.into_iter().map(|index| index as usize) {
                match self.streams[index].read(&mut buffer) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(length) => self.missing[index] -= length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                }
                if self.missing[index] == 0 {
                    answered += 1;
                    if asking {
                        self.ask(index)?;
                    } else {
                        under_way -= 1;
                    }
                }
            }
        }
        Ok(answered)
    }

    /// Sends a request. It is small and the buffers of its connection are empty.
    fn ask(&mut self, index: usize) -> io::Result<()> {
        self.missing[index] = REQUEST.len();
        self.streams[index].write_all(&REQUEST)
    }
}
