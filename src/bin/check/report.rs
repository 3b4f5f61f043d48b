//! What the reader sees: one line a stage, and after a failure what to do about it; or JSON for machines.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};

use crate::judge::{Judged, Outcome};
use crate::show::columns;
use crate::stages::{Chapter, Stage};

/// How wide a paragraph is.
const WIDTH: usize = 100;

/// How wide the column of names is.
const NAMES: usize = 18;

/// Shows how the stages end.
pub(crate) struct Report {
    json: bool,
    colours: bool,
    address: String,
    seed: u64,
    /// The command that repeats all of this.
    again: String,
    chapter: Option<Chapter>,
    passed: usize,
    failed: usize,
    skipped: usize,
    first_failed: Option<Chapter>,
    last_passed: Option<Chapter>,
    stages: Vec<Value>,
}

impl Report {
    pub(crate) fn new(json: bool, address: String, seed: u64, again: String) -> Report {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Report {
            json,
            colours,
            address,
            seed,
            again,
            chapter: None,
            passed: 0,
            failed: 0,
            skipped: 0,
            first_failed: None,
            last_passed: None,
            stages: Vec::new(),
        }
    }

    pub(crate) fn begin(&self, out: &mut impl Write) {
        if !self.json {
            let _ = writeln!(out, "check: the server at {}, seed {}", self.address, self.seed);
            let _ = out.flush();
        }
    }

    /// One stage, as soon as it has ended. Nothing is done about an output that is closed.
    pub(crate) fn stage(&mut self, out: &mut impl Write, judged: Judged) {
        let chapter = judged.stage.chapter;
        match &judged.outcome {
            Outcome::Passed { .. } => {
                self.passed += 1;
                self.last_passed = self.last_passed.max(Some(chapter));
            }
            Outcome::Skipped { .. } => self.skipped += 1,
            Outcome::Failed { .. } => {
                self.failed += 1;
                self.first_failed = self.first_failed.or(Some(chapter));
            }
        }
        if self.json {
            self.stages.push(as_json(&judged));
            return;
        }
        let mut text = String::new();
        if self.chapter != Some(chapter) {
            self.chapter = Some(chapter);
            text.push_str(&format!("\n{}\n", chapter.slug));
        }
        self.line(&mut text, &judged);
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }

    fn line(&self, text: &mut String, judged: &Judged) {
        let stage = judged.stage;
        let name = format!("{:NAMES$}", stage.name);
        match &judged.outcome {
            Outcome::Passed { note } => {
                let note = note.as_ref().map_or(String::new(), |note| format!(" ({note})"));
                text.push_str(&format!("  {} {name} {}{note}\n", self.green("✓"), stage.requirement));
            }
            Outcome::Skipped { why } => {
                text.push_str(&format!("  {} {name} skipped: {why}\n", self.dim("–")));
            }
            Outcome::Failed { trouble, cause, steps } => {
                text.push_str(&format!("  {} {name} {}\n\n", self.red("✗"), stage.requirement));
                for (index, step) in steps.iter().enumerate() {
                    paragraph(text, &format!("    {:>2}. ", index + 1), step);
                }
                text.push('\n');
                text.push_str(&format!("      expected  {}\n", trouble.expected));
                text.push_str(&format!("      received  {}\n", trouble.received));
                if let Some(caret) = trouble.caret {
                    let caret = format!("{}^", " ".repeat(caret));
                    text.push_str(&format!("                {}\n", self.red(&caret)));
                }
                text.push('\n');
                paragraph(text, "      likely    ", cause);
                text.push_str(&format!("      read      chapter {}, {}\n", stage.chapter.number, stage.chapter.page()));
                text.push_str(&format!("      repeat    {} --stage {}\n\n", self.again, stage.name));
            }
        }
    }

    /// The last line. How many stages failed.
    pub(crate) fn end(&self, out: &mut impl Write) -> usize {
        if self.json {
            let object = json!({
                "address": self.address,
                "seed": self.seed,
                "repeat": self.again,
                "stages": self.stages,
                "passed": self.passed,
                "failed": self.failed,
                "skipped": self.skipped,
                "next": self.next().map(|chapter| chapter.slug),
            });
            let _ = writeln!(out, "{object:#}");
        } else {
            let next = match self.next() {
                None => String::new(),
                Some(chapter) => format!("; next: chapter {}, {}", chapter.number, chapter.page()),
            };
            let counts = format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
            let counts = if self.failed > 0 { self.red(&counts) } else { self.green(&counts) };
            let _ = writeln!(out, "\n{counts}{next}");
        }
        let _ = out.flush();
        self.failed
    }

    /// Where to go on reading: at the first failure, else behind what is known by now.
    fn next(&self) -> Option<Chapter> {
        self.first_failed.or_else(|| self.last_passed.and_then(Chapter::next))
    }

    fn red(&self, text: &str) -> String {
        self.coloured("31", text)
    }

    fn green(&self, text: &str) -> String {
        self.coloured("32", text)
    }

    fn dim(&self, text: &str) -> String {
        self.coloured("2", text)
    }

    fn coloured(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Text in lines of a readable length, indented like its first line.
fn paragraph(text: &mut String, lead: &str, words: &str) {
    let indent = " ".repeat(columns(lead));
    let mut line = lead.to_owned();
    let mut is_empty = true;
    // Only single spaces are broken at; what was sent is shown as it was.
    for word in words.split(' ') {
        if !is_empty && columns(&line) + 1 + columns(word) > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text.push_str(&line);
    text.push('\n');
}

fn as_json(judged: &Judged) -> Value {
    let stage = judged.stage;
    let mut object = json!({
        "name": stage.name,
        "chapter": stage.chapter.slug,
        "requirement": stage.requirement,
        "took_ms": judged.took.as_millis() as u64,
    });
    let more = match &judged.outcome {
        Outcome::Passed { note } => json!({ "outcome": "passed", "note": note }),
        Outcome::Skipped { why } => json!({ "outcome": "skipped", "why": why }),
        Outcome::Failed { trouble, cause, steps } => json!({
            "outcome": "failed",
            "steps": steps,
            "expected": trouble.expected,
            "received": trouble.received,
            "symptom": format!("{:?}", trouble.symptom).to_lowercase(),
            "caret": trouble.caret,
            "cause": cause,
            "page": stage.chapter.page(),
        }),
    };
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

/// The stages, for a person.
pub(crate) fn list(out: &mut impl Write, stages: &[&Stage]) -> io::Result<()> {
    let mut chapter = None;
    for stage in stages {
        if chapter != Some(stage.chapter) {
            chapter = Some(stage.chapter);
            writeln!(out, "{}", stage.chapter.slug)?;
        }
        writeln!(out, "  {:NAMES$} {}", stage.name, stage.requirement)?;
    }
    Ok(())
}

/// The stages, for a machine.
pub(crate) fn list_json(out: &mut impl Write, stages: &[&Stage]) -> io::Result<()> {
    let stages: Vec<Value> = stages
        .iter()
        .map(|stage| json!({ "name": stage.name, "chapter": stage.chapter.slug, "requirement": stage.requirement }))
        .collect();
    writeln!(out, "{:#}", json!({ "stages": stages }))
}
