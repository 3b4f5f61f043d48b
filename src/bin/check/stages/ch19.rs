//! Chapter 19: WebSocket, from its handshake to its close.

use std::time::Duration;

use super::ch19_refused::refused;
use super::ch19_voice::{self, Talk};
use super::{Chapter, Context, Need, Stage, failed};
use crate::frames::{CLOSE, CONTINUE, FIN, MOST_IN_CONTROL, PONG, TEXT};
use crate::handshake::{self, Resource};
use crate::show::brief;
use crate::trouble::{Stop, Symptom, Verdict};
use crate::websocket::{Heard, Voice, shown};

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
        requirement: "A text comes back, or reaches the other clients, at any length; or the server speaks unasked.",
        needs: &[Need::WebSocket],
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
        needs: &[Need::WebSocket],
        hints: &[(&[Symptom::Silent, Symptom::Ended, Symptom::Reset], PING_IS_ANSWERED)],
        uses_up_the_server: false,
        run: ping,
    },
    Stage {
        name: "ws-close",
        chapter: CHAPTER,
        requirement: "A close is answered with the same code, then the connection ends; so it does without a close.",
        needs: &[Need::WebSocket],
        hints: &[(&[Symptom::Silent, Symptom::Ended, Symptom::Reset, Symptom::NotEnded], CLOSE_IS_ANSWERED)],
        uses_up_the_server: false,
        run: close,
    },
    Stage {
        name: "ws-fragments",
        chapter: CHAPTER,
        requirement: "A text in three fragments, one of which ends inside a character, is one message.",
        needs: &[Need::WebSocket],
        hints: &[(&[Symptom::Changed, Symptom::Silent, Symptom::Ended, Symptom::Reset, Symptom::Torn], FRAGMENTS)],
        uses_up_the_server: false,
        run: fragments,
    },
    Stage {
        name: "ws-refused",
        chapter: CHAPTER,
        requirement: "Who sends a frame that must not be is closed, with the code that fits; the others are served.",
        needs: &[Need::WebSocket],
        hints: &[],
        uses_up_the_server: false,
        run: refused,
    },
];

fn resource<'a>(context: &Context<'a>) -> &'a Resource {
    context.resource.expect("a stage that needs a WebSocket runs only with one")
}

fn handshake(context: &mut Context<'_>) -> Verdict {
    let resource = resource(context);
    let key = handshake::new_key(&mut context.random);
    let mut client = context.client("A")?;
    let request = handshake::request(resource, &handshake::fields(&key));
    let answer = client.ask(&format!("sent a right handshake, with the key {key}"), &request)?;
    is_101(answer.status)?;
    answer.accepts(&key)?;

    // As some browsers write it, and as the network may cut it.
    let key = handshake::new_key(&mut context.random);
    let mut client = context.client("B")?;
    let fields = handshake::fields(&key).into_iter().map(|(name, value)| match name {
        "Connection" => ("connection", "keep-alive, Upgrade".to_owned()),
        "Upgrade" => ("upgrade", "WebSocket".to_owned()),
        "Sec-WebSocket-Key" => ("sec-websocket-key", value),
        name => (name, value),
    });
    let request = handshake::request(resource, &fields.collect::<Vec<_>>());
    let (begin, rest) = request.as_bytes().split_at(request.len() / 2);
    client.step(format!("sent another, with `connection: keep-alive, Upgrade`, in two pieces; its key is {key}"));
    client.send_for(begin, context.story.patience())?;
    client.let_it_read();
    client.send_for(rest, context.story.patience())?;
    let answer = client.answer()?;
    is_101(answer.status)?;
    answer.accepts(&key)?;

    let mut notes = Vec::new();
    for (name, wrong, right) in WRONG {
        let key = handshake::new_key(&mut context.random);
        let mut fields = handshake::fields(&key);
        match name {
            Some(name) => match wrong {
                Some(wrong) => {
                    fields.iter_mut().filter(|(one, _)| one == name).for_each(|(_, v)| *v = (*wrong).to_owned())
                }
                None => fields.retain(|(one, _)| one != name),
            },
            None => fields.clear(),
        }
        let what = match (name, wrong) {
            (Some(name), Some(wrong)) => format!("{name}: {wrong}"),
            (Some(name), None) => format!("no {name}"),
            (None, _) => "no word of WebSocket".to_owned(),
        };
        let mut client = context.client("C")?;
        let answer = client.ask(&format!("sent a request with {what}"), &handshake::request(resource, &fields))?;
        let is_right = if right.is_empty() { answer.status != 101 } else { right.contains(&answer.status) };
        if !is_right {
            let expected = match right {
                [] => "any other status than 101".to_owned(),
                right => right.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            };
            return Err(failed(&expected, format!("status {}", answer.status), NOT_REFUSED));
        }
        notes.push(format!("{what}: {}", answer.status));
    }
    Ok(Some(notes.join(", ")))
}

/// A field, what it says or `None` when it is left out, and the statuses that are right; without a field, none of
/// them is there, and any answer is right that makes no WebSocket of it.
type Wrong = (Option<&'static str>, Option<&'static str>, &'static [u16]);

const WRONG: &[Wrong] = &[
    (Some("Sec-WebSocket-Version"), Some("12"), &[426, 400]),
    (Some("Sec-WebSocket-Key"), None, &[400]),
    (Some("Sec-WebSocket-Key"), Some("too short"), &[400]),
    (None, None, &[]),
];

const NOT_REFUSED: &str = "Look at the request before you answer 101. A version that is not 13 is answered with 426, and the field \
                           Sec-WebSocket-Version: 13; a key that is missing, or is not 16 bytes in base64, with 400. Both are answers \
                           of HTTP, and end the connection.";

fn is_101(status: u16) -> Result<(), Stop> {
    match status {
        101 => Ok(()),
        404 => Err(failed("status 101", "status 404", "Is there a WebSocket at another path?")),
        status => Err(failed(
            "HTTP/1.1 101 Switching Protocols",
            format!("status {status}"),
            "The request is a right one. Names of fields, and the words `websocket` and `Upgrade`, may be in upper or lower \
             case; Connection may be a list; and a request may come in pieces: read on to the empty line.",
        )),
    }
}

fn echo(context: &mut Context<'_>) -> Verdict {
    let (voice, mut talk) = ch19_voice::find(context)?;
    let mut notes = vec![match &voice {
        Voice::Back(prefix) if prefix.is_empty() => "a text comes back".to_owned(),
        Voice::Back(prefix) => format!("a text comes back, with {:?} in front", String::from_utf8_lossy(prefix)),
        Voice::Others => "what one says, the others hear".to_owned(),
        Voice::Nobody => "it speaks unasked, and answers nothing".to_owned(),
    }];
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
    context.voice = Some(voice);
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
    client.ping(b"before the end")?;
    client.end();
    client.expect_to_be_let_go()?;
    Ok(None)
}

fn fragments(context: &mut Context<'_>) -> Verdict {
    let (voice, mut talk) = match context.voice.clone() {
        Some(voice) => (voice, Talk::open(context)?),
        None => ch19_voice::find(context)?,
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
        return Ok(Some("it answers nothing: seen is only that it goes on".to_owned()));
    }
    match talk.expect(&mark, &text)? {
        None => Ok(None),
        Some(heard) => Err(talk.speaker.instead(&heard, "the text as one message").into()),
    }
}
