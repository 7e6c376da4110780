//! Misfortunes as they strike, and operators as they speak.

use std::sync::Arc;

use blackstart_coordinator::execute::status::RunStatus;

use super::Ms;
use super::coordinator::Process;
use super::node::Kubelet;
use super::script::Stroke;
use super::store;
use super::world::{Happening, World};

impl World {
    /// An operator says so to every coordinator there is.
    pub(super) async fn operator_resumes(&mut self, run: String) {
        self.to_resume.remove(&run);
        for process in self.processes.values().filter(|process| !process.frozen) {
            let resumed = process.executor.resume(&run).await.is_ok();
            self.trace
                .say(self.now, format_args!("an operator resumes {run}: {resumed}"));
        }
    }

    pub(super) fn resume_after(&mut self, ms: Ms, run: String) {
        if self.to_resume.insert(run.clone()) {
            self.after(ms, Happening::Resume { run });
        }
    }

    pub(super) async fn strikes(&mut self, stroke: Stroke) {
        self.trace.say(self.now, format_args!("misfortune: {stroke:?}"));
        match stroke {
            Stroke::Cut { node, back_after } => {
                if self.nodes[node].power {
                    self.truth_changes(node);
                    self.nodes[node].power_off();
                    self.truth_changed(node);
                }
                if let Some(ms) = back_after {
                    self.after(ms, Happening::PowerOn { node });
                }
            }
            Stroke::Restart { node } => {
                if self.nodes[node].power {
                    self.nodes[node].mark_clean();
                    self.hang_up(node);
                    self.truth_changes(node);
                    self.nodes[node].power_off();
                    self.truth_changed(node);
                    let ms = self.between(10_000, 40_000);
                    self.after(ms, Happening::PowerOn { node });
                }
            }
            Stroke::AgentCrash { node } => {
                if self.nodes[node].agent {
                    self.hang_up(node);
                    self.nodes[node].agent_dies();
                    let boot = self.nodes[node].boot;
                    let ms = self.between(100, 8_000);
                    self.after(ms, Happening::AgentStart { node, boot });
                }
            }
            Stroke::KubeletIll { node, for_ms } => {
                if self.nodes[node].kubelet == Kubelet::Healthy {
                    self.kubelet(node, Kubelet::Ill);
                    let turn = self.nodes[node].kubelet_turn;
                    self.after(
                        for_ms,
                        Happening::Kubelet {
                            node,
                            turn,
                            to: Kubelet::Healthy,
                        },
                    );
                }
            }
            Stroke::Partition { nodes, for_ms } => {
                for node in nodes {
                    let until = self.now + for_ms;
                    self.nodes[node].partitioned_until = self.nodes[node].partitioned_until.max(until);
                }
            }
            Stroke::CoordinatorCrash { host, for_good } => self.coordinators_die(host, for_good),
            Stroke::Freeze { for_ms, own_disk } => self.freezes(for_ms, own_disk),
            Stroke::DiskFull { for_ms } => {
                store::lock(&self.disk).full = true;
                self.after(for_ms, Happening::DiskRoom);
            }
            Stroke::WallJump { to } => self.wall.jump(to),
            Stroke::Pause { for_ms } => self.operator_pauses(for_ms).await,
            Stroke::Abort => self.operator_aborts().await,
        }
    }

    fn coordinators_die(&mut self, host: bool, for_good: bool) {
        self.gone_for_good |= for_good;
        self.own_unclean |= host;
        let ids: Vec<_> = self.processes.keys().copied().collect();
        for id in ids {
            self.process_dies(id, !host);
        }
        store::lock(&self.disk).power_lost();
        let ms = if host {
            self.between(15_000, 90_000)
        } else {
            self.between(500, 15_000)
        };
        self.after(ms, Happening::CoordinatorStart);
    }

    async fn operator_pauses(&mut self, for_ms: Ms) {
        let Some((process, run)) = self.newest_run() else {
            return;
        };
        let paused = process.executor.pause(&run.id).await.is_ok();
        self.trace
            .say(self.now, format_args!("an operator pauses {}: {paused}", run.id));
        self.resume_after(for_ms, run.id.clone());
    }

    async fn operator_aborts(&mut self) {
        let Some((process, run)) = self.newest_run() else {
            return;
        };
        let aborted = process.executor.abort(&run.id).await.is_ok();
        self.trace
            .say(self.now, format_args!("an operator aborts {}: {aborted}", run.id));
    }

    /// The newest coordinator, if it answers, and the last run that it has at work.
    fn newest_run(&mut self) -> Option<(&mut Process, Arc<RunStatus>)> {
        let (_, newest) = self.processes.iter_mut().next_back()?;
        let answers = !newest.frozen && !newest.is_dead();
        let runs = newest.executor.runs().into_iter();
        let run = runs.rev().find(|run| run.state.is_active())?;
        answers.then_some((newest, run))
    }
}
