//! A server of WebSocket with one fault, for `check` to find. Without a fault it is right.
//!
//! It is played by the test program itself, started again with `WRONG_WEBSOCKET=fault` in its environment.

#![allow(clippy::unwrap_used, reason = "a server that cannot go on should end")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::exit;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use tungstenite::handshake::derive_accept_key;

/// A text may be so long; `check` says one of 64 KiB.
const MOST: u64 = 128 * 1024;

static FAULT: OnceLock<String> = OnceLock::new();
static OTHERS: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());

fn is(fault: &str) -> bool {
    FAULT.get().is_some_and(|ours| ours == fault)
}

/// Never returns.
pub(crate) fn play(fault: &str) {
    FAULT.set(fault.to_owned()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut out = io::stdout();
    // The test harness may have begun a line.
    writeln!(out, "\nlistening on {}", listener.local_addr().unwrap()).unwrap();
    out.flush().unwrap();
    for client in listener.incoming() {
        let client = client.unwrap();
        thread::spawn(move || {
            let _ = serve(&client);
            if is("never leaves") {
                thread::sleep(Duration::from_secs(60));
            }
            // What has not been read must not destroy what was said last.
            let _ = client.shutdown(Shutdown::Write);
            let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
            while (&client).read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        });
    }
}

/// The status that a request is refused with, or its key.
fn key_of(head: &str) -> Result<String, u16> {
    let field = |name: &str| {
        let found = head.split("\r\n").find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            let is_it = if is("case matters") { known == name } else { known.eq_ignore_ascii_case(name) };
            is_it.then(|| value.to_owned())
        });
        found.unwrap_or_default()
    };
    if is("at another path") {
        return Err(404);
    }
    if field("Upgrade").to_lowercase() != "websocket" && !is("a WebSocket for everybody") {
        return Err(426);
    }
    let connection = field("Connection").to_lowercase();
    let has_upgrade = match is("a list is no word") {
        true => connection == "upgrade",
        false => connection.split(", ").any(|word| word == "upgrade"),
    };
    if !has_upgrade && !is("a WebSocket for everybody") {
        return Err(400);
    }
    if field("Sec-WebSocket-Version") != "13" && !is("any version") && !is("a WebSocket for everybody") {
        return Err(426);
    }
    let key = field("Sec-WebSocket-Key");
    match key.len() {
        24 => Ok(key),
        0 if is("no key") => Ok(key),
        _ if is("any key") && !key.is_empty() => Ok(key),
        _ if is("a WebSocket for everybody") && field("Upgrade").is_empty() => Ok(key),
        _ => Err(400),
    }
}

