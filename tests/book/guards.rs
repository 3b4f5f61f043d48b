//! The guards are guarded: what they must notice, on small pages made for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::book::{Book, Report};
use crate::programs;

const SOURCE: &str = "\
// ANCHOR: outer
fn main() {
    // ANCHOR: greet
    let name = \"서버\";
    println!(\"안녕하세요, {name}님!\");
    // ANCHOR_END: greet
}
// ANCHOR_END: outer
";

const QUOTE: &str = "\
<!-- code: src/bin/ch99_guard.rs#greet -->
```rust
let name = \"서버\";
println!(\"안녕하세요, {name}님!\");
```
";

const CONSOLE: &str = "\
<!-- run: server -->
```console
$ cargo run -q --bin ch04_reply -- server
listening on 127.0.0.1:8080
```

<!-- run: client -->
```console
$ cargo run -q --bin ch04_reply -- client
client: connected
client: sending 안녕하세요, 서버님!
서버 응답: 안녕하세요, 서버님!
client: ending
```

<!-- run: server -->
```console
server: a client has connected
server: received 안녕하세요, 서버님!
server: the client has ended
^C
```
";

/// A book of one page.
struct Small {
    folder: TempDir,
}

impl Small {
    fn new(page: &str) -> Small {
        let folder = tempfile::tempdir().unwrap();
        let small = Small { folder };
        small.write("src/bin/ch99_guard.rs", SOURCE);
        small.write("tutorial/en/guard.md", page);
        small
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join(path)).unwrap()
    }

    fn check(&self, update: bool) -> Report {
        Book::new(self.folder.path().to_owned(), programs()).check(update)
    }

    #[track_caller]
    fn fails_with(&self, text: &str) {
        let report = self.check(false);
        assert!(report.problems.iter().any(|problem| problem.contains(text)), "{text:?} is not in {report:#?}");
    }

    /// The page fails, `UPDATE` mends it, and a second time finds nothing to do.
    #[track_caller]
    fn is_mended_into(&self, page: &str) {
        self.fails_with("UPDATE=1 cargo test --test book");
        assert_eq!(self.check(true).rewritten, ["tutorial/en/guard.md"]);
        assert_eq!(self.read("tutorial/en/guard.md"), page);
        let again = self.check(true);
        assert!(again.problems.is_empty() && again.rewritten.is_empty(), "{again:#?}");
    }
}

fn good() -> String {
    format!("# A page\n\n{QUOTE}\n{CONSOLE}")
}

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
fn a_changed_letter_in_a_transcript_fails_and_is_mended() {
    Small::new(&good().replace("server: received", "server: recieved")).is_mended_into(&good());
    Small::new(&good().replace("client: sending", "client: zending")).is_mended_into(&good());
}

