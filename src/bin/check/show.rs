//! Bytes as a person can read them, and the place where two answers part.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How many columns of what was sent or received are shown in one place.
const SHOWN: usize = 40;

/// Text as text, everything else escaped: nothing that a server sends can move the cursor.
pub(crate) fn escape(bytes: &[u8]) -> String {
    escaped(bytes).concat()
}

/// The same, character by character.
fn escaped(bytes: &[u8]) -> Vec<String> {
    let mut shown = Vec::new();
    for chunk in bytes.utf8_chunks() {
        shown.extend(chunk.valid().chars().map(|character| match character {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\0' => "\\0".to_owned(),
            '\\' => "\\\\".to_owned(),
            // Control characters have no width, those that steer the direction of writing have none either.
            _ if character.width().unwrap_or(0) == 0 => format!("\\u{{{:x}}}", character as u32),
            _ => character.to_string(),
        }));
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shown
}

/// Their beginning, as much as is shown in one place.
fn head(bytes: &[u8]) -> String {
    // A character takes at most four bytes.
    let some = &bytes[..bytes.len().min(SHOWN * 4)];
    let (shown, is_all) = first_columns(escaped(some).into_iter());
    format!("{}{}", shown.concat(), if is_all && some.len() == bytes.len() { "" } else { "…" })
}

/// Their end.
fn tail(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(SHOWN * 4);
    let from = (from..bytes.len()).find(|&at| bytes[at] & 0xc0 != 0x80).unwrap_or(from);
    let (mut shown, is_all) = first_columns(escaped(&bytes[from..]).into_iter().rev());
    shown.reverse();
    format!("{}{}", if is_all && from == 0 { "" } else { "…" }, shown.concat())
}

/// As many as fit, and whether that is all of them.
fn first_columns(characters: impl Iterator<Item = String>) -> (Vec<String>, bool) {
    let mut taken = Vec::new();
    let mut used = 0;
    for character in characters {
        used += columns(&character);
        if used > SHOWN {
            return (taken, false);
        }
        taken.push(character);
    }
    (taken, true)
}

/// How many columns a text takes on a terminal: a Korean character takes two.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// The beginning of some bytes and their number: `안녕하세요\n (16 bytes)`.
pub(crate) fn brief(bytes: &[u8]) -> String {
    let count = bytes.len();
    if count == 0 {
        return "nothing".to_owned();
    }
    let unit = if count == 1 { "byte" } else { "bytes" };
    format!("{} ({} {unit})", head(bytes), group(count))
}

/// The first bytes as hexadecimal digits, and their number: `81 05 48 … (7 bytes)`. For what is no text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const SOME: usize = 12;
    let some: Vec<String> = bytes.iter().take(SOME).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > SOME { " …" } else { "" };
    let unit = if bytes.len() == 1 { "byte" } else { "bytes" };
    format!("{}{more} ({} {unit})", some.join(" "), group(bytes.len()))
}

/// 1048576 as 1,048,576.
pub(crate) fn group(number: usize) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// What was expected and what came, around the first place where they part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) expected: String,
    pub(crate) received: String,
    /// Under which column of both the difference is.
    pub(crate) caret: usize,
}

/// `context` came and was right; then `expected` should have come, and `received` came, or, if that is empty,
/// what `instead` says.
pub(crate) fn difference(context: &[u8], expected: &[u8], received: &[u8], instead: &str) -> Difference {
    // A character whose first byte was right and whose second was not is shown whole on both sides.
    let torn = context.len() - context.len().min(unfinished(context));
    let (context, begun) = context.split_at(torn);
    let expected = [begun, expected].concat();
    let mut came = begun.to_vec();
    came.extend_from_slice(received);

    let lead = tail(context);
    let shown = match (received.is_empty(), head(&came)) {
        (true, came) if instead.is_empty() => came,
        (true, came) if came.is_empty() => format!("({instead})"),
        (true, came) => format!("{came} ({instead})"),
        (false, came) => came,
    };
    let expected = if expected.is_empty() { "(nothing more)".to_owned() } else { head(&expected) };
    Difference { caret: columns(&lead), expected: format!("{lead}{expected}"), received: format!("{lead}{shown}") }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last() {
        Some(chunk) if chunk.valid().len() + chunk.invalid().len() > 0 => {
            let invalid = chunk.invalid();
            let begun = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if begun { invalid.len() } else { 0 }
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_not_plain_text_is_escaped() {
        assert_eq!(escape("안녕\n\0\x1b[31m\\\u{202e}".as_bytes()), "안녕\\n\\0\\u{1b}[31m\\\\\\u{202e}");
        assert_eq!(escape(b"a\xec\x95z"), "a\\xec\\x95z");
    }

    #[test]
    fn the_caret_stands_under_the_first_difference_also_behind_wide_characters() {
        let shown = difference("안녕 ".as_bytes(), b"two\n", b"TWO\n", "");
        assert_eq!((shown.expected.as_str(), shown.received.as_str()), ("안녕 two\\n", "안녕 TWO\\n"));
        assert_eq!(shown.caret, 5);
    }

    #[test]
    fn a_character_that_differs_in_its_last_byte_is_shown_whole() {
        let shown = difference(b"x\xed\x95", b"\x9c\n", b"\x98\n", "");
        assert_eq!((shown.expected.as_str(), shown.received.as_str(), shown.caret), ("x한\\n", "x하\\n", 1));
    }

    #[test]
    fn what_did_not_come_is_said() {
        let shown = difference(b"one", b" two\n", b"", "then nothing");
        assert_eq!((shown.received.as_str(), shown.caret), ("one(then nothing)", 3));
    }

    #[test]
    fn what_is_no_text_is_shown_in_digits() {
        assert_eq!(hex(b"\x81"), "81 (1 byte)");
        assert_eq!(hex(&[0xfe; 13]), format!("{}… (13 bytes)", "fe ".repeat(12)));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([group(7), group(1000), group(1_048_576)], ["7", "1,000", "1,048,576"]);
    }
}
