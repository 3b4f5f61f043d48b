//! Who hears what is said in a WebSocket: whoever said it, the others, or nobody. All of them are right.

use std::time::{Duration, Instant};

use super::Context;
use crate::manner::{Manner, find as position};
use crate::show::difference;
use crate::trouble::{Stop, Symptom, Trouble};
use crate::websocket::{Heard, Voice, WebSocket};

/// How long the answer of a server may take that has already said something else.
const BESIDES: Duration = Duration::from_millis(1500);

/// How long one of two is listened to.
const TURN: Duration = Duration::from_millis(5);

/// A text that can be told from all others by its first word, and that word. Of so many bytes; with 0, short and in
/// Korean.
pub(super) fn sentence(context: &mut Context<'_>, length: usize) -> (String, String) {
    let words = if length == 0 { context.random.korean() } else { context.random.plain() };
    let (rest, mark) = words.rsplit_once(' ').unwrap_or(("", &words));
    let mut text = format!("{mark} {rest}");
    while text.len() < length {
        text.push(char::from(b'a' + (text.len() % 26) as u8));
    }
    if length > 0 {
        text.truncate(length);
    }
    (mark.to_owned(), text)
}

/// One who speaks, and, where two are allowed, one who only hears.
pub(super) struct Talk {
    pub(super) speaker: WebSocket,
    other: Option<WebSocket>,
    /// How many messages came that were not about what was said.
    pub(super) unasked: usize,
}

/// What came of something that was said.
enum Outcome {
    /// To the one who said it, or to the other.
    Came {
        to_speaker: bool,
        message: Vec<u8>,
    },
    /// The connection of the one who said it ended.
    Over(Heard),
    Nothing,
}

impl Talk {
    pub(super) fn open(context: &mut Context<'_>) -> Result<Talk, Trouble> {
        let other = if context.at_most(2) == 2 { Some(context.websocket("B")?) } else { None };
        Ok(Talk { speaker: context.websocket("A")?, other, unasked: 0 })
    }

    /// Waits for a message with this mark, at both.
    fn listen(&mut self, mark: &str, wait: Duration) -> Result<Outcome, Trouble> {
        let since = Instant::now();
        loop {
            let wait = if self.unasked > 0 { wait.min(BESIDES.max(wait / 8)) } else { wait };
            match self.speaker.hear(Instant::now(), TURN)? {
                Heard::Message(message) if position(&message, mark.as_bytes()).is_some() => {
                    return Ok(Outcome::Came { to_speaker: true, message });
                }
                Heard::Message(_) => self.unasked += 1,
                Heard::Pong(_) | Heard::Nothing => {}
                over => return Ok(Outcome::Over(over)),
            }
            if let Some(other) = &mut self.other {
                match other.hear(Instant::now(), TURN)? {
                    Heard::Message(message) if position(&message, mark.as_bytes()).is_some() => {
                        return Ok(Outcome::Came { to_speaker: false, message });
                    }
                    Heard::Message(_) | Heard::Pong(_) | Heard::Nothing => {}
                    over => return Err(other.instead(&over, "what client A says, or nothing")),
                }
            }
            if since.elapsed() >= wait {
                return Ok(Outcome::Nothing);
            }
        }
    }

    /// Reads on until the text has come to one of them. What ended the connection instead.
    pub(super) fn expect(&mut self, mark: &str, text: &str) -> Result<Option<Heard>, Trouble> {
        // Whatever else is said meanwhile: this text has to come.
        self.unasked = 0;
        let wait = self.speaker.patience();
        let since = Instant::now();
        loop {
            match self.listen(mark, wait.saturating_sub(since.elapsed()))? {
                Outcome::Came { message, .. } => return is_whole(text, &message).map(|()| None),
                Outcome::Over(heard) => return Ok(Some(heard)),
                Outcome::Nothing if since.elapsed() >= wait => return Ok(Some(Heard::Nothing)),
                Outcome::Nothing => {}
            }
        }
    }

    /// Whether the server says something to a client that is silent.
    pub(super) fn stay_silent(&mut self, wait: Duration) -> Result<bool, Trouble> {
        match self.speaker.hear(Instant::now(), wait)? {
            Heard::Message(_) => Ok(true),
            Heard::Nothing | Heard::Pong(_) => Ok(false),
            over => Err(self.speaker.instead(&over, "a message, or nothing")),
        }
    }
}

/// Finds out who hears what is said.
pub(super) fn find(context: &mut Context<'_>) -> Result<(Voice, Talk), Stop> {
    let mut talk = Talk::open(context)?;
    let (mark, text) = sentence(context, 0);
    talk.speaker.say(&text)?;
    match talk.listen(&mark, context.story.patience())? {
        Outcome::Came { to_speaker, message } => {
            is_whole(&text, &message)?;
            let prefix = Manner::of(text.as_bytes(), &message).unwrap_or_default().prefix;
            Ok((if to_speaker { Voice::Back(prefix) } else { Voice::Others }, talk))
        }
        Outcome::Nothing if talk.unasked > 0 => Ok((Voice::Nobody, talk)),
        Outcome::Nothing if talk.other.is_none() => {
            let why = "nothing comes back, and whether others hear it needs two clients, more than --limit allows";
            Err(Stop::Skipped(why.to_owned()))
        }
        Outcome::Nothing => {
            const SILENT: &str = "The server says nothing at all. Does it take the mask off what it reads? Does it flush \
                                  what it writes?";
            let expected = "the text at client A, or at client B, or anything that was not asked for";
            Err(talk.speaker.instead(&Heard::Nothing, expected).seen(Some(SILENT)).into())
        }
        Outcome::Over(heard) => Err(talk.speaker.instead(&heard, "the text").into()),
    }
}

/// Whether a message that has the first word of a text has all of it.
fn is_whole(text: &str, message: &[u8]) -> Result<(), Trouble> {
    if position(message, text.as_bytes()).is_some() {
        return Ok(());
    }
    let mark = text.split(' ').next().unwrap_or(text);
    let begin = position(message, mark.as_bytes()).unwrap_or(0);
    let came = &message[begin..];
    let same = came.iter().zip(text.as_bytes()).take_while(|(one, other)| one == other).count();
    let shown = difference(&message[..begin + same], &text.as_bytes()[same..], &came[same..], "the end of the message");
    Err(Trouble::differs(Symptom::Changed, shown)
        .seen(Some("What was said as one message is to be heard as one, unchanged.")))
}
