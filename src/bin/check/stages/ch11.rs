//! Chapter 11: what happens at the limits.

use std::time::{Duration, Instant};

use super::{Chapter, Context, Need, Stage, failed};
use crate::exchange::Kind;
use crate::kernel;
use crate::manner::find;
use crate::probe::{Client, Ending};
use crate::show::brief;
use crate::story::seconds;
use crate::trouble::{Stop, Symptom, Trouble, Verdict};

const CHAPTER: Chapter = Chapter::new(11);

/// Descriptors that are left to the server, and clients that come beyond them.
const ROOM: usize = 4;
const BEYOND: usize = 16;

/// How long is looked whether it spins.
const WATCHED: Duration = Duration::from_millis(700);

/// Processor time that only a loop without a pause uses while nothing can be done.
const TOO_MUCH: Duration = Duration::from_millis(140);

const RESET: &str =
    "The connection was reset: the client cannot know why. Send a short text, end your half, and only then close.";

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "over-limit",
        chapter: CHAPTER,
        requirement: "As many clients as --limit are served; one more is served, or told, or waits its turn.",
        needs: &[Need::Answers, Need::Limit],
        hints: &[(
            &[Symptom::Silent, Symptom::Refused, Symptom::Ended, Symptom::Reset],
            "A client within the limit was not served. Is --limit more than the server takes? Does it give a place back \
                 when a client has left?",
        )],
        uses_up_the_server: false,
        run: over_limit,
    },
    Stage {
        name: "descriptors",
        chapter: CHAPTER,
        requirement: "When descriptors run out, the server does not spin or end, and recovers.",
        needs: &[Need::Answers, Need::Spawn],
        hints: &[
            (
                &[Symptom::Died, Symptom::Refused],
                "accept fails when there are no descriptors left (EMFILE, too many open files), and that ended the server. \
                 The error belongs to this moment, not to the server: wait a little, and accept again.",
            ),
            (
                &[Symptom::Silent, Symptom::Ended, Symptom::Reset],
                "There are descriptors again, but nobody is accepted. Go on accepting after an error; close the connections \
                 of clients that have left.",
            ),
        ],
        uses_up_the_server: true,
        run: descriptors,
    },
];

fn over_limit(context: &mut Context<'_>) -> Verdict {
    let limit = context.limit.unwrap_or_default();
    if !kernel::allow_descriptors(limit + 1) {
        return Err(Stop::Skipped(format!("this shell allows too few descriptors for {limit} clients (ulimit -n)")));
    }
    let mut clients = context.fill(limit)?;
    let line = context.plain();
    let mut extra = match context.client("Z") {
        Err(trouble) if trouble.symptom == Symptom::Reset => {
            context.part(clients);
            return Err(failed("an answer, or a text and the end", "a reset", RESET));
        }
        extra => extra?,
    };
    let (mut came, mut ending) = extra.listen(context.within_the_deadline(Duration::from_millis(200)), 4096);
    if ending == Ending::Open && came.is_empty() {
        extra.send(&line)?;
        (came, ending) = extra.listen_until(&line, context.within_the_deadline(Duration::from_millis(300)));
    }
    let note = if find(&came, &line).is_some() {
        "one more was served too"
    } else if ending == Ending::Open && came.is_empty() {
        context.step("client Z: waits, for there may be no place");
        drop(clients.pop());
        context.step("one of the others left");
        extra.expect(&line, Kind::Text).map_err(|trouble| {
            Trouble { symptom: Symptom::Seen, ..trouble }.seen(Some(
                "The client beyond the limit was neither told nor served, not even when a place was free. Either tell it that \
                 there is no place and close, or leave it waiting and serve it in its turn.",
            ))
        })?;
        "one more waited for a place"
    } else {
        // A text may arrive before its end does.
        if ending == Ending::Open {
            let (more, end) = extra.listen(Duration::from_secs(2), 4096);
            came.extend(more);
            ending = end;
        }
        context.step(format!("client Z: read {}", brief(&came)));
        let cause = match ending {
            Ending::Clean if !came.is_empty() => None,
            Ending::Clean => Some(
                "The connection was closed without a word: the client cannot know why. Send a short text first, such as \
                 \"busy: try again later\".",
            ),
            Ending::Reset => Some(RESET),
            Ending::Open => Some("The client was told something, but its connection was not closed."),
        };
        if let Some(cause) = cause {
            let received = format!("{} and {}", brief(&came), said(&ending));
            context.part(clients);
            return Err(failed("an answer, or a text and the end", received, cause));
        }
        "one more was told"
    };
    clients.push(extra);
    context.part(clients);
    context.recovers(Duration::from_secs(3))?;
    Ok(Some(note.to_owned()))
}

