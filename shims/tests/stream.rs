//! Receiving from and sending to stream sockets: what parks, what comes back, and which errno.
#![allow(missing_docs, clippy::undocumented_unsafe_blocks)]

mod common;

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::*;
use greenling_shims::TABLE;
use greenling_shims::runtime::{Direction, Wake};

#[test]
fn std_and_the_table_reach_the_same_functions() {
    let address = |name| TABLE.iter().find(|row| row.name == name).expect("a row").shim.get();
    assert_eq!(address("recv"), libc::recv as *const () as usize);
    assert_eq!(address("write"), libc::write as *const () as usize);
    assert_eq!(address("fcntl"), libc::fcntl as *const () as usize);
    for row in TABLE {
        let name = std::ffi::CString::new(row.name).expect("a name");
        assert!(!row.doc.is_empty() && row.shim.get() != 0, "{name:?}");
    }
}

#[test]
fn a_read_parks_until_bytes_come_and_keeps_errno() {
    let (mut client, mut server) = tcp_pair();
    let (fd, read) = (client.as_raw_fd(), Direction::Read);
    let asked = green(|| {
        at_next_wait(move || {
            server.write_all(b"abc").expect("sent");
            settle(fd, libc::POLLIN);
            std::mem::forget(server);
        });
        unsafe { *libc::__errno_location() = libc::EXDEV };
        let mut buffer = [0; 8];
        assert_eq!(client.read(&mut buffer).expect("read"), 3);
        assert_eq!(&buffer[..3], b"abc");
        assert_eq!(errno(), libc::EXDEV);
    });
    assert_eq!(asked, [Call::Wait(fd, read)]);
}

#[test]
fn after_a_short_read_the_next_one_waits_without_a_try() {
    let (mut client, mut server) = tcp_pair();
    let (fd, read) = (client.as_raw_fd(), Direction::Read);
    server.write_all(b"abc").expect("sent");
    settle(fd, libc::POLLIN);
    let asked = green(|| {
        assert_eq!(client.read(&mut [0; 8]).expect("read"), 3);
        at_next_wait(move || {
            server.write_all(b"defgh").expect("sent");
            settle(fd, libc::POLLIN);
            std::mem::forget(server);
        });
        assert_eq!(client.read(&mut [0; 3]).expect("read"), 3);
        // That read was not short.
        assert_eq!(client.read(&mut [0; 8]).expect("read"), 2);
    });
    assert_eq!(asked, [Call::WaitAfterShortage(fd, read)]);
}

#[test]
fn only_a_short_tcp_read_proves_that_nothing_is_left() {
    let (client, mut server) = tcp_pair();
    let (unix, mut peer) = UnixStream::pair().expect("a pair");
    server.write_all(b"abcdef").expect("sent");
    peer.write_all(b"abcdef").expect("sent");
    settle(client.as_raw_fd(), libc::POLLIN);
    let mut buffer = [0_u8; 8];
    let at = buffer.as_mut_ptr().cast();
    // Whether a receive is short: then the next one waits, for it does not try.
    let short = |fd, bytes, flags| {
        let asked = green(|| {
            assert!(unsafe { libc::recv(fd, at, bytes, flags) } > 0);
            let before = waits(&calls());
            assert_eq!(before, 0);
            next_wait_ends(Wake::Closed);
            unsafe { libc::recv(fd, at, 1, libc::MSG_PEEK) };
            let _ = unscripted();
        });
        matches!(asked[..], [Call::WaitAfterShortage(..)])
    };
    let fd = client.as_raw_fd();
    assert!(!short(fd, 8, libc::MSG_PEEK));
    assert!(!short(fd, 3, 0));
    assert!(short(fd, 8, 0));
    assert!(!short(unix.as_raw_fd(), 8, 0));
}

#[test]
fn the_end_of_a_stream_is_no_shortage() {
    let (mut client, server) = tcp_pair();
    drop(server);
    let asked = green(|| {
        assert_eq!(client.read(&mut [0; 8]).expect("the end"), 0);
        assert_eq!(client.read(&mut [0; 8]).expect("the end"), 0);
    });
    assert!(asked.iter().all(|call| !matches!(call, Call::WaitAfterShortage(..))));
}

