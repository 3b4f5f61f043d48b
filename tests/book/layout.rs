//! Where everything of a timeline is.

use unicode_width::UnicodeWidthStr;

use crate::figures::Timeline;

/// Columns of a label before it goes on below itself.
pub(crate) const LABEL_COLUMNS: usize = 30;

// In pixels.
pub(crate) const COLUMN: f64 = 7.9;
pub(crate) const LINE: f64 = 18.0;
pub(crate) const MARGIN: f64 = 28.0;
pub(crate) const HEADER: f64 = 34.0;
pub(crate) const BETWEEN_ROWS: f64 = 16.0;
pub(crate) const BESIDE: f64 = 22.0;
/// Beside its lane, where what was sent waits to be read.
pub(crate) const WAITS_BESIDE: f64 = 14.0;
/// How far down what is sent goes until it is on the other side.
pub(crate) const ON_THE_WAY: f64 = 34.0;
/// Between two lanes, where no label needs more.
pub(crate) const LANES_APART: f64 = 190.0;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Left,
    Right,
}

pub(crate) struct Layout<'t> {
    pub(crate) timeline: &'t Timeline,
    /// Where each lane is.
    pub(crate) x: Vec<f64>,
    /// Where each row is.
    pub(crate) y: Vec<f64>,
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// Where the lanes end.
    pub(crate) bottom: f64,
}

impl<'t> Layout<'t> {
    pub(crate) fn of(timeline: &'t Timeline) -> Layout<'t> {
        let mut layout = Layout { timeline, x: Vec::new(), y: Vec::new(), width: 0.0, height: 0.0, bottom: 0.0 };
        let lanes = timeline.lanes.len();
        // How much space the labels need to the left and to the right of each lane.
        let mut space = vec![[0.0_f64; 2]; lanes];
        for (row, cells) in timeline.rows.iter().enumerate() {
            for (lane, text) in cells {
                let side = layout.side(row, *lane) as usize;
                if is_state(text) {
                    let half = text.trim().width() as f64 * COLUMN / 2.0 + 10.0;
                    space[*lane] = space[*lane].map(|least| least.max(half));
                } else {
                    space[*lane][side] = space[*lane][side].max(widest(&wrapped(text)) + BESIDE);
                }
            }
        }
        for lane in 0..lanes {
            let half = (timeline.lanes[lane].width() as f64 * COLUMN) / 2.0 + 16.0;
            let x = match lane.checked_sub(1) {
                None => MARGIN + space[0][0].max(half),
                Some(before) => layout.x[before] + (space[before][1] + space[lane][0] + BESIDE).max(LANES_APART),
            };
            layout.x.push(x);
            layout.width = x + space[lane][1].max(half) + MARGIN;
        }
        let mut y = MARGIN + HEADER + 24.0;
        for cells in &timeline.rows {
            layout.y.push(y);
            let lines = cells.iter().map(|(_, text)| wrapped(text).len()).max().unwrap_or(1);
            y += lines as f64 * LINE + BETWEEN_ROWS;
        }
        layout.bottom = y - 12.0;
        layout.height = y + if layout.explanations().is_empty() { 8.0 } else { 34.0 };
        layout
    }

    /// The label of an event is where its arrows are not.
    pub(crate) fn side(&self, row: usize, lane: usize) -> Side {
        let last = self.timeline.lanes.len() - 1;
        if lane == 0 {
            return Side::Left;
        }
        if lane == last {
            return Side::Right;
        }
        let ends = self.timeline.arrows.iter().flat_map(|&(from, to)| [(from, to), (to, from)]);
        let mut others = ends.filter(|(end, _)| *end == (row, lane)).map(|(_, other)| other.1);
        let at_once = || self.timeline.rows[row].iter().map(|(other, _)| *other).find(|other| *other != lane);
        match others.next().or_else(at_once) {
            Some(other) if other > lane => Side::Left,
            _ => Side::Right,
        }
    }

    /// What is read more than a row later has waited, unless it was slow.
    pub(crate) fn is_kept_waiting(&self, from: (usize, usize), to: (usize, usize)) -> bool {
        to.0 - from.0 > 2 && !self.timeline.slow.contains(&to)
    }

    /// What the picture has that needs a word.
    pub(crate) fn explanations(&self) -> Vec<&'static str> {
        let waits = self.timeline.arrows.iter().any(|(from, to)| self.is_kept_waiting(*from, *to));
        let all = [(!self.timeline.blocked.is_empty(), BLOCKED), (waits, UNREAD)];
        all.into_iter().filter(|(is_there, _)| *is_there).map(|(_, text)| text).collect()
    }
}

pub(crate) const BLOCKED: &str = "waits";
pub(crate) const UNREAD: &str = "has arrived, and nobody has read it";

pub(crate) fn is_state(text: &str) -> bool {
    text.starts_with("  ") && text.trim().chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

pub(crate) fn wrapped(text: &str) -> Vec<String> {
    textwrap::wrap(text.trim(), LABEL_COLUMNS).into_iter().map(|line| line.into_owned()).collect()
}

pub(crate) fn widest(lines: &[String]) -> f64 {
    lines.iter().map(|line| line.width()).max().unwrap_or(0) as f64 * COLUMN
}
