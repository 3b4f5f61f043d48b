//! A bad way between clients and a server: it splits what passes, delays it, ends it early, and resets it.
//!
//! What it does to the n-th connection depends on the seed, on n, and on how many bytes have passed: on nothing else,
//! so that the same seed breaks the same places again. And whoever connects is told what will happen, so that a test
//! knows to the byte what must arrive.

use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket_steps::wake::Waker;
use socket2::SockRef;

use crate::lane::{Lane, Stage};
use crate::random::Random;
use crate::support::{BOUND, Client};

/// How bad a way is. The default is a good one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Nothing longer than this passes in one piece. 0: it passes as it comes.
    pub(crate) piece: u64,
    /// How many pieces in a hundred are late,
    pub(crate) late: u8,
    /// and by how much at most.
    pub(crate) late_by: Duration,
    /// How many connections in a hundred lose the rest of one direction, as if its sender had ended its half;
    pub(crate) cut: u8,
    /// how many are reset, on both sides;
    pub(crate) reset: u8,
    /// and before how many bytes of that direction this happens. A message that is as long is hit in its middle.
    pub(crate) within: u64,
}

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the server.
    There,
    /// To the client.
    Back,
}

/// What is to happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// All of it passes.
    Whole,
    /// So many bytes pass in this direction, then its end. The other one goes on.
    Cut(Way, u64),
    /// So many bytes pass in this direction, then both sides are reset.
    Reset(Way, u64),
}

/// What has been done, each fault counted when it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Connections that were carried to the server.
    pub(crate) carried: u64,
    /// Pieces that were sent on by themselves because of a split after them.
    pub(crate) pieces: u64,
    /// Of these: delayed.
    pub(crate) late: u64,
    /// Connections that were cut: in a message, and in an answer.
    pub(crate) cut: [u64; 2],
    /// Connections that were reset: in a message, and in an answer.
    pub(crate) reset: [u64; 2],
}

impl Display for Done {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Done { carried, pieces, late, cut, reset } = self;
        write!(f, "{carried} connections carried in {pieces} pieces, {late} of them late; ")?;
        write!(f, "cut: {} there and {} back; reset: {} there and {} back", cut[0], cut[1], reset[0], reset[1])
    }
}

impl Fate {
    fn of(faults: &Faults, random: &mut Random) -> Fate {
        let (dice, way) = (random.within(0..=99), random.percent(50));
        let way = if way { Way::There } else { Way::Back };
        let at = random.within(1..=faults.within.max(2) - 1);
        let (cut, reset) = (u64::from(faults.cut), u64::from(faults.reset));
        match dice {
            dice if dice < cut => Fate::Cut(way, at),
            dice if dice < cut + reset => Fate::Reset(way, at),
            _ => Fate::Whole,
        }
    }

    /// Which of its ways is to be cut.
    pub(crate) fn is_cut(&self) -> Option<Way> {
        if let Fate::Cut(way, _) = self { Some(*way) } else { None }
    }

    /// In which direction it is to be reset.
    pub(crate) fn is_reset(&self) -> Option<Way> {
        if let Fate::Reset(way, _) = self { Some(*way) } else { None }
    }
}

/// The way, for as long as it is there. Dropped, it closes whatever is still open, and says what it has done.
pub(crate) struct Proxy {
    address: SocketAddr,
    road: Arc<Road>,
    /// What will happen to the next one that connects. Locked while it does.
    fates: Mutex<Receiver<Fate>>,
    accepting: Option<JoinHandle<()>>,
}

/// What the threads of a proxy share.
pub(crate) struct Road {
    server: SocketAddr,
    pub(crate) faults: Faults,
    seed: u64,
    closing: Waker,
    done: Mutex<Done>,
}

impl Proxy {
    pub(crate) fn to(server: SocketAddr, faults: Faults, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, fates) = channel();
        let closing = Waker::new().unwrap();
        let road = Arc::new(Road { server, faults, seed, closing, done: Mutex::default() });
        let accepting = thread::spawn({
            let road = Arc::clone(&road);
            move || road.accept_all(&listener, &tell)
        });
        Proxy { address, road, fates: Mutex::new(fates), accepting: Some(accepting) }
    }

    /// For programs that connect by themselves. Whoever does does not learn its fate.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client on this way, and what will happen to it there.
    pub(crate) fn client(&self) -> (Client, Fate) {
        let fates = self.fates.lock().unwrap();
        // What others have left behind who have connected by themselves.
        while fates.try_recv().is_ok() {}
        let client = Client::connect(self.address);
        (client, fates.recv_timeout(BOUND).expect("the proxy accepts"))
    }

    /// What has been done until now.
    pub(crate) fn done(&self) -> Done {
        *self.road.done.lock().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.road.closing.wake();
        let ended = self.accepting.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the proxy has failed");
        println!("seed {}: {}", self.road.seed, self.done());
    }
}

impl Road {
    /// Until the proxy is dropped; and then until every connection's thread has ended.
    fn accept_all(&self, listener: &TcpListener, tell: &Sender<Fate>) {
        thread::scope(|scope| {
            for number in 0.. {
                let mut watched = [readable(&self.closing), readable(listener)];
                poll(&mut watched, None).unwrap();
                if !watched[0].revents().is_empty() {
                    return;
                }
                let (client, _) = listener.accept().unwrap();
                let mut random = Random::new(self.seed, number);
                let fate = Fate::of(&self.faults, &mut random);
                let _ = tell.send(fate);
                scope.spawn(move || {
                    let Ok(server) = TcpStream::connect(self.server) else { return };
                    self.note(|done| done.carried += 1);
                    // What breaks by itself is passed on as it was: with a reset.
                    if self.carry(&client, &server, fate, &mut random).is_err() {
                        for side in [&client, &server] {
                            let _ = SockRef::from(side).set_linger(Some(Duration::ZERO));
                        }
                    }
                });
            }
        });
    }

    fn carry(&self, client: &TcpStream, server: &TcpStream, fate: Fate, random: &mut Random) -> io::Result<()> {
        for side in [client, server] {
            side.set_nodelay(true)?;
            side.set_nonblocking(true)?;
        }
        let mut ways = [
            Lane::new(self, Way::There, client, server, fate, random.next()),
            Lane::new(self, Way::Back, server, client, fate, random.next()),
        ];
        while ways.iter().any(|way| way.stage != Stage::Over) {
            let mut watched = vec![readable(&self.closing)];
            watched.extend(ways.iter().filter_map(Lane::waits_for));
            let until = ways.iter().filter_map(Lane::sleeps_until).min();
            let left = until.map(|until| Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap());
            poll(&mut watched, left.as_ref())?;
            if !watched[0].revents().is_empty() {
                return Ok(());
            }
            for way in &mut ways {
                match way.go_on() {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    pub(crate) fn note(&self, what: impl FnOnce(&mut Done)) {
        what(&mut self.done.lock().unwrap());
    }
}

fn readable(fd: &impl AsFd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::IN)
}