#[test]
fn the_end_of_a_wait_becomes_the_errno_it_stands_for() {
    let (client, server) = tcp_pair();
    let fd = client.as_raw_fd();
    let expected = [
        (Wake::TimedOut, libc::EAGAIN),
        (Wake::Closed, libc::EBADF),
        (Wake::Killed, libc::ECANCELED),
        (Wake::Expired, libc::ETIMEDOUT),
    ];
    for (wake, error) in expected {
        let mut buffer = [0_u8; 8];
        let at = buffer.as_mut_ptr().cast();
        green(|| {
            next_wait_ends(wake);
            assert_eq!(failed(unsafe { libc::recv(fd, at, 8, 0) }), error);
            next_wait_ends(wake);
            assert_eq!(failed(unsafe { libc::read(fd, at, 8) }), error);
        });
    }
    drop(server);
}

#[test]
fn what_its_user_made_nonblocking_never_parks() {
    let (mut client, _server) = tcp_pair();
    let fd = client.as_raw_fd();
    let asked = green(|| {
        let mut buffer = [0_u8; 8];
        let at = buffer.as_mut_ptr().cast();
        assert_eq!(failed(unsafe { libc::recv(fd, at, 8, libc::MSG_DONTWAIT) }), libc::EAGAIN);
        client.set_nonblocking(true).expect("set");
        assert_eq!(failed(unsafe { libc::recv(fd, at, 8, 0) }), libc::EAGAIN);
        assert_eq!(client.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        let vectors = &mut [IoSliceMut::new(&mut buffer)];
        assert!(client.read_vectored(vectors).is_err());
    });
    assert_eq!(asked, []);
}

#[test]
fn a_duplicate_shares_o_nonblock() {
    let (client, _server) = tcp_pair();
    let asked = green(|| {
        let mut copy = client.try_clone().expect("a duplicate");
        client.set_nonblocking(true).expect("set");
        assert!(copy.read(&mut [0; 8]).is_err());
        std::mem::forget(copy);
    });
    assert_eq!(waits(&asked), 0);
}

#[test]
fn o_nonblock_of_a_socket_that_others_may_share_is_asked_for_before_a_wait() {
    let (client, _server) = tcp_pair();
    // A number that no shim has seen: as if inherited.
    let copy = raw_call(libc::SYS_dup, client.as_raw_fd() as usize, 0, 0) as i32;
    let mut client = unsafe { std::net::TcpStream::from_raw_fd(copy) };
    let set_flags = |flags: i32| {
        // As another process that shares the socket would.
        raw_call(libc::SYS_fcntl, copy as usize, libc::F_SETFL as usize, flags as usize);
    };
    green(|| {
        for _ in 0..2 {
            next_wait_ends(Wake::Killed);
            let error = client.read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
            set_flags(libc::O_RDWR | libc::O_NONBLOCK);
            let error = client.read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
            set_flags(libc::O_RDWR);
        }
    });
}

/// A system call that no shim sees.
fn raw_call(number: i64, first: usize, second: usize, third: usize) -> usize {
    let answer;
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") first => answer,
            in("x1") second,
            in("x2") third,
        );
    }
    answer
}

#[test]
fn a_receive_timeout_is_one_deadline_that_ends_in_eagain() {
    let (mut client, _server) = tcp_pair();
    let fd = client.as_raw_fd();
    let asked = green(|| {
        client.set_read_timeout(Some(SHORT)).expect("set");
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        client.set_read_timeout(None).expect("set");
        next_wait_ends(Wake::Killed);
        assert!(client.read(&mut [0; 8]).is_err());
    });
    let read = Direction::Read;
    assert_eq!(asked, [Call::WaitUntil(fd, read), Call::Wait(fd, read)]);
}

