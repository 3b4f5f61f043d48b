//! Chapter 19: WebSocket, from its handshake to its close.

use std::time::Duration;

use super::ch19_handshake::handshake;
use super::ch19_refused::refused;
use super::ch19_voice::{self, Talk};
use super::{Chapter, Context, Need, Stage};
use crate::frames::{CLOSE, CONTINUE, FIN, MOST_IN_CONTROL, PONG, TEXT};
use crate::handshake::Resource;
use crate::replies::shown;
use crate::show::brief;
use crate::trouble::{Stop, Symptom, Verdict};
use crate::websocket::{Heard, Voice};

const CHAPTER: Chapter = Chapter::new(19);

/// How long a server may take to say something on its own, which it need not.
const UNASKED: Duration = Duration::from_millis(1500);

const PING_IS_ANSWERED: &str = "A ping is answered with a pong, as soon as it is read: also by a server that never sends a ping itself, and \
                                also between two fragments of a message.";

const CLOSE_IS_ANSWERED: &str = "A close is answered with a close that has the same code, and then the server, not the client, ends the \
                                 connection. Only so both know that nothing is missing.";

const FRAGMENTS: &str = "A message may come in fragments: a frame of text without FIN, then frames with opcode 0, the last of them with \
                         FIN. Put them together, and look at the text only then: a fragment may end in the middle of a \
                         character.";

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "ws-handshake",
        chapter: CHAPTER,
        requirement: "A right handshake is answered with 101 and the right key, a wrong one is refused.",
        needs: &[Need::WebSocket],
        hints: &[],
        uses_up_the_server: false,
        run: handshake,
    },
    Stage {
        name: "ws-echo",
        chapter: CHAPTER,
        requirement: "A text comes back or reaches the others, at any length; or the server speaks unasked.",
        needs: &[Need::WebSocket, Need::Handshake],
        hints: &[(
            &[Symptom::Ended, Symptom::Reset],
            "The length of a payload is in the second byte up to 125; 126 stands there when it is in the next two bytes, and 127 \
             when it is in the next eight, the highest first.",
        )],
        uses_up_the_server: false,
        run: echo,
    },
    Stage {
        name: "ws-ping",
        chapter: CHAPTER,
        requirement: "A ping is answered with a pong that has the same payload, between fragments, too.",
        needs: &[Need::WebSocket, Need::Handshake],
        hints: &[(&[Symptom::Silent, Symptom::Ended, Symptom::Reset], PING_IS_ANSWERED)],
        uses_up_the_server: false,
        run: ping,
    },
    Stage {
        name: "ws-close",
        chapter: CHAPTER,
        requirement: "A close is answered with the same code, then the connection ends; so it does without a close.",
        needs: &[Need::WebSocket, Need::Handshake],
        hints: &[(&[Symptom::Silent, Symptom::Ended, Symptom::Reset, Symptom::NotEnded], CLOSE_IS_ANSWERED)],
        uses_up_the_server: false,
        run: close,
    },
    Stage {
        name: "ws-fragments",
        chapter: CHAPTER,
        requirement: "A text in three fragments, one of which ends inside a character, is one message.",
        needs: &[Need::WebSocket, Need::Handshake],
        hints: &[(&[Symptom::Changed, Symptom::Silent, Symptom::Ended, Symptom::Reset, Symptom::Torn], FRAGMENTS)],
        uses_up_the_server: false,
        run: fragments,
    },
    Stage {
        name: "ws-refused",
        chapter: CHAPTER,
        requirement: "Who sends a frame that must not be is closed, with the code that fits; the others are served.",
        needs: &[Need::WebSocket, Need::Handshake],
        hints: &[],
        uses_up_the_server: false,
        run: refused,
    },
];

pub(super) fn resource<'a>(context: &Context<'a>) -> &'a Resource {
    context.resource.expect("a stage that needs a WebSocket runs only with one")
}

