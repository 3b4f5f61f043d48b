//! A client that tells what it does, step by step, and waits for nothing without a bound.

use std::io::{self, Read, Write};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::manner::{Manner, find};
use crate::matcher::Matcher;
use crate::show::{brief, difference, group};
use crate::story::{Story, reason, seconds};
use crate::target::{Address, Stream};
use crate::trouble::{Symptom, Trouble};

/// A wait that ends so much too late means that this machine stood still: perhaps the server did, too.
const OVERSLEPT: Duration = Duration::from_millis(60);

/// How many reads a polite end may take: whoever sends without end is left.
const MOST_READ_AT_THE_END: usize = 64;

/// The pause between two pieces, where it cannot be seen whether the first was read.
const BETWEEN_PIECES: Duration = Duration::from_millis(100);

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Bytes(usize),
    End,
    Reset,
    Nothing,
}

/// How a connection ended that was only listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The server ended its half in good order.
    Clean,
    Reset,
    /// It is still open.
    Open,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Option<Stream>,
    /// Empty in a stage with one client; `None` for one of a crowd, of which the stage itself tells.
    pub(crate) name: Option<String>,
    pub(crate) story: Rc<Story>,
    pub(crate) manner: Rc<Manner>,
    /// Nothing more will come, or ours has been ended already.
    pub(crate) over: bool,
}

impl Client {
    pub(crate) fn connect(
        address: &Address,
        name: Option<&str>,
        window: Option<usize>,
        story: &Rc<Story>,
        manner: &Rc<Manner>,
    ) -> Result<Client, Trouble> {
        let wait = story.left(Instant::now(), story.patience());
        match Stream::connect(address, wait.max(Duration::from_millis(1)), window) {
            Ok(stream) => {
                let client = Client {
                    stream: Some(stream),
                    name: name.map(str::to_owned),
                    story: Rc::clone(story),
                    manner: Rc::clone(manner),
                    over: false,
                };
                client.step("connected");
                Ok(client)
            }
            Err(error) => {
                story.step(told_by(name.unwrap_or(""), &format!("tried to connect to {address}")));
                let symptom = match error.kind() {
                    io::ErrorKind::ConnectionReset => Symptom::Reset, // It was accepted, and closed at once.
                    _ => Symptom::Refused,
                };
                let seen = (error.kind() == io::ErrorKind::TimedOut).then_some(
                    "The queue of clients that were not accepted yet is full. Is accept called while others are served? \
                     Is the backlog that listen was given very short?",
                );
                Err(Trouble::new(symptom, "a connection", reason(&error)).seen(seen))
            }
        }
    }

    pub(crate) fn step(&self, what: impl AsRef<str>) {
        if let Some(name) = &self.name {
            self.story.step(told_by(name, what.as_ref()));
        }
    }

