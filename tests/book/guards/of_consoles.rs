//! Consoles.

use std::time::Duration;

use super::{Small, good};
use crate::book::Book;
use crate::programs;

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
fn a_server_that_the_page_does_not_end_fails() {
    Small::new(&good().replace("^C\n", "")).fails_with("still runs where its section ends");
}

#[test]
fn a_hang_says_so() {
    let page = good() + "\n<!-- run: reader -->\n```console\n$ echo begun; tail -f /dev/null\nbegun\n```\n";
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
fn a_server_in_the_background_is_waited_for() {
    let page = "\
# A page

<!-- run: reader -->
```console
$ (RUST_LOG=off cargo run -q --bin ch04_reply -- server & sleep 1; cargo run -q --bin ch04_reply -- server; kill $!)
listening on 127.0.0.1:8080
Error: Os { code: 98, kind: AddrInUse, message: \"Address already in use\" }
```

## One that is late

<!-- run: reader -->
```console
$ sleep 1 && RUST_LOG=off timeout 1 cargo run -q --bin ch04_reply -- server & sleep 0; echo a | cargo run -q --bin talk
listening on 127.0.0.1:8080
서버 응답: a
```
";
    let report = Small::new(page).check(false);
    assert!(report.problems.is_empty(), "{}", report.problems.join("\n"));
    Small::new(&page.replace("응답: a", "응답: b")).fails_with("is not what the page says");
}

#[test]
fn a_continuation_needs_something_that_goes_on() {
    Small::new(&good().replacen("run: server", "run: servant", 1))
        .fails_with("nothing runs in the terminal \"server\"");
    Small::new(&good().replace("run: client", "run: client, upside down")).fails_with("cannot be \"upside down\"");
    let early = good().replace("listening on 127.0.0.1:8080\n", "listening on 127.0.0.1:8080\n^C\n");
    Small::new(&early).fails_with("after ^C the terminal \"server\" runs nothing");
}

#[test]
fn what_needs_a_missing_program_is_skipped_and_says_so() {
    let page = |needed: &str| {
        format!("# Another page\n\n<!-- needs: {needed} -->\n\n<!-- run: one -->\n```console\n$ echo so\nnot so\n```\n")
    };
    let small = Small::new(&good());
    small.write("tutorial/en/other.md", &page("no-such-program"));
    let report = small.check(false);
    assert!(report.problems.is_empty(), "{report:#?}");
    assert_eq!(report.skipped, [("no-such-program".to_owned(), "tutorial/en/other.md:6".to_owned())]);
    assert_eq!(report.consoles, 3, "the other page is run");
    assert!(small.check(true).rewritten.is_empty(), "what is not run cannot be refreshed");
    // Where it is installed, the page is run.
    small.write("tutorial/en/other.md", &page("sh"));
    small.fails_with("tutorial/en/other.md:6: the terminal \"one\" is not what the page says");
    // A mistake is one everywhere.
    small.write("tutorial/en/other.md", &page("no-such-program").replace("run: one", "rum: one"));
    small.fails_with("a console that is not run");
}

#[test]
fn what_a_section_needs_the_others_do_not() {
    let block = |shown: &str| format!("<!-- run: one -->\n```console\n$ echo so\n{shown}\n```\n");
    let small = Small::new(&good());
    let page = format!(
        "# Another page\n\n## One\n\n### First\n\n{}\n### Second\n\n<!-- needs: no-such-program -->\n{}\n## Two\n\n{}",
        block("so"),
        block("not so"),
        block("so")
    );
    small.write("tutorial/en/other.md", &page);
    let report = small.check(false);
    assert!(report.problems.is_empty(), "{report:#?}");
    assert_eq!(report.skipped, [("no-such-program".to_owned(), "tutorial/en/other.md:17".to_owned())]);
    assert_eq!(report.consoles, 5);
}

#[test]
fn a_book_of_which_nothing_can_be_run_fails() {
    Small::new(&good().replace("# A page\n", "# A page\n\n<!-- needs: no-such-program -->\n"))
        .fails_with("not one console was run");
}

#[test]
fn a_program_whose_name_is_wrong_fails() {
    Small::new(&good().replace("ch04_reply -- client", "ch04_replay -- client"))
        .fails_with("no program is called ch04_replay");
}
