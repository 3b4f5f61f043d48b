//! A server that `check` starts itself, may signal, and always ends.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

use crate::ear::Ear;
use crate::kernel;
use crate::show::escape;
use crate::target::{Address, Written};

/// How long it may take to die once it is killed.
const KILLING: Duration = Duration::from_secs(2);

/// How long it may take to find out whether a port is taken.
const LOOK: Duration = Duration::from_secs(1);

/// How long starting may take in all.
const STARTING: Duration = Duration::from_secs(60);

/// How long it may take to end after SIGTERM, before it is killed.
const LEAVING: Duration = Duration::from_millis(500);

/// A running server of ours. Ended when dropped, with everything that it started.
#[derive(Debug)]
pub(crate) struct Spawned {
    words: Vec<String>,
    port: Option<u16>,
    child: Child,
    group: Pid,
    ear: Arc<Ear>,
    readers: Vec<thread::JoinHandle<()>>,
    ended: Option<ExitStatus>,
    /// Everything that ran before it was started: none of its own.
    others: Vec<u32>,
    /// Nothing of it is left.
    is_over: bool,
}

impl Spawned {
    /// Starts the command, and waits until it listens.
    ///
    /// # Errors
    /// In one line, why it does not.
    /// `silence`: how long it may say nothing before it listens. One that is still being built says something.
    pub(crate) fn start(words: &[String], port: Option<u16>, silence: Duration) -> Result<(Spawned, Address), String> {
        let taken = port.map(local).filter(|address| address.find_listener(LOOK).is_ok());
        if let Some(address) = taken {
            return Err(format!("something else already listens on {address}; stop it, or use another port"));
        }
        // Whoever loses its parent becomes our child, so that nothing we started escapes us.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let name = escape(words[0].as_bytes());
        let others = descendants();
        let permission = MAY_START.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            // Python keeps what it prints to a pipe to itself until there is much of it.
            .env("PYTHONUNBUFFERED", "1")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("cannot start {name:?}: there is no such command"),
                _ => format!("cannot start {name:?}: {error}"),
            })?;
        drop(permission);
        let ear = Arc::new(Ear::default());
        let group = Pid::from_child(&child);
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ];
        let mut server = Spawned {
            words: words.to_vec(),
            port,
            child,
            group,
            ear,
            readers: Vec::new(),
            ended: None,
            others,
            is_over: false,
        };
        for pipe in pipes.into_iter().flatten() {
            let reader = server.ear.listen(pipe).map_err(|error| format!("cannot start a thread: {error}"))?;
            server.readers.push(reader);
        }
        let address = server.wait_until_it_listens(port, silence)?;
        Ok((server, address))
    }

    /// Starts another server with the same command, beside this one or after its end.
    ///
    /// # Errors
    /// As for `start`.
    pub(crate) fn start_another(&self, silence: Duration) -> Result<(Spawned, Address), String> {
        Spawned::start(&self.words, self.port, silence)
    }

    fn wait_until_it_listens(&mut self, port: Option<u16>, silence: Duration) -> Result<Address, String> {
        let began = Instant::now();
        loop {
            if let Some(port) = port {
                // One that fails is on its way; a connection of ours that is closed at once is the price.
                if let Ok(address) = local(port).find_listener(LOOK) {
                    return Ok(address);
                }
            }
            let address = self.ear.heard().address.clone();
            if let (Some(text), None) = (address, port) {
                let written: Written = text
                    .parse()
                    .map_err(|error| format!("it printed \"listening on {}\": {error}", escape(text.as_bytes())))?;
                if matches!(written, Written::WebSocket { .. }) {
                    return Err(format!("it printed \"listening on {written}\"; print HOST:PORT, and say --path PATH"));
                }
                return written
                    .believe(silence)
                    .map_err(|error| format!("it printed \"listening on {written}\", but there: {error}"));
            }
            if let Some(how) = self.how_it_ended() {
                return Err(format!("the server ended before it listened: {how}"));
            }
            let last = self.ear.heard().at.unwrap_or(began);
            if last.elapsed() > silence || began.elapsed() > STARTING {
                return Err(self.never_listened(port, began.elapsed()));
            }
            // Woken by every line; and now and then, to look whether it has ended.
            let _ = self.ear.news.wait_timeout(self.ear.heard(), Duration::from_millis(10));
        }
    }

    fn never_listened(&self, port: Option<u16>, waited: Duration) -> String {
        let waited = waited.as_secs();
        let words = self.ear.last_words();
        let words = if words.is_empty() { "It printed nothing".to_owned() } else { format!("Its last words: {words}") };
        match port {
            Some(port) => format!("nothing listened on port {port} within {waited} s. {words}"),
            None => format!(
                "no line \"listening on HOST:PORT\" on its output within {waited} s; print it and flush the output, \
                 or say --port N. {words}"
            ),
        }
    }

    /// How its process ended, and its last words; `None` while it runs.
    pub(crate) fn how_it_ended(&mut self) -> Option<String> {
        let status = self.status()?;
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("ended by {}", name_of(signal)),
            (None, None) => "ended".to_owned(),
        };
        // Its pipes end with it, unless a child of its still holds them.
        let began = Instant::now();
        while !self.readers.iter().all(thread::JoinHandle::is_finished) && began.elapsed() < LEAVING {
            thread::sleep(Duration::from_millis(1));
        }
        let words = self.ear.last_words();
        Some(if words.is_empty() { format!("{how}, without a word") } else { format!("{how}; last words: {words}") })
    }

    fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.status().is_some()
    }

    /// Every process that belongs to it: a shell around it, the server, its children.
    pub(crate) fn family(&self) -> Vec<u32> {
        descendants().into_iter().filter(|pid| !self.others.contains(pid)).collect()
    }

    /// Those that listen. When that cannot be seen, all of them.
    pub(crate) fn listeners(&self, address: &Address) -> Vec<u32> {
        let family = self.family();
        let listeners = kernel::listeners(address, &family);
        if listeners.is_empty() { family } else { listeners }
    }

    /// Sends a signal as a terminal does: to all of them.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    /// Stops all of them (SIGSTOP), so that something can arrive before they look; until `go_on`.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let began = Instant::now();
        while began.elapsed() < LEAVING && !self.family().into_iter().all(kernel::is_stopped) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether all of them have ended within `wait`.
    pub(crate) fn ends_within(&mut self, wait: Duration) -> bool {
        let began = Instant::now();
        loop {
            if self.status().is_some() && self.group_is_gone() {
                return true;
            }
            if began.elapsed() > wait {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn group_is_gone(&self) -> bool {
        // A process that has ended, and that nobody has waited for, still counts; where that can be seen, it does not.
        test_kill_process_group(self.group).is_err() || kernel::is_known() && self.family().is_empty()
    }

    fn end(&mut self) {
        if !self.is_over && self.status().is_none() {
            // A chance to remove its socket file.
            self.signal(Signal::TERM);
            self.signal(Signal::CONT);
            self.ends_within(LEAVING);
        }
        self.kill();
    }

    /// Ends all of it at once (SIGKILL): it gets no chance to clean up.
    pub(crate) fn kill(&mut self) {
        // The number of its group may be another's by now.
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.signal(Signal::KILL);
        end_descendants(&self.others);
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.end();
    }
}

/// Held while a server is started.
static MAY_START: Mutex<()> = Mutex::new(());

/// `check` itself is interrupted: nothing that was started is left, and nothing more is.
pub(crate) fn end_for_good() -> ! {
    // A stage that sees its server die would start another; now it waits, until all of it is over.
    let _no_more = MAY_START.lock().unwrap_or_else(PoisonError::into_inner);
    end_descendants(&[]);
    std::process::exit(130)
}

/// Whatever descends from this process and still runs. It starts servers, and nothing else.
fn descendants() -> Vec<u32> {
    let family = kernel::family(std::process::id()).into_iter().skip(1);
    family.filter(|pid| !kernel::is_gone(*pid)).collect()
}

/// Kills everything that this process has started and that still runs, apart from these.
fn end_descendants(spared: &[u32]) {
    if !kernel::is_known() {
        return;
    }
    // One that is just being started while we look is found the next time; and a kill takes a moment.
    let began = Instant::now();
    let mut empty_looks = 0;
    while began.elapsed() < KILLING {
        let rest: Vec<u32> = descendants().into_iter().filter(|pid| !spared.contains(pid)).collect();
        // A child whose parent dies while we look becomes ours, behind our back: the second look finds it.
        empty_looks = if rest.is_empty() { empty_looks + 1 } else { 0 };
        if empty_looks == 2 {
            return;
        }
        for pid in rest.into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn local(port: u16) -> Written {
    Written::Tcp { host: "localhost".to_owned(), port }
}

fn name_of(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        6 => "SIGABRT",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    format!("{name} (signal {signal})")
}
