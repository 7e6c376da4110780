//! `blackstart pki`: a small private authority in a directory.

use std::io;
use std::path::{Path, PathBuf};

use blackstart_coordinator::pki::{Authority, DEFAULT_DAYS, IssueOptions, PkiError, Seen, list};
use blackstart_proto::identity::PeerIdentity;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::Context;
use crate::failure::Failure;
use crate::output::local;
use crate::view::Certificate;

/// What can be done with an authority.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make a new authority
    #[command(after_help = "\
Examples:
  blackstart pki init
  blackstart pki init --dir /root/blackstart-pki

Keep the directory offline: whoever has ca.key can be anybody. An authority is never replaced.")]
    Init(DirArgs),
    /// Issue a certificate and its key
    #[command(subcommand)]
    Issue(IssueCommand),
    /// Show the authority, and what was issued and how long it is valid
    #[command(after_help = "\
Examples:
  blackstart pki show
  blackstart pki show --dir /etc/blackstart/pki -o json")]
    Show(DirArgs),
}

/// For whom.
#[derive(Debug, Subcommand)]
pub enum IssueCommand {
    /// For a node's agent, which may speak only for this node
    #[command(after_help = "\
Examples:
  blackstart pki issue node biz-4
  blackstart pki issue node 10.128.38.9 --days 730
  blackstart pki issue node biz-4 --force          a new one in its place

The name is the node's in the inventory. It goes to /etc/blackstart/pki/node.crt and node.key there.")]
    Node(NamedArgs),
    /// For a person with this command
    #[command(after_help = "\
Examples:
  blackstart pki issue operator ann
  blackstart pki issue operator ann --days 30 --dir /root/blackstart-pki")]
    Operator(NamedArgs),
    /// For a coordinator
    #[command(after_help = "\
Examples:
  blackstart pki issue coordinator
  blackstart pki issue coordinator standby --days 730

Clients verify the name coordinator.blackstart in it, not an address: it stays right when that changes.")]
    Coordinator(CoordinatorArgs),
}

/// Where the authority is.
#[derive(Debug, Args)]
pub struct DirArgs {
    /// Directory of the authority
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
}

/// How it is issued.
#[derive(Debug, Args)]
struct HowArgs {
    #[command(flatten)]
    dir: DirArgs,
    /// How many days it is valid
    #[arg(long, value_name = "N", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// Replace an older one of the same holder
    #[arg(long)]
    force: bool,
}

/// To a node or a person.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// Whose it is
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    how: HowArgs,
}

/// To a coordinator.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// Whose it is
    #[arg(value_name = "NAME", default_value = "coordinator")]
    name: String,
    #[command(flatten)]
    how: HowArgs,
}

pub(super) fn run(command: &PkiCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        PkiCommand::Init(DirArgs { dir }) => {
            Authority::create(dir)?;
            told(&dir.join("ca.crt"), context)
        }
        PkiCommand::Issue(command) => issue(command, context),
        PkiCommand::Show(DirArgs { dir }) => {
            let certificates: Vec<_> = list(dir)?.into_iter().map(Certificate::from).collect();
            Ok(context.output.list(&certificates, Timestamp::now())?)
        }
    }
}

fn issue(command: &IssueCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let (whose, how) = match command {
        IssueCommand::Node(NamedArgs { name, how }) => (PeerIdentity::Node(name.clone()), how),
        IssueCommand::Operator(NamedArgs { name, how }) => (PeerIdentity::Operator(name.clone()), how),
        IssueCommand::Coordinator(CoordinatorArgs { name, how }) => {
            (PeerIdentity::Coordinator(name.clone()), how)
        }
    };
    let options = IssueOptions {
        days: how.days,
        replace: how.force,
    };
    let files = Authority::open(&how.dir.dir)?.issue(&whose, options)?;
    told(&files.certificate, context)
}

/// Says what was made, as it can be read back.
pub(super) fn told(certificate: &Path, context: &mut Context<'_>) -> Result<(), Failure> {
    let certificate = Certificate::from(Seen::read(certificate)?);
    Ok(context
        .output
        .object("Certificate", &certificate, |_| local::made(&certificate))?)
}

impl From<PkiError> for Failure {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => Self::Usage {
                what: error.to_string(),
                advice: Some(
                    "name the authority's directory with --dir; one is made with: blackstart pki init"
                        .to_owned(),
                ),
            },
            PkiError::Exists { .. }
            | PkiError::SomebodyElses { .. }
            | PkiError::Name(_)
            | PkiError::Lifetime { .. }
            | PkiError::Rotating(_)
            | PkiError::NotRotating(_)
            | PkiError::NoAuthority { .. } => Self::usage(error.to_string()),
            PkiError::Io { .. } | PkiError::Crypto(_) => Self::other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    use super::*;

    fn parsed(arguments: &[&str]) -> PkiCommand {
        let all = ["blackstart", "pki"].iter().chain(arguments);
        let Command::Pki(command) = Cli::try_parse_from(all).unwrap().command else {
            panic!("not a command of pki");
        };
        command
    }

    #[test]
    fn a_coordinator_needs_no_name_and_others_do() {
        let PkiCommand::Issue(IssueCommand::Coordinator(args)) = parsed(&["issue", "coordinator"]) else {
            panic!("not an issue");
        };
        assert_eq!((args.name.as_str(), args.how.days), ("coordinator", DEFAULT_DAYS));
        assert!(Cli::try_parse_from(["blackstart", "pki", "issue", "node"]).is_err());
        assert!(Cli::try_parse_from(["blackstart", "pki", "issue", "node", "n", "--days", "0"]).is_err());
    }
}
