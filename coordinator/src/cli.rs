//! What may be typed.

mod audit;
mod ca;
mod init;
mod store;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use blackstart_proto::yaml::Problems;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{self, ConfigError, Settings};
use crate::inventory::{self, InventoryError};
use crate::logs;
use crate::notify::Notify;
use crate::power::Bmcs;
use crate::run::{self, RunError};
use crate::upkeep;

/// Knows the fleet, and brings whole clusters back in order.
#[derive(Debug, Parser)]
#[command(name = "blackstart-coordinator", version, propagate_version = false)]
#[command(
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true
)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed or something is wrong with what was checked, 2 wrong usage, configuration or inventory.
BLACKSTART_LOG sets what is logged, for example debug or blackstart_coordinator::execute=debug.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the coordinator
    Run {
        /// Its configuration
        #[arg(
            short,
            long,
            value_name = "FILE",
            default_value = "/etc/blackstart/coordinator.yaml"
        )]
        config: PathBuf,
    },
    /// Make what a first coordinator needs: authority, certificates, a configuration; nothing that is there is replaced
    #[command(
        after_help = "Examples:\n  blackstart-coordinator init --operator ann\n  blackstart-coordinator init --operator ann --listen 10.128.38.100:7443"
    )]
    Init {
        /// Where
        #[arg(long, value_name = "DIR", default_value = "/etc/blackstart")]
        dir: PathBuf,
        /// The first operator, an admin
        #[arg(long, value_name = "NAME")]
        operator: String,
        /// Where it is to listen [default: port 7443 of every address]
        #[arg(long, value_name = "IP:PORT")]
        listen: Vec<SocketAddr>,
    },
    /// See to the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write everything that the store has into a file, also while a coordinator runs
    Backup {
        /// Where to; replaced if it is there
        file: PathBuf,
        /// Whose store it is.
        #[command(flatten)]
        of: Configured,
    },
    /// Put a backup in the place of the store; no coordinator may run
    Restore {
        /// The backup
        file: PathBuf,
        /// Replace the store that is there; it is kept beside it
        #[arg(long)]
        force: bool,
        /// An epoch that no agent has obeyed a higher one than; it is far above the backup's in any case
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=upkeep::HIGHEST))]
        epoch_at_least: Option<u64>,
        /// Whose store it is.
        #[command(flatten)]
        of: Configured,
    },
    /// Read everything that the store or a backup has, and say what is wrong
    Check {
        /// A backup, instead of the store
        file: Option<PathBuf>,
        /// How it is told
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// Whose store it is.
        #[command(flatten)]
        of: Configured,
    },
    /// Tell the store's epoch, or raise it
    Epoch {
        /// Raise it to this if it is lower; no coordinator may run
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=upkeep::HIGHEST))]
        at_least: Option<u64>,
        /// Whose store it is.
        #[command(flatten)]
        of: Configured,
    },
    /// See to the store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Put another authority in the place of the one that there is, while both are trusted
    #[command(subcommand)]
    Ca(CaCommand),
    /// What was commanded and ordered; also while a coordinator runs
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// Put another authority in the place of the one that there is.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make a new authority, which issues from the coordinator's next start on; the old one stays trusted
    #[command(after_help = "\
Examples:
  blackstart-coordinator ca rotate && systemctl restart blackstart-coordinator
  blackstart-coordinator ca status                    until no node is behind
  blackstart-coordinator ca finish && systemctl restart blackstart-coordinator

Nodes renew by themselves, and need not be touched.")]
    Rotate(Configured),
    /// Which authorities are trusted, and which nodes still need the old one; also while a coordinator runs
    Status {
        /// How it is told
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// Whose it is.
        #[command(flatten)]
        of: Configured,
    },
    /// Trust the old authority no more; refused while a node needs it
    Finish {
        /// Also if nodes need it: they have to join anew
        #[arg(long)]
        force: bool,
        /// Whose it is.
        #[command(flatten)]
        of: Configured,
    },
}

/// Look at the audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Look whether the chain is whole; ends with 1 if not
    Verify {
        /// Its directory, instead of the configured one
        dir: Option<PathBuf>,
        /// That this record is there, which an earlier look has told
        #[arg(long, value_name = "SEQUENCE:HASH")]
        expect: Option<String>,
        /// How it is told
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// Whose it is.
        #[command(flatten)]
        of: Configured,
    },
    /// Every record as it is kept: a hash and JSON in a line
    Export {
        /// Its directory, instead of the configured one
        dir: Option<PathBuf>,
        /// Whose it is.
        #[command(flatten)]
        of: Configured,
    },
}

/// Whose store it is.
#[derive(Debug, Args)]
pub struct Configured {
    /// The coordinator's configuration
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/blackstart/coordinator.yaml"
    )]
    config: PathBuf,
}

/// How something is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// See to the store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy runs, known boots and the epoch to an empty store: from one coordinator to several, or back. None may run meanwhile
    Copy {
        /// The configuration of the store that is read
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// The configuration of the store that is written
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

/// See to the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read a configuration and the inventory it names, and say everything that is wrong
    Check {
        /// The configuration
        #[arg(value_name = "FILE", default_value = "/etc/blackstart/coordinator.yaml")]
        file: PathBuf,
    },
}

/// Does it.
///
/// # Errors
/// Everything, with what was being done; [`exit_code`] tells the kinds apart.
pub async fn execute(cli: Cli) -> anyhow::Result<()> {
    // What is typed by hand is told where it was typed.
    let otlp = if let Command::Run { config } = &cli.command {
        config::load(config)?.otlp
    } else {
        None
    };
    let sent = logs::begin(otlp.as_ref()).context("log to the collector (otlp)")?;
    let ended = carry_out(cli.command).await;
    sent.end().await;
    ended
}

async fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { config } => run(config::load(&config)?).await,
        Command::Init {
            dir,
            operator,
            listen,
        } => init::init(&init::Init {
            dir,
            operator,
            listen,
        }),
        Command::Config(ConfigCommand::Check { file }) => check(&file),
        Command::Backup { file, of } => store::backup(&config::load(&of.config)?, &file),
        Command::Restore {
            file,
            force,
            epoch_at_least,
            of,
        } => store::restore(&config::load(&of.config)?, &file, epoch_at_least, force),
        Command::Check {
            file: Some(file),
            output,
            ..
        } => store::check_backup(&file, output),
        Command::Check {
            file: None,
            output,
            of,
        } => store::check(&config::load(&of.config)?, output),
        Command::Epoch { at_least, of } => store::epoch(&config::load(&of.config)?, at_least),
        Command::Ca(CaCommand::Rotate(of)) => ca::rotate(&config::load(&of.config)?),
        Command::Ca(CaCommand::Status { output, of }) => ca::status(&config::load(&of.config)?, output).await,
        Command::Ca(CaCommand::Finish { force, of }) => ca::finish(&config::load(&of.config)?, force).await,
        Command::Audit(AuditCommand::Verify {
            dir,
            expect,
            output,
            of,
        }) => audit::verify(&audit_dir(dir, &of)?, expect.as_deref(), output),
        Command::Audit(AuditCommand::Export { dir, of }) => audit::export(&audit_dir(dir, &of)?),
        Command::Store(StoreCommand::Copy { from, to }) => {
            let copied = run::copy::store(&config::load(&from)?, &config::load(&to)?).await?;
            say(&format!(
                "copied {} and {}; epochs go on above {}",
                counted(copied.runs, "run"),
                counted(copied.values, "value"),
                copied.epoch
            ))
        }
    }
}

fn audit_dir(dir: Option<PathBuf>, of: &Configured) -> anyhow::Result<PathBuf> {
    match dir {
        Some(dir) => Ok(dir),
        None => Ok(config::load(&of.config)?.audit()),
    }
}

/// 2 for what the operator wrote, 1 for everything else.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let written = error.is::<ConfigError>()
        || error.is::<InventoryError>()
        || error
            .downcast_ref::<RunError>()
            .is_some_and(RunError::is_configuration);
    if written { 2 } else { 1 }
}

/// What to do next, where the message does not say it.
pub fn advice(error: &anyhow::Error) -> Option<&'static str> {
    const CONFIG: &str = "correct it, and check it with: blackstart-coordinator config check FILE";
    const INVENTORY: &str = "correct it, and check it with: blackstart inventory lint FILE";
    let of_inventory = |error: &InventoryError| match error {
        InventoryError::Read { .. } => {
            "write the fleet there, or say in `inventory` of the configuration where it is; deploy/inventory.yaml is an example"
        }
        InventoryError::Invalid(_) => INVENTORY,
    };
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return Some(match error {
            ConfigError::Read { .. } => {
                "name a file that can be read; deploy/coordinator.yaml is one with every default"
            }
            ConfigError::Invalid(_) => CONFIG,
        });
    }
    if let Some(error) = error.downcast_ref::<InventoryError>() {
        return Some(of_inventory(error));
    }
    match error.downcast_ref::<RunError>()? {
        RunError::Inventory(error) => Some(of_inventory(error)),
        RunError::Listen { .. } => Some(
            "is another coordinator running, or the address not this machine's? (systemctl status blackstart-coordinator; ss -ltnp); `listen` in the configuration says where",
        ),
        RunError::TlsFile(_) | RunError::Tls(_) => Some(
            "`tls` in the configuration names the files; they are made with: blackstart pki issue coordinator",
        ),
        RunError::Etcd(_) | RunError::FleetLock(_) | RunError::Bmc(_) | RunError::UnknownCluster(_) => {
            Some(CONFIG)
        }
        RunError::StateDir { .. } => Some("`state_dir` in the configuration says where it is to be"),
        RunError::Store(_)
        | RunError::Serve(_)
        | RunError::OwnBoot(_)
        | RunError::Execute(_)
        | RunError::Runbooks(_)
        | RunError::Ended(_)
        | RunError::Broke(_) => None,
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let listeners = run::bind(&settings)?;
    for listener in &listeners {
        let address = listener.local_addr().context("ask for the address listened on")?;
        say(&format!("listening on {address}"))?;
    }
    let stop = CancellationToken::new();
    let mut running = Box::pin(run::run(
        settings,
        listeners,
        Notify::from_environment(),
        stop.clone(),
    ));
    loop {
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            bail!("stopped at once, at a second signal");
        }
        stop.cancel();
    }
}

fn check(file: &Path) -> anyhow::Result<()> {
    let settings = config::load(file)?;
    let loaded = inventory::load(&settings.inventory)?;
    for warning in loaded.warnings {
        let warning = Problems {
            file: settings.inventory.display().to_string(),
            list: vec![warning],
        };
        say(&format!("warning: {warning}"))?;
    }
    if let Some(bmc) = &settings.bmc {
        Bmcs::new(bmc, &loaded.inventory)?;
    }
    let (clusters, nodes) = (loaded.inventory.clusters.len(), loaded.inventory.nodes.len());
    say(&format!(
        "{} and {}: {}, {}, no errors",
        file.display(),
        settings.inventory.display(),
        counted(clusters, "cluster"),
        counted(nodes, "node")
    ))
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A line on standard error. That nobody can read it is no reason to stop.
fn complain(line: &str) {
    let _unread = writeln!(io::stderr().lock(), "{line}");
}

/// A line on standard output.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("write to standard output")
}
