//! Frames that must not be: who sends one is closed, and nobody else notices.

use std::time::Instant;

use super::Context;
use crate::frames::{self, CONTINUE, FIN, MOST_IN_CONTROL, PING, RSV1, TEXT};
use crate::show::{brief, hex};
use crate::trouble::{Stop, Symptom, Trouble, Verdict};
use crate::websocket::{END, Heard, WebSocket, shown};

/// What is sent, made of a text and a mask; the code that fits, and the rule (sections of RFC 6455).
struct Case {
    what: &'static str,
    bytes: fn(&str, [u8; 4]) -> Vec<u8>,
    code: u16,
    rule: &'static str,
}

const CASES: &[Case] = &[
    Case {
        what: "a text without a mask",
        bytes: |text, _| frames::unmasked(FIN | TEXT, text.as_bytes()),
        code: 1002,
        rule: "Every frame of a client is masked, and one that is not closes the connection (section 5.1): look at the \
               highest bit of the second byte.",
    },
    Case {
        what: "a text with the first reserved bit (RSV1)",
        bytes: |text, mask| frames::masked(FIN | RSV1 | TEXT, text.as_bytes(), mask),
        code: 1002,
        rule: "The three bits behind FIN belong to extensions. None was agreed on, so they are 0 (section 5.2).",
    },
    Case {
        what: "a frame with opcode 3, which means nothing",
        bytes: |text, mask| frames::masked(FIN | 3, text.as_bytes(), mask),
        code: 1002,
        rule: "Opcodes 3 to 7 and 11 to 15 are reserved: a frame that has one closes the connection (section 5.2).",
    },
    Case {
        what: "a ping without FIN",
        bytes: |text, mask| frames::masked(PING, text.as_bytes(), mask),
        code: 1002,
        rule: "A close, a ping and a pong are never in fragments: they have FIN (section 5.5).",
    },
    Case {
        what: "a ping of 126 bytes",
        bytes: |_, mask| frames::masked(FIN | PING, &[b'x'; MOST_IN_CONTROL + 1], mask),
        code: 1002,
        rule: "A close, a ping and a pong have at most 125 bytes (section 5.5).",
    },
    Case {
        what: "opcode 0 where no message has begun",
        bytes: |text, mask| frames::masked(FIN | CONTINUE, text.as_bytes(), mask),
        code: 1002,
        rule: "A frame with opcode 0 goes on with a message; where none has begun, it closes the connection (section 5.4).",
    },
    Case {
        what: "a new text inside one that is not complete",
        bytes: |text, mask| {
            let begun = frames::masked(TEXT, text.as_bytes(), mask);
            [begun, frames::masked(FIN | TEXT, text.as_bytes(), mask)].concat()
        },
        code: 1002,
        rule: "A message that has begun goes on with opcode 0 until FIN; messages are not mixed (section 5.4).",
    },
    Case {
        what: "a text that is not UTF-8",
        bytes: |text, mask| frames::masked(FIN | TEXT, &[text.as_bytes(), b" caf\xe9"].concat(), mask),
        code: 1007,
        rule: "A text is UTF-8. One that is not closes the connection, and is not mended (section 8.1).",
    },
    Case {
        what: "a text that says it has 4,611,686,018,427,387,904 bytes (2^62), and its first 1,000",
        bytes: |text, mask| {
            let text: Vec<u8> = text.bytes().cycle().take(1000).collect();
            let begun = frames::masked(FIN | TEXT, &text, mask);
            // Its own head takes 4 bytes.
            [&frames::head(FIN | TEXT, 1 << 62, true), &begun[4..]].concat()
        },
        code: 1009,
        rule: "Look at the length before you read, and before you reserve memory for it: a message over the server's limit \
               closes the connection with 1009. A server without a limit reads for ever (section 10.4).",
    },
];

pub(super) fn refused(context: &mut Context<'_>) -> Verdict {
    if context.at_most(2) < 2 {
        return Err(Stop::Skipped("two clients at once are more than --limit allows".to_owned()));
    }
    let mut bystander = context.websocket("A")?;
    if bystander.ping(b"client A is here").is_err() {
        let why = "it answers no ping (ws-ping), and so cannot be asked whether the others are served";
        return Err(Stop::Skipped(why.to_owned()));
    }
    let mut silent = 0;
    for case in CASES {
        let text = context.random.plain();
        let told = context.story.steps().len();
        let mut client = context.websocket("B")?;
        client.unwanted = Some(text.clone().into_bytes());
        bystander.unwanted = client.unwanted.clone();
        let mask = client.mask();
        let bytes = (case.bytes)(&text, mask);
        client.step(format!("sent {}: {}", case.what, hex(&bytes)));
        // It may refuse before it has all of it.
        let _ = client.send_bytes(&bytes);
        let how = expect_refusal(&mut client, case).map_err(|trouble| trouble.seen(Some(case.rule)))?;
        silent += usize::from(how != shown(Some(case.code)));
        client.step(format!("read {how}"));
        // Who is dead, or passes on what it has refused, is found here.
        bystander.ping(b"client A is still here").map_err(|trouble| match trouble.symptom {
            Symptom::Seen => trouble.seen(Some(case.rule)),
            _ => trouble.seen(Some("What one client does wrong ends its own connection, and no other.")),
        })?;
        context.story.forget_after(told);
        context.step(format!("client B: sent {}, and read {how}; client A is still served", case.what));
    }
    Ok((silent > 0).then(|| format!("{silent} of {} times without the code", CASES.len())))
}

/// Reads on to the end, with or without a close; how it came.
fn expect_refusal(client: &mut WebSocket, case: &Case) -> Result<String, Trouble> {
    let expected = shown(Some(case.code));
    let since = Instant::now();
    let patience = client.patience();
    loop {
        match client.hear(since, patience)? {
            Heard::Close(Some(code)) if code == case.code => break,
            Heard::Close(code) => return Err(Trouble::new(Symptom::Changed, expected, shown(code))),
            // To tell why is good, and not demanded (section 7.1.7).
            Heard::End => return Ok("the end, without a close".to_owned()),
            Heard::Reset => return Ok("a reset".to_owned()),
            Heard::Pong(payload) => {
                client.step(format!("read a pong: {}", brief(&payload)));
                return Err(Trouble::new(Symptom::Seen, expected, "a pong"));
            }
            Heard::Message(_) if since.elapsed() < patience => {}
            Heard::Message(_) | Heard::Nothing => return Err(client.still_open("no close", &expected)),
        }
    }
    // A goodbye is answered, and then the server ends; with a reset, if it has not read our answer.
    let code = case.code.to_be_bytes();
    let _ = client.send(FIN | frames::CLOSE, &code);
    match client.hear(Instant::now(), patience)? {
        Heard::End | Heard::Reset => Ok(expected),
        Heard::Nothing => Err(client.still_open("nothing", END)),
        other => Err(client.instead(&other, END)),
    }
}
