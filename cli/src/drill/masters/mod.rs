//! Drills of the chapters that are about masters themselves, where the API server may be what is down.
//!
//! ```text
//! seed ─► a chapter's script ─► rehearsal ─► chronicle ─► laws (pure) ─► report
//!                                  │ bed, real agents, a real coordinator, static pods run by stand-in kubelets; on a ground:
//!                                  ├─ processes: of this machine
//!                                  └─ nodes: of the testbed, containers with systemd
//! ```
//!
//! The laws are judged from what kubelets and health ports showed, from the manifests on the disk and from the agents' ledgers; the
//! coordinator's word counts for what it planned and for what it said to be missing.

mod bed;
mod chronicle;
mod control_plane;
pub(super) mod double;
mod etcd;
pub(super) mod exec;
mod kubelet;
mod laws;
mod machine;
mod nodes;
pub(super) mod part;
mod processes;
mod rehearsal;
mod report;
mod saboteur;
mod which;
mod witness;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blackstart_tests::docker::Docker;
use clap::{Args, ValueEnum};

use self::bed::Bed;
use self::chronicle::Chronicle;
pub(super) use self::laws::Law;
use self::nodes::Nodes;
use self::processes::Processes;
use self::rehearsal::Rehearsal;
use self::report::Report;
use self::saboteur::Sabotage;
use self::which::{INSTALL, INSTALLED, Which};
use super::power_loss::{Place, interrupted, keep_logs, to_keep};
use super::testbed;
use crate::failure::Failure;
use crate::output::{Output, note};

/// The cluster of the plan that processes are called after.
const CLUSTER: &str = "business";

/// How large a database is unless it is said, MiB.
const DATABASE: u32 = 8;

/// How a drill is asked for.
#[derive(Debug, Args)]
pub(super) struct MastersArgs {
    /// Which scenario: the same seed draws the same one [default: another each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// Where it is held
    #[arg(long, value_enum, default_value_t = On::Processes, value_name = "GROUND")]
    on: On,

    /// Write the report to a file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Keep everything that the drill wrote (ledgers, logs, store, certificates) in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// Break a law on purpose: the drill must find it
    #[arg(long, hide = true, value_enum)]
    sabotage: Option<Sabotage>,
}

/// Where a drill on masters is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum On {
    /// Static pods are processes of this machine; coordinator, agents and mTLS are real
    Processes,
    /// Real nodes: containers with systemd on this machine, static pods as kubeadm lays them out; needs root and Docker
    Testbed,
}

impl On {
    const fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Testbed => "testbed",
        }
    }
}

/// How a drill of etcd is asked for.
#[derive(Debug, Args)]
pub(super) struct EtcdArgs {
    #[command(flatten)]
    more: MastersArgs,

    /// The etcd that is run, with its etcdctl or etcdutl beside it; or `double` for the one in this program
    /// [default: /usr/bin/etcd where it is installed, otherwise `double`]
    #[arg(long, value_name = "PROGRAM")]
    etcd: Option<PathBuf>,

    /// How large its database is, MiB
    #[arg(long, value_name = "MIB", default_value_t = DATABASE, value_parser = clap::value_parser!(u32).range(1..=2048))]
    database: u32,
}

/// The etcd of a drill.
#[derive(Debug, Clone)]
struct Etcd {
    which: Which,
    /// What was asked for, as it was typed.
    asked: Option<PathBuf>,
    mib: u32,
}

/// A chapter that is rehearsed. A new one is a variant, a file, and a line in each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chapter {
    ControlPlane,
    EtcdMember,
    EtcdQuorum,
    EtcdAll,
}

impl Chapter {
    pub(super) const ALL: [Self; 4] = [
        Self::ControlPlane,
        Self::EtcdMember,
        Self::EtcdQuorum,
        Self::EtcdAll,
    ];

    /// The drill's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::EtcdMember => "etcd-member",
            Self::EtcdQuorum => "etcd-quorum",
            Self::EtcdAll => "etcd-all",
        }
    }

    /// As the operators' plan calls it.
    const fn title(self) -> &'static str {
        match self {
            Self::ControlPlane => "静态 Pod 故障",
            Self::EtcdMember | Self::EtcdQuorum | Self::EtcdAll => "etcd 节点故障",
        }
    }

    /// For `drill list`.
    pub(super) const fn rehearses(self) -> &'static str {
        match self {
            Self::ControlPlane => {
                "an API server hangs, a certificate expires, a controller manager does not start any more: named, bounced one at a time, stopped where that does not help"
            }
            Self::EtcdMember => {
                "an etcd member's database is damaged while others write: bounced, then replaced on its node, and nothing acknowledged is lost"
            }
            Self::EtcdQuorum => {
                "two of three members lose their data: restored from the one that is left by the word of two persons, and grown back to three"
            }
            Self::EtcdAll => {
                "all members lose their data: restored from what loses least by the word of two persons who were told what is lost, and that and no more is"
            }
        }
    }
}

