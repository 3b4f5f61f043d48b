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
use rustix::event::{PollFd, PollFlags, poll};

use crate::connection::Connection;
use crate::stream::Stream;
use crate::wake::{Waker, timespec};

/// How long the other side may take to end its half, in all.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How much is read and discarded. What a client has in flight fits; one that never stops has to wait, and is
/// reset when the time is over: closing at once would throw away what it has not received yet.
pub const MOST_DISCARDED: usize = 1024 * 1024;

/// Ends our half of `stream`, then waits for the other side to end its own, within
/// [`PATIENCE`] and [`MOST_DISCARDED`].
///
/// # Errors
/// When the connection was reset: then what was written last may not have arrived.
pub fn say_goodbye(stream: &Stream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    see_out(stream, Stage::Listening)
}

/// As [`say_goodbye`], for a stream whose reading end is shut.
///
/// Once both ends are shut, Linux answers whatever the other side still sends with a reset, and the reset throws
/// away what is not sent yet. So our half ends only when the kernel has sent all of it.
pub(crate) fn say_goodbye_unheard(stream: &Stream) -> io::Result<()> {
    stream.report_room_when_all_is_sent()?;
    see_out(stream, Stage::Sending)
}

fn see_out(stream: &Stream, stage: Stage) -> io::Result<()> {
    let mut leaving = Leaving::new(stage);
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let left = leaving.patience();
        if left.is_zero() {
            return Ok(());
        }
        let ready = poll(&mut [leaving.watched(stream)], Some(&timespec(left)));
        if ready.is_ok_and(|count| count > 0) && !leaving.is_still_here(stream, &mut bytes)? {
            return Ok(());
        }
    }
}

/// The thread that says goodbye, to many at once, so that neither the accept thread nor a worker waits for
/// a client that takes its time to leave.
#[derive(Debug)]
pub(crate) struct Farewell {
    /// `None` is the last.
    queue: Sender<Option<(Arc<Connection>, Leaving)>>,
    waker: Arc<Waker>,
    gone: Receiver<()>,
}

impl Farewell {
    /// Starts the thread. At most `most` are on their way out at once, half of them still on their way to the
    /// thread; when another comes, the oldest that it sees out has to go. Once the server is stopping everybody has
    /// the time, for nobody else comes who needs the descriptors.
    pub(crate) fn start(most: usize) -> io::Result<Farewell> {
        let most = most.div_ceil(2);
        let (queue, leaving) = bounded(most);
        let (alive, gone) = bounded(0);
        let waker = Arc::new(Waker::new()?);
        let watched = Arc::clone(&waker);
        thread::Builder::new().name("farewell".to_owned()).spawn(move || {
            see_everyone_out(&leaving, &watched, most);
            drop::<Sender<()>>(alive);
        })?;
        Ok(Farewell { queue, waker, gone })
    }

    /// Ends our half and leaves the rest to the thread. Never waits for a client.
    pub(crate) fn leave_to_it(&self, connection: Arc<Connection>) {
        // An error means that the other side has reset the connection: nothing is left to be polite about.
        if connection.stream().shutdown(Shutdown::Write).is_ok() {
            self.hand_over(connection, Stage::Listening);
        }
    }

    /// As `leave_to_it`, for a stream whose reading end is shut: see [`say_goodbye_unheard`].
    pub(crate) fn leave_unheard_to_it(&self, connection: Arc<Connection>) {
        if connection.stream().report_room_when_all_is_sent().is_ok() {
            self.hand_over(connection, Stage::Sending);
        }
    }

    fn hand_over(&self, connection: Arc<Connection>, stage: Stage) {
        if connection.stream().set_nonblocking(true).is_err() {
            return;
        }
        let is_stopping = connection.is_stopping();
        let one = Some((connection, Leaving::new(stage)));
        // When the queue is full the connection is dropped here, which closes it; while the server is stopping, all
        // come at once, and the thread takes everybody as soon as it gets to it.
        let is_queued = if is_stopping { self.queue.send(one).is_ok() } else { self.queue.try_send(one).is_ok() };
        if is_queued {
            self.waker.wake();
        }
    }

    /// Waits for the last one to leave, at most `patience`. Nobody is seen out after that.
    pub(crate) fn finish(&self, patience: Duration) {
        if self.queue.send_timeout(None, patience).is_ok() {
            self.waker.wake();
            let _ = self.gone.recv_timeout(patience);
        }
    }
}

impl Drop for Farewell {
    /// Ends the thread of a server that was never served.
    fn drop(&mut self) {
        let _ = self.queue.try_send(None);
        self.waker.wake();
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The kernel has to send what was written. Then our half is ended.
    Sending,
    /// Our half has ended; the other side has to end its own.
    Listening,
}

/// How far a connection is on its way out.
#[derive(Debug)]
struct Leaving {
    stage: Stage,
    since: Instant,
    discarded: usize,
}

impl Leaving {
    fn new(stage: Stage) -> Leaving {
        Leaving { stage, since: Instant::now(), discarded: 0 }
    }

