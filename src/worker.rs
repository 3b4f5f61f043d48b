//! The life of a connection, from the hand-off to its close, on the thread of a worker.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use crate::config::Config;
use crate::connection::Connection;
use crate::farewell::Farewell;
use crate::handle::Handle;
use crate::pool::Permit;
use crate::socket::Socket;
use crate::stats::{CloseReason, Event};

/// What the accept thread and the workers share.
pub(crate) struct Shared<H> {
    pub(crate) handler: H,
    pub(crate) config: Config,
    pub(crate) farewell: Farewell,
    pub(crate) handle: Handle,
}

impl<H: Fn(Socket) -> io::Result<()>> Shared<H> {
    /// The whole life of a connection, on a worker's thread.
    pub(crate) fn serve(&self, connection: Arc<Connection>, permit: Permit) {
        let stats = &self.handle.stats;
        stats.report(Event::Connected { id: connection.id(), peer: connection.peer().clone() });
        // A client that has gone again already makes this fail; its handler will see that soon enough.
        let _ = connection.stream().set_tcp_options(self.config.no_delay, self.config.keep_alive);
        let socket = Socket::on(Arc::clone(&connection), self.config.timeouts);
        let result = panic::catch_unwind(AssertUnwindSafe(|| (self.handler)(socket)));
        let reason = CloseReason::of(&result, &connection);
        if let Ok(Err(error)) = &result {
            log::debug!("#{}: {error}", connection.id());
        }

        // The order matters: a client that sees its end and comes back at once finds the books right and
        // its place free.
        self.handle.registry.close(&connection);
        drop(permit);
        stats.report(Event::Disconnected {
            id: connection.id(),
            reason,
            age: connection.age(),
            bytes_in: connection.bytes_in(),
            bytes_out: connection.bytes_out(),
        });
        self.close(connection, reason);
    }

    fn close(&self, connection: Arc<Connection>, reason: CloseReason) {
        let stream = connection.stream();
        match reason {
            // Half an answer must not look like a whole one, and the kernel need not keep it for minutes.
            _ if connection.has_half_an_answer() => drop(stream.reset_on_close()),
            // There is nothing left to say, or nobody to say it to.
            CloseReason::Finished | CloseReason::Reset | CloseReason::Aborted | CloseReason::Cut => {}
            _ if connection.was_woken() => self.farewell.leave_unheard_to_it(Arc::clone(&connection)),
            _ => self.farewell.leave_to_it(Arc::clone(&connection)),
        }
        // Dropping the last reference closes the descriptor. A handler that has put its socket aside has
        // another one; the connection ends all the same. (Whoever looks at the connection at this moment, for a
        // snapshot, has one too, but soon lets go of it.)
        if !connection.is_released() {
            connection.cut();
        }
    }
}
