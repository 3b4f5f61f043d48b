//! Chapter 19: WebSocket, byte by byte. A connection begins as HTTP, and then both sides may speak.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use data_encoding::BASE64;
use log::info;
use sha1::{Digest, Sha1};
use socket_steps::chapter::{Part, give_up, part};
use socket_steps::deadline::Timeouts;
use socket_steps::narrate;
use socket_steps::outbox::{Heartbeat, Outbox};
use socket_steps::room::Room;
use socket_steps::server::{Config, Server};
use socket_steps::socket::{OnStop, Socket};
use socket_steps::web::head::{Head, Method};
use socket_steps::web::http::{self, Asked};
use socket_steps::web::refusal::Refusal;

const PREFIX: &str = "서버 응답: ";
const NEWS: &str = "서버 소식: 잘 지냅니다";

/// How many bytes a text may have.
const MOST: usize = 64 * 1024;

/// A client that says nothing is asked whether it is there; one of which nothing comes is not.
const PING_EVERY: Duration = Duration::from_secs(20);
const HEARD_WITHIN: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    match part("ch19_websocket [server [ADDR] | client [ADDR]]") {
        Part::Scene => scene(),
        Part::Server(options) => server(&options.address).map_err(give_up),
        Part::Client(address) => client(&address).map_err(give_up),
    }
}

// ANCHOR: accept_key
/// From RFC 6455, and from nowhere else.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a server answers to a client's key.
fn accept_key(key: &str) -> String {
    BASE64.encode(&Sha1::digest(format!("{key}{GUID}")))
}
// ANCHOR_END: accept_key

/// The last response in HTTP on this connection.
fn handshake(head: &Head) -> Result<String, Refusal> {
    let asks = head.lists("upgrade", "websocket") && head.lists("connection", "upgrade");
    if !asks || head.method != Method::Get || !head.is_1_1 {
        return Err(Refusal { field: Some(("Upgrade", "websocket")), ..Refusal::new(426, "this is a WebSocket") });
    }
    if head.field("sec-websocket-version")? != Some("13") {
        return Err(Refusal { field: Some(("Sec-WebSocket-Version", "13")), ..Refusal::new(426, "only version 13") });
    }
    let key = head.field("sec-websocket-key")?.unwrap_or_default();
    if !BASE64.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == 16) {
        return Err(Refusal::new(400, "the key is not 16 bytes in base64"));
    }
    let accept = accept_key(key);
    info!(target: "server", "GET {}, key {key}", head.path);
    info!(target: "server", "101, accept {accept}");
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

/// What goes over the connection after that, in both directions. Those of a client are masked, the others not.
struct Frame {
    is_last: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    payload: Vec<u8>,
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why a conversation ends.
enum End {
    /// The client has said goodbye, with this payload.
    Goodbye(Vec<u8>),
    /// It has broken a rule: the number and the words for that.
    Wrong(u16, &'static str),
    Lost(io::Error),
}

const TOO_LONG: End = End::Wrong(1009, "too long: a text may have at most 65536 bytes");

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Lost(error)
    }
}

// ANCHOR: read_frame
/// Reads a frame.
fn read_frame(from: &mut impl Read, is_from_client: bool) -> Result<Frame, End> {
    let [first, second] = read_bytes(from)?;
    let length = match second & 0x7f {
        126 => u16::from_be_bytes(read_bytes(from)?).into(),
        127 => u64::from_be_bytes(read_bytes(from)?),
        short => short.into(),
    };
    let mask = if second & 0x80 != 0 { Some(read_bytes(from)?) } else { None };
    check(first, length, mask.is_some(), is_from_client)?;
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload)?;
    apply(mask, &mut payload);
    Ok(Frame { is_last: first & 0x80 != 0, opcode: first & 0x0f, mask, payload })
}
// ANCHOR_END: read_frame

