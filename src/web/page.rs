//! The live page: a server beside the one that is watched, with an accept loop and threads of its own, so that a
//! server that is full, or ends, can still be looked at.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::addr::Addr;
use crate::config::invalid;
use crate::outbox::Outbox;
use crate::room::{Presence, Room};
use crate::server::{Config, Handle, Server, Summary};
use crate::socket::Socket;
use crate::web::http::{self, Asked};
use crate::web::live::Live;
use crate::web::refusal::Refusal;
use crate::web::websocket::{self, Limits};

/// How many browsers' connections there may be at once. A page that is open has two.
pub const PLACES: usize = 32;

/// How many connections' worth of threads and descriptors the page takes from the machine: a place has a worker
/// and, in a conversation, a writer.
pub const SHARE: usize = 2 * PLACES + 8;

/// How long browsers may take to leave when the server has ended. They only have to read one frame.
const DRAIN: Duration = Duration::from_millis(300);

/// What a client that only watches may say: nothing, really.
const MOST_SAID_BY_WATCHERS: usize = 1024;

/// The page's files. No others can be asked for: there is no way from a path to the file system.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
    ("/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// What a page is to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names that it may be called by, besides `localhost` and every IP address.
    pub hosts: Vec<String>,
    /// The bounds of a conversation.
    pub limits: Limits,
}

/// A page that is bound: browsers can connect, though nobody answers yet.
///
/// ```
/// use socket_steps::room::Room;
/// use socket_steps::server::{Config, Server};
/// use socket_steps::services;
/// use socket_steps::web::page::{Options, Page};
/// use std::io::{Read, Write};
///
/// let server = Server::bind(["127.0.0.1:0"], Config::default())?;
/// let page = Page::bind("127.0.0.1:0", Options::default())?;
/// let address = page.local_addrs()[0].to_string();
/// let running = page.start(server.handle(), Room::default())?;
///
/// let mut client = std::net::TcpStream::connect(address)?;
/// client.write_all(b"GET /stats.json HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
/// let response = std::io::read_to_string(client)?;
/// assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.contains("\"now\":0"));
/// assert!(running.stop().is_clean());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Page {
    server: Server,
    options: Options,
}

impl Page {
    /// Listens on `HOST:PORT`.
    ///
    /// # Errors
    /// As for [`Server::bind`]; and for a path, to which no browser goes.
    pub fn bind(address: &str, options: Options) -> io::Result<Page> {
        if address.starts_with("unix:") {
            return Err(invalid(format!("'{address}' is a path, and a browser needs HOST:PORT")));
        }
        let config = Config {
            min_workers: 2,
            max_connections: PLACES,
            timeouts: http::TIMEOUTS,
            drain: DRAIN,
            log_level: log::Level::Debug,
            ..Config::default()
        };
        Ok(Page { server: Server::bind([address], config)?, options })
    }

    /// Where it listens, with the real ports.
    pub fn local_addrs(&self) -> &[Addr] {
        self.server.local_addrs()
    }

    /// Shows `watched`, and takes part in `room`, until it is [stopped](Running::stop).
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(self, watched: Handle, room: Room) -> io::Result<Running> {
        let Page { server, options } = self;
        let live = Live::start(watched)?;
        let handle = server.handle();
        let visit = Visit { live: live.clone(), room, options };
        let serving = thread::Builder::new()
            .name("page".to_owned())
            .spawn(move || server.serve(move |socket| visit.answer(socket)))?;
        Ok(Running { handle, live, serving })
    }
}

/// A page that is served.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    live: Live,
    serving: JoinHandle<Summary>,
}

impl Running {
    /// Says goodbye to everyone who watches, and waits until all have gone, but not for long.
    pub fn stop(self) -> Summary {
        self.live.end();
        self.handle.stop();
        match self.serving.join() {
            Ok(summary) => summary,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// What a visitor can get.
struct Visit {
    live: Live,
    room: Room,
    options: Options,
}

impl Visit {
    /// One request, and what follows from it.
    fn answer(&self, mut socket: Socket) -> io::Result<()> {
        let (head, rest) = match http::read_request(&mut socket)? {
            Asked::For(head, rest) => (head, rest),
            Asked::Wrongly(refusal) => return http::refuse(&mut socket, refusal),
            Asked::Nothing => return Ok(()),
        };
        if let Err(refusal) = head.check_host(&self.options.hosts) {
            return http::refuse(&mut socket, refusal);
        }
        let limits = self.options.limits;
        match head.path.as_str() {
            "/stats.json" => {
                let body = self.live.now().to_string();
                http::respond(&mut socket, head.method, "application/json", body.as_bytes())
            }
            "/live" | "/chat" => match websocket::handshake(&head) {
                Ok(response) if head.path == "/chat" => {
                    let enter = |outbox: &Outbox| self.room.enter(outbox, in_a_frame);
                    websocket::converse(socket, response, rest, limits, enter, say_lines)
                }
                Ok(response) => {
                    let limits = Limits { max_message: MOST_SAID_BY_WATCHERS, ..limits };
                    let enter = |outbox: &Outbox| self.live.watch(outbox);
                    websocket::converse(socket, response, rest, limits, enter, |_, _| {})
                }
                Err(refusal) => http::refuse(&mut socket, refusal),
            },
            path => match FILES.iter().find(|(known, ..)| *known == path) {
                Some((_, content_type, text)) => http::respond(&mut socket, head.method, content_type, text.as_bytes()),
                None => http::refuse(&mut socket, Refusal::new(404, "there is nothing by this name")),
            },
        }
    }
}

/// What a browser says in one message may be several lines for the others.
fn say_lines(presence: &Presence, text: &str) {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split('\n').for_each(|line| presence.say(line.as_bytes()));
}

/// A line for a browser. Others may send what is no text: that is replaced, for a browser would hang up.
fn in_a_frame(line: &[u8]) -> Vec<u8> {
    websocket::text(&String::from_utf8_lossy(line))
}
