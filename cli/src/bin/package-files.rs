//! Writes what packages have beside the programs and is made from their command lines: manual pages and completions of shells.
//!
//! ```sh
//! package-files target/debug/package
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = dir.context("say where to: package-files DIRECTORY")?;
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    write(&dir, blackstart::cli::Cli::command(), "1")?;
    write(&dir, blackstart_agent::cli::Cli::command(), "8")?;
    write(&dir, blackstart_coordinator::cli::Cli::command(), "8")
}

/// `section`: of the manual; 8 is for what an administrator runs.
fn write(dir: &Path, mut command: Command, section: &str) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, &name, dir)
            .with_context(|| format!("write completions of {name}"))?;
    }
    let path = dir.join(format!("{name}.{section}"));
    let mut page = File::create(&path).with_context(|| format!("write {}", path.display()))?;
    Man::new(command)
        .section(section)
        .render(&mut page)
        .with_context(|| format!("write {}", path.display()))
}
