//! `blackstart drill power-loss --on testbed`: the same drill on real nodes, containers with systemd, disks of their own and a
//! power that can be cut.
//!
//! ```text
//! bed up ─► cut: every node's disk and init, and the coordinator ─► power back, one by one, as drawn, one worker never
//!        ─► its runs followed to their end ─► journals and ledgers of the nodes ─► history ─► laws
//!        └─► whatever happens: the bed down
//! ```
//!
//! One cluster, of three masters. What is judged is read from the nodes themselves ([`witness`]): they share one monotonic
//! clock, this machine's, so their journals can be laid side by side.

pub(super) mod keep;
mod witness;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use blackstart_proto::tls::TlsFiles;
use blackstart_tests::bed::{self, Bed, Wish};
use blackstart_tests::coordinator::program;
use blackstart_tests::docker::Docker;
use blackstart_tests::settings::Yaml;
use blackstart_tests::topology::MOST_NODES;
use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::history::History;
use super::power_loss::{clusters, interrupted, serving, to_keep};
use super::saboteur::Saboteur;
use super::scenario::{Lost, PowerLoss};
use super::seen::{Seen, Settling, millis, ticker};
use super::show::{Scene, Show, Stage};
use super::topology::{MASTERS, Topology};
use super::{Sabotage, follow};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::settings::{Connection, Shows};
pub(super) use witness::LEDGER;
use witness::Witness;

/// The bed of this command. Two drills on one machine take turns.
pub(super) const BED: &str = "drill";
/// Nodes in all, unless told otherwise.
const NODES: usize = 6;
/// Two workers, of which one can be lost.
const LEAST: usize = MASTERS + 2;
/// Real machines take so many times longer than simulated ones.
const SLOWER: u32 = 2;
/// A node is given up when it has not come back within this of its turn: well above the time in which those that return do.
const RETURN_DEADLINE: Duration = Duration::from_secs(15);
/// Containers of one machine share its processors: each makes all boot later.
const EACH_NODE: Duration = Duration::from_secs(1);
/// Nodes that are not up, or a cold start that is not over, so long after they should be (and more for each node) never will be.
const UP_WITHIN: Duration = Duration::from_mins(2);
const OVER_WITHIN: Duration = Duration::from_mins(3);
/// What nodes and bed run, built beside this command.
pub(super) const PROGRAMS: [&str; 3] = ["blackstart-agent", "blackstart-coordinator", "stand-in-kubelet"];

/// What is to be held.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) workers: u8,
    pub(super) seed: u64,
    pub(super) sabotage: Option<Sabotage>,
    /// Where what the nodes wrote is left, if anywhere.
    pub(super) keep: Option<PathBuf>,
}

/// How many workers a bed of so many nodes has; refuses what only simulated machines can be asked for.
pub(super) fn workers(
    clusters: &[String],
    nodes: Option<usize>,
    sabotage: Option<Sabotage>,
) -> Result<u8, Failure> {
    let usage = |what: String, advice: String| Failure::Usage {
        what,
        advice: Some(advice),
    };
    if !clusters.is_empty() {
        return Err(usage(
            "--clusters chooses of the drill plan, and the testbed is one cluster of its own".to_owned(),
            "leave it out, or use --on sim".to_owned(),
        ));
    }
    match sabotage {
        Some(Sabotage::EarlyMaster) => {
            return Err(usage(
                "a master of the testbed cannot be early: its cluster depends on no other".to_owned(),
                "--sabotage early-worker, or --on sim".to_owned(),
            ));
        }
        Some(Sabotage::EarlyWorker) | None => {}
    }
    let nodes = nodes.unwrap_or(NODES);
    let most = usize::from(MOST_NODES);
    u8::try_from(nodes.saturating_sub(MASTERS))
        .ok()
        .filter(|_| (LEAST..=most).contains(&nodes))
        .ok_or_else(|| {
            usage(
                format!("the testbed cannot have {nodes} nodes: three are masters, one worker is lost, and one has to be left"),
                format!("--nodes {LEAST} to {most}"),
            )
        })
}

