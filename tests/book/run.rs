//! Runs the consoles of a section, and compares what the terminals show with what the page says.

use crate::book::{Book, Finding};
use crate::commands::patiently;
use crate::consoles::{Block, INTERRUPT, Part, Section};
use crate::normalise;
use crate::paths::Paths;
use crate::ports::{Ports, connections_to, listening_on, says_where};
use crate::terminal::Program;

/// Runs the section; the blocks that differ, and what went wrong.
pub(crate) fn section(book: &Book, section: &Section<'_>, update: bool) -> Vec<Finding> {
    let mut stage = Stage {
        book,
        section,
        update,
        ports: Ports::default(),
        paths: Paths::new(),
        runs: section.programs.iter().map(|_| Run::default()).collect(),
        printed: section.blocks.iter().map(|block| vec![Vec::new(); block.parts.len()]).collect(),
        wrong: Vec::new(),
    };
    if let Err(finding) = stage.play() {
        // What comes after it would only repeat it.
        return vec![finding];
    }
    let differing = stage.compare();
    stage.wrong.into_iter().chain(differing).collect()
}

/// A section that is being run.
struct Stage<'s> {
    book: &'s Book,
    section: &'s Section<'s>,
    /// The page is being written: what it says is not what to wait for.
    update: bool,
    ports: Ports,
    paths: Paths,
    runs: Vec<Run>,
    /// The lines of each part of each block, as they came.
    printed: Vec<Vec<Vec<String>>>,
    wrong: Vec<Finding>,
}

/// A program of the section.
#[derive(Default)]
struct Run {
    running: Option<Program>,
    /// How many of its lines belong to parts already.
    taken: usize,
    /// The ports that it listens on, by the page's numbers.
    listens: Vec<u16>,
    /// What the page calls the port 0 that it was given.
    instead_of_zero: Option<u16>,
    finished: bool,
}