/// Before a byte of the payload is read, or memory reserved for it.
fn check(first: u8, length: u64, is_masked: bool, is_from_client: bool) -> Result<(), End> {
    if first & 0x70 != 0 {
        return Err(End::Wrong(1002, "a reserved bit is set"));
    }
    if is_masked != is_from_client {
        return Err(End::Wrong(1002, if is_from_client { "not masked" } else { "masked" }));
    }
    if first & 0x0f >= CLOSE && (first & 0x80 == 0 || length > 125) {
        return Err(End::Wrong(1002, "a control frame is whole, and short"));
    }
    if length > MOST as u64 { Err(TOO_LONG) } else { Ok(()) }
}

fn read_bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Masks what is not, and unmasks what is: done twice, it was never done.
fn apply(mask: Option<[u8; 4]>, payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.unwrap_or_default().iter().cycle()) {
        *byte ^= key;
    }
}

impl Frame {
    fn encode(&self) -> Vec<u8> {
        let is_masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.opcode | if self.is_last { 0x80 } else { 0 }];
        match self.payload.len() {
            length @ 0..=125 => bytes.push(is_masked | length as u8),
            length @ 126..=0xffff => {
                bytes.push(is_masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(is_masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(self.mask.iter().flatten());
        let start = bytes.len();
        bytes.extend(&self.payload);
        apply(self.mask, &mut bytes[start..]);
        bytes
    }

    fn from_server(opcode: u8, payload: &[u8]) -> Frame {
        Frame { is_last: true, opcode, mask: None, payload: payload.to_vec() }
    }

    fn name(&self) -> &'static str {
        match self.opcode {
            CONTINUATION => "continuation",
            TEXT => "text",
            BINARY => "binary",
            CLOSE => "close",
            PING => "ping",
            PONG => "pong",
            _ => "unknown",
        }
    }

    /// How its bytes begin.
    fn tell(&self, what_happens: &str) {
        let bytes = self.encode();
        let shown: Vec<String> = bytes.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let more = if bytes.len() > shown.len() { " …" } else { "" };
        info!(target: "server", "{what_happens} {}{more}", shown.join(" "));
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fin = if self.is_last { "FIN, " } else { "" };
        let masked = if self.mask.is_some() { "masked, " } else { "" };
        write!(f, "{fin}{masked}{} bytes, {}", self.payload.len(), self.name())?;
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(50).collect::<String>();
        match &self.payload[..] {
            [] => Ok(()),
            [high, low] if self.opcode == CLOSE => write!(f, " {}", u16::from_be_bytes([*high, *low])),
            [high, low, why @ ..] if self.opcode == CLOSE => {
                write!(f, " {} {:?}", u16::from_be_bytes([*high, *low]), words(why))
            }
            payload => write!(f, " {:?}", words(payload)),
        }
    }
}

/// Waits for a text, and joins its fragments. Pings are answered meanwhile.
fn next_text(reader: &mut BufReader<Socket>, outbox: &Outbox) -> Result<String, End> {
    let (mut text, mut has_begun) = (Vec::new(), false);
    loop {
        // One deadline for each frame, from the one before to its end.
        reader.get_mut().end_message();
        reader.get_mut().begin_message(OnStop::Interrupt);
        let frame = read_frame(reader, true)?;
        frame.tell("received");
        info!(target: "server", "= {frame}");
        // ANCHOR: opcodes
        match frame.opcode {
            PING => send(outbox, PONG, &frame.payload)?,
            PONG => {}
            CLOSE => return Err(goodbye(frame.payload)),
            BINARY => return Err(End::Wrong(1003, "only text is understood")),
            TEXT if !has_begun => (text, has_begun) = (frame.payload, true),
            CONTINUATION if has_begun => text.extend(frame.payload),
            _ => return Err(End::Wrong(1002, "this frame may not come here")),
        }
        // ANCHOR_END: opcodes
        if text.len() > MOST {
            return Err(TOO_LONG);
        }
        if frame.is_last && frame.opcode < CLOSE {
            return String::from_utf8(text).map_err(|_| End::Wrong(1007, "not UTF-8"));
        }
    }
}

/// A goodbye may give a reason: a number, and words.
fn goodbye(payload: Vec<u8>) -> End {
    let code = match &payload[..] {
        [] => 1000,
        [_] => 0,
        [_, _, why @ ..] if std::str::from_utf8(why).is_err() => return End::Wrong(1007, "not UTF-8"),
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
    };
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => End::Goodbye(payload),
        _ => End::Wrong(1002, "not a reason that may be given"),
    }
}

/// For the thread that reads: hands a frame to the one that writes.
fn send(outbox: &Outbox, opcode: u8, payload: &[u8]) -> io::Result<()> {
    let frame = Frame::from_server(opcode, payload);
    frame.tell("sending");
    outbox.push_own(frame.encode().into())
}

/// A connection, from its first byte to its last.
fn converse(mut socket: Socket, news: &Room) -> io::Result<()> {
    let (head, response) = match begin(&mut socket)? {
        Some(Ok(begun)) => begun,
        Some(Err(refusal)) => return http::refuse(&mut socket, refusal),
        None => return Ok(()),
    };
    socket.set_timeouts(Timeouts { message: Some(HEARD_WITHIN), ..http::TIMEOUTS });
    // ANCHOR: two_threads
    let outbox = Outbox::new(&socket, MOST);
    outbox.push_own(response.into_bytes().into())?;
    let presence = (head.path == "/news").then(|| news.enter(&outbox, |text| text.to_vec()));
    let ping = Frame::from_server(PING, b"").encode();
    let writing = outbox.start(&socket, Some(Heartbeat { every: PING_EVERY, bytes: ping.into() }))?;
    // ANCHOR_END: two_threads

    let mut reader = BufReader::new(socket);
    let answer = |text: String| Ok(send(&outbox, TEXT, format!("{PREFIX}{text}").as_bytes())?);
    let end = loop {
        if let Err(end) = next_text(&mut reader, &outbox).and_then(answer) {
            break end;
        }
    };
    outbox.retire(); // Nothing may come after our goodbye.
    drop(presence);
    writing.finish(match end {
        End::Goodbye(payload) => send(&outbox, CLOSE, &payload),
        End::Wrong(code, why) => send(&outbox, CLOSE, &[&code.to_be_bytes(), why.as_bytes()].concat()),
        End::Lost(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        End::Lost(error) => Err(error),
    })
}

/// The request and the response to it, if anything is asked.
fn begin(socket: &mut Socket) -> io::Result<Option<Result<(Head, String), Refusal>>> {
    Ok(match http::read_request(socket)? {
        Asked::For(head, rest) if rest.is_empty() => Some(handshake(&head).map(|response| (head, response))),
        Asked::For(..) => Some(Err(Refusal::new(400, "a client waits for the response before it goes on"))),
        Asked::Wrongly(refusal) => Some(Err(refusal)),
        Asked::Nothing => None,
    })
}

/// Tells everyone who is silent on /news, and everyone who is not.
fn publish(news: &Room) {
    news.replace(&Frame::from_server(TEXT, NEWS.as_bytes()).encode().into());
}

fn bind(address: &str) -> io::Result<Server> {
    Server::bind([address], Config { timeouts: http::TIMEOUTS, log_level: log::Level::Debug, ..Config::default() })
}

fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let server = bind(address)?;
    println!("listening on {}", server.local_addrs()[0]);
    let news = Room::default();
    let everyone = news.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            publish(&everyone);
        }
    });
    server.serve(move |socket| converse(socket, &news));
    Ok(())
}

