//! Code in a page is code in a file: equal to it, character by character.

use std::fs;
use std::path::Path;

use crate::book::Finding;
use crate::markdown::{Fence, Page};

/// Blocks of these languages are quotes.
const LANGUAGES: [&str; 10] = ["rust", "rs", "toml", "js", "javascript", "python", "c", "bash", "sh", "html"];

pub(crate) fn is_code(fence: &Fence) -> bool {
    LANGUAGES.contains(&fence.tag.as_str())
}

/// Compares a quote with its source. `Ok(true)` if it quotes.
pub(crate) fn check(root: &Path, fence: &Fence) -> Result<bool, Finding> {
    let wrong = |text: String| Finding::wrong(fence.line, text);
    let is_rust = matches!(fence.tag.as_str(), "rust" | "rs");
    if fence.comment("sketch").is_some_and(str::is_empty) {
        return Err(wrong("a sketch says what it is: <!-- sketch: the tempting version -->".into()));
    }
    let Some(source) = fence.comment("code") else {
        return match fence.comment("not run") {
            Some(reason) if !is_rust && !reason.is_empty() => Ok(false),
            _ => {
                let or = if is_rust { "" } else { ", or <!-- not run: why -->" };
                Err(wrong(format!(
                    "a block of {} without its source: put <!-- code: PATH#ANCHOR --> above it{or}",
                    fence.tag
                )))
            }
        };
    };
    if fence.comment("sketch").is_some() && !source.starts_with("tests/sketches/") {
        return Err(wrong(format!("a sketch is quoted from tests/sketches/, where it is compiled, not from {source}")));
    }
    let now = region(root, source).map_err(wrong)?;
    if now == fence.text {
        return Ok(true);
    }
    Err(Finding::stale(fence, &format!("the quote of {source}"), now))
}

/// The lines of `PATH` or of `PATH#ANCHOR`, without indentation that all of them have, and without anchors.
pub(crate) fn region(root: &Path, source: &str) -> Result<Vec<String>, String> {
    let (path, anchor) = source.split_once('#').map_or((source, None), |(path, anchor)| (path, Some(anchor)));
    let text = fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
    let mut lines: Vec<&str> = text.lines().collect();
    if let Some(name) = anchor {
        let place = |mark: &str| {
            let found = lines.iter().position(|line| anchor_of(line, mark) == Some(name));
            found.ok_or_else(|| format!("{path} has no `// {mark}: {name}`"))
        };
        let (first, last) = (place("ANCHOR")?, place("ANCHOR_END")?);
        if last < first {
            return Err(format!("{path}: the anchor {name} ends before it begins"));
        }
        lines = lines[first + 1..last].to_vec();
    }
    lines.retain(|line| !is_anchor(line));
    let indent = lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indentation(line)).min().unwrap_or(0);
    let mut lines: Vec<String> = lines.iter().map(|line| line.get(indent..).unwrap_or_default().to_owned()).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let first = lines.iter().position(|line| !line.is_empty()).unwrap_or(0);
    Ok(lines.split_off(first))
}

/// The anchors that a file has.
pub(crate) fn anchors(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| anchor_of(line, "ANCHOR")).collect()
}

fn anchor_of<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let comment = line.trim().trim_start_matches(['/', '#']).trim_start();
    Some(comment.strip_prefix(mark)?.strip_prefix(':')?.trim())
}

fn is_anchor(line: &str) -> bool {
    anchor_of(line, "ANCHOR").is_some() || anchor_of(line, "ANCHOR_END").is_some()
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// A sketch must be compiled and run: each file is a module of the sketches' tests, and has a test.
pub(crate) fn check_sketches(root: &Path) -> Vec<String> {
    let folder = root.join("tests/sketches");
    let Ok(main) = fs::read_to_string(folder.join("main.rs")) else { return Vec::new() };
    let mut problems = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name == "main" || path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        if !main.lines().any(|line| line.trim() == format!("mod {name};")) {
            problems
                .push(format!("tests/sketches/{name}.rs is not compiled: tests/sketches/main.rs has no `mod {name};`"));
        }
        if !fs::read_to_string(&path).unwrap().contains("#[test]") {
            problems.push(format!("tests/sketches/{name}.rs is not run: it has no test"));
        }
    }
    problems
}

pub(crate) fn quotes_of(page: &Page) -> impl Iterator<Item = &str> {
    page.fences.iter().flat_map(|fence| &fence.comments).flat_map(|comment| match comment.key.as_str() {
        "code" | "diff" => comment.value.split_whitespace().collect::<Vec<_>>(),
        _ => Vec::new(),
    })
}
