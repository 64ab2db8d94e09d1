//! libc's calls where std has no form of them: the same symbols that std's own calls end in.

use std::ffi::CStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

use libc::{c_int, pollfd};
use socket2::SockAddr;

/// The error in errno if `result` is negative.
pub(crate) fn cvt(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// recv(2).
pub(crate) fn recv(fd: RawFd, buffer: &mut [u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the buffer is as long as is said.
    cvt(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// recvfrom(2) that asks for a name; tells the size that the kernel answers.
pub(crate) fn recvfrom(fd: RawFd, buffer: &mut [u8], flags: c_int) -> io::Result<(usize, u32)> {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    let mut bytes = size_of_val(&name) as libc::socklen_t;
    let (name, length) = ((&raw mut name).cast(), buffer.len());
    // SAFETY: the buffer and the name are as long as is said.
    let done = cvt(unsafe {
        libc::recvfrom(fd, buffer.as_mut_ptr().cast(), length, flags, name, &mut bytes)
    })?;
    Ok((done, bytes))
}

/// send(2).
pub(crate) fn send(fd: RawFd, buffer: &[u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the buffer is as long as is said.
    cvt(unsafe { libc::send(fd, buffer.as_ptr().cast(), buffer.len(), flags) })
}

/// sendto(2).
pub(crate) fn sendto(fd: RawFd, buffer: &[u8], flags: c_int, to: SocketAddr) -> io::Result<usize> {
    let to = SockAddr::from(to);
    let (data, length) = (buffer.as_ptr().cast(), buffer.len());
    // SAFETY: the buffer and the name are as long as is said.
    cvt(unsafe { libc::sendto(fd, data, length, flags, to.as_ptr().cast(), to.len()) })
}

/// read(2).
pub(crate) fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is as long as is said.
    cvt(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// write(2).
pub(crate) fn write(fd: RawFd, buffer: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer is as long as is said.
    cvt(unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) })
}

/// readv(2), without std's limit on the number of pieces.
pub(crate) fn readv(fd: RawFd, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    // SAFETY: IoSliceMut has the layout of iovec.
    cvt(unsafe { libc::readv(fd, pieces.as_mut_ptr().cast(), pieces.len() as c_int) })
}

/// writev(2), without std's limit on the number of pieces.
pub(crate) fn writev(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: IoSlice has the layout of iovec.
    cvt(unsafe { libc::writev(fd, pieces.as_ptr().cast(), pieces.len() as c_int) })
}

/// sendmsg(2) of `pieces`, with `fds` as `SCM_RIGHTS`.
pub(crate) fn sendmsg(
    fd: RawFd,
    pieces: &[IoSlice<'_>],
    fds: &[RawFd],
    flags: c_int,
) -> io::Result<usize> {
    let mut control = [0u64; 16];
    // SAFETY: all zeroes is an empty message; the control buffer is aligned and large enough for
    // the few fds of a test, which the assertion checks.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = pieces.as_ptr().cast_mut().cast();
        message.msg_iovlen = pieces.len();
        if !fds.is_empty() {
            let bytes = size_of_val(fds) as u32;
            assert!(libc::CMSG_SPACE(bytes) as usize <= size_of_val(&control));
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as usize;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            data.copy_from_nonoverlapping(fds.as_ptr(), fds.len());
        }
        cvt(libc::sendmsg(fd, &message, flags))
    }
}

/// What recvmsg(2) found.
#[derive(Debug)]
pub(crate) struct Received {
    /// How many bytes.
    pub(crate) bytes: usize,
    /// `msg_flags`.
    pub(crate) flags: c_int,
    /// The fds that came along.
    pub(crate) fds: Vec<OwnedFd>,
}

/// recvmsg(2) with room for `fds_max` fds.
pub(crate) fn recvmsg(
    fd: RawFd,
    pieces: &mut [IoSliceMut<'_>],
    fds_max: usize,
    flags: c_int,
) -> io::Result<Received> {
    let mut control = [0u64; 16];
    // SAFETY: all zeroes is an empty message; the control buffer is aligned and as long as is
    // said; what is read of it the kernel has written.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = pieces.as_mut_ptr().cast();
        message.msg_iovlen = pieces.len();
        if fds_max > 0 {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen =
                libc::CMSG_SPACE((fds_max * size_of::<RawFd>()) as u32) as usize;
            assert!(message.msg_controllen <= size_of_val(&control));
        }
        let bytes = cvt(libc::recvmsg(fd, &mut message, flags))?;
        let mut fds = Vec::new();
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(found) = header.as_ref() {
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            let count = (found.cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
            for index in 0..count {
                fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        Ok(Received { bytes, flags: message.msg_flags, fds })
    }
}

/// poll(2): the answer, and what is reported of each fd.
pub(crate) fn poll(fds: &[(RawFd, i16)], timeout_ms: c_int) -> io::Result<(usize, Vec<i16>)> {
    let mut entries: Vec<pollfd> =
        fds.iter().map(|&(fd, events)| pollfd { fd, events, revents: 0 }).collect();
    let count = entries.len() as libc::nfds_t;
    // SAFETY: the entries are as many as is said.
    let ready = cvt(unsafe { libc::poll(entries.as_mut_ptr(), count, timeout_ms) } as isize)?;
    Ok((ready, entries.iter().map(|entry| entry.revents).collect()))
}

/// ppoll(2) without a mask.
pub(crate) fn ppoll(
    fds: &[(RawFd, i16)],
    timeout: Option<libc::timespec>,
) -> io::Result<(usize, Vec<i16>)> {
    let mut entries: Vec<pollfd> =
        fds.iter().map(|&(fd, events)| pollfd { fd, events, revents: 0 }).collect();
    let count = entries.len() as libc::nfds_t;
    let time = timeout.as_ref().map_or(std::ptr::null(), |time| time as *const libc::timespec);
    // SAFETY: the entries are as many as is said, the time is null or a local, there is no mask.
    let ready =
        cvt(unsafe { libc::ppoll(entries.as_mut_ptr(), count, time, std::ptr::null()) } as isize)?;
    Ok((ready, entries.iter().map(|entry| entry.revents).collect()))
}

/// fcntl(2) with a number, or with none where the command takes none.
pub(crate) fn fcntl(fd: RawFd, command: c_int, argument: c_int) -> io::Result<usize> {
    // SAFETY: for the commands of these tests the argument is a number.
    cvt(unsafe { libc::fcntl(fd, command, argument) } as isize)
}

/// The flags of F_GETFL that a user may have set.
pub(crate) fn status_flags(fd: RawFd) -> io::Result<String> {
    let flags = fcntl(fd, libc::F_GETFL, 0)? as c_int;
    let nonblocking = flags & libc::O_NONBLOCK != 0;
    Ok(format!("access {} nonblocking {nonblocking}", flags & libc::O_ACCMODE))
}

/// socket(2).
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the fd is fresh.
    unsafe {
        let fd = cvt(libc::socket(domain, kind, protocol) as isize)?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// socketpair(2).
pub(crate) fn socketpair(kind: c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    // SAFETY: room for two; the fds are fresh.
    unsafe {
        cvt(libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) as isize)?;
        Ok((OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])))
    }
}

/// connect(2).
pub(crate) fn connect(fd: RawFd, to: SocketAddr) -> io::Result<usize> {
    let to = SockAddr::from(to);
    // SAFETY: the name is as long as is said.
    cvt(unsafe { libc::connect(fd, to.as_ptr().cast(), to.len()) } as isize)
}

/// accept4(2) without a name.
pub(crate) fn accept4(fd: RawFd, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no name is asked for; the fd is fresh.
    unsafe {
        let fd = cvt(libc::accept4(fd, null_mut(), null_mut(), flags) as isize)?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// accept(2) without a name.
pub(crate) fn accept(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no name is asked for; the fd is fresh.
    unsafe {
        let fd = cvt(libc::accept(fd, null_mut(), null_mut()) as isize)?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// setsockopt(2) of SOL_SOCKET.
pub(crate) fn set_option<T>(fd: RawFd, name: c_int, value: T) -> io::Result<usize> {
    let bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is as long as is said.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const value).cast(), bytes) };
    cvt(result as isize)
}

/// shutdown(2).
pub(crate) fn shutdown(fd: RawFd, how: c_int) -> io::Result<usize> {
    // SAFETY: no pointers.
    cvt(unsafe { libc::shutdown(fd, how) } as isize)
}

/// A duplicate of `fd` with a number of at least `lowest`: tests that go on with the number after
/// it was closed must not meet another's fd there.
pub(crate) fn dup_above(fd: &impl AsRawFd, lowest: RawFd) -> io::Result<RawFd> {
    fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest).map(|fd| fd as RawFd)
}

/// dup2(2).
pub(crate) fn dup2(old: RawFd, new: RawFd) -> io::Result<usize> {
    // SAFETY: no pointers. Whoever owns the numbers is the test's business.
    cvt(unsafe { libc::dup2(old, new) } as isize)
}

/// dup3(2).
pub(crate) fn dup3(old: RawFd, new: RawFd, flags: c_int) -> io::Result<usize> {
    // SAFETY: as above.
    cvt(unsafe { libc::dup3(old, new, flags) } as isize)
}

/// close(2).
pub(crate) fn close(fd: RawFd) -> io::Result<usize> {
    // SAFETY: as above.
    cvt(unsafe { libc::close(fd) } as isize)
}

/// getaddrinfo(3): the code, errno if that is where the error is, and the addresses.
pub(crate) fn getaddrinfo(
    node: Option<&CStr>,
    service: Option<&CStr>,
    family: c_int,
    socktype: c_int,
    flags: c_int,
) -> Result<Vec<SocketAddr>, (c_int, Option<i32>)> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: all zeroes are hints that ask for nothing.
    let mut hints: libc::addrinfo = unsafe { zeroed() };
    hints.ai_family = family;
    hints.ai_socktype = socktype;
    hints.ai_flags = flags;
    let mut list = null_mut();
    // SAFETY: strings and hints outlive the call.
    let code = unsafe { libc::getaddrinfo(pointer(node), pointer(service), &hints, &mut list) };
    if code != 0 {
        let errno = io::Error::last_os_error().raw_os_error();
        return Err((code, errno.filter(|_| code == libc::EAI_SYSTEM)));
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: the list is getaddrinfo's, and each address is as long as it says.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: as above.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, bytes| {
                let length = entry.ai_addrlen as usize;
                storage.cast::<u8>().copy_from_nonoverlapping(entry.ai_addr.cast(), length);
                *bytes = entry.ai_addrlen;
                Ok(())
            })
        }
        .unwrap();
        found.extend(address.as_socket());
        next = entry.ai_next;
    }
    // SAFETY: the list is ours and not used any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}
