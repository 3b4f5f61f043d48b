//! How a server behaves: its places, its deadlines, and what the machine has to say to that.

use std::io;
use std::time::Duration;

use crate::deadline::Timeouts;
use crate::limits;

/// What a full server does with one more client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenFull {
    /// Tells it so, and closes: it can go elsewhere, or come back.
    #[default]
    Refuse,
    /// Leaves it in the kernel's backlog until there is a place.
    Wait,
}

/// How a server behaves. Every field has a default that is right for most.
///
/// ```
/// use socket_steps::server::{Config, WhenFull};
///
/// let small = Config { max_connections: 8, when_full: WhenFull::Wait, ..Config::default() };
/// assert_eq!(small.min_workers, 4);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads kept ready. 4; never more than `max_connections`.
    pub min_workers: usize,
    /// Connections at most, and so threads at most. 512.
    pub max_connections: usize,
    /// What happens to one client more. It is refused.
    pub when_full: WhenFull,
    /// Connections from one address at most. No limit.
    pub per_source: Option<usize>,
    /// The deadlines of every connection.
    pub timeouts: Timeouts,
    /// How long connections may take to end after a stop. 5 s.
    pub drain: Duration,
    /// Send small answers at once (`TCP_NODELAY`). Yes.
    pub no_delay: bool,
    /// After how long a silence the kernel asks whether the client is still there; ten seconds later it is given
    /// up. Not at all: the idle deadline finds out as well.
    pub keep_alive: Option<Duration>,
    /// At which level the log tells who comes and goes. Info. A server beside the one that matters may be less
    /// talkative.
    pub log_level: log::Level,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            min_workers: 4,
            max_connections: 512,
            when_full: WhenFull::default(),
            per_source: None,
            timeouts: Timeouts::default(),
            drain: Duration::from_secs(5),
            no_delay: true,
            keep_alive: None,
            log_level: log::Level::Info,
        }
    }
}

impl Config {
    /// Refuses what the machine cannot hold: better now than with the last client that fits.
    pub(crate) fn check(&self) -> io::Result<()> {
        let most = limits::tightest();
        match self.max_connections {
            0 => Err(invalid("max_connections is 0: a server for nobody".to_owned())),
            wanted if wanted > most.connections => Err(invalid(format!("max_connections is {wanted}, but {most}"))),
            _ => Ok(()),
        }
    }
}

pub(crate) fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
