//! A client that tells what it does, step by step, and waits for nothing without a bound.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::diagnose;
use crate::manner::{Manner, find};
use crate::matcher::Matcher;
use crate::show::{self, Difference, brief, difference, group};
use crate::target::{Address, Stream};
use crate::trouble::{Symptom, Trouble};

/// How long a polite end may take, for all clients of a stage together.
const GOODBYES: Duration = Duration::from_secs(1);

/// How long a piece may take to be read, before the next is sent all the same.
const UNTIL_READ: Duration = Duration::from_secs(2);

/// The pause between two pieces, where it cannot be seen whether the first was read.
const BETWEEN_PIECES: Duration = Duration::from_millis(100);

/// What happened in a stage, as numbered steps, and how long it may still take.
#[derive(Debug)]
pub(crate) struct Story {
    steps: RefCell<Vec<String>>,
    until: Instant,
    patience: Duration,
    until_read: Duration,
    /// An end after so much silence is a deadline of the server's.
    long_silence: Duration,
    goodbyes: RefCell<Duration>,
}

impl Story {
    /// `deadline`: the server's, if it is known; a wait of ours must not look like a silent client.
    pub(crate) fn new(patience: Duration, bound: Duration, deadline: Option<Duration>) -> Rc<Story> {
        Rc::new(Story {
            steps: RefCell::default(),
            until: Instant::now() + bound,
            patience,
            until_read: deadline.map_or(UNTIL_READ, |deadline| UNTIL_READ.min(deadline / 3)),
            long_silence: deadline.map_or(Duration::from_secs(1), |deadline| deadline * 3 / 4),
            goodbyes: RefCell::new(GOODBYES),
        })
    }

    pub(crate) fn step(&self, what: impl Into<String>) {
        self.steps.borrow_mut().push(what.into());
    }

    fn add_to_last(&self, what: &str) {
        if let Some(step) = self.steps.borrow_mut().last_mut() {
            step.push_str(what);
        }
    }

    /// Takes back what was told of an attempt that is no part of the story.
    pub(crate) fn forget_after(&self, count: usize) {
        self.steps.borrow_mut().truncate(count);
    }

    pub(crate) fn steps(&self) -> Vec<String> {
        self.steps.borrow().clone()
    }

