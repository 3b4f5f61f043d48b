//! Chapter 4: a server that answers one client after another.

use std::time::Duration;

use super::{Chapter, Context, Need, Stage, greeting};
use crate::exchange::{Kind, Pace};
use crate::probe::Ending;
use crate::show::{brief, difference};
use crate::trouble::{Symptom, Trouble, Verdict};

const CHAPTER: Chapter = Chapter::new(4);

/// How long is listened for what should not come.
const QUIET: Duration = Duration::from_millis(300);

/// Enough to fill every buffer on the way.
const MEBIBYTE: usize = 1024 * 1024;

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "connects",
        chapter: CHAPTER,
        requirement: "It can be connected to, and waits to be spoken to.",
        needs: &[],
        hints: &[
            (
                &[Symptom::Ended, Symptom::Reset],
                "The server ends a connection on which nothing was sent yet. Read first, and wait for what comes.",
            ),
            (
                &[Symptom::Unasked],
                "The server speaks before it is asked. A welcome is friendly, but here the client speaks first, and \
                 what comes back must be what it sent.",
            ),
        ],
        uses_up_the_server: false,
        run: connects,
    },
    Stage {
        name: "greeting",
        chapter: CHAPTER,
        requirement: "A line is answered with that line; a constant text may stand in front of it.",
        needs: &[],
        hints: &[
            (
                &[Symptom::Silent],
                "Read once, and answer what was read. A server that reads until the client ends (read_to_end, \
                 recv until empty) waits for ever: this client keeps its connection open, because it wants an answer. \
                 Is the answer flushed?",
            ),
            (
                &[Symptom::Ended],
                "The server ended the connection before it had answered. Did an error end it? Look at what it prints.",
            ),
            (
                &[Symptom::Extra],
                "Something stands behind the line that was sent. Does println!, print or puts add a newline of its \
                 own? Write the bytes that were read, and nothing behind them.",
            ),
        ],
        uses_up_the_server: false,
        run: greeting::greeting,
    },
    Stage {
        name: "several-messages",
        chapter: CHAPTER,
        requirement: "Several messages on one connection are answered one after another.",
        needs: &[Need::Answers],
        hints: &[
            (
                &[Symptom::Ended, Symptom::Reset, Symptom::Silent],
                "After its first answer the server stops listening to this client. Read in a loop, until read returns 0.",
            ),
            (
                &[Symptom::Changed],
                "A later answer differs. Is the buffer used again with what was in it? Use only the bytes that the \
                 last read returned, and put the same text in front each time.",
            ),
        ],
        uses_up_the_server: false,
        run: several_messages,
    },
    Stage {
        name: "ends-with-client",
        chapter: CHAPTER,
        requirement: "When the client ends, the server ends the connection too, in good order.",
        needs: &[Need::Answers],
        hints: &[
            (
                &[Symptom::NotEnded],
                "The client has ended its half, so read returns 0 (an empty result): that is the end of its input. \
                 Close the connection then. A loop that takes 0 for an empty message goes round for ever.",
            ),
            (
                &[Symptom::Extra],
                "Something was sent at the end that nobody asked for. Is the end (read returns 0) answered like a message?",
            ),
        ],
        uses_up_the_server: false,
        run: ends_with_client,
    },
    Stage {
        name: "come-and-go",
        chapter: CHAPTER,
        requirement: "Four clients that connect and leave without a word do no harm.",
        needs: &[Need::Answers],
        hints: &[(
            &[Symptom::Refused, Symptom::Silent, Symptom::Died, Symptom::Ended, Symptom::Reset],
            "A client that sends nothing is no error: its read returns 0 at once. Look for an unwrap, an index or an \
             exception on the first line that a client sends, and for a thread that ends with it.",
        )],
        uses_up_the_server: false,
        run: come_and_go,
    },
    Stage {
        name: "all-bytes",
        chapter: CHAPTER,
        requirement: "All 256 byte values come back unchanged.",
        needs: &[Need::Answers],
        hints: &[(
            &[Symptom::Changed, Symptom::Partial, Symptom::Silent, Symptom::Ended, Symptom::Reset, Symptom::Died],
            "These bytes are not text. A server that turns them into text, to answer or only to print them, loses some or \
             stops at an error. Answer with the bytes themselves; print them with care.",
        )],
        uses_up_the_server: false,
        run: all_bytes,
    },
    Stage {
        name: "one-mebibyte",
        chapter: CHAPTER,
        requirement: "1 MiB in lines comes back whole to a client that reads as it writes.",
        needs: &[Need::Answers],
        hints: BULK,
        uses_up_the_server: false,
        run: one_mebibyte,
    },
    Stage {
        name: "slow-reader",
        chapter: CHAPTER,
        requirement: "1 MiB in lines comes back whole to a client that reads slowly.",
        needs: &[Need::Answers],
        hints: BULK,
        uses_up_the_server: false,
        run: slow_reader,
    },
];