#[test]
fn transcripts_are_written_where_there_are_none() {
    let page = good();
    let empty: Vec<&str> = page
        .lines()
        .filter(|line| !["client: ", "server: ", "listening", "서버 응답"].iter().any(|start| line.starts_with(start)))
        .collect();
    Small::new(&(empty.join("\n") + "\n")).is_mended_into(&page);
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
fn a_server_that_the_page_does_not_end_fails() {
    Small::new(&good().replace("^C\n", "")).fails_with("still runs where its section ends");
}

#[test]
fn a_hang_says_so() {
    let page = good() + "\n<!-- run: reader -->\n```console\n$ echo begun; sleep 600\nbegun\n```\n";
    let small = Small::new(&page);
    let mut book = Book::new(small.folder.path().to_owned(), programs());
    book.bound = Duration::from_secs(2);
    let report = book.check(false);
    assert!(report.problems.iter().any(|problem| problem.contains("it hangs")), "{report:#?}");
}

#[test]
fn who_is_served_and_who_waits_is_run_as_it_reads() {
    let page = "\
# A page

<!-- run: server -->
```console
$ cargo run -q --bin ch04_reply -- server
listening on 127.0.0.1:8080
server: a client has connected
server: the client has ended
server: a client has connected
server: the client has ended
^C
```

<!-- run: silent -->
```console
$ sleep 60 | cargo run -q --bin talk
```

<!-- run: second -->
```console
$ timeout 1 cargo run -q --bin talk </dev/null || echo 'no answer'
no answer
$ cargo run -q --bin ch04_reply -- server
Error: Os { code: 98, kind: AddrInUse, message: \"Address already in use\" }
```

## The port is free again

<!-- run: second -->
```console
$ cargo run -q --bin talk
talk: cannot connect to 127.0.0.1:8080: Connection refused
```

<!-- run: server -->
```console
$ cargo run -q --bin ch04_reply -- server
listening on 127.0.0.1:8080
^C
$ echo the shell is back
the shell is back
```

<!-- run: others, keeps running -->
```console
$ cat /dev/zero | head -c 1 | wc -c
[..]
```
";
    let report = Small::new(page).check(false);
    assert!(report.problems.is_empty(), "{}", report.problems.join("\n"));
    assert_eq!(report.consoles, 6);
}

#[test]
fn a_continuation_needs_something_that_goes_on() {
    Small::new(&good().replacen("run: server", "run: servant", 1))
        .fails_with("nothing runs in the terminal \"server\"");
    Small::new(&good().replace("run: client", "run: client, upside down")).fails_with("cannot be \"upside down\"");
    let early = good().replace("listening on 127.0.0.1:8080\n", "listening on 127.0.0.1:8080\n^C\n");
    Small::new(&early).fails_with("after ^C the terminal \"server\" runs nothing");
}

const FIGURE: &str = "
![A greeting goes across, and an answer comes back](figures/greeting.svg)

<!-- figure: ch04_reply; to: \"the client has ended\"; arrows: \"sending\" -> \"received\" -->
";

#[test]
fn a_missing_or_changed_figure_fails_and_is_drawn() {
    let small = Small::new(&(good() + FIGURE));
    small.fails_with("figures/greeting.svg does not exist");
    assert_eq!(small.check(true).rewritten, ["tutorial/en/figures/greeting.svg"]);
    let drawn = small.read("tutorial/en/figures/greeting.svg");
    assert!(drawn.contains("sending 안녕하세요") && drawn.contains("<title>A greeting goes across"), "{drawn}");
    let report = small.check(true);
    assert!(report.problems.is_empty() && report.rewritten.is_empty(), "{report:#?}");
    small.write("tutorial/en/figures/greeting.svg", &drawn.replace("sending", "zending"));
    small.fails_with("figures/greeting.svg is not what its run looks like");
}

#[test]
fn a_figure_has_words_and_a_run() {
    let page = good() + FIGURE;
    Small::new(&page.replace("A greeting goes across, and an answer comes back", "A greeting"))
        .fails_with("alternative text");
    Small::new(&page.replace("<!-- figure", "<!-- figurine")).fails_with("is not drawn");
    Small::new(&page.replace("-> \"received\"", "-> \"perceived\"")).fails_with("no lane says \"sending\"");
}

#[test]
fn a_dead_link_fails() {
    let page = |link: &str| good() + &format!("\nSee [there]({link}), and not `[here](gone.md)`.\n");
    for (link, problem) in [
        ("gone.md", "gone.md does not exist"),
        ("../../src/bin/gone.rs", "gone.rs does not exist"),
        ("#nowhere", "there is no such heading"),
        ("guard.md#nowhere", "there is no such heading"),
    ] {
        Small::new(&page(link)).fails_with(problem);
    }
    for link in ["guard.md#a-page", "#a-page", "../../src/bin/ch99_guard.rs", "https://example.org/x"] {
        let report = Small::new(&page(link)).check(false);
        assert!(report.problems.is_empty(), "{report:#?}");
    }
}

#[test]
fn a_chapter_is_whole() {
    let small = Small::new(&good());
    small.write("tutorial/en/99-guard.md", &good());
    small.fails_with("a chapter has 120 to 300 lines");
    small.fails_with("a chapter has a heading `## What broke`");
    small.fails_with("src/bin/ch99_guard.rs#outer is quoted nowhere in its chapter");
    small.write("tutorial/en/99-guard.md", &(good() + "\n## Try it\n\n## Run it\n"));
    small.fails_with("`Try it` comes after `Run it`");
    let headings =
        ["What broke", "What happened", "The smallest change", "Run it", "Check it", "Try it", "Still broken"];
    let headings = headings.map(|heading| format!("\n## {heading}\n{}", "\n".repeat(14)));
    let quote = QUOTE.replace("#greet", "#outer");
    small.write("tutorial/en/99-guard.md", &(good() + &quote + &headings.join("")));
    small.check(true);
    let report = small.check(false);
    assert!(report.problems.is_empty(), "{report:#?}");
}

#[test]
fn a_program_whose_name_is_wrong_fails() {
    Small::new(&good().replace("ch04_reply -- client", "ch04_replay -- client"))
        .fails_with("no program is called ch04_replay");
}

#[test]
fn nothing_is_left_in_the_folder_of_a_rewritten_page() {
    let small = Small::new(&good().replace("sending", "zending"));
    small.check(true);
    let files = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(files(&small.folder.path().join("tutorial/en")), 1);
}