/// Holds it. Whichever way it ends, the bed is taken down.
pub(super) async fn hold(order: &Order, output: &mut Output) -> Result<History, Failure> {
    let keep = order.keep.as_deref().map(to_keep).transpose()?;
    let cannot = |error| cannot(&error, "blackstart drill power-loss --on sim");
    let docker = Docker::find().await.map_err(cannot)?;
    for name in PROGRAMS {
        program(name).map_err(cannot)?;
    }
    // One for all of it: no signal falls between two.
    let mut asked = std::pin::pin!(interrupted());
    let nodes = MASTERS + usize::from(order.workers);
    note(format_args!(
        "testbed: raising {MASTERS} masters and {} workers: containers with systemd, on network blackstart-{BED}",
        order.workers
    ));
    let wish = wish(order.workers);
    let raised = tokio::select! {
        biased;
        asked = &mut asked => Err(asked),
        raised = Bed::raise(&docker, BED, &wish) => raised.map_err(cannot),
    };
    let bed = match raised {
        Ok(bed) => bed,
        Err(failure) => {
            // What was made so far removed itself, but for what the engine was still at.
            clear(&docker).await;
            broken_off(&failure);
            return Err(failure);
        }
    };
    note(format_args!("testbed: {nodes} nodes have booted"));
    let mut show = Show::new(output);
    let held = tokio::select! {
        biased;
        asked = &mut asked => Err(asked),
        held = Box::pin(rehearse(order, &bed, &mut show, output)) => held,
    };
    let shown = show.end(output);
    let kept = match &keep {
        Some(dir) => keep::all(&bed, dir).await,
        None => Ok(()),
    };
    bed.take_down().await.map_err(|error| left_standing(&error))?;
    if let Err(failure) = &held {
        broken_off(failure);
    }
    let history = held?;
    shown?;
    kept.map_err(|error| Failure::other(format!("keep what the nodes wrote: {error:#}")))?;
    Ok(history)
}

pub(super) fn broken_off(failure: &Failure) {
    if matches!(failure, Failure::Interrupted) {
        note("the drill was broken off; nothing of it goes on");
    }
}

/// The ground is not there, with the tests' own advice, and what can be held without it.
pub(super) fn cannot(error: &anyhow::Error, without: &str) -> Failure {
    Failure::Other {
        what: format!("hold a drill on the testbed: {error:#}"),
        advice: Some(format!("without real nodes: {without}")),
    }
}

pub(super) fn left_standing(error: &anyhow::Error) -> Failure {
    Failure::Other {
        what: format!("take the testbed's nodes down: {error:#}"),
        advice: Some("make testbed-down".to_owned()),
    }
}

fn on_bed(what: &str) -> impl Fn(anyhow::Error) -> Failure {
    move |error| Failure::other(format!("{what}: {error:#}"))
}

/// Removes what the engine had not made yet when it was asked to stop.
pub(super) async fn clear(docker: &Docker) {
    // More than once, since it may be at it still.
    for _ in 0..3 {
        match bed::remove(docker, BED).await {
            Ok(true) => {}
            // Another drill's.
            Ok(false) => return,
            Err(error) => note(format_args!(
                "testbed: {error:#}; what is left is removed by: make testbed-down"
            )),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn patience(nodes: usize) -> Duration {
    RETURN_DEADLINE + EACH_NODE * u32::try_from(nodes).unwrap_or(u32::MAX)
}

fn wish(workers: u8) -> Wish {
    let patience = patience(MASTERS + usize::from(workers)).as_secs();
    Wish {
        coordinator: Yaml::default().with(
            "cold_start",
            format!(
                "{{trigger: auto, fresh: 5s, release_deadline: 30s, return_deadline: {patience}s, \
                 control_plane_deadline: 2m}}"
            ),
        ),
        ..Wish::fleet(3, workers)
    }
}

/// When what was drawn really happened, after the cut.
#[allow(
    clippy::struct_field_names,
    reason = "times name their unit, here as elsewhere"
)]
#[derive(Debug)]
struct Happened {
    powered_ms: BTreeMap<String, u64>,
    coordinator_on_ms: u64,
    crash_ms: Option<(u64, u64)>,
}

struct Rehearsal<'a> {
    title: String,
    bed: &'a Bed,
    drawn: PowerLoss,
    connection: Connection,
    witness: Witness<'a>,
}

