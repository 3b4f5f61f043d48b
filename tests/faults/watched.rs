//! A server that is looked at: what it holds, and what it says.

use crate::support::{Accounts, Server, descriptors, resident, threads, wait_until};

/// The only line of warning that there is to be.
const EXPECTED: &str = "was refused: busy: your address has as many connections";

/// What is counted in the log.
const ENDINGS: [&str; 2] = ["ended (panicked)", "ended (idle)"];

/// A server that is visited, the descriptors and threads that it had before, and what its log has said.
pub(crate) struct Watched {
    name: &'static str,
    server: Server,
    pub(crate) before: [usize; 2],
    /// Lines that are not to be there.
    unexpected: Vec<String>,
    /// How often each of `ENDINGS` was said.
    endings: [u64; 2],
}

impl Watched {
    /// A server whose first client this is. What is made for the first client has been made then.
    pub(crate) fn of(name: &'static str, server: Server) -> Watched {
        drop(server.client());
        server.wait_for_log("#1 ended");
        let held = || [descriptors(server.pid()), threads(server.pid())];
        // What still ends, such as the goodbye to that client, does not count.
        let mut before = held();
        let mut looks = 0;
        wait_until("it is quiet for a fifth of a second", || {
            let now = held();
            looks = if now == before { looks + 1 } else { 0 };
            before = now;
            (looks == 40).then_some(())
        });
        Watched { name, server, before, unexpected: Vec::new(), endings: [0, 0] }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Stops it; how often it said which ending. Nothing unexpected may have happened.
    pub(crate) fn stop(mut self) -> (Accounts, [u64; 2]) {
        self.read_the_log();
        let Watched { name, server, mut unexpected, mut endings, .. } = self;
        let ended = server.stop();
        assert!(ended.status.success(), "{name}: {ended:?}");
        ended.log.lines().for_each(|line| note(line, &mut unexpected, &mut endings));
        assert_eq!(unexpected, Vec::<String>::new(), "{name}");
        (ended.accounts, endings)
    }

    /// Reads what it has said since, so that an hour's log need not be kept.
    pub(crate) fn read_the_log(&mut self) {
        for line in self.server.new_log_lines() {
            note(&line, &mut self.unexpected, &mut self.endings);
        }
    }

    fn held(&self) -> [usize; 2] {
        [descriptors(self.server.pid()), threads(self.server.pid())]
    }

    /// Waits until it holds no more than before; with or without its threads, which stay ready for some seconds. Then
    /// its resident memory, in KiB.
    pub(crate) fn quiet(&self, with_threads: bool) -> u64 {
        let count = if with_threads { 2 } else { 1 };
        wait_until(&format!("{} holds {:?} again: descriptors, threads", self.name, self.before), || {
            self.held().iter().zip(&self.before).take(count).all(|(now, before)| now <= before).then_some(())
        });
        resident(self.server.pid())
    }
}

fn note(line: &str, unexpected: &mut Vec<String>, endings: &mut [u64; 2]) {
    for (count, ending) in endings.iter_mut().zip(ENDINGS) {
        *count += u64::from(line.contains(ending));
    }
    let is_bad = [" WARN ", " ERROR ", "panicked at"].iter().any(|word| line.contains(word));
    if is_bad && !line.contains(EXPECTED) && unexpected.len() < 20 {
        unexpected.push(line.to_owned());
    }
}
