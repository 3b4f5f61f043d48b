//! The inputs of `corpus/`: what has hurt a server once, or was made to. They are tried every time, before what
//! proptest thinks of; and whatever proptest finds is added to them.
//!
//! A file holds inputs of one kind. Each has two lines: `# ` and why it is there; then what is to come of it, a space,
//! and the input. In that, `\r \n \t \0 \e \\` and `\xff` are bytes, and `{9000*x}` is 9,000 of them.

/// An input, and what is to come of it.
pub(crate) struct Input {
    pub(crate) why: &'static str,
    pub(crate) expected: &'static str,
    /// As it stands in the file, and what that means.
    pub(crate) notation: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// The inputs of a file.
pub(crate) fn inputs(file: &'static str) -> Vec<Input> {
    let mut lines = file.lines().filter(|line| !line.is_empty());
    let mut inputs = Vec::new();
    while let Some(why) = lines.next() {
        let why = why.strip_prefix("# ").unwrap_or_else(|| panic!("why is this here? {why}"));
        let line = lines.next().unwrap_or_else(|| panic!("there is nothing after {why}"));
        let (expected, notation) = line.split_once(' ').unwrap_or((line, ""));
        inputs.push(Input { why, expected, notation, bytes: bytes_of(notation) });
    }
    assert!(inputs.len() > 5, "the file is all but empty");
    inputs
}

/// What an input's notation stands for.
pub(crate) fn bytes_of(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = notation;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let (escape, after) = rest.split_at(1);
                rest = after;
                bytes.push(match escape {
                    "r" => b'\r',
                    "n" => b'\n',
                    "t" => b'\t',
                    "0" => 0,
                    "e" => 0x1b,
                    "\\" => b'\\',
                    "x" => {
                        let (number, after) = rest.split_at(2);
                        rest = after;
                        u8::from_str_radix(number, 16).unwrap()
                    }
                    unknown => panic!("what is \\{unknown} in {notation}?"),
                });
            }
            '{' => {
                let (repeated, after) = rest.split_once('}').unwrap();
                let (times, what) = repeated.split_once('*').unwrap();
                bytes.extend(bytes_of(what).repeat(times.parse().unwrap()));
                rest = after;
            }
            character => bytes.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

#[test]
fn the_notation_stands_for_these_bytes() {
    assert_eq!(bytes_of(r"a\r\n\t\0\e\\\xff안{3*x\n}"), b"a\r\n\t\0\x1b\\\xff\xec\x95\x88x\nx\nx\n");
    assert_eq!(bytes_of(""), b"");
}

#[test]
fn an_input_says_why_it_is_there_and_what_is_to_come_of_it() {
    let [first, .., last] =
        &inputs("# one\n1 a b\n\n{6*}# two\n2\n".replace("{6*}", "# more\n0 x\n".repeat(6).as_str()).leak())[..]
    else {
        panic!("two at least")
    };
    assert_eq!((first.why, first.expected, &first.bytes[..]), ("one", "1", &b"a b"[..]));
    assert_eq!((last.why, last.expected, &last.bytes[..]), ("two", "2", &b""[..]));
}