#[test]
fn timeouts_belong_to_all_duplicates_and_are_learned_of_unknown_ones() {
    let (mut client, _server) = tcp_pair();
    let asked = green(|| {
        let copy = client.try_clone().expect("a duplicate");
        copy.set_read_timeout(Some(SHORT)).expect("set");
        assert!(client.read(&mut [0; 8]).is_err());
        // A number that no shim has seen: as if inherited.
        let copy = raw_call(libc::SYS_dup, client.as_raw_fd() as usize, 0, 0) as i32;
        let mut unknown = unsafe { std::net::TcpStream::from_raw_fd(copy) };
        assert!(unknown.read(&mut [0; 8]).is_err());
    });
    let timed = |call: &&Call| matches!(call, Call::WaitUntil(..));
    assert_eq!(asked.iter().filter(timed).count(), 2);
}

#[test]
fn waitall_fills_the_buffer_or_answers_what_came_before_the_end() {
    let (client, mut server) = tcp_pair();
    let fd = client.as_raw_fd();
    let mut buffer = [0_u8; 6];
    let at = buffer.as_mut_ptr().cast();
    server.write_all(b"ab").expect("sent");
    settle(fd, libc::POLLIN);
    let mut second = server.try_clone().expect("a duplicate");
    green(|| {
        at_next_wait(move || second.write_all(b"cdef").expect("sent"));
        assert_eq!(unsafe { libc::recv(fd, at, 6, libc::MSG_WAITALL) }, 6);
    });
    assert_eq!(&buffer, b"abcdef");

    server.write_all(b"gh").expect("sent");
    settle(fd, libc::POLLIN);
    let at = buffer.as_mut_ptr().cast();
    green(|| {
        next_wait_ends(Wake::Killed);
        assert_eq!(unsafe { libc::recv(fd, at, 6, libc::MSG_WAITALL) }, 2);
        next_wait_ends(Wake::Killed);
        let answer = unsafe { libc::recv(fd, at, 6, libc::MSG_WAITALL) };
        assert_eq!(failed(answer), libc::ECANCELED);
    });
    server.write_all(b"ij").expect("sent");
    drop(server);
    green(|| assert_eq!(unsafe { libc::recv(fd, at, 6, libc::MSG_WAITALL) }, 2));
}

#[test]
fn waitall_with_peek_takes_nothing_and_sees_the_end() {
    let (client, mut server) = tcp_pair();
    let fd = client.as_raw_fd();
    let flags = libc::MSG_WAITALL | libc::MSG_PEEK;
    let mut buffer = [0_u8; 4];
    let at = buffer.as_mut_ptr().cast();
    server.write_all(b"ab").expect("sent");
    settle(fd, libc::POLLIN);
    let mut second = server.try_clone().expect("a duplicate");
    green(|| {
        at_next_wait(move || second.write_all(b"cd").expect("sent"));
        assert_eq!(unsafe { libc::recv(fd, at, 4, flags) }, 4);
        assert_eq!(unsafe { libc::recv(fd, at, 3, 0) }, 3);
    });
    drop(server);
    settle(fd, libc::POLLRDHUP);
    green(|| assert_eq!(unsafe { libc::recv(fd, at, 4, flags) }, 1));
}

#[test]
fn waitall_of_a_message_goes_on_in_the_middle_of_a_vector() {
    let (client, mut server) = tcp_pair();
    let fd = client.as_raw_fd();
    let (mut one, mut two) = ([0_u8; 3], [0_u8; 3]);
    let mut vectors = [
        libc::iovec { iov_base: one.as_mut_ptr().cast(), iov_len: 3 },
        libc::iovec { iov_base: two.as_mut_ptr().cast(), iov_len: 3 },
    ];
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = 2;
    server.write_all(b"abcd").expect("sent");
    settle(fd, libc::POLLIN);
    green(|| {
        at_next_wait(move || server.write_all(b"ef").expect("sent"));
        assert_eq!(unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_WAITALL) }, 6);
    });
    assert_eq!((&one, &two), (b"abc", b"def"));
}

