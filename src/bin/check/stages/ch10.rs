//! Chapter 10: every way in which a connection ends.

use std::time::{Duration, Instant};

use super::{Chapter, Context, Need, Stage, failed};
use crate::kernel;
use crate::manner::find;
use crate::probe::{Client, Ending};
use crate::show::{brief, escape};
use crate::trouble::{Stop, Symptom, Verdict};

const CHAPTER: Chapter = Chapter::new(10);

const UNCAUGHT: &[super::Hint] = &[(
    &[Symptom::Died, Symptom::Refused, Symptom::Ended, Symptom::Reset, Symptom::Silent],
    "A reset of one client is an error of that one connection: end that one, and go on. In Node, a socket without an 'error' \
     listener ends the whole process; in C, writing to a connection that is gone sends SIGPIPE, so ignore that signal; in \
     Rust and Python, look for an unwrap or an exception that nobody handles.",
)];

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "reset-idle",
        chapter: CHAPTER,
        requirement: "A client that is reset while it is idle leaves the others untouched.",
        needs: &[Need::Answers, Need::Tcp],
        hints: UNCAUGHT,
        uses_up_the_server: false,
        run: reset_idle,
    },
    Stage {
        name: "reset-sending",
        chapter: CHAPTER,
        requirement: "A client that is reset in the middle of its message leaves the others untouched.",
        needs: &[Need::Answers, Need::Tcp],
        hints: UNCAUGHT,
        uses_up_the_server: false,
        run: reset_sending,
    },
    Stage {
        name: "reset-receiving",
        chapter: CHAPTER,
        requirement: "A client that is reset while it is being answered leaves the others untouched.",
        needs: &[Need::Answers, Need::Tcp],
        hints: UNCAUGHT,
        uses_up_the_server: false,
        run: reset_receiving,
    },
    Stage {
        name: "last-words",
        chapter: CHAPTER,
        requirement: "What the server says before it closes arrives, although it has not read everything.",
        needs: &[Need::Answers, Need::Limit, Need::Tcp],
        hints: &[],
        uses_up_the_server: false,
        run: last_words,
    },
    Stage {
        name: "endless-line",
        chapter: CHAPTER,
        requirement: "A line of 512 KiB without an end is waited for, or answered with a text and the end, not a reset.",
        needs: &[Need::Answers, Need::Tcp],
        hints: &[],
        uses_up_the_server: false,
        run: endless_line,
    },
];

/// More than most servers want of a line, and not more than a polite one reads before it closes.
const ENDLESS: usize = 512 * 1024;

const UNREAD: &str = "The server closed the connection while what the client had sent was still unread. The kernel turns that into a \
                      reset, and a reset may destroy what was sent just before. Say what there is to say, end your half \
                      (shutdown), read what is still coming, up to a bound, and then close.";

/// A client that is served, and how many descriptors the server has open then, if that can be seen.
fn bystander(context: &mut Context<'_>) -> Result<(Client, Option<usize>), Stop> {
    if context.at_most(2) < 2 {
        return Err(Stop::Skipped("two clients at once are more than --limit allows".to_owned()));
    }
    let line = context.korean();
    let mut bystander = context.client("A")?;
    bystander.say(&line)?;
    Ok((bystander, open_descriptors(context)))
}

