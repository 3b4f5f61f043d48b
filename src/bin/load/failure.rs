//! What can go wrong with a connection, by kind, and in words.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use socket_steps::addr::plain;
use socket_steps::output::harmless;

/// How much of what came is shown.
const SHOWN: usize = 72;

/// What servers like ours say instead of an answer.
const REFUSALS: [&[u8]; 3] = [b"busy", b"stopping", b"too long"];

/// Why a connection did not do what it was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    CannotConnect,
    Refused,
    WrongBytes,
    Unasked,
    Closed,
    Reset,
    NoAnswer,
    Other,
}

impl Kind {
    /// For machines: the key in the JSON object.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Kind::CannotConnect => "cannot_connect",
            Kind::Refused => "refused",
            Kind::WrongBytes => "wrong_bytes",
            Kind::Unasked => "unasked",
            Kind::Closed => "closed",
            Kind::Reset => "reset",
            Kind::NoAnswer => "no_answer",
            Kind::Other => "other",
        }
    }

    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::CannotConnect => "could not connect",
            Kind::Refused => "refused with a text",
            Kind::WrongBytes => "wrong bytes",
            Kind::Unasked => "bytes that nobody had asked for",
            Kind::Closed => "closed by the server",
            Kind::Reset => "reset by the server",
            Kind::NoAnswer => "no answer in time",
            Kind::Other => "other errors",
        }
    }
}

/// One failure: its kind, and what exactly happened.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Failure {
        Failure { kind, what: what.into() }
    }

    /// An error of a read or a write.
    pub(crate) fn from_error(error: &io::Error) -> Failure {
        let kind = match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Kind::Reset,
            _ => Kind::Other,
        };
        Failure::new(kind, plain(error))
    }

    /// These bytes came although nothing was to come, or in place of an answer: perhaps a refusal.
    pub(crate) fn refusal(came: &[u8]) -> Option<Failure> {
        let is_refusal = REFUSALS.iter().any(|text| came.starts_with(text));
        is_refusal.then(|| Failure::new(Kind::Refused, format!("the server says {}", escape(came))))
    }
}

/// All failures of a run: how many of each kind, and the first one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    pub(crate) counts: BTreeMap<Kind, u64>,
    pub(crate) first: Option<String>,
}

impl Failures {
    pub(crate) fn add(&mut self, connection: usize, failure: Failure) {
        *self.counts.entry(failure.kind).or_default() += 1;
        self.first.get_or_insert_with(|| format!("connection {connection}: {}", failure.what));
    }

    pub(crate) fn merge(&mut self, other: Failures) {
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.first = self.first.take().or(other.first);
    }

    pub(crate) fn of(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Text as text, everything else escaped, in quotes: nothing that a server sends can move the cursor.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let some = &bytes[..bytes.len().min(SHOWN)];
    let mut shown = String::from("'");
    for chunk in some.utf8_chunks() {
        shown.push_str(&harmless(chunk.valid(), &[]));
        // A character that the cut has torn apart is not the server's doing.
        let is_torn = some.len() < bytes.len() && chunk.invalid().as_ptr_range().end == some.as_ptr_range().end;
        if !is_torn {
            shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        }
    }
    shown.push_str(if some.len() < bytes.len() { "'…" } else { "'" });
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_sends_is_shown_and_does_nothing() {
        assert_eq!(escape("답\n\u{1b}[2J".as_bytes()), r"'답\n\u{1b}[2J'");
        assert_eq!(escape(b"\xff\x00"), r"'\xff\u{0}'");
        let long = escape("서".repeat(100).as_bytes());
        assert_eq!(long, format!("'{}'…", "서".repeat(24)));
        assert_eq!(escape(format!("a{}", "서".repeat(100)).as_bytes()), format!("'a{}'…", "서".repeat(23)));
    }

    #[test]
    fn a_refusal_is_known_by_its_first_word() {
        assert_eq!(Failure::refusal(b"busy: all 1 places are taken\n").unwrap().kind, Kind::Refused);
        assert!(Failure::refusal(b"hello").is_none());
    }
}
