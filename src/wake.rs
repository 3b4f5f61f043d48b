//! A pipe that ends a `poll`: how one thread tells another that waits for sockets to look up.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::Timespec;

/// Wakes a thread that waits in `poll`, from any other thread.
///
/// A thread that sleeps in `poll` sees neither flags nor channels, only descriptors. So it also watches
/// the reading end of a pipe, and whoever wants its attention writes a byte. (Connecting to one's own
/// listener, as some servers do, fails just when it is needed most: when descriptors have run out or the
/// backlog is full.)
///
/// A wake-up is only a hint. It carries no meaning; the woken thread looks at its flags and channels.
///
/// ```
/// use rustix::event::{PollFd, PollFlags, poll};
/// use socket_steps::wake::Waker;
///
/// let waker = Waker::new()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| waker.wake());
///     poll(&mut [PollFd::new(&waker, PollFlags::IN)], None) // and sockets, beside it
/// })?;
/// waker.clear();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Waker {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Waker {
    /// A new pipe, both ends non-blocking.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub fn new() -> io::Result<Waker> {
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        Ok(Waker { reader, writer })
    }

    /// Ends the other thread's `poll`, or its next one if it is not in one now.
    pub fn wake(&self) {
        // The only error that can happen is a full pipe, and a full pipe wakes as well as one byte does.
        let _ = (&self.writer).write(&[1]);
    }

    /// Takes the wake-ups out of the pipe, so that the next `poll` waits again.
    pub fn clear(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.reader).read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }
}

impl AsFd for Waker {
    /// The end to watch for being readable.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// A duration as `poll` wants it, rounded up to a millisecond: rounded down, the last one would spin.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    let milliseconds = duration.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
    Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}
