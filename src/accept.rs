//! The accept loop, and everything that can go wrong in it.
//!
//! The thread that accepts waits for clients, for a free place, and for the stop, all in one `poll`; and for
//! nothing and nobody else.

use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::addr::Addr;
use crate::backoff::Backoff;
use crate::config::WhenFull;
use crate::connection::Connection;
use crate::listener::{BACKLOG, Listener};
use crate::log_limit::LogLimit;
use crate::pool::{Permit, Pool};
use crate::socket::Socket;
use crate::stats::Event;
use crate::stream::Stream;
use crate::trouble::Trouble;
use crate::wake::{Waker, timespec};
use crate::worker::Shared;

/// How many clients are accepted from one listener before the others, and the stop, are looked at again.
const BATCH: usize = 16;

/// How long a full server looks for a place that is just being given back, before it refuses; and a client whose
/// address has as many connections as it may have waits for one of them to end.
///
/// A client that closes and connects again at once is here before its old thread has noticed the end. A full
/// server grants it once, and again when a place has become free since: a flood is refused as fast as it comes.
const GRACE: Duration = Duration::from_millis(50);

/// How many may wait at the door. A greedy address keeps it full, and then those who come too early are refused
/// at once, as it is.
const AT_THE_DOOR: usize = BATCH;

pub(crate) struct Acceptor<'a, H> {
    /// Non-blocking: one that is readable may have nobody left when we get there, and accept must not wait then.
    listeners: &'a [Listener],
    shared: &'a Arc<Shared<H>>,
    pool: &'a Pool,
    /// Given up for a moment when descriptors have run out, so that a client can be accepted and told. The
    /// kernel completes connections whether or not we accept them: without it, those clients would hang.
    spare: Option<File>,
    backoff: Backoff,
    /// No accepting until then.
    pause_until: Option<Instant>,
    /// The grace was granted, and no place became free.
    grace_is_spent: bool,
    /// Those whose address has to let go of a connection first, and until when they are granted that, the first
    /// one first. Nobody else waits for them.
    at_the_door: Vec<(Stream, Addr, Instant)>,
    complaints: LogLimit,
}

