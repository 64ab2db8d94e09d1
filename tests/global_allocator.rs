//! An allocator that is not the C library's, with thread-locals of its own: under greenlets, their
//! sockets and their ends.

mod common;
#[path = "common/https.rs"]
mod https;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use common::Watchdog;
use greenling::monkey::patch_all;
use greenling::spawn;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How long a test may take on a very busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What is allocated in one greenlet is freed in another, and on other threads.
#[test]
fn memory_goes_from_hand_to_hand() {
    let _watchdog = Watchdog::new("memory", LIMIT);
    patch_all();
    for _ in 0..20 {
        let makers: Vec<_> = (0..50usize)
            .map(|n| {
                spawn(move || {
                    let mut all = Vec::new();
                    for size in 0..20 {
                        all.push(vec![n as u8; size * n]);
                        if size % 5 == 0 {
                            std::thread::sleep(Duration::from_micros(20));
                        }
                    }
                    all
                })
            })
            .collect();
        let made: Vec<_> = makers.into_iter().map(|maker| maker.get().unwrap()).collect();
        let thread = std::thread::spawn(move || {
            made.iter().flatten().flatten().map(|&byte| u64::from(byte)).sum::<u64>()
        });
        let expected: u64 = (0..50u64).map(|n| n * n * 190).sum();
        assert_eq!(thread.join().unwrap(), expected);
    }
}

#[test]
fn connections_and_https() {
    let _watchdog = Watchdog::new("connections_and_https", LIMIT);
    patch_all();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            });
        }
    });
    let server = https::Server::start();
    let client = server.client(None);
    let clients: Vec<_> = (0..30usize)
        .map(|n| {
            let client = client.clone();
            let page = server.page(Duration::from_millis(n as u64 % 4));
            spawn(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(&vec![7; n * 100]).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut all = Vec::new();
                assert_eq!(stream.read_to_end(&mut all).unwrap(), n * 100);
                let body = client.get(&page).call().unwrap().body_mut().read_to_string();
                assert!(page.ends_with(&body.unwrap()));
            })
        })
        .collect();
    for client in clients {
        client.get().unwrap();
    }
}

/// Threads with a hub come and go; each has a heap of the allocator's.
#[test]
fn threads_end_with_greenlets_in_the_middle() {
    let _watchdog = Watchdog::new("threads_end", LIMIT);
    for _ in 0..10 {
        let thread = std::thread::spawn(|| {
            patch_all();
            for n in 0..20usize {
                spawn(move || {
                    let kept = vec![1u8; n * 1000];
                    std::thread::sleep(Duration::from_secs(1_000));
                    drop(kept);
                });
            }
            std::thread::sleep(Duration::from_micros(200));
        });
        thread.join().unwrap();
    }
}
