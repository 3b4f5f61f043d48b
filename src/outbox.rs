//! What is still to be said to a connection, and the thread that says it.
//!
//! Most handlers answer what they have read, and one thread does both. Where others speak too, such as in a chat,
//! a connection has a thread that reads and one that writes. Whoever has something to say puts it into the outbox,
//! whole, and goes on; only the writer touches the socket, so nothing gets mixed and nobody waits for a client that
//! does not read.

use std::fmt;
use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::connection::{Connection, Seen};
use crate::socket::Socket;
use crate::waiting::Waiting;
use crate::writer::Writer;

/// How long whoever speaks waits for an outbox that is half full, in case its writer only waits for a processor.
/// Granted once, and again when everything has been taken out since: one that is not read stops nobody for longer.
pub(crate) const GRACE: Duration = Duration::from_millis(100);

/// The entrance to what is still to be said to one connection. Clones are the same one.
///
/// ```
/// use socket_steps::outbox::Outbox;
/// use socket_steps::server::{Config, Server};
/// use std::io::{Read, Write};
///
/// let server = Server::bind(["127.0.0.1:0"], Config::default())?;
/// let handle = server.handle();
/// let address = server.local_addrs()[0].to_string();
/// let serving = std::thread::spawn(|| server.serve(|mut socket| {
///     let outbox = Outbox::new(&socket, 1024);
///     let writing = outbox.start(&socket, None)?;
///     std::thread::spawn(move || outbox.push(b"unasked".as_slice().into()));
///     let until_the_end = std::io::copy(&mut socket, &mut std::io::sink());
///     writing.finish(until_the_end.map(drop))
/// }));
///
/// let mut client = std::net::TcpStream::connect(address)?;
/// let mut heard = [0; 7];
/// client.read_exact(&mut heard)?; // without having said a word
/// assert_eq!(&heard, b"unasked");
/// # drop(client);
/// handle.stop();
/// # serving.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Outbox {
    connection: Arc<Connection>,
    shared: Arc<(Mutex<Queue>, Condvar)>,
}

#[derive(Debug)]
struct Queue {
    waiting: Waiting,
    /// The grace was granted, and not everything has been taken out since.
    grace_is_spent: bool,
    stage: Stage,
    failure: Option<io::Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Only the connection's own thread may still say something.
    Leaving,
    /// Nobody may. What waits is written, unless writing has failed.
    Closed,
}

/// Something that is to be written again and again, such as a ping.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// How often.
    pub every: Duration,
    /// What.
    pub bytes: Arc<[u8]>,
}

/// What the writer does next.
enum Next {
    Write(Vec<Arc<[u8]>>),
    Beat,
    End,
}

impl Outbox {
    /// An empty outbox for messages of up to `max_message` bytes. Nothing goes out before it is
    /// [started](Outbox::start).
    pub fn new(socket: &Socket, max_message: usize) -> Outbox {
        let waiting = Waiting::for_messages_of(max_message);
        let queue = Queue { waiting, grace_is_spent: false, stage: Stage::Open, failure: None };
        let shared = Arc::new((Mutex::new(queue), Condvar::new()));
        Outbox { connection: Arc::clone(socket.connection()), shared }
    }

