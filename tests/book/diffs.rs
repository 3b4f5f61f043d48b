//! What changed from one chapter to the next, and how a difference is shown.

use std::path::Path;

use similar::{ChangeTag, TextDiff};

use crate::book::Finding;
use crate::markdown::Fence;
use crate::quotes::region;

/// How many lines around a change are shown.
const AROUND: usize = 2;

/// Compares a `diff` block with the difference between its two sources.
pub(crate) fn check(root: &Path, fence: &Fence) -> Result<(), Finding> {
    let wrong = |text: String| Finding::wrong(fence.line, text);
    let sources = fence.comment("diff").map(|value| value.split_whitespace().collect::<Vec<_>>());
    let Some([old, new]) = sources.as_deref() else {
        return Err(wrong("a block of diff without its sources: put <!-- diff: OLD NEW --> above it".into()));
    };
    let now = difference(&region(root, old).map_err(wrong)?, &region(root, new).map_err(wrong)?);
    if now.is_empty() {
        return Err(wrong(format!("{old} and {new} are the same")));
    }
    if now == fence.text {
        return Ok(());
    }
    Err(Finding::stale(fence, &format!("the difference between {old} and {new}"), now))
}

/// Unified, with the function that each part is in instead of line numbers, which nobody follows.
fn difference(old: &[String], new: &[String]) -> Vec<String> {
    let (old_text, new_text) = (old.join("\n") + "\n", new.join("\n") + "\n");
    let diff = TextDiff::from_lines(&old_text, &new_text);
    let mut shown = Vec::new();
    for group in diff.grouped_ops(AROUND) {
        let first = group.first().map_or(0, |op| op.new_range().start);
        match new[..first].iter().rev().find(|line| is_item(line)) {
            Some(item) => shown.push(format!("@@ {} @@", item.trim_end_matches(" {"))),
            None if !shown.is_empty() => shown.push("@@ @@".to_owned()),
            None => {}
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            shown.push(format!("{sign}{}", change.value().trim_end_matches('\n')).trim_end().to_owned());
        }
    }
    shown
}

fn is_item(line: &str) -> bool {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    ["fn ", "impl ", "impl<", "struct ", "enum ", "trait ", "def ", "with "].iter().any(|word| line.starts_with(word))
}

/// What the page says (-) and what is so (+).
pub(crate) fn shown(page: &[String], now: &[String]) -> String {
    let (page, now) = (page.join("\n") + "\n", now.join("\n") + "\n");
    let diff = TextDiff::from_lines(&page, &now);
    diff.unified_diff().context_radius(2).header("the page", "now").to_string()
}
