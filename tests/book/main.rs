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
//! | picture, below it | `<!-- not drawn: why -->` | none: a photograph of a screen, say |
//! | `diff` | `<!-- diff: OLD NEW -->` | the difference between two files or parts |
//! | not Rust | `<!-- not run: why -->` | none |
//! | anything before the first `##` | `<!-- needs: PROGRAM -->` | the page's consoles are run where that program is installed |
//! | anything below a heading | the same | so are those of this section |
//!
//! Refresh the pages with `UPDATE=1 cargo test --test book`. With `PAGE=07-pool`, only the pages with such a path are
//! looked at: it does not prove the book, and is quick while one writes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod book;
mod commands;
mod consoles;
mod diffs;
mod drawing;
mod figures;
mod guards;
mod layout;
mod markdown;
mod normalise;
mod paths;
mod ports;
mod quotes;
mod run;
mod shape;
#[path = "../support/mod.rs"]
mod support;
mod terminal;

use std::path::{Path, PathBuf};

use crate::book::Book;
use crate::support::needs::skip;

#[test]
fn the_book_says_what_is_so() {
    let mut book = Book::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")), programs());
    book.only = std::env::var("PAGE").unwrap_or_default();
    let report = book.check(std::env::var_os("UPDATE").is_some());
    for (missing, place) in &report.skipped {
        skip(missing, place);
    }
    for page in &report.rewritten {
        eprintln!("rewritten: {page}");
    }
    assert!(report.problems.is_empty(), "\n{}", report.problems.join("\n"));
}

/// Where the built programs are.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_socket-steps")).parent().unwrap().to_owned()
}
