//! What a client of WebSocket waits for, and what came instead.

use std::time::Instant;

use crate::frames::{FIN, PING};
use crate::show::{brief, difference};
use crate::story::seconds;
use crate::trouble::{Symptom, Trouble};
use crate::websocket::{Heard, WebSocket};

pub(crate) const END: &str = "the end of the connection (read returns 0)";

impl WebSocket {
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
