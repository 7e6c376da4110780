//! `join`: this node's certificate and configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use blackstart_proto::machine::MACHINE_ID;
use clap::Args;
use jiff::Timestamp;

use super::{Exit, Failure};
use crate::causes::causes;
use crate::enrol::EnrolError;
use crate::enrol::join::{Join, join};

/// Where, by what right, and as whom.
#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// A coordinator; several are tried in turn.
    #[arg(value_name = "IP:PORT", required = true, value_parser = address)]
    addresses: Vec<SocketAddr>,
    /// What `blackstart token create` told. Better in the environment: others see what is typed.
    #[arg(long, value_name = "TOKEN", env = "BLACKSTART_TOKEN", hide_env_values = true)]
    token: String,
    /// By what the coordinator is known, as `blackstart token create` told it.
    #[arg(long, value_name = "sha256:HEX")]
    ca_hash: String,
    /// This node's name in the inventory [default: the machine's name].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The configuration to write; one that is there stays as it is.
    #[arg(long, value_name = "FILE", default_value = "/etc/blackstart/agent.yaml")]
    config: PathBuf,
    /// The agent's state directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/blackstart")]
    state_dir: PathBuf,
    /// Where the machine's id is.
    #[arg(long, value_name = "FILE", default_value = MACHINE_ID, hide = true)]
    machine_id: PathBuf,
    /// Take the place of a certificate that is there, with a new key.
    #[arg(long)]
    anew: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an address and port such as 10.0.0.1:7443 (not a name: DNS may be down when it is needed)"
            .to_owned()
    })
}

pub(super) async fn carry_out(args: JoinArgs) -> Result<String, Failure> {
    let node = match args.node {
        Some(node) => node,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap_or_default()
            .trim()
            .to_owned(),
    };
    let config = args.config.clone();
    let joined = join(Join {
        addresses: args.addresses,
        token: args.token,
        ca_hash: args.ca_hash,
        node: node.clone(),
        state_dir: args.state_dir,
        config: args.config,
        machine_id: args.machine_id,
        anew: args.anew,
    })
    .await
    .map_err(|error| failure(&error))?;
    let until = i64::try_from(joined.ends)
        .ok()
        .and_then(|ends| Timestamp::from_second(ends).ok());
    let until = until.map_or_else(String::new, |until| {
        format!(
            ", valid until {}; the agent renews it",
            until.strftime("%Y-%m-%d")
        )
    });
    let (config, next) = (
        config.display(),
        "start both: systemctl enable --now blackstart-agent blackstart-gate",
    );
    let configured = match joined.config {
        Some(_) => format!("  configuration  {config}\n"),
        None => format!(
            "{config} stays as it is; it must say node: {node}, and under coordinator: ca: {}, certificate: {}, key: {}\n",
            joined.files.ca.display(),
            joined.files.certificate.display(),
            joined.files.key.display()
        ),
    };
    Ok(format!(
        "node {node} of cluster {}, {}\n  certificate    {}{until}\n  key            {}\n{configured}{next}\n",
        joined.cluster,
        joined.role,
        joined.files.certificate.display(),
        joined.files.key.display(),
    ))
}

fn failure(error: &EnrolError) -> Failure {
    let (exit, advice) = match error {
        EnrolError::Usage(_) => (Exit::Usage, None),
        EnrolError::File { .. } => (
            Exit::Failed,
            Some("it is to be run as root, or as the agent's user"),
        ),
        EnrolError::Unusable { .. } => (Exit::Failed, Some("move the file away, and join again")),
        EnrolError::Unreachable(_) => (
            Exit::Failed,
            Some("is a coordinator running there, and the port let through? Nothing was used up: join again"),
        ),
        EnrolError::Stranger { .. } => (
            Exit::Failed,
            Some(
                "it was told nothing. Is the digest the one that `blackstart token create` told? Or is it another fleet's?",
            ),
        ),
        EnrolError::Refused(_) => (
            Exit::Failed,
            Some("blackstart token list shows what each token is for"),
        ),
        EnrolError::NotServed(_) => (
            Exit::Failed,
            Some("`enrolment` in the coordinator's configuration has it issue certificates"),
        ),
        EnrolError::Answer(_) => (Exit::Failed, None),
    };
    Failure {
        exit,
        what: causes(error),
        advice: advice.map(str::to_owned),
        output: String::new(),
    }
}
