//! Autobahn's section 6: text that is UTF-8, and text that is not. Most of it is made from what UTF-8 is: a scheme that
//! could write any number of up to 31 bits, in up to 6 bytes, and the numbers that it may write (RFC 3629).

use std::ops::RangeInclusive;

use crate::CONTINUE;
use crate::case::{Case, Cut, fragments_of};
use crate::support::web::{FIN, TEXT};

/// A Greek word with an accent that takes three bytes; 11 in all.
const WORD: &str = "κ\u{1f79}σμε";
/// The greatest numbers that fit into so many bytes, from none to 6.
const GREATEST: [u32; 7] = [0, 0x7f, 0x7ff, 0xffff, 0x1f_ffff, 0x3ff_ffff, 0x7fff_ffff];
/// The first and the last half of a pair by which UTF-16 writes what it has no single number for; in UTF-8, none is
/// a character.
const HIGH: [u32; 4] = [0xd800, 0xdb7f, 0xdb80, 0xdbff];
const LOW: [u32; 3] = [0xdc00, 0xdf80, 0xdfff];

/// A number as UTF-8's scheme writes it in so many bytes, whether or not it may.
fn written(number: u32, length: usize) -> Vec<u8> {
    const FIRST: [u8; 7] = [0, 0, 0xc0, 0xe0, 0xf0, 0xf8, 0xfc];
    let six_bits = |at: usize| (number >> (6 * at)) as u8 & 0x3f | 0x80;
    let first = FIRST[length] | (number >> (6 * (length - 1))) as u8;
    [first].into_iter().chain((0..length - 1).rev().map(six_bits)).collect()
}

/// Without its last byte.
fn unfinished(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = written(number, length);
    bytes.pop();
    bytes
}

fn good(text: &str) -> Case {
    Case::new(&[(FIN | TEXT, text.as_bytes())]).heard(&[text])
}

fn character(number: u32) -> Case {
    good(&char::from_u32(number).unwrap().to_string())
}

fn bad(bytes: &[u8]) -> Case {
    Case::new(&[(FIN | TEXT, bytes)]).closes(1007)
}

