//! What the page shows: a server's state as JSON, and the thread that sends it to everyone who watches.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, bounded, never, select};
use serde_json::{Value, json};

use crate::connection::State;
use crate::outbox::Outbox;
use crate::room::{Presence, Room};
use crate::server::Handle;
use crate::stats::Snapshot;
use crate::web::websocket;

/// How often those who watch are told. Twice, before a person would call it late.
const EVERY: Duration = Duration::from_millis(500);

/// A snapshot of ten thousand connections takes a while to put into words: of a core, it may take one part in so
/// many, unless that would be too seldom.
const SHARE: u32 = 20;

/// However many connections there are.
const AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// A snapshot as the page, and whoever asks for `/stats.json`, get it.
pub fn in_json(snapshot: &Snapshot) -> Value {
    let connections = snapshot.connections.iter().map(|one| {
        json!({
            "id": one.id,
            "peer": one.peer.to_string(),
            "age_s": in_seconds(one.age),
            "state": match one.state {
                State::Idle => "idle",
                State::Active => "active",
            },
            "bytes_in": one.bytes_in,
            "bytes_out": one.bytes_out,
        })
    });
    let ended = snapshot.ended.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count)));
    json!({
        "uptime_s": in_seconds(snapshot.uptime),
        "now": snapshot.now,
        "peak": snapshot.peak,
        "accepted": snapshot.accepted,
        "served": snapshot.served,
        "refused": snapshot.refused,
        "failed": snapshot.failed,
        "bytes_in": snapshot.bytes_in,
        "bytes_out": snapshot.bytes_out,
        "threads": snapshot.threads,
        "ended": Value::Object(ended.collect()),
        "events_dropped": snapshot.events_dropped,
        "connections": connections.collect::<Value>(),
    })
}

/// To the millisecond: more digits would only be longer.
fn in_seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

/// Everyone who watches a server. Clones are the same.
#[derive(Clone, Debug)]
pub struct Live {
    watched: Handle,
    audience: Room,
    /// A note that somebody came; one is as good as a hundred.
    arrivals: Sender<()>,
    ending: Sender<()>,
}

impl Live {
    /// Starts the thread that tells the state of `watched` to everyone, for as long as there is anyone.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(watched: Handle) -> io::Result<Live> {
        let (arrivals, came) = bounded(1);
        let (ending, ended) = bounded(1);
        let live = Live { watched, audience: Room::default(), arrivals, ending };
        let publisher = live.clone();
        thread::Builder::new().name("publisher".to_owned()).spawn(move || publisher.publish(&came, &ended))?;
        Ok(live)
    }

    /// The state now.
    pub fn now(&self) -> Value {
        in_json(&self.watched.snapshot())
    }

    /// Begins to watch, with the state as it is now.
    pub fn watch(&self, outbox: &Outbox) -> Presence {
        let presence = self.audience.enter(outbox, <[u8]>::to_vec);
        outbox.replace(self.in_a_frame().into());
        let _ = self.arrivals.try_send(());
        presence
    }

    /// Ends the thread.
    pub fn end(&self) {
        let _ = self.ending.try_send(());
    }

    fn in_a_frame(&self) -> Vec<u8> {
        websocket::text(&self.now().to_string())
    }

    fn publish(&self, came: &Receiver<()>, ended: &Receiver<()>) {
        let mut next = None;
        loop {
            // While nobody watches, nothing is done.
            let time_to_tell = next.map_or_else(never, at);
            select! {
                recv(ended) -> _ => return,
                recv(came) -> _ => next = next.or_else(|| Some(Instant::now() + EVERY)),
                recv(time_to_tell) -> _ => next = self.tell_everyone(),
            }
        }
    }

    /// Returns when to do it again, if there is anyone.
    fn tell_everyone(&self) -> Option<Instant> {
        if self.audience.is_empty() {
            return None;
        }
        let began = Instant::now();
        self.audience.replace(&self.in_a_frame().into());
        Some(began + (began.elapsed() * SHARE).clamp(EVERY, AT_LEAST_EVERY))
    }
}
