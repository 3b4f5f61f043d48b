//! All pages, and what is not so in them.

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::consoles::Section;
use crate::markdown::{Fence, Image, Page};
use crate::{consoles, diffs, figures, normalise, quotes, run, shape};

const REFRESH: &str = "UPDATE=1 cargo test --test book";

/// Pages that neither quote nor run anything, and why.
const PROSE_ONLY: &[(&str, &str)] = &[
    ("README.md", "it says what the chapters promise"),
    ("SUMMARY.md", "it lists the pages, for mdBook"),
    ("glossary.md", "it explains words"),
    ("node.md", "its calls are other programs'"),
];

/// A folder with `tutorial/` and the sources that its pages quote.
pub(crate) struct Book {
    pub(crate) root: PathBuf,
    pub(crate) programs: PathBuf,
    /// For how long a program is waited for.
    pub(crate) bound: Duration,
    /// Only pages whose names contain this, for whoever is writing one.
    pub(crate) only: String,
    /// How many sections may run at the same time.
    turns: Turns,
}

#[derive(Default, Debug)]
pub(crate) struct Report {
    pub(crate) problems: Vec<String>,
    pub(crate) rewritten: Vec<String>,
    /// How many consoles were run.
    pub(crate) consoles: usize,
    /// How many quotes and differences were compared.
    pub(crate) quotes: usize,
    /// What was not run because a program is missing.
    pub(crate) skipped: Vec<String>,
}

/// Something that a page has and should not have.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Only a person can mend it.
    Wrong { line: usize, text: String },
    /// `UPDATE` mends it: these lines should be others.
    Stale { line: usize, text: String, body: Range<usize>, now: Vec<String> },
    /// `UPDATE` mends it: this file should have this text.
    StaleFile { line: usize, text: String, path: PathBuf, now: String },
}

impl Finding {
    pub(crate) fn wrong(line: usize, text: String) -> Finding {
        Finding::Wrong { line, text }
    }

    pub(crate) fn stale(fence: &Fence, what: &str, now: Vec<String>) -> Finding {
        let text = format!("{what} is not what the page says:\n{}", diffs::shown(&fence.text, &now));
        let now =
            now.iter().map(|line| if line.is_empty() { String::new() } else { format!("{}{line}", fence.indent) });
        Finding::Stale { line: fence.line, text, body: fence.body.clone(), now: now.collect() }
    }
}

impl Book {
    pub(crate) fn new(root: PathBuf, programs: PathBuf) -> Book {
        Book { root, programs, bound: Duration::from_secs(120), only: String::new(), turns: Turns::default() }
    }

    /// Checks all pages at the same time; with `update`, mends what can be mended.
    pub(crate) fn check(&self, update: bool) -> Report {
        let mut paths = Vec::new();
        markdown_files(&self.root.join("tutorial"), &mut paths);
        paths.retain(|path| path.display().to_string().contains(&self.only));
        paths.sort();
        let report = Mutex::new(Report::default());
        thread::scope(|scope| {
            for path in &paths {
                scope.spawn(|| {
                    let of_page = self.check_page(path, update);
                    report.lock().unwrap().add(of_page);
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
        if report.consoles + report.quotes + report.skipped.len() == 0 && findings.is_empty() && !is_prose {
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
        // Sections have nothing in common, and wait most of the time.
        thread::scope(|scope| {
            let mut running = Vec::new();
            for section in consoles::sections(self, page) {
                match section {
                    Ok(section) => {
                        let missing: Vec<&str> =
                            section.needs.iter().copied().filter(|program| !is_installed(program)).collect();
                        if !missing.is_empty() {
                            report.skipped.extend(section.blocks.iter().map(|block| {
                                let line = block.fence.line;
                                format!("{}:{line}: this needs {}", page.name, missing.join(", "))
                            }));
                            continue;
                        }
                        report.consoles += section.blocks.len();
                        running.push(scope.spawn(move || self.run(&section, update)));
                    }
                    Err(finding) => findings.push(finding),
                }
            }
            findings.extend(running.into_iter().flat_map(|section| section.join().unwrap()));
        });
        findings.extend(page.images.iter().filter_map(|image| self.figure(page, image).err()));
        findings.extend(shape::check(&self.root, page));
        findings.sort_by_key(Finding::line);
        findings
    }
}

impl Book {
    /// Runs a section. What is written is seen twice. And where the page itself counts seconds, a busy machine
    /// may be too slow for it: such a section is believed to be wrong only when it is wrong twice.
    fn run(&self, section: &Section<'_>, update: bool) -> Vec<Finding> {
        let _turn = self.turns.take();
        let findings = run::section(self, section, update);
        if findings.is_empty() || !(update || section.counts_seconds()) {
            return findings;
        }
        let mut again = run::section(self, section, update);
        if update {
            let differing: Vec<Finding> = again.iter().filter_map(|second| second.differs_from(&findings)).collect();
            again.extend(differing);
        }
        again
    }

    /// A picture of ours is what is drawn from a run now.
    fn figure(&self, page: &Page, image: &Image) -> Result<(), Finding> {
        let wrong = |text: String| Finding::wrong(image.line, text);
        let photo = image.comments.iter().find(|comment| comment.key == "not drawn");
        if photo.is_some_and(|comment| !comment.value.is_empty()) {
            return Ok(());
        }
        let Some(comment) = image.comments.iter().find(|comment| comment.key == "figure") else {
            return match image.target.starts_with("figures/") {
                true => Err(wrong(format!("{} is not drawn: put <!-- figure: PROGRAM --> below it", image.target))),
                false => Ok(()),
            };
        };
        let now = {
            let _turn = self.turns.take();
            figures::draw(self, &comment.value, &image.alt).map_err(wrong)?
        };
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
    /// What was seen once and then otherwise cannot stay as it is, although it is written.
    fn differs_from(&self, first: &[Finding]) -> Option<Finding> {
        let Finding::Stale { line, now, .. } = self else { return None };
        let before = first.iter().find_map(|finding| match finding {
            Finding::Stale { line: of, now, .. } if of == line => Some(now),
            _ => None,
        });
        let same = |before: &[String]| {
            before.len() == now.len() && before.iter().zip(now).all(|(before, now)| normalise::agree(before, now))
        };
        let before = before.filter(|before| !same(before))?;
        let difference = diffs::shown(before, now);
        Some(Finding::wrong(*line, format!("two runs differ; put [..] where they may:\n{difference}")))
    }

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
        self.skipped.extend(other.skipped);
    }
}

fn is_installed(program: &str) -> bool {
    match program {
        // It may be there, and not be allowed to look at other programs.
        "strace" => {
            Command::new(program).args(["-o", "/dev/null", "true"]).output().is_ok_and(|it| it.status.success())
        }
        _ => Command::new(program).arg("--version").output().is_ok(),
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

/// So few at a time that each has the time that it needs.
const AT_ONCE: usize = 4;

/// A turn is free, or is waited for.
#[derive(Default)]
struct Turns {
    taken: Mutex<usize>,
    given_back: Condvar,
}

struct Turn<'t>(&'t Turns);

impl Turns {
    fn take(&self) -> Turn<'_> {
        let taken = self.taken.lock().unwrap();
        let mut taken = self.given_back.wait_while(taken, |taken| *taken == AT_ONCE).unwrap();
        *taken += 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap() -= 1;
        self.0.given_back.notify_one();
    }
}
