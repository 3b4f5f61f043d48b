//! A request from a socket, under a deadline for the whole of its head; and the response to it.

use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime};

use crate::deadline::{Deadline, Timeouts};
use crate::socket::{OnStop, Socket};
use crate::web::head::{Head, MOST_BYTES, Method};
use crate::web::refusal::{Refusal, phrase};

/// How long a client may take for its whole head, from the connect on. A browser needs milliseconds.
pub const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// The deadlines of a connection that begins with a request.
pub const TIMEOUTS: Timeouts =
    Timeouts { idle: Some(HEAD_WITHIN), message: Some(HEAD_WITHIN), write: Some(Duration::from_secs(10)) };

/// What came of waiting for a request.
#[derive(Debug)]
pub enum Asked {
    /// A request, and what has been read beyond its head.
    For(Head, Vec<u8>),
    /// A request that is not served.
    Wrongly(Refusal),
    /// Nothing: a browser connects in advance, and may not need it.
    Nothing,
}

/// Waits for a request.
///
/// # Errors
/// What reading says, once a part of a request was there; but a deadline that has passed is
/// [`Asked::Wrongly`], with 408.
pub fn read_request(socket: &mut Socket) -> io::Result<Asked> {
    let mut bytes = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    // From now on, not from the first byte on.
    socket.begin_message(OnStop::Interrupt);
    loop {
        let count = match socket.read(&mut piece) {
            Ok(count) => count,
            Err(error) if Deadline::of(&error).is_some() && !bytes.is_empty() => {
                return Ok(Asked::Wrongly(Refusal::new(408, format!("a head may take {HEAD_WITHIN:?}"))));
            }
            Err(_) if bytes.is_empty() => return Ok(Asked::Nothing),
            Err(error) => return Err(error),
        };
        if count == 0 {
            // The server may be stopping, or the client has ended in the middle of its request.
            return Ok(if bytes.is_empty() || socket.connection().is_stopping() {
                Asked::Nothing
            } else {
                Asked::Wrongly(Refusal::bad("the request ends before its head does"))
            });
        }
        bytes.extend_from_slice(&piece[..count]);
        debug_assert!(bytes.len() < MOST_BYTES + piece.len(), "a head without end is refused");
        match Head::parse(&bytes) {
            Ok(None) => {}
            Ok(Some((head, length))) => {
                socket.end_message();
                return Ok(Asked::For(head, bytes.split_off(length)));
            }
            Err(refusal) => return Ok(Asked::Wrongly(refusal)),
        }
    }
}

/// What a browser may do with whatever comes from here: nothing that it was not sent for. No script but ours, no
/// address but ours, not inside another page; and what is called text is not guessed to be a script.
const CAUTION: &str = "\
Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
X-Content-Type-Options: nosniff\r\n\
Referrer-Policy: no-referrer\r\n\
Cross-Origin-Resource-Policy: same-origin\r\n\
Cache-Control: no-store\r\n";

/// Writes a whole response; the connection ends after it.
///
/// # Errors
/// As for writing.
pub fn respond(socket: &mut Socket, method: Method, content_type: &str, body: &[u8]) -> io::Result<()> {
    let mut response = begin(200);
    response += &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    response += CAUTION;
    response += "Connection: close\r\n\r\n";
    let mut response = response.into_bytes();
    if method == Method::Get {
        response.extend_from_slice(body);
    }
    socket.write_all(&response)
}

/// Tells the client why it is not served.
///
/// # Errors
/// Always: the refusal, or why it could not be told.
pub fn refuse(socket: &mut Socket, refusal: Refusal) -> io::Result<()> {
    let mut response = begin(refusal.status);
    let body = format!("{refusal}\n");
    response += &format!("Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n", body.len());
    if let Some((name, value)) = refusal.field {
        response += &format!("{name}: {value}\r\n");
    }
    response += CAUTION;
    // A hop that reads `Upgrade` is to be told that it is for this hop alone.
    let close = if refusal.status == 426 { "Connection: close, Upgrade" } else { "Connection: close" };
    response += &format!("{close}\r\n\r\n{body}");
    socket.write_all(response.as_bytes())?;
    Err(refusal.into())
}

/// The status line, and the field that every response has.
pub(crate) fn begin(status: u16) -> String {
    let date = httpdate::fmt_http_date(SystemTime::now());
    format!("HTTP/1.1 {status} {}\r\nDate: {date}\r\n", phrase(status))
}
