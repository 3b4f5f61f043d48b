//! One thread: its share of the connections, and the loop that turns whenever one of them can do something.

mod phases;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;

use crate::connection::{Connection, Stage};
use crate::control::{Control, Progress};
use crate::failure::{Failure, Kind};
use crate::plan::{Mode, Plan, Times};
use crate::tally::Tally;
use crate::target::explain;
use crate::timer::Timer;

/// The loop turns at least so often, to see whether it is to end, and whether an answer is overdue.
const TICK: Duration = Duration::from_millis(20);

/// How often an overdue answer is looked for while it may still come in time: it is given up late by one part in so
/// many.
const LOOKS: u32 = 16;

/// How long a connection waits for a free port, for room in a path's backlog, or after it was refused.
const PAUSE: Duration = Duration::from_millis(10);

/// Stands for the timer among the connections.
const TIMER: Token = Token(usize::MAX);

/// What one read takes at most.
const BUFFER: usize = 256 * 1024;

pub(crate) struct Driver<'a> {
    plan: &'a Plan,
    control: &'a Control,
    poll: Poll,
    events: Events,
    timer: Timer,
    connections: Vec<Connection>,
    /// Those that are to try again, and when.
    pauses: VecDeque<(Instant, usize)>,
    /// When it is time to look again for answers that are overdue.
    next_look: Instant,
    buffer: Vec<u8>,
    tally: Tally,
    /// Since when each message is on its way whose connection is gone.
    lost: Vec<Instant>,
    /// The moments of the run, once it has begun.
    times: Option<Times>,
    /// How many connections, from number 0 on, send at given moments: none without a rate, and none any more when
    /// the time is over.
    timed: usize,
    /// How many sockets there have been.
    sockets: usize,
    /// How many have been opened, or have failed before that.
    settled: usize,
    /// How many are not dead.
    alive: usize,
    /// What the others know of that.
    progress: Progress,
}

