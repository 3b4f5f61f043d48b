//! What the tests have in common: the finished server as a child process, clients with a bound on every
//! wait, and what the kernel says about a process.

#![allow(dead_code, unreachable_pub, reason = "each test file is a program of its own and uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

pub mod bystanders;
pub mod datagrams;
pub mod figures;
pub mod kit;
pub mod load;
pub mod lossy;
pub mod needs;
pub mod port;
pub mod trace;
pub mod web;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use socket2::{Domain, SockRef, Socket as RawSocket, Type};

#[allow(unused_imports, reason = "the same")]
pub use needs::{has_ipv6, has_program};

/// No wait is longer. Reached only when something is broken, or the machine is hopelessly busy.
pub const BOUND: Duration = Duration::from_secs(60);

/// So patient that a test in which it is waited for fails.
pub const NEVER: Duration = Duration::from_secs(2 * BOUND.as_secs());

/// What the reply and lines services put in front.
pub const PREFIX: &str = "서버 응답: ";

/// What the log says once everyone knows of the stop, if there are connections to wait for.
pub const STOPPING: &str = "connections are open, and have";

/// What a server says on its standard output once it can be connected to.
const LISTENING: &str = "listening on ";

/// The finished server, running. Killed when dropped.
pub struct Server {
    child: Child,
    output: Lines,
    log: Lines,
    addresses: Vec<String>,
    ended: Option<ExitStatus>,
}

/// How a server ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub accounts: Accounts,
    /// Everything on standard error.
    pub log: String,
    pub took: Duration,
}

impl Server {
    /// Starts it on a free port of 127.0.0.1, without the live page.
    pub fn start(options: &[&str]) -> Server {
        Server::listening_on("127.0.0.1:0", options)
    }

    pub fn listening_on(address: &str, options: &[&str]) -> Server {
        Server::from_command(program().args(["--no-page", "--listen", address]).args(options))
    }

    /// Starts a command that behaves like the server, and waits until it can be connected to.
    pub fn from_command(command: &mut Command) -> Server {
        Server::try_from_command(command).unwrap_or_else(|why| panic!("the server did not start: {why}"))
    }

    /// As `from_command`; if it does not start, what it says about that.
    pub fn try_from_command(command: &mut Command) -> Result<Server, String> {
        let server = Server::spawn(command);
        let first = server.output.next();
        server.note_address(first.as_deref())
    }

    /// As `from_command`, for a command that says other things before it listens.
    pub fn from_talkative_command(command: &mut Command) -> Server {
        let server = Server::spawn(command);
        let line = std::iter::from_fn(|| server.output.next()).find(|line| line.starts_with(LISTENING));
        server.note_address(line.as_deref()).unwrap_or_else(|why| panic!("the server did not start: {why}"))
    }

    fn spawn(command: &mut Command) -> Server {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Lines::of(child.stdout.take().unwrap());
        let log = Lines::of(child.stderr.take().unwrap());
        Server { child, output, log, addresses: Vec::new(), ended: None }
    }

    fn note_address(mut self, line: Option<&str>) -> Result<Server, String> {
        match line.and_then(|line| line.strip_prefix(LISTENING)) {
            Some(address) => {
                self.addresses.push(address.to_owned());
                Ok(self)
            }
            None => {
                let _ = self.child.kill();
                Err(format!("{} {}", line.unwrap_or_default(), self.log.rest()))
            }
        }
    }

