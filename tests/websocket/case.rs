//! One case: what is sent, how it is cut, and what must come of it.

use std::io::Write;
use std::net::SocketAddr;

use crate::close_with;
use crate::support::web::{CLOSE, CONTINUE, FIN, Frame, PONG, TEXT, Ws, masked};

/// How a case's bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Whole,
    Frames,
    /// Into pieces of so many bytes, each frame for itself.
    Pieces(usize),
    /// After so many bytes, and after so many.
    At([usize; 2]),
}

/// One of Autobahn's cases: what is sent, which texts the others in the room hear, and what comes back. The
/// room's server echoes nothing: where Autobahn expects an echo, the others must have heard it.
pub(crate) struct Case {
    pub(crate) cut: Cut,
    frames: Vec<(u8, Vec<u8>)>,
    heard: Vec<String>,
    answers: Vec<Frame>,
    /// The code of the server's close; the case's own close is 1000.
    code: u16,
}

impl Case {
    pub(crate) fn new(frames: &[(u8, &[u8])]) -> Case {
        let frames = frames.iter().map(|(first, payload)| (*first, payload.to_vec())).collect();
        Case { cut: Cut::Whole, frames, heard: Vec::new(), answers: Vec::new(), code: 1000 }
    }

    pub(crate) fn cut(self, cut: Cut) -> Case {
        Case { cut, ..self }
    }

    pub(crate) fn heard(self, texts: &[&str]) -> Case {
        Case { heard: texts.iter().map(|text| (*text).to_owned()).collect(), ..self }
    }

    pub(crate) fn pongs(self, payloads: &[&[u8]]) -> Case {
        let pong = |payload: &&[u8]| Frame { first: FIN | PONG, payload: payload.to_vec() };
        Case { answers: payloads.iter().map(pong).collect(), ..self }
    }

    pub(crate) fn closes(self, code: u16) -> Case {
        Case { code, ..self }
    }
}

/// A text in fragments of one size, as frames.
pub(crate) fn fragments_of(size: usize, bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let last = (bytes.len() - 1) / size;
    let first = |at: usize| if at == 0 { TEXT } else { CONTINUE } | if at == last { FIN } else { 0 };
    bytes.chunks(size).enumerate().map(|(at, part)| (first(at), part)).collect()
}

/// Plays a case, and says what was not as expected.
pub(crate) fn play(page: SocketAddr, listener: &mut Ws, number: &str, case: &Case) -> Result<(), String> {
    let mut ws = Ws::connect(page, "/chat");
    let mut frames: Vec<Vec<u8>> = case.frames.iter().map(|(first, payload)| masked(*first, payload)).collect();
    let has_close = case.frames.iter().any(|(first, _)| first & 0xf == CLOSE);
    if !has_close && case.code == 1000 {
        frames.push(masked(FIN | CLOSE, &close_with(1000, b"")));
    }
    let whole = frames.concat();
    let pieces: Vec<&[u8]> = match case.cut {
        Cut::Whole => vec![&whole],
        Cut::Frames => frames.iter().map(Vec::as_slice).collect(),
        Cut::Pieces(size) => frames.iter().flat_map(|frame| frame.chunks(size)).collect(),
        Cut::At([first, second]) => vec![&whole[..first], &whole[first..second], &whole[second..]],
    };
    // The server may have hung up before all is sent.
    pieces.iter().for_each(|piece| drop(ws.0.0.write_all(piece)));
    let mut answers = Vec::new();
    let code = loop {
        let frame = ws.next();
        match frame.close_code() {
            Some(code) => break code,
            None => answers.push(frame),
        }
    };
    if !ws.0.rest_and_end().0.is_empty() {
        return Err("something was said after the goodbye".to_owned());
    }
    if code != case.code {
        return Err(format!("closed with {code} instead of {}", case.code));
    }
    if answers != case.answers {
        return Err(format!("answered {answers:?} instead of {:?}", case.answers));
    }
    for text in &case.heard {
        let heard = listener.hear();
        if heard != *text {
            return Err(format!("the others heard {heard:?} instead of {text:?}"));
        }
    }
    // And nothing else: what is said next is what they hear next.
    let mut ends = Ws::connect(page, "/chat");
    ends.say(number);
    let heard = listener.hear();
    if heard == number { Ok(()) } else { Err(format!("the others also heard {heard:?}")) }
}
