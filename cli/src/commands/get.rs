//! `blackstart get`: lists, and watches lists.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Absence, Context, meant};
use crate::client::{Fleet, Scope};
use crate::failure::Failure;
use crate::output::lists::{Appended, Listed};
use crate::output::{Change, Format};
use crate::view::{Cluster, Condition, Coordinator, Hold, Node, Permit, Remedy, Run, Storm};

/// Between two looks of `--watch`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What can be listed.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  blackstart get nodes
  blackstart get nodes -o wide --cluster business
  blackstart get conditions -w
  blackstart get runs -o json

A configuration file, ~/.config/blackstart/config.yaml; paths are relative to it:
  context: lab
  contexts:
    - name: lab
      addresses: [\"10.128.38.100:7443\"]
      ca: ca.crt
      certificate: ann.crt
      key: ann.key")]
pub enum GetCommand {
    /// Clusters: how much of each is ready, held or silent
    #[command(visible_aliases = ["cluster", "cl"])]
    #[command(after_help = "\
Examples:
  blackstart get clusters
  blackstart get cluster business -o yaml")]
    Clusters(NamedArgs),
    /// Nodes: phase, conditions, and what each waits on
    #[command(visible_aliases = ["node", "no"])]
    #[command(after_help = "\
Examples:
  blackstart get nodes
  blackstart get nodes --cluster business -o wide
  blackstart get node biz-4 -w")]
    Nodes(NodesArgs),
    /// Standing findings about nodes
    #[command(visible_aliases = ["condition", "cond"])]
    #[command(after_help = "\
Examples:
  blackstart get conditions
  blackstart get conditions biz-4
  blackstart get cond --cluster business -w")]
    Conditions(ScopedArgs),
    /// What the agents did by themselves or were told to
    #[command(visible_aliases = ["remedy", "rem"])]
    #[command(after_help = "\
Examples:
  blackstart get remedies
  blackstart get remedies --node biz-4 -o wide")]
    Remedies(ScopedArgs),
    /// Runs: cold starts, rejoins and runbooks
    #[command(visible_aliases = ["run"])]
    #[command(after_help = "\
Examples:
  blackstart get runs
  blackstart get run cold-start-3 -o json
  blackstart get run drain-2")]
    Runs(NamedArgs),
    /// What operators hold and silence
    #[command(visible_aliases = ["hold"])]
    #[command(after_help = "\
Examples:
  blackstart get holds
  blackstart get holds --node biz-4 -o json")]
    Holds(ScopedArgs),
    /// Conditions that are frozen across a cluster
    #[command(visible_aliases = ["storm"])]
    #[command(after_help = "\
Examples:
  blackstart get storms
  blackstart get storms -w")]
    Storms(NamedArgs),
    /// Who may do something disruptive now, and who waits for that
    #[command(visible_aliases = ["permit"])]
    #[command(after_help = "\
Examples:
  blackstart get permits
  blackstart get permits --cluster business -o wide
  blackstart get permits -w")]
    Permits(ScopedArgs),
    /// Coordinators, and which of them leads
    #[command(visible_aliases = ["coordinator", "co"])]
    #[command(after_help = "\
Examples:
  blackstart get coordinators
  blackstart get coordinators -w")]
    Coordinators(NamedArgs),
}

/// Of clusters and runs.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// Only this one
    name: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Of nodes.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// Only this one
    name: Option<String>,
    /// Only those of this cluster
    #[arg(short, long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Of conditions and remedies.
#[derive(Debug, Args)]
pub struct ScopedArgs {
    /// Only those of this node
    #[arg(value_name = "NODE", conflicts_with = "node")]
    name: Option<String>,
    /// Only those of this node
    #[arg(short, long, value_name = "NAME")]
    node: Option<String>,
    /// Only those of this cluster
    #[arg(short, long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Clone, Copy, Args)]
struct WatchArgs {
    /// Go on with what changes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

/// A resource that the coordinator lists.
trait Fetched: Listed {
    /// A coordinator that follows knows it as well.
    const OF_ANY: bool = false;

    async fn connect(context: &Context<'_>) -> Result<Fleet, Failure> {
        if Self::OF_ANY {
            context.connect_to_any().await
        } else {
            context.connect().await
        }
    }

    async fn fetch(fleet: &mut Fleet, scope: &Scope) -> Result<Vec<Self>, Failure>;
}

impl Fetched for Coordinator {
    const OF_ANY: bool = true;

    async fn fetch(fleet: &mut Fleet, _scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.coordinators().await
    }
}

impl Fetched for Cluster {
    async fn fetch(fleet: &mut Fleet, _scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.clusters().await
    }
}

impl Fetched for Node {
    async fn fetch(fleet: &mut Fleet, scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.nodes(scope.cluster.as_deref()).await
    }
}

impl Fetched for Condition {
    async fn fetch(fleet: &mut Fleet, scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.conditions(scope).await
    }
}

impl Fetched for Remedy {
    async fn fetch(fleet: &mut Fleet, scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.remedies(scope).await
    }
}

impl Fetched for Run {
    async fn fetch(fleet: &mut Fleet, _scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.all_runs().await
    }
}

impl Fetched for Hold {
    async fn fetch(fleet: &mut Fleet, scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.holds(scope).await
    }
}

impl Fetched for Storm {
    async fn fetch(fleet: &mut Fleet, _scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.storms().await
    }
}

impl Fetched for Permit {
    async fn fetch(fleet: &mut Fleet, scope: &Scope) -> Result<Vec<Self>, Failure> {
        fleet.permits(scope).await
    }
}

/// What is asked for: a whole list, or one of it.
struct Query {
    scope: Scope,
    name: Option<String>,
    watch: bool,
}

pub(super) async fn run(command: GetCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let scoped = |args: ScopedArgs| Query {
        scope: Scope {
            cluster: args.cluster,
            node: args.node.or(args.name),
        },
        name: None,
        watch: args.watch.watch,
    };
    let named = |args: NamedArgs| Query {
        scope: Scope::default(),
        name: args.name,
        watch: args.watch.watch,
    };
    match command {
        GetCommand::Clusters(args) => get::<Cluster>(named(args), context).await,
        GetCommand::Nodes(NodesArgs { name, cluster, watch }) => {
            let scope = Scope { cluster, node: None };
            get::<Node>(
                Query {
                    scope,
                    name,
                    watch: watch.watch,
                },
                context,
            )
            .await
        }
        GetCommand::Conditions(args) => get::<Condition>(scoped(args), context).await,
        GetCommand::Remedies(args) => get::<Remedy>(scoped(args), context).await,
        GetCommand::Runs(args) => get::<Run>(named(args), context).await,
        GetCommand::Holds(args) => get::<Hold>(scoped(args), context).await,
        GetCommand::Storms(args) => get::<Storm>(named(args), context).await,
        GetCommand::Permits(args) => get::<Permit>(scoped(args), context).await,
        GetCommand::Coordinators(args) => get::<Coordinator>(named(args), context).await,
    }
}

async fn get<R: Fetched>(query: Query, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut fleet = R::connect(context).await?;
    check_scope(&mut fleet, &query.scope).await?;
    let items = look::<R>(&mut fleet, &query).await?;
    if query.watch {
        return watch(items, fleet, &query, context).await;
    }
    match (&query.name, &items[..]) {
        (Some(_), [only]) => context.output.one(only, Timestamp::now())?,
        (_, all) => context.output.list(all, Timestamp::now())?,
    }
    Ok(())
}

/// The coordinator answers an unknown cluster or node with an empty list; an operator would read that as "all is well".
async fn check_scope(fleet: &mut Fleet, scope: &Scope) -> Result<(), Failure> {
    check_clusters(fleet, scope.cluster.as_slice()).await?;
    if let Some(name) = &scope.node {
        let known: Vec<_> = fleet
            .nodes(None)
            .await?
            .into_iter()
            .map(|node| node.name)
            .collect();
        if !known.contains(name) {
            let advice = Some(meant(name, &known, "blackstart get nodes"));
            return Err(Failure::NotFound {
                what: "node",
                name: name.clone(),
                advice,
            });
        }
    }
    Ok(())
}

/// Every one of `names` is a cluster.
pub(super) async fn check_clusters(fleet: &mut Fleet, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let known: Vec<_> = fleet
        .clusters()
        .await?
        .into_iter()
        .map(|cluster| cluster.name)
        .collect();
    match names.iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let advice = Some(meant(name, &known, "blackstart get clusters"));
            Err(Failure::NotFound {
                what: "cluster",
                name: name.clone(),
                advice,
            })
        }
    }
}

async fn look<R: Fetched>(fleet: &mut Fleet, query: &Query) -> Result<Vec<R>, Failure> {
    let mut items = R::fetch(fleet, &query.scope).await?;
    if let Some(name) = &query.name {
        let known: Vec<_> = items.iter().map(R::key).collect();
        items.retain(|item| item.key() == *name);
        if items.is_empty() {
            let advice = Some(meant(name, &known, &format!("blackstart get {}", R::PLURAL)));
            return Err(Failure::NotFound {
                what: R::NOUN,
                name: name.clone(),
                advice,
            });
        }
    }
    Ok(items)
}

async fn watch<R: Fetched>(
    first: Vec<R>,
    fleet: Fleet,
    query: &Query,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let mut fleet = Some(fleet);
    let mut absence = Absence::default();
    let mut appended = Appended::default();
    let mut seen: Vec<R> = Vec::new();
    let mut items = first;
    loop {
        let changed = changes(&seen, &items);
        match context.output.format() {
            Format::Table | Format::Wide if !changed.is_empty() => {
                let lines = appended.lines(&changed, context.output.is_wide(), Timestamp::now());
                context.output.lines(&lines)?;
                context.output.flush()?;
            }
            Format::Table | Format::Wide => {}
            Format::Json | Format::Yaml => {
                for (change, item) in &changed {
                    context.output.change(*change, item)?;
                }
            }
        }
        seen = items;
        items = loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = match &mut fleet {
                Some(fleet) => look(fleet, query).await,
                None => match R::connect(context).await {
                    Ok(again) => look(fleet.insert(again), query).await,
                    Err(failure) => Err(failure),
                },
            };
            match looked {
                Ok(items) => {
                    absence.over();
                    break items;
                }
                Err(failure) => {
                    fleet = None;
                    absence.wait(failure).await?;
                }
            }
        };
    }
}

