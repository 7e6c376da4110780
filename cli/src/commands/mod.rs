//! One file a command: its arguments, its examples, and what it does.

pub(crate) mod audit;
pub(crate) mod coldstart;
pub(crate) mod completion;
pub(crate) mod describe;
pub(crate) mod doctor;
pub(crate) mod etcd;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod heal;
pub(crate) mod hold;
pub(crate) mod inventory;
pub(crate) mod node;
pub(crate) mod permit;
pub(crate) mod pki;
pub(crate) mod runbook;
pub(crate) mod storm;
pub(crate) mod trust;
mod version;

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::cli::{Cli, Command, ConnectionArgs, Environment};
use crate::client::Fleet;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::{drill, settings};

/// Between two attempts to follow something again.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// A coordinator that is restarted, machine and all, is back by then.
const RETRY_FOR: Duration = Duration::from_mins(10);

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) connection: ConnectionArgs,
    pub(crate) environment: &'a Environment,
    pub(crate) output: &'a mut Output,
}

impl Context<'_> {
    async fn connect(&self) -> Result<Fleet, Failure> {
        let connection = settings::resolve(&self.connection, self.environment)?;
        if let Some(warning) = connection.shows.ends_soon(Timestamp::now()) {
            output::note(warning);
        }
        Fleet::connect(&connection, self.output.via()).await
    }

    /// The first coordinator that answers, whether it leads or not.
    async fn connect_to_any(&self) -> Result<Fleet, Failure> {
        let connection = settings::resolve(&self.connection, self.environment)?;
        Fleet::connect_to_any(&connection, self.output.via()).await
    }
}

pub(crate) async fn run(cli: Cli, environment: &Environment, output: &mut Output) -> Result<(), Failure> {
    let mut context = Context {
        connection: cli.connection,
        environment,
        output,
    };
    match cli.command {
        Command::Get(command) => get::run(command, &mut context).await,
        Command::Describe(command) => describe::run(command, &mut context).await,
        Command::Doctor(args) => Box::pin(doctor::run(&args, &mut context)).await,
        Command::Events(args) => events::run(&args, &mut context).await,
        Command::Coldstart(command) => Box::pin(coldstart::run(command, &mut context)).await,
        Command::Hold(args) => hold::hold(args, &mut context).await,
        Command::Unhold(args) => hold::unhold(args, &mut context).await,
        Command::Silence(args) => hold::silence(args, &mut context).await,
        Command::Unsilence(args) => hold::unsilence(args, &mut context).await,
        Command::Storm(command) => storm::run(command, &mut context).await,
        Command::Permit(command) => permit::run(command, &mut context).await,
        Command::Audit(command) => audit::run(command, &mut context).await,
        Command::Token(command) => trust::token(command, &mut context).await,
        Command::Certificate(command) => trust::certificate(command, &mut context).await,
        Command::Runbook(command) => Box::pin(runbook::run(command, &mut context)).await,
        Command::Maintenance(command) => runbook::maintenance(command, &mut context).await,
        Command::Drain(args) => runbook::drain(args, &mut context).await,
        Command::Pods(command) => heal::pods(command, &mut context).await,
        Command::Workload(command) => heal::workload(command, &mut context).await,
        Command::Etcd(command) => etcd::run(command, &mut context).await,
        Command::Node(command) => node::run(command, &mut context).await,
        Command::Drill(args) => drill::run(args, context.output).await,
        Command::Inventory(command) => inventory::run(&command, &mut context),
        Command::Pki(command) => pki::run(&command, &mut context),
        Command::Completion(args) => completion::run(&args, &mut context),
        Command::Version => version::run(&mut context),
    }
}

/// How long somebody who follows something has been without a coordinator.
#[derive(Debug, Default)]
struct Absence {
    since: Option<Instant>,
}

impl Absence {
    /// The coordinator spoke.
    fn over(&mut self) {
        if self.since.take().is_some() {
            output::note("the coordinator is back");
        }
    }

    /// Waits before the next attempt. What is no absence, or has lasted too long, is given back. A coordinator may well
    /// lose power with the fleet that it brings back, so those who follow it wait for its return.
    async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        let Failure::Unreachable(attempts) = &failure else {
            return Err(failure);
        };
        let now = Instant::now();
        if self.since.is_none() {
            let why = attempts
                .iter()
                .map(|attempt| format!("{}: {}", attempt.address, attempt.why));
            output::note(format_args!(
                "lost the coordinator ({}); trying again for {}m",
                why.collect::<Vec<_>>().join("; "),
                RETRY_FOR.as_secs() / 60
            ));
        }
        if now - *self.since.get_or_insert(now) > RETRY_FOR {
            return Err(failure);
        }
        tokio::time::sleep(RETRY_EVERY).await;
        Ok(())
    }
}

/// `; did you mean X?`, or how to see what there is.
fn meant(name: &str, known: &[String], list: &str) -> String {
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    match blackstart_proto::yaml::nearest(name, &known) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => list.to_owned(),
    }
}
