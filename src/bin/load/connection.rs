//! One connection: sends its messages, and compares what comes back with what must come back, byte by byte.
//!
//! Nothing in here waits. The kernel says once when a socket has become readable or writable, so each is used
//! until it has no more to give.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::failure::{Failure, Kind, escape};
use crate::messages::{BATCH, Batch, Messages, Stamp};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has no socket: not begun yet, or between two sockets.
    Closed,
    Connecting,
    Open,
    /// It has failed, and is not used any more.
    Dead,
}

/// One connection, or in a churning run one sequence of connections.
pub(crate) struct Connection {
    pub(crate) number: usize,
    pub(crate) stage: Stage,
    pub(crate) socket: Option<Socket>,
    /// How many messages it is to send altogether, as far as is known now.
    pub(crate) goal: u64,
    /// How many have been begun: their times are in `since`, or they are answered.
    pub(crate) begun: u64,
    /// How many have been answered, and the place in the next answer.
    pub(crate) answered: u64,
    answered_part: usize,
    /// How many are with the kernel as a whole, and the place in the next one.
    sent: u64,
    sent_part: usize,
    /// Whether the kernel takes more, as far as is known.
    is_writable: bool,
    /// The server has ended its half: behind what is there to be read, the end is, and it is not announced again.
    has_ended: bool,
    /// Since when each message without an answer is on its way.
    pub(crate) since: VecDeque<Instant>,
    /// The newest message that had been begun when it was looked at, at this moment: see `is_overdue`.
    looked_at: (u64, Instant),
}

impl Connection {
    pub(crate) fn new(number: usize) -> Connection {
        Connection {
            number,
            stage: Stage::Closed,
            socket: None,
            goal: 0,
            begun: 0,
            answered: 0,
            answered_part: 0,
            sent: 0,
            sent_part: 0,
            is_writable: false,
            has_ended: false,
            since: VecDeque::new(),
            looked_at: (0, Instant::now()),
        }
    }

    /// A message has been begun; its latency counts from here, or from when it should have been begun.
    pub(crate) fn begin(&mut self, since: Instant) {
        self.begun += 1;
        self.since.push_back(since);
    }

    /// Whether an answer is missing.
    pub(crate) fn is_waiting(&self) -> bool {
        self.begun > self.answered
    }

    /// Whether an answer has been missing for at least `patience`: one to a message that had been begun when it
    /// was asked before. Asked now and then, it costs the messages themselves nothing.
    pub(crate) fn is_overdue(&mut self, now: Instant, patience: Duration) -> bool {
        let (begun, since) = self.looked_at;
        if self.answered >= begun {
            self.looked_at = (self.begun, now);
            return false;
        }
        now.saturating_duration_since(since) >= patience
    }

    /// The socket is connected.
    pub(crate) fn open(&mut self) {
        self.stage = Stage::Open;
        self.is_writable = true;
    }

    /// The socket is gone. Messages that were on their way are lost; the next one is new.
    pub(crate) fn close(&mut self, stage: Stage) {
        self.socket = None;
        self.stage = stage;
        (self.sent, self.answered) = (self.begun, self.begun);
        (self.sent_part, self.answered_part) = (0, 0);
        (self.is_writable, self.has_ended) = (false, false);
        self.since.clear();
    }

    /// Whether connecting has come to its end.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(false) };
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the kernel has said: there is room again, or the server has ended its half.
    pub(crate) fn note(&mut self, is_writable: bool, has_ended: bool) {
        self.is_writable |= is_writable;
        self.has_ended |= has_ended;
    }

