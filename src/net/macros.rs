//! What the types of sockets would otherwise repeat six times: the conversions between them, std's
//! types and fds, and the methods that mean the same for each. Each type is a struct with one
//! field, a `Socket` around std's type.

/// The traits by which a socket is an fd and is converted from and to std's type.
macro_rules! impl_conversions {
    ($type:ident, $std:ty) => {
        impl From<$std> for $type {
            /// Takes a socket over from std; it becomes nonblocking for the kernel.
            fn from(socket: $std) -> $type {
                $type { socket: $crate::net::socket::Socket::adopt(socket) }
            }
        }

        impl From<$type> for $std {
            /// Gives a socket back to std; it becomes blocking, unless `set_nonblocking` asked for
            /// the contrary.
            fn from(socket: $type) -> $std {
                socket.socket.release()
            }
        }

        impl From<std::os::fd::OwnedFd> for $type {
            /// Takes a socket over; it becomes nonblocking for the kernel.
            fn from(fd: std::os::fd::OwnedFd) -> $type {
                $type::from(<$std>::from(fd))
            }
        }

        impl From<$type> for std::os::fd::OwnedFd {
            /// Gives the socket away; it becomes blocking, as std's is.
            fn from(socket: $type) -> std::os::fd::OwnedFd {
                <$std>::from(socket).into()
            }
        }

        impl std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.socket.inner().as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $type {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(self.socket.inner())
            }
        }

        impl std::os::fd::IntoRawFd for $type {
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                std::os::fd::IntoRawFd::into_raw_fd(<$std>::from(self))
            }
        }

        impl std::os::fd::FromRawFd for $type {
            unsafe fn from_raw_fd(fd: std::os::fd::RawFd) -> $type {
                // SAFETY: the caller's promise is the same.
                $type::from(unsafe { <$std as std::os::fd::FromRawFd>::from_raw_fd(fd) })
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.socket.inner().fmt(f)
            }
        }
    };
}

/// The methods that every socket has.
macro_rules! socket_methods {
    ($type:ident, $std:ty) => {
        /// Another handle to the same socket. Timeouts and so on that are set through one hold for
        /// both, and either may be used while the other waits. See
        #[doc = concat!("[std's](", stringify!($std), "::try_clone).")]
        ///
        /// # Errors
        ///
        /// `EMFILE` or `ENFILE` if there are no fds left.
        pub fn try_clone(&self) -> std::io::Result<$type> {
            Ok($type { socket: self.socket.try_clone(<$std>::try_clone)? })
        }

        /// Takes the error that is pending on the socket (`SO_ERROR`). See
        #[doc = concat!("[std's](", stringify!($std), "::take_error).")]
        ///
        /// # Errors
        ///
        /// As std's.
        pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
            self.socket.inner().take_error()
        }

        /// Whether operations fail with [`WouldBlock`](std::io::ErrorKind::WouldBlock) instead of
        /// waiting. For the kernel the socket is nonblocking all the time. See
        #[doc = concat!("[std's](", stringify!($std), "::set_nonblocking).")]
        ///
        /// # Errors
        ///
        /// None; the signature is std's.
        pub fn set_nonblocking(&self, nonblocking: bool) -> std::io::Result<()> {
            self.socket.set_nonblocking(nonblocking);
            Ok(())
        }
    };
}

/// The methods about timeouts.
macro_rules! timeout_methods {
    ($std:ty) => {
        /// Bounds the time of each read; None, which is the default, does not. A read that takes
        /// longer fails with [`WouldBlock`](std::io::ErrorKind::WouldBlock), as it does with std
        /// on Linux. See
        #[doc = concat!("[std's](", stringify!($std), "::set_read_timeout).")]
        ///
        /// # Errors
        ///
        /// [`InvalidInput`](std::io::ErrorKind::InvalidInput) for a zero duration.
        pub fn set_read_timeout(
            &self,
            timeout: Option<std::time::Duration>,
        ) -> std::io::Result<()> {
            self.socket.set_timeout($crate::hub::Direction::Read, timeout)
        }

        /// Bounds the time of each write; None, which is the default, does not. A write that takes
        /// longer fails with [`WouldBlock`](std::io::ErrorKind::WouldBlock), as it does with std
        /// on Linux. See
        #[doc = concat!("[std's](", stringify!($std), "::set_write_timeout).")]
        ///
        /// # Errors
        ///
        /// [`InvalidInput`](std::io::ErrorKind::InvalidInput) for a zero duration.
        pub fn set_write_timeout(
            &self,
            timeout: Option<std::time::Duration>,
        ) -> std::io::Result<()> {
            self.socket.set_timeout($crate::hub::Direction::Write, timeout)
        }

        /// What [`set_read_timeout`](Self::set_read_timeout) was given.
        ///
        /// # Errors
        ///
        /// None; the signature is std's.
        pub fn read_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
            Ok(self.socket.timeout($crate::hub::Direction::Read))
        }

        /// What [`set_write_timeout`](Self::set_write_timeout) was given.
        ///
        /// # Errors
        ///
        /// None; the signature is std's.
        pub fn write_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
            Ok(self.socket.timeout($crate::hub::Direction::Write))
        }
    };
}

/// `Read` for a shared reference and for the type itself: a socket is read and written through
/// `&self`, so that one greenlet can read while another writes.
macro_rules! impl_stream_io {
    ($type:ident) => {
        impl std::io::Read for &$type {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.receive(buf)
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                self.socket
                    .attempt($crate::hub::Direction::Read, |mut inner| inner.read_vectored(bufs))
            }
        }

        impl std::io::Read for $type {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.receive(buf)
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                (&*self).read_vectored(bufs)
            }
        }

        impl std::io::Write for &$type {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.send(buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.socket
                    .attempt($crate::hub::Direction::Write, |mut inner| inner.write_vectored(bufs))
            }

            #[inline]
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        impl std::io::Write for $type {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.send(buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                (&*self).write_vectored(bufs)
            }

            #[inline]
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}
