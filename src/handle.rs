//! What a server can be told and asked, from any thread, and the accounts that it gives at its end.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::addr::Addr;
use crate::shutdown::{Registry, StopHandle};
use crate::stats::{ConnectionInfo, Snapshot, Stats};

/// To stop a server with, and to ask it what it is doing. Clones are for the same server.
#[derive(Clone, Debug)]
pub struct Handle {
    addresses: Arc<[Addr]>,
    started: Instant,
    threads: Arc<AtomicUsize>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) stats: Stats,
    pub(crate) stop: StopHandle,
}

impl Handle {
    /// For a server that has just been bound.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub(crate) fn new(addresses: Arc<[Addr]>, threads: Arc<AtomicUsize>, stats: Stats) -> io::Result<Handle> {
        let stop = StopHandle::new()?;
        let registry = Arc::new(Registry::new(Arc::clone(stop.flag())));
        Ok(Handle { addresses, started: Instant::now(), threads, registry, stats, stop })
    }

    /// Begins an orderly stop; [`serve`](crate::server::Server::serve) returns when it is complete. Again, it changes
    /// nothing.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Whether [`stop`](Handle::stop) was called.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_stopping()
    }

    /// Where the server listens, or has listened.
    pub fn local_addrs(&self) -> &[Addr] {
        &self.addresses
    }

    /// Everything there is to know at this moment.
    pub fn snapshot(&self) -> Snapshot {
        // A connection is taken from the registry, and then told to the statistics: looked at in the other order, nobody
        // who has ended still seems to be there.
        let ended = self.stats.tally().unwrap_or_default().ended;
        let totals = self.registry.totals();
        Snapshot {
            uptime: self.started.elapsed(),
            now: totals.now(),
            peak: totals.peak,
            accepted: totals.accepted(),
            served: totals.opened,
            refused: totals.refused,
            failed: totals.failed,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            threads: self.threads.load(Ordering::Relaxed),
            ended,
            events_dropped: self.stats.dropped(),
            connections: self.registry.connections().iter().map(|one| ConnectionInfo::from(&**one)).collect(),
        }
    }

    /// The accounts, when the server has ended, and why if it was not a stop.
    pub(crate) fn summary(&self, failure: Option<io::Error>) -> Summary {
        let totals = self.registry.totals();
        Summary {
            accepted: totals.accepted(),
            served: totals.opened,
            refused: totals.refused,
            failed: totals.failed,
            opened: totals.opened,
            closed: totals.closed,
            stuck: totals.now(),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            failure,
        }
    }
}

/// The accounts of a server that has ended. Printed, they are one line, in which both equations hold.
#[derive(Debug)]
pub struct Summary {
    /// Connections that accept has given: `served + refused + failed`.
    pub accepted: u64,
    /// Given to a handler.
    pub served: u64,
    /// Turned away with a text.
    pub refused: u64,
    /// Neither was possible.
    pub failed: u64,
    /// The same as `served`: `closed + stuck`.
    pub opened: u64,
    /// Connections whose handler has returned.
    pub closed: u64,
    /// Connections whose handler has not returned.
    pub stuck: u64,
    /// Bytes that handlers have read.
    pub bytes_in: u64,
    /// Bytes that handlers have written.
    pub bytes_out: u64,
    /// Why accepting ended, if it was not a stop.
    pub failure: Option<io::Error>,
}

impl Summary {
    /// Whether it ended because it was stopped, and every handler has returned.
    pub fn is_clean(&self) -> bool {
        self.stuck == 0 && self.failure.is_none()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { accepted, served, refused, failed, opened, closed, stuck, bytes_in, bytes_out, .. } = self;
        write!(f, "accepted {accepted} = served {served} + refused {refused} + failed {failed}; ")?;
        write!(f, "opened {opened} = closed {closed} + stuck {stuck}; in {bytes_in} bytes, out {bytes_out} bytes")
    }
}