#[test]
fn a_blocking_send_sends_everything_to_a_slow_reader() {
    let (client, mut server) = tcp_pair();
    let bytes: Vec<u8> = (0..8 << 20).map(|index: u32| (index % 251) as u8).collect();
    let (full, is_full) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        is_full.recv().expect("told");
        let mut all = Vec::new();
        server.read_to_end(&mut all).expect("read");
        all
    });
    let asked = green(|| {
        // The reader begins when the first part has filled the socket.
        at_next_wait(move || full.send(()).expect("told"));
        let at = bytes.as_ptr().cast();
        assert_eq!(unsafe { libc::send(client.as_raw_fd(), at, bytes.len(), 0) }, 8 << 20);
        let sent = unsafe { libc::write(client.as_raw_fd(), at, bytes.len()) };
        assert_eq!(sent, 8 << 20);
        client.shutdown(Shutdown::Write).expect("shut down");
    });
    assert!(waits(&asked) > 0);
    let all = reader.join().expect("the reader");
    assert_eq!(all.len(), 16 << 20);
    assert!(all[..8 << 20] == bytes[..] && all[8 << 20..] == bytes[..]);
}

#[test]
fn many_vectors_larger_than_the_socket_buffer_arrive_in_order() {
    let (mut client, mut server) = tcp_pair();
    let parts: Vec<Vec<u8>> = (0..1000).map(|index| vec![index as u8; 7000 + index]).collect();
    let expected: Vec<u8> = parts.concat();
    let length = expected.len();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        server.read_to_end(&mut all).expect("read");
        all
    });
    green(|| {
        let vectors: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        assert_eq!(client.write_vectored(&vectors).expect("written"), length);
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_ptr().cast_mut().cast();
        message.msg_iovlen = vectors.len();
        let sent = unsafe { libc::sendmsg(client.as_raw_fd(), &raw const message, 0) };
        assert_eq!(sent, length as isize);
        client.shutdown(Shutdown::Write).expect("shut down");
    });
    let all = reader.join().expect("the reader");
    assert!(all[..length] == expected[..] && all[length..] == expected[..]);
}

#[test]
fn a_send_that_is_cut_short_answers_what_was_sent() {
    for wake in [Wake::TimedOut, Wake::Killed, Wake::Expired, Wake::Closed] {
        let (client, _server) = tcp_pair();
        let bytes = vec![0_u8; 32 << 20];
        green(|| {
            next_wait_ends(wake);
            let at = bytes.as_ptr().cast();
            let sent = unsafe { libc::send(client.as_raw_fd(), at, bytes.len(), 0) };
            assert!(sent > 0 && sent < 32 << 20, "{wake:?}: {sent}");
            // Now nothing fits, so nothing is sent before the wait ends.
            next_wait_ends(Wake::Killed);
            let answer = unsafe { libc::send(client.as_raw_fd(), at, bytes.len(), 0) };
            assert_eq!(failed(answer), libc::ECANCELED);
        });
    }
}

#[test]
fn a_send_timeout_ends_in_a_count_and_then_in_eagain() {
    let (client, _server) = tcp_pair();
    let bytes = vec![0_u8; 32 << 20];
    let fd = client.as_raw_fd();
    green(|| {
        client.set_write_timeout(Some(SHORT)).expect("set");
        let at = bytes.as_ptr().cast();
        let mut sent = 1;
        while sent > 0 {
            sent = unsafe { libc::send(fd, at, bytes.len(), 0) };
            assert!(sent < 32 << 20);
        }
        assert_eq!(failed(sent), libc::EAGAIN);
    });
}

#[test]
fn nothing_is_read_and_written_without_waiting() {
    let (mut client, _server) = tcp_pair();
    let fd = client.as_raw_fd();
    let asked = green(|| {
        assert_eq!(unsafe { libc::read(fd, std::ptr::null_mut(), 0) }, 0);
        assert_eq!(client.read_vectored(&mut [IoSliceMut::new(&mut [])]).expect("nothing"), 0);
        assert_eq!(client.write(&[]).expect("nothing"), 0);
        assert_eq!(client.write_vectored(&[IoSlice::new(&[])]).expect("nothing"), 0);
        assert_eq!(unsafe { libc::writev(fd, std::ptr::null(), 0) }, 0);
        assert_eq!(failed(unsafe { libc::writev(fd, std::ptr::null(), -1) }), libc::EINVAL);
        assert_eq!(failed(unsafe { libc::readv(fd, std::ptr::null(), 2000) }), libc::EINVAL);
    });
    assert_eq!(waits(&asked), 0);
}

