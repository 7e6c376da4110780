//! `blackstart token`, `blackstart node` and `blackstart certificate`: who is let in.

use std::time::Duration;

use blackstart_coordinator::pki::own::{self, NextKey};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Context, pki};
use crate::cli::duration;
use crate::failure::Failure;
use crate::output::{self, trust};
use crate::settings::{self, Shows};

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token by which nodes join; tells what to type on them
    #[command(after_help = "\
Examples:
  blackstart token create --node biz-4                        for this node alone, and once
  blackstart token create --cluster biz --count 20 --ttl 2h   for 20 nodes of a cluster that have not joined yet
  blackstart token create --count 3 -o json | jq -r .join

The secret is told this once, and kept nowhere. Only a token that names its node takes the place of an identity that is there.")]
    Create(CreateArgs),
    /// Tokens that are good, and those that were lately
    #[command(after_help = "Examples:\n  blackstart token list\n  blackstart token list -o json")]
    List,
    /// Take a token back; who has joined by it stays
    #[command(after_help = "Examples:\n  blackstart token revoke 1a2b3c4d")]
    Revoke {
        /// What stands before the dot
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// For whom, how often and how long.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// For this node only
    #[arg(long, value_name = "NAME", conflicts_with = "cluster")]
    node: Option<String>,
    /// For nodes of this cluster only
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// For so many nodes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// It cannot be used after so long
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// Why: stands beside it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// What is done about a node's identity.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Have no certificate of a node count any more, and cut its session
    #[command(after_help = "\
Examples:
  blackstart node revoke biz-4 --reason 'disk was sold'

It comes back with a token that is made for it after this: blackstart token create --node biz-4, and there blackstart-agent join … --anew")]
    Revoke(NamedArgs),
    /// Let a node renew its certificate that ended before the grace; for a day
    #[command(after_help = "Examples:\n  blackstart node allow-renewal biz-4 --reason 'was dark since May'")]
    AllowRenewal(NamedArgs),
}

/// Which, and why.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// The node
    #[arg(value_name = "NODE")]
    name: String,
    /// Why: stands in the events
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// What is done with certificates.
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// What nodes were given by joining and renewing
    #[command(after_help = "\
Examples:
  blackstart certificate list
  blackstart certificate list --revoked
  blackstart certificate list --node biz-4 -o json

Those that `blackstart pki` made are not here, but where they are revoked.")]
    List(ListArgs),
    /// Renew your own operator certificate, with a key that is made here; in the last 90 days before its end
    #[command(after_help = "\
Examples:
  blackstart certificate renew
  blackstart certificate renew --tls-cert ann.crt --tls-key ann.key

Certificate and key are replaced where they are. The older certificate stays good until its end: revoke it by its number if somebody else may
have its key.")]
    Renew,
    /// Have a certificate count no more, and cut connections of its holder
    #[command(after_help = "\
Examples:
  blackstart certificate revoke 4f0c33…     --reason 'copied'     one, by its number
  blackstart certificate revoke operator/ann --reason 'has left'  all of a person
  blackstart certificate revoke coordinator/standby --reason 'taken down'")]
    Revoke(RevokeArgs),
}

/// Which.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of this node only
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// What is revoked, instead
    #[arg(long)]
    revoked: bool,
}

/// Which, and why.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// A certificate's number, or node/NAME, operator/NAME or coordinator/NAME
    #[arg(value_name = "NUMBER|ROLE/NAME")]
    what: String,
    /// Why: stands in the events
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// As it is on the wire.
fn subject(what: &str) -> String {
    if what.starts_with("blackstart://") || what.starts_with("serial:") {
        what.to_owned()
    } else if what.contains('/') {
        format!("blackstart://{what}")
    } else {
        format!("serial:{what}")
    }
}

pub(super) async fn token(command: TokenCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    match command {
        TokenCommand::Create(args) => {
            let made = fleet.create_token(args.ttl, args.node, args.cluster, args.count, args.reason);
            let made = made.await?;
            Ok(context.output.object("NewToken", &made, |_| trust::made(&made))?)
        }
        TokenCommand::List => {
            let tokens = fleet.tokens().await?;
            Ok(context.output.list(&tokens, Timestamp::now())?)
        }
        TokenCommand::Revoke { id } => {
            let tokens = fleet.revoke_token(&id).await?;
            let taken: Vec<_> = tokens.into_iter().filter(|token| token.id == id).collect();
            Ok(context.output.list(&taken, Timestamp::now())?)
        }
    }
}

pub(super) async fn node(command: NodeCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    match command {
        NodeCommand::Revoke(NamedArgs { name, reason }) => {
            let subject = format!("blackstart://node/{name}");
            let revoked = fleet.revoke(&subject, &reason).await?;
            Ok(context
                .output
                .object("Revocation", &revoked, |_| trust::revoked(&revoked))?)
        }
        NodeCommand::AllowRenewal(NamedArgs { name, reason }) => {
            let certificate = fleet.allow_renewal(&name, &reason).await?;
            Ok(context.output.list(&[certificate], Timestamp::now())?)
        }
    }
}

pub(super) async fn certificate(
    command: CertificateCommand,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    if matches!(command, CertificateCommand::Renew) {
        return renew(context).await;
    }
    let mut fleet = context.connect().await?;
    match command {
        CertificateCommand::Renew => Ok(()),
        CertificateCommand::List(ListArgs { node, revoked }) => {
            let (certificates, revocations) = fleet.certificates(node.as_deref()).await?;
            let now = Timestamp::now();
            if revoked {
                Ok(context.output.list(&revocations, now)?)
            } else {
                Ok(context.output.list(&certificates, now)?)
            }
        }
        CertificateCommand::Revoke(RevokeArgs { what, reason }) => {
            let revoked = fleet.revoke(&subject(&what), &reason).await?;
            Ok(context
                .output
                .object("Revocation", &revoked, |_| trust::revoked(&revoked))?)
        }
    }
}

/// The operator's own: the key never leaves this machine.
async fn renew(context: &mut Context<'_>) -> Result<(), Failure> {
    let connection = settings::resolve(&context.connection, context.environment)?;
    let Shows::Certificate(files) = connection.shows else {
        return Err(Failure::usage(
            "a token is shown, and its identity provider renews it; there is no certificate to renew"
                .to_owned(),
        ));
    };
    own::finish(&files)?;
    let mut fleet = context.connect().await?;
    let key = NextKey::make(&files)?;
    let (certificate, authorities) = fleet.renew_operator(key.request()).await?;
    if key.take(&files, &certificate, &authorities)? {
        output::note(format!(
            "other authorities are trusted from now on: {}",
            files.ca.display()
        ));
    }
    pki::told(&files.certificate, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revoked_may_be_written_short() {
        for (typed, sent) in [
            ("4f0c33", "serial:4f0c33"),
            ("serial:4f0c33", "serial:4f0c33"),
            ("operator/ann", "blackstart://operator/ann"),
            ("blackstart://node/n", "blackstart://node/n"),
        ] {
            assert_eq!(subject(typed), sent);
        }
    }
}
