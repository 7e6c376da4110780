//! What may be typed, and what is taken from the environment.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use blackstart_proto::yaml;
use clap::{Args, Parser, Subcommand};

use crate::commands::audit::AuditCommand;
use crate::commands::coldstart::ColdstartCommand;
use crate::commands::completion::CompletionArgs;
use crate::commands::describe::DescribeCommand;
use crate::commands::doctor::DoctorArgs;
use crate::commands::etcd::EtcdCommand;
use crate::commands::events::EventsArgs;
use crate::commands::get::GetCommand;
use crate::commands::heal::{PodsCommand, WorkloadCommand};
use crate::commands::hold::{HoldArgs, SilenceArgs, UnholdArgs, UnsilenceArgs};
use crate::commands::inventory::InventoryCommand;
use crate::commands::node::NodeCommand;
use crate::commands::permit::PermitCommand;
use crate::commands::pki::PkiCommand;
use crate::commands::runbook::{DrainArgs, MaintenanceCommand, RunbookCommand};
use crate::commands::storm::StormCommand;
use crate::commands::trust::{CertificateCommand, TokenCommand};
use crate::drill::DrillArgs;
use crate::output::Format;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage or configuration
  3    no coordinator could be reached
  4    the coordinator refused: no right, or not in this state
  5    not found
  6    the run or the drill did not succeed
  130  interrupted
  141  whoever read the output went away

Examples:
  blackstart get nodes                     every node and what it is doing
  blackstart describe node biz-4           everything known of one node
  blackstart events --follow               what happens, as it happens
  blackstart doctor                        is this installation as it should be
  blackstart coldstart plan                what a cold start would do
  blackstart coldstart watch               follow the one that is active
  blackstart hold --node biz-4 --reason …  keep its agent from acting
  blackstart maintenance begin biz-4 …     drain a node and stop its kubelet
  blackstart pods diagnose --cluster biz   what is wrong with pods, and why
  blackstart etcd status biz               quorum, leader, lag, certificates, snapshots
  blackstart drill power-loss              rehearse a power loss; needs no cluster
  blackstart inventory lint inventory.yaml check a declared fleet
  blackstart token create --node biz-4     how a node joins
  blackstart node revoke biz-4 --reason …  have its certificate count no more

Which coordinator: --coordinator with --tls-ca, --tls-cert and --tls-key, or a context of a
configuration file ($BLACKSTART_CONFIG, ~/.config/blackstart/config.yaml, /etc/blackstart/cli.yaml).
`blackstart get --help` shows one.";

