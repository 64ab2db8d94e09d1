//! getaddrinfo, without a network.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

use libc::{
    AF_INET, AF_INET6, AF_UNSPEC, AI_NUMERICHOST, AI_NUMERICSERV, AI_PASSIVE, SOCK_DGRAM,
    SOCK_STREAM,
};

use crate::common::sys::getaddrinfo;
use crate::world::{Transcript, World};

/// What needs no lookup.
pub(crate) fn numeric_names(_: World, log: &mut Transcript) {
    let ask = |node, service, family, flags| getaddrinfo(node, service, family, SOCK_STREAM, flags);
    log.note("v4", ask(Some(c"127.0.0.1"), Some(c"80"), AF_UNSPEC, 0));
    log.note("v6", ask(Some(c"::1"), Some(c"443"), AF_UNSPEC, 0));
    log.note("short", ask(Some(c"127.1"), None, AF_INET, AI_NUMERICHOST));
    log.note("any", ask(None, Some(c"80"), AF_INET, AI_PASSIVE));
    log.note("loopback", ask(None, Some(c"80"), AF_INET, 0));
    log.note("flags", ask(Some(c"10.0.0.1"), Some(c"1"), AF_INET, AI_NUMERICHOST | AI_NUMERICSERV));
    log.note("datagrams", getaddrinfo(Some(c"127.0.0.1"), Some(c"53"), AF_INET, SOCK_DGRAM, 0));
    log.note("any type", getaddrinfo(Some(c"127.0.0.1"), Some(c"53"), AF_INET, 0, 0));
    let std = "127.0.0.1:80".to_socket_addrs().map(|all| all.collect::<Vec<SocketAddr>>());
    log.io("std", std);
    let std = ("::1", 80).to_socket_addrs().map(|all| all.collect::<Vec<SocketAddr>>());
    log.io("std", std);
}

/// What nobody will find.
pub(crate) fn refused_names(_: World, log: &mut Transcript) {
    let ask = |node, service, family, flags| getaddrinfo(node, service, family, SOCK_STREAM, flags);
    log.note("no address", ask(Some(c"localhost"), None, AF_UNSPEC, AI_NUMERICHOST));
    log.note("nothing", ask(None, None, AF_UNSPEC, 0));
    log.note("family", ask(Some(c"127.0.0.1"), None, 9999, 0));
    log.note("wrong family", ask(Some(c"127.0.0.1"), None, AF_INET6, AI_NUMERICHOST));
    log.note("service", ask(Some(c"127.0.0.1"), Some(c"no-such-service"), AF_INET, 0));
    log.note("no number", ask(Some(c"127.0.0.1"), Some(c"http"), AF_INET, AI_NUMERICSERV));
    log.note("flags", ask(Some(c"127.0.0.1"), None, AF_INET, 1 << 30));
    log.note("type", getaddrinfo(Some(c"127.0.0.1"), None, AF_INET, 99, 0));
    log.note("empty", ask(Some(c""), None, AF_INET, AI_NUMERICHOST));
    log.note("label", ask(Some(LONG_LABEL), None, AF_INET, 0));
    log.io("std: no port", "127.0.0.1".to_socket_addrs().map(drop));
    log.io("std: bad port", "127.0.0.1:99999".to_socket_addrs().map(drop));
    log.io("std: NUL", ("local\0host", 80).to_socket_addrs().map(drop));
    log.io("std: label", (LONG_LABEL.to_str().unwrap(), 80).to_socket_addrs().map(drop));
}

/// A name whose one label is longer than a label may be: no resolver is asked.
const LONG_LABEL: &std::ffi::CStr =
    c"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.invalid";

/// The one name that every machine knows.
pub(crate) fn local_names(world: World, log: &mut Transcript) {
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            world.spawn(|| {
                let mut found =
                    getaddrinfo(Some(c"localhost"), Some(c"80"), AF_INET, SOCK_STREAM, 0);
                let _ = found.as_mut().map(|found| found.sort_unstable());
                found
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| log.note("localhost", task.join()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    log.io("connect", TcpStream::connect(("localhost", port)).map(drop));
}
