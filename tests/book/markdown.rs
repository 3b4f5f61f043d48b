//! A page: its fences, headings, pictures and links, each with its place.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

/// A page of the book.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    /// Its path below the root, as messages say it.
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
    pub(crate) fences: Vec<Fence>,
    pub(crate) headings: Vec<Heading>,
    pub(crate) images: Vec<Image>,
    pub(crate) links: Vec<Link>,
    /// The programs that its consoles need, besides those of the book.
    pub(crate) needs: Vec<Need>,
}

/// A block of code, of a console, of text.
pub(crate) struct Fence {
    /// The word after the three backticks.
    pub(crate) tag: String,
    /// The comments above it, in their order.
    pub(crate) comments: Vec<Comment>,
    /// The line of its opening, counted from 1.
    pub(crate) line: usize,
    /// The lines between opening and closing, counted from 0.
    pub(crate) body: Range<usize>,
    /// What stands before the backticks; inside a list, spaces.
    pub(crate) indent: String,
    /// Its lines, without that.
    pub(crate) text: Vec<String>,
}

/// `<!-- key: value -->`, on lines of its own.
pub(crate) struct Comment {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// `<!-- needs: PROGRAM -->`
pub(crate) struct Need {
    pub(crate) program: String,
    pub(crate) line: usize,
}

pub(crate) struct Heading {
    pub(crate) level: usize,
    pub(crate) text: String,
    pub(crate) line: usize,
}

pub(crate) struct Image {
    pub(crate) alt: String,
    pub(crate) target: String,
    pub(crate) line: usize,
    /// The comments below it.
    pub(crate) comments: Vec<Comment>,
}

pub(crate) struct Link {
    pub(crate) target: String,
    pub(crate) line: usize,
}

impl Fence {
    /// The value of the comment with this key.
    pub(crate) fn comment(&self, key: &str) -> Option<&str> {
        self.comments.iter().find(|comment| comment.key == key).map(|comment| comment.value.as_str())
    }
}

impl Page {
    pub(crate) fn read(root: &Path, path: &Path) -> Result<Page, String> {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        let mut page = Page {
            path: path.to_owned(),
            name,
            lines: text.lines().map(str::to_owned).collect(),
            fences: Vec::new(),
            headings: Vec::new(),
            images: Vec::new(),
            links: Vec::new(),
            needs: Vec::new(),
        };
        page.scan()?;
        Ok(page)
    }

    fn scan(&mut self) -> Result<(), String> {
        let image = pattern(r"!\[([^\]]*)\]\(([^)\s]+)\)");
        let link = pattern(r"\]\(<?([^)\s>]+)");
        let code_span = pattern(r"`[^`]*`");
        let mut comments = Vec::new();
        // The picture that a comment may belong to.
        let mut above: Option<usize> = None;
        let mut at = 0;
        while at < self.lines.len() {
            let line = self.lines[at].trim_start().to_owned();
            let number = at + 1;
            if let Some(ticks) = opening(&line) {
                let fence = self.fence(at, ticks, std::mem::take(&mut comments))?;
                at = fence.body.end + 1;
                self.fences.push(fence);
                above = None;
                continue;
            }
            at += 1;
            if line.starts_with("<!--") {
                let mut text = line;
                while !text.contains("-->") {
                    let Some(more) = self.lines.get(at) else {
                        return Err(format!("{}:{number}: this comment has no end", self.name));
                    };
                    text = text + " " + more.trim();
                    at += 1;
                }
                let inside = text.trim_start_matches("<!--").split("-->").next().unwrap_or_default().trim();
                let (key, value) = inside.split_once(':').unwrap_or((inside, ""));
                let comment = |key: &str, value: &str| Comment { key: key.trim().into(), value: value.trim().into() };
                if key.trim() == "needs" {
                    self.needs.push(Need { program: value.trim().to_owned(), line: number });
                }
                if let Some(image) = above {
                    self.images[image].comments.push(comment(key, value));
                }
                comments.push(comment(key, value));
                continue;
            }
            if line.is_empty() {
                continue;
            }
            comments.clear();
            above = None;
            if let Some(heading) = heading(&line, number) {
                self.headings.push(heading);
            }
            let prose = code_span.replace_all(&line, "``");
            for found in image.captures_iter(&prose) {
                above = Some(self.images.len());
                let alt = code_span.find(&line).map_or(&found[1], |_| between_brackets(&line));
                self.images.push(Image {
                    alt: alt.to_owned(),
                    target: found[2].to_owned(),
                    line: number,
                    comments: Vec::new(),
                });
            }
            for found in link.captures_iter(&prose) {
                self.links.push(Link { target: found[1].to_owned(), line: number });
            }
        }
        Ok(())
    }

    fn fence(&self, at: usize, ticks: usize, comments: Vec<Comment>) -> Result<Fence, String> {
        let first = &self.lines[at];
        let indent = first[..first.len() - first.trim_start().len()].to_owned();
        let mark = first.trim_start()[..ticks].to_owned();
        let closes = |line: &String| line.trim().starts_with(&mark) && line.trim().chars().all(|c| mark.contains(c));
        let Some(length) = self.lines[at + 1..].iter().position(closes) else {
            return Err(format!("{}:{}: this block has no end", self.name, at + 1));
        };
        let body = at + 1..at + 1 + length;
        let text = self.lines[body.clone()].iter().map(|line| line.strip_prefix(&indent).unwrap_or(line).to_owned());
        Ok(Fence {
            tag: first.trim()[ticks..].trim().to_owned(),
            comments,
            line: at + 1,
            text: text.collect(),
            body,
            indent,
        })
    }
}

/// How many backticks or tildes open a block here.
fn opening(line: &str) -> Option<usize> {
    let mark = line.chars().next().filter(|mark| "`~".contains(*mark))?;
    let count = line.chars().take_while(|&c| c == mark).count();
    (count >= 3 && !line[count..].contains('`')).then_some(count)
}

fn heading(line: &str, number: usize) -> Option<Heading> {
    let level = line.chars().take_while(|&c| c == '#').count();
    let text = line[level..].strip_prefix(' ')?;
    (1..=6).contains(&level).then(|| Heading { level, text: text.trim().to_owned(), line: number })
}

fn between_brackets(line: &str) -> &str {
    line.split_once("![").and_then(|(_, rest)| rest.split_once("](")).map_or("", |(alt, _)| alt)
}

/// A pattern of ours, which is right.
pub(crate) fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}
