//! A command as it runs in a terminal: its output and errors together, Ctrl-C, and a bound on every wait.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::book::Book;

/// For how long a running program is silent when we take it to have said what it has to say. Only pages that
/// are wrong, or being written, are waited for like this.
const QUIET: Duration = Duration::from_millis(500);

/// No transcript is longer.
const MOST: usize = 1 << 20;

/// A command that was started. Killed when dropped, with everything that it has started.
pub(crate) struct Program {
    child: Child,
    output: Arc<Output>,
    /// No wait is longer. Reached only when something is broken, or the machine is hopelessly busy.
    bound: Duration,
    reaped: bool,
}

#[derive(Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
    last_change: Option<Instant>,
}

impl Program {
    /// Starts a shell command in the book's folder; programs of ours are found by their names.
    pub(crate) fn start(command: &str, book: &Book) -> io::Result<Program> {
        let (mut from_program, to_us) = io::pipe()?;
        let mut path = book.programs.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let child = Command::new("sh")
            .args(["-c", command])
            .current_dir(&book.root)
            .env_clear()
            .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
            .envs([("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8"), ("TMPDIR", "/tmp")])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(to_us.try_clone()?)
            .stderr(to_us)
            .process_group(0)
            .spawn()?;
        let output = Arc::new(Output::default());
        let ours = Arc::clone(&output);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                let count = match from_program.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => result.unwrap_or(0),
                };
                let mut state = ours.lock();
                state.bytes.extend_from_slice(&piece[..count]);
                state.last_change = Some(Instant::now());
                state.ended = count == 0 || state.bytes.len() > MOST;
                ours.changed.notify_all();
                if state.ended {
                    break;
                }
            }
        });
        Ok(Program { child, output, bound: book.bound, reaped: false })
    }

    /// The lines so far; the last one may lack its newline only when the program has ended.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.lock().lines()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.output.lock().ended
    }

    /// Waits until the lines so far satisfy the condition, or the program has ended. `false`: neither, in time.
    pub(crate) fn wait_until(&self, mut enough: impl FnMut(&[String]) -> bool) -> bool {
        self.wait(|state| enough(&state.lines()))
    }

    fn wait(&self, mut enough: impl FnMut(&State) -> bool) -> bool {
        let began = Instant::now();
        let mut state = self.output.lock();
        while !state.ended && !enough(&state) {
            let Some(left) = self.bound.checked_sub(began.elapsed()) else { return false };
            // Conditions may depend on more than the output, so they are asked again now and then.
            state = self.output.wait(state, left.min(Duration::from_millis(10)));
        }
        true
    }

    /// Waits until nothing has come for a while.
    pub(crate) fn wait_until_quiet(&self) {
        let began = Instant::now();
        self.wait(|state| state.last_change.unwrap_or(began).max(began).elapsed() > QUIET);
    }

    /// Waits for its end; `false` if it does not come in time.
    pub(crate) fn wait_for_end(&mut self) -> bool {
        if !self.wait_until(|_| false) {
            return false;
        }
        self.reap();
        true
    }

    /// Ctrl-C: everything in the terminal's foreground gets the signal.
    pub(crate) fn interrupt(&self) {
        // A shell that starts the tests in the background makes them, and what they start, ignore Ctrl-C.
        self.signal(if ignores_interrupts() { Signal::TERM } else { Signal::INT });
    }

    fn signal(&self, signal: Signal) {
        if !self.reaped {
            let _ = kill_process_group(Pid::from_child(&self.child), signal);
        }
    }

    fn reap(&mut self) {
        // Its output has ended, so it is about to end, or has.
        let _ = self.child.wait();
        self.reaped = true;
    }
}

fn ignores_interrupts() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    ignored & 1 << (Signal::INT.as_raw() - 1) != 0
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
            self.reap();
        }
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    fn lines(&self) -> Vec<String> {
        let whole = match self.ended {
            true => self.bytes.len(),
            false => self.bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1),
        };
        String::from_utf8_lossy(&self.bytes[..whole]).lines().map(str::to_owned).collect()
    }
}
