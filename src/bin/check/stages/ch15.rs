//! Chapter 15: a server on a path, whose file may outlive it.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use super::{Chapter, Context, Need, Stage, failed};
use crate::story::long;
use crate::target::Address;
use crate::trouble::{Stop, Symptom, Verdict};

const CHAPTER: Chapter = Chapter::new(15);

const LEFT_BEHIND: &str = "A server that is killed leaves its socket file behind, and bind fails where a file is. But nobody listens there: \
                           connect to it, and if that is refused, remove the file and bind again.";

const STOLEN: &str = "The second server removed the file of the first, which still runs, and which nobody can reach any more. Before you \
                      remove a socket file, connect to it: only when that is refused, nobody is there.";

const ANOTHER_PATH: &str = "the command chooses another path each time";

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "path-again",
        chapter: CHAPTER,
        requirement: "On a path: killed (SIGKILL) and started again, it listens there again.",
        needs: &[Need::Path, Need::Spawn, Need::Answers],
        hints: &[],
        uses_up_the_server: true,
        run: path_again,
    },
    Stage {
        name: "path-kept",
        chapter: CHAPTER,
        requirement: "On a path: a second server does not take it from one that lives.",
        needs: &[Need::Path, Need::Spawn, Need::Answers],
        hints: &[(
            &[Symptom::Refused, Symptom::Silent, Symptom::Ended, Symptom::Reset],
            "The second server gave up, and since then the first cannot be reached. Did the second remove the file on its \
             way out? A file belongs to whoever has made it.",
        )],
        uses_up_the_server: true,
        run: path_kept,
    },
];

fn path_again(context: &mut Context<'_>) -> Verdict {
    let line = context.korean();
    let mut client = context.client("A")?;
    client.say(&line)?;
    context.step("killed the server (SIGKILL)");
    context.spawned().kill();
    let silence = long(context.story.patience());
    context.step(format!("started it again, on {}", context.address));
    let again = context.spawned().start_another(silence);
    let (again, address) = again.map_err(|why| {
        remove_what_we_left(context);
        failed("a server that listens", why, LEFT_BEHIND)
    })?;
    *context.spawned() = again;
    if address != *context.address {
        return Err(Stop::Skipped(ANOTHER_PATH.to_owned()));
    }
    let line = context.korean();
    context.client("B")?.say(&line)?;
    Ok(None)
}

/// It was our kill that left the file there, and the next start should not fail because of it.
fn remove_what_we_left(context: &Context<'_>) {
    let Address::Unix(path) = context.address else { return };
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) && fs::remove_file(path).is_ok() {
        context.step("removed the file");
    }
}

fn path_kept(context: &mut Context<'_>) -> Verdict {
    let line = context.korean();
    let mut client = context.client("A")?;
    client.say(&line)?;
    let silence = long(context.story.patience());
    context.step(format!("started a second server beside it, on {}", context.address));
    match context.spawned().start_another(silence) {
        Ok((_second, address)) if address == *context.address => {
            return Err(failed("a second server that gives up", "a second server that listens", STOLEN));
        }
        Ok(_) => return Err(Stop::Skipped(ANOTHER_PATH.to_owned())),
        Err(why) => context.step(format!("the second server: {why}")),
    }
    // Only the first can have an answer now.
    let line = context.korean();
    context.client("B")?.say(&line)?;
    Ok(None)
}