impl<'a> Driver<'a> {
    /// Drives the connections of these numbers, of which the first may be open already.
    ///
    /// # Errors
    /// When the kernel has no more epolls or timers.
    pub(crate) fn new(plan: &'a Plan, control: &'a Control, numbers: Range<usize>) -> io::Result<Driver<'a>> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        let sockets = numbers.start;
        let connections: Vec<Connection> = numbers.map(Connection::new).collect();
        Ok(Driver {
            plan,
            control,
            poll,
            events: Events::with_capacity(1024),
            timer,
            alive: connections.len(),
            connections,
            pauses: VecDeque::new(),
            next_look: Instant::now(),
            buffer: vec![0; BUFFER],
            tally: Tally::new(),
            lost: Vec::new(),
            times: None,
            timed: plan.rate.map_or(0, |_| plan.talkers()),
            sockets,
            settled: 0,
            progress: Progress::default(),
        })
    }

    /// Waits until something can be done, and does it.
    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        while let Some(&(when, index)) = self.pauses.front()
            && when <= Instant::now()
        {
            self.pauses.pop_front();
            self.connect(index)?;
        }
        let timeout = if self.pauses.is_empty() { timeout } else { timeout.min(PAUSE / 2) };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            polled => polled,
        };
        for event in polled.iter().flat_map(|()| &events) {
            let Token(index) = event.token();
            // All that the timer has to say is that the loop turns.
            if event.token() != TIMER {
                self.connections[index].note(event.is_writable(), event.is_read_closed());
                self.serve(index)?;
            }
        }
        self.events = events;
        let progress = Progress {
            settled: self.settled as u64,
            answered: self.tally.answered,
            failed: self.tally.failures.total(),
        };
        self.control.note_progress(self.progress, progress);
        self.progress = progress;
        polled
    }

    /// Something has happened to this connection.
    fn serve(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        match connection.stage {
            Stage::Connecting => match connection.is_connected() {
                Ok(true) => connection.open(),
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.fail(index, Failure::new(Kind::CannotConnect, explain(&error)));
                    return Ok(());
                }
            },
            Stage::Open => {}
            Stage::Closed | Stage::Dead => return Ok(()),
        }
        if let Err(failure) = self.receive(index) {
            self.fail(index, failure);
            return Ok(());
        }
        if self.plan.mode == Mode::Churn && !self.connections[index].is_waiting() {
            // Load closes first, with nothing unread: an orderly end, whose TIME_WAIT is load's.
            self.close(index, Stage::Closed);
        }
        self.go_on(index)
    }

    /// Takes what has come, and counts the answers.
    fn receive(&mut self, index: usize) -> Result<(), Failure> {
        let (tally, times) = (&mut self.tally, &self.times);
        let mut greeted = false;
        let received = self.connections[index].receive(&self.plan.messages, &mut self.buffer, |since| match times {
            Some(times) => tally.answer(since, Instant::now(), times),
            None => greeted = true,
        });
        self.settled += usize::from(greeted);
        received
    }

    /// Sends what is to be sent, if anything is.
    fn go_on(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        match connection.stage {
            Stage::Open => {
                let (plan, times, timed) = (self.plan, &self.times, self.timed);
                let since = |who, number| since(plan, times.as_ref(), timed, (who, number));
                if let Err(error) = connection.send(&plan.messages, plan.window, since) {
                    // What the server has said before it left tells more than the error does.
                    let received = self.receive(index);
                    self.fail(index, received.err().unwrap_or_else(|| Failure::from_error(&error)));
                }
                Ok(())
            }
            // One that waits for its next try is left alone.
            Stage::Closed if !connection.is_waiting() && connection.goal > connection.begun => self.connect(index),
            _ => Ok(()),
        }
    }

    /// Opens a connection; its first message begins with that.
    fn connect(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if connection.stage != Stage::Closed || (!connection.is_waiting() && connection.goal <= connection.begun) {
            return Ok(());
        }
        if !connection.is_waiting() {
            let which = (connection.number, connection.begun);
            connection.begin(since(self.plan, self.times.as_ref(), self.timed, which));
        }
        self.sockets += 1;
        match self.plan.target.connect(self.sockets) {
            Ok(socket) => self.register(index, socket),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::AddrNotAvailable) => {
                self.tally.waits += 1;
                self.pauses.push_back((Instant::now() + PAUSE, index));
                Ok(())
            }
            Err(error) => {
                self.fail(index, Failure::new(Kind::CannotConnect, explain(&error)));
                Ok(())
            }
        }
    }

    fn register(&mut self, index: usize, socket: Socket) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        // Leaves epoll by itself, when it is closed.
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(index), interest)?;
        self.connections[index].socket = Some(socket);
        self.connections[index].stage = Stage::Connecting;
        Ok(())
    }

    /// This connection is over. In a churning run, the next one may do better.
    fn fail(&mut self, index: usize, failure: Failure) {
        let connection = &mut self.connections[index];
        self.tally.failures.add(connection.number, failure);
        if self.times.is_none() && connection.begun <= 1 && connection.answered == 0 {
            self.settled += 1;
        }
        if self.plan.mode == Mode::Churn && self.times.is_some() {
            self.close(index, Stage::Closed);
            self.pauses.push_back((Instant::now() + PAUSE, index));
        } else {
            self.close(index, Stage::Dead);
            self.alive -= 1;
        }
    }

    /// The connection's socket is closed, and what was on its way is lost, but not forgotten.
    fn close(&mut self, index: usize, stage: Stage) {
        self.lost.extend(self.connections[index].since.drain(..));
        self.connections[index].close(stage);
    }

    /// Gives up the connections that have waited too long for an answer. Looks at them now and then only.
    fn give_up_overdue(&mut self, now: Instant) -> io::Result<()> {
        if now < self.next_look {
            return Ok(());
        }
        let patience = self.plan.patience;
        self.next_look = now + (patience / LOOKS).max(TICK);
        for index in 0..self.connections.len() {
            // Who waits for a free port has asked nobody yet; but opening has to come to an end.
            let has_asked = self.connections[index].socket.is_some() || self.times.is_none();
            if has_asked && self.connections[index].is_overdue(now, patience) {
                // It may be there, and load itself was held up.
                self.serve(index)?;
                let connection = &mut self.connections[index];
                if connection.is_overdue(now, patience) {
                    let message = match connection.answered {
                        0 => "its first message".to_owned(),
                        number => format!("message {number}"),
                    };
                    let what = format!("no answer to {message} in {}", humantime::format_duration(patience));
                    self.fail(index, Failure::new(Kind::NoAnswer, what));
                }
            }
        }
        Ok(())
    }
}

/// Since when a message is on its way: with a rate, since it was due, be that long ago. A server that stalls
/// must not profit from the fact that nobody could ask it in the meantime.
fn since(plan: &Plan, times: Option<&Times>, timed: usize, (connection, number): (usize, u64)) -> Instant {
    match (plan.rate, times) {
        // The greeting has no time of its own.
        (Some(rate), Some(times)) if number > 0 && connection < timed => plan.due(rate, times, connection, number),
        _ => Instant::now(),
    }
}