/// The other side.
struct Client {
    stream: BufReader<TcpStream>,
    mask: fn() -> io::Result<[u8; 4]>,
}

impl Client {
    fn open(address: &str, path: &str, key: &str, mask: fn() -> io::Result<[u8; 4]>) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        (&stream).write_all(request.as_bytes())?;
        let mut stream = BufReader::new(stream);
        let lines: Vec<String> = stream.by_ref().take(8192).lines().map_while(line_of_head).collect();
        let accept = format!("Sec-WebSocket-Accept: {}", accept_key(key));
        match lines.first().is_some_and(|line| line.starts_with("HTTP/1.1 101 ")) && lines.contains(&accept) {
            true => Ok(Client { stream, mask }),
            false => Err(io::Error::other(format!("this is no WebSocket: {}", lines.join(", ")))),
        }
    }

    fn send(&mut self, is_last: bool, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let frame = Frame { is_last, opcode, mask: Some((self.mask)()?), payload: payload.to_vec() };
        self.stream.get_mut().write_all(&frame.encode())
    }

    fn receive(&mut self) -> io::Result<Frame> {
        read_frame(&mut self.stream, false).map_err(|end| match end {
            End::Lost(error) => error,
            End::Goodbye(_) => io::ErrorKind::UnexpectedEof.into(),
            End::Wrong(_, why) => io::Error::other(why),
        })
    }

    /// The next text; pings are answered meanwhile.
    fn hear(&mut self) -> io::Result<String> {
        loop {
            let frame = self.receive()?;
            match frame.opcode {
                TEXT => return String::from_utf8(frame.payload).map_err(io::Error::other),
                PING => self.send(true, PONG, &frame.payload)?,
                _ => return Err(io::Error::other(format!("received {frame}"))),
            }
        }
    }
}