/// Rehearses a chapter of etcd.
pub(super) async fn run_etcd(chapter: Chapter, args: EtcdArgs, output: &mut Output) -> Result<(), Failure> {
    let etcd = Etcd {
        which: Which::choose(args.etcd.clone(), Path::new(INSTALLED))?,
        asked: args.etcd,
        mib: args.database,
    };
    if let Some(told) = etcd.which.note() {
        note(told);
    }
    rehearse_and_report(chapter, args.more, Some(etcd), output).await
}

/// Rehearses another one. A drill that does not pass is [`Failure::RunDidNotSucceed`].
pub(super) async fn run(chapter: Chapter, args: MastersArgs, output: &mut Output) -> Result<(), Failure> {
    rehearse_and_report(chapter, args, None, output).await
}

async fn rehearse_and_report(
    chapter: Chapter,
    args: MastersArgs,
    etcd: Option<Etcd>,
    output: &mut Output,
) -> Result<(), Failure> {
    // Short enough to be typed again.
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..100_000));
    let chronicle = Box::pin(hold(chapter, &args, seed, etcd.as_ref())).await?;
    let mut report = Report::of(
        (chapter.name(), chapter.title()),
        args.on.name(),
        seed,
        &chronicle,
    );
    report.again = again(&args, seed, etcd.as_ref());
    report.etcd = etcd.as_ref().map(|etcd| etcd.which.told());
    report.kept = args.keep;
    if let Some(path) = &args.report {
        super::write(path, &report)?;
    }
    let marks = output.is_for_people();
    output.object("DrillReport", &report, |_| report.lines(marks))?;
    // Before whatever is told on standard error.
    output.flush()?;
    match report.failure() {
        None => Ok(()),
        Some(why) => Err(Failure::RunDidNotSucceed(why)),
    }
}

