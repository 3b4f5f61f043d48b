//! Chapter 20: one room for browsers and plain sockets, in which nobody waits for anybody.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::info;
use rustix::event::{PollFd, PollFlags, poll};
use socket_steps::chapter::{Part, give_up, part};
use socket_steps::narrate;
use socket_steps::room::Room;
use socket_steps::server::{Config, Server};
use socket_steps::services;
use socket_steps::web::page::{self, Page};
use tungstenite::protocol::{Role, WebSocket};

const LIMIT: usize = 64 * 1024;

fn main() -> io::Result<()> {
    match part("ch20_live [server [ADDR]]") {
        Part::Server(options) => server(&options.address).map_err(give_up),
        _ => scene(),
    }
}

// ANCHOR: tempting
/// The tempting room: whoever speaks writes to all the others.
#[derive(Clone, Default)]
struct TemptingRoom(Arc<Mutex<BTreeMap<u64, TcpStream>>>);

impl TemptingRoom {
    fn say(&self, number: u64, line: &[u8]) {
        let members = self.lock();
        for (_, mut member) in members.iter().filter(|(other, _)| **other != number) {
            let _ = member.write_all(line); // Whoever is gone leaves by itself.
        }
    }
}
// ANCHOR_END: tempting

impl TemptingRoom {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one more in, and gives it a thread.
    fn welcome(&self, number: u64, stream: TcpStream) -> io::Result<()> {
        let (room, member) = (self.clone(), stream.try_clone()?);
        self.lock().insert(number, member);
        thread::spawn(move || {
            let lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
            lines.for_each(|line| room.say(number, &[&line[..], b"\n"].concat()));
            room.lock().remove(&number);
        });
        Ok(())
    }
}

// ANCHOR: server
fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let room = Room::default();
    let server = Server::bind([address], Config::default())?;
    println!("listening on {}", server.local_addrs()[0]);
    let page = bind_page("127.0.0.1:8081").or_else(|_| bind_page("127.0.0.1:0"))?;
    info!(target: "server", "live page on http://{}/", page.local_addrs()[0]);
    let page = page.start(server.handle(), room.clone())?;

    let handle = server.handle();
    ctrlc::set_handler(move || {
        if handle.is_stopping() {
            process::exit(130); // The second time: at once.
        }
        handle.stop();
    })
    .map_err(io::Error::other)?;

    let summary = server.serve(services::chat(room, LIMIT));
    page.stop();
    println!("{summary}");
    process::exit(if summary.is_clean() { 0 } else { 1 })
}
// ANCHOR_END: server

fn bind_page(address: &str) -> io::Result<Page> {
    Page::bind(address, page::Options::default())
}

/// Someone in a room.
struct Member {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Member {
    fn connect(name: &str, address: SocketAddr) -> io::Result<Member> {
        let stream = TcpStream::connect(address)?;
        info!(target: name, "connected");
        Ok(Member { stream: BufReader::new(stream), line: Vec::new() })
    }

    /// A line, filled up so that a slow reader is soon known to be one.
    fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(format!("{text:60000}\n").as_bytes())
    }

    /// The next line; none, if it takes longer than this.
    fn hear(&mut self, patience: Duration) -> io::Result<Option<String>> {
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        match self.stream.read_until(b'\n', &mut self.line) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Some(String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads on until this is heard.
    fn wait_for(&mut self, text: &str) -> io::Result<()> {
        while self.hear(Duration::from_secs(30))?.ok_or(io::ErrorKind::TimedOut)? != text {}
        Ok(())
    }
}

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "speaker", "viewer", "slow"]);
    writes_itself()?;
    has_outboxes()
}

