//! Chapter 12: stopping, and leaving nothing behind.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Chapter, Context, Need, Stage, failed};
use crate::exchange::Kind;
use crate::kernel;
use crate::manner::find;
use crate::probe::Ending;
use crate::show::brief;
use crate::story::{long, seconds};
use crate::target::Address;
use crate::trouble::{Stop, Symptom, Trouble, Verdict};

const CHAPTER: Chapter = Chapter::new(12);

/// How long it may go on serving new clients after the signal.
const NEW_CLIENTS: Duration = Duration::from_secs(2);

/// Clients of a round of coming and going.
const ROUND: usize = 20;

/// What may be left of a round, for reasons of its own.
const A_FEW: usize = 2;

const WAITS: &str = "The server waits for a client that says nothing, and such a client keeps it from ending for ever. At the \
                     signal, end the connections on which no message is on its way; give the others a deadline.";

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "nothing-left",
        chapter: CHAPTER,
        requirement: "When clients have left, descriptors and threads are back to where they were.",
        needs: &[Need::Answers, Need::Spawn],
        hints: &[],
        uses_up_the_server: false,
        run: nothing_left,
    },
    Stage {
        name: "interrupt",
        chapter: CHAPTER,
        requirement: "Ctrl-C (SIGINT): no new clients, the message in flight is answered, and it ends.",
        needs: &[Need::Answers, Need::Spawn],
        hints: &[
            (&[Symptom::NotEnded], WAITS),
            (
                &[Symptom::Ended, Symptom::Reset, Symptom::Silent, Symptom::Partial],
                "The message that was on its way when the signal came was lost. A signal ends a program at once, unless the \
             program says what it should do: let the handler only set a flag and wake the server, finish what was begun, and \
             then end.",
            ),
        ],
        uses_up_the_server: true,
        run: interrupt,
    },
];

fn nothing_left(context: &mut Context<'_>) -> Verdict {
    let count = |context: &mut Context<'_>| {
        let family = context.spawned().family();
        (kernel::descriptors(&family), kernel::threads(&family))
    };
    let at_first = count(context);
    round(context)?;
    // What the first clients make a server open once, it may keep; what every client leaves behind is a leak.
    let mut before = count(context);
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_secs(1) && before.0 > at_first.0 {
        std::thread::sleep(Duration::from_millis(10));
        before = count(context);
    }
    context.step(format!("{ROUND} clients came, were answered, and left: then {}", counted(before)));
    round(context)?;
    let mut after = count(context);
    let waited = Instant::now();
    while waited.elapsed() < context.story.patience() && (after.0 > before.0 || after.1 > before.1 + A_FEW) {
        std::thread::sleep(Duration::from_millis(10));
        after = count(context);
    }
    context.step(format!(
        "{ROUND} more came, were answered, and left (half of them with a reset): then {}",
        counted(after)
    ));
    if after.0 > before.0 + A_FEW {
        let cause = "Each client leaves a descriptor behind. Close the connection on every way out of the code that serves a client, \
                     also after an error: a server that forgets them runs out one day.";
        return Err(failed(&format!("{} descriptors", before.0), format!("{}", after.0), cause));
    }
    if after.1 > before.1 + A_FEW {
        let cause =
            "Each client leaves a thread behind. What does the thread still wait for, when its client has gone?";
        return Err(failed(&format!("{} threads", before.1), format!("{}", after.1), cause));
    }
    Ok(None)
}

fn counted((descriptors, threads): (usize, usize)) -> String {
    format!("{descriptors} descriptors, {threads} threads")
}

fn round(context: &mut Context<'_>) -> Result<(), Trouble> {
    // Half of the places at a time: those of the clients before may be a moment late.
    let at_once = context.limit.map_or(ROUND, |limit| ROUND.min(limit.div_ceil(2)));
    let mut left = ROUND;
    while left > 0 {
        let places = at_once.min(left);
        let told = context.story.steps().len();
        let clients = context.fill(places)?;
        context.story.forget_after(told);
        for (number, client) in clients.into_iter().enumerate() {
            if number % 2 == 0 {
                client.reset();
            }
        }
        left -= places;
    }
    Ok(())
}