/// Options that hold the same drill once more.
fn again(args: &MastersArgs, seed: u64, etcd: Option<&Etcd>) -> String {
    let on = match args.on {
        On::Processes => None,
        On::Testbed => Some("--on testbed".to_owned()),
    };
    let program = etcd
        .and_then(|etcd| etcd.asked.as_ref())
        .map(|program| format!("--etcd {}", program.display()));
    let database = etcd
        .filter(|etcd| etcd.mib != DATABASE)
        .map(|etcd| format!("--database {}", etcd.mib));
    let options = [on, Some(format!("--seed {seed}")), program, database];
    options.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Holds it. Ctrl-C ends it early; whichever way it ends, nothing of it goes on.
async fn hold(
    chapter: Chapter,
    args: &MastersArgs,
    seed: u64,
    etcd: Option<&Etcd>,
) -> Result<Chronicle, Failure> {
    match args.on {
        On::Processes => on_processes((chapter, seed), args, etcd).await,
        On::Testbed => on_testbed((chapter, seed), args, etcd).await,
    }
}

async fn on_processes(
    what: (Chapter, u64),
    args: &MastersArgs,
    etcd: Option<&Etcd>,
) -> Result<Chronicle, Failure> {
    let place = Place::new(args.keep.as_deref(), 3)?;
    if let Place::Kept(dir) = &place {
        keep_logs(dir)?;
    }
    let program = match etcd.map(|etcd| &etcd.which) {
        None => None,
        Some(Which::Real(program)) => Some(program.clone()),
        Some(Which::Double) => {
            let made = double::programs(place.dir());
            Some(made.map_err(|error| Failure::other(format!("put a double of etcd in place: {error}")))?)
        }
    };
    let bed = Processes::start(&place, CLUSTER, program.as_deref())?;
    let held = tokio::select! {
        held = rehearse(what, bed, etcd, args.sabotage) => held,
        asked = interrupted() => Err(asked),
    };
    if let Err(failure) = &held {
        testbed::broken_off(failure);
    }
    held
}

/// The nodes are taken down, whichever way it ends.
async fn on_testbed(
    what: (Chapter, u64),
    args: &MastersArgs,
    etcd: Option<&Etcd>,
) -> Result<Chronicle, Failure> {
    let without = format!("blackstart drill {} --on processes", what.0.name());
    let program = match etcd.map(|etcd| &etcd.which) {
        None => None,
        Some(Which::Real(program)) => Some(program.as_path()),
        Some(Which::Double) => {
            return Err(Failure::Other {
                what: "nodes run a real etcd, and none is installed or the double was asked for".to_owned(),
                advice: Some(format!("{INSTALL}, or {without}")),
            });
        }
    };
    let cannot = |error| testbed::cannot(&error, &without);
    let keep = args.keep.as_deref().map(to_keep).transpose()?;
    let docker = Docker::find().await.map_err(cannot)?;
    // One for all of it: no signal falls between two.
    let mut asked = std::pin::pin!(interrupted());
    let raised = tokio::select! {
        biased;
        asked = &mut asked => Err(asked),
        raised = nodes::raise(&docker, program) => raised.map_err(cannot),
    };
    let masters = match raised {
        Ok(masters) => Arc::new(masters),
        Err(failure) => {
            testbed::clear(&docker).await;
            testbed::broken_off(&failure);
            return Err(failure);
        }
    };
    let held = match Nodes::bed(&masters) {
        Err(failure) => Err(failure),
        Ok(bed) => tokio::select! {
            biased;
            asked = &mut asked => Err(asked),
            held = Box::pin(rehearse(what, bed, etcd, args.sabotage)) => held,
        },
    };
    let kept = match &keep {
        Some(dir) => testbed::keep::all(masters.bed(), dir).await,
        None => Ok(()),
    };
    // Nobody else has them any more: what was held has ended.
    if let Some(masters) = Arc::into_inner(masters) {
        let down = masters.take_down().await;
        down.map_err(|error| testbed::left_standing(&error))?;
    }
    if let Err(failure) = &held {
        testbed::broken_off(failure);
    }
    kept.map_err(|error| Failure::other(format!("keep what the nodes wrote: {error:#}")))?;
    held
}

async fn rehearse(
    (chapter, seed): (Chapter, u64),
    bed: Bed,
    etcd: Option<&Etcd>,
    sabotage: Option<Sabotage>,
) -> Result<Chronicle, Failure> {
    let mut rehearsal = Rehearsal::begin(bed).await?;
    let mib = etcd.map_or(1, |etcd| usize::try_from(etcd.mib).unwrap_or(1));
    let kept = match chapter {
        Chapter::ControlPlane => {
            control_plane::hold(&mut rehearsal, seed, sabotage.is_none()).await?;
            None
        }
        Chapter::EtcdMember => Some(etcd::member(&mut rehearsal, seed, mib).await?),
        Chapter::EtcdQuorum => Some(etcd::quorum(&mut rehearsal, seed, mib).await?),
        Chapter::EtcdAll => Some(etcd::all(&mut rehearsal, seed, mib).await?),
    };
    if let Some(sabotage) = sabotage {
        saboteur::work(sabotage, &rehearsal.bed).await?;
    }
    rehearsal.end().await?;
    if sabotage == Some(Sabotage::RogueAgent) {
        saboteur::forge(&rehearsal.bed)?;
        let master = &rehearsal.bed.masters[0];
        let ledger = super::fleet::ledger(&master.name, &master.files.ledger)?;
        rehearsal.chronicle.ledgers[0].1 = ledger;
    }
    let Rehearsal {
        bed, mut chronicle, ..
    } = rehearsal;
    control_plane::look_at_manifests(&bed, &mut chronicle.manifests);
    etcd::look_at_manifests(&bed, &mut chronicle.manifests);
    if let Some(kept) = kept {
        chronicle.no_copy = etcd::look_for_copies(&bed, &kept.aside, kept.snapshots);
    }
    if let Some(sabotage) = sabotage {
        saboteur::tamper(sabotage, &mut chronicle);
    }
    Ok(chronicle)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: EtcdArgs,
    }

    /// What is typed, as the drill says that it is to be typed again.
    fn retyped(options: &str) -> String {
        let words = std::iter::once("drill").chain(options.split_whitespace());
        let EtcdArgs { more, etcd, database } = Typed::try_parse_from(words).unwrap().args;
        let etcd = Etcd {
            which: Which::Double,
            asked: etcd,
            mib: database,
        };
        again(&more, more.seed.unwrap_or(5), Some(&etcd))
    }

    #[test]
    fn what_makes_it_the_same_drill_is_in_the_words_that_hold_it_again() {
        assert_eq!(retyped(""), "--seed 5");
        assert_eq!(retyped("--database 8"), "--seed 5", "as if it were not said");
        assert_eq!(retyped("--report r.json --keep kept"), "--seed 5");
        let whole = "--on testbed --seed 7 --etcd /opt/etcd/etcd --database 256";
        assert_eq!(retyped(whole), whole);
        assert_eq!(retyped("--etcd double --seed 7"), "--seed 7 --etcd double");
    }

    #[test]
    fn one_without_etcd_says_nothing_of_it() {
        let args = Typed::try_parse_from(["drill", "--on", "testbed"]).unwrap().args;
        assert_eq!(again(&args.more, 9, None), "--on testbed --seed 9");
    }
}
