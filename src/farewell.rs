//! Closing politely: the other side gets everything that was said to it, and then an end.
//!
//! A `close` while input is still unread, or before more of it arrives, makes the kernel send a reset, and
//! a reset throws away what the other side has not received yet: a reply was truncated 20 times out of 20.
//! So: end our own half, read and discard what is still coming, and close when the other side has ended its
//! half too, or when that takes too long.

use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::listener::Stream;
use crate::wake::Waker;

/// How long the other side may take to end its half, in all.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How much is read and discarded. What a client has in flight fits; one that never stops is reset.
pub const MOST_DISCARDED: usize = 1024 * 1024;

/// Ends our half of `stream`, then waits for the other side to end its own, within
/// [`PATIENCE`] and [`MOST_DISCARDED`].
///
/// # Errors
/// When the connection was reset: then what was written last may not have arrived.
pub fn say_goodbye(stream: &Stream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let began = Instant::now();
    let mut discarded = 0;
    let mut bytes = vec![0; 16 * 1024];
    while discarded < MOST_DISCARDED {
        let left = PATIENCE.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        let mut source = stream;
        match source.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => discarded += count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The thread that says goodbye, to many at once, so that neither the accept thread nor a worker waits for
/// a client that takes its time to leave.
#[derive(Debug)]
pub(crate) struct Farewell {
    leaving: Sender<Arc<Stream>>,
    waker: Arc<Waker>,
    gone: Receiver<()>,
}

impl Farewell {
    /// Starts the thread. It sees out at most `most` at once; when another comes, the oldest has to go.
    pub(crate) fn start(most: usize) -> io::Result<Farewell> {
        let (leaving, queue) = bounded(most);
        let (alive, gone) = bounded(0);
        let waker = Arc::new(Waker::new()?);
        let watched = Arc::clone(&waker);
        thread::Builder::new().name("farewell".to_owned()).spawn(move || {
            see_everyone_out(&queue, &watched, most);
            drop::<Sender<()>>(alive);
        })?;
        Ok(Farewell { leaving, waker, gone })
    }

    /// Ends our half and leaves the rest to the thread. Never waits.
    pub(crate) fn leave_to_it(&self, stream: Arc<Stream>) {
        // An error means that the other side has reset the connection: nothing is left to be polite about.
        if stream.shutdown(Shutdown::Write).is_ok() && stream.set_nonblocking(true).is_ok() {
            // When the queue is full the stream is dropped here, which closes it.
            if self.leaving.try_send(stream).is_ok() {
                self.waker.wake();
            }
        }
    }

    /// Waits for the last one to leave, at most `patience`.
    pub(crate) fn finish(self, patience: Duration) {
        let Farewell { leaving, waker, gone } = self;
        drop(leaving);
        waker.wake();
        let _ = gone.recv_timeout(patience);
    }
}

struct Leaving {
    stream: Arc<Stream>,
    since: Instant,
    discarded: usize,
}

impl Leaving {
    /// Reads what is there; says whether more is worth waiting for.
    fn is_still_coming(&mut self, bytes: &mut [u8]) -> bool {
        match (&*self.stream).read(bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.discarded += count;
                self.discarded < MOST_DISCARDED
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }
}

fn see_everyone_out(queue: &Receiver<Arc<Stream>>, waker: &Waker, most: usize) {
    // The oldest first, for all have the same patience.
    let mut leaving: Vec<Leaving> = Vec::new();
    let mut bytes = vec![0; 16 * 1024];
    let mut open = true;
    while open || !leaving.is_empty() {
        waker.clear();
        loop {
            match queue.try_recv() {
                Ok(stream) => {
                    if leaving.len() >= most {
                        leaving.remove(0);
                    }
                    leaving.push(Leaving { stream, since: Instant::now(), discarded: 0 });
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        let ready = {
            let mut watched = vec![PollFd::new(waker, PollFlags::IN)];
            watched.extend(leaving.iter().map(|one| PollFd::new(&*one.stream, PollFlags::IN)));
            let left = leaving.first().map(|oldest| timespec(PATIENCE.saturating_sub(oldest.since.elapsed())));
            if !open && leaving.is_empty() {
                return;
            }
            let _ = poll(&mut watched, left.as_ref()); // A signal is as good as a wake-up.
            watched.iter().skip(1).map(|fd| !fd.revents().is_empty()).collect::<Vec<bool>>()
        };
        let mut ready = ready.into_iter();
        leaving.retain_mut(|one| {
            let is_ready = ready.next().unwrap_or(false);
            one.since.elapsed() < PATIENCE && (!is_ready || one.is_still_coming(&mut bytes))
        });
    }
}

/// A duration as `poll` wants it, rounded up to a millisecond: rounded down, the last one would spin.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    let milliseconds = duration.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
    Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}
