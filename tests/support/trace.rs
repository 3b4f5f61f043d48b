//! Programs whose system calls are made to fail, one by one, by strace; and what strace has seen.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::needs::has_program;
use super::{Server, program, wait_until};

/// What strace writes down of a program.
pub struct Trace {
    fault: String,
    file: PathBuf,
    _folder: TempDir,
}

impl Trace {
    /// A program, to be given its arguments, with a fault such as `accept4:error=EMFILE:when=1`: the first `accept4`
    /// of each of its threads fails with EMFILE. More about `when` in strace(1).
    pub fn with_fault(fault: &str, program: impl AsRef<OsStr>) -> (Command, Trace) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace");
        let calls = fault.split(':').next().unwrap();
        let mut command = Command::new("strace");
        // Detached (-D), so that the program is our child, and strace is not.
        command.args(["-D", "-f", "-qq", "-ttt", "-e", &format!("trace={calls}"), "-e", &format!("inject={fault}")]);
        command.arg("-o").arg(&file).arg(program).env_remove("RUST_LOG").env_remove("NO_COLOR");
        (command, Trace { fault: fault.to_owned(), file, _folder: folder })
    }

    /// The finished server, on a free port, without the live page, and with a fault. `None`, and said so, where strace
    /// cannot be used.
    pub fn of_a_server(fault: &str, options: &[&str]) -> Option<(Server, Trace)> {
        if !has_program("strace") {
            return None;
        }
        let (mut command, trace) = Trace::with_fault(fault, program().get_program());
        command.args(["--no-page", "--listen", "127.0.0.1:0"]).args(options);
        Some((Server::from_command(&mut command), trace))
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// When calls were made to fail, so far.
    pub fn injections(&self) -> Vec<SystemTime> {
        // A thread, seconds since 1970, the call; strace says of each result whether it is its own work.
        let time = |line: &str| Duration::from_secs_f64(line.split_whitespace().nth(1).unwrap().parse().unwrap());
        let text = self.text();
        let injected = text.lines().filter(|line| line.ends_with("(INJECTED)"));
        injected.map(|line| SystemTime::UNIX_EPOCH + time(line)).collect()
    }

    /// Says how often a call was made to fail, which must be as often as this.
    pub fn assert_injected(&self, expected: impl RangeBounds<usize> + Debug) {
        let count = self.injections().len();
        println!("{}: {count} injected", self.fault);
        assert!(expected.contains(&count), "{}: {count} times, not {expected:?}: {}", self.fault, self.text());
    }

    /// Waits until so many calls were made to fail at least; says when.
    pub fn wait_for_injections(&self, count: usize) -> Vec<SystemTime> {
        wait_until("calls are made to fail", || Some(self.injections()).filter(|times| times.len() >= count))
    }
}
