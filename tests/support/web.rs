//! The live page's side of a server, seen from outside: requests and frames, written byte by byte.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::thread;

use socket2::{Domain, Socket, Type};

use super::{BOUND, Client, Server, program};

/// A server with a live page; `page` is where that is.
pub struct Site {
    pub server: Server,
    pub page: SocketAddr,
}

impl Site {
    /// Both on free ports of 127.0.0.1.
    pub fn start(options: &[&str]) -> Site {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--page", "127.0.0.1:0"]).args(options);
        Site::of(Server::from_command(&mut command))
    }

    pub fn of(mut server: Server) -> Site {
        let line = server.next_line().unwrap();
        let address = line.strip_prefix("live page on http://").and_then(|rest| rest.strip_suffix('/'));
        let page = address.unwrap_or_else(|| panic!("no page: {line}")).parse().unwrap();
        Site { server, page }
    }

    pub fn get(&self, path: &str) -> Response {
        get(self.page, path)
    }
}

/// A whole response, and nothing after it.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    fields: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// Reads it to the end of the connection, which must be a good one.
    pub fn read(client: &mut Client) -> Response {
        Response::of(&client.rest())
    }

    /// What these bytes are, all of them.
    pub fn of(bytes: &[u8]) -> Response {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        let mut lines = head.split("\r\n");
        let words: Vec<&str> = lines.next().unwrap().splitn(3, ' ').collect();
        assert_eq!((words[0], words.len()), ("HTTP/1.1", 3), "{head}");
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("not a field: {line}"));
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let fields = lines.map(field).collect();
        Response { status: words[1].parse().unwrap(), fields, body: body.to_owned() }
    }

    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// Sends bytes and reads the response. A server may answer before it has read all of a bad request.
pub fn ask(address: SocketAddr, request: &[u8]) -> Response {
    let mut client = Client::connect(address);
    let (mut writer, bytes) = (client.0.try_clone().unwrap(), request.to_vec());
    let writing = thread::spawn(move || {
        let _ = writer.write_all(&bytes);
    });
    let response = client.rest_and_end().0;
    let _ = client.0.shutdown(Shutdown::Both);
    writing.join().unwrap();
    Response::of(&response)
}

pub fn get(address: SocketAddr, path: &str) -> Response {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
}

/// The handshake of RFC 6455's example, with these lines besides.
pub fn handshake(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

pub const CONTINUE: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// With an opcode: the last frame of its message.
pub const FIN: u8 = 0x80;

/// A frame as a server sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// `FIN`, the reserved bits and the opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(text: &str) -> Frame {
        Frame { first: FIN | TEXT, payload: text.as_bytes().to_vec() }
    }

    /// The code of a close; 1005 for one without (RFC 6455, section 7.1.5).
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
        (self.first == FIN | CLOSE).then_some(code)
    }
}

/// A frame as a client sends it: masked.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = head(first, payload.len() as u64, 0x80);
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The first bytes of a frame, with the length that it says it has.
pub fn head(first: u8, length: u64, mask_bit: u8) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..=125 => head.push(mask_bit | length as u8),
        126..=0xffff => {
            head.push(mask_bit | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(mask_bit | 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head
}

/// A client of WebSocket that says whatever it is told to say.
pub struct Ws(pub Client);

impl Ws {
    pub fn connect(address: SocketAddr, path: &str) -> Ws {
        Ws::on(Client::connect(address), path)
    }

    /// A client that kernels keep as little for as on a real network, where packets are small. Over loopback they are
    /// so large that the kernels keep megabytes for whoever does not read.
    pub fn with_little_room_on_the_way(address: SocketAddr, path: &str) -> Ws {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_tcp_mss(1460).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        socket.set_write_timeout(Some(BOUND)).unwrap();
        socket.connect(&address.into()).unwrap();
        Ws::on(Client(socket.into()), path)
    }

    pub fn on(mut client: Client, path: &str) -> Ws {
        client.send(handshake(path, ""));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(client.read(1));
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("extensions"), "nothing is to be compressed: {head}");
        Ws(client)
    }

    pub fn send(&mut self, first: u8, payload: impl AsRef<[u8]>) -> &mut Ws {
        self.0.send(masked(first, payload.as_ref()));
        self
    }

    pub fn say(&mut self, text: &str) -> &mut Ws {
        self.send(FIN | TEXT, text)
    }

    pub fn frame(&mut self) -> Frame {
        let [first, length] = self.0.read(2)[..] else { unreachable!() };
        assert!(length & 0x80 == 0, "a server does not mask");
        let mut long = |count| self.0.read(count).iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let length = match length {
            126 => long(2),
            127 => long(8),
            short => usize::from(short),
        };
        Frame { first, payload: self.0.read(length) }
    }

    /// The next frame that is no ping.
    pub fn next(&mut self) -> Frame {
        loop {
            let frame = self.frame();
            if frame.first != FIN | PING {
                return frame;
            }
        }
    }

    pub fn hear(&mut self) -> String {
        let frame = self.next();
        assert_eq!(frame.first, FIN | TEXT, "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// Reads on to the close, and after it to the end: its code.
    pub fn close_code(&mut self) -> u16 {
        loop {
            if let Some(code) = self.next().close_code() {
                assert!(self.0.rest().is_empty(), "something was said after the goodbye");
                return code;
            }
        }
    }
}