    /// How much longer it may take.
    fn patience(&self) -> Duration {
        PATIENCE.saturating_sub(self.since.elapsed())
    }

    fn watched<'a>(&self, stream: &'a Stream) -> PollFd<'a> {
        let events = match self.stage {
            Stage::Sending => PollFlags::OUT,
            Stage::Listening if self.discarded < MOST_DISCARDED => PollFlags::IN,
            // That the other side has ended is always reported, and then what is left of its bytes has an end.
            Stage::Listening => PollFlags::empty(),
        };
        PollFd::new(stream, events)
    }

    /// Does what can be done now that the stream is ready; says whether more is worth waiting for.
    fn is_still_here(&mut self, mut stream: &Stream, bytes: &mut [u8]) -> io::Result<bool> {
        if self.stage == Stage::Sending {
            self.stage = Stage::Listening;
            return stream.shutdown(Shutdown::Write).map(|()| true);
        }
        match stream.read(bytes) {
            Ok(count) => {
                self.discarded += count;
                Ok(count > 0)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn see_everyone_out(queue: &Receiver<Option<(Arc<Connection>, Leaving)>>, waker: &Waker, most: usize) {
    // The oldest first, for all have the same patience.
    let mut leaving: Vec<(Arc<Connection>, Leaving)> = Vec::new();
    let mut bytes = vec![0; 16 * 1024];
    let mut open = true;
    loop {
        waker.clear();
        while open {
            match queue.try_recv() {
                Ok(Some((connection, one))) => {
                    if leaving.len() >= most && !connection.is_stopping() {
                        leaving.remove(0);
                    }
                    leaving.push((connection, one));
                }
                Err(TryRecvError::Empty) => break,
                Ok(None) | Err(TryRecvError::Disconnected) => open = false,
            }
        }
        if !open && leaving.is_empty() {
            return;
        }
        let ready = {
            let mut watched = vec![PollFd::new(waker, PollFlags::IN)];
            watched.extend(leaving.iter().map(|(connection, one)| one.watched(connection.stream())));
            let left = leaving.first().map(|(_, oldest)| timespec(oldest.patience()));
            let _ = poll(&mut watched, left.as_ref()); // A signal is as good as a wake-up.
            watched.iter().skip(1).map(|fd| !fd.revents().is_empty()).collect::<Vec<bool>>()
        };
        let mut ready = ready.into_iter();
        leaving.retain_mut(|(connection, one)| {
            let is_ready = ready.next().unwrap_or(false);
            // Whoever is ready is heard even if the time is over: on a busy machine, it may be this thread that is late.
            let is_here = !is_ready || one.is_still_here(connection.stream(), &mut bytes).unwrap_or(false);
            is_here && !one.patience().is_zero()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::addr::Addr;
    use crate::listener::Listener;

    const BOUND: Duration = Duration::from_secs(20);

    /// Where `most` may be on their way out, and ten come who do not end their half: how many are still seen out.
    fn seen_out_of_ten(most: usize, is_stopping: bool) -> usize {
        let listener = Listener::bind(&Addr::resolve("127.0.0.1:0").unwrap()[0]).unwrap();
        let began = Instant::now();
        while began.elapsed() < BOUND {
            let farewell = Farewell::start(most).unwrap();
            let (clients, leaving): (Vec<Stream>, Vec<Connection>) = (0..10)
                .map(|number| {
                    let client = Stream::connect(listener.local_addr()).unwrap();
                    let (stream, peer) = listener.accept().unwrap();
                    (client, Connection::new(number, stream, peer, Arc::new(AtomicBool::new(is_stopping))))
                })
                .collect();
            let first = Instant::now();
            let leaving: Vec<Weak<Connection>> = leaving
                .into_iter()
                .map(|connection| {
                    let connection = Arc::new(connection);
                    let weak = Arc::downgrade(&connection);
                    farewell.leave_to_it(connection);
                    weak
                })
                .collect();
            while !farewell.queue.is_empty() {
                thread::yield_now();
            }
            // One that has been taken from the queue may be about to take the place of another.
            farewell.finish(Duration::from_millis(50));
            let seen_out = leaving.iter().filter(|connection| connection.strong_count() > 0).count();
            // On a busy machine, their time may be over by now; that says nothing.
            if first.elapsed() < PATIENCE {
                drop(clients);
                return seen_out;
            }
        }
        panic!("the machine is too busy for a look within {PATIENCE:?}");
    }

    #[test]
    fn only_so_many_are_seen_out_at_once() {
        assert!(matches!(seen_out_of_ten(4, false), 1..=4));
    }

    #[test]
    fn when_the_server_stops_everybody_is_seen_out() {
        assert_eq!(seen_out_of_ten(4, true), 10);
    }

    #[test]
    fn the_thread_ends_with_a_server_that_was_never_served() {
        let farewell = Farewell::start(8).unwrap();
        let gone = farewell.gone.clone();
        drop(farewell);
        assert!(gone.recv_timeout(BOUND).is_err_and(|error| error.is_disconnected()));
    }
}
