//! Chapter 4: a server that answers one client after another.

use std::rc::Rc;
use std::time::Duration;

use super::{Chapter, Context, Need, Stage};
use crate::diagnose;
use crate::manner::{Manner, find};
use crate::probe::{Ending, Kind, Pace, seconds};
use crate::show::{brief, difference, escape, group};
use crate::trouble::{Symptom, Trouble, Verdict};

const CHAPTER: Chapter = Chapter::new(4);

/// How long is listened for what should not come.
const QUIET: Duration = Duration::from_millis(200);

/// A longer text in front of an answer is no prefix.
const LONGEST_PREFIX: usize = 1000;

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
        run: greeting,
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
    let (came, ending) = client.listen(QUIET, 4096);
    context.step(format!("sent nothing, and listened for {} ms", QUIET.as_millis()));
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

/// Also finds out how this server answers.
fn greeting(context: &mut Context<'_>) -> Verdict {
    context.manner = None;
    let manner = probe(context, "A")?;
    let again = probe(context, "B")?;
    if manner != again {
        let first = escape(&manner.prefix);
        let cause = "What stands in front of the answer is not the same each time. A counter, a time or a name of the client? \
                     It may be any text, but always the same one.";
        let received = if manner.prefix == again.prefix { &again.suffix } else { &again.prefix };
        let trouble = Trouble::new(Symptom::Changed, format!("{first} again"), escape(received));
        return Err(trouble.seen(Some(cause)).into());
    }
    let note = match manner.prefix.is_empty() {
        true => None,
        false => Some(format!("puts {:?} in front", String::from_utf8_lossy(&manner.prefix))),
    };
    let suffix = manner.suffix.clone();
    context.manner = Some(Rc::new(manner));
    if !suffix.is_empty() {
        context.step(format!("read the line, and behind it {}", brief(&suffix)));
        return Err(Trouble::new(Symptom::Extra, "nothing behind the line", escape(&suffix)).into());
    }
    Ok(note)
}

/// One line, and everything that comes back: what stands around it.
fn probe(context: &mut Context<'_>, name: &str) -> Result<Manner, Trouble> {
    let line = format!("안녕하세요, 서버님! {}", context.random.plain()).into_bytes();
    let line = [line.as_slice(), b"\n"].concat();
    let mut client = context.client(name)?;
    client.send(&line)?;
    let (mut answer, ended) = client.listen_for(&line, LONGEST_PREFIX + line.len());
    if let Some(ending) = ended {
        return Err(no_answer(context, &line, &answer, ending));
    }
    let (early, _) = client.listen(Duration::from_millis(50), LONGEST_PREFIX);
    client.end();
    let (late, _) = client.listen(Duration::from_millis(500), LONGEST_PREFIX);
    let rest = [early.as_slice(), &late].concat();
    answer.extend_from_slice(&rest);
    let manner = Manner::of(&line, &answer).unwrap_or_default();
    let body = line.strip_suffix(b"\n").unwrap_or(&line);
    if rest.len() >= LONGEST_PREFIX {
        context.step(format!("read {} bytes, and they did not end", group(answer.len())));
        return Err(Trouble::new(Symptom::Flood, "the line", brief(&answer)));
    }
    if find(&manner.prefix, body).is_some() || find(&manner.suffix, body).is_some() {
        context.step(format!("read {}", brief(&answer)));
        let trouble = Trouble::new(Symptom::Extra, "the line once", brief(&answer));
        return Err(trouble.seen(Some("The answer came twice.")));
    }
    if early.is_empty() && !late.is_empty() {
        context.step(format!("read {}", brief(&late)));
        let cause =
            "Something was sent at the end that nobody asked for. Is the end (read returns 0) answered like a message?";
        return Err(Trouble::new(Symptom::Unasked, "the end, and nothing before it", escape(&late)).seen(Some(cause)));
    }
    if std::str::from_utf8(&manner.prefix).is_err() {
        context.step(format!("read {}", brief(&answer)));
        let trouble =
            Trouble::new(Symptom::Changed, "a text in front of the answer, or nothing", brief(&manner.prefix));
        let cause = "What stands in front of the answer is no text. Is more sent than was read, or memory that was never written?";
        return Err(trouble.seen(Some(cause)));
    }
    Ok(manner)
}

fn no_answer(context: &Context<'_>, line: &[u8], answer: &[u8], ending: Ending) -> Trouble {
    let (symptom, instead) = match ending {
        Ending::Clean => (Symptom::Ended, "then the server ended the connection"),
        Ending::Reset => (Symptom::Reset, "then the connection was reset"),
        Ending::Open => (Symptom::Silent, "then nothing more"),
    };
    if answer.is_empty() {
        context.step("waited for the answer: nothing came");
        let instead = match ending {
            Ending::Open => format!("nothing for {}", seconds(context.story.patience())),
            _ => instead.trim_start_matches("then ").to_owned(),
        };
        return Trouble::differs(symptom, difference(b"", line, b"", &instead));
    }
    context.step(format!("read {}", brief(answer)));
    if answer.len() > LONGEST_PREFIX {
        return Trouble::new(Symptom::Flood, escape(line), brief(answer));
    }
    // Without knowing the prefix, the comparison begins where the answer has most in common with the line.
    let start = (0..answer.len()).max_by_key(|&at| (common(&answer[at..], line), answer.len() - at)).unwrap_or(0);
    let right = common(&answer[start..], line);
    let prefix = if right > 0 { &answer[..start] } else { b"" };
    let (seen, wrong) = answer.split_at(prefix.len() + right);
    let shown = difference(seen, &line[right..], wrong, instead);
    let manner = Manner { prefix: prefix.to_vec(), suffix: Vec::new() };
    Trouble::differs(Symptom::Changed, shown).seen(
        diagnose::what_differs(line, answer, &manner)
            .or_else(|| diagnose::what_differs(line, answer, &Manner::default())),
    )
}

/// How many bytes two texts have in common at their beginning.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
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
