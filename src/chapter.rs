//! What the programs of the later chapters have in common: their command line, and the clients of their scenes.
//!
//! Chapters 1 to 7 write all of it out, but for how the words are fetched. From chapter 8 on it is no lesson any more,
//! and lives here.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use log::info;

use crate::options::{count, duration, exit_with};

/// Which part of a chapter is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Both sides, to the end: the program was started without words.
    Scene,
    /// The server alone, until Ctrl-C.
    Server(ServerOptions),
    /// The client alone, to this address.
    Client(String),
}

/// What a chapter's server can be told. A chapter that does not know an option yet refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where to listen. `127.0.0.1:8080`.
    pub address: String,
    /// Connections at once. 4.
    pub limit: usize,
    /// How long a client may be silent. 30 s.
    pub idle: Duration,
    /// How long a message may take. 10 s.
    pub message: Duration,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            address: "127.0.0.1:8080".to_owned(),
            limit: 4,
            idle: Duration::from_secs(30),
            message: Duration::from_secs(10),
        }
    }
}

/// Reads the words that the program was started with. The usage line says what a program understands:
///
/// ```no_run
/// use socket_steps::chapter::{Part, part};
///
/// match part("ch07_pool [server [ADDR] [--limit N]]") {
///     Part::Scene => println!("both sides"),
///     Part::Server(options) => println!("a server at {}", options.address),
///     Part::Client(_) => unreachable!("the usage line names no client"),
/// }
/// ```
///
/// Words that it does not understand end the program with the usage line and exit status 2.
pub fn part(usage: &str) -> Part {
    understand(usage, &words()).unwrap_or_else(|| exit_with(2, &format!("usage: {usage}")))
}

/// The words on the command line, behind the program's name. What is not UTF-8 in them becomes `\u{fffd}`, which no
/// program here understands: it answers with its usage line.
pub fn words() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Ends the program with one line that says why, and exit status 1: what `main` returns is printed as programmers
/// see it. To be given to `map_err`.
///
/// ```no_run
/// use socket_steps::chapter::give_up;
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:80").map_err(give_up)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[expect(clippy::needless_pass_by_value, reason = "map_err gives it away")]
pub fn give_up(error: io::Error) -> io::Error {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    exit_with(1, &format!("{name}: {error}"))
}

fn understand(usage: &str, words: &[String]) -> Option<Part> {
    let knows = |word: &str| usage.contains(word);
    let mut words = words.iter().map(String::as_str);
    match words.next() {
        None => Some(Part::Scene),
        Some("server") if knows("[server ") => server_options(usage, words).map(Part::Server),
        Some("client") if knows("client [ADDR]") => {
            let address = words.next().map_or(ServerOptions::default().address, str::to_owned);
            (is_address(&address) && words.next().is_none()).then_some(Part::Client(address))
        }
        Some(_) => None,
    }
}

fn server_options<'a>(usage: &str, mut words: impl Iterator<Item = &'a str>) -> Option<ServerOptions> {
    let mut options = ServerOptions::default();
    let mut seen = Vec::new();
    while let Some(word) = words.next() {
        let what = if word.starts_with("--") { word } else { "[ADDR]" };
        if !usage.contains(what) || seen.contains(&what) {
            return None;
        }
        seen.push(what);
        match what {
            "--limit" => options.limit = count(words.next()?).ok()?,
            "--idle" => options.idle = duration(words.next()?).ok()?,
            "--message" => options.message = duration(words.next()?).ok()?,
            _ => options.address = Some(word).filter(|word| is_address(word))?.to_owned(),
        }
    }
    Some(options)
}

fn is_address(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('-')
}

/// A client in a scene: its lane says what it does before it does it, and what it has seen afterwards.
#[derive(Debug)]
pub struct Actor {
    name: &'static str,
    stream: BufReader<TcpStream>,
}

impl Actor {
    /// Connects, in the lane of this name.
    ///
    /// # Errors
    /// As for [`TcpStream::connect`].
    pub fn connect(name: &'static str, address: SocketAddr) -> io::Result<Actor> {
        let stream = TcpStream::connect(address)?;
        info!(target: name, "connected");
        Ok(Actor { name, stream: BufReader::new(stream) })
    }

    /// Sends a line.
    ///
    /// # Errors
    /// As for [`Write::write_all`].
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        info!(target: self.name, "sending {line}");
        self.stream().write_all(format!("{line}\n").as_bytes())
    }

    /// Waits for a line, and returns it; an empty one is the end.
    ///
    /// # Errors
    /// As for [`Read::read`](std::io::Read::read).
    pub fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => info!(target: self.name, "read 0: the server has ended its half"),
            _ => info!(target: self.name, "received {}", line.trim_end()),
        }
        Ok(line)
    }

    /// Ends this half of the connection; the other goes on.
    ///
    /// # Errors
    /// When the connection has been reset.
    pub fn end(&mut self) -> io::Result<()> {
        info!(target: self.name, "ending");
        self.stream().shutdown(Shutdown::Write)
    }

    /// The connection itself, for what an actor does not do every day.
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: &str = "ch99 [server [ADDR] [--limit N] [--idle D]]";

    fn understood(usage: &str, words: &str) -> Option<Part> {
        understand(usage, &words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_options_come_in_any_order_and_what_is_not_said_has_a_default() {
        let idle = Duration::from_millis(500);
        let expected = ServerOptions { address: "[::1]:9".to_owned(), limit: 2, idle, ..ServerOptions::default() };
        for words in ["server [::1]:9 --limit 2 --idle 500ms", "server --idle 500ms --limit 2 [::1]:9"] {
            assert_eq!(understood(USAGE, words), Some(Part::Server(expected.clone())), "{words}");
        }
        assert_eq!(understood(USAGE, "server"), Some(Part::Server(ServerOptions::default())));
        assert_eq!(understood(USAGE, ""), Some(Part::Scene));
    }

    #[test]
    fn words_that_the_usage_line_does_not_name_are_not_understood() {
        let wrong = [
            "client",
            "sever",
            "--help",
            "server a b",
            "server --message 1s",
            "server --limit",
            "server --limit 0",
            "server --limit 1 --limit 2",
            "server --idle 5",
            "server -x",
            "server --",
        ];
        for words in wrong {
            assert_eq!(understood(USAGE, words), None, "{words}");
        }
        assert_eq!(understood("ch99 [client [ADDR]]", "client --limit"), None);
        assert_eq!(understood("ch99 [client [ADDR]]", "client ::1"), Some(Part::Client("::1".to_owned())));
    }
}
