//! WebSocket (RFC 6455): the handshake that turns an HTTP connection into one, and a conversation in messages.
//!
//! `tungstenite` knows the frames. What a handshake must be is checked here, for it checks neither who asks nor
//! says no; and so is what goes with a connection that others speak to: two threads, an outbox, a heartbeat.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use sha1::{Digest, Sha1};
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use crate::deadline::Timeouts;
use crate::outbox::{Heartbeat, Outbox};
use crate::socket::{OnStop, Socket};
use crate::web::head::{Head, Method};
use crate::web::http;
use crate::web::refusal::Refusal;

/// Appended to the client's key (RFC 6455, section 1.3): whoever answers with the hash of both has read the
/// standard, and is not a server of something else that sends back what it is sent.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a handshake answers to a key.
///
/// ```
/// use socket_steps::web::websocket::accept_key;
/// assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); // RFC 6455's example
/// ```
pub fn accept_key(key: &str) -> String {
    BASE64.encode(&Sha1::digest(format!("{key}{GUID}")))
}

/// The response to a handshake, if it is one and comes from our own page (or from a program that is no browser).
///
/// # Errors
/// What is wrong with it.
pub fn handshake(head: &Head) -> Result<Vec<u8>, Refusal> {
    let accept = accept_key(key_of(head)?);
    let fields = format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
    Ok((http::begin(101) + &fields).into_bytes())
}

