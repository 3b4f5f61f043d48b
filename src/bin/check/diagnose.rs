//! What was done to an answer, where that can be seen by looking at it.

use crate::manner::{Manner, find};

/// What a wrong answer tells about its maker. `None` when it tells nothing.
pub(crate) fn what_differs(sent: &[u8], received: &[u8], manner: &Manner) -> Option<String> {
    let body = received.strip_prefix(manner.prefix.as_slice()).unwrap_or(received);
    let replacement = "\u{fffd}".as_bytes();
    if received.starts_with(b"HTTP/") {
        return said("This looks like a web server. Here a line is answered with that line.");
    }
    if find(received, replacement).is_some() && find(sent, replacement).is_none() {
        return said(
            "� (U+FFFD) is what a program puts in the place of bytes that are no text; the bytes themselves are lost.",
        );
    }
    let line = sent.strip_suffix(b"\n").unwrap_or(sent);
    if body != sent && body.eq_ignore_ascii_case(sent) {
        return said("The letters are the same, but upper case and lower case are not.");
    }
    if body == line || body.starts_with(line) && received.ends_with(line) {
        return said("The newline is missing. It is a part of the message: send it back too.");
    }
    if line.len() > 1 && find(&body[line.len().min(body.len())..], line).is_some() && body.starts_with(line) {
        return said("The answer came twice.");
    }
    if find(body, &[line, b"\r\n"].concat()).is_some() {
        return said("The newline has become \\r\\n. Send the bytes as they came.");
    }
    if let Some(zero) = sent.iter().position(|&byte| byte == 0)
        && body.iter().zip(sent).take_while(|(one, other)| one == other).count() == zero
    {
        return said(
            "It stops at a zero byte. In C, strlen and printf end there: use the count that read returned instead.",
        );
    }
    if find(body, b"b'").is_some_and(|at| at < 2) || find(body, b"b\"").is_some_and(|at| at < 2) {
        return said("b'…' is how Python shows bytes when they are put into a text. Join bytes with bytes.");
    }
    if let Ok(text) = std::str::from_utf8(sent) {
        let mistaken: String = text.bytes().map(char::from).collect();
        if !text.is_ascii() && find(body, mistaken.trim_end().as_bytes()).is_some() {
            return said("Each byte was taken for a character (Latin-1) and written as UTF-8 again.");
        }
        if !text.trim().is_empty() && body != sent && body.trim_ascii() == sent.trim_ascii() {
            return said("The spaces or newlines at the ends are not the same.");
        }
        if text.len() > 2 && find(body, format!("{:?}", text.trim_end()).as_bytes()).is_some() {
            return said("The answer stands in quotation marks, as programmers print a text.");
        }
    }
    None
}

fn said(what: &str) -> Option<String> {
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_seen_is_said() {
        let see = |sent: &str, received: &str| {
            let manner = Manner { prefix: b"> ".to_vec(), suffix: Vec::new() };
            what_differs(sent.as_bytes(), received.as_bytes(), &manner).unwrap_or_default()
        };
        assert!(see("안녕\n", "> \u{fffd}\u{fffd}\n").contains("U+FFFD"));
        assert!(see("hello\n", "> HELLO\n").contains("upper case"));
        assert!(see("hello\n", "> hello").contains("newline is missing"));
        assert!(see("hello\n", "hello\nhello\n").contains("twice"));
        assert!(see("hello\n", "> hello\r\n").contains("\\r\\n"));
        assert!(see("a\0b\n", "> a").contains("zero byte"));
        assert!(see("hello\n", "> b'hello\\n'").contains("Python"));
        assert!(see("안\n", "> ì\u{95}\u{88}\n").contains("Latin-1"));
        assert!(see(" hello\n", "> hello\n").contains("ends"));
        assert!(see("hello\n", "> \"hello\"").contains("quotation"));
        assert!(see("hello\n", "HTTP/1.1 400 Bad Request\r\n").contains("web server"));
        assert_eq!(see("hello\n", "> goodbye\n"), "");
    }
}
