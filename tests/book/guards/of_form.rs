//! Figures, links and chapters.

use super::{QUOTE, Small, good};

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
    let again = small.read("tutorial/en/figures/greeting.svg");
    assert_eq!(drawn, again, "two runs differ");
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
    let (before, _) = page.split_once("<!-- figure").unwrap();
    Small::new(&format!("{before}<!-- not drawn: -->\n")).fails_with("is not drawn");
    let report = Small::new(&format!("{before}<!-- not drawn: a photograph -->\n")).check(false);
    assert!(!report.problems.iter().any(|problem| problem.contains("is not drawn")), "{report:#?}");
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
fn a_page_that_no_list_has_fails() {
    let small = Small::new(&good());
    for list in ["README.md", "SUMMARY.md"] {
        let path = format!("tutorial/en/{list}");
        small.write(&path, "# Contents\n\n- [another page](other.md)\n");
        small.write("tutorial/en/other.md", &good());
        small.fails_with("guard.md is not in this list");
        small.write(&path, "# Contents\n\n- [a page](guard.md)\n- [another page](other.md)\n");
        let report = small.check(false);
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
    let quote = QUOTE.replace("#greet", "#outer");
    let told = headings.map(|heading| format!("\n## {heading}\n{}", "\n".repeat(14))).join("");
    small.write("tutorial/en/99-guard.md", &(good() + &quote + &told));
    small.fails_with("`What broke` shows no terminal in which it fails");
    small.fails_with("`Still broken` shows no terminal in which it fails");
    let shown = told.replace("broke\n", "broke\n<!-- run: one -->\n```console\n$ false\n```\n");
    let shown = shown.replace("broken\n", "broken\n<!-- run: two -->\n```console\n$ false\n```\n");
    small.write("tutorial/en/99-guard.md", &(good() + &quote + &shown));
    small.check(true);
    let report = small.check(false);
    assert!(report.problems.is_empty(), "{report:#?}");
}
