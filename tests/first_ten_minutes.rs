//! What people try in their first ten minutes: https, logging, and the other ways to do several
//! things at a time, in the same program. Each works here, or its test says what it does instead.

mod common;
#[path = "common/https.rs"]
mod https;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::{Watchdog, alone};
use greenling::monkey::patch_all;
use greenling::{spawn, with_timeout};
use rayon::prelude::*;
use tracing_subscriber::layer::SubscriberExt;

/// How long a test may take on a very busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A moment.
const MOMENT: Duration = Duration::from_millis(2);

/// The pattern of `greenling::monkey`'s documentation, in two tests that run at the same time.
#[test]
fn a_test_patches_for_itself() {
    patch_all();
    let start = Instant::now();
    let sleepers = [(); 20].map(|()| spawn(|| std::thread::sleep(20 * MOMENT)));
    greenling::joinall(&sleepers);
    assert!(start.elapsed() < 20 * 20 * MOMENT);
}

#[test]
fn another_test_patches_for_itself() {
    a_test_patches_for_itself();
}

#[test]
fn https() {
    let _watchdog = Watchdog::new("https", LIMIT);
    patch_all();
    let server = https::Server::start();
    let client = server.client(None);
    // Greenlets that share a client with its pool, and ones that shake hands themselves.
    let fetchers: Vec<_> = (0..20)
        .map(|n| {
            let page = server.page(Duration::from_millis(n));
            let client = if n % 2 == 0 { client.clone() } else { server.client(None) };
            spawn(move || {
                for _ in 0..2 {
                    let body = client.get(&page).call().unwrap().body_mut().read_to_string();
                    assert!(page.ends_with(&format!("/{}", body.unwrap())));
                }
            })
        })
        .collect();
    for fetcher in fetchers {
        fetcher.get().unwrap();
    }
    // Timeouts of both kinds.
    let never = server.page(Duration::from_secs(1_000));
    let impatient = server.client(Some(10 * MOMENT));
    assert!(matches!(impatient.get(&never).call(), Err(ureq::Error::Timeout(_))));
    assert!(with_timeout(10 * MOMENT, || client.get(&never).call().map(drop)).is_err());
    // Nobody trusts a certificate that it has not been told of.
    let stranger = https::Server::start();
    assert!(client.get(stranger.page(Duration::ZERO)).call().is_err());
}