fn interrupt(context: &mut Context<'_>) -> Verdict {
    // Nobody knows the server's own deadline for stopping.
    let stopping = long(context.story.patience());
    let pieces = context.answers_pieces()?;
    let places = context.at_most(2);
    let mut idle = if places > 1 { Some(context.client("A")?) } else { None };
    if let Some(idle) = &mut idle {
        let line = context.korean();
        idle.say(&line)?;
        context.step("client A: is silent from now on");
    }
    let line = context.plain();
    let mut client = context.client("B")?;
    let greeting = context.plain();
    client.say(&greeting)?;
    let began = Instant::now();
    let rest = if pieces {
        // Every piece is a message. One that has arrived, and was not read before the signal came, is in flight.
        context.spawned().pause();
        let sent = client.send(&line);
        client.wait_until_it_arrived(line.len());
        context.step("sent SIGINT to the server, as Ctrl-C does, before it could read that");
        context.spawned().signal(Signal::INT);
        context.spawned().go_on();
        sent?;
        &[][..]
    } else {
        let (half, rest) = line.split_at(line.len() / 2);
        client.send(half)?;
        client.let_it_read();
        context.step("sent SIGINT to the server, as Ctrl-C does");
        context.spawned().signal(Signal::INT);
        rest
    };
    let signalled = Instant::now();
    // The half line must be completed before its deadline, and should be completed after the server has noticed.
    let moment = context.deadline.map_or(Duration::from_millis(500), |deadline| deadline / 3);
    let mut newcomers = new_clients(context, signalled, moment / 2, moment / 2);
    if !rest.is_empty() {
        // A moment for a server that ends what it should not.
        let (_, ending) = client.listen(moment.saturating_sub(signalled.elapsed()), 0);
        if ending != Ending::Open {
            context.step("client B: its connection was ended, in the middle of its line");
            if context.deadline.is_some_and(|deadline| began.elapsed() > deadline / 2) {
                context.story.doubt();
            }
            let trouble = Trouble::new(Symptom::Ended, "time to complete the line", "the end of the connection");
            return Err(trouble.into());
        }
        client.send_for(rest, Duration::from_secs(1)).ok();
        context.step(format!("client B: sent the rest of its line, {}", brief(rest)));
    }
    let answered = client.expect(&line, Kind::Text);
    if answered.is_err() && !pieces && context.deadline.is_some_and(|deadline| began.elapsed() > deadline / 2) {
        context.story.doubt(); // Perhaps it was not the signal, but the deadline, that ended it.
    }
    answered?;
    if newcomers != NewClients::TurnedAway {
        newcomers = new_clients(context, signalled, NEW_CLIENTS, Duration::from_secs(1));
    }
    if newcomers == NewClients::Answered {
        context.step(format!(
            "a new client connected and was answered, {} after the signal",
            seconds(signalled.elapsed())
        ));
        let cause = "After the signal the server goes on as before. Let the signal end the loop that accepts; a loop that waits in \
                     accept has to be woken for that.";
        return Err(failed("no new clients", "a new client was answered", cause));
    }
    client.expect_end_within(stopping)?;
    drop(client);
    if let Some(idle) = &mut idle {
        let (_, ending) = idle.listen(stopping.saturating_sub(signalled.elapsed()), 4096);
        if ending == Ending::Open {
            context.step(format!("client A: its connection was still open, {} after the signal", seconds(stopping)));
            return Err(stays("the end of every connection", stopping));
        }
    }
    drop(idle);
    if !context.spawned().ends_within(stopping.saturating_sub(signalled.elapsed())) {
        context.step(format!("waited for the server's process to end, {} in all", seconds(stopping)));
        return Err(stays("the end of the process", stopping));
    }
    let took = signalled.elapsed();
    if let Address::Tcp(address) = context.address
        && let Err(error) = TcpListener::bind(address)
    {
        context.step(format!("the process ended; tried to listen on {address}"));
        let cause =
            "The server ended, but something still listens on its port: a process that it started, and left behind?";
        return Err(failed("a port that is free again", error.to_string(), cause));
    }
    Ok(Some(format!("ended {} after the signal", seconds(took))))
}

/// How it goes with new clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NewClients {
    /// They cannot connect, or are sent away.
    TurnedAway,
    /// They wait, in the kernel's queue.
    NotAnswered,
    Answered,
}

/// Tries until they are turned away, or `patience` is over since the signal; waits so long for each answer.
fn new_clients(context: &mut Context<'_>, signalled: Instant, patience: Duration, each: Duration) -> NewClients {
    let mut last_answered: Option<Instant> = None;
    loop {
        let line = context.plain();
        let told = context.story.steps().len();
        let Ok(mut client) = context.one_of_many() else {
            context.story.forget_after(told);
            context.step("a new client could not connect");
            return NewClients::TurnedAway;
        };
        let _ = client.send_for(&line, Duration::from_millis(100));
        let (came, ending) = client.listen_until(&line, each);
        let found = match find(&came, &line) {
            Some(_) => NewClients::Answered,
            None if ending != Ending::Open => NewClients::TurnedAway,
            None => NewClients::NotAnswered,
        };
        if found == NewClients::TurnedAway {
            context.step("a new client was sent away");
        }
        if found == NewClients::Answered {
            last_answered = Some(Instant::now());
        }
        if found == NewClients::TurnedAway {
            return found;
        }
        if signalled.elapsed() > patience {
            // One that was not answered may have met a server that was busy with those before.
            let goes_on = last_answered.is_some_and(|at| at.elapsed() < each + Duration::from_millis(500));
            return if goes_on { NewClients::Answered } else { found };
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stays(expected: &str, stopping: Duration) -> Stop {
    failed(&format!("{expected} within {}", seconds(stopping)), "nothing: it goes on", WAITS)
}