    /// The address on its first line.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    pub fn socket_addr(&self) -> SocketAddr {
        self.address().parse().unwrap()
    }

    /// The next line on its standard output.
    pub fn next_line(&mut self) -> Option<String> {
        self.output.next()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connected client, with a bound on reads and writes.
    pub fn client(&self) -> Client {
        Client::connect(self.socket_addr())
    }

    /// A line of the log that contains the text; waits for it.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.log.wait_for(text)
    }

    /// What it has logged since it was last looked at; to the end, so it must have ended, or be about to.
    pub fn rest_of_log(&self) -> String {
        self.log.rest()
    }

    /// What the log has said since it was last asked. Waits for nothing.
    pub fn new_log_lines(&self) -> Vec<String> {
        self.log.lines.try_iter().collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM, and everything that comes of it.
    pub fn stop(self) -> Ended {
        // Looked at before the signal: what must not happen too early is measured, too.
        let began = Instant::now();
        self.signal(Signal::TERM);
        self.wait_since(began)
    }

    /// Waits for it to end by itself. The accounts must be there, and balance.
    pub fn wait(self) -> Ended {
        self.wait_since(Instant::now())
    }

    fn wait_since(mut self, began: Instant) -> Ended {
        let status = self.wait_for_status();
        let took = began.elapsed();
        let output = self.output.rest();
        let log = self.log.rest();
        let line = output.lines().last().unwrap_or_else(|| panic!("no accounts; the log says: {log}"));
        Ended { status, accounts: Accounts::parse(line), log, took }
    }

    /// Waits for its end without looking at its output.
    pub fn wait_for_status(&mut self) -> ExitStatus {
        let status = wait_until("the server ends", || self.child.try_wait().unwrap());
        self.ended = Some(status);
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The finished server's program.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_socket-steps"));
    command.env_remove("RUST_LOG").env_remove("NO_COLOR");
    command
}

/// A program, in a shell that does something else before it becomes that program.
pub fn after(preparation: &str, program: impl AsRef<OsStr>) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{preparation} && exec \"$0\" \"$@\"")).arg(program);
    shell.env_remove("RUST_LOG");
    shell
}

/// Runs a program that must end by itself, with this input; its status, standard output and standard error.
pub fn run(command: &mut Command, input: &[u8]) -> (ExitStatus, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = Lines::of(child.stdout.take().unwrap());
    let errors = Lines::of(child.stderr.take().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that ends without reading its input is not this function's concern.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > BOUND {
            let _ = child.kill();
            let _ = child.wait();
            panic!("did not end by itself: {command:?}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    writer.join().unwrap();
    (status, output.rest(), errors.rest())
}

/// The last line of a server: its numbers by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts(BTreeMap<String, u64>);

impl Accounts {
    /// Reads the line, and checks both of its equations.
    pub fn parse(line: &str) -> Accounts {
        let words: Vec<&str> = line.split([' ', ';', ',', '=', '+']).filter(|word| !word.is_empty()).collect();
        let numbers = words.windows(2).filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?)));
        let accounts = Accounts(numbers.collect());
        let names = ["accepted", "served", "refused", "failed", "opened", "closed", "stuck", "in", "out"];
        for name in names {
            assert!(accounts.0.contains_key(name), "no {name:?} in {line:?}");
        }
        let of = |name: &str| accounts.of(name);
        assert_eq!(of("accepted"), of("served") + of("refused") + of("failed"), "{line}");
        assert_eq!(of("opened"), of("closed") + of("stuck"), "{line}");
        assert_eq!(of("opened"), of("served"), "{line}");
        accounts
    }

    pub fn of(&self, name: &str) -> u64 {
        self.0[name]
    }
}

/// Lines that a thread reads from a pipe, so that the writer never waits for a test.
struct Lines {
    lines: Receiver<String>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Lines { lines }
    }

    fn next(&self) -> Option<String> {
        match self.lines.recv_timeout(BOUND) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line came"),
        }
    }

    fn wait_for(&self, text: &str) -> String {
        loop {
            match self.next() {
                Some(line) if line.contains(text) => return line,
                Some(_) => {}
                None => panic!("the output ended without {text:?}"),
            }
        }
    }

    fn rest(&self) -> String {
        std::iter::from_fn(|| self.next()).collect::<Vec<_>>().join("\n")
    }
}

