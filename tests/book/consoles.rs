//! Consoles: what a page says that a terminal shows, as blocks, commands and programs.
//!
//! Blocks belong to terminals, and terminals live until the next heading, `##` or `###`. A program of a terminal
//! may go on over several blocks.

use crate::book::{Book, Finding};
use crate::commands::Command;
use crate::markdown::{Fence, Page};

/// The blocks between two headings.
#[derive(Default)]
pub(crate) struct Section<'p> {
    pub(crate) blocks: Vec<Block<'p>>,
    pub(crate) programs: Vec<Program>,
    /// What has to be installed for it: what the whole page needs, and what is said below its own heading.
    pub(crate) needs: Vec<&'p str>,
}

pub(crate) struct Block<'p> {
    pub(crate) fence: &'p Fence,
    pub(crate) terminal: String,
    pub(crate) parts: Vec<Part>,
}

/// A command and what it prints; or, first in a block, what a program goes on to print.
pub(crate) struct Part {
    /// The lines that show the command, with their `$ `.
    pub(crate) prompt: Vec<String>,
    pub(crate) expected: Vec<String>,
    /// Which program of the section prints this, and which part of its output it is.
    pub(crate) program: usize,
    pub(crate) place: usize,
}

/// A command that is started once, and the parts of its transcript.
pub(crate) struct Program {
    pub(crate) terminal: String,
    pub(crate) command: Command,
    /// (block, part).
    pub(crate) parts: Vec<(usize, usize)>,
    /// The blocks after it don't wait for its end.
    pub(crate) keeps_running: bool,
    /// It is there to say nothing: with the section it has served its purpose.
    pub(crate) is_silent: bool,
}

/// The line that a terminal shows for Ctrl-C.
pub(crate) const INTERRUPT: &str = "^C";

/// The consoles of a page that are run, section by section.
pub(crate) fn sections<'p>(book: &Book, page: &'p Page) -> Vec<Result<Section<'p>, Finding>> {
    let headings = page.headings.iter().filter(|heading| heading.level <= 3);
    let ends: Vec<usize> = headings.clone().map(|heading| heading.line).chain([usize::MAX]).collect();
    let first = headings.clone().find(|heading| heading.level > 1).map_or(usize::MAX, |heading| heading.line);
    let mut fences = page.fences.iter().peekable();
    let mut start = 0;
    let sections = ends.into_iter().map(|end| {
        let here = std::mem::replace(&mut start, end)..end;
        let fences: Vec<&Fence> = std::iter::from_fn(|| fences.next_if(|fence| fence.line < end)).collect();
        let needs = page.needs.iter().filter(|need| need.line < first || here.contains(&need.line));
        let needs = needs.map(|need| need.program.as_str()).collect();
        let mut section = Section { needs, ..Section::default() };
        for fence in fences {
            if let Some((terminal, stays)) = terminal_of(fence)? {
                section.add(book, fence, terminal, stays)?;
            }
        }
        Ok(section)
    });
    sections.filter(|section| !section.as_ref().is_ok_and(|section| section.blocks.is_empty())).collect()
}

/// The terminal of a console that is to be run: `<!-- run: NAME -->`, `<!-- run: NAME, keeps running -->`.
fn terminal_of(fence: &Fence) -> Result<Option<(&str, bool)>, Finding> {
    if fence.tag != "console" {
        return Ok(None);
    }
    match (fence.comment("run"), fence.comment("not run")) {
        (Some(name), None) if !name.is_empty() => match name.split_once(',') {
            None => Ok(Some((name, false))),
            Some((name, how)) if how.trim() == "keeps running" => Ok(Some((name.trim(), true))),
            Some((_, how)) => Err(Finding::wrong(fence.line, format!("a terminal cannot be {:?}", how.trim()))),
        },
        (None, Some(reason)) if !reason.is_empty() => Ok(None),
        _ => Err(Finding::wrong(
            fence.line,
            "a console that is not run: put <!-- run: TERMINAL --> or <!-- not run: why --> above it".into(),
        )),
    }
}

/// `sleep 4 | talk` says nothing on purpose, and for as long as others need it to.
fn is_silent(command: &str) -> bool {
    command.split_once('|').is_some_and(|(first, _)| {
        let words: Vec<&str> = first.split_whitespace().collect();
        matches!(words[..], ["sleep", _])
    })
}

impl<'p> Section<'p> {
    fn add(&mut self, book: &Book, fence: &'p Fence, terminal: &str, stays: bool) -> Result<(), Finding> {
        let wrong = |text: String| Finding::wrong(fence.line, text);
        let block = self.blocks.len();
        let mut parts: Vec<Part> = Vec::new();
        let mut lines = fence.text.iter().peekable();
        if lines.peek().is_none_or(|line| !line.starts_with("$ ")) {
            let running = self.programs.iter().rposition(|program| program.terminal == terminal);
            let program = running.ok_or_else(|| {
                wrong(format!("nothing runs in the terminal {terminal:?}: begin with a line `$ COMMAND`"))
            })?;
            parts.push(Part { prompt: Vec::new(), expected: Vec::new(), program, place: 0 });
        }
        while let Some(line) = lines.next() {
            let Some(command) = line.strip_prefix("$ ") else {
                parts.last_mut().unwrap().expected.push(line.clone());
                continue;
            };
            let mut prompt = vec![line.clone()];
            let mut command = command.to_owned();
            while command.ends_with('\\') {
                let Some(more) = lines.next_if(|line| line.starts_with("> ")) else {
                    return Err(wrong(format!("a line that begins with `> ` should follow {command:?}")));
                };
                command.pop();
                command += &more[2..];
                prompt.push(more.clone());
            }
            let command = Command::parse(&command, &book.programs).map_err(wrong)?;
            parts.push(Part { prompt, expected: Vec::new(), program: self.programs.len(), place: 0 });
            let is_silent = is_silent(&command.text);
            let keeps_running = command.is_server || stays || is_silent;
            self.programs.push(Program {
                terminal: terminal.to_owned(),
                command,
                parts: Vec::new(),
                keeps_running,
                is_silent,
            });
        }
        for (index, part) in parts.iter_mut().enumerate() {
            let program = &mut self.programs[part.program];
            part.place = program.parts.len();
            program.parts.push((block, index));
            program.keeps_running |= part.place > 0 || part.expected.iter().any(|line| line == INTERRUPT);
        }
        self.blocks.push(Block { fence, terminal: terminal.to_owned(), parts });
        Ok(())
    }

    /// Whether what it shows depends on how long something takes.
    pub(crate) fn counts_seconds(&self) -> bool {
        let mut commands = self.programs.iter().map(|program| &program.command.text);
        commands.any(|command| command.contains("sleep ") || command.contains("timeout "))
    }

    pub(crate) fn part(&self, (block, part): (usize, usize)) -> &Part {
        &self.blocks[block].parts[part]
    }
}
