//! Deadlines: how long a connection may take for what, and which of them has passed.

use std::fmt;
use std::io;
use std::time::Duration;

/// How long a connection may take for what. `None` is for ever.
///
/// ```
/// use socket_steps::deadline::Timeouts;
/// use std::time::Duration;
///
/// let patient = Timeouts { idle: Some(Duration::from_secs(300)), ..Timeouts::default() };
/// assert_eq!(patient.message, Some(Duration::from_secs(10)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Without a byte in either direction, between two messages.
    pub idle: Option<Duration>,
    /// From the first byte of a message to its last.
    pub message: Option<Duration>,
    /// For an answer as a whole, until the kernel has taken all of it.
    pub write: Option<Duration>,
}

impl Timeouts {
    /// No deadline at all: for a client that waits for a person.
    pub const NONE: Timeouts = Timeouts { idle: None, message: None, write: None };
}

impl Default for Timeouts {
    /// 30 s of silence, 10 s for a message, 10 s for an answer.
    fn default() -> Timeouts {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Timeouts { idle: seconds(30), message: seconds(10), write: seconds(10) }
    }
}

/// The deadline that has passed: what a [`TimedOut`](io::ErrorKind::TimedOut) error of a [`Socket`](crate::socket::Socket) holds.
///
/// ```
/// use socket_steps::deadline::Deadline;
/// use std::{io, time::Duration};
///
/// let error = io::Error::from(Deadline::Idle(Duration::from_secs(30)));
/// assert_eq!(error.kind(), io::ErrorKind::TimedOut);
/// assert_eq!(error.to_string(), "silent for 30s");
/// assert!(matches!(Deadline::of(&error), Some(Deadline::Idle(_))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Nothing was read or written for this long.
    Idle(Duration),
    /// A message that had begun was not complete after this long.
    Message(Duration),
    /// An answer could not be written in this long, because the other side does not read.
    Write(Duration),
}

impl Deadline {
    /// The deadline in an error, if one is in it.
    pub fn of(error: &io::Error) -> Option<Deadline> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deadline::Idle(limit) => write!(f, "silent for {limit:?}"),
            Deadline::Message(limit) => write!(f, "a message took longer than {limit:?}"),
            Deadline::Write(limit) => write!(f, "an answer was not taken within {limit:?}"),
        }
    }
}

impl std::error::Error for Deadline {}

impl From<Deadline> for io::Error {
    fn from(deadline: Deadline) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, deadline)
    }
}

/// What is left of a limit, unless nothing is. Zero would mean "for ever" to the kernel.
pub(crate) fn left(limit: Duration, elapsed: Duration) -> Option<Duration> {
    limit.checked_sub(elapsed).filter(|left| !left.is_zero())
}

/// In place of a time-out that is not worth keeping: longer than any, so that the next one replaces it.
pub(crate) const REARM: Option<Duration> = Some(Duration::MAX);

/// Whether a time-out of the kernel's need not be set again: one that fires early costs a second look at the clock,
/// which is cheaper than setting it for every message.
pub(crate) fn is_early_enough(armed: Option<Duration>, left: Option<Duration>) -> bool {
    match (armed, left) {
        (Some(armed), Some(left)) => armed <= left,
        (armed, left) => armed == left,
    }
}

/// Sets one of the kernel's time-outs, unless it is early enough already.
pub(crate) fn arm(
    armed: &mut Option<Duration>,
    left: Option<Duration>,
    set: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> io::Result<()> {
    if !is_early_enough(*armed, left) {
        set(left)?;
        *armed = left;
    }
    Ok(())
}