    /// Starts the thread that writes what is in it, under the socket's write deadline. From now on the socket itself
    /// is only to be read.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(&self, socket: &Socket, heartbeat: Option<Heartbeat>) -> io::Result<Writing> {
        let (writer, outbox) = (socket.writer(), self.clone());
        let thread = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || outbox.write_until_closed(writer, heartbeat.as_ref()))?;
        Ok(Writing { outbox: self.clone(), thread: Some(thread) })
    }

    /// Puts something in, whole, and does not wait (but for a moment, once, for a writer that only needs a
    /// processor). If there is no room, the client has not read for so long that it is given up: its connection
    /// ends.
    pub fn push(&self, bytes: Arc<[u8]>) {
        let mut patience = GRACE;
        self.push_with(bytes, &mut patience);
    }

    /// As [`push`](Outbox::push), with what is left of the moment that whoever speaks to many has for all of them.
    /// An outbox for which nothing is left has had it, too: while the others were waited for.
    pub(crate) fn push_with(&self, bytes: Arc<[u8]>, patience: &mut Duration) {
        let mut queue = self.lock();
        if queue.stage == Stage::Open && queue.waiting.is_half_full() && !queue.grace_is_spent {
            queue.grace_is_spent = true;
            let began = Instant::now();
            while queue.grace_is_spent && queue.stage == Stage::Open && began.elapsed() < *patience {
                queue = self.wait(queue, Some(patience.saturating_sub(began.elapsed())));
            }
            *patience = patience.saturating_sub(began.elapsed());
        }
        if queue.stage != Stage::Open {
            return;
        }
        // ANCHOR: full
        if queue.waiting.has_room_for(&bytes) {
            queue.waiting.add(bytes);
            self.tell();
        } else {
            // What was said to it has a gap, and must not look whole.
            self.connection.note(Seen::HalfAnswer);
            let full = Full { bytes: queue.waiting.cost() };
            self.fail(queue, full.into());
        }
        // ANCHOR_END: full
    }

    // ANCHOR: replace
    /// Puts something in that is worth nothing once there is a newer one: whichever has not been written by then
    /// is replaced. So a slow client gets fewer of them, and never old ones.
    pub fn replace(&self, bytes: Arc<[u8]>) {
        let mut queue = self.lock();
        if queue.stage == Stage::Open {
            queue.waiting.set_newest(Some(bytes));
            self.tell();
        }
    }
    // ANCHOR_END: replace

    /// As [`push`](Outbox::push), for the connection's own thread: waits for room. So a client that asks and asks,
    /// and does not read the answers, is not read either, until the write deadline ends it.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when writing has failed, now or before.
    pub fn push_own(&self, bytes: Arc<[u8]>) -> io::Result<()> {
        let mut queue = self.lock();
        while queue.stage != Stage::Closed && !queue.waiting.has_room_for(&bytes) {
            queue = self.wait(queue, None);
        }
        if queue.stage == Stage::Closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        queue.waiting.add(bytes);
        self.tell();
        Ok(())
    }

    /// From now on only the connection's own thread is heard: its goodbye is to be the last.
    pub fn retire(&self) {
        let mut queue = self.lock();
        if queue.stage == Stage::Open {
            queue.stage = Stage::Leaving;
        }
        queue.waiting.set_newest(None);
    }

    fn write_until_closed(&self, mut writer: Writer, heartbeat: Option<&Heartbeat>) {
        let mut next_beat = heartbeat.map(|beat| Instant::now() + beat.every);
        loop {
            let written = match self.next(next_beat) {
                Next::Write(batch) => match &batch[..] {
                    [one] => writer.write_all(one),
                    many => writer.write_all(&many.concat()), // One system call for many short ones.
                },
                Next::Beat => {
                    next_beat = heartbeat.map(|beat| Instant::now() + beat.every);
                    heartbeat.map_or(Ok(()), |beat| writer.write_all(&beat.bytes))
                }
                Next::End => return,
            };
            if let Err(error) = written {
                return self.fail(self.lock(), error);
            }
        }
    }

    /// Waits until there is something to do.
    fn next(&self, next_beat: Option<Instant>) -> Next {
        let mut queue = self.lock();
        loop {
            let until_beat = next_beat.map(|at| at.saturating_duration_since(Instant::now()));
            // First: else whoever is spoken to without a pause would never be asked whether it is there.
            if queue.stage == Stage::Open && until_beat.is_some_and(|left| left.is_zero()) {
                return Next::Beat;
            }
            let batch = queue.waiting.take();
            queue.grace_is_spent &= queue.waiting.has_messages();
            if !batch.is_empty() {
                self.tell(); // There is room.
                return Next::Write(batch);
            }
            match queue.stage {
                Stage::Closed => return Next::End,
                Stage::Open => queue = self.wait(queue, until_beat),
                Stage::Leaving => queue = self.wait(queue, None),
            }
        }
    }

    /// Gives the connection up. Both of its threads may be waiting for the client: they are woken.
    fn fail(&self, mut queue: MutexGuard<'_, Queue>, error: io::Error) {
        queue.waiting = Waiting::for_messages_of(0);
        queue.stage = Stage::Closed;
        queue.failure.get_or_insert(error);
        self.tell();
        let _ = self.connection.stream().shutdown(Shutdown::Both); // Already gone is as good.
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, patience: Option<Duration>) -> MutexGuard<'a, Queue> {
        match patience {
            Some(limit) => self.shared.1.wait_timeout(queue, limit).unwrap_or_else(PoisonError::into_inner).0,
            None => self.shared.1.wait(queue).unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn tell(&self) {
        self.shared.1.notify_all();
    }
}

/// The thread that writes, as the connection's own thread has it.
#[derive(Debug)]
pub struct Writing {
    outbox: Outbox,
    thread: Option<JoinHandle<()>>,
}

impl Writing {
    /// Waits until everything that waits has been written, or the write deadline has passed, and the thread has
    /// ended. Returns how the conversation went: `heard` is what the reading side says about that.
    ///
    /// # Errors
    /// The reason for which the connection ended, whichever side has met it.
    pub fn finish(mut self, heard: io::Result<()>) -> io::Result<()> {
        self.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        match (heard, self.outbox.lock().failure.take()) {
            // The reader only knows that it could not go on.
            (Err(error), Some(failure)) if error.kind() == io::ErrorKind::BrokenPipe => Err(failure),
            (Ok(()), Some(failure)) => Err(failure),
            (heard, _) => heard,
        }
    }

    fn close(&self) {
        let mut queue = self.outbox.lock();
        queue.stage = Stage::Closed;
        queue.waiting.set_newest(None);
        self.outbox.tell();
    }
}

impl Drop for Writing {
    /// The thread ends also if the handler has panicked.
    fn drop(&mut self) {
        self.close();
    }
}

/// Why a connection is given up to which more was to be said than it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// How much was waiting for it.
    pub bytes: usize,
}

impl Full {
    /// Whether this is what the error is about.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Full>())
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it does not read, and {} bytes are waiting for it", self.bytes)
    }
}

impl std::error::Error for Full {}

impl From<Full> for io::Error {
    fn from(full: Full) -> io::Error {
        io::Error::other(full)
    }
}