/// Text in fragments that are empty, that end amid a character, that are bytes.
fn in_fragments() -> [(&'static str, Vec<Case>); 2] {
    let text = "Hello-µ@ßöäüàá-UTF-8!!";
    let (before, after) = text.split_at("Hello-µ@ßöä".len());
    let halves = [(TEXT, before.as_bytes()), (FIN | CONTINUE, after.as_bytes())];
    let around = |middle: &'static [u8]| [(TEXT, &b""[..]), (CONTINUE, middle), (FIN | CONTINUE, b"")];
    let empty = vec![good(""), Case::new(&around(b"")).heard(&[""]), Case::new(&around(b"middle")).heard(&["middle"])];
    let cut = vec![
        good(text),
        Case::new(&halves).heard(&[text]),
        Case::new(&fragments_of(1, text.as_bytes())).heard(&[text]),
        Case::new(&fragments_of(1, WORD.as_bytes())).heard(&[WORD]),
    ];
    [("6.1", empty), ("6.2", cut)]
}

/// Text that goes wrong in its middle. When that is found out, at once or at the end of the message, is left to us.
fn wrong_in_the_middle() -> [(&'static str, Vec<Case>); 2] {
    /// A frame's head, and its mask.
    const HEAD: usize = 6;
    let around = |bytes: Vec<u8>| [WORD.as_bytes(), &bytes, b"edited"].concat();
    let (half_of_a_pair, beyond) = (around(written(HIGH[0], 3)), around(written(0x11_0000, 4)));
    // Around the number that is none; around its second byte, the first that is wrong.
    let places = [[11, 15], [12, 13]];
    let in_frames = places.map(|[first, second]| {
        let frames =
            [(TEXT, &beyond[..first]), (CONTINUE, &beyond[first..second]), (FIN | CONTINUE, &beyond[second..])];
        Case::new(&frames).cut(Cut::Frames).closes(1007)
    });
    let in_pieces = places.map(|places| bad(&beyond).cut(Cut::At(places.map(|place| HEAD + place))));
    let in_bytes = Case::new(&fragments_of(1, &half_of_a_pair)).closes(1007);
    [("6.3", vec![bad(&half_of_a_pair), in_bytes]), ("6.4", in_frames.into_iter().chain(in_pieces).collect())]
}

fn bad_ones<Bytes: AsRef<[u8]>>(all: impl IntoIterator<Item = Bytes>) -> Vec<Case> {
    all.into_iter().map(|bytes| bad(bytes.as_ref())).collect()
}

/// The last number in 6 bytes, the one before it in 5, and so on.
fn in_up_to_6_bytes<const N: usize>(numbers: [u32; N]) -> [Vec<u8>; N] {
    std::array::from_fn(|at| written(numbers[at], 7 - N + at))
}

fn characters(numbers: impl IntoIterator<Item = u32>) -> Vec<Case> {
    numbers.into_iter().map(character).collect()
}

/// Some words, cut or not; and the first and the last number of each length, also of those that there never are.
fn boundaries() -> [(&'static str, Vec<Case>); 7] {
    let amid = |character: char| good(&format!("hello{character}world"));
    let some = ['$', '¢', '€', '\u{24b62}'].map(amid).into_iter().chain([good(WORD)]).collect();
    let prefix = |end: usize| WORD.get(..end).map_or_else(|| bad(&WORD.as_bytes()[..end]), good);
    let prefixes = (1..=WORD.len()).map(prefix).collect();
    let mut others = characters([0xd7ff, 0xe000, 0xfffd, 0x10_ffff]);
    others.push(bad(&written(0x11_0000, 4)));
    [
        ("6.5", some),
        ("6.6", prefixes),
        ("6.7", characters([0, 0x80, 0x800, 0x1_0000])),
        ("6.8", bad_ones(in_up_to_6_bytes([0x20_0000, 0x400_0000]))),
        ("6.9", characters([0x7f, 0x7ff, 0xffff, 0x10_ffff])),
        ("6.10", bad_ones(in_up_to_6_bytes([GREATEST[4], GREATEST[5], GREATEST[6]]))),
        ("6.11", others),
    ]
}

/// Bytes that stand where they cannot, and bytes that are missing. (Where all bytes of a kind are meant, Autobahn's
/// own lists end before the last.)
fn misplaced() -> [(&'static str, Vec<Case>); 5] {
    let alternating = |count: usize| [0x80, 0xbf].into_iter().cycle().take(count).collect();
    let mut continuations: Vec<Vec<u8>> = vec![vec![0x80], vec![0xbf]];
    continuations.extend((2..=6).map(alternating));
    continuations.push((0x80..=0xbf).collect());
    let each_alone = |beginnings: RangeInclusive<u8>| -> Vec<u8> { beginnings.flat_map(|byte| [byte, b' ']).collect() };
    let beginnings = [0xc0..=0xdf, 0xe0..=0xef, 0xf0..=0xf7, 0xf8..=0xfb, 0xfc..=0xfd].map(each_alone);
    let least = (2..=6).map(|length| unfinished(0, length));
    let unfinished: Vec<Vec<u8>> = least.chain((2..=6).map(|length| unfinished(GREATEST[length], length))).collect();
    [
        ("6.12", bad_ones(continuations)),
        ("6.13", bad_ones(beginnings)),
        ("6.14", bad_ones(&unfinished)),
        ("6.15", vec![bad(&unfinished.concat())]),
        ("6.16", bad_ones([&b"\xfe"[..], b"\xff", b"\xfe\xfe\xff\xff"])),
    ]
}

/// Numbers in more bytes than they take; and numbers that are no character, or none with a meaning.
fn numbers() -> [(&'static str, Vec<Case>); 7] {
    let greatest_of_less = std::array::from_fn::<u32, 5, _>(|at| GREATEST[at + 1]);
    let halves = HIGH.into_iter().chain(LOW).map(|half| written(half, 3));
    let pairs =
        HIGH.into_iter().flat_map(|high| [LOW[0], LOW[2]].map(|low| [written(high, 3), written(low, 3)].concat()));
    let last_two_of_each_plane = (0..=16).flat_map(|plane| [0xfffe, 0xffff].map(|number| plane << 16 | number));
    [
        ("6.17", bad_ones(in_up_to_6_bytes([u32::from(b'/'); 5]))),
        ("6.18", bad_ones(in_up_to_6_bytes(greatest_of_less))),
        ("6.19", bad_ones(in_up_to_6_bytes([0; 5]))),
        ("6.20", bad_ones(halves)),
        ("6.21", bad_ones(pairs)),
        ("6.22", characters(last_two_of_each_plane)),
        ("6.23", characters(0xfff9..=0xffff)),
    ]
}

pub(crate) fn table() -> impl Iterator<Item = (&'static str, Vec<Case>)> {
    in_fragments().into_iter().chain(wrong_in_the_middle()).chain(boundaries()).chain(misplaced()).chain(numbers())
}
