//! The book says what is so: its code is in the sources, its transcripts are those of the programs, its
//! pictures are drawn from runs, and its chapters are whole.
//!
//! A page says where its parts come from, in comments above them:
//!
//! | above | comment | promise |
//! |---|---|---|
//! | code | `<!-- code: src/bin/ch04_reply.rs#accept -->` | equal to the file, or to the part between its anchors |
//! | code | also `<!-- sketch: why -->` | the file is in `tests/sketches`, compiled and run there |
//! | `console` | `<!-- run: TERMINAL -->` | the commands print this |
//! | `console` | `<!-- run: TERMINAL, keeps running -->` | the blocks after it don't wait for its end |
//! | picture, below it | `<!-- figure: PROGRAM; … -->` | drawn from a run of it: see `figures.rs` |
//! | `diff` | `<!-- diff: OLD NEW -->` | the difference between two files or parts |
//! | not Rust | `<!-- not run: why -->` | none |
//!
//! Refresh the pages with `UPDATE=1 cargo test --test book`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod commands;
mod consoles;
mod diffs;
mod drawing;
mod figures;
mod guards;
mod markdown;
mod normalise;
mod quotes;
mod run;
mod shape;
mod terminal;

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use crate::markdown::{Fence, Image, Page};

const REFRESH: &str = "UPDATE=1 cargo test --test book";

/// Pages that neither quote nor run anything, and why.
const PROSE_ONLY: &[(&str, &str)] = &[
    ("README.md", "it says what the chapters promise"),
    ("SUMMARY.md", "it lists the pages, for mdBook"),
    ("glossary.md", "it explains words"),
    ("node.md", "its calls are other programs'"),
];

#[test]
fn the_book_says_what_is_so() {
    let book = Book { root: PathBuf::from(env!("CARGO_MANIFEST_DIR")), programs: programs() };
    let report = book.check(std::env::var_os("UPDATE").is_some());
    for page in &report.rewritten {
        eprintln!("rewritten: {page}");
    }
    assert!(report.problems.is_empty(), "\n{}", report.problems.join("\n"));
}

/// Where the built programs are.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_socket-steps")).parent().unwrap().to_owned()
}

/// A folder with `tutorial/` and the sources that its pages quote.
struct Book {
    root: PathBuf,
    programs: PathBuf,
}

#[derive(Default, Debug)]
struct Report {
    problems: Vec<String>,
    rewritten: Vec<String>,
    /// How many consoles were run.
    consoles: usize,
    /// How many quotes and differences were compared.
    quotes: usize,
}

/// Something that a page has and should not have.
#[derive(Debug)]
enum Finding {
    /// Only a person can mend it.
    Wrong { line: usize, text: String },
    /// `UPDATE` mends it: these lines should be others.
    Stale { line: usize, text: String, body: Range<usize>, now: Vec<String> },
    /// `UPDATE` mends it: this file should have this text.
    StaleFile { line: usize, text: String, path: PathBuf, now: String },
}

impl Finding {
    fn wrong(line: usize, text: String) -> Finding {
        Finding::Wrong { line, text }
    }

    fn stale(fence: &Fence, what: &str, now: Vec<String>) -> Finding {
        let text = format!("{what} is not what the page says:\n{}", diffs::shown(&fence.text, &now));
        let now =
            now.iter().map(|line| if line.is_empty() { String::new() } else { format!("{}{line}", fence.indent) });
        Finding::Stale { line: fence.line, text, body: fence.body.clone(), now: now.collect() }
    }
}