    /// Hands messages to the kernel, up to its goal, and while no more than `window` are without an answer.
    /// `since` says when the message of this number was to be sent.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) fn send(
        &mut self,
        messages: &Messages,
        window: u64,
        since: impl Fn(usize, u64) -> Instant,
    ) -> io::Result<()> {
        while let Some(mut socket) = self.socket.as_ref() {
            // What is half sent is always finished.
            let end = self.goal.min(self.answered + window).max(self.sent + u64::from(self.sent_part > 0));
            if !self.is_writable || self.sent >= end {
                return Ok(());
            }
            let mut stamps = [Stamp::EMPTY; BATCH];
            let batch = Batch::of(messages, &mut stamps, self.number, (self.sent, end), self.sent_part);
            let first_new = self.begun;
            let next_since = since(self.number, first_new);
            let taken = match socket.write_vectored(&batch.slices[..batch.count]) {
                Ok(taken) => taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.is_writable = taken == batch.bytes;
            let position = self.sent_part + taken;
            self.sent += (position / messages.size) as u64;
            self.sent_part = position % messages.size;
            while self.begun < self.sent + u64::from(self.sent_part > 0) {
                let since = if self.begun == first_new { next_since } else { since(self.number, self.begun) };
                self.begin(since);
            }
        }
        Ok(())
    }

    /// Takes what has come, and compares it. Says for each message that is answered as a whole since when it
    /// was on its way.
    ///
    /// # Errors
    /// What is wrong with what came, or how the connection has ended.
    pub(crate) fn receive(
        &mut self,
        messages: &Messages,
        buffer: &mut [u8],
        mut answered: impl FnMut(Instant),
    ) -> Result<(), Failure> {
        while let Some(mut socket) = self.socket.as_ref() {
            let count = match socket.read(buffer) {
                Ok(0) => return Err(Failure::new(Kind::Closed, self.where_it_ended(messages))),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Failure::from_error(&error)),
            };
            self.compare(messages, &buffer[..count], &mut answered)?;
            // Less than there was room for: that was all.
            if count < buffer.len() && !self.has_ended {
                return Ok(());
            }
        }
        Ok(())
    }

    fn compare(&mut self, messages: &Messages, came: &[u8], answered: &mut impl FnMut(Instant)) -> Result<(), Failure> {
        let size = messages.answer_size();
        let mut at = 0;
        while at < came.len() {
            if !self.is_waiting() {
                let what = || Failure::new(Kind::Unasked, format!("came unasked: {}", escape(&came[at..])));
                return Err(Failure::refusal(&came[at..]).unwrap_or_else(what));
            }
            let (number, begin) = (self.answered, at.saturating_sub(self.answered_part));
            let stamp = messages.stamp(self.number, number);
            while at < came.len() && self.answered_part < size {
                let right = messages.answer_part(&stamp, self.number, number, self.answered_part);
                let length = right.len().min(came.len() - at);
                if right[..length] != came[at..at + length] {
                    return Err(self.mismatch(messages, came, begin, at));
                }
                self.answered_part += length;
                at += length;
            }
            if self.answered_part == size {
                self.answered_part = 0;
                self.answered += 1;
                if let Some(since) = self.since.pop_front() {
                    answered(since);
                }
            }
        }
        Ok(())
    }

    /// What came is wrong somewhere from `at` on; this answer began at `begin`, or before these bytes.
    fn mismatch(&self, messages: &Messages, came: &[u8], begin: usize, at: usize) -> Failure {
        let is_from_its_beginning = self.answered_part == at - begin;
        if is_from_its_beginning && let Some(refusal) = Failure::refusal(&came[begin..]) {
            return refusal;
        }
        let first = self.answered_part - (at - begin);
        let right = messages.answer_text(self.number, self.answered, first, came.len() - begin + 80);
        let same = right.iter().zip(&came[begin..]).take_while(|(right, came)| right == came).count();
        // Some of what is right stands in front of what is wrong.
        let shown = same.saturating_sub(24);
        let place = format!("byte {} of the answer to message {} is wrong", first + same + 1, self.answered);
        let text = format!("{place}: expected {}, came {}", escape(&right[shown..]), escape(&came[begin + shown..]));
        // What was sent stands there, and something in front of it.
        let sent = messages.answer_text(self.number, self.answered, messages.prefix.len(), 16);
        let hint = match memchr::memmem::find(&came[begin..], &sent) {
            Some(length) if is_from_its_beginning && sent.len() > 1 => {
                let prefix = escape(&came[begin..begin + length]);
                format!("; say --prefix {prefix} if that is to stand in front of each answer")
            }
            _ => String::new(),
        };
        Failure::new(Kind::WrongBytes, text + &hint)
    }

    fn where_it_ended(&self, messages: &Messages) -> String {
        match (self.is_waiting(), self.answered_part) {
            (false, _) => format!("closed by the server after {} answers", self.answered),
            (true, 0) => format!("closed by the server instead of an answer to message {}", self.answered),
            (true, part) => {
                let size = messages.answer_size();
                format!("closed by the server after {part} of {size} bytes of the answer to message {}", self.answered)
            }
        }
    }
}
