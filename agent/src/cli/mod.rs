//! What may be typed, and what is done about it.
//!
//! | command | story |
//! |---|---|
//! | `run` | the agent: [`crate::run`] |
//! | `gate` | the boot gate: [`crate::gate`] |
//! | `join` | this node's certificate and configuration: [`crate::enrol`] |
//! | `config check` | tells everything that is wrong with a file |
//! | `ledger show` | what this node's agent did, and why; reads the file |
//! | `status`, `conditions`, `remedies`, `explain` | ask the agent that runs here: [`crate::local`] |
//! | `hold`, `unhold`, `silence`, `unsilence` | keep the agent that runs here from acting |
//! | `check` | looks at the node itself: [`crate::preflight`] |
//! | `put-back` | what lies out of the kubelet's sight, for an agent that goes away for good |

mod check;
mod hold;
mod join;
mod ledger;
mod node;
mod put_back;
mod show;
mod table;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::causes::causes;
use crate::config::{self, ConfigError, Settings};
use crate::gate;
use crate::host::real::RealHost;
use crate::ledger::LedgerError;
use crate::preflight;
use crate::reclaim::Rules;
use crate::reclaim::archive::well_placed;
use crate::run::{Notify, RunError, run_reloading};
use crate::watch::beat::Beat;

use node::Asked;

const EXAMPLES: &str = "\
Examples:
  blackstart-agent run --config /etc/blackstart/agent.yaml
  blackstart-agent run --config /etc/blackstart/agent.yaml --dry-run  # change nothing
  blackstart-agent config check /etc/blackstart/agent.yaml
  blackstart-agent ledger show                   # what was done on this node, and why
  blackstart-agent ledger show -o json | jq '.records[-1]'
  blackstart-agent status                        # how the agent and its node are
  blackstart-agent conditions -o json | jq '.items[].evidence'
  blackstart-agent remedies --last 5             # what it did last, and how that ended
  blackstart-agent explain DiskPressure          # what it means, what the agent does, what you do
  blackstart-agent hold --remedy restart-unit --reason upgrade --for 2h
  blackstart-agent silence --reason disk         # nothing is mended here until: blackstart-agent unsilence
  blackstart-agent check                         # may a kubelet start here? needs no running agent

Exit codes: 0 done, 1 failed or a blocker was found, 2 wrong usage or configuration, 3 no agent runs here.
BLACKSTART_LOG sets what is logged, for example debug or blackstart_agent::run=debug.";

