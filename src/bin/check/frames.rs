//! The frames of WebSocket, byte by byte (RFC 6455, section 5.2): right ones, and such as nobody should send.

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

/// The kinds of frames, in the lower half of the first byte.
pub(crate) const CONTINUE: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// In the first byte: the last frame of its message.
pub(crate) const FIN: u8 = 0x80;
/// In the first byte: reserved, for extensions that both sides have agreed on.
pub(crate) const RSV1: u8 = 0x40;
/// In the second byte: behind the length are four bytes that the payload is mixed with.
const MASK: u8 = 0x80;

/// What a control frame (close, ping, pong) can hold.
pub(crate) const MOST_IN_CONTROL: usize = 125;

/// No longer message is read: it would be a server that means no good.
pub(crate) const MOST: usize = 16 * 1024 * 1024;

/// What a server answers to a key (section 4.2.2): only who knows the standard knows the text behind it.
pub(crate) fn accept_key(key: &str) -> String {
    BASE64.encode(&Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")))
}

/// The first bytes of a frame, with the length that it says it has.
pub(crate) fn head(first: u8, length: u64, is_masked: bool) -> Vec<u8> {
    let mask = if is_masked { MASK } else { 0 };
    match length {
        0..=125 => vec![first, mask | length as u8],
        126..=0xffff => [&[first, mask | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, mask | 127][..], &length.to_be_bytes()].concat(),
    }
}

/// A frame as a client sends it: each byte of the payload is mixed (XOR) with one of the four of the mask in turn.
pub(crate) fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = head(first, payload.len() as u64, true);
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame as only a server may send it.
pub(crate) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, payload.len() as u64, false), payload].concat()
}

/// A frame that came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) is_last: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// The frame at the beginning of what came, and how many bytes it takes; `None` while it is not all there.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>, &'static str> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let (opcode, is_last) = (first & 0x0f, first & FIN != 0);
    if first & 0x70 != 0 {
        return Err("A reserved bit (RSV) is set. They belong to extensions, and none was agreed on.");
    }
    if !matches!(opcode, CONTINUE | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err("There is no such opcode: 0 goes on, 1 is text, 2 is binary, 8 is close, 9 is ping, 10 is pong.");
    }
    if second & MASK != 0 {
        return Err("The server masked its frame. Only a client masks what it sends.");
    }
    let (size, fewest) = match second {
        126 => (2, 126),
        127 => (8, 0x1_0000),
        _ => (0, 0),
    };
    if opcode >= CLOSE && (size > 0 || !is_last) {
        return Err("A close, ping or pong has at most 125 bytes, and is never in fragments.");
    }
    let Some(longer) = bytes.get(2..2 + size) else { return Ok(None) };
    let length = match size {
        0 => u64::from(second),
        _ => longer.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    if length < fewest {
        return Err(
            "The length takes more bytes than it needs: up to 125 it is in the second byte, up to 65,535 in two.",
        );
    }
    if length > MOST as u64 {
        return Err(
            "The frame says that it has more than 16 MiB. Is its length in network order, the highest byte first; and, if it \
             is over 125, behind a 126 or 127?",
        );
    }
    let begin = 2 + size;
    let end = begin + length as usize;
    let payload = bytes.get(begin..end).map(<[u8]>::to_vec);
    Ok(payload.map(|payload| (Frame { is_last, opcode, payload }, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The examples of RFC 6455, sections 1.3 and 5.7.
    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(unmasked(FIN | TEXT, b"Hello"), b"\x81\x05Hello");
        assert_eq!(
            masked(FIN | TEXT, b"Hello", [0x37, 0xfa, 0x21, 0x3d]),
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
        );
        assert_eq!(head(FIN | BINARY, 256, false), b"\x82\x7e\x01\x00");
        assert_eq!(head(FIN | BINARY, 65_536, false), b"\x82\x7f\0\0\0\0\0\x01\0\0");
    }

    #[test]
    fn what_is_written_is_read_at_every_length_and_not_before_it_is_all_there() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let bytes = unmasked(TEXT, &vec![b'x'; length]);
            let (frame, taken) = parse(&bytes).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.is_last, frame.payload.len(), taken), (TEXT, false, length, bytes.len()));
            for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{end} of {length}");
            }
        }
    }

    #[test]
    fn each_rule_that_a_server_may_break_has_words_of_its_own() {
        let wrong: [&[u8]; 8] = [
            &[FIN | RSV1 | TEXT, 0],
            &[FIN | 3, 0],
            &masked(FIN | TEXT, b"x", [1, 2, 3, 4]),
            &[PING, 0],
            &[FIN | PONG, 126, 0, 126],
            &[FIN | TEXT, 126, 0, 125],
            &[FIN | TEXT, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            &[FIN | TEXT, 127, 1, 0, 0, 0, 0, 0, 0, 0],
        ];
        for bytes in wrong {
            assert!(parse(bytes).is_err(), "{bytes:02x?}");
        }
    }
}