async fn rehearse(
    order: &Order,
    bed: &Bed,
    show: &mut Show,
    output: &mut Output,
) -> Result<History, Failure> {
    let topology = Topology::of_bed(bed.declared());
    let coordinator = bed.coordinator().map_err(on_bed("find the bed's coordinator"))?;
    let mut rehearsal = Rehearsal {
        title: format!("power-loss on testbed, seed {}", order.seed),
        bed,
        drawn: PowerLoss::draw(&topology, serving, Lost::OneWorker, order.seed).slower(SLOWER),
        connection: Connection {
            coordinators: vec![coordinator.address()],
            shows: Shows::Certificate(TlsFiles::in_dir(&bed.dir().join("pki"), "operator")),
            timeout: Duration::from_secs(5),
        },
        witness: Witness::of(bed, &topology),
    };
    rehearsal.all_ready(show, output).await?;
    // Written down before, so that nothing that follows is of before it.
    let cut_us = witness::now_us();
    let cut = Instant::now();
    let cut_at = SystemTime::now();
    tokio::try_join!(coordinator.lose_power(), bed.power_loss()).map_err(on_bed("cut the power"))?;
    let (seen, happened) = rehearsal.recover(order, cut, show, output).await?;
    let ended_ms = millis(cut.elapsed());
    let nodes = rehearsal.witness.histories(cut_us, &happened.powered_ms).await?;
    Ok(History {
        clusters: clusters(&topology),
        nodes,
        runs: seen.into_runs(cut_at),
        coordinator_on_ms: happened.coordinator_on_ms,
        patience_ms: millis(patience(bed.declared().len())),
        crash_ms: happened.crash_ms,
        ended_ms,
    })
}

impl Rehearsal<'_> {
    /// The coordinator has heard of a healthy kubelet from every node.
    async fn all_ready(&mut self, show: &mut Show, output: &mut Output) -> Result<(), Failure> {
        let began = Instant::now();
        let all = self.bed.declared().len();
        let within = UP_WITHIN + EACH_NODE * u32::try_from(all).unwrap_or(u32::MAX);
        let (to, mut ready) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::all_ready(self.connection.clone(), to));
        let mut have = 0;
        let mut tick = ticker();
        loop {
            tokio::select! {
                count = ready.recv() => match count {
                    Some(count) => have = count,
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    self.coordinator_lives()?;
                    self.witness.look();
                    show.now(&self.scene("the fleet comes up", began, &Seen::default()), output)?;
                    if began.elapsed() > within {
                        return Err(Failure::other(format!(
                            "bring the fleet up before the drill: after {}s the coordinator knows {have} of {all} nodes ready",
                            within.as_secs()
                        )));
                    }
                }
            }
        }
    }

    /// Power comes back as drawn, and the coordinator's runs are followed until everything has settled.
    async fn recover(
        &mut self,
        order: &Order,
        cut: Instant,
        show: &mut Show,
        output: &mut Output,
    ) -> Result<(Seen, Happened), Failure> {
        let (to, mut looks) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::runs(self.connection.clone(), to));
        let drawn = self.drawn.clone();
        let mut returning = Box::pin(power_returns(self.bed, &drawn, cut));
        let mut returned = None;
        let mut saboteur = order.sabotage.map(Saboteur::new);
        let mut seen = Seen::default();
        let mut settled = Settling::default();
        let all = u32::try_from(self.bed.declared().len()).unwrap_or(u32::MAX);
        let over = OVER_WITHIN + EACH_NODE * all;
        let mut tick = ticker();
        loop {
            tokio::select! {
                happened = &mut returning, if returned.is_none() => returned = Some(happened?),
                Some(look) = looks.recv() => {
                    seen.take(look, millis(cut.elapsed()));
                    // More than one look may be at hand, and each is drawn with the next tick.
                    continue;
                }
                _ = tick.tick() => {}
            }
            self.witness.look();
            if let Some(saboteur) = &mut saboteur {
                let bed = self.bed;
                saboteur.work(&self.witness.seats(), |name| {
                    bed.node(name)
                        .and_then(|node| node.path(witness::RUNTIME))
                        .map_err(on_bed("find the gate of a node"))
                })?;
            }
            let power = match returned {
                None => "power comes back",
                Some(_) => "power is back",
            };
            let coordinator = if returned.is_none() && drawn.coordinator_is_down(cut.elapsed()) {
                ", the coordinator is down"
            } else {
                ""
            };
            show.now(&self.scene(&format!("{power}{coordinator}"), cut, &seen), output)?;
            if returned.is_some() {
                self.coordinator_lives()?;
            }
            let healthy = self.witness.count(Stage::Healthy) == drawn.power_on.len();
            let is_over = returned.is_some() && settled.look(&seen.runs, healthy);
            if is_over || cut.elapsed() > over {
                let Some(happened) = returned else {
                    return Err(Failure::other(format!(
                        "give the nodes their power back: they have not booted after {}s",
                        over.as_secs()
                    )));
                };
                return Ok((seen, happened));
            }
        }
    }

    /// Nobody has killed it now: it runs, or something is wrong.
    fn coordinator_lives(&self) -> Result<(), Failure> {
        let coordinator = self.bed.coordinator().map_err(on_bed("find the coordinator"))?;
        if coordinator.pid().is_some() {
            return Ok(());
        }
        let log = coordinator.log();
        let last: Vec<_> = log.lines().rev().take(5).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        Err(Failure::Other {
            what: format!(
                "the drill's coordinator ended; its last words:\n{}",
                last.join("\n")
            ),
            advice: Some("--keep DIR keeps its whole log".to_owned()),
        })
    }

    fn scene<'a>(&'a self, act: &'a str, since: Instant, seen: &'a Seen) -> Scene<'a> {
        Scene {
            title: &self.title,
            act,
            at_ms: millis(since.elapsed()),
            seats: self.witness.seats(),
            runs: &seen.runs,
            pods: "",
        }
    }
}

