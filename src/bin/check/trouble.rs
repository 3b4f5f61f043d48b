//! What went wrong in a stage.

use crate::show::Difference;

/// What it looked like from the client's side. Hints are found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Symptom {
    /// No connection.
    Refused,
    /// Nothing came at all.
    Silent,
    /// A part of the answer came, then nothing.
    Partial,
    /// Something else came.
    Changed,
    /// The right bytes, but a character was torn apart by what was put between them.
    Torn,
    /// The answer, and more.
    Extra,
    /// Something came before anything was sent.
    Unasked,
    /// It does not end.
    Flood,
    /// The server ended the connection too early.
    Ended,
    Reset,
    /// The server does not take what is sent.
    Stuck,
    /// The connection should have ended, and did not.
    NotEnded,
    /// The server's process ended.
    Died,
    /// What the stage itself looked at: threads, descriptors, time.
    Seen,
}

/// Everything known about a failure, apart from the steps that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) symptom: Symptom,
    pub(crate) expected: String,
    pub(crate) received: String,
    /// The column of the first difference, where the two can be compared.
    pub(crate) caret: Option<usize>,
    /// What was found by looking at the difference, or what the stage knows; stands before any other hint.
    pub(crate) seen: Option<String>,
}

impl Trouble {
    pub(crate) fn new(symptom: Symptom, expected: impl Into<String>, received: impl Into<String>) -> Trouble {
        Trouble { symptom, expected: expected.into(), received: received.into(), caret: None, seen: None }
    }

    pub(crate) fn differs(symptom: Symptom, shown: Difference) -> Trouble {
        let Difference { expected, received, caret } = shown;
        Trouble { symptom, expected, received, caret: Some(caret), seen: None }
    }

    pub(crate) fn torn(shown: Difference) -> Trouble {
        Trouble {
            expected: "valid UTF-8 from the first byte to the last".to_owned(),
            ..Trouble::differs(Symptom::Torn, shown)
        }
    }

    /// Adds what is known about the cause.
    pub(crate) fn seen(mut self, what: Option<impl Into<String>>) -> Trouble {
        if let Some(what) = what {
            self.seen = Some(what.into());
        }
        self
    }
}

/// Why a stage did not pass.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Failed(Box<Trouble>),
    /// It cannot be judged, and why.
    Skipped(String),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Stop {
        Stop::Failed(Box::new(trouble))
    }
}

/// How a stage ends: passed, perhaps with something to tell; or not.
pub(crate) type Verdict = Result<Option<String>, Stop>;
