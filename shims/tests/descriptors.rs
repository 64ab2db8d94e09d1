//! close, dup and their relatives: who is told, and what is remembered.
#![allow(missing_docs, clippy::undocumented_unsafe_blocks)]

mod common;

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, IntoRawFd};

use common::*;
use greenling_shims::runtime::Wake;

#[test]
fn closing_tells_the_scheduler_once_and_a_second_close_fails() {
    let (client, _server) = tcp_pair();
    let fd = client.into_raw_fd();
    let asked = green(|| {
        assert_eq!(unsafe { libc::close(fd) }, 0);
    });
    assert_eq!(asked, [Call::Closing(fd)]);
    green(|| assert_eq!(failed(unsafe { libc::close(-1) } as isize), libc::EBADF));
}

#[test]
fn every_way_of_duplicating_is_told() {
    let (client, _server) = tcp_pair();
    let fd = client.as_raw_fd();
    let asked = green(|| unsafe {
        let made = [
            libc::dup(fd),
            libc::fcntl(fd, libc::F_DUPFD, 0),
            libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0),
        ];
        assert!(made.iter().all(|&new| new >= 0));
        let duplicated = made.map(|new| Call::Duplicated(fd, new));
        assert_eq!(calls(), duplicated);
        let new = made[0];
        assert_eq!(libc::dup2(fd, new), new);
        assert_eq!(calls(), [Call::Closing(new), Call::Duplicated(fd, new)]);
        assert_eq!(libc::dup3(fd, new, libc::O_CLOEXEC), new);
        assert_eq!(calls(), [Call::Closing(new), Call::Duplicated(fd, new)]);
        // What can't work touches nothing.
        assert_eq!(libc::dup2(fd, fd), fd);
        assert_eq!(failed(libc::dup2(-1, new) as isize), libc::EBADF);
        assert_eq!(failed(libc::dup2(-1, -1) as isize), libc::EBADF);
        assert_eq!(failed(libc::dup3(fd, fd, 0) as isize), libc::EINVAL);
        assert_eq!(failed(libc::dup3(fd, new, 1) as isize), libc::EINVAL);
        assert_eq!(calls(), []);
        made.iter().for_each(|&new| assert_eq!(libc::close(new), 0));
    });
    assert_eq!(asked.len(), 3);
}

#[test]
fn a_number_that_is_replaced_takes_over_the_new_state() {
    let (client, _server) = tcp_pair();
    let (mut other, _peer) = tcp_pair();
    let asked = green(|| {
        client.set_nonblocking(true).expect("set");
        let new = unsafe { libc::dup2(client.as_raw_fd(), other.as_raw_fd()) };
        assert_eq!(new, other.as_raw_fd());
        assert_eq!(other.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
    assert_eq!(waits(&asked), 0);
}

#[test]
fn the_books_are_kept_on_threads_without_a_hub() {
    let (client, _server) = tcp_pair();
    green(|| plain(|| client.set_nonblocking(true)).expect("set"));
    let mut copy = plain(|| client.try_clone()).expect("a duplicate");
    let asked = green(|| {
        assert_eq!(copy.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
    assert_eq!(waits(&asked), 0);
    // A close that is not seen would leave the flag to the next socket of that number.
    let fd = client.as_raw_fd();
    drop((client, copy));
    let next = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert!(fd >= 0 && next >= 0);
    assert_eq!(unsafe { libc::fcntl(next, libc::F_GETFL) } & libc::O_NONBLOCK, 0);
    unsafe { libc::close(next) };
}

#[test]
fn close_range_tells_of_each_known_fd() {
    let (client, _server) = tcp_pair();
    // High numbers, which no other test of this process has.
    let (first, last) = (700, 702);
    let asked = green(|| unsafe {
        for new in first..=last {
            assert_eq!(libc::dup2(client.as_raw_fd(), new), new);
        }
        calls();
        let keep = libc::CLOSE_RANGE_CLOEXEC as i32;
        assert_eq!(libc::close_range(first as u32, last as u32, keep), 0);
        assert_eq!(calls(), []);
        assert_eq!(libc::close_range(first as u32, last as u32, 0), 0);
    });
    assert_eq!(asked, [Call::Closing(700), Call::Closing(701), Call::Closing(702)]);
}

#[test]
fn an_fd_that_is_closed_during_a_wait_fails_with_ebadf() {
    let (mut client, _server) = tcp_pair();
    green(|| {
        next_wait_ends(Wake::Closed);
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
fn f_getown_of_a_process_group_is_negative() {
    let (client, _server) = tcp_pair();
    let group = unsafe { libc::getpgrp() };
    green(|| unsafe {
        assert_eq!(libc::fcntl(client.as_raw_fd(), libc::F_SETOWN, -group), 0);
        assert_eq!(libc::fcntl(client.as_raw_fd(), libc::F_GETOWN), -group);
    });
}

#[test]
fn a_forked_child_uses_its_fds_without_a_hub() {
    let (client, server) = tcp_pair();
    green(|| {
        // Only calls that are async-signal-safe, as between fork and exec.
        let child = unsafe { libc::fork() };
        if child == 0 {
            plain(|| unsafe {
                let copy = libc::dup2(client.as_raw_fd(), 600);
                let sent = libc::write(copy, b"abc".as_ptr().cast(), 3);
                libc::_exit(if sent == 3 && libc::close(copy) == 0 { 7 } else { 1 });
            });
        }
        let mut status = 0;
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 7);
        let mut server: TcpStream = server;
        assert_eq!(server.read(&mut [0; 8]).expect("read"), 3);
    });
}
