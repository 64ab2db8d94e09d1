//! Look-ups of greenlets, beside the answers of the C library.

mod threads;

use std::ffi::{CStr, c_char, c_void};
use std::mem::{transmute, zeroed};
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use greenling_shims::runtime::Wake;
use libc::{addrinfo, c_int, hostent, sockaddr_in, socklen_t};
use threads::{Counts, counts, green, patch, script};

unsafe extern "C" {
    fn gethostbyname(name: *const c_char) -> *mut hostent;
    fn gethostbyaddr(address: *const c_void, bytes: socklen_t, family: c_int) -> *mut hostent;
    fn gethostbyname_r(
        name: *const c_char,
        entry: *mut hostent,
        buffer: *mut c_char,
        bytes: usize,
        result: *mut *mut hostent,
        h_errno: *mut c_int,
    ) -> c_int;
    safe fn __h_errno_location() -> *mut c_int;
}

/// Counts what is given back.
static FREED: AtomicU32 = AtomicU32::new(0);

/// In the way of the C library's function, as the shims are.
#[unsafe(no_mangle)]
unsafe extern "C" fn freeaddrinfo(list: *mut addrinfo) {
    FREED.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the C library's function has this type, and the list is its own.
    unsafe {
        let real = libc::dlsym(libc::RTLD_NEXT, c"freeaddrinfo".as_ptr());
        transmute::<*mut c_void, unsafe extern "C" fn(*mut addrinfo)>(real)(list);
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// getaddrinfo's answer, its addresses as bytes.
fn lookup(node: Option<&CStr>, service: Option<&CStr>, flags: c_int) -> (c_int, Vec<Vec<u8>>) {
    // SAFETY: all zeros are valid hints; strings and hints are alive; the list is walked and
    // freed once.
    unsafe {
        let mut hints: addrinfo = zeroed();
        hints.ai_flags = flags;
        hints.ai_socktype = libc::SOCK_STREAM;
        let mut list = null_mut();
        let pointer = |string: Option<&CStr>| string.map_or(null(), CStr::as_ptr);
        let code = libc::getaddrinfo(pointer(node), pointer(service), &hints, &mut list);
        let mut found = Vec::new();
        let mut next: *mut addrinfo = if code == 0 { list } else { null_mut() };
        while let Some(item) = next.as_ref() {
            let bytes = item.ai_addrlen as usize;
            found.push(std::slice::from_raw_parts(item.ai_addr.cast::<u8>(), bytes).to_vec());
            next = item.ai_next;
        }
        if code == 0 {
            libc::freeaddrinfo(list);
        }
        (code, found)
    }
}

fn name(address: *const hostent) -> Option<(String, Vec<[u8; 4]>)> {
    // SAFETY: the entry is null or an answer with addresses of IPv4.
    unsafe {
        let entry = address.as_ref()?;
        let mut addresses = Vec::new();
        let mut next = entry.h_addr_list;
        while !(*next).is_null() {
            addresses.push((*next).cast::<[u8; 4]>().read());
            next = next.add(1);
        }
        Some((CStr::from_ptr(entry.h_name).to_str().unwrap().to_owned(), addresses))
    }
}

fn only_offloads(offloads: u32) -> Counts {
    Counts { offloads, ..Counts::NONE }
}

/// One test, since all look-ups of the process are counted.
#[test]
fn lookups() {
    patch();
    a_name_is_looked_up_elsewhere_with_the_same_answer();
    an_address_is_its_own_answer();
    a_killed_lookup_leaves_nothing_behind();
    names_of_addresses_are_the_same();
    the_older_functions_answer_the_same();
    std_lookups_end_in_the_shim();
}

fn a_name_is_looked_up_elsewhere_with_the_same_answer() {
    for (service, flags) in [(None, 0), (Some(c"80"), libc::AI_CANONNAME), (Some(c"no-such"), 0)] {
        let ask = move || (lookup(Some(c"localhost"), service, flags), counts());
        let (plain, _) = ask();
        assert_eq!(green(ask), (plain, only_offloads(1)));
    }
    assert_eq!(lookup(Some(c"localhost"), None, 0).0, 0);
    assert_eq!(lookup(Some(c"localhost"), Some(c"no-such"), 0).0, libc::EAI_SERVICE);
}

fn an_address_is_its_own_answer() {
    let ask = || {
        let answers = [
            lookup(Some(c"127.0.0.1"), Some(c"80"), 0),
            lookup(Some(c"::1"), None, 0),
            lookup(None, Some(c"80"), libc::AI_PASSIVE),
            lookup(Some(c"localhost"), None, libc::AI_NUMERICHOST),
            lookup(Some(c"127.0.0.1"), Some(c"x"), libc::AI_NUMERICSERV),
            lookup(None, None, 0),
        ];
        (answers, counts())
    };
    let (plain, _) = ask();
    assert_eq!(plain.each_ref().map(|answer| answer.0)[..3], [0; 3]);
    assert_eq!(green(ask), (plain, Counts::NONE));
}

fn a_killed_lookup_leaves_nothing_behind() {
    for (wake, error) in [(Wake::Killed, libc::ECANCELED), (Wake::Expired, libc::ETIMEDOUT)] {
        let before = FREED.load(Ordering::SeqCst);
        green(move || {
            script(wake);
            assert_eq!(lookup(Some(c"localhost"), None, 0), (libc::EAI_SYSTEM, vec![]));
            assert_eq!(errno(), error);
            script(wake);
            // SAFETY: the name is a C string, and h_errno the thread's own.
            unsafe {
                assert!(gethostbyname(c"localhost".as_ptr()).is_null());
                assert_eq!((errno(), *__h_errno_location()), (error, 2));
            }
        });
        // The job finds its answer some time later, and gives it back.
        while FREED.load(Ordering::SeqCst) == before {
            thread::yield_now();
        }
        assert_eq!(FREED.load(Ordering::SeqCst), before + 1);
    }
}

fn names_of_addresses_are_the_same() {
    let ask = |flags: c_int, host_bytes: usize| {
        let (mut host, mut service) = (vec![0u8; host_bytes], vec![0u8; 32]);
        // SAFETY: all zeros is a valid address; buffers and lengths agree.
        let code = unsafe {
            let mut address: sockaddr_in = zeroed();
            address.sin_family = libc::AF_INET as u16;
            address.sin_port = 80u16.to_be();
            address.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
            libc::getnameinfo(
                (&raw const address).cast(),
                size_of::<sockaddr_in>() as socklen_t,
                host.as_mut_ptr().cast(),
                host.len() as socklen_t,
                service.as_mut_ptr().cast(),
                service.len() as socklen_t,
                flags,
            )
        };
        let text = |bytes: &[u8]| CStr::from_bytes_until_nul(bytes).unwrap().to_owned();
        (code, (code == 0).then(|| (text(&host), text(&service))))
    };
    for (flags, bytes, offloads) in
        [(0, 256, 1), (libc::NI_NUMERICHOST, 256, 0), (0, 2, 1), (libc::NI_NUMERICSERV, 256, 1)]
    {
        let plain = ask(flags, bytes);
        assert_eq!(green(move || (ask(flags, bytes), counts())), (plain, only_offloads(offloads)));
    }
}

fn the_older_functions_answer_the_same() {
    let ask = || {
        // SAFETY: names, addresses and buffers are alive and as long as is said.
        unsafe {
            let by_name = name(gethostbyname(c"localhost".as_ptr()));
            let address = [127u8, 0, 0, 1];
            let by_address = name(gethostbyaddr(address.as_ptr().cast(), 4, libc::AF_INET));
            let reentrant = [8, 1024].map(|bytes| {
                let (mut buffer, mut result, mut h_errno) = (vec![0u8; bytes], null_mut(), 0);
                let (mut entry, buffer) = (zeroed::<hostent>(), buffer.as_mut_ptr().cast());
                let localhost = c"localhost".as_ptr();
                let code = gethostbyname_r(
                    localhost,
                    &mut entry,
                    buffer,
                    bytes,
                    &mut result,
                    &mut h_errno,
                );
                (code, name(result))
            });
            (by_name, by_address, reentrant)
        }
    };
    let plain = ask();
    assert_eq!(plain.0.as_ref().map(|host| &host.0[..]), Some("localhost"));
    assert_eq!((plain.2[0].0, plain.2[1].0), (libc::ERANGE, 0));
    assert_eq!(green(move || (ask(), counts())), (plain, only_offloads(4)));
}

fn std_lookups_end_in_the_shim() {
    let found = green(|| {
        let found: Vec<_> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert_eq!(counts(), only_offloads(1));
        found
    });
    assert!(found.iter().any(|address| address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)));
}