/// `log` with env_logger: its lock is one of std's, and its buffer one thread-local that is given
/// back before the write.
#[test]
fn logging() {
    let _watchdog = Watchdog::new("logging", LIMIT);
    patch_all();
    // A log that yields in the middle of a line would mix the lines up.
    let lines = Lines::default();
    let target = env_logger::Target::Pipe(Box::new(lines.clone()));
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .format(|out, record| {
            std::thread::sleep(Duration::from_micros(100));
            writeln!(out, "{}", record.args())
        })
        .target(target)
        .try_init()
        .unwrap();
    let loggers: Vec<_> = (0..10)
        .map(|n| {
            spawn(move || {
                for line in 0..5 {
                    log::info!(target: "first_ten_minutes", "greenlet {n} line {line}");
                    std::thread::sleep(Duration::from_micros(100));
                }
            })
        })
        .collect();
    for logger in loggers {
        logger.get().unwrap();
    }
    let seen: Vec<_> =
        lines.sorted().into_iter().filter(|line| line.starts_with("greenlet")).collect();
    let mut expected: Vec<_> =
        (0..10).flat_map(|n| (0..5).map(move |line| format!("greenlet {n} line {line}"))).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

/// Collects what is written, slowly.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// All lines, in the order of the alphabet.
    fn sorted(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut all = self.0.lock().unwrap();
        std::thread::sleep(Duration::from_micros(50));
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `tracing`: events are fine from anywhere. The span that is entered belongs to the OS thread, so
/// a greenlet leaves it before it blocks.
#[test]
fn tracing_events_and_spans() {
    let _watchdog = Watchdog::new("tracing", LIMIT);
    patch_all();
    let lines = Lines::default();
    let writer = {
        let lines = lines.clone();
        move || lines.clone()
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    let greenlets: Vec<_> = (0..5)
        .map(|n| {
            spawn(move || {
                let span = tracing::info_span!("work", n);
                for step in 0..3 {
                    tracing::info!(parent: &span, step, "before");
                    std::thread::sleep(MOMENT);
                    span.in_scope(|| tracing::info!(step, "after"));
                }
            })
        })
        .collect();
    for greenlet in greenlets {
        greenlet.get().unwrap();
    }
    let mut expected: Vec<_> = (0..5)
        .flat_map(|n| (0..3).map(move |step| (n, step)))
        .flat_map(|(n, step)| {
            ["before", "after"].map(|it| format!("work{{n={n}}}: {it} step={step}"))
        })
        .collect();
    expected.sort();
    let seen: Vec<_> = lines.sorted().into_iter().filter(|line| line.starts_with("work")).collect();
    assert_eq!(seen, expected);
}

/// rayon: its threads have no hub and compute as ever, and whoever waits for them waits in one of
/// std's locks, so others run meanwhile. But what it waits on belongs to the OS thread: only one
/// greenlet of a thread may be in rayon at a time, or memory is corrupted.
#[test]
fn rayon_in_one_greenlet_at_a_time() {
    let _watchdog = Watchdog::new("rayon", LIMIT);
    patch_all();
    let turn = Arc::new(Mutex::new(()));
    let greenlets: Vec<_> = (0..4u64)
        .map(|n| {
            let turn = Arc::clone(&turn);
            spawn(move || {
                for _ in 0..5 {
                    let in_rayon = turn.lock().unwrap();
                    let sum: u64 = (0..10_000u64).into_par_iter().map(|x| x * n).sum();
                    assert_eq!(sum, n * 49_995_000);
                    let (left, right) = rayon::join(|| n + 1, || n + 2);
                    assert_eq!((left, right), (n + 1, n + 2));
                    drop(in_rayon);
                    std::thread::sleep(Duration::from_micros(200));
                }
            })
        })
        .collect();
    let ticker = spawn(|| (0..50).for_each(|_| std::thread::sleep(Duration::from_micros(100))));
    for greenlet in greenlets {
        greenlet.get().unwrap();
    }
    ticker.get().unwrap();
    // Sockets and sleeps on its threads pass through.
    let sum: u64 = (0..8u64)
        .into_par_iter()
        .map(|n| {
            std::thread::sleep(Duration::from_micros(200));
            n
        })
        .sum();
    assert_eq!(sum, 28);
}

/// A plain http server on a thread without a hub: answers each connection once.
fn http_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                stream.read_line(&mut request).unwrap();
            }
            std::thread::sleep(MOMENT);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
            stream.get_mut().write_all(answer).unwrap();
        }
    });
    address
}

/// reqwest::blocking: its runtime has a thread of its own, and the caller waits in `thread::park`,
/// which is one of std's locks, so others run meanwhile. But that belongs to the OS thread: only
/// one greenlet of a thread may be in it at a time, or a wake-up meets the wrong one.
#[test]
fn reqwest_blocking_in_one_greenlet_at_a_time() {
    if !alone("reqwest_blocking_in_one_greenlet_at_a_time") {
        return;
    }
    let _watchdog = Watchdog::new("reqwest", LIMIT);
    patch_all();
    let address = http_server();
    let get = move || {
        let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        client.get(format!("http://{address}/")).send().unwrap().text().unwrap()
    };
    assert_eq!(get(), "hi");
    let turn = Arc::new(Mutex::new(()));
    let fetchers: Vec<_> = (0..3)
        .map(|_| {
            let turn = Arc::clone(&turn);
            spawn(move || {
                let _turn = turn.lock().unwrap();
                get()
            })
        })
        .collect();
    let ticker = spawn(|| (0..50).for_each(|_| std::thread::sleep(Duration::from_micros(100))));
    for fetcher in fetchers {
        assert_eq!(fetcher.get().unwrap(), "hi");
    }
    ticker.get().unwrap();
    let thread = std::thread::spawn(get);
    assert_eq!(thread.join().unwrap(), "hi");
}

