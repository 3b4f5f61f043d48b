//! A thread's share of a run, from the first connection to the last answer. Each phase ends in bounded time,
//! whatever the server does: who waits for an answer for too long is given up.

use std::io;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::{Driver, TICK};
use crate::connection::{Connection, Stage};
use crate::failure::Kind;
use crate::plan::{Mode, Times};
use crate::tally::Tally;

/// So many more connections may be opened at once for each that was given up: with a few at a time, it would take
/// hours to find out that a server answers none of ten thousand.
const MORE: u64 = 64;

impl Driver<'_> {
    /// From the first connection to the last answer. Ends in bounded time, whatever the server does.
    ///
    /// # Errors
    /// When the kernel refuses to poll.
    pub(crate) fn run(mut self, first: Option<Socket>) -> io::Result<Tally> {
        self.open_all(first)?;
        let is_open = |one: &&Connection| one.stage != Stage::Dead && one.answered > 0;
        self.tally.opened = self.connections.iter().filter(is_open).count() as u64;
        self.control.note_opened();
        while self.times.is_none() && !self.control.is_over() {
            self.turn(TICK)?;
            self.times = self.control.times();
        }
        if let Some(times) = self.times {
            self.measure(&times)?;
            self.finish(&times)?;
        }
        self.tally.held = self.alive as u64;
        Ok(self.tally)
    }

    /// Opens the connections, and lets each say its first message: only the answer shows that somebody serves
    /// it. A connection that merely stands in the backlog is open, too, for its client.
    fn open_all(&mut self, mut first: Option<Socket>) -> io::Result<()> {
        let mut begun = 0;
        while self.settled < self.connections.len() && !self.control.is_over() {
            let given_up = self.tally.failures.of(Kind::NoAnswer);
            let at_once = self.plan.target.at_once() + (MORE * given_up) as usize;
            while begun < self.connections.len() && begun - self.settled < at_once {
                self.connections[begun].goal = 1;
                match first.take() {
                    Some(socket) => {
                        self.connections[begun].begin(Instant::now());
                        self.register(begun, socket)?;
                    }
                    None => self.connect(begun)?,
                }
                begun += 1;
            }
            self.give_up_overdue(Instant::now())?;
            self.turn(TICK)?;
        }
        Ok(())
    }

    fn measure(&mut self, times: &Times) -> io::Result<()> {
        let rate = self.plan.rate;
        if rate.is_none() {
            for index in 0..self.connections.len() {
                self.connections[index].goal = u64::MAX;
                self.go_on(index)?;
            }
        }
        // With a rate, the connections are due in turns: this is the next one.
        let talkers = self.connections.iter().take_while(|one| one.number < self.plan.talkers()).count();
        let (mut next, mut number) = (0, 1);
        // A schedule goes on when nobody is left to keep it.
        while !self.control.is_over() && (self.alive > 0 || rate.is_some()) {
            let now = Instant::now();
            let mut timeout = TICK.min(times.until.saturating_duration_since(now));
            if let Some(rate) = rate.filter(|_| talkers > 0) {
                let mut due = self.plan.due(rate, times, self.connections[next].number, number);
                while due <= now && due < times.until {
                    let connection = &mut self.connections[next];
                    connection.goal += 1;
                    if connection.goal == connection.begun + 1 && !connection.is_waiting() {
                        self.tally.late(due, now, times);
                    }
                    self.go_on(next)?;
                    next = (next + 1) % talkers;
                    number += u64::from(next == 0);
                    due = self.plan.due(rate, times, self.connections[next].number, number);
                }
                let wait = due.saturating_duration_since(Instant::now());
                self.timer.set(wait)?;
                timeout = timeout.min(wait);
            }
            if now >= times.until {
                break;
            }
            self.give_up_overdue(now)?;
            self.turn(timeout)?;
        }
        Ok(())
    }

    /// Nothing new is sent; what is on its way is waited for, but not for ever.
    fn finish(&mut self, times: &Times) -> io::Result<()> {
        let now = Instant::now();
        self.timed = 0;
        for index in 0..self.connections.len() {
            self.note_unsent(index, times, now);
            let connection = &mut self.connections[index];
            connection.goal = connection.begun;
            match (self.plan.mode, connection.stage) {
                // It still waits for a port, or for room.
                (_, Stage::Closed) => self.close(index, Stage::Closed),
                // Whether those that were silent are still served.
                (Mode::Idle, Stage::Open) => {
                    connection.goal += 1;
                    self.go_on(index)?;
                }
                _ => {}
            }
        }
        self.tally.never_answered(self.lost.drain(..), now, times);
        while !self.control.is_over() && self.connections.iter().any(Connection::is_waiting) {
            self.give_up_overdue(Instant::now())?;
            self.turn(TICK)?;
        }
        // Those that were given up now; and after Ctrl-C, whatever is on its way.
        let waiting = self.connections.iter_mut().flat_map(|connection| connection.since.drain(..));
        self.tally.never_answered(self.lost.drain(..).chain(waiting), Instant::now(), times);
        Ok(())
    }

    /// Counts what was due on this connection in the measured time, and has not been sent.
    fn note_unsent(&mut self, index: usize, times: &Times, now: Instant) {
        let connection = &self.connections[index];
        let Some(rate) = self.plan.rate else { return };
        let period = Duration::from_secs_f64(self.plan.talkers() as f64 / rate);
        let first = self.plan.due(rate, times, connection.number, connection.begun);
        let before = times.from.saturating_duration_since(first).div_duration_f64(period).ceil();
        let unsent = (connection.goal - connection.begun).saturating_sub(before as u64);
        let waited = now.saturating_duration_since(first).saturating_sub(period.mul_f64(before));
        self.tally.never_sent(unsent, waited, period);
    }
}