fn shake_hands(mut client: &TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    if is("the request in one read") {
        head.resize(4096, 0);
        let count = client.read(&mut head)?;
        head.truncate(count);
    } else {
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            head.extend(byte);
        }
    }
    if is("not HTTP") {
        client.write_all(b"hello\r\n\r\n")?;
        return Err(ErrorKind::InvalidData.into());
    }
    let key = match key_of(&String::from_utf8_lossy(&head)) {
        Ok(key) => key,
        Err(_) if is("no answer to a wrong request") => return Err(ErrorKind::InvalidData.into()),
        Err(status) => {
            write!(client, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            return Err(ErrorKind::InvalidData.into());
        }
    };
    let accept = if is("another key") { derive_accept_key(b"") } else { derive_accept_key(key.as_bytes()) };
    let upgrade = if is("no word of an upgrade") { "" } else { "Upgrade: websocket\r\nConnection: Upgrade\r\n" };
    let more = if is("an extension") { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
    write!(client, "HTTP/1.1 101 Yes\r\n{upgrade}Sec-WebSocket-Accept: {accept}\r\n{more}\r\n")
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = if is("masks what it sends") { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length if length < 126 || is("short lengths") => frame.push(mask | length as u8 & 0x7f),
        length if length < 0x1_0000 => {
            frame.push(mask | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(mask | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if mask != 0 {
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

/// Why a connection ends: with a code for the client, or without.
enum End {
    Code(u16),
    Gone,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Gone
    }
}

/// What is sent without end, by those who do.
fn flood() -> Option<Vec<u8>> {
    let one = match FAULT.get()?.as_str() {
        "a flood of messages" => frame(0x81, b"more"),
        "a flood of pings" => frame(0x89, b"more"),
        "a flood of pongs" => frame(0x8a, b"more"),
        "fragments without end" => frame(0x00, &[b'x'; 1000]),
        _ => return None,
    };
    Some(one.repeat(100))
}

/// So slowly that no single wait is a long one.
fn drip(mut client: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    thread::sleep(Duration::from_millis(50));
    client.write_all(bytes)
}

fn serve(client: &TcpStream) -> io::Result<()> {
    let mut out = client;
    if is("drips its handshake") {
        return "HTTP/1.1 101 Y".bytes().cycle().try_for_each(|byte| drip(client, &[byte]));
    }
    shake_hands(client)?;
    if is("fragments without end") {
        out.write_all(&frame(0x01, b"once upon a time"))?;
    }
    if let Some(flood) = flood() {
        loop {
            out.write_all(&flood)?;
        }
    }
    if is("drips a message") {
        out.write_all(&[0x81, 127, 0, 0, 0, 0, 0, 0xff, 0, 0])?;
        return b"x".iter().cycle().try_for_each(|byte| drip(client, &[*byte]));
    }
    OTHERS.lock().unwrap().push(client.try_clone()?);
    match converse(client) {
        Ok(()) | Err(End::Gone) => {}
        Err(End::Code(code)) => {
            if is("dies of a wrong frame") {
                exit(101);
            }
            if is("closes everybody") {
                OTHERS.lock().unwrap().iter().for_each(|other| drop(other.shutdown(Shutdown::Both)));
            }
            if !is("no code") {
                let code = if is("one code for all") { 1000 } else { code };
                out.write_all(&frame(0x88, &code.to_be_bytes()))?;
            }
            if is("a close, and no end") {
                thread::sleep(Duration::from_secs(60));
            }
        }
    }
    Ok(())
}

fn converse(mut client: &TcpStream) -> Result<(), End> {
    let mut message: Option<Vec<u8>> = None;
    let mut pongs = Vec::new();
    loop {
        let mut head = [0; 2];
        client.read_exact(&mut head)?;
        let (fin, opcode) = (head[0] & 0x80 != 0, head[0] & 0x0f);
        if head[0] & 0x70 != 0 && !is("reserved bits") {
            return Err(End::Code(1002));
        }
        if !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) && !is("any opcode") {
            return Err(End::Code(1002));
        }
        let is_control = opcode >= 8;
        if is_control && (!fin && !is("pings in fragments") || head[1] & 0x7f > 125 && !is("long pings")) {
            return Err(End::Code(1002));
        }
        let is_masked = head[1] & 0x80 != 0;
        if !is_masked && !is("no mask") {
            return Err(End::Code(1002));
        }
        let mut number = |size: usize| {
            let mut bytes = [0; 8];
            client.read_exact(&mut bytes[8 - size..])?;
            Ok::<u64, io::Error>(u64::from_be_bytes(bytes))
        };
        let mut length = match head[1] & 0x7f {
            126 => number(2)?,
            127 => number(8)?,
            short => u64::from(short),
        };
        if length > MOST && !is("reads for ever") {
            return Err(End::Code(1009));
        }
        if length > 125 && is("no long texts") && !is_control {
            return Err(End::Code(1009));
        }
        let mut mask = [0; 4];
        if is_masked {
            client.read_exact(&mut mask)?;
        }
        let mut payload = Vec::new();
        while length > 0 {
            let mut some = vec![0; length.min(4096) as usize];
            client.read_exact(&mut some)?;
            length -= some.len() as u64;
            payload.extend(some);
        }
        if !is("leaves the mask on") {
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        match opcode {
            8 => return goodbye(client, &payload),
            9 if is("no pong") => {}
            9 if is("an empty pong") => client.write_all(&frame(0x8a, b""))?,
            9 if is("a pong behind the message") => match message {
                Some(_) => pongs.push(payload),
                None => client.write_all(&frame(0x8a, &payload))?,
            },
            9 => client.write_all(&frame(0x8a, &payload))?,
            10 if is("answers a pong") => client.write_all(&frame(0x8a, &payload))?,
            _ if is_control => {}
            _ => {
                data(client, &mut message, fin, opcode, payload)?;
                if message.is_none() {
                    for pong in pongs.drain(..) {
                        client.write_all(&frame(0x8a, &pong))?;
                    }
                }
            }
        }
    }
}

fn data(client: &TcpStream, message: &mut Option<Vec<u8>>, fin: bool, opcode: u8, payload: Vec<u8>) -> Result<(), End> {
    if is("no fragments") && (!fin || opcode == 0) {
        return Err(End::Code(1003));
    }
    if opcode == 0 && message.is_none() && !is("opcode 0 begins") {
        return Err(End::Code(1002));
    }
    if opcode != 0 && message.is_some() && !is("mixes messages") {
        return Err(End::Code(1002));
    }
    if is("looks at each fragment") && std::str::from_utf8(&payload).is_err() {
        return Err(End::Code(1007));
    }
    if is("a message for each fragment") {
        *message = (!fin).then(Vec::new);
        return echo(client, payload);
    }
    let mut whole = message.take().unwrap_or_default();
    if is("only the last fragment") {
        whole.clear();
    }
    whole.extend(payload);
    if fin {
        return echo(client, whole);
    }
    *message = Some(whole);
    Ok(())
}

fn echo(mut client: &TcpStream, mut text: Vec<u8>) -> Result<(), End> {
    if std::str::from_utf8(&text).is_err() {
        if is("bytes as text") || is("a message for each fragment") {
            // Sent as they are.
        } else if is("mends what is no text") {
            text = String::from_utf8_lossy(&text).into_owned().into_bytes();
        } else {
            return Err(End::Code(1007));
        }
    }
    if is("cuts long texts") {
        text.truncate(126);
    }
    if is("says nothing") {
        return Ok(());
    }
    Ok(client.write_all(&frame(0x81, &["> ".as_bytes(), &text].concat()))?)
}

fn goodbye(mut client: &TcpStream, payload: &[u8]) -> Result<(), End> {
    if is("no close back") {
        return Ok(());
    }
    let payload = if is("always 1000") { &1000_u16.to_be_bytes() } else { payload };
    client.write_all(&frame(0x88, payload))?;
    if is("speaks after its close") {
        client.write_all(&frame(0x81, b"by the way"))?;
    }
    if is("waits for the client to end") {
        while client.read(&mut [0; 4096])? > 0 {}
    }
    Ok(())
}
