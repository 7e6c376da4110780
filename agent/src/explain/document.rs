//! All explanations as Markdown: `docs/conditions.md`, and the tests that show them: `docs/proofs.md`.
//!
//! The files are checked in, so that they can be read without a build; these tests fail when one is out of date.
//! `BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-agent explain` writes it anew.

use std::fmt::Write as _;
use std::{env, fs};

use super::explain;
use super::proof::{self, Cause, Proof, Shows};
use crate::condition::ConditionKind;
use crate::config::Settings;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conditions.md");

const PROOFS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/proofs.md");

const PROOFS_HEAD: &str = "\
# What is shown, and by which test

Every condition is raised, told or mended, and cleared by a test; every remedy is shown at work. A kind or a remedy without a test does not compile, and
a test that is named here and is not there fails the build.

| cause | is |
|---|---|
| real | the thing itself: a process that dies, a disk that is full, a kernel that says so |
| recorded | messages as kernels have written them, read as the kernel's log is, because no machine does that without the hardware |
| simulated | a simulated node or signals by hand, and a clock of the test's own |

A test that lacks its real part (root, docker, a loop device) says SKIPPED and why; in CI it fails instead.

";

const HEAD: &str = "\
# Conditions

What the agent finds on a node. On the node `blackstart-agent conditions` shows what stands, and `blackstart-agent explain NAME` the same text as
here with the settings in force; in the fleet `blackstart get conditions`. Values here are the defaults.

";

fn document() -> String {
    let settings = Settings::for_node("node");
    let all = ConditionKind::ALL.map(|kind| explain(kind, &settings));
    let mut text = HEAD.to_owned();
    text += "| condition | meaning | the agent |\n|---|---|---|\n";
    for told in &all {
        let acts = if told.ladder.is_empty() { "tells" } else { "acts" };
        let name = &told.condition;
        let _infallible = writeln!(
            text,
            "| [{name}](#{}) | {} | {acts} |",
            name.to_lowercase(),
            told.meaning
        );
    }
    for (kind, told) in ConditionKind::ALL.into_iter().zip(&all) {
        let _infallible = write!(
            text,
            "\n## {}\n{}.\n\n- **Severity:** {}.\n- **Seen by:** {}.\n",
            told.condition,
            capital(&told.meaning),
            told.severity,
            told.seen
        );
        if !told.thresholds.is_empty() {
            let each: Vec<_> = told
                .thresholds
                .iter()
                .map(|at| format!("`{}` = `{}`", at.setting, at.value))
                .collect();
            let _infallible = writeln!(text, "- **Settings:** {}.", each.join("; "));
        }
        if !told.ladder.is_empty() {
            let _infallible = writeln!(text, "- **The agent:** {}.", told.ladder.join("; "));
        }
        let _infallible = write!(text, "- **Cleared when:** {}.\n- **By hand:**\n", told.clears);
        for (number, step) in told.by_hand.iter().enumerate() {
            let _infallible = writeln!(text, "  {}. {step}", number + 1);
        }
        let shown = proof::of(kind).iter().map(test);
        let _infallible = writeln!(text, "- **Shown by:** {}.", shown.collect::<Vec<_>>().join("; "));
    }
    text
}

fn test(proof: &Proof) -> String {
    format!("`{}` `{}`", proof.file, proof.test)
}

fn proofs() -> String {
    let mut text = PROOFS_HEAD.to_owned();
    text += "## Conditions\n\n| condition | cause | is | shows | test |\n|---|---|---|---|---|\n";
    for kind in ConditionKind::ALL {
        for proof in proof::of(kind) {
            let shows: Vec<_> = proof.shows.iter().map(|shows| shown(*shows)).collect();
            let _infallible = writeln!(
                text,
                "| [{kind}](conditions.md#{}) | {} | {} | {} | {} |",
                kind.as_str().to_lowercase(),
                proof.by,
                cause(proof.cause),
                shows.join(", "),
                test(proof)
            );
        }
    }
    text += "\n## Remedies\n\n| remedy | cause | is | test |\n|---|---|---|---|\n";
    for remedy in proof::remedies() {
        for proof in proof::of_remedy(&remedy) {
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} |",
                remedy.name(),
                proof.by,
                cause(proof.cause),
                test(proof)
            );
        }
    }
    text
}

const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Real => "real",
        Cause::Recorded => "recorded",
        Cause::Simulated => "simulated",
    }
}

const fn shown(shows: Shows) -> &'static str {
    match shows {
        Shows::Raised => "raised",
        Shows::Mended => "mended",
        Shows::Told => "told",
        Shows::Cleared => "cleared",
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn holds(file: &str, name: &str, text: &str) {
    if env::var_os("BLACKSTART_WRITE_DOCS").is_some() {
        fs::write(file, text).unwrap();
    }
    assert!(
        fs::read_to_string(file).unwrap_or_default() == text,
        "docs/{name} is out of date: BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-agent explain"
    );
}

#[test]
fn the_documentation_says_the_same_as_the_command() {
    holds(FILE, "conditions.md", &document());
}

#[test]
fn the_documentation_names_the_tests_that_there_are() {
    holds(PROOFS, "proofs.md", &proofs());
}
