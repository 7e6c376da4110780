//! `blackstart doctor`.

use std::path::{Path, PathBuf};

use blackstart_coordinator::pki::Seen;
use clap::Args;
use jiff::Timestamp;

use super::Context;
use crate::client;
use crate::doctor::{Level, Observed, examine, fleet, machine};
use crate::failure::Failure;
use crate::output::doctor::{Report, lines};
use crate::output::words::count;
use crate::settings;
use crate::view::Certificate;

const EXAMPLES: &str = "\
Examples:
  blackstart doctor                            on the coordinator's machine, as root, it looks at its files too
  blackstart doctor -o json | jq '.findings[] | select(.level == \"wrong\")'

Ends with 1 if something is wrong; warnings alone end with 0.";

/// Where to look.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// The coordinator's configuration, if this is its machine
    #[arg(long, value_name = "FILE", default_value = machine::CONFIG)]
    coordinator_config: PathBuf,
}

pub(super) async fn run(args: &DoctorArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let connection = settings::resolve(&context.connection, context.environment)?;
    let read = |path: &Path| {
        Seen::read(path)
            .map(Certificate::from)
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    let own = connection.shows.certificates().into_iter().map(read).collect();
    let fleet = match ask(context).await {
        Ok(fleet) => Ok(fleet),
        Err(failure) => {
            let fix = failure.details().join("; ");
            Err((failure.to_string(), fix))
        }
    };
    let file = args.coordinator_config.clone();
    let machine = tokio::task::spawn_blocking(move || machine::look(&file))
        .await
        .map_err(|error| Failure::other(format!("look at the coordinator's files: {error}")))?;
    let findings = examine(&Observed {
        now: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION"),
        own,
        fleet,
        machine,
    });
    let report = Report { findings };
    context
        .output
        .object("DoctorReport", &report, |_| lines(&report.findings))?;
    match report.of(Level::Wrong) {
        0 => Ok(()),
        wrong => Err(Failure::other(format!(
            "{} wrong",
            count(wrong, "thing") + if wrong == 1 { " is" } else { " are" }
        ))),
    }
}

async fn ask(context: &mut Context<'_>) -> Result<fleet::Fleet, Failure> {
    let mut fleet: client::Fleet = context.connect().await?;
    let coordinators = fleet.coordinators().await?;
    let mut nodes = Vec::new();
    for node in fleet.nodes(None).await? {
        nodes.push(fleet.node(&node.name).await?);
    }
    let (certificates, _) = fleet.certificates(None).await?;
    Ok(fleet::Fleet {
        address: fleet.address(),
        coordinators,
        nodes,
        certificates,
    })
}
