//! The answer to whoever asks wrongly: a status, and why.

use std::fmt;
use std::io;

/// A request that is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the response, such as 400.
    pub status: u16,
    /// What is wrong, for the person who looks into it.
    pub why: String,
    /// A field that goes with this status, such as what would be allowed.
    pub field: Option<(&'static str, &'static str)>,
}

impl Refusal {
    /// A refusal without a field of its own.
    pub fn new(status: u16, why: impl Into<String>) -> Refusal {
        Refusal { status, why: why.into(), field: None }
    }

    /// 400: the request breaks the rules of HTTP.
    pub(crate) fn bad(why: impl Into<String>) -> Refusal {
        Refusal::new(400, why)
    }

    pub(crate) fn with(self, name: &'static str, value: &'static str) -> Refusal {
        Refusal { field: Some((name, value)), ..self }
    }

    /// What the status is called (RFC 9110, section 15).
    pub fn phrase(&self) -> &'static str {
        phrase(self.status)
    }
}

/// What a status is called, of those that this server uses.
pub(crate) fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.phrase(), self.why)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, refusal)
    }
}
