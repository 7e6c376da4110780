//! What the nodes of a bed say of themselves: while the drill goes on, from their files, without a process in them; at its
//! end, from their journals and ledgers.

use std::collections::BTreeMap;
use std::fs;

use blackstart_agent::gate::{self, GateState};
use blackstart_tests::bed::Bed;
use blackstart_tests::journal::Entry;
use blackstart_tests::node::Node;
use futures_util::{StreamExt, TryStreamExt, stream};
use nix::time::{ClockId, clock_gettime};

use super::super::fleet::{gate_words, ledger};
use super::super::history::{Kubelet, NodeHistory};
use super::super::show::{Seat, Stage};
use super::super::topology::{Role, Topology};
use super::on_bed;
use crate::failure::Failure;

/// Where a node's agent and gate keep what is of one boot.
pub(super) const RUNTIME: &str = "/run/blackstart";
pub(in crate::drill) const LEDGER: &str = "/var/lib/blackstart/ledger";
const KUBELET: &str = "kubelet.service";
const GATE: &str = "blackstart-gate.service";
const AGENT: &str = "blackstart-agent.service";
/// Where the kubelet answers, as `/proc/net/tcp` writes it: 127.0.0.1:10248, listening.
const HEALTHZ: &str = "0100007F:2808";
const LISTENING: &str = "0A";
/// What the stand-in kubelet writes as soon as it does.
const ANSWERS: &str = "kubelet answers";
/// Asks a kubelet how it is, with what every node has.
const ASK: &str =
    "exec 3<>/dev/tcp/127.0.0.1/10248; printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3";
/// So many nodes are asked at a time.
const AT_A_TIME: usize = 8;

/// `CLOCK_MONOTONIC`, the clock of every node's journal, microseconds.
pub(super) fn now_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(now.tv_sec()) * 1_000_000 + part(now.tv_nsec()) / 1_000
}

/// Looks at the nodes of a bed.
#[derive(Debug)]
pub(super) struct Witness<'a> {
    topology: &'a Topology,
    nodes: Vec<&'a Node>,
    /// Of each, when it was last looked at.
    stages: Vec<Stage>,
}

impl<'a> Witness<'a> {
    /// `topology` is the bed's own.
    pub(super) fn of(bed: &'a Bed, topology: &'a Topology) -> Self {
        let nodes: Vec<_> = bed.nodes_as_declared().collect();
        Self {
            topology,
            stages: vec![Stage::Dark; nodes.len()],
            nodes,
        }
    }

    /// Looks anew.
    pub(super) fn look(&mut self) {
        for (node, known) in self.nodes.iter().zip(&mut self.stages) {
            *known = stage(node, *known);
        }
    }

    /// Each as it stood at the last look.
    pub(super) fn seats(&self) -> Vec<Seat<'_>> {
        let machines = self.topology.machines().zip(&self.stages);
        machines
            .map(|((cluster, machine), stage)| Seat {
                cluster: &cluster.name,
                name: &machine.name,
                role: machine.role,
                stage: *stage,
            })
            .collect()
    }

    /// How many were in that stage.
    pub(super) fn count(&self, stage: Stage) -> usize {
        self.stages.iter().filter(|known| **known == stage).count()
    }

    /// What each did since `cut_us`, by its own journal and its agent's ledger; `powered_ms`: when power came back.
    pub(super) async fn histories(
        &self,
        cut_us: u64,
        powered_ms: &BTreeMap<String, u64>,
    ) -> Result<Vec<NodeHistory>, Failure> {
        let asked = self.topology.machines().zip(&self.nodes);
        let asked = asked.map(|((cluster, machine), node)| {
            let dark = NodeHistory {
                name: machine.name.clone(),
                cluster: cluster.name.clone(),
                role: machine.role,
                powered_ms: powered_ms.get(&machine.name).copied(),
                booted_ms: None,
                gate: None,
                kubelets: Vec::new(),
                api_ready_ms: None,
                healthy_at_end: false,
                ledger: Vec::new(),
                agent_failed: None,
            };
            history(node, dark, cut_us)
        });
        stream::iter(asked).buffered(AT_A_TIME).try_collect().await
    }
}

/// How far a node is, by what can be seen of it from outside.
fn stage(node: &Node, before: Stage) -> Stage {
    let (Ok(runtime), Ok(sockets)) = (node.path(RUNTIME), node.path("/proc/1/net/tcp")) else {
        return Stage::Dark;
    };
    if fs::read_to_string(sockets).is_ok_and(|table| kubelet_listens(&table)) {
        return Stage::Healthy;
    }
    match (gate::status(&runtime).state, before) {
        (GateState::Absent, _) => Stage::Booting,
        (GateState::Held, _) => Stage::Held,
        (GateState::Released | GateState::Passed | GateState::DeadMan, Stage::Healthy | Stage::Down) => {
            Stage::Down
        }
        (
            GateState::Released | GateState::Passed | GateState::DeadMan,
            Stage::Dark | Stage::Booting | Stage::Held | Stage::Starting,
        ) => Stage::Starting,
    }
}

