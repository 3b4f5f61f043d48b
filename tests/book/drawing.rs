//! A timeline as SVG: lanes side by side, time downwards. The same timeline gives the same bytes.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use crate::figures::Timeline;
use crate::layout::{
    BESIDE, BLOCKED, COLUMN, HEADER, LINE, Layout, MARGIN, ON_THE_WAY, Side, WAITS_BESIDE, is_state, wrapped,
};

// In pixels.
const DOT: f64 = 4.5;
const HEAD: f64 = 10.0;
const DASHES: &str = r#" stroke-dasharray="5 3""#;

const PAPER: &str = "#fcfbf8";
const EDGE: &str = "#d8d3c8";
const INK: &str = "#24292f";
const FAINT: &str = "#6b7280";
const WAITING: &str = "#e8930c";
/// One for each actor, dark enough to be read on the paper.
const COLOURS: [(&str, &str); 3] = [("server", "#0f766e"), ("client", "#1d4ed8"), ("client-b", "#86198f")];
const OTHER_COLOURS: [&str; 3] = ["#9a3412", "#3f6212", "#334155"];

pub(crate) fn svg(timeline: &Timeline, alt: &str) -> String {
    let layout = Layout::of(timeline);
    let mut out = String::new();
    let (width, height) = (layout.width, layout.height);
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" role="img" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Noto Sans Mono CJK KR', monospace" font-size="13">"#
    );
    let _ = writeln!(out, "<title>{}</title>", escaped(alt));
    let _ = writeln!(
        out,
        r#"<rect x="0.5" y="0.5" width="{:.0}" height="{:.0}" rx="10" fill="{PAPER}" stroke="{EDGE}"/>"#,
        width - 1.0,
        height - 1.0
    );
    layout.lanes(&mut out);
    layout.blocked(&mut out);
    layout.at_once(&mut out);
    layout.arrows(&mut out);
    layout.events(&mut out);
    layout.legend(&mut out);
    out.push_str("</svg>\n");
    out
}

