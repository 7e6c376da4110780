//! `docs/reference.md` is what the three programs say of themselves. `BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart --test reference` writes it
//! anew.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory};

const HEAD: &str = "\
# Reference of the command line

Every command of the three programs with its arguments, written from the programs themselves (`BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart
--test reference`). What they are for is told in [cli.md](cli.md), [install.md](install.md) and [operations.md](operations.md). Configuration:
[agent.yaml](../deploy/agent.yaml), [coordinator.yaml](../deploy/coordinator.yaml) and [inventory.yaml](../deploy/inventory.yaml) show every field with its
default, and tests hold them to the code. Metrics: [metrics.md](metrics.md).
";

fn document() -> String {
    let mut text = HEAD.to_owned();
    for command in [
        blackstart::cli::Cli::command(),
        blackstart_agent::cli::Cli::command(),
        blackstart_coordinator::cli::Cli::command(),
    ] {
        // As it completes itself before it parses: arguments for all commands are known to each.
        let mut command = command.term_width(usize::MAX);
        command.build();
        describe(&command, true, &mut text);
    }
    text
}

/// A command, and those below it.
fn describe(command: &Command, is_program: bool, text: &mut String) {
    let level = if is_program { "##" } else { "###" };
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    writeln!(text, "\n{level} {name}").unwrap();
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        writeln!(text, "{}", about.to_string().trim()).unwrap();
    }
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let (common, own): (Vec<&Arg>, Vec<&Arg>) = shown
        .filter(|arg| {
            !matches!(
                arg.get_action(),
                ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
            )
        })
        .partition(|arg| arg.is_global_set());
    let listed = if is_program { [own, common].concat() } else { own };
    if !listed.is_empty() {
        text.push_str("\n| argument | meaning |\n|---|---|\n");
        for arg in listed {
            writeln!(text, "| {} | {} |", spelt(arg), meaning(arg)).unwrap();
        }
    }
    if let Some(more) = command.get_after_help() {
        writeln!(text, "\n```\n{}\n```", more.to_string().trim_end()).unwrap();
    }
    for below in command.get_subcommands() {
        if !below.is_hide_set() && below.get_name() != "help" {
            describe(below, false, text);
        }
    }
}

/// `-o, --output FORMAT`, or `[NODE]`.
fn spelt(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let values: Vec<_> = names.iter().map(ToString::to_string).collect();
    let value = values.join(" ");
    if arg.is_positional() {
        let many = if matches!(arg.get_action(), ArgAction::Append) {
            "..."
        } else {
            ""
        };
        return if arg.is_required_set() {
            format!("`{value}{many}`")
        } else {
            format!("`[{value}]{many}`")
        };
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let value = if takes && !value.is_empty() {
        format!(" {value}")
    } else {
        String::new()
    };
    format!("`{}{value}`", names.join(", "))
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let mut words = help.map(ToString::to_string).unwrap_or_default();
    let choices: Vec<_> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !choices.is_empty() && !matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        write!(words, " [{}]", choices.join(", ")).unwrap();
    }
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .filter(|value| !value.is_empty())
        .map(|value| value.to_string_lossy())
        .collect();
    if !defaults.is_empty() && !matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        write!(words, " (default `{}`)", defaults.join("`, `")).unwrap();
    }
    if let Some(variable) = arg.get_env() {
        write!(words, " (or `{}` in the environment)", variable.to_string_lossy()).unwrap();
    }
    words
        .replace('|', "\\|")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_reference_is_what_the_programs_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let is = document();
    if env::var_os("BLACKSTART_WRITE_DOCS").is_some() {
        fs::write(&path, &is).unwrap();
    }
    let was = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        was == is,
        "docs/reference.md is out of date: BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart --test reference"
    );
}