impl<'a, H> Acceptor<'a, H>
where
    H: Fn(Socket) -> io::Result<()> + Send + Sync + 'static,
{
    pub(crate) fn new(listeners: &'a [Listener], shared: &'a Arc<Shared<H>>, pool: &'a Pool) -> Acceptor<'a, H> {
        Acceptor {
            listeners,
            shared,
            pool,
            spare: a_descriptor(),
            // The waits of Go's net/http server.
            backoff: Backoff::new(Duration::from_millis(5), Duration::from_secs(1)),
            pause_until: None,
            grace_is_spent: false,
            at_the_door: Vec::new(),
            complaints: LogLimit::default(),
        }
    }

    /// Returns when the server is stopped, or with the error that makes accepting impossible.
    pub(crate) fn accept_until_stopped(&mut self) -> Option<io::Error> {
        let stop = &self.shared.handle.stop;
        while !stop.is_stopping() {
            let waits_for_a_place = self.must_wait_for_a_place();
            let pause = self.pause_until.map(|until| until.saturating_duration_since(Instant::now()));
            let watched = if waits_for_a_place || pause.is_some() { &[] } else { self.listeners };
            let grace = self.look_at_the_door();
            let ready = wait_for(watched, stop.waker(), pause.into_iter().chain(grace).min());
            self.pause_until = self.pause_until.filter(|until| *until > Instant::now());
            for listener in ready {
                if let Err(error) = self.accept_batch(listener) {
                    let why = format!("{}: {error}", listener.local_addr());
                    log::error!("cannot accept on {why}");
                    return Some(io::Error::new(error.kind(), why));
                }
            }
        }
        None
    }

    /// Whether clients are to stay in the backlog until a place is free.
    fn must_wait_for_a_place(&self) -> bool {
        let places = self.pool.places();
        // The permit is let go at once: nobody but this thread takes one.
        self.shared.config.when_full == WhenFull::Wait && places.take_or_wake(self.shared.handle.stop.waker()).is_none()
    }

    fn accept_batch(&mut self, listener: &Listener) -> io::Result<()> {
        // Another thread may have taken it while it was given up. A new one comes before the next client, or
        // the next time there would be nothing to tell anyone with.
        if self.spare.is_none() {
            self.spare = a_descriptor();
        }
        let mut lost = 0;
        for _ in 0..BATCH {
            // With `wait`, a place comes before accept; with `refuse`, whoever is there has to be told.
            let permit = self.pool.places().take();
            if permit.is_none() && self.shared.config.when_full == WhenFull::Wait {
                return Ok(());
            }
            match listener.accept() {
                Ok((stream, peer)) => {
                    self.backoff.after_success();
                    self.welcome(stream, peer, permit);
                }
                Err(error) => match Trouble::of(&error) {
                    Trouble::Nobody => return Ok(()),
                    Trouble::Client => {
                        self.complaints.log(format_args!("a client was lost before accept: {error}"));
                        lost += 1;
                        // So many in a row are no accident.
                        if lost == BATCH {
                            self.pause_because(&error);
                        }
                    }
                    Trouble::Machine => match self.tell_with_the_spare(listener) {
                        Ok(()) => {} // What was missing for this one may be there for the next.
                        Err(error) if Trouble::of(&error) == Trouble::Machine => {
                            self.pause_because(&error);
                            return Ok(());
                        }
                        Err(error) if Trouble::of(&error) == Trouble::Nobody => return Ok(()),
                        Err(error) => return Err(error),
                    },
                    Trouble::Listener => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn pause_because(&mut self, error: &io::Error) {
        let pause = self.backoff.after_failure();
        self.complaints.log(format_args!("cannot accept, next try in {pause:?}: {error}"));
        self.pause_until = Some(Instant::now() + pause);
    }

    /// Gives a client to a worker, lets it wait at the door, or tells it why not.
    fn welcome(&mut self, stream: Stream, peer: Addr, permit: Option<Permit>) {
        let Some(permit) = permit.or_else(|| self.look_for_a_place()) else {
            let places = self.shared.config.max_connections;
            let text = format!("busy: all places are taken ({places} of {places}), try again later");
            return self.turn_away(stream, peer, &text);
        };
        self.grace_is_spent = false;
        if let Err((stream, peer)) = self.admit(stream, peer, permit) {
            match self.at_the_door.len() < AT_THE_DOOR {
                true => self.at_the_door.push((stream, peer, Instant::now() + GRACE)),
                false => self.turn_away_from_the_door(stream, peer),
            }
        }
    }

    /// Lets those in who have waited at the door for their address to let go of a connection, and turns those
    /// away who have waited long enough. Returns how long the next one may still wait.
    fn look_at_the_door(&mut self) -> Option<Duration> {
        if !self.at_the_door.is_empty() {
            // Before the look, or a connection that ends after it would wake nobody.
            self.pool.places().wake(self.shared.handle.stop.waker());
        }
        for (stream, peer, until) in mem::take(&mut self.at_the_door) {
            let has_room = self.shared.handle.registry.has_room_for(&peer, self.shared.config.per_source);
            match has_room.then(|| self.pool.places().take()).flatten() {
                // Nobody but this thread opens connections: there is still room for it.
                Some(permit) => drop(self.admit(stream, peer, permit)),
                None if Instant::now() < until => self.at_the_door.push((stream, peer, until)),
                None => self.turn_away_from_the_door(stream, peer),
            }
        }
        self.at_the_door.first().map(|(.., until)| until.saturating_duration_since(Instant::now()))
    }

    /// Gives a client to a worker, or tells it that there is none.
    ///
    /// # Errors
    /// Gives it back if its address has as many connections as it may have.
    fn admit(&mut self, stream: Stream, peer: Addr, permit: Permit) -> Result<(), (Stream, Addr)> {
        let registry = &self.shared.handle.registry;
        let connection = registry.open(stream, peer, self.shared.config.per_source)?;
        let (shared, for_worker) = (Arc::clone(self.shared), Arc::clone(&connection));
        let Err(failed) = self.pool.run(Box::new(move || shared.serve(for_worker, permit))) else { return Ok(()) };

        registry.withdraw(&connection);
        self.complaints.log(format_args!("{failed}"));
        drop(failed); // With the job go its permit and its share of the connection.
        let text = "busy: no thread could be started, try again later";
        self.send_home(connection, text);
        Ok(())
    }

    /// A place, if one becomes free within the grace.
    fn look_for_a_place(&mut self) -> Option<Permit> {
        let stop = &self.shared.handle.stop;
        let began = Instant::now();
        while !self.grace_is_spent && !stop.is_stopping() {
            if let Some(permit) = self.pool.places().take_or_wake(stop.waker()) {
                return Some(permit);
            }
            let left = GRACE.saturating_sub(began.elapsed());
            self.grace_is_spent = left.is_zero();
            wait_for(&[], stop.waker(), Some(left));
        }
        None
    }

    fn turn_away_from_the_door(&self, stream: Stream, peer: Addr) {
        let text = "busy: your address has as many connections as one address may have, try again later";
        self.turn_away(stream, peer, text);
    }

    fn turn_away(&self, stream: Stream, peer: Addr, text: &str) {
        let stopping = Arc::clone(self.shared.handle.stop.flag());
        self.send_home(Arc::new(Connection::new(0, stream, peer, stopping)), text);
    }

    fn send_home(&self, connection: Arc<Connection>, text: &str) {
        let told = send_at_once(connection.stream(), text);
        self.count_turned_away(told, connection.peer().clone(), text);
        if told {
            self.shared.farewell.leave_to_it(connection);
        }
    }

    fn count_turned_away(&self, told: bool, peer: Addr, text: &str) {
        self.shared.handle.registry.turn_away(told);
        self.shared.handle.stats.report(match told {
            true => Event::Refused { peer, text: text.to_owned() },
            false => Event::Failed { peer },
        });
    }

    /// Accepts one with the descriptor that was kept for this, tells it, and closes at once: there is no
    /// descriptor for a polite close.
    ///
    /// # Errors
    /// When nobody is there, or when not even that works, and only time can help.
    fn tell_with_the_spare(&mut self, listener: &Listener) -> io::Result<()> {
        drop(self.spare.take());
        let accepted = listener.accept().map(|(stream, peer)| {
            let text = "busy: no descriptors are left, try again later";
            let told = send_at_once(&stream, text);
            self.count_turned_away(told, peer, text);
            drop(stream); // Closed: its descriptor is the next spare.
        });
        self.spare = a_descriptor();
        accepted.or_else(|error| if Trouble::of(&error) == Trouble::Client { Ok(()) } else { Err(error) })
    }

    /// Tells everyone at the door, and everyone whom the kernel has accepted and we have not. Closing the listener
    /// first would reset them.
    pub(crate) fn turn_away_the_backlog(&mut self) {
        const STOPPING: &str = "stopping: the server is going down, try again later";
        for (stream, peer, _) in mem::take(&mut self.at_the_door) {
            self.turn_away(stream, peer, STOPPING);
        }
        for listener in self.listeners {
            // As many as can have been there when this began. Others may come as fast as they are told, and
            // would keep the server from ever ending.
            for _ in 0..=BACKLOG {
                match listener.accept() {
                    Ok((stream, peer)) => self.turn_away(stream, peer, STOPPING),
                    Err(error) => match Trouble::of(&error) {
                        Trouble::Client => {}
                        Trouble::Machine if self.tell_with_the_spare(listener).is_ok() => {}
                        _ => break,
                    },
                }
            }
        }
    }
}

/// Sends a line without waiting; says whether the kernel has taken it. It fits into the buffer of a fresh
/// socket, so it fails only when the client has gone.
fn send_at_once(stream: &Stream, text: &str) -> bool {
    let line = format!("{text}\n");
    stream.write_at_once(line.as_bytes()).is_ok_and(|count| count == line.len())
}

/// A descriptor to give up when there are no others.
fn a_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Waits until one of the listeners has someone, or the waker is woken, or the time is over; returns the
/// listeners that have.
fn wait_for<'a>(listeners: &'a [Listener], waker: &Waker, limit: Option<Duration>) -> Vec<&'a Listener> {
    let mut watched = vec![PollFd::new(waker, PollFlags::IN)];
    watched.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
    let limit = limit.map(timespec);
    if poll(&mut watched, limit.as_ref()).is_err() {
        return Vec::new(); // Interrupted by a signal: the caller looks at its flags and comes back.
    }
    if !watched[0].revents().is_empty() {
        waker.clear();
    }
    let ready = watched[1..].iter().map(|fd| !fd.revents().is_empty());
    listeners.iter().zip(ready).filter_map(|(listener, ready)| ready.then_some(listener)).collect()
}