fn kubelet_listens(table: &str) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(HEALTHZ) && fields.nth(1) == Some(LISTENING)
    })
}

/// What a node says of the boot that it is in.
async fn history(node: &Node, mut told: NodeHistory, cut_us: u64) -> Result<NodeHistory, Failure> {
    if !node.is_on() {
        return Ok(told);
    }
    let failed = format!("ask node {} what it did", node.name());
    let ask = || on_bed(&failed);
    let gate = node.journal(GATE).await.map_err(ask())?;
    let kubelet = node.journal(KUBELET).await.map_err(ask())?;
    let restarts = node.property(AGENT, "NRestarts").await.map_err(ask())?;
    let runtime = node.path(RUNTIME).map_err(ask())?;
    told.booted_ms = first_ms(&gate, "holding the kubelet", cut_us);
    told.gate = first_ms(&gate, "the kubelet may start", cut_us)
        .map(|at| (at, gate_words(gate::status(&runtime).state).to_owned()));
    told.kubelets = kubelets(&kubelet, cut_us);
    told.api_ready_ms = match told.role {
        Role::Master => first_ms(&kubelet, "api server ready", cut_us),
        Role::Worker => None,
    };
    // It fails where nobody listens.
    let answer = node.exec(&["bash", "-c", ASK]).await.unwrap_or_default();
    told.healthy_at_end = answer.contains(" 200 ");
    told.ledger = ledger(node.name(), &node.path(LEDGER).map_err(ask())?)?;
    if restarts != "0" {
        told.agent_failed = Some(format!("systemd restarted it ({restarts})"));
    }
    Ok(told)
}

fn ms(entry: &Entry, cut_us: u64) -> u64 {
    entry.monotonic_us.saturating_sub(cut_us) / 1_000
}

fn first_ms(entries: &[Entry], words: &str, cut_us: u64) -> Option<u64> {
    let first = entries.iter().find(|entry| entry.message.contains(words))?;
    Some(ms(first, cut_us))
}

/// The lives of a node's kubelet, by its unit's journal: systemd says when it starts and ends, it itself when it answers.
fn kubelets(entries: &[Entry], cut_us: u64) -> Vec<Kubelet> {
    let mut lives: Vec<Kubelet> = Vec::new();
    for entry in entries {
        let at = ms(entry, cut_us);
        if entry.is_start {
            lives.push(Kubelet {
                started_ms: at,
                healthy_ms: None,
                stopped_ms: None,
            });
        }
        let Some(life) = lives.last_mut().filter(|life| life.stopped_ms.is_none()) else {
            continue;
        };
        if entry.message.contains(ANSWERS) {
            life.healthy_ms.get_or_insert(at);
        }
        if entry.is_end {
            life.stopped_ms = Some(at);
        }
    }
    lives
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ms: u64, message: &str) -> Entry {
        Entry {
            monotonic_us: 1_000_000 + at_ms * 1_000,
            realtime_us: 0,
            boot_id: "ab".to_owned(),
            message: message.to_owned(),
            is_start: message.starts_with("Started"),
            is_end: message.ends_with("successfully."),
        }
    }

    #[test]
    fn each_life_of_a_kubelet_is_told_apart() {
        let journal = [
            entry(5, "Started kubelet.service - kubelet (a stand-in)."),
            entry(9, "testbed: kubelet answers on 127.0.0.1:10248"),
            entry(20, "testbed: api server not ready: 1 of 3 masters answer"),
            entry(30, "testbed: api server ready: 2 of 3 masters answer"),
            entry(40, "kubelet.service: Deactivated successfully."),
            entry(50, "Started kubelet.service - kubelet (a stand-in)."),
        ];
        let life = |started_ms, healthy_ms, stopped_ms| Kubelet {
            started_ms,
            healthy_ms,
            stopped_ms,
        };
        assert_eq!(
            kubelets(&journal, 1_000_000),
            [life(5, Some(9), Some(40)), life(50, None, None)]
        );
        assert_eq!(first_ms(&journal, "api server ready", 1_000_000), Some(30));
    }

    #[test]
    fn a_kubelet_that_listens_is_seen_in_the_socket_table() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n";
        let line = |local: &str, state: &str| {
            format!("{head}   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000\n")
        };
        assert!(kubelet_listens(&line("0100007F:2808", "0A")));
        assert!(!kubelet_listens(&line("0100007F:2808", "01")), "somebody asks");
        assert!(!kubelet_listens(&line("00000000:192B", "0A")), "the API server");
    }
}
