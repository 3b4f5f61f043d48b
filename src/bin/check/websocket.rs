//! A client of WebSocket: frames out, messages in, over a `Client`.

use std::time::{Duration, Instant};

use crate::frames::{self, BINARY, CLOSE, CONTINUE, FIN, Frame, PING, PONG, TEXT};
use crate::handshake::{self, Resource};
use crate::manner::find;
use crate::probe::{Came, Client};
use crate::random::Random;
use crate::show::{brief, difference, hex};
use crate::story::seconds;
use crate::trouble::{Symptom, Trouble};

pub(crate) const END: &str = "the end of the connection (read returns 0)";

/// Who hears what a client says: that is for the server to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The client itself, with this in front.
    Back(Vec<u8>),
    /// The other clients.
    Others,
    /// Nobody; but the server speaks on its own.
    Nobody,
}

/// What came from the server. Its pings are answered, and told to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A whole message, of text or not.
    Message(Vec<u8>),
    Pong(Vec<u8>),
    /// With its code, if it has one.
    Close(Option<u16>),
    /// The end of the connection.
    End,
    Reset,
    Nothing,
}

/// A connection that has become a WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocket {
    client: Client,
    random: Random,
    buffer: Vec<u8>,
    /// A message of which not all has come.
    begun: Option<(u8, Vec<u8>)>,
    /// No message may have this in it.
    pub(crate) unwanted: Option<Vec<u8>>,
}

impl WebSocket {
    /// Begins one. What is asked of the answer besides its status, `ws-handshake` asks.
    pub(crate) fn open(mut client: Client, resource: &Resource, mut random: Random) -> Result<WebSocket, Trouble> {
        let fields = handshake::fields(&handshake::new_key(&mut random));
        let answer = client.ask("asked for a WebSocket", &handshake::request(resource, &fields))?;
        if answer.status != 101 {
            return Err(not_101(answer.status, resource));
        }
        Ok(WebSocket { client, random, buffer: answer.rest, begun: None, unwanted: None })
    }

    pub(crate) fn step(&self, what: impl AsRef<str>) {
        self.client.step(what);
    }

    pub(crate) fn patience(&self) -> Duration {
        self.client.story.patience()
    }

    /// Four bytes that nobody can foresee; here, anyone who knows the seed.
    pub(crate) fn mask(&mut self) -> [u8; 4] {
        (self.random.next() as u32).to_be_bytes()
    }

