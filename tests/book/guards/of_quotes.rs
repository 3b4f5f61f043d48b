//! Quotes, and the blocks of a page.

use std::fs;
use std::path::Path;

use super::{CONSOLE, QUOTE, SOURCE, Small, good};
use crate::book::Book;
use crate::programs;

#[test]
fn a_true_page_passes() {
    let small = Small::new(&good());
    let report = small.check(false);
    assert!(report.problems.is_empty(), "{}", report.problems.join("\n"));
    assert_eq!((report.quotes, report.consoles), (1, 3));
}

#[test]
fn a_changed_letter_in_a_quote_fails_and_is_mended() {
    Small::new(&good().replace("{name}님", "{nome}님")).is_mended_into(&good());
}

#[test]
fn what_is_indented_stays_so() {
    let indented: Vec<String> = QUOTE.lines().map(|line| format!("   {line}")).collect();
    let page = format!("# A page\n\n1. A list\n{}\n\n{CONSOLE}", indented.join("\n"));
    let small = Small::new(&page);
    assert!(small.check(false).problems.is_empty());
    Small::new(&page.replace("{name}님", "{nome}님")).is_mended_into(&page);
}

#[test]
fn a_removed_comment_fails() {
    let without = |comment: &str| good().replace(&format!("<!-- {comment} -->\n"), "");
    Small::new(&without("code: src/bin/ch99_guard.rs#greet")).fails_with("without its source");
    Small::new(&without("run: client")).fails_with("a console that is not run");
    Small::new(&good().replace("run: client", "rum: client")).fails_with("a console that is not run");
    Small::new(&good().replace("run: client", "not run:")).fails_with("a console that is not run");
}

#[test]
fn an_untagged_block_fails() {
    Small::new(&good().replace("```rust", "```")).fails_with("a block without a tag");
    Small::new(&(good() + "\n```pascal\nbegin\n```\n")).fails_with("which nothing checks");
    Small::new(&(good() + "\n```text\n$ rm -r /\n```\n")).fails_with("make it a console");
    Small::new(&(good() + "\n```text\na picture\n")).fails_with("no end");
}

#[test]
fn a_quote_of_nothing_fails() {
    Small::new(&good().replace("#greet", "#gone")).fails_with("has no `// ANCHOR: gone`");
    Small::new(&good().replace("ch99_guard.rs", "ch98_gone.rs")).fails_with("ch98_gone.rs: No such file");
}

#[test]
fn a_book_that_runs_nothing_fails() {
    Small::new(&format!("# A page\n\n{QUOTE}")).fails_with("not one console was run");
    Small::new("# A page\n\nWords.\n").fails_with("quotes nothing and runs nothing");
    let empty = tempfile::tempdir().unwrap();
    let report = Book::new(empty.path().to_owned(), programs()).check(true);
    assert_eq!(report.problems.len(), 1, "{report:?}");
}

#[test]
fn a_sketch_is_compiled_and_run_or_fails() {
    let page = good()
        .replace("<!-- code: src/bin/ch99_guard.rs", "<!-- sketch: wrong -->\n<!-- code: tests/sketches/wrong.rs");
    let small = Small::new(&page);
    small.write("tests/sketches/wrong.rs", SOURCE);
    small.write("tests/sketches/main.rs", "");
    small.fails_with("tests/sketches/wrong.rs is not compiled");
    small.fails_with("tests/sketches/wrong.rs is not run");
    small.write("tests/sketches/wrong.rs", &(SOURCE.to_owned() + "#[test]\nfn it_is_wrong() {}\n"));
    small.write("tests/sketches/main.rs", "mod wrong;\n");
    assert!(small.check(false).problems.is_empty());
    let elsewhere = good().replace("<!-- code: src", "<!-- sketch: wrong -->\n<!-- code: src");
    Small::new(&elsewhere).fails_with("a sketch is quoted from tests/sketches/");
}

#[test]
fn a_difference_is_generated() {
    let page = good() + "\n<!-- diff: src/bin/ch99_guard.rs#outer tests/new.rs -->\n```diff\n```\n";
    let small = Small::new(&page);
    small.write("tests/new.rs", &SOURCE.replace("서버", "클라이언트"));
    let difference = "\
```diff
 fn main() {
-    let name = \"서버\";
+    let name = \"클라이언트\";
     println!(\"안녕하세요, {name}님!\");
 }
```
";
    small.is_mended_into(&page.replace("```diff\n```\n", difference));
}

#[test]
fn nothing_is_left_in_the_folder_of_a_rewritten_page() {
    let small = Small::new(&good().replace("sending", "zending"));
    small.check(true);
    let files = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(files(&small.folder.path().join("tutorial/en")), 1);
}
