//! A client of WebSocket: frames out, messages in, over a `Client`.

use std::time::{Duration, Instant};

use crate::frames::{self, CLOSE, CONTINUE, FIN, Frame, PING, PONG, TEXT};
use crate::handshake::{self, Resource};
use crate::manner::find;
use crate::probe::{Came, Client};
use crate::random::Random;
use crate::show::{brief, hex};
use crate::story::seconds;
use crate::trouble::{Symptom, Trouble};

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
    pub(crate) client: Client,
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
        match frame.opcode {
            PING => {
                // Whoever is gone needs no answer; that it is gone is read.
                let mask = self.mask();
                let pong = frames::masked(FIN | PONG, &frame.payload, mask);
                let _ = self.client.send_for(&pong, Duration::from_millis(100));
                Ok(None)
            }
            PONG => Ok(Some(Heard::Pong(frame.payload))),
            CLOSE => close(&frame.payload).map(|code| Some(Heard::Close(code))),
            _ => self.take_part(frame),
        }
    }

    /// A message, or a fragment of one.
    fn take_part(&mut self, frame: Frame) -> Result<Option<Heard>, Trouble> {
        let (kind, mut message) = match (frame.opcode, self.begun.take()) {
            (CONTINUE, Some(begun)) => begun,
            (CONTINUE, None) => {
                let rule = "A frame with opcode 0 goes on with a message that has begun before.";
                return Err(against(rule, "the beginning of a message", &frame.payload));
            }
            (_, Some(_)) => {
                let rule = "A message has begun and is not complete: its next frame has opcode 0.";
                return Err(against(rule, "the rest of the message", &frame.payload));
            }
            (kind, None) => (kind, Vec::new()),
        };
        message.extend_from_slice(&frame.payload);
        if message.len() > frames::MOST {
            let rule = "A message in fragments ends with a frame that has FIN.";
            return Err(against(rule, "the end of the message", &message));
        }
        if !frame.is_last {
            self.begun = Some((kind, message));
            return Ok(None);
        }
        if kind == TEXT && std::str::from_utf8(&message).is_err() {
            let rule = "A message that says it is text is valid UTF-8, from its first byte to its last.";
            return Err(against(rule, "a text in UTF-8", &message));
        }
        if self.unwanted.as_ref().is_some_and(|unwanted| find(&message, unwanted).is_some()) {
            self.step(format!("read {}", brief(&message)));
            return Err(Trouble::new(Symptom::Seen, "a close, and this message at no client", brief(&message)));
        }
        Ok(Some(Heard::Message(message)))
    }
}

/// What the server sent is against a rule.
fn against(rule: &str, expected: &str, received: &[u8]) -> Trouble {
    Trouble::new(Symptom::Changed, expected, brief(received)).seen(Some(rule))
}

/// The code of a close, if it has one (RFC 6455, section 7.4).
fn close(payload: &[u8]) -> Result<Option<u16>, Trouble> {
    const IN_IT: &str = "In a close is nothing; or a code of two bytes and, behind it, a reason in UTF-8.";
    const CODES: &str = "1005, 1006 and 1015 only stand for what was not sent, and others mean nothing.";
    match *payload {
        [] => Ok(None),
        [high, low, ref reason @ ..] if std::str::from_utf8(reason).is_ok() => match u16::from_be_bytes([high, low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(code)),
            code => Err(against(CODES, "a close with a code that may be sent", code.to_string().as_bytes())),
        },
        _ => Err(against(IN_IT, "a close with a code, or without", payload)),
    }
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
