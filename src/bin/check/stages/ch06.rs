//! Chapter 6: many clients at once, and both directions at once.

use std::time::{Duration, Instant};

use super::{Chapter, Context, Need, Stage};
use crate::exchange::Kind;
use crate::probe::Client;
use crate::show::group;
use crate::story::seconds;
use crate::trouble::{Stop, Symptom, Trouble, Verdict};

const CHAPTER: Chapter = Chapter::new(6);

const CROWD: usize = 100;

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "second-client",
        chapter: CHAPTER,
        requirement: "A second client is answered while the first is silent.",
        needs: &[Need::Answers],
        hints: &[(
            &[Symptom::Silent],
            "The server waits for a silent client, and everyone else waits for the server. Give each client a thread (or \
             a task, or use events): then one that is silent keeps nobody waiting.",
        )],
        uses_up_the_server: false,
        run: second_client,
    },
    Stage {
        name: "at-once",
        chapter: CHAPTER,
        requirement: "A hundred clients at once (or as many as --limit) all get their own answers.",
        needs: &[Need::Answers],
        hints: &[
            (
                &[Symptom::Silent, Symptom::Refused, Symptom::Ended, Symptom::Reset],
                "With many clients connected, one was not answered. Does a connection that stays open keep the others \
                 from being served? If the server takes only a number of clients at once, say so with --limit.",
            ),
            (
                &[Symptom::Changed, Symptom::Extra, Symptom::Partial],
                "A client got what is not its own. If it belongs to another: is there a buffer, or a variable for \"the \
                 client\", that all of them share? Each connection needs its own. If the server says that it is full: say \
                 with --limit how many clients it takes.",
            ),
        ],
        uses_up_the_server: false,
        run: at_once,
    },
    Stage {
        name: "late-answer",
        chapter: CHAPTER,
        requirement: "A client that ends its half right after its message still gets the answer.",
        needs: &[Need::Answers],
        hints: &[(
            &[Symptom::Ended, Symptom::Reset, Symptom::Silent, Symptom::Partial],
            "The client has ended only its own half (FIN): it sends no more, but it still reads. Answer everything that \
             was read before, and close after that. In Node, look at allowHalfOpen.",
        )],
        uses_up_the_server: false,
        run: late_answer,
    },
    Stage {
        name: "writes-first",
        chapter: CHAPTER,
        requirement: "A client writes 8 MiB before it reads: what happens is told; any way is allowed.",
        needs: &[Need::Answers],
        hints: &[],
        uses_up_the_server: false,
        run: writes_first,
    },
];

fn second_client(context: &mut Context<'_>) -> Verdict {
    if context.at_most(3) < 3 {
        return Err(Stop::Skipped("three clients at once are more than --limit allows".to_owned()));
    }
    let mut spoke = context.client("A")?;
    let line = context.korean();
    spoke.say(&line)?;
    context.step("client A: is silent from now on");
    let mut silent = context.client("B")?;
    context.step("client B: sends nothing for now");
    let line = context.korean();
    let asked = Instant::now();
    let mut second = context.client("C")?;
    second.say(&line)?;
    // A server that serves one after another goes on when a deadline has ended the silent ones.
    if let Some(deadline) = context.deadline.filter(|deadline| asked.elapsed() > *deadline * 3 / 4) {
        let received = format!("an answer after {}, when A had met its deadline", seconds(asked.elapsed()));
        let expected = format!("an answer before the deadline of A, {}", seconds(deadline));
        context.story.doubt();
        return Err(Trouble::new(Symptom::Silent, expected, received).into());
    }
    // The silent ones are not forgotten.
    let line = context.korean();
    spoke.say(&line)?;
    let line = context.korean();
    silent.say(&line)?;
    Ok(None)
}

fn at_once(context: &mut Context<'_>) -> Verdict {
    let count = context.at_most(CROWD);
    // Places of the stage before may still be on their way back, so a crowd as large as the limit may try again.
    let mut left = if context.limit.is_some() { 3 } else { 1 };
    loop {
        left -= 1;
        let told = context.story.steps().len();
        match crowd(context, count) {
            Err(trouble) if left == 0 => return Err(trouble.into()),
            Err(_) => {
                context.story.forget_after(told);
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(()) => break,
        }
    }
    context.recovers(Duration::from_secs(3))?;
    Ok((count < CROWD).then(|| format!("{count} clients")))
}

fn crowd(context: &mut Context<'_>, count: usize) -> Result<(), Trouble> {
    let lines: Vec<Vec<u8>> = (0..count).map(|_| context.plain()).collect();
    let mut clients: Vec<Client> = Vec::new();
    let told = context.story.steps().len();
    for number in 1..=count {
        match context.one_of_many() {
            Ok(client) => clients.push(client),
            Err(trouble) => {
                context.story.forget_after(told);
                context.step(format!("{} of {count} clients connected, and stay", clients.len()));
                context.step(format!("client {number} tried to connect"));
                return Err(trouble);
            }
        }
    }
    context.step(format!("{count} clients connected, and stay"));
    // All have sent before anyone is listened to, so that the answers could be mixed up.
    for (client, line) in clients.iter_mut().zip(&lines) {
        client.send(line)?;
    }
    context.step(format!("each of the {count} sent a line of its own"));
    // The last ones first: a server that serves one after another has to answer them while the first are open.
    let mut result = Ok(());
    for (number, (client, line)) in clients.iter_mut().zip(&lines).enumerate().rev() {
        result = client.expect(line, Kind::Text);
        if result.is_err() {
            context.step(format!("client {} of {count} read its answer", number + 1));
            break;
        }
    }
    context.part(clients);
    result
}

fn late_answer(context: &mut Context<'_>) -> Verdict {
    let line = context.korean();
    let mut client = context.client("A")?;
    client.send(&line)?;
    client.end();
    client.expect(&line, Kind::Text)?;

    let lines: Vec<u8> = (0..1000).flat_map(|_| context.plain()).collect();
    let mut client = context.client("B")?;
    client.send(&lines)?;
    client.end();
    client.expect(&lines, Kind::Text)?;
    Ok(None)
}

fn writes_first(context: &mut Context<'_>) -> Verdict {
    const ALL: usize = 8 * 1024 * 1024;
    let line = [context.plain().trim_ascii_end(), b" "].concat().repeat(10);
    let line = [line.as_slice(), b"\n"].concat();
    let bytes = line.repeat(ALL / line.len());
    // Nothing here fails the stage: not even the client's trouble is the server's fault.
    let Ok(mut client) = context.client("") else {
        return Ok(Some("could not connect".to_owned()));
    };
    let sent = client.send_for(&bytes, Duration::from_millis(300));
    client.end();
    client.discard(Duration::from_secs(3));
    Ok(Some(match sent {
        Ok(sent) if sent == bytes.len() => {
            "all of it went out: the server, or the kernel on its way, holds the answers".to_owned()
        }
        Ok(sent) => format!(
            "it stopped reading after {} KiB, until the client read: its memory is safe, and a client must read \
             while it writes",
            group(sent / 1024)
        ),
        Err(_) => "it ended the connection".to_owned(),
    }))
}
