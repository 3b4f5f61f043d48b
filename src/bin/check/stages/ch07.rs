//! Chapter 7: a small pool of threads.

use std::thread;
use std::time::{Duration, Instant};

use super::{Chapter, Context, Need, Stage, failed};
use crate::kernel;
use crate::probe::{Client, Ending};
use crate::trouble::{Stop, Symptom, Verdict};

const CHAPTER: Chapter = Chapter::new(7);

/// Threads that a server may have besides those for its clients.
const A_FEW: usize = 8;

/// Clients beyond the limit: so many that a thread for each would be noticed.
const MORE: usize = 16;

pub(super) const STAGES: &[Stage] = &[Stage {
    name: "threads-bounded",
    chapter: CHAPTER,
    requirement: "Twice as many clients as --limit do not mean more threads than the limit and a few.",
    needs: &[Need::Answers, Need::Limit, Need::Spawn],
    hints: &[(
        &[Symptom::Refused],
        "The server stopped accepting, or ended. More clients than it can serve must wait or be told; they must not end it.",
    )],
    uses_up_the_server: false,
    run: threads_bounded,
}];

/// How many threads the server has while nobody is there. The one of an earlier client may still be on its way out.
fn fewest_threads(context: &mut Context<'_>) -> usize {
    let looks = (0..10).map(|_| {
        thread::sleep(Duration::from_millis(20));
        kernel::threads(&context.spawned().family())
    });
    looks.min().unwrap_or_default()
}

fn threads_bounded(context: &mut Context<'_>) -> Verdict {
    let limit = context.limit.unwrap_or_default();
    let count = (2 * limit).max(limit + MORE);
    if !kernel::allow_descriptors(count) {
        return Err(Stop::Skipped(format!("this shell allows too few descriptors for {count} clients (ulimit -n)")));
    }
    let before = fewest_threads(context);
    let mut clients: Vec<Client> = Vec::new();
    let began = Instant::now();
    for _ in 0..count {
        match context.one_of_many() {
            Ok(client) => clients.push(client),
            // Sent away at once; how, is judged elsewhere.
            Err(trouble) if trouble.symptom == Symptom::Reset => {}
            Err(trouble) => return Err(trouble.into()),
        }
    }
    context.step(format!("{count} clients connected, and are silent; threads in the server before: {before}"));
    // The last one was accepted last: when it is answered, or sent away, so was everyone before it, and whoever was
    // to have a thread has one. A server that lets it wait shows nothing more after a while.
    let line = context.plain();
    // Before the server's deadline lets the first ones go: then old threads and new ones are there together.
    let bound = context.deadline.map_or(Duration::from_secs(1), |deadline| Duration::from_secs(1).min(deadline / 2));
    let mut most = 0;
    if let Some(last) = clients.last_mut() {
        let sent = last.send_for(&line, Duration::from_millis(500));
        while sent.is_ok() && began.elapsed() < bound {
            most = most.max(kernel::threads(&context.spawned().family()));
            let (came, ending) = last.listen(Duration::from_millis(20), 4096);
            if !came.is_empty() || ending != Ending::Open {
                break;
            }
        }
    }
    if began.elapsed() < bound || most == 0 {
        most = most.max(kernel::threads(&context.spawned().family()));
    }
    if context.deadline.is_some_and(|deadline| began.elapsed() > deadline * 3 / 4) {
        context.story.doubt();
    }
    context.step(format!("counted the server's threads: {most}"));
    context.part(clients);
    if most > before + limit + A_FEW {
        let cause = "Each client gets a thread of its own, also those beyond the limit. A thousand clients would be a thousand \
                     threads, and each costs memory. Keep a pool of as many threads as the limit says, and let whoever is \
                     beyond it wait, or tell them that there is no place.";
        let allowed = before + limit + A_FEW;
        let expected = format!("at most {allowed} threads: {before} before, {limit} for the clients, and a few");
        return Err(failed(&expected, format!("{most} threads, with {count} clients"), cause));
    }
    context.recovers(Duration::from_secs(3))?;
    Ok(Some(format!("{most} threads")))
}
