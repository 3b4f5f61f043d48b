//! Nobody has to read what the server prints: its standard output and error may be full, and may be closed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::figures::figure;
use support::{BOUND, PREFIX, program, wait_until};
use tempfile::TempDir;

/// The server on a path, because it cannot say which port it has. Killed when dropped.
struct Server {
    child: Child,
    path: PathBuf,
    _folder: TempDir,
}

impl Server {
    /// Starts it with everything logged that there is to log.
    fn start(output: impl Into<Stdio>, errors: impl Into<Stdio>) -> Server {
        let mut command = program();
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        Server::from(command)
    }

    /// As `start`, for the program that this command runs with the arguments that are added.
    fn from(mut command: Command) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        command.args(["--no-page", "--service", "lines", "--listen"]).arg(format!("unix:{}", path.display()));
        command.env("RUST_LOG", "trace");
        let server = Server { child: command.spawn().unwrap(), path, _folder: folder };
        wait_until("it can be connected to", || UnixStream::connect(&server.path).ok());
        server
    }

    /// Serves clients as the bar says, and stops: what is the matter with its outputs is said by `what`. A panic would
    /// cost its client an answer, or the server its status.
    fn serves_all_and_stops(&mut self, what: &str) {
        self.serves(100, 10);
        self.stops();
        figure("B16", true, format!("{what}: 100 of 100 clients served, 10 lines each, and it stops"));
    }

    /// Serves clients, one after another, each with this many lines.
    fn serves(&self, clients: usize, lines: usize) {
        for _ in 0..clients {
            let mut client = UnixStream::connect(&self.path).unwrap();
            client.set_read_timeout(Some(BOUND)).unwrap();
            for line in 0..lines {
                client.write_all(format!("{line}\n").as_bytes()).unwrap();
                let expected = format!("{PREFIX}{line}\n");
                let mut answer = vec![0; expected.len()];
                client.read_exact(&mut answer).unwrap();
                assert_eq!(String::from_utf8(answer).unwrap(), expected);
            }
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
    }

    /// Stops it: with status 0, and long before the drain deadline of 5 s.
    fn stops(&mut self) {
        let began = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = wait_until("it ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe that is full to the brim: whoever writes to it waits. And how much is in it.
fn full_pipe() -> (PipeReader, PipeWriter, u64) {
    let (reader, mut writer) = io::pipe().unwrap();
    // The flag belongs to the pipe's end, not to the descriptor: the server must not inherit it.
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    for size in [4096, 1] {
        let dots = vec![b'.'; size];
        while writer.write(&dots).is_ok() {}
    }
    assert_eq!(writer.write(b".").unwrap_err().kind(), io::ErrorKind::WouldBlock, "it is not full");
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let filled = waiting_in(&reader);
    (reader, writer, filled)
}

fn waiting_in(pipe: &PipeReader) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap()
}

#[test]
fn with_full_pipes_all_clients_are_served_and_it_still_stops() {
    let (output, output_end, output_filled) = full_pipe();
    let (errors, errors_end, errors_filled) = full_pipe();
    let mut server = Server::start(output_end, errors_end);
    server.serves_all_and_stops("standard output and error full");
    // Not a byte more has found room, though there was a lot to say.
    assert_eq!((waiting_in(&output), waiting_in(&errors)), (output_filled, errors_filled));
}

#[test]
fn when_full_pipes_are_closed_all_clients_are_served_and_it_still_stops() {
    let (output, output_end, output_filled) = full_pipe();
    let (errors, errors_end, errors_filled) = full_pipe();
    let mut server = Server::start(output_end, errors_end);
    server.serves(10, 10);
    assert_eq!((waiting_in(&output), waiting_in(&errors)), (output_filled, errors_filled));
    // From now on every write fails, also those that are waiting: "broken pipe".
    drop((output, errors));
    server.serves_all_and_stops("full, then closed");
}

#[test]
fn with_pipes_that_were_closed_from_the_beginning_all_clients_are_served_and_it_still_stops() {
    let (_, output) = io::pipe().unwrap();
    let (_, errors) = io::pipe().unwrap();
    assert_eq!((&output).write(b".").unwrap_err().kind(), io::ErrorKind::BrokenPipe, "it is not closed");
    let mut server = Server::start(output, errors);
    server.serves_all_and_stops("closed from the beginning");
}

#[test]
fn without_any_standard_descriptor_all_clients_are_served_and_no_socket_takes_its_place() {
    // Only a shell can start a program so: the library opens something else there for a command's child.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"]).arg(program().get_program());
    let mut server = Server::from(command);
    // Whoever opens a file next gets the lowest number that is free: a client would be written the log.
    let opened =
        [0, 1, 2].map(|number| std::fs::read_link(format!("/proc/{}/fd/{number}", server.child.id())).unwrap());
    assert_eq!(opened, ["/dev/null"; 3].map(PathBuf::from), "the fault did not happen, or is not mended");
    server.serves_all_and_stops("without standard descriptors");
}

#[test]
fn on_a_full_disk_all_clients_are_served_and_it_still_stops() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(full().write(b".").unwrap_err().kind(), io::ErrorKind::StorageFull, "it is not full");
    let mut server = Server::start(full(), full());
    server.serves_all_and_stops("on a full disk");
}

#[test]
fn whoever_reads_again_is_told_how_many_lines_are_missing_and_misses_no_account() {
    let (mut output, output_end, _) = full_pipe();
    let (mut errors, errors_end, _) = full_pipe();
    let mut server = Server::start(output_end, errors_end);
    // Two lines of log for each line of a client: more than are kept.
    server.serves(3, 1000);
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        errors.read_to_string(&mut log).map(|_| log)
    });
    let accounts = std::thread::spawn(move || {
        let mut accounts = String::new();
        output.read_to_string(&mut accounts).map(|_| accounts)
    });
    server.stops();
    let log = log.join().unwrap().unwrap();
    assert!(log.contains(" lines were dropped here: the reader was too slow)\n"), "nothing was dropped");
    let accounts = accounts.join().unwrap().unwrap();
    let (_dots, lines) = accounts.split_once("listening on unix:").unwrap();
    // The first client was the one that found out whether it can be connected to.
    assert!(lines.lines().nth(1).unwrap().starts_with("accepted 4 = served 4 + refused 0 + failed 0; "), "{lines}");
}
