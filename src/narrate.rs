//! How a chapter's program tells its story: one lane for each actor, side by side.
//!
//! The chapters log with the ordinary macros of the `log` crate; the *target* of a record is the actor:
//!
//! ```
//! use log::info;
//! use socket_steps::narrate;
//!
//! narrate::scene(&["server", "client"]);
//! info!(target: "client", "sending 안녕하세요");
//! info!(target: "server", "received 안녕하세요");
//! ```
//!
//! prints
//!
//! ```text
//! server                                          client
//! ──────                                          ──────
//!                                                 sending 안녕하세요
//! received 안녕하세요
//! ```
//!
//! A story has an order, and threads have none. So the programs log before they act and after they observe:
//! "sending" is always printed before "received". What happens in two lanes at the same time has no order;
//! the scene says so beforehand with [`share_row`], and it stands side by side.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use env_logger::{Builder, Env, Target, WriteStyle};
use log::Record;
use unicode_width::UnicodeWidthStr;

use crate::output::harmless;

/// How wide all lanes are together, unless `NARRATE_WIDTH` says otherwise: fits a terminal of ordinary width,
/// and a page.
const WIDTH: usize = 96;

/// The space between two lanes.
const GAP: usize = 2;

/// No lane is narrower, however little space there is.
const MIN_LANE: usize = 16;

static STAGE: Mutex<Stage> = Mutex::new(Stage::new());

/// Begins a scene with these lanes, from left to right, on standard output. Records at level info and above
/// are shown, and of the kit only errors, for it has no lane; unless `RUST_LOG` says otherwise.
pub fn scene(lanes: &[&str]) {
    let width = std::env::var("NARRATE_WIDTH").ok().and_then(|width| width.parse().ok());
    let scene = Stage {
        lanes: lanes.iter().map(|&lane| lane.to_owned()).collect(),
        colours: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        width: width.unwrap_or(WIDTH).max(MIN_LANE * lanes.len()),
        ..Stage::new()
    };
    let _ = io::stdout().write_all(scene.header().as_bytes());
    *stage() = scene;
    start_logging("info,socket_steps=error", Target::Stdout, |_, record| {
        // Printed while the stage is still ours. A record may complete a row that another thread's has waited
        // for, and that thread has gone on: its next row must not overtake this one.
        let mut stage = stage();
        let rows = stage.tell(record);
        io::stdout().write_all(rows.as_bytes())
    });
}

/// Narrates one side that runs by itself, on standard error: standard output belongs to the program. What the other
/// side has said may be part of the story, and [does nothing](harmless) there.
pub fn aside() {
    start_logging("info", Target::Stderr, |out, record| {
        writeln!(out, "{}: {}", record.target(), harmless(&record.args().to_string(), &[]))
    });
}

/// The next record of each of these lanes happens at the same time as the others': they share a row.
pub fn share_row(lanes: &[&str]) {
    let mut stage = stage();
    let lanes = lanes.iter().filter_map(|&lane| stage.lane(lane)).collect();
    stage.shared.push_back(lanes);
}

