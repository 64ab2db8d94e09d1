//! A small HTTP/1.1 server of plain `std::net`, for the examples that need one. It reads as if it
//! had one client: every connection gets a greenlet, and may send one request after another.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::sleep;
use std::time::Duration;

/// The largest head and the largest body of a request, in bytes.
const HEAD_MAX: usize = 16 << 10;
const BODY_MAX: usize = 1 << 20;

/// What a client gets.
pub(crate) struct Response {
    /// For example `200 OK`.
    pub(crate) status: &'static str,
    /// For example `text/plain`.
    pub(crate) content_type: &'static str,
    /// The rest.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A response that says no more than its status.
    pub(crate) fn of_status(status: &'static str) -> Response {
        Response { status, content_type: "text/plain", body: format!("{status}\n").into() }
    }
}

/// Starts a server on a free port of the loopback interface and returns its address. It calls
/// `handler` with the body of every request.
pub(crate) fn start(handler: impl Fn(&[u8]) -> Response + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let handler = Rc::new(handler);
    greenling::spawn(move || {
        while let Ok(stream) = accept(&listener) {
            let handler = handler.clone();
            // An error or a panic ends this connection. The others don't notice.
            greenling::spawn(move || serve(stream, &*handler));
        }
    });
    Ok(address)
}

/// Waits for the next client.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let mut pause = Duration::from_millis(10);
    loop {
        let error = match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::ECANCELED) => {
                return Err(error);
            }
            // Too many open files, say. The connections that end meanwhile give theirs back.
            _ => sleep(pause),
        }
        pause = Duration::from_secs(1).min(pause * 2);
    }
}

/// Serves one connection until its client leaves.
fn serve(mut stream: TcpStream, handler: impl Fn(&[u8]) -> Response) -> Result<(), Refusal> {
    let mut input = Vec::new();
    loop {
        let (response, keep_alive) = match read_request(&mut stream, &mut input) {
            Ok(None) => return Ok(()),
            Ok(Some(request)) => (handler(&request.body), request.keep_alive),
            Err(Refusal::Status(status)) => (Response::of_status(status), false),
            Err(error) => return Err(error),
        };
        write_response(&mut stream, &response, keep_alive)?;
        if !keep_alive {
            return Ok(());
        }
    }
}

/// What a client asked for.
struct Request {
    /// What was sent with it.
    body: Vec<u8>,
    /// Whether the client may send another request.
    keep_alive: bool,
}

/// Why there is no request to handle.
enum Refusal {
    /// The connection is broken, or not ours any more.
    Io,
    /// The request is; the client is told this.
    Status(&'static str),
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Refusal {
        Refusal::Io
    }
}

/// Reads the next request; None if the client has left instead. `input` holds what was received
/// and not used yet.
fn read_request(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<Option<Request>, Refusal> {
    let head = loop {
        if let Some(head) = Head::parse(input)? {
            break head;
        }
        if input.len() >= HEAD_MAX {
            return Err(Refusal::Status("431 Request Header Fields Too Large"));
        }
        if receive(stream, input)? == 0 {
            return if input.is_empty() { Ok(None) } else { Err(Refusal::Io) };
        }
    };
    let end = head.bytes + head.body_bytes;
    while input.len() < end {
        if receive(stream, input)? == 0 {
            return Err(Refusal::Io);
        }
    }
    let body = input[head.bytes..end].to_vec();
    input.drain(..end);
    Ok(Some(Request { body, keep_alive: head.keep_alive }))
}

fn receive(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 4096];
    let received = stream.read(&mut chunk)?;
    input.extend_from_slice(&chunk[..received]);
    Ok(received)
}

/// What the head of a request says of the rest.
struct Head {
    /// Its own length.
    bytes: usize,
    /// That of the body behind it.
    body_bytes: usize,
    /// Whether another request may follow.
    keep_alive: bool,
}

impl Head {
    /// Parses what `input` begins with. None if more is needed.
    fn parse(input: &[u8]) -> Result<Option<Head>, Refusal> {
        const MALFORMED: Refusal = Refusal::Status("400 Bad Request");
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(status) = request.parse(input) else { return Err(MALFORMED) };
        let httparse::Status::Complete(bytes) = status else { return Ok(None) };

        let mut head = Head { bytes, body_bytes: 0, keep_alive: request.version == Some(1) };
        for header in request.headers {
            let value = std::str::from_utf8(header.value).map_err(|_| MALFORMED)?;
            match header.name.to_ascii_lowercase().as_str() {
                "content-length" => head.body_bytes = value.parse().map_err(|_| MALFORMED)?,
                "transfer-encoding" => return Err(Refusal::Status("501 Not Implemented")),
                "connection" if value.eq_ignore_ascii_case("close") => head.keep_alive = false,
                _ => {}
            }
        }
        if head.body_bytes > BODY_MAX {
            return Err(Refusal::Status("413 Content Too Large"));
        }
        Ok(Some(head))
    }
}

fn write_response(stream: &mut TcpStream, response: &Response, keep_alive: bool) -> io::Result<()> {
    let Response { status, content_type, body } = response;
    let mut output = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{}\r\n",
        body.len(),
        if keep_alive { "" } else { "Connection: close\r\n" },
    )
    .into_bytes();
    output.extend_from_slice(body);
    stream.write_all(&output)
}
