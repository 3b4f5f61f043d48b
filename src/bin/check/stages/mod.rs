//! What is asked of a server, one stage after another. A stage is data: its name, the chapter that
//! introduces it, what it requires, hints by symptom, and a function.

mod ch04;
mod ch05;
mod ch06;
mod ch07;
mod ch08;
mod ch10;
mod ch11;
mod ch12;
mod ch15;
mod ch19;
mod ch19_handshake;
mod ch19_refused;
mod ch19_voice;
mod context;
mod greeting;

pub(crate) use context::Context;

use crate::kernel;
use crate::target::Address;
use crate::trouble::{Stop, Symptom, Trouble, Verdict};

/// A chapter of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Chapter {
    pub(crate) number: usize,
    /// As its program is called.
    pub(crate) slug: &'static str,
}

const SLUGS: [&str; 21] = [
    "ch01_file",
    "ch02_address",
    "ch03_steps",
    "ch04_reply",
    "ch05_stream",
    "ch06_threads",
    "ch07_pool",
    "ch08_timeouts",
    "ch09_stats",
    "ch10_endings",
    "ch11_limits",
    "ch12_shutdown",
    "ch13_server",
    "ch14_client",
    "ch15_ipc",
    "ch16_udp",
    "ch17_reliable",
    "ch18_http",
    "ch19_websocket",
    "ch20_live",
    "ch21_load",
];

impl Chapter {
    pub(crate) const fn new(number: usize) -> Chapter {
        Chapter { number, slug: SLUGS[number - 1] }
    }

    /// Its page in the book.
    pub(crate) fn page(self) -> String {
        format!("tutorial/en/{}.md", self.slug.trim_start_matches("ch").replacen('_', "-", 1))
    }

    pub(crate) fn next(self) -> Option<Chapter> {
        (self.number < SLUGS.len()).then(|| Chapter::new(self.number + 1))
    }

    /// `ch07`, `ch07_pool`.
    pub(crate) fn named(name: &str) -> Option<Chapter> {
        let number = SLUGS.iter().position(|slug| *slug == name || slug.split('_').next() == Some(name))?;
        Some(Chapter::new(number + 1))
    }
}

/// What a stage cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To know how the server answers.
    Answers,
    Limit,
    Deadline,
    /// To have started the server, so as to signal it and to look at its process.
    Spawn,
    /// TCP: only there is a reset.
    Tcp,
    /// A Unix socket: only there is a file.
    Path,
    /// A WebSocket: its messages are frames, not lines.
    WebSocket,
    /// One that has answered a handshake, unless none was asked for.
    Handshake,
}

/// A cause that is likely when the failure looks like this.
type Hint = (&'static [Symptom], &'static str);

pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) chapter: Chapter,
    pub(crate) requirement: &'static str,
    pub(crate) needs: &'static [Need],
    hints: &'static [Hint],
    /// It changes the server for good, or ends it: the next stage needs a new one.
    pub(crate) uses_up_the_server: bool,
    pub(crate) run: fn(&mut Context<'_>) -> Verdict,
}

impl Stage {
    /// The likely cause of a failure that looks like this.
    pub(crate) fn hint(&self, symptom: Symptom) -> &'static str {
        self.own_hint(symptom).unwrap_or_else(|| general_hint(symptom))
    }

    fn own_hint(&self, symptom: Symptom) -> Option<&'static str> {
        let own = self.hints.iter().find(|(symptoms, _)| symptoms.contains(&symptom));
        own.map(|(_, hint)| *hint)
    }

    /// What was seen comes first; then what the stage knows about it.
    pub(crate) fn cause(&self, trouble: &Trouble) -> String {
        match (&trouble.seen, self.own_hint(trouble.symptom)) {
            (None, _) => self.hint(trouble.symptom).to_owned(),
            (Some(seen), Some(own)) => format!("{seen} {own}"),
            (Some(seen), None) => seen.clone(),
        }
    }
}