/// Watches and repairs one Kubernetes node by itself.
#[derive(Debug, Parser)]
#[command(name = "blackstart-agent", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM. SIGHUP has it read its configuration again.
    Run(Run),
    /// Hold the kubelet at boot after a power loss; returns when it may start.
    Gate(Gate),
    /// Get this node's certificate from a coordinator, and write a configuration.
    #[command(
        after_help = "Examples:\n  blackstart-agent join 10.128.38.100:7443 --token 1a2b3c4d.… --ca-hash sha256:…\n  BLACKSTART_TOKEN=1a2b3c4d.… blackstart-agent join 10.128.38.100:7443 --ca-hash sha256:… --node biz-4\n\n`blackstart token create` tells both. The key is made here, and stays here."
    )]
    Join(join::JoinArgs),
    /// Work with configuration files.
    #[command(subcommand)]
    Config(Config),
    /// How the agent and its node are: gate, coordinator, units, disks, budgets left.
    #[command(
        after_help = "Examples:\n  blackstart-agent status\n  blackstart-agent status -o json | jq '.budgets'"
    )]
    Status(Asked),
    /// What stands on this node, the worst first.
    #[command(
        after_help = "Examples:\n  blackstart-agent conditions\n  blackstart-agent conditions -o json | jq '.items[].evidence'"
    )]
    Conditions(Asked),
    /// What was done on this node last, oldest first, and how it ended.
    #[command(
        after_help = "Examples:\n  blackstart-agent remedies\n  blackstart-agent remedies --last 100 -o json"
    )]
    Remedies {
        /// So many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
        #[command(flatten)]
        asked: Asked,
    },
    /// What a condition means, what raises and clears it, what the agent does about it, and what you do.
    #[command(
        after_help = "Examples:\n  blackstart-agent explain DiskPressure\n  blackstart-agent explain kubelet-unhealthy -o json"
    )]
    Explain {
        /// Its name, in any case and with or without hyphens.
        condition: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Look at everything that must hold before a kubelet may start. Needs no running agent; ends with 1 on a blocker.
    #[command(
        after_help = "Examples:\n  blackstart-agent check\n  blackstart-agent check -o json | jq '.findings[] | select(.state == \"blocker\")'"
    )]
    Check(Asked),
    /// Keep the agent from using one remedy on this node, or any; also over its restart, a reboot, and without a coordinator.
    #[command(
        after_help = "Examples:\n  blackstart-agent hold --reason 'being looked at' --for 2h\n  blackstart-agent hold --remedy restart-unit --reason 'new kubelet'\n  blackstart-agent unhold --remedy restart-unit"
    )]
    Hold {
        /// The remedy, by the name that the ledger has for it [default: every one].
        #[arg(long, value_name = "REMEDY")]
        remedy: Option<String>,
        #[command(flatten)]
        why: hold::Why,
        #[command(flatten)]
        asked: Asked,
    },
    /// Lift a hold that was made on this node.
    #[command(
        after_help = "Examples:\n  blackstart-agent unhold\n  blackstart-agent unhold --remedy restart-unit"
    )]
    Unhold {
        /// The remedy that was held [default: every one].
        #[arg(long, value_name = "REMEDY")]
        remedy: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Silence this node: everything is seen and told, nothing is mended, and it counts neither for a storm nor for an outage.
    #[command(
        after_help = "Examples:\n  blackstart-agent silence --reason 'new disk' --for 4h\n  blackstart-agent unsilence"
    )]
    Silence {
        #[command(flatten)]
        why: hold::Why,
        #[command(flatten)]
        asked: Asked,
    },
    /// End the silence that was begun on this node.
    #[command(after_help = "Examples:\n  blackstart-agent unsilence")]
    Unsilence(Asked),
    /// Move every manifest of a static pod back that was set aside; for an agent that goes away for good, which has to be stopped.
    #[command(after_help = "Examples:\n  systemctl stop blackstart-agent && blackstart-agent put-back")]
    PutBack {
        /// Configuration file of the agent [default: /etc/blackstart/agent.yaml, if it is there].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Look at the ledger: every remedy that was begun on this node, and how it ended.
    #[command(subcommand)]
    Ledger(LedgerCommand),
}