const BULK: &[super::Hint] = &[
    (
        &[Symptom::Partial, Symptom::Silent, Symptom::Ended, Symptom::Reset],
        "Not all came back. When the client does not read for a while, the buffers between the two fill up, and a write \
         takes only a part, or none (WouldBlock, EAGAIN): write the rest later (write_all, sendall, drain). A read may \
         hold many lines: answer all of them.",
    ),
    (
        &[Symptom::Changed],
        "Somewhere in the middle bytes are missing or changed. Is a long line cut to the size of a buffer? When a write \
         takes only a part, is the rest written later (write_all, sendall)? Does a read hold more than one line?",
    ),
    (
        &[Symptom::Stuck],
        "The server stopped reading although the client reads. Does it collect everything before it answers?",
    ),
];

fn connects(context: &mut Context<'_>) -> Verdict {
    let mut client = context.client("")?;
    client.let_it_accept();
    let quiet = context.deadline.map_or(QUIET, |deadline| QUIET.min(deadline / 2));
    let (came, ending) = client.listen(quiet, 4096);
    context.step(format!("sent nothing, and listened for {} ms", quiet.as_millis()));
    if !came.is_empty() {
        context.step(format!("read {}", brief(&came)));
        let shown = difference(b"", b"", &came[..came.len().min(64)], "");
        return Err(Trouble { expected: "silence".to_owned(), ..Trouble::differs(Symptom::Unasked, shown) }.into());
    }
    match ending {
        Ending::Open => {
            // A client that leaves without a word is a matter of a later stage.
            let line = context.korean();
            client.send(&line)?;
            client.listen_until(&line, QUIET);
            Ok(None)
        }
        Ending::Clean => Err(Trouble::new(Symptom::Ended, "an open connection", "the end of the connection").into()),
        Ending::Reset => Err(Trouble::new(Symptom::Reset, "an open connection", "a reset").into()),
    }
}

fn several_messages(context: &mut Context<'_>) -> Verdict {
    let mut client = context.client("")?;
    // Long and short in turn: the end of a long one must not be seen behind a short one.
    let lines = [context.korean(), context.plain(), b"?\n".to_vec(), b"\n".to_vec(), context.korean()];
    for line in lines {
        client.say(&line)?;
    }
    Ok(None)
}

fn ends_with_client(context: &mut Context<'_>) -> Verdict {
    let line = context.korean();
    let mut client = context.client("")?;
    client.say(&line)?;
    client.end();
    client.expect_end()?;
    Ok(None)
}

fn come_and_go(context: &mut Context<'_>) -> Verdict {
    for _ in 0..4 {
        let mut client = context.one_of_many()?;
        // The server has to have noticed, before the next one comes: one after another, not all at once.
        client.end();
        client.listen(Duration::from_millis(300), 4096);
    }
    context.step("four clients connected and left, one after another, without a word");
    let line = context.korean();
    let mut client = context.client("E")?;
    client.say(&line)?;
    Ok(None)
}

fn all_bytes(context: &mut Context<'_>) -> Verdict {
    let mut client = context.client("")?;
    // In order, so that a person can read where it goes wrong; then as the seed has it. A newline ends each.
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.push(b'\n');
    client.exchange(&bytes, Kind::Bytes, Pace::Fast)?;
    context.random.shuffle(&mut bytes);
    bytes.push(b'\n');
    client.exchange(&bytes, Kind::Bytes, Pace::Fast)?;
    Ok(None)
}

/// 1 MiB of lines, none longer than any server may refuse.
fn mebibyte(context: &mut Context<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MEBIBYTE + 1000);
    while bytes.len() < MEBIBYTE {
        // ASCII, for characters that are torn apart are a matter of the next chapter.
        let line = context.plain();
        let words = &line[..line.len() - 1];
        // Up to 1,000 bytes a line; and for certain one of that length.
        let most = if bytes.is_empty() { 1000 } else { context.random.between(10, 1000) };
        let start = bytes.len();
        while bytes.len() - start + words.len() + 2 < most {
            bytes.extend_from_slice(words);
            bytes.push(b' ');
        }
        bytes.push(b'.');
        bytes.push(b'\n');
    }
    bytes
}

fn one_mebibyte(context: &mut Context<'_>) -> Verdict {
    let bytes = mebibyte(context);
    let mut client = context.client("")?;
    client.exchange(&bytes, Kind::Text, Pace::Fast)?;
    Ok(None)
}

fn slow_reader(context: &mut Context<'_>) -> Verdict {
    let bytes = mebibyte(context);
    let mut client = context.connect(Some(""), Some(16 * 1024))?;
    client.exchange(&bytes, Kind::Text, Pace::Slow)?;
    Ok(None)
}