    /// Sends a frame as it should be.
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) -> Result<(), Trouble> {
        let mask = self.mask();
        self.send_bytes(&frames::masked(first, payload, mask))
    }

    /// Sends whatever it is.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let sent = self.client.send_for(bytes, self.patience())?;
        if sent < bytes.len() {
            let came = format!("after {sent} bytes it took no more for {}", seconds(self.patience()));
            return Err(Trouble::new(Symptom::Stuck, "all of it to be taken", came));
        }
        Ok(())
    }

    pub(crate) fn say(&mut self, text: &str) -> Result<(), Trouble> {
        self.step(format!("sent a text: {}", brief(text.as_bytes())));
        self.send(FIN | TEXT, text.as_bytes())
    }

    pub(crate) fn let_it_read(&mut self) {
        self.client.let_it_read();
    }

    /// Ends our half of the connection, without a close.
    pub(crate) fn end(&mut self) {
        self.client.end();
    }

    /// What comes next, of what comes until `wait` has passed since then.
    pub(crate) fn hear(&mut self, since: Instant, wait: Duration) -> Result<Heard, Trouble> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            while let Some((frame, taken)) = frames::parse(&self.buffer).map_err(|rule| self.broken(rule))? {
                self.buffer.drain(..taken);
                if let Some(heard) = self.take(frame)? {
                    return Ok(heard);
                }
                if self.client.story.left(since, wait).is_zero() {
                    return Ok(Heard::Nothing);
                }
            }
            let left = self.client.story.left(since, wait);
            match self.client.read(&mut buffer, left) {
                Came::Bytes(count) => self.buffer.extend_from_slice(&buffer[..count]),
                Came::End => {
                    self.client.is_over();
                    return Ok(Heard::End);
                }
                Came::Reset => {
                    self.client.is_over();
                    return Ok(Heard::Reset);
                }
                Came::Nothing if left.is_zero() => return Ok(Heard::Nothing),
                Came::Nothing => {}
            }
        }
    }

    fn broken(&self, rule: &str) -> Trouble {
        self.step(format!("read {}", hex(&self.buffer)));
        Trouble::new(Symptom::Changed, "a frame as a server may send it", hex(&self.buffer)).seen(Some(rule))
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Heard>, Trouble> {
        let Frame { is_last, opcode, payload } = frame;
        let rule = |what: &str, rule: &str, received: &[u8]| {
            Trouble::new(Symptom::Changed, what, brief(received)).seen(Some(rule))
        };
        match (opcode, self.begun.take()) {
            (PING, begun) => {
                self.begun = begun;
                // Whoever is gone needs none; that it is gone is read.
                let mask = self.mask();
                let _ = self.client.send_for(&frames::masked(FIN | PONG, &payload, mask), Duration::from_millis(100));
                Ok(None)
            }
            (PONG, begun) => {
                self.begun = begun;
                Ok(Some(Heard::Pong(payload)))
            }
            (CLOSE, _) => match payload[..] {
                [] => Ok(Some(Heard::Close(None))),
                [high, low, ref reason @ ..] if std::str::from_utf8(reason).is_ok() => {
                    let code = u16::from_be_bytes([high, low]);
                    if matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                        return Ok(Some(Heard::Close(Some(code))));
                    }
                    const SENT: &str = "1005, 1006 and 1015 only stand for what was not sent, and others mean nothing.";
                    Err(Trouble::new(Symptom::Changed, "a close with a code that may be sent", code.to_string())
                        .seen(Some(SENT)))
                }
                _ => Err(rule(
                    "a close with a code, or without",
                    "In a close is nothing; or a code of two bytes and, behind it, a reason in UTF-8.",
                    &payload,
                )),
            },
            (CONTINUE, None) => Err(rule(
                "the beginning of a message",
                "A frame with opcode 0 goes on with a message that has begun before.",
                &payload,
            )),
            (TEXT | BINARY, Some(_)) => Err(rule(
                "the rest of the message",
                "A message has begun and is not complete: its next frame has opcode 0.",
                &payload,
            )),
            (_, begun) => {
                let (kind, mut message) = begun.unwrap_or((opcode, Vec::new()));
                message.extend_from_slice(&payload);
                if message.len() > frames::MOST {
                    const ENDLESS: &str = "A message in fragments ends with a frame that has FIN.";
                    return Err(
                        Trouble::new(Symptom::Flood, "the end of the message", brief(&message)).seen(Some(ENDLESS))
                    );
                }
                if !is_last {
                    self.begun = Some((kind, message));
                    return Ok(None);
                }
                if kind == TEXT && std::str::from_utf8(&message).is_err() {
                    return Err(Trouble::new(Symptom::Changed, "a text in UTF-8", brief(&message)).seen(Some(
                        "A message that says it is text is valid UTF-8, from its first byte to its last.",
                    )));
                }
                if self.unwanted.as_ref().is_some_and(|unwanted| find(&message, unwanted).is_some()) {
                    self.step(format!("read {}", brief(&message)));
                    return Err(Trouble::new(Symptom::Seen, "a close, and this message at no client", brief(&message)));
                }
                Ok(Some(Heard::Message(message)))
            }
        }
    }

    /// Sends a ping, and reads on to its pong.
    pub(crate) fn ping(&mut self, payload: &[u8]) -> Result<(), Trouble> {
        self.step(format!("sent a ping: {}", brief(payload)));
        self.send(FIN | PING, payload)?;
        self.expect_pong(payload)?;
        self.client.story.add_to_last(", and read its pong");
        Ok(())
    }

    fn expect_pong(&mut self, payload: &[u8]) -> Result<(), Trouble> {
        let since = Instant::now();
        loop {
            match self.hear(since, self.patience())? {
                Heard::Pong(came) if came == payload => return Ok(()),
                Heard::Pong(came) => {
                    self.step(format!("read a pong: {}", brief(&came)));
                    let same = came.iter().zip(payload).take_while(|(one, other)| one == other).count();
                    let (right, expected) = payload.split_at(same);
                    let shown = difference(right, expected, &came[same..], "nothing in it");
                    return Err(Trouble::differs(Symptom::Changed, shown)
                        .seen(Some("A pong has what the ping had in it, byte for byte, and nothing else.")));
                }
                Heard::Message(_) if !self.client.story.left(since, self.patience()).is_zero() => {}
                other => return Err(self.instead(&other, "a pong")),
            }
        }
    }

    /// Reads on to the server's close, which has this code, and behind it to the end.
    pub(crate) fn expect_close(&mut self, code: Option<u16>) -> Result<(), Trouble> {
        let since = Instant::now();
        loop {
            match self.hear(since, self.patience())? {
                Heard::Close(came) if came == code || code.is_none() && came == Some(1000) => break,
                Heard::Close(came) => {
                    return Err(Trouble::new(Symptom::Changed, shown(code), shown(came))
                        .seen(Some("A close is answered with a close that has the same code.")));
                }
                Heard::Message(_) | Heard::Pong(_) if !self.client.story.left(since, self.patience()).is_zero() => {}
                other => return Err(self.instead(&other, &shown(code))),
            }
        }
        self.client.story.add_to_last(", and read a close");
        self.expect_end()
    }

    /// Nothing comes any more but the end.
    fn expect_end(&mut self) -> Result<(), Trouble> {
        match self.hear(Instant::now(), self.patience())? {
            Heard::End => Ok(()),
            Heard::Nothing => Err(self.still_open("nothing", END)),
            Heard::Message(message) => {
                Err(Trouble::new(Symptom::Extra, END, brief(&message))
                    .seen(Some("Behind a close nothing more is said.")))
            }
            other => Err(self.instead(&other, END)),
        }
    }

    /// After the client's own end, without a close. A close may come all the same, and what was under way.
    pub(crate) fn expect_to_be_let_go(&mut self) -> Result<(), Trouble> {
        let since = Instant::now();
        loop {
            match self.hear(since, self.patience())? {
                Heard::End | Heard::Reset => return Ok(()),
                Heard::Nothing => return Err(self.still_open("nothing", END)),
                _ if self.client.story.left(since, self.patience()).is_zero() => {
                    return Err(self.still_open("no end", END));
                }
                _ => {}
            }
        }
    }

    /// What was waited for, and did not come.
    pub(crate) fn still_open(&self, came: &str, expected: &str) -> Trouble {
        self.step("waited for the server to end the connection");
        let came = format!("{came} for {}: the connection is still open", seconds(self.patience()));
        Trouble::new(Symptom::NotEnded, expected, came)
    }

    /// Something else came than what was waited for.
    pub(crate) fn instead(&self, heard: &Heard, expected: &str) -> Trouble {
        let waited = format!("nothing for {}", seconds(self.patience()));
        let (symptom, received) = match heard {
            Heard::Message(message) => (Symptom::Flood, format!("messages without end, such as {}", brief(message))),
            Heard::Pong(payload) => (Symptom::Extra, format!("a pong: {}", brief(payload))),
            Heard::Close(code) => (Symptom::Ended, shown(*code)),
            Heard::End => (Symptom::Ended, "the end of the connection".to_owned()),
            Heard::Reset => (Symptom::Reset, "a reset".to_owned()),
            Heard::Nothing => (Symptom::Silent, waited),
        };
        self.step(format!("waited for {expected}, and read {received}"));
        let told = match heard {
            Heard::Close(Some(1007)) => {
                Some("The server says that it was no UTF-8. It is, once the mask is off: XOR, byte by byte.")
            }
            Heard::Close(Some(1002)) => {
                Some("The server says that a rule was broken. None was; is the frame read to its end?")
            }
            _ => None,
        };
        Trouble::new(symptom, expected, received).seen(told)
    }
}

/// A close with its code, as it is told.
pub(crate) fn shown(code: Option<u16>) -> String {
    code.map_or("a close without a code".to_owned(), |code| format!("a close with {code}"))
}

fn not_101(status: u16, resource: &Resource) -> Trouble {
    let why = match status {
        404 => format!("Nothing is at {}. Is there a WebSocket at another path?", resource.path),
        403 | 421 => {
            format!("The server does not like who asks: the request has Host: {}, and no Origin.", resource.host)
        }
        _ => "The request asked for a WebSocket, with Upgrade, Connection, Sec-WebSocket-Key and -Version; names of \
              fields may be in upper or lower case."
            .to_owned(),
    };
    Trouble::new(Symptom::Seen, "HTTP/1.1 101 Switching Protocols", format!("status {status}")).seen(Some(why))
}