impl Stage<'_> {
    fn play(&mut self) -> Result<(), Finding> {
        let section = self.section;
        for (b, block) in section.blocks.iter().enumerate() {
            for (p, part) in block.parts.iter().enumerate() {
                let program = &section.programs[part.program];
                let is_last = program.parts.last() == Some(&(b, p));
                if part.place == 0 {
                    self.finish_terminal(&block.terminal, part.program)?;
                    self.start(part)?;
                }
                let ends_here = part.expected.iter().any(|line| line == INTERRUPT);
                match (is_last, ends_here) {
                    (false, true) => {
                        let text = format!("after {INTERRUPT} the terminal {:?} runs nothing", block.terminal);
                        return Err(Finding::wrong(block.fence.line, text));
                    }
                    (false, false) => self.take(part, (b, p))?,
                    // A whole transcript of something that keeps running ends with the section.
                    (true, _) if part.place == 0 && program.keeps_running => {}
                    (true, false) if program.keeps_running => {}
                    (true, _) => self.finish(part.program)?,
                }
            }
        }
        // Those that end by themselves first: they may need the others for it. Servers tell of everybody's end.
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        order.sort_by_key(|&program| {
            let of_page = &self.section.programs[program];
            (of_page.is_silent || self.interrupted(program), of_page.command.is_server)
        });
        for program in order {
            self.finish(program)?;
        }
        Ok(())
    }

    fn start(&mut self, part: &Part) -> Result<(), Finding> {
        let program = &self.section.programs[part.program];
        let fence = self.section.blocks[program.parts[0].0].fence;
        let wrong = |text: String| Finding::wrong(fence.line, text);
        let (command, mut to_come) = self.ports.with_real(&program.command).map_err(wrong)?;
        let command = self.paths.with_real(&command);
        let instead_of_zero = to_come.first().copied();
        let server = self.ports.listening_in(&command).filter(|_| !program.command.is_server);
        let before = server.map(connections_to).unwrap_or_default();
        let for_its_silence = program.is_silent && part.expected.is_empty();
        let running = Program::start(&patiently(&command, for_its_silence), self.book)
            .map_err(|error| wrong(format!("cannot run {command:?}: {error}")))?;

        if program.command.is_server {
            let ready = |lines: &[String]| lines.iter().filter(|line| says_where(line)).count() >= to_come.len().max(1);
            if !running.wait_until(ready) {
                return Err(wrong(format!("{command:?} does not say `listening on`; it says {:?}", running.lines())));
            }
            let listens: Vec<u16> = running.lines().iter().filter_map(|line| listening_on(line)).collect();
            to_come.truncate(listens.len());
            for (page, real) in to_come.iter().zip(listens) {
                self.ports.listens(*page, real);
            }
            self.runs[part.program].listens = to_come;
        } else if let Some(server) = server
            && program.keeps_running
            && part.expected.is_empty()
        {
            // It has nothing to say; what is next on the page may count on its being connected.
            if !running.wait_until(|_| connections_to(server).iter().any(|end| !before.contains(end))) {
                return Err(wrong(format!("{command:?} does not connect")));
            }
        }
        self.runs[part.program].instead_of_zero = instead_of_zero;
        self.runs[part.program].running = Some(running);
        Ok(())
    }

    /// The next lines of a program that goes on: as many as the page has, or all there are if they differ.
    fn take(&mut self, part: &Part, place: (usize, usize)) -> Result<(), Finding> {
        let run = &mut self.runs[part.program];
        let Some(running) = &run.running else { return Ok(()) };
        let lines = lines_like(running, run.taken, &part.expected, self.update);
        run.taken += lines.len();
        self.printed[place.0][place.1] = lines;
        Ok(())
    }

    /// A shell takes a command when the one before has ended.
    fn finish_terminal(&mut self, terminal: &str, before: usize) -> Result<(), Finding> {
        for program in 0..before {
            if self.section.programs[program].terminal == terminal {
                self.finish(program)?;
            }
        }
        Ok(())
    }

    fn interrupted(&self, program: usize) -> bool {
        let last = self.section.programs[program].parts.last();
        last.is_some_and(|&part| self.section.part(part).expected.iter().any(|line| line == INTERRUPT))
    }

    /// Waits for the end of a program, after Ctrl-C if the page shows it; the rest of what it prints is its last part.
    fn finish(&mut self, index: usize) -> Result<(), Finding> {
        let program = &self.section.programs[index];
        let place = *program.parts.last().unwrap();
        let part = self.section.part(place);
        let run = &mut self.runs[index];
        if std::mem::replace(&mut run.finished, true) {
            return Ok(());
        }
        let Some(running) = &mut run.running else { return Ok(()) };
        let mut lines = Vec::new();
        if let Some(at) = part.expected.iter().position(|line| line == INTERRUPT) {
            lines = lines_like(running, run.taken, &part.expected[..at], self.update);
            run.taken += lines.len();
            running.interrupt();
            lines.push(INTERRUPT.to_owned());
        } else if program.is_silent && part.expected.is_empty() {
            running.interrupt();
        } else if !run.listens.is_empty() {
            // It may have ended by itself, for a reason that its output tells.
            lines = lines_like(running, run.taken, &part.expected, self.update);
            run.taken += lines.len();
            running.wait_until_quiet();
            if !running.has_ended() {
                let text = format!(
                    "the server in the terminal {:?} still runs where its section ends: show how it is ended, with a last line {INTERRUPT}",
                    program.terminal
                );
                self.wrong.push(Finding::wrong(self.section.blocks[place.0].fence.line, text));
                running.interrupt();
            }
        }
        if !running.wait_for_end() {
            return Err(Finding::wrong(
                self.section.blocks[place.0].fence.line,
                format!(
                    "it hangs: {:?} in the terminal {:?} has not ended within {:?}; it printed {:#?}",
                    program.command.text,
                    program.terminal,
                    self.book.bound,
                    running.lines()
                ),
            ));
        }
        let all = running.lines();
        lines.extend_from_slice(all.get(run.taken..).unwrap_or_default());
        run.running = None;
        for page in std::mem::take(&mut run.listens) {
            self.ports.closed(page);
        }
        self.printed[place.0][place.1] = lines;
        Ok(())
    }

    /// The blocks whose transcripts are not what the page says.
    fn compare(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (block, parts) in self.section.blocks.iter().zip(&self.printed) {
            let mut now = Vec::new();
            for (part, lines) in block.parts.iter().zip(parts) {
                let zero = self.runs[part.program].instead_of_zero;
                let quoted = &self.section.programs[part.program].command.quoted;
                if !quoted.is_empty() {
                    self.ports.starts_servers(lines);
                }
                let as_shown = |line: &String| {
                    let line = self.paths.as_shown(line);
                    let line = quoted.iter().fold(line, |line, (run, shown)| line.replace(run, shown));
                    normalise::line(&self.ports.as_shown(&line, zero))
                };
                let lines = lines.iter().map(as_shown).collect();
                now.extend_from_slice(&part.prompt);
                now.extend(keeping_what_agrees(&part.expected, lines));
            }
            if block.fence.text != now {
                findings.push(stale(block, now));
            }
        }
        findings
    }
}

/// The next lines of a program that goes on: as many as are expected, once they are there. Where they differ
/// in more than numbers, all that come before it falls silent.
fn lines_like(running: &Program, taken: usize, expected: &[String], update: bool) -> Vec<String> {
    let shapes: Vec<String> = expected.iter().map(|line| normalise::shape(line)).collect();
    let alike = |lines: &[String]| {
        let next = lines.get(taken..).unwrap_or_default();
        let both = next.iter().zip(&shapes);
        (next.len(), both.filter(|(line, shape)| !normalise::agree(shape, &normalise::shape(line))).count())
    };
    running.wait_until(|lines| {
        let (count, different) = alike(lines);
        count >= shapes.len() || different > 0
    });
    let (count, different) = alike(&running.lines());
    if different > 0 || count < shapes.len() || (shapes.is_empty() && update) {
        running.wait_until_quiet();
        return running.lines().split_off(taken);
    }
    let mut lines = running.lines().split_off(taken);
    lines.truncate(shapes.len());
    lines
}

fn stale(block: &Block<'_>, now: Vec<String>) -> Finding {
    Finding::stale(block.fence, &format!("the terminal {:?}", block.terminal), now)
}

/// A line with a wildcard, or with a time, stays as the page has it if the run agrees with it.
fn keeping_what_agrees(expected: &[String], lines: Vec<String>) -> Vec<String> {
    let mut from = 0;
    let kept = lines.into_iter().map(|line| {
        let found = expected[from..].iter().position(|page| normalise::agree(page, &line));
        match found {
            Some(at) => {
                from += at + 1;
                expected[from - 1].clone()
            }
            None => line,
        }
    });
    kept.collect()
}
