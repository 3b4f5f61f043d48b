//! Chapter 5: bytes, not messages.

use super::{Chapter, Context, Need, Stage};
use crate::exchange::Kind;
use crate::trouble::{Symptom, Verdict};

const CHAPTER: Chapter = Chapter::new(5);

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "half-a-character",
        chapter: CHAPTER,
        requirement: "A Korean character that arrives in two pieces comes back whole.",
        needs: &[Need::Answers],
        hints: &[
            (
                &[Symptom::Changed, Symptom::Partial],
                "Each piece was turned into text by itself, and half a character is no text. Collect the bytes of a line, \
                 and turn them into text when the line is complete, or not at all. In Node, socket.setEncoding('utf8') \
                 would keep the half until the rest has come; a string and a Buffer added together do not.",
            ),
            (
                &[Symptom::Silent, Symptom::Ended, Symptom::Reset, Symptom::Died],
                "Half a character is no text, and turning it into text is an error. Collect the bytes of a line first; \
                 turn them into text when the line is complete, or not at all.",
            ),
        ],
        uses_up_the_server: false,
        run: half_a_character,
    },
    Stage {
        name: "cut-anywhere",
        chapter: CHAPTER,
        requirement: "Lines that arrive merged, or cut anywhere, are answered as if they came one by one.",
        needs: &[Need::Answers],
        hints: &[
            (
                &[Symptom::Silent, Symptom::Partial],
                "A part of what was sent was not answered. One read may bring two lines, or a half, or the end of one and \
                 the beginning of the next: keep what is not complete yet, and answer all that is.",
            ),
            (
                &[Symptom::Changed, Symptom::Extra],
                "A piece is not a line. If each piece is answered as if it were one, with something taken from it or added, \
                 the lines change wherever the network cuts. Look for the newline in the bytes collected so far.",
            ),
        ],
        uses_up_the_server: false,
        run: cut_anywhere,
    },
];

fn half_a_character(context: &mut Context<'_>) -> Verdict {
    let mut client = context.client("")?;
    for torn_after in [1, 2] {
        let line = context.korean();
        // Some character of the first word; all of them have three bytes there.
        let character = 3 * context.random.between(0, 2);
        let (first, second) = line.split_at(character + torn_after);
        client.send_pieces(&[first, second])?;
        client.expect(&line, Kind::Text)?;
    }
    // Twice in one line.
    let line = context.korean();
    client.send_pieces(&[&line[..1], &line[1..5], &line[5..]])?;
    client.expect(&line, Kind::Text)?;
    Ok(None)
}

fn cut_anywhere(context: &mut Context<'_>) -> Verdict {
    let mut client = context.client("")?;

    let merged = [context.plain(), context.plain(), context.plain()].concat();
    client.send(&merged)?;
    client.expect(&merged, Kind::Text)?;

    // One line, in three pieces; the last is the newline alone.
    let line = context.plain();
    let cut = context.random.between(1, line.len() - 2);
    client.send_pieces(&[&line[..cut], &line[cut..line.len() - 1], b"\n"])?;
    client.expect(&line, Kind::Text)?;

    // Three lines in two pieces: the first ends in the middle of the second line.
    let lines = [context.plain(), context.plain(), context.plain()];
    let cut = lines[0].len() + context.random.between(1, lines[1].len() - 1);
    let all = lines.concat();
    client.send_pieces(&[&all[..cut], &all[cut..]])?;
    client.expect(&all, Kind::Text)?;

    // And wherever the seed has it.
    let all: Vec<u8> = (0..6).flat_map(|_| context.plain()).collect();
    let mut cuts: Vec<usize> = (0..8).map(|_| context.random.between(1, all.len())).collect();
    cuts.extend([0, all.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &all[ends[0]..ends[1]]).collect();
    client.send_pieces(&pieces)?;
    client.expect(&all, Kind::Text)?;
    Ok(None)
}
