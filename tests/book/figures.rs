//! Pictures of runs: a program plays its scene, and what its lanes say is drawn as a timeline.
//!
//! Below the picture, the page says which program, and what belongs together in its scene. Words in quotes are
//! the beginnings of what the lanes say; all but the program may be left out.
//!
//! ```text
//! <!-- figure: ch04_reply; lanes: client, server, client-b; from: "connected, and silent"; to: "received 서버";
//!      arrows: "sending" -> "received 안녕", "received 안녕" -> "received 서버";
//!      blocked: client-b "sending" .. "received" -->
//! ```
//!
//! What arrives more than a row later has waited to be read; with `=>` in place of `->` it was on its way all the time.

use unicode_width::UnicodeWidthChar;

use crate::book::Book;
use crate::drawing;
use crate::markdown::pattern;
use crate::normalise;
use crate::ports::Ports;
use crate::terminal::Program;

/// So wide that no text goes on below itself.
const WIDTH: usize = 1000;

/// What the page says about a picture.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) program: String,
    lanes: Vec<String>,
    from: Option<String>,
    to: Option<String>,
    /// (cause, effect, whether it was slow).
    arrows: Vec<(String, String, bool)>,
    blocked: Vec<(String, String, String)>,
}

/// A scene as it is drawn.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Timeline {
    pub(crate) lanes: Vec<String>,
    /// Instants, from the first to the last: (lane, text). Two in a row happen at the same time.
    pub(crate) rows: Vec<Vec<(usize, String)>>,
    /// From one event to another: ((row, lane), (row, lane)).
    pub(crate) arrows: Vec<((usize, usize), (usize, usize))>,
    /// The ends of those that were on their way all the time, and did not wait to be read.
    pub(crate) slow: Vec<(usize, usize)>,
    /// A lane in which nothing can happen, from a row to a row.
    pub(crate) blocked: Vec<(usize, usize, usize)>,
}

/// The picture, from a run of the program.
pub(crate) fn draw(book: &Book, comment: &str, alt: &str) -> Result<String, String> {
    let plan = Plan::parse(comment)?;
    let transcript = scene(book, &plan.program)?;
    let timeline = Timeline::parse(&transcript)?.arranged(&plan)?;
    Ok(drawing::svg(&timeline, alt))
}

fn scene(book: &Book, program: &str) -> Result<Vec<String>, String> {
    if !book.programs.join(program).is_file() {
        return Err(format!("no program is called {program}"));
    }
    let command = format!("NARRATE_WIDTH={WIDTH} {program}");
    let mut running = Program::start(&command, book).map_err(|error| error.to_string())?;
    if !running.wait_for_end() {
        return Err(format!("{program} does not end"));
    }
    let mut ports = Ports::default();
    Ok(running.lines().iter().map(|line| normalise::line(&ports.as_shown(line, None))).collect())
}

