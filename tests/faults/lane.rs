//! One direction of a connection through the proxy: what it does to the bytes that pass.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use crate::proxy::{Fate, Faults, Road, Way};
use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    /// Cut: what still comes goes nowhere.
    Discarding,
    Over,
}

/// One direction of a connection.
pub(crate) struct Lane<'a> {
    road: &'a Road,
    way: Way,
    from: &'a TcpStream,
    to: &'a TcpStream,
    fate: Fate,
    random: Random,
    pub(crate) stage: Stage,
    /// What was read and has not been sent on.
    held: Vec<u8>,
    /// How many bytes have been sent on.
    passed: u64,
    /// Up to where the piece goes of which the next byte is a part; and until when it is held back.
    piece_ends: u64,
    late_until: Option<Instant>,
}

impl<'a> Lane<'a> {
    pub(crate) fn new(
        road: &'a Road,
        way: Way,
        from: &'a TcpStream,
        to: &'a TcpStream,
        fate: Fate,
        seed: u64,
    ) -> Lane<'a> {
        let random = Random::new(seed, 0);
        let (held, passed, piece_ends, late_until) = (Vec::new(), 0, 0, None);
        Lane { road, way, from, to, fate, random, stage: Stage::Open, held, passed, piece_ends, late_until }
    }

    pub(crate) fn waits_for(&self) -> Option<PollFd<'a>> {
        match self.stage {
            Stage::Over => None,
            _ if self.held.is_empty() => Some(PollFd::new(self.from, PollFlags::IN)),
            _ if self.late_until.is_some() => None,
            _ => Some(PollFd::new(self.to, PollFlags::OUT)),
        }
    }

    pub(crate) fn sleeps_until(&self) -> Option<Instant> {
        self.late_until
    }

    /// Does what can be done now.
    pub(crate) fn go_on(&mut self) -> io::Result<()> {
        if self.stage == Stage::Over {
            return Ok(());
        }
        if self.held.is_empty() {
            let mut bytes = [0; 16 * 1024];
            let count = self.from.read(&mut bytes)?;
            if count == 0 {
                return self.end();
            }
            if self.stage == Stage::Open {
                self.held.extend_from_slice(&bytes[..count]);
            }
        }
        while !self.held.is_empty() {
            if self.passed == self.piece_ends {
                self.begin_piece();
            }
            if self.late_until.is_some_and(|until| until > Instant::now()) {
                return Ok(());
            }
            self.late_until = None;
            let (may_pass, what_then) = self.ahead();
            let count = may_pass.min(self.held.len() as u64) as usize;
            let count = (&*self.to).write(&self.held[..count])?;
            self.held.drain(..count);
            self.passed += count as u64;
            if count as u64 == may_pass {
                what_then(self)?;
            }
        }
        Ok(())
    }

    fn begin_piece(&mut self) {
        let Faults { piece, late, late_by, .. } = self.road.faults;
        // All dice are thrown for every piece: then the places of the splits stay when the delays are changed.
        let (length, is_late, by) =
            (self.random.within(1..=piece.max(1)), self.random.percent(late), self.random.time(late_by));
        self.piece_ends += if piece == 0 { u64::MAX } else { length };
        self.late_until = is_late.then(|| Instant::now() + by);
        self.road.note(|done| done.late += u64::from(is_late));
    }

    /// How many bytes may pass, and what happens after the last of them.
    fn ahead(&self) -> (u64, fn(&mut Self) -> io::Result<()>) {
        let to_split = self.piece_ends - self.passed;
        match self.fate {
            Fate::Cut(way, at) if way == self.way && at - self.passed <= to_split => (at - self.passed, Lane::cut),
            Fate::Reset(way, at) if way == self.way && at - self.passed <= to_split => (at - self.passed, Lane::reset),
            _ => (to_split, Lane::split),
        }
    }

    fn split(&mut self) -> io::Result<()> {
        self.road.note(|done| done.pieces += 1);
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.road.note(|done| done.cut[self.way as usize] += 1);
        self.stage = Stage::Discarding;
        drop(mem::take(&mut self.held));
        self.to.shutdown(Shutdown::Write)
    }

    fn reset(&mut self) -> io::Result<()> {
        self.road.note(|done| done.reset[self.way as usize] += 1);
        Err(io::Error::other("reset by the seed"))
    }

    /// The sender has ended its half.
    fn end(&mut self) -> io::Result<()> {
        let was_open = mem::replace(&mut self.stage, Stage::Over) == Stage::Open;
        if was_open { self.to.shutdown(Shutdown::Write) } else { Ok(()) }
    }
}