fn line_of_head(line: io::Result<String>) -> Option<String> {
    line.ok().filter(|line| !line.is_empty())
}

/// What nobody can guess, from the kernel.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    read_bytes(&mut File::open("/dev/urandom")?)
}

fn client(address: &str) -> io::Result<()> {
    let mut client = Client::open(address, "/news", &BASE64.encode(&random::<16>()?), random)?;
    let news = client.hear()?;
    println!("{news}");
    client.send(true, TEXT, "안녕하세요, 서버님!".as_bytes())?;
    let mut heard = client.hear()?;
    while heard == news {
        heard = client.hear()?; // Meanwhile, another second has passed.
    }
    println!("{heard}");
    client.send(true, CLOSE, &1000_u16.to_be_bytes())
}

fn scene() -> io::Result<()> {
    narrate::scene(&["client", "server"]);
    let server = bind("127.0.0.1:0")?;
    let address = server.local_addrs()[0].to_string();
    let (handle, news) = (server.handle(), Room::default());
    let everyone = news.clone();
    let serving = thread::spawn(move || server.serve(move |socket| converse(socket, &everyone)));

    info!(target: "client", "asking for a WebSocket");
    // With the key and the mask of RFC 6455's examples, so that the bytes can be compared with those there.
    let mask = || Ok([0x37, 0xfa, 0x21, 0x3d]);
    let mut client = Client::open(&address, "/news", "dGhlIHNhbXBsZSBub25jZQ==", mask)?;
    info!(target: "client", "received 101, and the right accept");
    info!(target: "client", "sending the text 안녕");
    client.send(true, TEXT, "안녕".as_bytes())?;
    tell(&client.receive()?);

    info!(target: "client", "saying nothing");
    thread::sleep(Duration::from_millis(300));
    info!(target: "server", "unasked, to everyone: {NEWS}");
    publish(&news);
    tell(&client.receive()?);

    info!(target: "client", "sending the ping Hello");
    client.send(true, PING, b"Hello")?;
    tell(&client.receive()?);

    let (first, second) = "안녕".as_bytes().split_at(4);
    info!(target: "client", "sending 안녕 in two frames, cut inside 녕");
    client.send(false, TEXT, first)?;
    client.send(true, CONTINUATION, second)?;
    tell(&client.receive()?);

    info!(target: "client", "closing, 1000: all is well");
    client.send(true, CLOSE, &1000_u16.to_be_bytes())?;
    tell(&client.receive()?);
    drop(client);

    handle.stop();
    serving.join().map_err(|_| io::Error::other("the server has panicked"))?;
    Ok(())
}

fn tell(frame: &Frame) {
    let name = frame.name();
    match &frame.payload[..] {
        [high, low, ..] if frame.opcode == CLOSE => {
            info!(target: "client", "received {name} {}", u16::from_be_bytes([*high, *low]));
        }
        payload => info!(target: "client", "received {name} {:?}", String::from_utf8_lossy(payload)),
    }
}