impl Plan {
    fn parse(comment: &str) -> Result<Plan, String> {
        let quoted = pattern(r#""([^"]*)""#);
        let arrow = pattern(r#""([^"]*)" *([-=])> *"([^"]*)""#);
        let period = pattern(r#"([\w-]+) "([^"]*)" *\.\. *"([^"]*)""#);
        let mut clauses = split_outside_quotes(comment).into_iter();
        let mut plan = Plan { program: clauses.next().unwrap_or_default().trim().to_owned(), ..Plan::default() };
        for clause in clauses.filter(|clause| !clause.trim().is_empty()) {
            let (key, value) = clause.split_once(':').ok_or_else(|| format!("{clause:?} should be `KEY: VALUE`"))?;
            let text = quoted.captures(value).map(|found| found[1].to_owned());
            match key.trim() {
                "lanes" => plan.lanes = value.split(',').map(|lane| lane.trim().to_owned()).collect(),
                "from" => plan.from = text,
                "to" => plan.to = text,
                "arrows" => {
                    let arrows = arrow.captures_iter(value);
                    plan.arrows = arrows.map(|found| (found[1].into(), found[3].into(), &found[2] == "=")).collect();
                }
                "blocked" => {
                    let periods = period.captures_iter(value);
                    plan.blocked = periods.map(|found| (found[1].into(), found[2].into(), found[3].into())).collect();
                }
                other => return Err(format!("a figure has no {other:?}")),
            }
        }
        Ok(plan)
    }
}

fn split_outside_quotes(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        quoted ^= c == '"';
        match c {
            ';' if !quoted => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(c),
        }
    }
    parts
}

impl Timeline {
    /// Reads the lanes of a transcript.
    fn parse(transcript: &[String]) -> Result<Timeline, String> {
        let [header, rule, rows @ ..] = transcript else { return Err("it plays no scene".into()) };
        if !rule.starts_with('─') {
            return Err("its transcript has no lanes".into());
        }
        let lanes: Vec<String> = header.split_whitespace().map(str::to_owned).collect();
        let lane_width = WIDTH / lanes.len();
        let rows = rows.iter().map(|line| cells(line, lane_width));
        Ok(Timeline { rows: rows.collect(), lanes, ..Timeline::default() })
    }

    /// The part that the page asks for, and what belongs together in it.
    fn arranged(mut self, plan: &Plan) -> Result<Timeline, String> {
        let first = plan.from.as_ref().map_or(Ok(0), |text| self.row_of(text, 0))?;
        let last = plan.to.as_ref().map_or(Ok(self.rows.len() - 1), |text| self.row_of(text, first))?;
        self.rows = self.rows[first..=last].to_vec();
        match &self.lanes[..] {
            _ if !plan.lanes.is_empty() => self.reorder(&plan.lanes)?,
            // Between its clients, so that no arrow crosses a lane.
            [server, a, b] if server == "server" => self.reorder(&[a.clone(), server.clone(), b.clone()])?,
            _ => {}
        }
        for (from, to, is_slow) in &plan.arrows {
            let arrows = self.arrows_between(from, to);
            if arrows.is_empty() {
                return Err(format!("no lane says {from:?}, and then another {to:?}"));
            }
            self.slow.extend(arrows.iter().map(|(_, end)| *end).filter(|_| *is_slow));
            self.arrows.extend(arrows);
        }
        for (lane, from, to) in &plan.blocked {
            let periods = self.periods(lane, from, to)?;
            self.blocked.extend(periods);
        }
        Ok(self)
    }

    fn row_of(&self, text: &str, from: usize) -> Result<usize, String> {
        let says = |row: &Vec<(usize, String)>| row.iter().any(|(_, said)| said.starts_with(text));
        let found = self.rows[from..].iter().position(says);
        found.map(|row| row + from).ok_or_else(|| format!("no lane says {text:?}"))
    }

    fn reorder(&mut self, lanes: &[String]) -> Result<(), String> {
        for row in &mut self.rows {
            for (lane, _) in row.iter_mut() {
                let name = &self.lanes[*lane];
                let place = lanes.iter().position(|lane| lane == name);
                *lane = place.ok_or_else(|| format!("{name:?} is in the scene, and not in `lanes`"))?;
            }
            row.sort();
        }
        self.lanes = lanes.to_vec();
        Ok(())
    }

    /// What a lane says that begins with this, in time's order: (row, lane).
    fn events<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
        let all = self.rows.iter().enumerate().flat_map(|(row, cells)| cells.iter().map(move |cell| (row, cell)));
        all.filter(move |(_, (_, said))| said.starts_with(text)).map(|(row, (lane, _))| (row, *lane))
    }

    /// Each cause with the first effect that another lane tells later, each effect once: said twice, an arrow leads to
    /// the second effect of the same cause.
    fn arrows_between(&self, from: &str, to: &str) -> Vec<((usize, usize), (usize, usize))> {
        let mut used: Vec<(usize, usize)> = self.arrows.iter().map(|(_, end)| *end).collect();
        let mut arrows = Vec::new();
        for (row, lane) in self.events(from) {
            let effect = self.events(to).find(|end| end.0 > row && end.1 != lane && !used.contains(end));
            if let Some(end) = effect {
                used.push(end);
                arrows.push(((row, lane), end));
            }
        }
        arrows
    }

    fn periods(&self, lane: &str, from: &str, to: &str) -> Result<Vec<(usize, usize, usize)>, String> {
        let index =
            self.lanes.iter().position(|name| name == lane).ok_or_else(|| format!("there is no lane {lane:?}"))?;
        let mut periods: Vec<(usize, usize, usize)> = Vec::new();
        for (first, _) in self.events(from).filter(|(_, of)| *of == index) {
            let last = self.events(to).find(|&(row, of)| row > first && of == index);
            if let Some((last, _)) = last
                && periods.last().is_none_or(|period| period.2 <= first)
            {
                periods.push((index, first, last));
            }
        }
        if periods.is_empty() {
            return Err(format!("{lane} does not say {from:?}, and then {to:?}"));
        }
        Ok(periods)
    }
}

/// What stands in the columns of a line, by their number.
fn cells(line: &str, lane_width: usize) -> Vec<(usize, String)> {
    let mut cells: Vec<(usize, String)> = Vec::new();
    let mut column = 0;
    for c in line.chars() {
        let lane = column / lane_width;
        column += c.width().unwrap_or(0);
        match cells.last_mut() {
            Some((last, text)) if *last == lane => text.push(c),
            _ => cells.push((lane, c.to_string())),
        }
    }
    for (_, text) in &mut cells {
        text.truncate(text.trim_end().len());
    }
    cells.retain(|(_, text)| !text.is_empty());
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Timeline {
        let line = |left: &str, right: &str| format!("{left:500}{right}");
        let korean = format!("received 안녕{}", " ".repeat(487)) + "  STATE";
        let transcript = [
            line("server", "client"),
            line("──────", "──────"),
            line("ready", "ready"),
            line("", "sending 안녕"),
            korean,
        ];
        Timeline::parse(&transcript).unwrap()
    }

    #[test]
    fn a_transcript_is_read_by_its_columns() {
        let timeline = told();
        assert_eq!(timeline.lanes, ["server", "client"]);
        let cell = |lane: usize, text: &str| (lane, text.to_owned());
        assert_eq!(timeline.rows[0], [cell(0, "ready"), cell(1, "ready")]);
        assert_eq!(timeline.rows[1], [cell(1, "sending 안녕")]);
        assert_eq!(timeline.rows[2], [cell(0, "received 안녕"), cell(1, "  STATE")]);
    }

    #[test]
    fn the_page_says_what_belongs_together() {
        let plan =
            r#"ch; lanes: client, server; arrows: "sending" -> "received"; blocked: client "ready" .. "sending""#;
        let timeline = told().arranged(&Plan::parse(plan).unwrap()).unwrap();
        assert_eq!((&timeline.arrows[..], &timeline.slow[..]), (&[((1, 0), (2, 1))][..], &[][..]));
        let slow = r#"ch; lanes: client, server; arrows: "sending" => "received""#;
        let slow = told().arranged(&Plan::parse(slow).unwrap()).unwrap();
        assert_eq!((slow.arrows, slow.slow), (timeline.arrows, vec![(2, 1)]));
        assert_eq!(timeline.blocked, [(0, 0, 1)]);
        for wrong in
            [r#"ch; arrows: "gone" -> "received""#, r#"ch; blocked: nobody "ready" .. "sending""#, "ch; from: \"gone\""]
        {
            assert!(told().arranged(&Plan::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
        assert!(Plan::parse("ch; colours: red").is_err());
    }
}
