//! Two clients who talk while something happens to the server, and must not notice.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Client, Server, descriptors, threads, wait_until};

/// Threads do not come and go when as many are kept ready as there may be connections.
pub const ALL_READY: [&str; 4] = ["--min-workers", "24", "--max-connections", "24"];

/// What a process holds.
pub fn threads_and_descriptors(pid: u32) -> [usize; 2] {
    [threads(pid), descriptors(pid)]
}

/// Does something to a server while two clients talk with it, and looks whether they get their answers, and
/// whether the server holds what it held before. Returns the two, and how often each has talked.
pub fn beside_two_others(
    server: &Server,
    what_it_holds: fn(u32) -> [usize; 2],
    talk: impl Fn(&mut Client) + Sync,
    something: impl FnOnce(),
) -> [(Client, u64); 2] {
    let held = || what_it_holds(server.pid());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let others = [(); 2].map(|()| {
            let (mut other, talk, over) = (server.client(), &talk, &over);
            talk(&mut other);
            scope.spawn(move || {
                let mut talked = 1;
                while !over.load(Ordering::Relaxed) {
                    talk(&mut other);
                    talked += 1;
                }
                talk(&mut other);
                (other, talked + 1)
            })
        });
        let before = held();
        // A failure must end the others, too, or the scope would wait for them for ever.
        let result = panic::catch_unwind(AssertUnwindSafe(something));
        over.store(true, Ordering::Relaxed);
        let others = others.map(|other| other.join().unwrap());
        result.unwrap_or_else(|failure| panic::resume_unwind(failure));
        wait_until("what was held is released", || (held() == before).then_some(()));
        others
    })
}
