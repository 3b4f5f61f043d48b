//! Writing to a terminal, a file or a pipe without ever waiting for it.
//!
//! Standard output and standard error are descriptors like any other: when a pipe is full because nobody
//! reads the other end, `write` blocks, and a server that logs blocks with it. So a thread of its own does
//! the writing, behind a queue with a limit. What does not fit is dropped, and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

/// The text with its control characters shown as programmers write them, but for those in `kept`.
///
/// What another program chose, be it a message or a path, may hold a newline that forges a line of the log, or
/// an escape code that moves a terminal's cursor. Shown, they do nothing.
///
/// ```
/// use socket_steps::output::harmless;
/// assert_eq!(harmless("안녕\n\u{1b}[2J", &[]), "안녕\\n\\u{1b}[2J");
/// assert_eq!(harmless("안녕\n\u{1b}[2J", &['\n']), "안녕\n\\u{1b}[2J");
/// ```
pub fn harmless(text: &str, kept: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !kept.contains(&character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// How many records wait at most. A burst fits; a reader that has stopped for good costs little memory.
const QUEUE: usize = 4096;

/// The entrance to a stream that a thread of its own writes. Clones share the stream.
///
/// ```
/// use socket_steps::output::Output;
/// use std::time::Duration;
///
/// let output = Output::to("greeting", std::io::stdout())?;
/// output.line("listening on 127.0.0.1:8080");
/// output.flush(Duration::from_secs(1));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Output {
    queue: Sender<Record>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Record {
    Bytes(Vec<u8>),
    /// Answered, by being dropped, once everything before it has been written.
    Flush(#[allow(dead_code, reason = "dropping it is the answer")] Sender<()>),
}

impl Output {
    /// Starts the thread that writes to `stream`, under this thread name.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to(name: &str, stream: impl Write + Send + 'static) -> io::Result<Output> {
        let (queue, records) = bounded(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        thread::Builder::new().name(name.to_owned()).spawn(move || write_all_records(stream, &records, &counter))?;
        Ok(Output { queue, dropped })
    }

    /// Queues a line; a newline is added.
    pub fn line(&self, line: &str) {
        self.bytes(format!("{line}\n").into_bytes());
    }

    fn bytes(&self, bytes: Vec<u8>) {
        if self.queue.try_send(Record::Bytes(bytes)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued so far is written, at most `patience`; says whether it was.
    pub fn flush(&self, patience: Duration) -> bool {
        let began = Instant::now();
        let (written, waiting) = bounded(0);
        if self.queue.send_timeout(Record::Flush(written), patience).is_err() {
            return false;
        }
        // The answer is the end of the channel; a timeout is none.
        waiting.recv_timeout(patience.saturating_sub(began.elapsed())).is_err_and(|error| error.is_disconnected())
    }

    /// How many records did not fit or could not be written, and have not been reported yet.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Each `write` is one record: `env_logger` hands over a whole line at a time.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all_records(mut stream: impl Write, records: &Receiver<Record>, dropped: &AtomicU64) {
    let mut batch = Vec::new();
    let mut flushes = Vec::new();
    while let Ok(first) = records.recv() {
        // Everything that is queued goes out with one system call.
        let mut next = Ok(first);
        let mut count = 0;
        while let Ok(record) = next {
            match record {
                Record::Bytes(bytes) => {
                    batch.extend_from_slice(&bytes);
                    count += 1;
                }
                Record::Flush(answer) => flushes.push(answer),
            }
            next = if count < QUEUE { records.try_recv() } else { Err(TryRecvError::Empty) };
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            batch.extend_from_slice(format!("({lost} lines were dropped here: the reader was too slow)\n").as_bytes());
        }
        // A closed pipe, a full disk: the server goes on without this stream.
        if stream.write_all(&batch).and_then(|()| stream.flush()).is_err() {
            dropped.fetch_add(count as u64 + lost, Ordering::Relaxed);
        }
        batch.clear();
        flushes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_has_stopped_costs_lines_and_never_time() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::to("test", writer).unwrap();
        // More than the pipe (64 KiB) and the queue together can hold.
        let line = "x".repeat(99);
        for _ in 0..3 * QUEUE {
            output.line(&line);
        }
        assert!(!output.flush(Duration::from_millis(50)), "nobody reads, and yet all was written");

        let (sender, received) = bounded(1);
        thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            sender.send(text).unwrap();
        });
        assert!(output.flush(Duration::from_secs(10)));
        output.line("the last");
        drop(output);
        let text = received.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(text.contains("lines were dropped here"), "nothing was lost, or the reader is not told");
        assert!(text.ends_with("the last\n"));
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        let text = "안녕\t\u{1b}[2J\r\u{9b}1m\n";
        assert_eq!(harmless(text, &['\n', '\t']), "안녕\t\\u{1b}[2J\\r\\u{9b}1m\n");
        assert_eq!(harmless(text, &[]), "안녕\\t\\u{1b}[2J\\r\\u{9b}1m\\n");
    }

    #[test]
    fn a_closed_pipe_is_counted_and_survived() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = Output::to("test", writer).unwrap();
        output.line("to nobody");
        assert!(output.flush(Duration::from_secs(10)));
        assert_eq!(output.dropped(), 1);
    }
}
