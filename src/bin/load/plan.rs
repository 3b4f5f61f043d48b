//! What is to be measured, and when.

use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::messages::Messages;
use crate::target::Target;

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Each connection sends a message, waits for its answer, and sends the next
    Pingpong,
    /// Each connection sends and receives at once, as fast as it can, with a window of bytes on their way
    Stream,
    /// Connect, one message, its answer, close; and again
    Churn,
    /// The connections are held and silent, but for one
    Idle,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Pingpong => "pingpong",
            Mode::Stream => "stream",
            Mode::Churn => "churn",
            Mode::Idle => "idle",
        }
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        if self == Mode::Churn { "connection" } else { "message" }
    }
}

/// Everything that is settled before the first thread is started.
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) target: Target,
    pub(crate) messages: Messages,
    pub(crate) seed: u64,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    /// How many messages of one connection may be on their way.
    pub(crate) window: u64,
    /// Messages a second, all connections together; without it, each answer is followed by the next message.
    pub(crate) rate: Option<f64>,
    pub(crate) warm_up: Duration,
    pub(crate) seconds: Duration,
    /// How long an answer may take before it is given up.
    pub(crate) patience: Duration,
}

/// The moments of a run, known to all threads once every connection is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The first message after the greeting.
    pub(crate) start: Instant,
    /// What is to be sent from here on counts,
    pub(crate) from: Instant,
    /// and up to here. Then nothing new is sent.
    pub(crate) until: Instant,
}

impl Times {
    /// Whether what is to be sent at this moment counts.
    pub(crate) fn contain(&self, moment: Instant) -> bool {
        self.from <= moment && moment < self.until
    }
}

impl Plan {
    /// The moments of a run that starts now, or soon.
    pub(crate) fn times_from(&self, start: Instant) -> Times {
        let from = start + self.warm_up;
        Times { start, from, until: from + self.seconds }
    }

    /// How many connections have messages to send in the measured time.
    pub(crate) fn talkers(&self) -> usize {
        if self.mode == Mode::Idle { 1 } else { self.connections }
    }

    /// When a connection's message of this number is to be sent, with a rate: the connections take turns.
    /// Message 0 is the greeting, which has no time.
    pub(crate) fn due(&self, rate: f64, times: &Times, connection: usize, number: u64) -> Instant {
        let before = number.saturating_sub(1) as f64 * self.talkers() as f64 + connection as f64;
        times.start + Duration::from_secs_f64(before / rate)
    }
}