impl Book {
    /// Checks all pages, a few at a time; with `update`, mends what can be mended.
    fn check(&self, update: bool) -> Report {
        let mut paths = Vec::new();
        markdown_files(&self.root.join("tutorial"), &mut paths);
        paths.sort();
        let paths = Mutex::new(paths.into_iter());
        let report = Mutex::new(Report::default());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(path) = { paths.lock().unwrap().next() } {
                        let of_page = self.check_page(&path, update);
                        report.lock().unwrap().add(of_page);
                    }
                });
            }
        });
        let mut report = report.into_inner().unwrap();
        report.problems.sort();
        report.problems.extend(quotes::check_sketches(&self.root));
        if report.consoles == 0 {
            report.problems.push("not one console was run: this cannot be the book".into());
        }
        report
    }

    fn check_page(&self, path: &Path, update: bool) -> Report {
        let mut report = Report::default();
        let page = match Page::read(&self.root, path) {
            Ok(page) => page,
            Err(problem) => {
                report.problems.push(problem);
                return report;
            }
        };
        let findings = self.findings(&page, update, &mut report);
        let is_prose = PROSE_ONLY.iter().any(|(name, _)| path.file_name().is_some_and(|file| file == *name));
        if report.consoles + report.quotes == 0 && findings.is_empty() && !is_prose {
            report.problems.push(format!("{}: it quotes nothing and runs nothing", page.name));
        }
        let mut lines = page.lines.clone();
        let mut is_stale = false;
        for finding in findings.into_iter().rev() {
            match finding {
                Finding::Wrong { line, text } => report.problems.push(format!("{}:{line}: {text}", page.name)),
                Finding::Stale { body, now, .. } if update => {
                    lines.splice(body, now);
                    is_stale = true;
                }
                Finding::StaleFile { path, now, .. } if update => {
                    replace_file(&path, &now);
                    report.rewritten.push(path.strip_prefix(&self.root).unwrap_or(&path).display().to_string());
                }
                Finding::Stale { line, text, .. } | Finding::StaleFile { line, text, .. } => {
                    report.problems.push(format!("{}:{line}: {text}refresh the page with {REFRESH}\n", page.name));
                }
            }
        }
        if is_stale {
            replace_file(path, &(lines.join("\n") + "\n"));
            report.rewritten.push(page.name);
        }
        report
    }

    /// What is not so in a page, in the order of its lines.
    fn findings(&self, page: &Page, update: bool, report: &mut Report) -> Vec<Finding> {
        let mut findings = Vec::new();
        for fence in &page.fences {
            match fence.tag.as_str() {
                "console" => {}
                "diff" => {
                    report.quotes += 1;
                    findings.extend(diffs::check(&self.root, fence).err());
                }
                "text" if fence.text.iter().any(|line| line.starts_with("$ ")) => {
                    findings
                        .push(Finding::wrong(fence.line, "a block of text with a command: make it a console".into()));
                }
                "text" => {}
                "" => findings.push(Finding::wrong(
                    fence.line,
                    "a block without a tag: say what it is, such as ```console or ```text".into(),
                )),
                _ if quotes::is_code(fence) => match quotes::check(&self.root, fence) {
                    Ok(is_quote) => report.quotes += usize::from(is_quote),
                    Err(finding) => {
                        report.quotes += 1;
                        findings.push(finding);
                    }
                },
                tag => findings.push(Finding::wrong(fence.line, format!("a block of {tag:?}, which nothing checks"))),
            }
        }
        for section in consoles::sections(self, page) {
            match section {
                Ok(section) => {
                    report.consoles += section.blocks.len();
                    findings.extend(run::section(self, &section, update));
                }
                Err(finding) => findings.push(finding),
            }
        }
        findings.extend(page.images.iter().filter_map(|image| self.figure(page, image).err()));
        findings.extend(shape::check(&self.root, page));
        findings.sort_by_key(Finding::line);
        findings
    }
}

impl Book {
    /// A picture of ours is what is drawn from a run now.
    fn figure(&self, page: &Page, image: &Image) -> Result<(), Finding> {
        let wrong = |text: String| Finding::wrong(image.line, text);
        let Some(comment) = image.comments.iter().find(|comment| comment.key == "figure") else {
            return match image.target.starts_with("figures/") {
                true => Err(wrong(format!("{} is not drawn: put <!-- figure: PROGRAM --> below it", image.target))),
                false => Ok(()),
            };
        };
        let now = figures::draw(self, &comment.value, &image.alt).map_err(wrong)?;
        let path = page.path.parent().unwrap().join(&image.target);
        let text = match fs::read_to_string(&path) {
            Ok(old) if old == now => return Ok(()),
            Ok(_) => format!("{} is not what its run looks like; ", image.target),
            Err(_) => format!("{} does not exist; ", image.target),
        };
        Err(Finding::StaleFile { line: image.line, text, path, now })
    }
}

impl Finding {
    fn line(&self) -> usize {
        match self {
            Finding::Wrong { line, .. } | Finding::Stale { line, .. } | Finding::StaleFile { line, .. } => *line,
        }
    }
}

impl Report {
    fn add(&mut self, other: Report) {
        self.problems.extend(other.problems);
        self.rewritten.extend(other.rewritten);
        self.consoles += other.consoles;
        self.quotes += other.quotes;
    }
}

fn markdown_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// All of the new text, or the old file.
fn replace_file(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut new = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    new.write_all(text.as_bytes()).unwrap();
    if let Ok(old) = fs::metadata(path) {
        fs::set_permissions(new.path(), old.permissions()).unwrap();
    }
    new.persist(path).unwrap();
}