/// What a symptom usually means, in any stage.
fn general_hint(symptom: Symptom) -> &'static str {
    match symptom {
        Symptom::Refused => {
            "Nobody listens any more. Does the server end after a client or two? Accept in a loop, and let no error \
             of one client end that loop."
        }
        Symptom::Silent => {
            "The server does not answer. Is it still busy with another client? Does it wait for something that this \
             client has not sent? Does it flush what it writes?"
        }
        Symptom::Partial => {
            "A part of the answer is missing. A read may return less than was sent, and a write may take less than it \
             was given: go on until all of it is done (write_all, sendall)."
        }
        Symptom::Changed => "The answer must be the bytes that were sent, in their order, unchanged.",
        Symptom::Torn => {
            "The prefix was put into the middle of a character. A read ends wherever the network cut, not where a \
             character ends: collect bytes until the line is complete, then answer."
        }
        Symptom::Extra => "More came back than was sent. Is the answer to something earlier sent twice?",
        Symptom::Unasked => "The server speaks before it is asked. Here the client speaks first.",
        Symptom::Flood => "The server does not stop sending. Is there a loop that writes without reading?",
        Symptom::Ended => {
            "The server ended the connection although the client was not done. Does an error or an unusual byte end \
             the loop that reads?"
        }
        Symptom::Reset => {
            "A reset: the server closed the connection while input was unread, or its process ended. Read to the end \
             before you close."
        }
        Symptom::Stuck => {
            "The server stopped reading. Does it write without looking whether the other side reads, or wait for \
             something else?"
        }
        Symptom::NotEnded => {
            "The server does not end the connection. When read returns 0, the client has ended: close."
        }
        Symptom::Died => {
            "An error that belongs to one client ended the whole program. Handle it where that client is served."
        }
        Symptom::Seen => "",
    }
}

/// Why a stage cannot run with these options; `None` when it can.
pub(crate) fn missing(stage: &Stage, context: &Context<'_>) -> Option<String> {
    if context.resource.is_some() && !stage.needs.contains(&Need::WebSocket) {
        return Some("a server of WebSocket is not asked for lines".to_owned());
    }
    stage.needs.iter().find_map(|need| match need {
        Need::WebSocket if context.resource.is_none() => {
            Some("needs a server of WebSocket, ws://HOST:PORT/PATH".to_owned())
        }
        Need::Limit if context.limit.is_none() => {
            Some("needs --limit N, the number of clients that it takes".to_owned())
        }
        Need::Deadline if context.deadline.is_none() => {
            Some("needs --deadline D, its idle and message deadline, such as 1s".to_owned())
        }
        Need::Deadline if context.deadline > Some(ch08::LONGEST) => Some(format!(
            "would take too long: start the server with a deadline of at most {} s",
            ch08::LONGEST.as_secs()
        )),
        Need::Spawn if context.server.is_none() => {
            Some("needs --spawn 'COMMAND': a server that it may start and end".to_owned())
        }
        Need::Spawn if !kernel::is_known() => Some("needs /proc, which this system does not have".to_owned()),
        Need::Tcp if matches!(context.address, Address::Unix(_)) => Some("a Unix socket has no reset".to_owned()),
        Need::Path if !matches!(context.address, Address::Unix(_)) => {
            Some("needs a server on a path, unix:PATH".to_owned())
        }
        Need::Handshake if !context.opens => {
            Some("cannot be judged before a handshake is answered with 101".to_owned())
        }
        Need::Answers if context.manner.is_none() => Some("cannot be judged before a greeting is answered".to_owned()),
        _ => None,
    })
}

/// In the order of the book.
pub(crate) fn all() -> impl Iterator<Item = &'static Stage> {
    let chapters = [ch04::STAGES, ch05::STAGES, ch06::STAGES, ch07::STAGES, ch08::STAGES, ch10::STAGES, ch11::STAGES];
    chapters.into_iter().chain([ch12::STAGES, ch15::STAGES, ch19::STAGES]).flatten()
}

/// Stops a stage for a reason that it saw itself.
fn failed(expected: &str, received: impl Into<String>, cause: &str) -> Stop {
    Trouble::new(Symptom::Seen, expected, received).seen(Some(cause)).into()
}