    /// How long the server may be silent when it is its turn.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// What is left of a wait: never more than the stage has.
    fn left(&self, since: Instant, wish: Duration) -> Duration {
        let wish = wish.saturating_sub(since.elapsed());
        wish.min(self.until.saturating_duration_since(Instant::now()))
    }
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
enum Came {
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

/// How fast a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Fast,
    /// Not at all at first; then in small bites.
    Slow,
}

/// Whether an answer must be text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Bytes,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Option<Stream>,
    /// Empty in a stage with one client; `None` for one of a crowd, of which the stage itself tells.
    name: Option<String>,
    story: Rc<Story>,
    manner: Rc<Manner>,
    /// Nothing more will come, or ours has been ended already.
    over: bool,
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
                Err(Trouble::new(symptom, "a connection", reason(&error)))
            }
        }
    }

    fn step(&self, what: impl AsRef<str>) {
        if let Some(name) = &self.name {
            self.story.step(told_by(name, what.as_ref()));
        }
    }

    fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("a client keeps its stream until it is dropped")
    }

    fn wait(&self, flags: PollFlags, wait: Duration) -> PollFlags {
        let mut watched = [PollFd::new(self.stream(), flags)];
        let millis = wait.as_nanos().div_ceil(1_000_000).min(60_000) as i64;
        let wait = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        let _ = poll(&mut watched, Some(&wait)); // Interrupted is as good as nothing: the callers look at the clock.
        watched[0].revents()
    }

    fn read(&self, bytes: &mut [u8], wait: Duration) -> Came {
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

    /// Sends a line and reads its answer.
    pub(crate) fn say(&mut self, line: &[u8]) -> Result<(), Trouble> {
        self.exchange(line, Kind::Text, Pace::Fast)?;
        if self.name.is_some() {
            self.story.add_to_last(", and read its answer");
        }
        Ok(())
    }

    /// The same, for a server that may be busy with someone else: waits only for so long.
    pub(crate) fn say_for(&mut self, line: &[u8], wait: Duration) -> Result<bool, Trouble> {
        self.send(line)?;
        let (came, _) = self.listen_until(line, wait);
        let answered = find(&came, line).is_some();
        if answered && self.name.is_some() {
            self.story.add_to_last(", and read its answer");
        }
        Ok(answered)
    }

    /// The same, told only by the caller.
    pub(crate) fn say_quietly(&mut self, line: &[u8]) -> Result<(), Trouble> {
        let told = self.story.steps().len();
        let result = self.say(line);
        self.story.forget_after(told);
        result
    }

    /// Reads until everything in `sent` has come back.
    pub(crate) fn expect(&mut self, sent: &[u8], kind: Kind) -> Result<(), Trouble> {
        self.pump(&[], sent, kind, Pace::Fast).map(drop)
    }

    /// Sends and reads at the same time, until everything has come back. How often the server would not take
    /// more.
    pub(crate) fn exchange(&mut self, payload: &[u8], kind: Kind, pace: Pace) -> Result<usize, Trouble> {
        self.step(format!("sent {}", brief(payload)));
        self.pump(payload, payload, kind, pace)
    }

    fn pump(&mut self, to_send: &[u8], wanted: &[u8], kind: Kind, pace: Pace) -> Result<usize, Trouble> {
        let mut matcher = Matcher::new(wanted, &self.manner);
        let mut buffer = vec![0; if pace == Pace::Slow { 16 * 1024 } else { 64 * 1024 }];
        let mut sent = 0;
        let mut blocked = 0;
        let mut since = Instant::now();
        // A slow reader does not read before it has sent what it can.
        let mut reads = pace == Pace::Fast;
        loop {
            let left = self.story.left(since, self.story.patience());
            if left.is_zero() {
                return Err(self.gave_up(&matcher, sent < to_send.len()));
            }
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::OUT, sent < to_send.len());
            flags.set(PollFlags::IN, reads);
            let ready = self.wait(flags, if reads { left } else { left.min(Duration::from_millis(100)) });
            let broken = ready.intersects(PollFlags::ERR | PollFlags::HUP);
            if ready.contains(PollFlags::OUT) && sent < to_send.len() {
                match self.stream().write_now(&to_send[sent..]) {
                    Ok(count) => {
                        sent += count;
                        since = Instant::now();
                    }
                    Err(error) if is_for_later(&error) => {}
                    // What was still on its way to us comes first; the end of it is met by the next read.
                    Err(_) => sent = to_send.len(),
                }
            } else if sent < to_send.len() {
                blocked += 1;
            }
            if !reads && (ready.is_empty() || sent == to_send.len()) {
                self.step("paused, then read slowly");
                reads = true;
                since = Instant::now();
                continue;
            }
            if !(ready.contains(PollFlags::IN) || broken) || !reads {
                continue;
            }
            match self.read(&mut buffer, Duration::ZERO) {
                Came::Nothing => {}
                Came::Bytes(count) => {
                    since = Instant::now();
                    if !matcher.take(&buffer[..count]) {
                        return Err(self.gone_wrong(&matcher, wanted, &mut buffer, count));
                    }
                    if matcher.is_complete() && sent == to_send.len() {
                        return self.check_text(matcher.received(), kind).map(|()| blocked);
                    }
                    if matcher.received().len() > matcher.most() {
                        return Err(self.flood(matcher.received()));
                    }
                    if pace == Pace::Slow {
                        thread::sleep(Duration::from_millis(2));
                    }
                }
                Came::End if since.elapsed() >= self.story.long_silence => {
                    // It waited for us, as we for it, until a deadline of its own.
                    self.over = true;
                    let symptom = if matcher.received().is_empty() { Symptom::Silent } else { Symptom::Partial };
                    let waited = seconds(since.elapsed());
                    return Err(self.missing(&matcher, symptom, &format!("then nothing for {waited}, then the end")));
                }
                Came::End => {
                    self.over = true;
                    return Err(self.missing(&matcher, Symptom::Ended, "then the server ended the connection"));
                }
                Came::Reset => {
                    self.over = true;
                    return Err(self.missing(&matcher, Symptom::Reset, "then the connection was reset"));
                }
            }
        }
    }

    fn check_text(&self, received: &[u8], kind: Kind) -> Result<(), Trouble> {
        match std::str::from_utf8(received) {
            Err(error) if kind == Kind::Text => {
                self.step("read the whole answer: the bytes are right, but the prefix tears a character apart");
                let at = error.valid_up_to();
                let torn = difference(&received[..at], b"", &received[at..], "");
                let whole = Difference { expected: "text".to_owned(), ..torn };
                Err(Trouble::torn(whole))
            }
            _ => Ok(()),
        }
    }

    fn gave_up(&self, matcher: &Matcher, was_sending: bool) -> Trouble {
        let waited = seconds(self.story.patience());
        if was_sending {
            self.step(format!("could not send the rest: nothing moved in either direction for {waited}"));
        }
        let symptom = if matcher.received().is_empty() { Symptom::Silent } else { Symptom::Partial };
        self.missing(matcher, symptom, &format!("then nothing for {waited}"))
    }

    fn missing(&self, matcher: &Matcher, symptom: Symptom, instead: &str) -> Trouble {
        let received = matcher.received();
        if received.is_empty() {
            self.step("waited for the answer: nothing came");
        } else {
            let (came, all) = (group(matcher.matched()), group(matcher.sent_len()));
            self.step(format!("read the answer: {came} of its {all} bytes came"));
        }
        let instead = if received.is_empty() { instead.trim_start_matches("then ") } else { instead };
        Trouble::differs(symptom, difference(received, &matcher.expected_next(), b"", instead))
    }

    fn gone_wrong(&self, matcher: &Matcher, wanted: &[u8], buffer: &mut [u8], count: usize) -> Trouble {
        // The bytes of this read that were not right, and a little of what follows them, for the comparison.
        let mut wrong = matcher.wrong_tail(&buffer[..count]);
        let began = Instant::now();
        while wrong.len() < 4096 {
            let wait = Duration::from_millis(100).saturating_sub(began.elapsed());
            match self.read(buffer, wait) {
                Came::Bytes(more) => wrong.extend_from_slice(&buffer[..more]),
                _ => break,
            }
        }
        let received = matcher.received();
        let more = matcher.is_complete();
        self.step(if more {
            format!("read the whole answer, and then {} that should not be there", brief(&wrong))
        } else if received.is_empty() {
            "read the answer: it differs from its first byte on".to_owned()
        } else if matcher.matched() == 0 {
            "read the answer: it differs right behind the prefix".to_owned()
        } else {
            format!("read the answer: it differs after {} right bytes", group(matcher.matched()))
        });
        let symptom = if more { Symptom::Extra } else { Symptom::Changed };
        let all = [received, &wrong].concat();
        Trouble::differs(symptom, difference(received, &matcher.expected_next(), &wrong, ""))
            .seen(diagnose::what_differs(wanted, &all, &self.manner))
    }

    fn flood(&self, received: &[u8]) -> Trouble {
        self.step(format!("read {} bytes, and they did not end", group(received.len())));
        let head = &received[..received.len().min(64)];
        Trouble::new(Symptom::Flood, "an answer as long as what was sent", brief(head))
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
        loop {
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
    fn read_now(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut source = self;
        source.read(bytes)
    }

    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sink = self;
        sink.write(bytes)
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// An error as a person says it, without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nobody listens there".to_owned(),
        io::ErrorKind::ConnectionReset => "a reset".to_owned(),
        io::ErrorKind::TimedOut => "no answer to the attempt to connect".to_owned(),
        io::ErrorKind::BrokenPipe => "the server had closed the connection".to_owned(),
        io::ErrorKind::NotFound => "no such file, or no such name".to_owned(),
        _ => show::escape(error.to_string().as_bytes()),
    }
}

/// What takes longer than an answer, such as to start and to stop: 10 s, unless another patience is asked for.
pub(crate) fn long(patience: Duration) -> Duration {
    patience * 3 + Duration::from_secs(1)
}

/// `2 s`, `2.5 s`, `300 ms`.
pub(crate) fn seconds(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1000 => format!("{millis} ms"),
        _ if millis.is_multiple_of(1000) => format!("{} s", millis / 1000),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}