fn echo(context: &mut Context<'_>) -> Verdict {
    let (voice, mut talk) = ch19_voice::find(context)?;
    let mut notes = vec![match &voice {
        Voice::Back(prefix) if prefix.is_empty() => "a text comes back".to_owned(),
        Voice::Back(prefix) => format!("a text comes back, with {:?} in front", String::from_utf8_lossy(prefix)),
        Voice::Others => "what one says, the others hear".to_owned(),
        Voice::Nobody => "it speaks unasked, and answers nothing".to_owned(),
    }];
    context.voice = Some(voice.clone());
    if voice != Voice::Nobody {
        for length in [125, 126, 300, 65_536] {
            let (mark, text) = ch19_voice::sentence(context, length);
            talk.speaker.say(&text)?;
            match talk.expect(&mark, &text)? {
                None => {}
                // A limit is a server's right.
                Some(Heard::Close(Some(1009))) if length > 300 => {
                    notes.push(format!("{length} bytes are too many for it (1009)"));
                    return Ok(Some(notes.join("; ")));
                }
                Some(heard) => return Err(talk.speaker.instead(&heard, "the text").into()),
            }
        }
        let unasked = UNASKED.min(context.story.patience());
        if talk.unasked > 0 || talk.stay_silent(unasked)? {
            notes.push("it also speaks unasked".to_owned());
        }
    }
    Ok(Some(notes.join("; ")))
}

fn ping(context: &mut Context<'_>) -> Verdict {
    let (mark, text) = ch19_voice::sentence(context, 0);
    let mut client = context.websocket("")?;
    client.ping(text.as_bytes())?;
    client.ping(b"")?;
    client.ping(&[0xfe; MOST_IN_CONTROL])?;
    client.step("sent a pong that nobody asked for");
    client.send(FIN | PONG, b"unasked")?;
    client.ping(b"still there?")?;
    let (begin, rest) = text.split_at(mark.len());
    client.step(format!("sent the beginning of a text, without FIN: {}", brief(begin.as_bytes())));
    client.send(TEXT, begin.as_bytes())?;
    client.ping(b"between two fragments")?;
    client.step(format!("sent the rest, with FIN: {}", brief(rest.as_bytes())));
    client.send(FIN | CONTINUE, rest.as_bytes())?;
    client.ping(b"behind the message")?;
    Ok(None)
}

fn close(context: &mut Context<'_>) -> Verdict {
    for (name, code, reason) in [("A", Some(1000_u16), "goodbye"), ("B", Some(4321), ""), ("C", None, "")] {
        let mut client = context.websocket(name)?;
        let payload = code.map_or(Vec::new(), |code| [&code.to_be_bytes(), reason.as_bytes()].concat());
        client.step(format!("sent {}", shown(code)));
        client.send(FIN | CLOSE, &payload)?;
        client.expect_close(code)?;
    }
    let mut client = context.websocket("D")?;
    client.end();
    client.expect_to_be_let_go()?;
    Ok(None)
}

fn fragments(context: &mut Context<'_>) -> Verdict {
    let (voice, mut talk) = match context.voice.clone() {
        Some(voice) => (voice, Talk::open(context)?),
        // What is wrong then has nothing to do with fragments.
        None => ch19_voice::find(context).map_err(|stop| match stop {
            Stop::Failed(_) => Stop::Skipped("cannot be judged before a whole text is heard (ws-echo)".to_owned()),
            stop => stop,
        })?,
    };
    let (mark, text) = ch19_voice::sentence(context, 0);
    // Inside the first Korean character, and inside the last.
    let first = mark.len() + 2;
    let last = text.len() - 2;
    let bytes = text.as_bytes();
    let parts = [(TEXT, &bytes[..first]), (CONTINUE, &bytes[first..last]), (FIN | CONTINUE, &bytes[last..])];
    for (number, (first, part)) in parts.into_iter().enumerate() {
        let what = ["a text without FIN", "opcode 0 without FIN", "opcode 0 with FIN"][number];
        talk.speaker.step(format!("sent {what}: {}", brief(part)));
        talk.speaker.send(first, part)?;
        talk.speaker.let_it_read();
    }
    if voice == Voice::Nobody {
        talk.speaker.ping(b"still there?")?;
        return Ok(Some("it answers nothing: all that can be seen is that it goes on".to_owned()));
    }
    match talk.expect(&mark, &text)? {
        None => Ok(None),
        Some(heard) => Err(talk.speaker.instead(&heard, "the text as one message").into()),
    }
}