#[derive(Debug, Args)]
struct Run {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Decide and record, change nothing; as `dry_run` in the file.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Gate {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Instead of holding: leave the mark of an orderly shutdown, if the machine is going down.
    #[arg(long)]
    mark_clean_shutdown: bool,
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Tell everything that is wrong with a file.
    Check {
        /// Configuration file.
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Show its records, oldest first. The agent may run meanwhile.
    Show {
        /// The ledger's file [default: the one of --config, else /var/lib/blackstart/ledger].
        #[arg(conflicts_with = "config")]
        path: Option<PathBuf>,
        /// Configuration file that says where the ledger is.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Form of the output.
        #[arg(short, long, value_enum, default_value_t = Form::Table)]
        output: Form,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

/// The exit codes beside success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did not work.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// No agent runs on this node.
    NotRunning = 3,
}

impl Exit {
    /// A failure that needs no advice.
    pub fn because(self, what: String) -> Failure {
        Failure {
            exit: self,
            what,
            advice: None,
            output: String::new(),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not work, and what to do next.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong.
    what: String,
    /// What to do next.
    advice: Option<String>,
    /// What there is to print all the same.
    pub output: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.advice {
            Some(advice) => write!(f, "\n{advice}"),
            None => Ok(()),
        }
    }
}

impl Cli {
    /// It runs until the machine goes down.
    pub fn lasts(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }

    /// It runs for a while and logs what it does; other commands only answer.
    pub fn logs(&self) -> bool {
        match self.command {
            Command::Run(_) | Command::Gate(_) => true,
            Command::Config(_)
            | Command::Join(_)
            | Command::Ledger(_)
            | Command::Status(_)
            | Command::Conditions(_)
            | Command::Remedies { .. }
            | Command::Explain { .. }
            | Command::Hold { .. }
            | Command::Unhold { .. }
            | Command::Silence { .. }
            | Command::Unsilence(_)
            | Command::PutBack { .. }
            | Command::Check(_) => false,
        }
    }

    /// Does it. Returns what to print.
    ///
    /// # Errors
    /// What did not work, with the exit code.
    pub async fn carry_out(self) -> Result<String, Failure> {
        match self.command {
            Command::Run(command) => {
                let beat = Beat::of_new_runtime();
                let settings = command.settings()?;
                let host = Arc::new(host(&settings));
                let stop = CancellationToken::new();
                let _watching = stop_on_signals(&stop)?;
                let (_reloading, reloads) = command.reload_on_signal()?;
                Box::pin(run_reloading(
                    settings,
                    host,
                    Notify::systemd(),
                    beat,
                    reloads,
                    stop,
                ))
                .await
                .map_err(|error| run_failure(&error))?;
                Ok(String::new())
            }
            Command::Gate(command) => command.carry_out().await,
            Command::Join(args) => Box::pin(join::carry_out(args)).await,
            Command::Config(Config::Check { file }) => check_config(&file),
            Command::Status(asked) => node::status(&asked).await,
            Command::Conditions(asked) => node::conditions(&asked).await,
            Command::Remedies { last, asked } => node::remedies(&asked, last).await,
            Command::Explain { condition, asked } => node::explained(&asked, &condition).await,
            Command::Check(asked) => check::check(&asked).await,
            Command::Hold { remedy, why, asked } => hold::hold(&asked, remedy, false, why).await,
            Command::Unhold { remedy, asked } => hold::lift(&asked, remedy, false).await,
            Command::Silence { why, asked } => hold::hold(&asked, None, true, why).await,
            Command::Unsilence(asked) => hold::lift(&asked, None, true).await,
            Command::PutBack { config } => put_back::put_back(config.as_deref()).await,
            Command::Ledger(LedgerCommand::Show { path, config, output }) => {
                let path = match (path, config) {
                    (Some(path), _) => path,
                    (None, Some(config)) => load(&config)?.ledger(),
                    (None, None) => Settings::for_node("").ledger(),
                };
                ledger::show(&path, output)
            }
        }
    }
}

impl Run {
    fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = load(&self.config)?;
        settings.dry_run |= self.dry_run;
        Ok(settings)
    }

    /// SIGHUP has the file read again. One with errors changes nothing; all of them are logged.
    fn reload_on_signal(self) -> Result<(AbortOnDropHandle<()>, mpsc::Receiver<Settings>), Failure> {
        let mut hangup = signal(SignalKind::hangup())
            .map_err(|error| Exit::Failed.because(format!("wait for signals: {error}")))?;
        let (send, reloads) = mpsc::channel(1);
        let task = async move {
            while hangup.recv().await.is_some() {
                info!(file = %self.config.display(), "asked to read the configuration again");
                match self.settings() {
                    Ok(settings) => {
                        if send.send(settings).await.is_err() {
                            return;
                        }
                    }
                    Err(failure) => error!(%failure, "the configuration in force stays as it is"),
                }
            }
        };
        Ok((AbortOnDropHandle::new(tokio::spawn(task)), reloads))
    }
}

impl Gate {
    async fn carry_out(self) -> Result<String, Failure> {
        let settings = load(&self.config)?;
        if self.mark_clean_shutdown {
            gate::mark_clean_shutdown_if_stopping(&settings, &host(&settings))
                .await
                .map_err(|error| Exit::Failed.because(causes(&error)))?;
            return Ok(String::new());
        }
        let stop = CancellationToken::new();
        let _watching = stop_on_signals(&stop)?;
        let notify = Notify::systemd();
        let mut told = String::new();
        let tell = |status: &gate::GateStatus| {
            if status.waiting_on != told {
                told.clone_from(&status.waiting_on);
                notify.status(&told);
            }
        };
        let (asked, node) = (settings.clone(), host(&settings));
        let look: gate::Look = Arc::new(move || preflight::check(&asked, &node));
        Box::pin(gate::hold_looking(&settings, look, stop, tell)).await;
        Ok(String::new())
    }
}

fn host(settings: &Settings) -> RealHost {
    let api_server = settings.api_server.as_ref().map(|probe| probe.target.clone());
    RealHost::new(settings.kubelet.target.clone(), api_server, None)
}

fn load(path: &Path) -> Result<Settings, Failure> {
    config::load(path).map_err(|error| Failure {
        exit: Exit::Usage,
        what: causes(&error),
        output: String::new(),
        advice: Some(match error {
            ConfigError::Read { .. } => {
                "name a file that can be read; deploy/agent.yaml is one with every default".to_owned()
            }
            ConfigError::Invalid(_) => format!(
                "correct it, and check it with: blackstart-agent config check {}",
                path.display()
            ),
        }),
    })
}

fn check_config(path: &Path) -> Result<String, Failure> {
    let settings = load(path)?;
    Rules::new(&settings.logs)
        .map_err(|error| Exit::Usage.because(format!("{}: logs: {error}", path.display())))?;
    well_placed(&settings.logs).map_err(|why| Exit::Usage.because(format!("{}: {why}", path.display())))?;
    let reports = settings.coordinator.as_ref().map_or_else(
        || "reports to nobody".to_owned(),
        |coordinator| {
            let addresses: Vec<_> = coordinator.addresses.iter().map(ToString::to_string).collect();
            format!("reports to {}", addresses.join(", "))
        },
    );
    let dry = if settings.dry_run { "; changes nothing" } else { "" };
    Ok(format!(
        "{}: valid\nnode {}; {reports}; restarts {}{dry}\n",
        path.display(),
        settings.node,
        settings.units.join(", ")
    ))
}

/// SIGTERM and Ctrl-C end it in order.
fn stop_on_signals(stop: &CancellationToken) -> Result<AbortOnDropHandle<()>, Failure> {
    let failed = |error| Exit::Failed.because(format!("wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = stop.clone();
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("asked to stop");
        stop.cancel();
    })))
}

fn run_failure(error: &RunError) -> Failure {
    let advice = match error {
        RunError::Ledger(LedgerError::Busy(_)) => {
            Some("stop the other one first; `systemctl status blackstart-agent` shows it".to_owned())
        }
        RunError::Ledger(LedgerError::Io { .. }) | RunError::Boot(_) => Some(
            "`state_dir` and `runtime_dir` of the configuration must be writable for the agent, which runs as root"
                .to_owned(),
        ),
        // Its message has the advice.
        RunError::Ledger(LedgerError::Damaged { .. } | LedgerError::Repeated { .. }) | RunError::BrokenOff => {
            None
        }
    };
    let what = match error {
        RunError::Boot(source) => format!("tell this boot's identity: {}", causes(source as &dyn Error)),
        RunError::Ledger(source) => causes(source as &dyn Error),
        RunError::BrokenOff => error.to_string(),
    };
    Failure {
        exit: Exit::Failed,
        what,
        advice,
        output: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::CommandFactory;

    use super::*;

    pub(super) async fn typed(line: &str) -> Result<String, Failure> {
        Cli::try_parse_from(line.split_whitespace())
            .unwrap()
            .carry_out()
            .await
    }

    #[test]
    fn every_example_in_the_help_can_be_typed() {
        Cli::command().debug_assert();
        let examples = EXAMPLES
            .lines()
            .filter_map(|line| line.strip_prefix("  blackstart-agent "));
        let mut count = 0;
        for example in examples {
            let words = example.split(['#', '|']).next().unwrap().split_whitespace();
            Cli::try_parse_from(["blackstart-agent"].into_iter().chain(words)).unwrap();
            count += 1;
        }
        assert!(count >= 5);
    }

    #[tokio::test]
    async fn a_valid_file_is_called_valid_and_everything_wrong_with_another_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.yaml");
        let check = format!("blackstart-agent config check {}", file.display());

        fs::write(&file, "node: worker-1\n").unwrap();
        let text = typed(&check).await.unwrap();
        assert!(text.contains("valid") && text.contains("worker-1"), "{text}");

        fs::write(&file, "node: 'a b'\nrestart: {restarts: many}\n").unwrap();
        let failure = typed(&check).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let text = failure.to_string();
        assert!(text.contains("node") && text.contains("restarts"), "{text}");

        let missing = typed(&format!("{check}.missing")).await.unwrap_err();
        assert_eq!(missing.exit, Exit::Usage);
        assert!(missing.to_string().contains("No such file"), "{missing}");
    }

    #[tokio::test]
    async fn an_agent_that_cannot_run_says_why_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(at("state")).unwrap();
        fs::write(at("state/ledger"), "no ledger at all").unwrap();
        fs::write(at("boot_id"), "boot").unwrap();
        let text = format!(
            "node: n\nstate_dir: {}\nruntime_dir: {}\nboot_id_file: {}\ndisks: []\n",
            at("state"),
            at("run"),
            at("boot_id")
        );
        fs::write(at("agent.yaml"), text).unwrap();
        let failure = typed(&format!("blackstart-agent run --config {}", at("agent.yaml")))
            .await
            .unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        let text = failure.to_string();
        assert!(
            text.contains("damaged at byte 0") && text.contains("move the file away"),
            "{text}"
        );
    }
}