    pub(crate) fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("a client keeps its stream until it is dropped")
    }

    pub(crate) fn wait(&self, flags: PollFlags, wait: Duration) -> PollFlags {
        let began = Instant::now();
        let mut watched = [PollFd::new(self.stream(), flags)];
        let millis = wait.as_nanos().div_ceil(1_000_000).min(60_000) as i64;
        let wait = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        let _ = poll(&mut watched, Some(&wait)); // Interrupted is as good as nothing: the callers look at the clock.
        if began.elapsed() > Duration::from_millis(millis as u64) + OVERSLEPT {
            self.story.doubt();
        }
        watched[0].revents()
    }

    pub(crate) fn read(&self, bytes: &mut [u8], wait: Duration) -> Came {
        if self.wait(PollFlags::IN, wait).is_empty() {
            return Came::Nothing;
        }
        match self.stream().read_now(bytes) {
            Ok(0) => Came::End,
            Ok(count) => Came::Bytes(count),
            Err(error) if is_for_later(&error) => Came::Nothing,
            Err(_) => Came::Reset,
        }
    }

    /// Sends everything, without reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.step(format!("sent {}", brief(bytes)));
        let sent = self.send_for(bytes, self.story.patience())?;
        if sent < bytes.len() {
            let came = format!("after {} bytes it took no more for {}", group(sent), seconds(self.story.patience()));
            return Err(Trouble::new(Symptom::Stuck, "all of it to be taken", came));
        }
        Ok(())
    }

    /// Sends as much as is taken; gives up after `patience` without progress. How much went.
    pub(crate) fn send_for(&mut self, bytes: &[u8], patience: Duration) -> Result<usize, Trouble> {
        let mut sent = 0;
        let mut since = Instant::now();
        while sent < bytes.len() {
            match self.stream().write_now(&bytes[sent..]) {
                Ok(count) => {
                    sent += count;
                    since = Instant::now();
                }
                Err(error) if is_for_later(&error) => {
                    let left = self.story.left(since, patience);
                    if left.is_zero() {
                        break;
                    }
                    self.wait(PollFlags::OUT, left);
                }
                Err(error) => {
                    self.over = true;
                    let came = format!("after {} bytes: {}", group(sent), reason(&error));
                    return Err(Trouble::new(Symptom::Reset, "all of it to be taken", came));
                }
            }
        }
        Ok(sent)
    }

    /// Waits until the server has accepted the connection; where that cannot be seen, not at all.
    pub(crate) fn let_it_accept(&mut self) {
        let began = Instant::now();
        let Some(peer) = self.stream().peer() else { return };
        while peer.is_accepted() == Some(false) && !self.story.left(began, self.story.patience()).is_zero() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the server has read what was sent, so that what comes next is a piece of its own.
    pub(crate) fn let_it_read(&mut self) {
        // What is sent on this machine arrives at once, but not in the very moment: looked at twice.
        let mut looks = 0;
        let seen = self.watch_the_other_end(|unread| {
            looks = if unread == 0 { looks + 1 } else { 0 };
            looks == 2
        });
        if !seen {
            thread::sleep(BETWEEN_PIECES);
        }
    }

    /// Waits until what was sent is at the other end, where nobody reads it.
    pub(crate) fn wait_until_it_arrived(&mut self, count: usize) {
        self.watch_the_other_end(|unread| unread as usize >= count);
    }

    /// Looks how much is unread at the other end, until that is enough, or it takes too long. `false` when it
    /// cannot be seen.
    fn watch_the_other_end(&mut self, mut is_enough: impl FnMut(u64) -> bool) -> bool {
        let began = Instant::now();
        let Some(peer) = self.stream().peer() else { return false };
        while let Some(unread) = peer.unread() {
            if is_enough(unread) || self.story.left(began, self.story.until_read).is_zero() {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Sends pieces, each after the one before was read; says so in one step.
    pub(crate) fn send_pieces(&mut self, pieces: &[&[u8]]) -> Result<(), Trouble> {
        let shown: Vec<String> = pieces.iter().map(|piece| brief(piece)).collect();
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                self.let_it_read();
                self.step(format!("once that was read, sent {}", shown[index]));
            } else {
                self.step(format!("sent {}", shown[index]));
            }
            self.send_for(piece, self.story.patience())?;
        }
        Ok(())
    }

    /// Ends our half: the server reads an end, and can still answer.
    pub(crate) fn end(&mut self) {
        self.step("ended its half of the connection (FIN)");
        let _ = self.stream().shutdown();
    }

    /// Ends our half without a word.
    pub(crate) fn end_quietly(&self) {
        let _ = self.stream().shutdown();
    }

    /// No more politeness is due.
    pub(crate) fn is_over(&mut self) {
        self.over = true;
    }

    /// Reads to the end, where nothing more may come.
    pub(crate) fn expect_end(&mut self) -> Result<(), Trouble> {
        self.expect_end_within(self.story.patience())
    }

    pub(crate) fn expect_end_within(&mut self, patience: Duration) -> Result<(), Trouble> {
        let (came, ending) = self.listen(patience, 4096);
        let mut matcher = Matcher::new(&[], &self.manner);
        if !matcher.take(&came) {
            self.step(format!("read {} before the end", brief(&came)));
            return Err(Trouble::differs(Symptom::Extra, difference(b"", b"", &came, "")));
        }
        match ending {
            Ending::Clean => Ok(()),
            Ending::Reset => {
                self.step("the connection was reset");
                Err(Trouble::new(Symptom::Reset, "the end of the connection (read returns 0)", "a reset"))
            }
            Ending::Open => {
                self.step("waited for the server to end its half too");
                let came = format!("nothing for {}: the connection is still open", seconds(patience));
                Err(Trouble::new(Symptom::NotEnded, "the end of the connection (read returns 0)", came))
            }
        }
    }

    /// Reads whatever comes for as long as `wait` allows, at most `most` bytes; says nothing.
    pub(crate) fn listen(&mut self, wait: Duration, most: usize) -> (Vec<u8>, Ending) {
        let began = Instant::now();
        let mut came = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let left = self.story.left(began, wait);
            match self.read(&mut buffer, left) {
                Came::Bytes(count) => {
                    came.extend_from_slice(&buffer[..count]);
                    if came.len() >= most {
                        came.truncate(most);
                        return (came, Ending::Open);
                    }
                }
                Came::End => {
                    self.over = true;
                    return (came, Ending::Clean);
                }
                Came::Reset => {
                    self.over = true;
                    return (came, Ending::Reset);
                }
                Came::Nothing if left.is_zero() => return (came, Ending::Open),
                Came::Nothing => {}
            }
        }
    }

    /// Reads and forgets, to the end or for as long as `wait` allows.
    pub(crate) fn discard(&mut self, wait: Duration) {
        let began = Instant::now();
        let mut buffer = vec![0; 64 * 1024];
        while !self.over {
            let left = self.story.left(began, wait);
            match self.read(&mut buffer, left) {
                Came::Bytes(_) if left.is_zero() => return,
                Came::Bytes(_) => {}
                Came::End | Came::Reset => self.over = true,
                Came::Nothing if left.is_zero() => return,
                Came::Nothing => {}
            }
        }
    }

    /// Listens for `wait`, or until `wanted` has come or the connection has ended.
    pub(crate) fn listen_until(&mut self, wanted: &[u8], wait: Duration) -> (Vec<u8>, Ending) {
        let began = Instant::now();
        let mut came = Vec::new();
        loop {
            let left = wait.saturating_sub(began.elapsed()).min(Duration::from_millis(5));
            let (more, ending) = self.listen(left, 4096);
            came.extend(more);
            let is_done = find(&came, wanted).is_some() || came.len() > 64 * 1024;
            if is_done || ending != Ending::Open || began.elapsed() > wait {
                return (came, ending);
            }
        }
    }

    /// Reads until `wanted` has come; what came, and whether it did.
    pub(crate) fn listen_for(&mut self, wanted: &[u8], most: usize) -> (Vec<u8>, Option<Ending>) {
        let mut came = Vec::new();
        let mut since = Instant::now();
        let mut buffer = vec![0; 4096];
        loop {
            // Where something has come, the rest is not far.
            let patience = self.story.patience();
            let patience = if came.is_empty() { patience } else { patience.min(Duration::from_secs(1)) };
            let left = self.story.left(since, patience);
            match self.read(&mut buffer, left) {
                Came::Bytes(count) => {
                    since = Instant::now();
                    came.extend_from_slice(&buffer[..count]);
                    if find(&came, wanted).is_some() {
                        return (came, None);
                    }
                    if came.len() > most {
                        return (came, Some(Ending::Open));
                    }
                }
                Came::End => {
                    self.over = true;
                    return (came, Some(Ending::Clean));
                }
                Came::Reset => {
                    self.over = true;
                    return (came, Some(Ending::Reset));
                }
                Came::Nothing if left.is_zero() => return (came, Some(Ending::Open)),
                Came::Nothing => {}
            }
        }
    }

    /// Closes with a reset, as a client does that crashes.
    pub(crate) fn reset(mut self) {
        self.step("reset the connection (RST)");
        if let Some(stream) = self.stream.take() {
            stream.reset();
        }
    }
}

/// A close with unread input would be a reset. A stage that is not about resets must not send one by the way:
/// so, end our half and read what is still coming; for all clients of a stage together, at most a second.
impl Drop for Client {
    fn drop(&mut self) {
        if self.over || self.stream.is_none() {
            return;
        }
        let began = Instant::now();
        let budget = *self.story.goodbyes.borrow();
        let _ = self.stream().shutdown();
        let mut buffer = vec![0; 64 * 1024];
        for _ in 0..MOST_READ_AT_THE_END {
            let left = budget.min(Duration::from_millis(300)).saturating_sub(began.elapsed());
            if left.is_zero() || !matches!(self.read(&mut buffer, left), Came::Bytes(_)) {
                break;
            }
        }
        *self.story.goodbyes.borrow_mut() = budget.saturating_sub(began.elapsed());
    }
}

fn told_by(name: &str, what: &str) -> String {
    if name.is_empty() { what.to_owned() } else { format!("client {name}: {what}") }
}

impl Stream {
    pub(crate) fn read_now(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut source = self;
        source.read(bytes)
    }

    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sink = self;
        sink.write(bytes)
    }
}

pub(crate) fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