fn said(ending: &Ending) -> &'static str {
    match ending {
        Ending::Clean => "the end",
        Ending::Reset => "a reset",
        Ending::Open => "no end",
    }
}

fn descriptors(context: &mut Context<'_>) -> Verdict {
    // Every thread and buffer that it needs for a client it should have by now.
    let line = context.korean();
    context.client("A")?.say(&line)?;
    let address = context.address.clone();
    let listeners = context.spawned().listeners(&address);
    let room = context.limit.map_or(ROOM, |limit| ROOM.min(limit / 2));
    for pid in &listeners {
        lower_limit(*pid, kernel::limit_that_leaves(*pid, room))?;
    }
    context.step(format!("lowered the server's limit of descriptors (ulimit -n), so that {room} are left"));

    let count = room * listeners.len() + BEYOND;
    let mut clients: Vec<Client> = Vec::new();
    let mut lines = Vec::new();
    for _ in 0..count {
        let line = context.plain();
        let Ok(mut client) = context.one_of_many() else { break };
        let _ = client.send_for(&line, Duration::from_millis(100));
        clients.push(client);
        lines.push(line);
    }
    context.step(format!("{} clients connected, sent a line each, and stay", clients.len()));
    std::thread::sleep(Duration::from_millis(100));
    let before = kernel::processor_time(&listeners);
    let began = Instant::now();
    let mut used = Duration::ZERO;
    let (mut looks, mut busy) = (0, 0);
    while began.elapsed() < WATCHED && used <= TOO_MUCH {
        std::thread::sleep(Duration::from_millis(20));
        used = kernel::processor_time(&listeners).saturating_sub(before);
        looks += 1;
        busy += usize::from(kernel::wants_the_processor(&listeners));
    }
    // On a busy machine a loop without a pause does not get much of it, but wants it all the time.
    let wants_it = looks >= 10 && busy * 10 > looks * 9 && used > TOO_MUCH / 7;
    let spins = used > TOO_MUCH || wants_it;
    let watched = began.elapsed();
    let served =
        clients.iter_mut().zip(&lines).map(|(client, line)| is_served(client, line)).filter(|served| *served).count();
    context.step(format!(
        "{served} of them were answered; in {} the server used {} of processor time",
        seconds(watched),
        seconds(used)
    ));
    if context.spawned().has_ended() {
        let how = context.spawned().how_it_ended().unwrap_or_default();
        context.step(format!("the server's process ended: {how}"));
        let hint = STAGES[1].hint(Symptom::Died);
        return Err(failed("a server that goes on", "the end of its process", hint));
    }
    let all = clients.len();
    context.part(clients);
    context.step("all of them left");
    if spins {
        let cause = "accept fails at once, again and again, because there is no descriptor to give: a loop that goes on without \
                     a pause uses a whole processor and serves nobody. Wait before the next try (5 ms, then longer), or keep \
                     a spare descriptor to accept with and to send the client away.";
        let received = format!("{} in {}", seconds(used), seconds(watched));
        return Err(failed("hardly any processor time while nothing can be done", received, cause));
    }
    context.recovers(context.story.patience() + Duration::from_secs(2))?;
    if served == all {
        return Err(Stop::Skipped("all clients were served: the lowered limit did not reach this server".to_owned()));
    }
    Ok(Some(format!("{served} of {all} were served")))
}

/// Whether a client of the crowd has an answer. One that was told or sent away has not.
fn is_served(client: &mut Client, line: &[u8]) -> bool {
    let (came, _) = client.listen(Duration::ZERO, 4096);
    find(&came, line).is_some()
}

#[cfg(target_os = "linux")]
fn lower_limit(pid: u32, soft: u64) -> Result<(), Stop> {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    let lowered = Rlimit { current: Some(soft), maximum: hard };
    prlimit(Pid::from_raw(pid as i32), Resource::Nofile, lowered)
        .map(drop)
        .map_err(|error| Stop::Skipped(format!("cannot lower the server's limit of descriptors: {error}")))
}

#[cfg(not(target_os = "linux"))]
fn lower_limit(_pid: u32, _soft: u64) -> Result<(), Stop> {
    Err(Stop::Skipped("the limit of another process cannot be lowered here".to_owned()))
}