/// What differs between two looks, apart from what grows by itself.
fn changes<R: Listed>(before: &[R], now: &[R]) -> Vec<(Change, R)> {
    let old: HashMap<_, _> = before.iter().map(|item| (item.key(), item)).collect();
    let current: HashSet<_> = now.iter().map(R::key).collect();
    let news = now.iter().filter_map(|item| match old.get(&item.key()) {
        None => Some((Change::Added, item.clone())),
        Some(old) if old.settled() != item.settled() => Some((Change::Changed, item.clone())),
        Some(_) => None,
    });
    let gone = before
        .iter()
        .filter(|item| !current.contains(&item.key()))
        .map(|item| (Change::Gone, item.clone()));
    news.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Severity;

    fn condition(subject: &str, standing_ms: u64, escalated: bool) -> Condition {
        Condition {
            node: "biz-4".into(),
            cluster: "business".into(),
            kind: "UnitFailed".into(),
            subject: subject.into(),
            severity: Severity::Critical,
            standing_ms,
            evidence: "exit code 1".into(),
            escalated,
            silenced: false,
            waiting_on: None,
        }
    }

    #[test]
    fn what_a_condition_is_does_not_stand_where_the_kind_of_the_object_does() {
        let json = serde_json::to_value(condition("docker.service", 5, false)).unwrap();
        assert!(
            json.get("kind").is_none() && json["condition"].is_string(),
            "{json}"
        );
    }

    #[test]
    fn growing_older_is_no_change() {
        let before = [
            condition("a", 1_000, false),
            condition("b", 1_000, false),
            condition("c", 1_000, false),
        ];
        let now = [
            condition("a", 2_000, false),
            condition("b", 2_000, true),
            condition("d", 0, false),
        ];
        let seen: Vec<_> = changes(&before, &now)
            .into_iter()
            .map(|(change, item)| (change.word(), item.subject))
            .collect();
        assert_eq!(
            seen,
            [
                ("CHANGED", "b".into()),
                ("ADDED", "d".into()),
                ("GONE", "c".to_owned())
            ]
        );
    }
}