#[test]
fn bad_arguments_get_the_kernels_answer() {
    let (client, mut server) = tcp_pair();
    server.write_all(b"x").expect("sent");
    settle(client.as_raw_fd(), libc::POLLIN);
    let fd = client.as_raw_fd();
    let bad = 8 as *mut libc::c_void;
    green(|| unsafe {
        assert_eq!(failed(libc::recv(fd, bad, 8, 0)), libc::EFAULT);
        assert_eq!(failed(libc::readv(fd, bad.cast(), 2)), libc::EFAULT);
        assert_eq!(failed(libc::writev(fd, bad.cast(), 2)), libc::EFAULT);
        assert_eq!(failed(libc::sendmsg(fd, bad.cast(), 0)), libc::EFAULT);
        assert_eq!(failed(libc::recvmsg(fd, bad.cast(), 0)), libc::EFAULT);
        for fd in [-1, 1 << 19, 1 << 25] {
            assert_eq!(failed(libc::recv(fd, bad, 8, 0)), libc::EBADF);
            assert_eq!(failed(libc::write(fd, bad, 8)), libc::EBADF);
        }
    });
}

static PIPE_SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_pipe_signal(_: i32) {
    PIPE_SIGNALS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn write_raises_sigpipe_and_send_with_nosignal_does_not() {
    let (client, server) = UnixStream::pair().expect("a pair");
    let fd = client.as_raw_fd();
    drop(server);
    let handler = on_pipe_signal as *const () as usize;
    let before = unsafe { libc::signal(libc::SIGPIPE, handler) };
    green(|| unsafe {
        let at = b"x".as_ptr().cast();
        assert_eq!(failed(libc::send(fd, at, 1, libc::MSG_NOSIGNAL)), libc::EPIPE);
        assert_eq!(PIPE_SIGNALS.load(Ordering::Relaxed), 0);
        assert_eq!(failed(libc::write(fd, at, 1)), libc::EPIPE);
        assert_eq!(PIPE_SIGNALS.load(Ordering::Relaxed), 1);
        let vector = libc::iovec { iov_base: at.cast_mut(), iov_len: 1 };
        assert_eq!(failed(libc::writev(fd, &raw const vector, 1)), libc::EPIPE);
        assert_eq!(PIPE_SIGNALS.load(Ordering::Relaxed), 2);
    });
    // A write that moved bytes before the peer left answers their number and raises nothing.
    let (client, server) = UnixStream::pair().expect("a pair");
    let bytes = vec![0_u8; 32 << 20];
    green(|| {
        at_next_wait(move || drop(server));
        let fd = client.as_raw_fd();
        // Not by std, which sends with MSG_NOSIGNAL.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        assert!(written > 0 && written < 32 << 20);
        assert_eq!(PIPE_SIGNALS.load(Ordering::Relaxed), 2);
    });
    unsafe { libc::signal(libc::SIGPIPE, before) };
}

#[test]
fn out_of_band_bytes_never_wait() {
    let (client, _server) = tcp_pair();
    let mut byte = 0_u8;
    let at = (&raw mut byte).cast();
    let asked = green(|| {
        let answer = unsafe { libc::recv(client.as_raw_fd(), at, 1, libc::MSG_OOB) };
        assert_eq!(failed(answer), libc::EINVAL);
    });
    assert_eq!(waits(&asked), 0);
}

#[test]
fn files_and_pipes_pass_through() {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    let asked = green(|| {
        writer.write_all(b"abc").expect("written");
        assert_eq!(reader.read(&mut [0; 8]).expect("read"), 3);
        let mut file = std::fs::File::open("/dev/zero").expect("open");
        assert_eq!(file.read(&mut [1; 8]).expect("read"), 8);
        let mut byte = 0_u8;
        let at = (&raw mut byte).cast();
        let answer = unsafe { libc::recv(file.as_raw_fd(), at, 1, 0) };
        assert_eq!(failed(answer), libc::ENOTSOCK);
    });
    assert_eq!(waits(&asked), 0);
}