/// The bystander is still served, and so is whoever comes next.
fn all_is_well(context: &mut Context<'_>, (mut bystander, before): (Client, Option<usize>)) -> Verdict {
    let lines = [context.korean(), context.korean(), context.korean()];
    bystander.say(&lines[0])?;
    // A program that dies of it may have answered first: wait until it has met the reset, and a moment more.
    let began = Instant::now();
    let bound = context.within_the_deadline(Duration::from_millis(500));
    while began.elapsed() < bound && before.is_some() && open_descriptors(context) > before {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(context.within_the_deadline(Duration::from_millis(50)));
    bystander.say(&lines[1])?;
    // Before the next one comes, so that this is no question of how many are served at once.
    drop(bystander);
    context.step("client A: ended");
    context.client("D")?.say(&lines[2])?;
    Ok(None)
}

fn open_descriptors(context: &Context<'_>) -> Option<usize> {
    let server = context.server.as_ref().filter(|_| kernel::is_known())?;
    Some(kernel::descriptors(&server.family()))
}

fn reset_idle(context: &mut Context<'_>) -> Verdict {
    let bystander = bystander(context)?;
    let victim = context.client("B")?;
    victim.reset();
    // That one may not even have been accepted; this one is known to the server.
    let line = context.korean();
    let mut victim = context.client("C")?;
    let _ = victim.say_for(&line, context.within_the_deadline(Duration::from_millis(300)));
    victim.reset();
    all_is_well(context, bystander)
}

fn reset_sending(context: &mut Context<'_>) -> Verdict {
    let bystander = bystander(context)?;
    let line = context.plain();
    let mut victim = context.client("B")?;
    victim.send(&line[..line.len() / 2])?;
    victim.let_it_read();
    victim.reset();
    all_is_well(context, bystander)
}

fn reset_receiving(context: &mut Context<'_>) -> Verdict {
    let bystander = bystander(context)?;
    let lines: Vec<u8> = (0..20_000).flat_map(|_| context.plain()).collect();
    // The second time the server has read our end before it meets the reset: then its next write is a broken pipe.
    for (name, ends_first) in [("B", false), ("C", true)] {
        let mut victim = context.connect(Some(name), Some(4096))?;
        context.step(format!("client {name}: sends {}, and reads nothing", brief(&lines)));
        // How much of it is taken does not matter, as long as answers are on their way.
        let _ = victim.send_for(&lines, context.within_the_deadline(Duration::from_millis(150)));
        if ends_first {
            victim.end();
        }
        victim.reset();
    }
    all_is_well(context, bystander)
}

/// More clients than there are places, each with a message that the server does not read before it closes.
fn last_words(context: &mut Context<'_>) -> Verdict {
    let limit = context.limit.unwrap_or_default();
    let clients = context.fill(limit)?;
    let line = context.plain();
    // One that is stopped, so that the message is there before the server can look, meets the case for certain. Without
    // that, several tries have to do.
    let tries = if context.server.is_some() { 2 } else { 10 };
    let mut notes = Vec::new();
    for number in 0..tries {
        let quiet = number > 0;
        let (came, ending) = one_too_many(context, &line, quiet)?;
        let is_answer = find(&came, &line).is_some();
        match ending {
            _ if is_answer => notes.push("it was served"),
            Ending::Open if came.is_empty() => notes.push("it was left waiting"),
            Ending::Open => notes.push("it was told, and not closed"),
            Ending::Clean if came.is_empty() => notes.push("it was closed without a text"),
            Ending::Clean => notes.push("it was told"),
            Ending::Reset => {
                context.step(format!("client Z: read {}, then a reset", brief(&came)));
                let received =
                    if came.is_empty() { "a reset".to_owned() } else { format!("{} (then a reset)", escape(&came)) };
                context.part(clients);
                return Err(failed("an answer or a text, and then the end (read returns 0)", received, UNREAD));
            }
        }
    }
    context.part(clients);
    context.recovers(Duration::from_secs(3))?;
    notes.dedup();
    Ok(Some(notes.join(", ")))
}

fn one_too_many(context: &mut Context<'_>, line: &[u8], quiet: bool) -> Result<(Vec<u8>, Ending), Stop> {
    if let Some(server) = &context.server {
        server.pause();
    }
    // Whatever happens, it must go on.
    let attempt = (|| {
        let mut client = if quiet { context.one_of_many()? } else { context.client("Z")? };
        client.send(line)?;
        client.wait_until_it_arrived(line.len());
        Ok::<Client, Stop>(client)
    })();
    if let Some(server) = &context.server {
        server.go_on();
    }
    let mut client = attempt?;
    let outcome = client.listen(context.within_the_deadline(Duration::from_millis(300)), 64 * 1024);
    Ok(outcome)
}

/// A line that may be too long for the server. It may say so and leave, but must not leave in the middle of our
/// sentence.
fn endless_line(context: &mut Context<'_>) -> Verdict {
    if context.answers_pieces()? {
        let why = "this server answers part of a line: none is too long for it";
        return Err(Stop::Skipped(why.to_owned()));
    }
    let letters = context.plain();
    let letters = letters.iter().copied().filter(u8::is_ascii_lowercase).cycle().take(ENDLESS);
    let endless: Vec<u8> = letters.collect();
    let greeting = context.korean();
    let mut client = context.client("")?;
    client.say(&greeting)?;
    context.step(format!("sent {}, and no newline", brief(&endless)));
    let sent = client.send_for(&endless, context.within_the_deadline(Duration::from_millis(300)));
    let (came, ending) = client.listen(context.within_the_deadline(Duration::from_millis(300)), 64 * 1024);
    // The kernel reports a reset once: to whoever sends, or to whoever reads.
    let was_reset = ending == Ending::Reset || sent.is_err();
    if was_reset {
        let received = if came.is_empty() { "a reset".to_owned() } else { format!("{} (then a reset)", escape(&came)) };
        context.step(format!("read {}, then a reset", brief(&came)));
        return Err(failed("no end yet, or a text and then the end (read returns 0)", received, UNREAD));
    }
    let note = match (ending, came.is_empty()) {
        (Ending::Open, true) => "it waits for the newline",
        (Ending::Open, false) => "it was told, and not closed",
        (_, true) => "it was closed without a text",
        (_, false) => "it was told",
    };
    Ok(Some(note.to_owned()))
}
