//! A program that cannot outlive the drill, whatever ends that: etcd, and what stands for it.
//!
//! ```text
//!  stand-in kubelet ──spawns──► this command, `drill exec` ── has the kernel kill it with the kubelet's thread ── exec ──► etcd
//! ```
//!
//! What plays a part of a control plane ends with its standard input, and so does a drill's coordinator. etcd does not look at its own, and a process in between that
//! does would give members another number than the kubelet knows. So the one that becomes etcd asks the kernel for its own end first
//! (`PR_SET_PDEATHSIG`, which an exec keeps), since only a process itself may ask that.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use clap::Args;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use crate::failure::Failure;

/// The hidden subcommand of `blackstart drill`.
pub(in crate::drill) const SUBCOMMAND: &str = "exec";

/// What the hidden subcommand is given.
#[derive(Debug, Args)]
pub(in crate::drill) struct ExecArgs {
    /// The process of the drill
    drill: i32,
    /// A program with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// The command that becomes these words. To be spawned by a thread of this process that lives for as long as they are to.
pub(super) fn command(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["drill", SUBCOMMAND])
        .arg(std::process::id().to_string())
        .args(words);
    command
}

/// Becomes the program.
///
/// # Errors
/// It cannot be run, or the drill has ended already.
pub(in crate::drill) fn become_it(args: &ExecArgs) -> Result<(), Failure> {
    let failed = |why: String| {
        Err(Failure::other(format!(
            "become {}: {why}",
            args.command[0].display()
        )))
    };
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return failed(error.to_string());
    }
    // Of a drill that ended before it was asked the kernel tells nothing.
    if getppid() != Pid::from_raw(args.drill) {
        return failed("the drill has ended".to_owned());
    }
    let error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    failed(error.to_string())
}