/// The client's key, if everything else is right, too (RFC 6455, section 4.2.1).
fn key_of(head: &Head) -> Result<&str, Refusal> {
    if head.method != Method::Get {
        return Err(Refusal::new(405, "a WebSocket begins with GET").with("Allow", "GET"));
    }
    if !head.is_1_1 || !head.lists("upgrade", "websocket") {
        return Err(Refusal::new(426, "this is a WebSocket").with("Upgrade", "websocket"));
    }
    if !head.lists("connection", "upgrade") {
        return Err(Refusal::bad("Upgrade without Connection: Upgrade"));
    }
    // ANCHOR: origin
    // Any page can open a WebSocket to anywhere, and the browser only says which page it is.
    if let Some(origin) = head.field("origin")? {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let is_ours = host.zip(head.authority.as_deref()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
        if !is_ours {
            return Err(Refusal::new(403, "another page's script is not served"));
        }
    }
    // ANCHOR_END: origin
    match head.field("sec-websocket-version")? {
        Some("13") => {}
        Some(_) => return Err(Refusal::new(426, "only version 13").with("Sec-WebSocket-Version", "13")),
        None => return Err(Refusal::bad("the field Sec-WebSocket-Version is missing")),
    }
    let key = head.field("sec-websocket-key")?.ok_or_else(|| Refusal::bad("the field Sec-WebSocket-Key is missing"))?;
    match BASE64.decode(key.as_bytes()) {
        Ok(bytes) if bytes.len() == 16 => Ok(key),
        _ => Err(Refusal::bad("the Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

/// How a conversation is bounded.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many bytes a message may have; one that says it has more is refused before anything is reserved for it.
    pub max_message: usize,
    /// How often the client is asked whether it is there. Every WebSocket client answers by itself.
    pub ping_every: Duration,
    /// For how long nothing at all may come from it.
    pub heard_within: Duration,
    /// How long it may take to accept what is said to it.
    pub write: Duration,
}

impl Default for Limits {
    /// 64 KiB, a ping every 20 s, two of which may be lost, and 10 s.
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        Limits { max_message: 64 * 1024, ping_every: seconds(20), heard_within: seconds(60), write: seconds(10) }
    }
}

/// A conversation, from the `response` to its handshake to its end; `rest` is what has been read of it already.
///
/// `enter` is given what others can speak into, and what it returns is dropped when nothing more may be said; `hear`
/// is told every text. A client that has got the response has entered.
///
/// # Errors
/// Why it ended, unless in good order.
pub fn converse<Presence>(
    mut socket: Socket,
    response: Vec<u8>,
    rest: Vec<u8>,
    limits: Limits,
    enter: impl FnOnce(&Outbox) -> Presence,
    mut hear: impl FnMut(&Presence, &str),
) -> io::Result<()> {
    // There is no idle deadline: what comes next always comes within the same time, if only an answer to a ping.
    socket.set_timeouts(Timeouts { idle: None, message: Some(limits.heard_within), write: Some(limits.write) });
    socket.begin_message(OnStop::Interrupt);
    let ping = Heartbeat { every: limits.ping_every, bytes: encoded(Frame::ping(Vec::new())).into() };
    let outbox = Outbox::new(&socket, limits.max_message);
    outbox.push_own(response.into())?;
    let mut presence = Some(enter(&outbox));
    let writing = match outbox.start(&socket, Some(ping)) {
        Ok(writing) => writing,
        Err(error) => {
            return http::refuse(&mut socket, Refusal::new(503, format!("no thread could be started: {error}")));
        }
    };
    // ANCHOR: tungstenite
    let config = WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(limits.max_message))
        .max_frame_size(Some(limits.max_message));
    let duplex = Duplex { socket, outbox: outbox.clone() };
    let mut websocket = WebSocket::from_partially_read(duplex, rest, Role::Server, Some(config));
    // ANCHOR_END: tungstenite

    let end = loop {
        match websocket.read() {
            Ok(Message::Text(text)) => {
                if let Some(presence) = &presence {
                    hear(presence, text.as_str());
                }
            }
            Ok(Message::Binary(_)) => break End::Wrong(CloseCode::Unsupported, "only text is understood".to_owned()),
            // Its answer is the last thing that we say; the next read sends it.
            Ok(Message::Close(_)) => {
                outbox.retire();
                presence = None;
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(error) => break End::of(error),
        }
    };
    outbox.retire();
    drop(presence);
    let heard = end.say(&mut websocket);
    writing.finish(heard)
}

/// How a conversation has ended.
enum End {
    /// The server is stopping.
    Stopping,
    /// Both sides have said goodbye; or the client has gone without a word, as browsers do.
    Gone,
    /// The client has broken a rule.
    Wrong(CloseCode, String),
    /// Reading or writing has failed.
    Failed(io::Error),
}

impl End {
    fn of(error: Error) -> End {
        let why = error.to_string();
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => End::Gone,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
            Error::Io(error) if Stopping::is(&error) => End::Stopping,
            Error::Io(error) => End::Failed(error),
            Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
                End::Wrong(CloseCode::Size, format!("too long: a message may have at most {max_size} bytes"))
            }
            Error::Capacity(_) => End::Wrong(CloseCode::Size, why),
            Error::Utf8(_) => End::Wrong(CloseCode::Invalid, why),
            _ => End::Wrong(CloseCode::Protocol, why),
        }
    }

    /// Tells the client, and the server's books.
    fn say(self, websocket: &mut WebSocket<Duplex>) -> io::Result<()> {
        let (code, why, result) = match self {
            End::Gone => return Ok(()),
            End::Failed(error) => return Err(error),
            End::Stopping => (CloseCode::Away, "the server is stopping".to_owned(), Ok(())),
            End::Wrong(code, why) => {
                (code, why.clone(), Err(io::Error::new(io::ErrorKind::InvalidData, format!("{code}: {why}"))))
            }
        };
        // With its code it has to fit into a control frame, 125 bytes; all of it is ASCII.
        let reason: String = why.chars().take(120).collect();
        match websocket.close(Some(CloseFrame { code, reason: reason.into() })) {
            // There is nobody to tell; what was wrong is known.
            Err(Error::Io(error)) if result.is_ok() => Err(error),
            _ => result,
        }
    }
}

/// A text as a frame that a server sends.
///
/// ```
/// use socket_steps::web::websocket::text;
/// assert_eq!(text("hello"), b"\x81\x05hello");
/// ```
pub fn text(text: &str) -> Vec<u8> {
    encoded(Frame::message(text.to_owned(), OpCode::Data(Data::Text), true))
}

fn encoded(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing into memory does not fail.
    let _ = frame.format(&mut bytes);
    bytes
}

/// Reads from the socket, and writes into the outbox: what tungstenite writes is always whole frames.
#[derive(Debug)]
struct Duplex {
    socket: Socket,
    outbox: Outbox,
}

impl Read for Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        // An end that is not the client's is no end of the stream: there is something to say yet.
        if count == 0 && self.socket.connection().is_stopping() {
            return Err(io::Error::other(Stopping));
        }
        self.socket.end_message();
        self.socket.begin_message(OnStop::Interrupt);
        Ok(count)
    }
}

impl Write for Duplex {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbox.push_own(Arc::from(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // The writer does not wait to be told.
    }
}

/// The server's own end of a stream.
#[derive(Debug)]
struct Stopping;

impl Stopping {
    fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Stopping>())
    }
}

impl std::fmt::Display for Stopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server is stopping")
    }
}

impl std::error::Error for Stopping {}