/// A client with a bound on everything it does.
#[derive(Debug)]
pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::with(TcpStream::connect_timeout(&address, BOUND).unwrap())
    }

    /// A client whose kernel takes little before the client reads: the rest stays with the server's.
    pub fn with_a_small_window(address: SocketAddr) -> Client {
        let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        // Before connecting: the window is agreed on then.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.connect(&address.into()).unwrap();
        Client::with(socket.into())
    }

    /// A client of another address: all of 127.0.0.0/8 is this machine.
    pub fn from(source: [u8; 4], address: SocketAddr) -> Client {
        let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect_timeout(&address.into(), BOUND).unwrap();
        Client::with(socket.into())
    }

    fn with(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.set_write_timeout(Some(BOUND)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.0.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Ends our half.
    pub fn end(&mut self) -> &mut Client {
        self.0.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Exactly this many bytes.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads exactly this text, or fails.
    pub fn expect(&mut self, text: impl AsRef<[u8]>) -> &mut Client {
        let text = text.as_ref();
        let came = self.read(text.len());
        assert_eq!(String::from_utf8_lossy(&came), String::from_utf8_lossy(text));
        self
    }

    /// Says a line to `--service lines`, and gets it back with the prefix.
    pub fn say_hello(&mut self) {
        self.send("hello\n").expect(format!("{PREFIX}hello\n"));
    }

    /// Reads the answer of `--service lines` to this line, or else what it is told instead, to the end: that it is
    /// `busy: …`.
    pub fn hear(&mut self, line: &str) -> Result<(), String> {
        let answer = format!("{PREFIX}{line}");
        // The prefix, too, has as many bytes.
        let first = self.read("busy:".len());
        if first == b"busy:" {
            return Err(format!("busy:{}", self.rest_as_text()));
        }
        let rest = self.read(answer.len() - first.len());
        assert_eq!(String::from_utf8([first, rest].concat()).unwrap(), answer);
        Ok(())
    }

    /// Everything to the end; an error, such as a reset, is a failure.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub fn rest_as_text(&mut self) -> String {
        String::from_utf8(self.rest()).unwrap()
    }

    /// Everything to the end or an error: what came, and how it ended.
    pub fn rest_and_end(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes).map(drop);
        (bytes, end)
    }

    /// Waits until the connection is dead or both halves have ended, without reading.
    pub fn wait_for_hang_up(&self) {
        // That much is always reported, whether asked for or not.
        let mut watched = [PollFd::new(&self.0, PollFlags::empty())];
        let limit = Timespec::try_from(BOUND).unwrap();
        assert_eq!(poll(&mut watched, Some(&limit)).unwrap(), 1, "no hang-up");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Asks until there is an answer; fails after the bound. For what can only be looked at, such as `/proc`.
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < BOUND, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process has been stopped, as with Ctrl-Z, and waits to be continued.
pub fn is_standing_still(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    // T, and t for one that is traced.
    status.contains("State:\tT") || status.contains("State:\tt")
}

/// How many threads a process has.
pub fn threads(pid: u32) -> usize {
    entries(&format!("/proc/{pid}/task"))
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    entries(&format!("/proc/{pid}/fd"))
}

/// Lets the server open descriptors below this number only. Those that it has stay open.
pub fn limit_descriptors(server: &Server, limit: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: limit.or(maximum), maximum };
    prlimit(Pid::from_raw(server.pid() as i32), Resource::Nofile, limit).unwrap();
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Kibibytes of memory a process has resident.
pub fn resident(pid: u32) -> u64 {
    status_field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The address space of a process, in KiB.
pub fn address_space(pid: u32) -> u64 {
    status_field(&format!("/proc/{pid}/status"), "VmSize:")
}

/// How often the threads of a process have gone to sleep, and so been woken.
pub fn wake_ups(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread that ends while we look has no file any more.
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
        .map(|status| field(&status, "voluntary_ctxt_switches:"))
        .sum()
}

/// The processor time that a process has used, user and system together.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The program's name stands in parentheses and may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

fn status_field(path: &str, name: &str) -> u64 {
    field(&std::fs::read_to_string(path).unwrap(), name)
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len()..].trim().trim_end_matches(" kB").parse().unwrap()
}
