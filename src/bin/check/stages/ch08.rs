//! Chapter 8: clients that are silent, and clients that take for ever.

use std::time::{Duration, Instant};

use super::{Chapter, Context, Need, Stage, failed};
use crate::manner::find;
use crate::probe::Ending;
use crate::show::brief;
use crate::story::seconds;
use crate::trouble::{Stop, Symptom, Verdict};

const CHAPTER: Chapter = Chapter::new(8);

/// A longer deadline would keep the reader waiting too long.
pub(super) const LONGEST: Duration = Duration::from_secs(10);

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "silent-let-go",
        chapter: CHAPTER,
        requirement: "A silent client is let go after --deadline, and an active one is kept.",
        needs: &[Need::Answers, Need::Deadline],
        hints: &[(
            &[Symptom::Ended, Symptom::Reset, Symptom::Silent],
            "A client that had sent a line a moment ago was let go. The deadline for silence begins again with every \
             message; it is not the length of a connection's life.",
        )],
        uses_up_the_server: false,
        run: silent_let_go,
    },
    Stage {
        name: "drip-let-go",
        chapter: CHAPTER,
        requirement: "A client that sends a line byte by byte, and never ends it, is let go.",
        needs: &[Need::Answers, Need::Deadline],
        hints: &[],
        uses_up_the_server: false,
        run: drip_let_go,
    },
];

fn silent_let_go(context: &mut Context<'_>) -> Verdict {
    let deadline = context.deadline.unwrap_or_default();
    let pause = deadline / 5;
    let lines: Vec<Vec<u8>> = (0..10).map(|_| context.plain()).collect();
    let began = Instant::now();
    let mut silent = context.client("A")?;
    context.step("client A: sends nothing");
    let mut active = context.client("B")?;
    context.step(format!("client B: sends a line every {}, for twice the deadline", seconds(pause)));
    let mut let_go = None;
    let mut spoke = Instant::now();
    for line in &lines {
        let (came, ending) = silent.listen(if let_go.is_none() { pause } else { Duration::ZERO }, 4096);
        if let_go.is_none() && ending != Ending::Open {
            let_go = Some((began.elapsed(), came));
        }
        if let_go.is_some() {
            // Once A has gone, listening to it is no pause any more.
            std::thread::sleep(pause.saturating_sub(spoke.elapsed()));
        }
        let gap = spoke.elapsed();
        spoke = Instant::now();
        let answered = active.say_quietly(line);
        if let Err(trouble) = answered {
            context.step(format!("client B: sent {}, {} after the line before", brief(line), seconds(gap)));
            // Perhaps it was this machine that kept us silent.
            if gap > deadline / 2 {
                context.story.doubt();
            }
            return Err(trouble.into());
        }
    }
    if let_go.is_none() {
        let left = (deadline + context.story.patience()).saturating_sub(began.elapsed());
        let (came, ending) = silent.listen(left, 4096);
        if ending == Ending::Open {
            let expected = format!("the end of A's connection after {}", seconds(deadline));
            context.step(format!("client A: waited for its end, {} in all", seconds(began.elapsed())));
            let cause = "A client that is silent keeps its place, and its thread, for ever: a few of them, and nobody else is \
                         served. Give the read a time-out, and end the connection when it passes.";
            return Err(failed(&expected, "nothing: the connection is still open", cause));
        }
        let_go = Some((began.elapsed(), came));
    }
    let (after, _) = let_go.unwrap_or_default();
    // Its clock began when it accepted, which is after ours did.
    if after < deadline * 9 / 10 {
        context.step(format!("client A: was let go after {}", seconds(after)));
        let expected = format!("{} of patience", seconds(deadline));
        let cause = "The silent client was let go before the deadline that --deadline names. Is the time-out in the right unit?";
        return Err(failed(&expected, format!("an end after {}", seconds(after)), cause));
    }
    Ok(Some(format!("after {}", seconds(after))))
}

fn drip_let_go(context: &mut Context<'_>) -> Verdict {
    const WHY: &str = "this server answers part of a line: every piece is a message, and none is begun and not ended";
    let deadline = context.deadline.unwrap_or_default();
    if context.answers_pieces()? {
        return Err(Stop::Skipped(WHY.to_owned()));
    }
    let pause = deadline / 5;
    let mut client = context.client("")?;
    context.step(format!("sent one byte every {}, and no newline", seconds(pause)));
    let letters = context.plain();
    let letters: Vec<u8> = letters.iter().copied().filter(u8::is_ascii_lowercase).cycle().take(1000).collect();
    let began = Instant::now();
    let mut came = Vec::new();
    let mut sent = Vec::new();
    for letter in letters {
        sent.push(letter);
        let gone = client.send_for(&[letter], Duration::from_millis(500)).is_err();
        let (more, ending) = client.listen(pause, 4096);
        came.extend(more);
        if gone || ending != Ending::Open {
            let after = began.elapsed();
            if after < deadline * 9 / 10 {
                context.step(format!("was let go after {}", seconds(after)));
                let expected = format!("{} of patience", seconds(deadline));
                let cause = "The client was let go before the deadline that --deadline names.";
                return Err(failed(&expected, format!("an end after {}", seconds(after)), cause));
            }
            return Ok(Some(format!("after {}", seconds(after))));
        }
        if !came.is_empty() && find(&came, &sent[..1]).is_some() {
            return Err(Stop::Skipped(WHY.to_owned()));
        }
        if began.elapsed() > deadline + context.story.patience() {
            break;
        }
    }
    context.step(format!("after {} the connection was still open", seconds(began.elapsed())));
    let expected = format!("the end of the connection, some {} after the first byte", seconds(deadline));
    let cause = "A time-out of a single read begins again with every byte, so a client that sends one byte now and then never \
                 meets it. Remember when the line began, and give each read only the time that is left of its deadline.";
    Err(failed(&expected, "nothing: it goes on", cause))
}