fn writes_itself() -> io::Result<()> {
    info!(target: "server", "a room without outboxes");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, room) = (listener.local_addr()?, TemptingRoom::default());
    let enter = |number, name| {
        let member = Member::connect(name, address);
        room.welcome(number, listener.accept()?.0)?;
        member
    };
    let slow = enter(1, "slow")?;
    let mut viewer = enter(2, "viewer")?;
    let mut speaker = enter(3, "speaker")?;

    info!(target: "slow", "reading nothing");
    info!(target: "speaker", "sending lines");
    let mut count = 0;
    loop {
        count += 1;
        speaker.say(&count.to_string())?;
        if viewer.hear(Duration::from_millis(500))?.is_none() && room.0.try_lock().is_err() {
            break;
        }
    }
    info!(target: "viewer", "received line after line");
    info!(target: "viewer", "nothing for half a second");
    info!(target: "server", "somebody holds the lock");
    info!(target: "slow", "leaving");
    drop(slow);
    viewer.wait_for(&count.to_string())?;
    info!(target: "viewer", "received the next");
    Ok(())
}

fn has_outboxes() -> io::Result<()> {
    info!(target: "server", "a room with outboxes");
    let server = Server::bind(["127.0.0.1:0"], Config::default())?;
    let address = server.local_addrs()[0].to_string().parse().map_err(io::Error::other)?;
    let (handle, room) = (server.handle(), Room::default());
    let page = bind_page("127.0.0.1:0")?;
    let page_address = page.local_addrs()[0].to_string();
    let page = page.start(server.handle(), room.clone())?;
    let serving = thread::spawn(move || server.serve(services::chat(room, LIMIT)));

    let mut viewer = Member::connect("viewer", address)?;
    let mut speaker = Member::connect("speaker", address)?;
    // A room does not say when one has entered it: whoever hears something has.
    loop {
        speaker.say("0")?;
        if viewer.hear(Duration::from_millis(100))?.is_some() {
            break;
        }
    }
    let slow = Member::connect("slow", address)?;
    info!(target: "slow", "reading nothing");
    info!(target: "speaker", "sending lines");
    let mut count = 0;
    while handle.snapshot().ended.is_empty() {
        count += 1;
        speaker.say(&count.to_string())?;
        viewer.wait_for(&count.to_string())?;
    }
    info!(target: "viewer", "received every line");
    for (reason, count) in handle.snapshot().ended {
        info!(target: "server", "ended {count}, for: {reason}");
    }
    reads_at_last(slow)?;

    drop(viewer);
    browser(&page_address, &mut speaker)?;
    drop(speaker);
    handle.stop();
    page.stop();
    serving.join().map_err(|_| io::Error::other("the server has panicked"))?;
    Ok(())
}

fn reads_at_last(mut slow: Member) -> io::Result<()> {
    // Not before its end is here. (poll wakes for that without being asked.)
    poll(&mut [PollFd::new(slow.stream.get_ref(), PollFlags::empty())], None)?;
    let end = loop {
        if let Err(error) = slow.hear(Duration::from_secs(30)) {
            break error;
        }
    };
    info!(target: "slow", "reading at last: some lines, then {}", end.kind());
    Ok(())
}

/// The viewer again, as a browser does it: /chat on the page's port.
fn browser(page: &str, speaker: &mut Member) -> io::Result<()> {
    let mut stream = TcpStream::connect(page)?;
    stream.write_all(
        b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        line.clear();
    }
    info!(target: "viewer", "here again, as a browser");
    let mut viewer = WebSocket::from_raw_socket(stream.into_inner(), Role::Client, None);
    info!(target: "speaker", "sending 보이세요?");
    speaker.stream.get_mut().write_all("보이세요?\n".as_bytes())?;
    let heard = viewer.read().map_err(io::Error::other)?;
    info!(target: "viewer", "received {heard}");
    info!(target: "viewer", "sending 네!");
    viewer.send("네!".into()).map_err(io::Error::other)?;
    let heard = speaker.hear(Duration::from_secs(30))?.unwrap_or_default();
    info!(target: "speaker", "received {heard}");
    Ok(())
}
