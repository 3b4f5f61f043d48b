//! The form of the book: its chapters are whole, its links lead somewhere, and no part of a program is left
//! without a word.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::book::Finding;
use crate::markdown::{Heading, Image, Page};
use crate::quotes::{anchors, quotes_of};

/// The headings of a chapter, in their order, and the first chapter that must have each.
const HEADINGS: [(&str, usize); 7] = [
    ("What broke", 2),
    ("What happened", 4),
    ("The smallest change", 4),
    ("Run it", 4),
    ("Check it", 4),
    ("Try it", 1),
    ("Still broken", 1),
];

/// How many lines a chapter has.
const LENGTH: std::ops::RangeInclusive<usize> = 120..=300;

/// How much an alternative text must say.
const ALT: usize = 20;

pub(crate) fn check(root: &Path, page: &Page) -> Vec<Finding> {
    let mut findings = dead_links(root, page);
    findings.extend(page.images.iter().filter(|image| image.alt.chars().count() <= ALT).map(without_words));
    if page.path.ends_with("en/README.md") || page.path.ends_with("en/SUMMARY.md") {
        findings.extend(left_out(page));
    }
    let Some(chapter) = chapter(page) else { return findings };
    if chapter >= 1 {
        findings.extend(headings(page, chapter));
        findings.extend(without_a_transcript(page));
        if !LENGTH.contains(&page.lines.len()) {
            let text = format!(
                "a chapter has {} to {} lines; this one has {}",
                LENGTH.start(),
                LENGTH.end(),
                page.lines.len()
            );
            findings.push(Finding::wrong(1, text));
        }
        findings.extend(unquoted(root, page, chapter));
    }
    findings
}

/// Pages that a list of the pages does not link to.
fn left_out(page: &Page) -> Vec<Finding> {
    let linked: BTreeSet<&str> = page.links.iter().map(|link| link.target.as_str()).collect();
    let folder = fs::read_dir(page.path.parent().unwrap()).unwrap();
    let mut names: Vec<String> = folder.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".md") && name != "README.md" && name != "SUMMARY.md");
    names.sort();
    let missing = names.iter().filter(|name| !linked.contains(name.as_str()));
    missing.map(|name| Finding::wrong(page.lines.len(), format!("{name} is not in this list"))).collect()
}

/// The number that the file's name begins with.
fn chapter(page: &Page) -> Option<usize> {
    let name = page.path.file_name()?.to_str()?;
    let (number, _) = name.split_once('-')?;
    if number.len() == 2 { number.parse().ok() } else { None }
}

fn without_words(image: &Image) -> Finding {
    Finding::wrong(image.line, format!("what does {} show? Its alternative text should say it", image.target))
}

/// In English; a page in another language is compared with it.
fn headings(page: &Page, chapter: usize) -> Vec<Finding> {
    let is_english = page.path.parent().is_some_and(|folder| folder.ends_with("en"));
    if !is_english {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut last: Option<&Heading> = None;
    for (name, since) in HEADINGS {
        let found = page.headings.iter().find(|heading| heading.level == 2 && begins(&heading.text, name));
        match (found, last) {
            (None, _) if chapter >= since => {
                findings.push(Finding::wrong(page.lines.len(), format!("a chapter has a heading `## {name}`")));
            }
            (Some(heading), Some(before)) if heading.line < before.line => {
                let text = format!("`{}` comes after `{}`", heading.text, before.text);
                findings.push(Finding::wrong(heading.line, text));
            }
            _ => {}
        }
        last = found.or(last);
    }
    findings
}

/// The failures that a chapter begins and ends with are seen in a terminal, not only told.
fn without_a_transcript(page: &Page) -> Vec<Finding> {
    let mut sections = page.headings.iter().filter(|heading| heading.level == 2).peekable();
    let mut findings = Vec::new();
    while let Some(section) = sections.next() {
        if section.text != "What broke" && section.text != "Still broken" {
            continue;
        }
        let end = sections.peek().map_or(usize::MAX, |next| next.line);
        let mut fences = page.fences.iter().filter(|fence| (section.line..end).contains(&fence.line));
        if !fences.any(|fence| fence.tag == "console") {
            findings
                .push(Finding::wrong(section.line, format!("`{}` shows no terminal in which it fails", section.text)));
        }
    }
    findings
}

fn begins(text: &str, name: &str) -> bool {
    text.trim_start_matches(|c: char| c.is_ascii_digit() || ". ".contains(c))
        .to_lowercase()
        .starts_with(&name.to_lowercase())
}

/// Anchors of the chapter's program that its page does not quote.
fn unquoted(root: &Path, page: &Page, chapter: usize) -> Vec<Finding> {
    let quoted: BTreeSet<&str> = quotes_of(page).collect();
    let start = format!("ch{chapter:02}_");
    let mut findings = Vec::new();
    let Ok(programs) = fs::read_dir(root.join("src/bin")) else { return findings };
    for program in programs {
        let path = program.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with(&start) || !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for anchor in anchors(&text) {
            let quote = format!("src/bin/{name}#{anchor}");
            if !quoted.contains(quote.as_str()) {
                findings.push(Finding::wrong(page.lines.len(), format!("{quote} is quoted nowhere in its chapter")));
            }
        }
    }
    findings
}

fn dead_links(root: &Path, page: &Page) -> Vec<Finding> {
    let mut findings = Vec::new();
    for link in &page.links {
        let target = link.target.as_str();
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, place) = target.split_once('#').map_or((target, None), |(file, place)| (file, Some(place)));
        let path = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
        if !path.exists() {
            // A picture is drawn if it is not there.
            if !page.images.iter().any(|image| image.target == target && !image.comments.is_empty()) {
                findings.push(Finding::wrong(link.line, format!("{target} does not exist")));
            }
            continue;
        }
        let Some(place) = place.filter(|_| file.is_empty() || file.ends_with(".md")) else { continue };
        let there = Page::read(root, &path).map(|there| there.headings).unwrap_or_default();
        if !there.iter().any(|heading| slug(&heading.text) == place) {
            findings.push(Finding::wrong(link.line, format!("{target}: there is no such heading")));
        }
    }
    findings
}

/// The name that code hosts, and mdBook, give to a heading.
fn slug(text: &str) -> String {
    let kept = text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}