fn start_logging(
    default: &str,
    target: Target,
    format: impl Fn(&mut env_logger::fmt::Formatter, &Record<'_>) -> io::Result<()> + Sync + Send + 'static,
) {
    Builder::from_env(Env::default().default_filter_or(default))
        .format(format)
        .target(target)
        .write_style(WriteStyle::Never) // Lanes have colours of their own.
        .try_init()
        .expect("a program narrates one scene");
}

fn stage() -> MutexGuard<'static, Stage> {
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is on the way to the reader.
struct Stage {
    lanes: Vec<String>,
    colours: bool,
    width: usize,
    /// The lanes of the shared rows to come.
    shared: VecDeque<Vec<usize>>,
    /// Records that cannot be printed yet: (lane, text).
    waiting: Vec<(usize, String)>,
}

impl Stage {
    const fn new() -> Stage {
        Stage { lanes: Vec::new(), colours: false, width: WIDTH, shared: VecDeque::new(), waiting: Vec::new() }
    }

    fn header(&self) -> String {
        let names = self.lanes.iter().cloned().enumerate().collect::<Vec<_>>();
        let rules = self.lanes.iter().map(|name| "─".repeat(name.width())).enumerate().collect::<Vec<_>>();
        self.row(&names) + &self.row(&rules)
    }

    /// Takes a record in, and returns the rows that are complete now.
    fn tell(&mut self, record: &Record<'_>) -> String {
        let Some(lane) = self.lane(record.target()) else {
            // Not an actor of this scene: a library, most likely.
            return format!("[{}] {}\n", record.target(), record.args());
        };
        self.waiting.push((lane, record.args().to_string()));
        let mut rows = String::new();
        while let Some(cells) = self.next_row() {
            rows += &self.row(&cells);
        }
        rows
    }

    /// The records of the next row, if all of them are there.
    fn next_row(&mut self) -> Option<Vec<(usize, String)>> {
        let Some(lanes) = self.shared.front() else {
            return if self.waiting.is_empty() { None } else { Some(vec![self.waiting.remove(0)]) };
        };
        // A quick lane may be a record ahead, or have nothing to do with this row: that one waits.
        let first_of = |lane: &usize| self.waiting.iter().position(|(of, _)| of == lane);
        let mut chosen = lanes.iter().map(first_of).collect::<Option<Vec<usize>>>()?;
        self.shared.pop_front();
        chosen.sort_unstable();
        let mut cells: Vec<_> = chosen.into_iter().rev().map(|index| self.waiting.remove(index)).collect();
        cells.sort_by_key(|(lane, _)| *lane);
        Some(cells)
    }

    fn lane(&self, name: &str) -> Option<usize> {
        self.lanes.iter().position(|lane| lane == name)
    }

    /// Draws a row; a long text goes on below itself.
    fn row(&self, cells: &[(usize, String)]) -> String {
        let lane_width = self.width / self.lanes.len().max(1);
        let columns: Vec<(usize, Vec<String>)> = cells
            .iter()
            .map(|(lane, text)| {
                let lines = textwrap::wrap(text, lane_width - GAP);
                (*lane, lines.into_iter().map(|line| line.into_owned()).collect())
            })
            .collect();
        let height = columns.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
        let mut drawn = String::new();
        for y in 0..height {
            let mut line = String::new();
            let mut width = 0;
            for (lane, lines) in &columns {
                let Some(text) = lines.get(y) else { continue };
                line += &" ".repeat(lane * lane_width - width);
                width = lane * lane_width + text.width();
                line += &self.coloured(*lane, text);
            }
            drawn += line.trim_end();
            drawn.push('\n');
        }
        drawn
    }

    fn coloured(&self, lane: usize, text: &str) -> String {
        const COLOURS: [u8; 4] = [36, 33, 35, 32]; // cyan, yellow, magenta, green
        match self.colours {
            true => format!("\x1b[{}m{text}\x1b[0m", COLOURS[lane % COLOURS.len()]),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(stage: &mut Stage, lane: &str, text: &str) -> String {
        stage.tell(&Record::builder().target(lane).args(format_args!("{text}")).build())
    }

    fn two_lanes() -> Stage {
        Stage { lanes: vec!["server".into(), "client".into()], ..Stage::new() }
    }

    #[test]
    fn each_actor_has_a_lane_and_wide_characters_count_two() {
        let mut stage = two_lanes();
        assert_eq!(tell(&mut stage, "client", "보냄"), format!("{}보냄\n", " ".repeat(48)));
        stage.shared.push_back(vec![0, 1]);
        assert_eq!(tell(&mut stage, "server", "받음"), "");
        assert_eq!(tell(&mut stage, "client", "x"), format!("받음{}x\n", " ".repeat(44)));
    }

    #[test]
    fn what_happens_at_once_shares_a_row_whoever_comes_first() {
        let row = format!("accepted{}connected\n", " ".repeat(40));
        for order in [["server", "client"], ["client", "server"]] {
            let mut stage = two_lanes();
            stage.shared.push_back(vec![0, 1]);
            let mut told = String::new();
            for lane in order {
                told += &tell(&mut stage, lane, if lane == "server" { "accepted" } else { "connected" });
            }
            assert_eq!(told, row);
        }
    }

    #[test]
    fn a_lane_that_is_ahead_waits_for_the_row_before() {
        let mut stage = two_lanes();
        stage.shared.push_back(vec![0, 1]);
        assert_eq!(tell(&mut stage, "server", "accepted"), "");
        assert_eq!(tell(&mut stage, "server", "waiting for data"), "");
        let told = tell(&mut stage, "client", "connected");
        assert_eq!(told, format!("accepted{}connected\nwaiting for data\n", " ".repeat(40)));
    }

    #[test]
    fn a_long_text_goes_on_below_itself_in_its_own_lane() {
        let mut stage = two_lanes();
        let told = tell(&mut stage, "client", &"long ".repeat(20));
        assert_eq!(told.lines().count(), 3);
        assert!(told.lines().all(|line| line.starts_with(&" ".repeat(48)) && line.width() <= WIDTH));
    }
}
