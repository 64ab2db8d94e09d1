//! An https server on greenlets, and ureq, which knows nothing of them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A server with a certificate of its own making, for "localhost".
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What a client has to trust.
    certificate: CertificateDer<'static>,
}

impl Server {
    /// Starts the server. It ends with the thread's hub.
    pub(crate) fn start() -> Server {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        greenling::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let config = Arc::clone(&config);
                greenling::spawn(move || serve(stream, config));
            }
        });
        Server { address, certificate }
    }

    /// The address of a page that takes `delay` to be made.
    pub(crate) fn page(&self, delay: Duration) -> String {
        format!("https://localhost:{}/{}", self.address.port(), delay.as_millis())
    }

    /// A client that trusts this server and nobody else.
    pub(crate) fn client(&self, timeout: Option<Duration>) -> ureq::Agent {
        let certificate = Certificate::from_der(&self.certificate).to_owned();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[certificate]));
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(timeout)
            .tls_config(tls.build());
        config.build().into()
    }
}

/// Answers requests until the client goes away. A page says its name, after as many milliseconds
/// as its name says.
fn serve(stream: TcpStream, config: Arc<ServerConfig>) {
    let connection = ServerConnection::new(config).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            match stream.read_line(&mut request) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let page = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
        std::thread::sleep(Duration::from_millis(page.parse().unwrap()));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
        if stream.get_mut().write_all((head + &page).as_bytes()).is_err() {
            return;
        }
    }
}
