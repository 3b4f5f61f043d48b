//! How this server answers: what it puts in front of a line, and what behind it.

/// What the server adds to what it was sent; found with the first probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// In front of an answer.
    pub(crate) prefix: Vec<u8>,
    /// Behind it. Nothing should be there; when it is known, the other stages can still be judged.
    pub(crate) suffix: Vec<u8>,
}

impl Manner {
    /// Takes an answer apart around the line that was sent.
    pub(crate) fn of(line: &[u8], answer: &[u8]) -> Option<Manner> {
        let at = find(answer, line)?;
        Some(Manner { prefix: answer[..at].to_vec(), suffix: answer[at + line.len()..].to_vec() })
    }
}

/// Where `wanted` is in `bytes`.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