/// Channels to and from threads. (Only one greenlet of a thread may be waiting in a channel at a
/// time: each thread has one `thread::park`, and two in it spin for ever.)
#[test]
fn std_channels_with_threads() {
    let _watchdog = Watchdog::new("std_channels", LIMIT);
    patch_all();
    let (sender, receiver) = mpsc::channel();
    let (back_sender, back) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        for item in receiver {
            std::thread::sleep(Duration::from_micros(50));
            back_sender.send(item + 1).unwrap();
        }
    });
    let greenlet = spawn(move || {
        (0..20u32).for_each(|item| sender.send(item).unwrap());
        drop(sender);
        back.iter().sum::<u32>()
    });
    assert_eq!(greenlet.get().unwrap(), (1..=20).sum());
    thread.join().unwrap();
}

/// What never has to wait works between greenlets, too.
#[test]
fn channels_that_never_wait() {
    let _watchdog = Watchdog::new("channels_that_never_wait", LIMIT);
    patch_all();
    let (sender, receiver) = crossbeam_channel::unbounded();
    let greenlets: Vec<_> = (0..5)
        .map(|n| {
            let sender = sender.clone();
            spawn(move || {
                for item in 0..10 {
                    sender.send(n * 10 + item).unwrap();
                    std::thread::sleep(Duration::from_micros(100));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    while all.len() < 50 {
        match receiver.try_recv() {
            Ok(item) => all.push(item),
            Err(_) => std::thread::sleep(Duration::from_micros(100)),
        }
    }
    greenling::joinall(&greenlets);
    all.sort_unstable();
    assert_eq!(all, (0..50).collect::<Vec<u32>>());
}

/// One greenlet that waits in `recv` for another: the wait is one of std's locks, so the sender
/// gets its turn.
#[test]
fn one_receiver_waits_for_greenlets() {
    if !alone("one_receiver_waits_for_greenlets") {
        return;
    }
    let _watchdog = Watchdog::new("one_receiver", LIMIT);
    patch_all();
    let (sender, receiver) = mpsc::channel();
    let waiting = spawn(move || receiver.iter().sum::<u32>());
    let sending = spawn(move || {
        for item in 0..10u32 {
            std::thread::sleep(Duration::from_micros(200));
            sender.send(item).unwrap();
        }
    });
    assert_eq!(waiting.get().unwrap(), 45);
    sending.get().unwrap();
}

/// The standard output may be a socket. A write to it holds the thread, because the lock around it
/// would let other greenlets of the thread in.
#[test]
fn the_standard_output_is_a_socket() {
    const NAME: &str = "the_standard_output_is_a_socket";
    const LINES: usize = 200;
    const CHILD: &str = "GREENLING_TEST_PRINTS";
    let _watchdog = Watchdog::new(NAME, LIMIT);
    if std::env::var_os(CHILD).is_some() {
        patch_all();
        let printers: Vec<_> = (0..10)
            .map(|n| {
                spawn(move || {
                    for line in 0..LINES {
                        let text = format!("printed {n} {line} {}\n", "x".repeat(500));
                        std::io::stdout().write_all(text.as_bytes()).unwrap();
                        greenling::yield_now();
                    }
                })
            })
            .collect();
        return printers.into_iter().for_each(|printer| printer.get().unwrap());
    }
    let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .stdout(std::os::fd::OwnedFd::from(writer))
        .spawn()
        .unwrap();
    let mut text = Vec::new();
    let mut chunk = [0; 10_000];
    loop {
        std::thread::sleep(Duration::from_micros(100));
        match reader.read(&mut chunk).unwrap() {
            0 => break,
            done => text.extend_from_slice(&chunk[..done]),
        }
    }
    assert!(child.wait().unwrap().success());
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("printed ").count(), 10 * LINES);
}

/// std's own way to serve: a thread for each connection, next to greenlets that are its clients.
#[test]
fn threads_serve_greenlets() {
    let _watchdog = Watchdog::new("threads_serve", LIMIT);
    patch_all();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            });
        }
    });
    let clients: Vec<_> = (0..20u8)
        .map(|n| {
            spawn(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(&[n; 100]).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                assert_eq!(all, [n; 100]);
            })
        })
        .collect();
    for client in clients {
        client.get().unwrap();
    }
}
