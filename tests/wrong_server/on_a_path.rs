//! A server on a path with one fault, for `check` to find. Without a fault it is right.
//!
//! It is played by the test program itself, started again with `WRONG_PATH=path` in its environment.

#![allow(clippy::unwrap_used, reason = "a server that cannot go on should end")]

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::thread;

/// Never returns.
pub(crate) fn play(fault: &str, path: &Path) {
    let listener = match bind(fault, path) {
        Ok(listener) => listener,
        Err(error) => {
            if fault == "removes what is not its own" {
                let _ = fs::remove_file(path);
            }
            eprintln!("cannot listen on {}: {error}", path.display());
            exit(1);
        }
    };
    if fault != "never removes its file" {
        let ours = PathBuf::from(path);
        ctrlc::set_handler(move || {
            let _ = fs::remove_file(&ours);
            exit(0);
        })
        .unwrap();
    }
    let mut out = io::stdout();
    // The test harness may have begun a line.
    writeln!(out, "\nlistening on unix:{}", path.display()).unwrap();
    out.flush().unwrap();
    for client in listener.incoming() {
        let client = client.unwrap();
        thread::spawn(move || answer(&client));
    }
}

fn bind(fault: &str, path: &Path) -> io::Result<UnixListener> {
    if fault == "removes whatever is there" {
        let _ = fs::remove_file(path);
    }
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if matches!(fault, "gives up at a stale file" | "never removes its file") {
                return Err(error);
            }
            match UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                _ => Err(error),
            }
        }
        bound => bound,
    }
}

fn answer(mut client: &UnixStream) {
    let mut lines = BufReader::new(client);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        if client.write_all(&line).is_err() {
            return;
        }
        line.clear();
    }
}
