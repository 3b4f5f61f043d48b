//! What can be wrong when `accept` fails, and whom it concerns.

use std::io;

use rustix::io::Errno;

/// What an accept error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nobody is there (any more).
    Nobody,
    /// This one client: it has gone, or the network has lost it. The next may be fine.
    Client,
    /// The machine has run out of something.
    Machine,
    /// The listener itself. It will not get better.
    Listener,
}

impl Trouble {
    /// By number: std has no `ErrorKind` for most of these. See accept(2), "Error handling": on Linux, a
    /// network error that is already pending on the new connection is an error of accept.
    pub(crate) fn of(error: &io::Error) -> Trouble {
        match Errno::from_io_error(error) {
            Some(Errno::WOULDBLOCK) => Trouble::Nobody,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Trouble::Machine,
            Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT) => Trouble::Listener,
            // ECONNABORTED, EPROTO, ENETDOWN, EHOSTUNREACH, EPERM (a firewall), EINTR, and whatever a future
            // kernel adds: better one client lost than the server.
            _ => Trouble::Client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_accept_is_the_clients_the_machines_or_the_listeners() {
        let of = |errno: Errno| Trouble::of(&errno.into());
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::NETDOWN, Errno::HOSTUNREACH, Errno::PERM, Errno::INTR] {
            assert_eq!(of(errno), Trouble::Client, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(of(errno), Trouble::Machine, "{errno}");
        }
        for errno in [Errno::BADF, Errno::INVAL, Errno::NOTSOCK] {
            assert_eq!(of(errno), Trouble::Listener, "{errno}");
        }
        assert_eq!(of(Errno::AGAIN), Trouble::Nobody);
    }
}