/// Nodes and coordinator return as drawn, or as soon after as the engine can.
async fn power_returns(bed: &Bed, drawn: &PowerLoss, cut: Instant) -> Result<Happened, Failure> {
    let nodes = drawn.power_on.iter().map(async |(at, name)| {
        sleep_until(cut + *at).await;
        let powered_ms = millis(cut.elapsed());
        bed.node(name)?.power_on().await?;
        anyhow::Ok((name.clone(), powered_ms))
    });
    let coordinator = async {
        let coordinator = bed.coordinator()?;
        sleep_until(cut + drawn.coordinator_on).await;
        let on_ms = millis(cut.elapsed());
        coordinator.start().await?;
        let Some((dies, back)) = drawn.crash else {
            return anyhow::Ok((on_ms, None));
        };
        sleep_until(cut + dies).await;
        let died_ms = millis(cut.elapsed());
        coordinator.kill().await?;
        sleep_until(cut + back).await;
        let back_ms = millis(cut.elapsed());
        coordinator.start().await?;
        Ok((on_ms, Some((died_ms, back_ms))))
    };
    let (powered, (coordinator_on_ms, crash_ms)) =
        tokio::try_join!(try_join_all(nodes), coordinator).map_err(on_bed("give power back"))?;
    Ok(Happened {
        powered_ms: powered.into_iter().collect(),
        coordinator_on_ms,
        crash_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_testbed_cannot_be_is_refused_with_what_it_can() {
        assert_eq!(workers(&[], None, None).unwrap(), 3);
        assert_eq!(workers(&[], Some(5), None).unwrap(), 2);
        assert_eq!(workers(&[], Some(245), None).unwrap(), 242);
        for nodes in [0, 4, 246, 1000] {
            let refused = workers(&[], Some(nodes), None).unwrap_err();
            assert!(refused.details()[0].contains("--nodes 5 to 245"), "{refused:?}");
        }
        let refused = workers(&["paas".to_owned()], None, None).unwrap_err();
        assert!(refused.to_string().contains("--clusters"), "{refused}");
        assert!(workers(&[], None, Some(Sabotage::EarlyMaster)).is_err());
    }

    #[test]
    fn nobody_that_returns_is_given_up_for_it() {
        let topology = Topology::new(&["paas".to_owned()], None).unwrap();
        for seed in 0..200 {
            let drawn = PowerLoss::draw(&topology, serving, Lost::OneWorker, seed).slower(SLOWER);
            let last = drawn.power_on.iter().map(|(at, _)| *at).max().unwrap();
            assert!(last + Duration::from_secs(5) < patience(NODES), "seed {seed}");
        }
    }
}
