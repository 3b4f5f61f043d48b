//! Listens to what a server prints, so that it never waits for us, and keeps the last of it.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::show::escape;

/// How many of its last lines are kept for the report.
const LAST_WORDS: usize = 6;

/// A longer line is cut: what a server prints must not fill our memory.
const LONGEST_LINE: u64 = 2000;

/// What the server has printed.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) address: Option<String>,
    pub(crate) last: VecDeque<String>,
    pub(crate) at: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Ear {
    heard: Mutex<Heard>,
    pub(crate) news: Condvar,
}

impl Ear {
    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads to the end of the pipe, so that the server never waits for us.
    pub(crate) fn listen(self: &Arc<Ear>, pipe: impl Read + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
        let ear = Arc::clone(self);
        thread::Builder::new().spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                ear.take(line.trim_ascii_end());
                line.clear();
            }
        })
    }

    fn take(&self, line: &[u8]) {
        let mut heard = self.heard();
        heard.at = Some(Instant::now());
        if let Some(rest) = std::str::from_utf8(line).ok().and_then(|line| line.split_once("listening on ")) {
            let word = rest.1.split_whitespace().next().unwrap_or_default();
            heard.address.get_or_insert_with(|| word.to_owned());
        }
        if !line.is_empty() {
            if heard.last.len() == LAST_WORDS {
                heard.last.pop_front();
            }
            heard.last.push_back(escape(line));
        }
        self.news.notify_all();
    }

    /// The most telling lines that it printed last, in one line.
    pub(crate) fn last_words(&self) -> String {
        let heard = self.heard();
        let lines: Vec<&str> =
            heard.last.iter().map(String::as_str).filter(|line| !line.starts_with("listening on ")).collect();
        lines.join(" | ")
    }
}