/// See, steer and rehearse the recovery of a Kubernetes fleet.
#[derive(Debug, Parser)]
#[command(name = "blackstart", version, propagate_version = false, after_help = EXIT_CODES)]
#[command(
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORM")]
    pub output: Format,

    /// Which coordinator, and how.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Which coordinator to speak to, and with which certificate.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// A coordinator's address; may be given several times, tried in turn
    #[arg(
        long = "coordinator",
        global = true,
        value_name = "IP:PORT",
        env = "BLACKSTART_COORDINATOR"
    )]
    #[arg(value_delimiter = ',', value_parser = socket_address, hide_short_help = true)]
    pub coordinators: Vec<SocketAddr>,

    /// The authority's certificate
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BLACKSTART_TLS_CA",
        hide_short_help = true
    )]
    pub tls_ca: Option<PathBuf>,

    /// Your operator certificate
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BLACKSTART_TLS_CERT",
        hide_short_help = true
    )]
    pub tls_cert: Option<PathBuf>,

    /// Its key
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BLACKSTART_TLS_KEY",
        hide_short_help = true
    )]
    pub tls_key: Option<PathBuf>,

    /// A file with a token of your identity provider, in place of an operator certificate; read anew for each call
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BLACKSTART_TOKEN_FILE",
        hide_short_help = true
    )]
    pub token_file: Option<PathBuf>,

    /// A configuration file with contexts
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BLACKSTART_CONFIG",
        hide_short_help = true
    )]
    pub config: Option<PathBuf>,

    /// Which context of the configuration file
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "BLACKSTART_CONTEXT",
        hide_short_help = true
    )]
    pub context: Option<String>,

    /// How long to wait for a coordinator's answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    #[arg(hide_short_help = true)]
    pub timeout: Duration,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List clusters, nodes, conditions, remedies or runs
    #[command(subcommand)]
    Get(GetCommand),
    /// Everything known of one node or run
    #[command(subcommand)]
    Describe(DescribeCommand),
    /// Check the installation, and say what to do about what is wrong with it
    Doctor(DoctorArgs),
    /// What happened in the fleet, oldest first
    #[command(visible_alias = "ev")]
    Events(EventsArgs),
    /// Plan, start, follow and steer a cold start
    #[command(subcommand, visible_alias = "cs")]
    Coldstart(ColdstartCommand),
    /// Keep agents from using a remedy, or any
    Hold(HoldArgs),
    /// Lift a hold
    Unhold(UnholdArgs),
    /// Silence a node: all is seen and told, nothing is mended, and it counts for no storm and no outage
    Silence(SilenceArgs),
    /// End a node's silence
    Unsilence(UnsilenceArgs),
    /// Conditions that are frozen because many nodes have them at once
    #[command(subcommand)]
    Storm(StormCommand),
    /// Permits for what takes a node away for a while
    #[command(subcommand)]
    Permit(PermitCommand),
    /// Plan, run and steer runbooks
    #[command(subcommand, visible_alias = "rb")]
    Runbook(RunbookCommand),
    /// Take a node out for maintenance, and back
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Cordon a node and evict its pods
    Drain(DrainArgs),
    /// Say what is wrong with pods, and mend them
    #[command(subcommand, visible_alias = "pod")]
    Pods(PodsCommand),
    /// Declared workloads: see them, and make them whole
    #[command(subcommand, visible_alias = "wl")]
    Workload(WorkloadCommand),
    /// The etcd of a cluster: how it is, and snapshots of it
    #[command(subcommand)]
    Etcd(EtcdCommand),
    /// Mend a node that is down, cannot be reached, has too much to do or whose components are not well; revoke its certificates
    #[command(subcommand)]
    Node(NodeCommand),
    /// Rehearse an outage
    Drill(DrillArgs),
    /// Check a declared fleet
    #[command(subcommand, visible_alias = "inv")]
    Inventory(InventoryCommand),
    /// Tokens by which nodes join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Certificates that nodes were given, and revoking any
    #[command(subcommand, visible_alias = "cert")]
    Certificate(CertificateCommand),
    /// What was commanded and ordered, and whether it is kept as it was written
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Make an authority, and certificates of it
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Completions for a shell
    Completion(CompletionArgs),
    /// Version of this command
    Version,
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an address and port such as 10.0.0.1:7443 (not a name: DNS may be down when it is needed)"
            .to_owned()
    })
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    yaml::parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a duration such as 500ms, 10s or 2m".to_owned())
}

/// What is taken from the process's surroundings; read once, here.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Where the user's own configuration is: `$XDG_CONFIG_HOME`, or `~/.config`.
    pub config_home: Option<PathBuf>,
    /// Who is at the keyboard, for the reason of a run that gives none.
    pub user: Option<String>,
    /// Can somebody be asked?
    pub stdin_is_terminal: bool,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
}

/// One of the streams that are written to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stream {
    /// Is it a terminal?
    pub is_terminal: bool,
    /// May it be coloured?
    pub colour: bool,
}

impl Environment {
    /// Looks at the process's environment and standard streams.
    pub fn read() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let config_home = set("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")));
        // https://no-color.org: present and not empty.
        let colour = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
        let stream = |is_terminal| Stream {
            is_terminal,
            colour: colour && is_terminal,
        };
        Self {
            config_home,
            user: set("SUDO_USER")
                .or_else(|| set("USER"))
                .and_then(|user| user.into_string().ok()),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout: stream(std::io::stdout().is_terminal()),
            stderr: stream(std::io::stderr().is_terminal()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn walk(command: &clap::Command, path: &str, without: &mut Vec<String>) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                let path = format!("{path} {}", sub.get_name());
                if !sub.has_subcommands() && sub.get_after_help().is_none() {
                    without.push(path.clone());
                }
                walk(sub, &path, without);
            }
        }
        let mut without = Vec::new();
        walk(&Cli::command(), "blackstart", &mut without);
        without.retain(|path| path != "blackstart version");
        assert_eq!(without, Vec::<String>::new());
    }

    #[test]
    fn a_name_is_no_coordinator() {
        let error = Cli::try_parse_from(["blackstart", "--coordinator", "coordinator.lan:7443", "version"])
            .unwrap_err();
        assert!(error.to_string().contains("DNS may be down"), "{error}");
    }
}
