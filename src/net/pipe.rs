//! Pipes as buffers: bytes go from one socket into a pipe and from there into another socket
//! without ever being copied into this process (`splice(2)`, Linux). What lies in a pipe can
//! still be had back as bytes.
//!
//! A pipe is borrowed from the thread's pool for one request. Where the system gives none, or as
//! many as may be are in use, there is none: the caller copies instead.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes asked of the system for a pipe. What counts is its slots, one for each 4 KiB: a slot
/// holds a run of bytes as the network laid them down, on the loopback up to 32 KiB.
const PIPE_BYTES: usize = 512 * 1024;
/// Most pipes of a thread: each is two descriptors, and the system grants a user so many pages.
pub const PIPES_MAX: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    /// An empty pipe for glimpses, of which a thread has one at a time.
    static MIRROR: RefCell<Option<Ends>> = const { RefCell::new(None) };
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe and how many bytes lie in it.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

/// The bytes that were in a pipe, to be read without being taken out.
#[derive(Debug)]
pub struct Glimpse {
    mirror: Option<Ends>,
    at: usize,
    left: usize,
}

/// What came of filling a pipe from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// So many bytes.
    Moved(usize),
    /// The peer sends no more.
    End,
    /// The pipe has no room.
    Full,
}

impl Pipe {
    /// An empty pipe, if there is one to be had.
    pub fn take() -> Option<Pipe> {
        let pooled = POOL.with_borrow_mut(Vec::pop);
        let ends = match pooled {
            Some(ends) => ends,
            None if OPEN.get() < PIPES_MAX => {
                let ends = system::open().ok()?;
                OPEN.set(OPEN.get() + 1);
                ends
            }
            None => return None,
        };
        Some(Pipe {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Bytes that lie in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    fn ends(&self) -> io::Result<&Ends> {
        self.ends.as_ref().ok_or(io::ErrorKind::NotConnected.into())
    }

    /// Moves at most `most` bytes out of a socket, without waiting:
    /// [`io::ErrorKind::WouldBlock`] where none are there.
    pub fn try_fill(&mut self, from: &TcpStream, most: usize) -> io::Result<Filled> {
        let (ends, held) = (self.ends()?, self.held);
        let filled = from.try_io(Interest::READABLE, || {
            match system::fill(ends, from, most) {
                Ok(0) => Ok(Filled::End),
                Ok(n) => Ok(Filled::Moved(n)),
                // The system says the same of an empty socket and of a full pipe, the latter
                // even where the peer has left: that would be readable for ever.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && held > 0 => {
                    match SockRef::from(from).peek(&mut [MaybeUninit::uninit()])? {
                        0 => Ok(Filled::End),
                        _ => Ok(Filled::Full),
                    }
                }
                Err(error) => Err(error),
            }
        })?;
        if let Filled::Moved(n) = filled {
            self.held += n;
        }
        Ok(filled)
    }

    /// Moves the first `bytes` bytes into a socket; `more` of the same message will follow.
    pub async fn drain(&mut self, to: &TcpStream, bytes: usize, more: bool) -> io::Result<()> {
        let mut rest = bytes;
        while rest > 0 {
            let ends = self.ends()?;
            let moved = to.try_io(Interest::WRITABLE, || system::drain(ends, to, rest, more));
            match moved {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    rest = rest.saturating_sub(n);
                    self.held = self.held.saturating_sub(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks at the bytes in the pipe without taking them out or copying those not looked at.
    pub fn glimpse(&self) -> io::Result<Glimpse> {
        let mirror = match MIRROR.take() {
            Some(mirror) => mirror,
            None => system::open()?,
        };
        let left = system::tee(self.ends()?, &mirror, self.held)?;
        Ok(Glimpse {
            mirror: Some(mirror),
            at: 0,
            left,
        })
    }

    /// Takes all bytes back, behind those in `into`.
    pub fn unload(&mut self, into: &mut BytesMut) -> io::Result<()> {
        let start = into.len();
        into.resize(start + self.held, 0);
        let mut at = start;
        while at < into.len() {
            match system::get(self.ends()?, &mut into[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    at += n;
                    self.held = self.held.saturating_sub(n);
                }
            }
        }
        Ok(())
    }
}

impl Glimpse {
    /// Where it stands, from the begin of the pipe.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Reads the next bytes; 0: there are no more.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mirror = self.mirror.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let most = into.len().min(self.left);
        let read = match most {
            0 => 0,
            most => system::get(mirror, &mut into[..most])?,
        };
        self.left -= read;
        self.at += read;
        Ok(read)
    }

    /// Goes over bytes, to where `at` says; there is no way back.
    pub fn go_to(&mut self, at: usize) -> io::Result<()> {
        let mirror = self.mirror.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let bytes = at.checked_sub(self.at).filter(|bytes| *bytes <= self.left);
        let mut rest = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        while rest > 0 {
            match system::discard(mirror, rest)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    rest -= n;
                    self.left -= n;
                    self.at += n;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Glimpse {
    fn drop(&mut self) {
        if self.go_to(self.at + self.left).is_ok() {
            MIRROR.set(self.mirror.take());
        }
    }
}

impl Drop for Pipe {
    /// An empty pipe serves the next request; one with bytes in it is closed.
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        if self.held == 0 {
            POOL.with_borrow_mut(|pool| pool.push(ends));
        } else {
            OPEN.set(OPEN.get().saturating_sub(1));
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::io;

    use rustix::io::Errno;
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use tokio::net::TcpStream;

    use super::{Ends, PIPE_BYTES};

    pub fn open() -> io::Result<Ends> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The size that the system gives of itself will do, if less well.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Ends { read, write })
    }

    pub fn get(ends: &Ends, bytes: &mut [u8]) -> io::Result<usize> {
        again(|| rustix::io::read(&ends.read, &mut *bytes))
    }

    pub fn fill(ends: &Ends, from: &TcpStream, most: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        again(|| splice(from, None, &ends.write, None, most, flags))
    }

    pub fn drain(ends: &Ends, to: &TcpStream, bytes: usize, more: bool) -> io::Result<usize> {
        let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        flags.set(SpliceFlags::MORE, more);
        again(|| splice(&ends.read, None, to, None, bytes, flags))
    }

    pub fn tee(from: &Ends, to: &Ends, bytes: usize) -> io::Result<usize> {
        again(|| rustix::pipe::tee(&from.read, &to.write, bytes, SpliceFlags::NONBLOCK))
    }

    pub fn discard(ends: &Ends, bytes: usize) -> io::Result<usize> {
        thread_local! {
            static NULL: Option<File> = File::options().write(true).open("/dev/null").ok();
        }
        NULL.with(|null| {
            let null = null.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            again(|| splice(&ends.read, None, null, None, bytes, flags))
        })
    }

    fn again(mut call: impl FnMut() -> Result<usize, Errno>) -> io::Result<usize> {
        loop {
            match call() {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use tokio::net::TcpStream;

    use super::Ends;

    fn none<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub fn open() -> io::Result<Ends> {
        none()
    }
    pub fn get(_: &Ends, _: &mut [u8]) -> io::Result<usize> {
        none()
    }
    pub fn fill(_: &Ends, _: &TcpStream, _: usize) -> io::Result<usize> {
        none()
    }
    pub fn drain(_: &Ends, _: &TcpStream, _: usize, _: bool) -> io::Result<usize> {
        none()
    }
    pub fn tee(_: &Ends, _: &Ends, _: usize) -> io::Result<usize> {
        none()
    }
    pub fn discard(_: &Ends, _: usize) -> io::Result<usize> {
        none()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