impl Layout<'_> {
    fn colour(&self, lane: usize) -> &'static str {
        let name = &self.timeline.lanes[lane];
        let known = COLOURS.iter().find(|(actor, _)| actor == name);
        known.map_or(OTHER_COLOURS[lane % OTHER_COLOURS.len()], |(_, colour)| colour)
    }

    fn lanes(&self, out: &mut String) {
        for (lane, name) in self.timeline.lanes.iter().enumerate() {
            let (x, colour) = (self.x[lane], self.colour(lane));
            let half = name.width() as f64 * COLUMN / 2.0 + 14.0;
            let _ = writeln!(
                out,
                r#"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{:.1}" stroke="{colour}" stroke-width="2" stroke-opacity="0.45"/>"#,
                MARGIN + HEADER - 4.0,
                self.bottom
            );
            let _ = writeln!(
                out,
                r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="28" rx="14" fill="{colour}"/>"#,
                x - half,
                MARGIN - 4.0,
                half * 2.0
            );
            let _ = writeln!(
                out,
                r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle" font-weight="600" fill="#ffffff">{}</text>"##,
                MARGIN + 14.5,
                escaped(name)
            );
        }
    }

    fn blocked(&self, out: &mut String) {
        for &(lane, from, to) in &self.timeline.blocked {
            let _ = writeln!(
                out,
                r#"<rect x="{:.1}" y="{:.1}" width="10" height="{:.1}" rx="5" fill="{WAITING}" fill-opacity="0.85"/>"#,
                self.x[lane] - 5.0,
                self.y[from],
                self.y[to] - self.y[from]
            );
        }
    }

    /// What shares a row happens at the same time.
    fn at_once(&self, out: &mut String) {
        for (row, cells) in self.timeline.rows.iter().enumerate() {
            let (Some((first, _)), Some((last, _))) = (cells.first(), cells.last()) else { continue };
            if first != last && !cells.iter().any(|(_, text)| is_state(text)) {
                let y = self.y[row];
                let _ = writeln!(
                    out,
                    r#"<line x1="{:.1}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}" stroke="{FAINT}" stroke-width="1.3" stroke-dasharray="2 4"/>"#,
                    self.x[*first], self.x[*last]
                );
            }
        }
    }

    fn arrows(&self, out: &mut String) {
        for &(start, end) in &self.timeline.arrows {
            let ((from_row, from), (to_row, to)) = (start, end);
            let (mut x1, mut y1) = (self.x[from], self.y[from_row]);
            let (x2, y2) = (self.x[to], self.y[to_row]);
            let colour = self.colour(from);
            let line = |x1: f64, y1: f64, x2: f64, y2: f64, dashes: &str| {
                format!(
                    r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="1.6"{dashes}/>"#
                )
            };
            let mut head = HEAD;
            if self.is_kept_waiting(start, end) {
                // It is soon there, and then waits.
                let x = if x1 > x2 { x2 + WAITS_BESIDE } else { x2 - WAITS_BESIDE };
                let _ = writeln!(out, "{}", line(x1, y1, x, y1 + ON_THE_WAY, ""));
                let _ = writeln!(out, "{}", line(x, y1 + ON_THE_WAY, x, y2, DASHES));
                (x1, y1) = (x, y2);
                head = WAITS_BESIDE - DOT - 2.0;
            }
            // The head ends at the dot; the line ends inside the head.
            let length = (x2 - x1).hypot(y2 - y1);
            let (dx, dy) = ((x2 - x1) / length, (y2 - y1) / length);
            let (tip_x, tip_y) = (x2 - dx * (DOT + 2.0), y2 - dy * (DOT + 2.0));
            let (base_x, base_y) = (tip_x - dx * head, tip_y - dy * head);
            let half = head * 0.45;
            let _ = writeln!(out, "{}", line(x1, y1, base_x, base_y, ""));
            let _ = writeln!(
                out,
                r#"<polygon points="{tip_x:.1},{tip_y:.1} {:.1},{:.1} {:.1},{:.1}" fill="{colour}"/>"#,
                base_x - dy * half,
                base_y + dx * half,
                base_x + dy * half,
                base_y - dx * half
            );
        }
    }

    fn events(&self, out: &mut String) {
        for (row, cells) in self.timeline.rows.iter().enumerate() {
            for (lane, text) in cells {
                let (x, y, colour) = (self.x[*lane], self.y[row], self.colour(*lane));
                if is_state(text) {
                    state(out, x, y, text.trim(), colour);
                    continue;
                }
                let is_result = text.starts_with("  ");
                if !is_result {
                    let _ = writeln!(
                        out,
                        r#"<circle cx="{x:.1}" cy="{y:.1}" r="{DOT}" fill="{colour}" stroke="{PAPER}" stroke-width="1.5"/>"#
                    );
                }
                let (x, anchor) = match self.side(row, *lane) {
                    Side::Left => (x - BESIDE, "end"),
                    Side::Right => (x + BESIDE, "start"),
                };
                let ink = if is_result { FAINT } else { INK };
                for (index, line) in wrapped(text).iter().enumerate() {
                    // The outline keeps it legible where an arrow passes.
                    let _ = writeln!(
                        out,
                        r#"<text x="{x:.1}" y="{:.1}" text-anchor="{anchor}" fill="{ink}" stroke="{PAPER}" stroke-width="4" stroke-linejoin="round" paint-order="stroke">{}</text>"#,
                        y + 4.5 + index as f64 * LINE,
                        escaped(line)
                    );
                }
            }
        }
    }

    fn legend(&self, out: &mut String) {
        let y = self.height - MARGIN + 8.0;
        let mut x = MARGIN;
        for text in self.explanations() {
            let middle = y - 4.0;
            let _ = match text {
                BLOCKED => writeln!(
                    out,
                    r#"<rect x="{x:.1}" y="{:.1}" width="24" height="10" rx="5" fill="{WAITING}" fill-opacity="0.85"/>"#,
                    middle - 5.0
                ),
                _ => writeln!(
                    out,
                    r#"<line x1="{x:.1}" y1="{middle:.1}" x2="{:.1}" y2="{middle:.1}" stroke="{FAINT}" stroke-width="1.6"{DASHES}/>"#,
                    x + 24.0
                ),
            };
            x += 32.0;
            let _ = writeln!(out, r#"<text x="{x:.1}" y="{y:.1}" font-size="12" fill="{FAINT}">{text}</text>"#);
            x += text.width() as f64 * COLUMN + 20.0;
        }
    }
}

/// What the kernel calls a socket's state stands on the lane itself.
fn state(out: &mut String, x: f64, y: f64, name: &str, colour: &str) {
    let half = name.width() as f64 * COLUMN / 2.0 + 9.0;
    let _ = writeln!(
        out,
        r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="24" rx="5" fill="{PAPER}" stroke="{colour}" stroke-width="1.5"/>"#,
        x - half,
        y - 12.0,
        half * 2.0
    );
    let _ = writeln!(
        out,
        r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle" font-weight="600" fill="{colour}">{}</text>"#,
        y + 4.5,
        escaped(name)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
