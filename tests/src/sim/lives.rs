//! Coordinators that come, look, freeze, die, and send orders.

use std::sync::{Arc, Mutex};

use blackstart_coordinator::execute::status::RunState;
use blackstart_coordinator::fleet::Order;

use super::Ms;
use super::coordinator::Process;
use super::lines::Down;
use super::mutations::Mutation;
use super::store;
use super::world::{Happening, World};

/// The coordinator looks at its fleet at least so often; at what cannot wait, sooner.
const LOOK: Ms = 1_000;
const LOOK_SOON: Ms = 100;

impl World {
    pub(super) fn coordinator_starts(&mut self) {
        // One that another has overtaken is no reason not to start.
        let newest = self.processes.get(&(self.next_process - 1));
        if self.gone_for_good || newest.is_some_and(|process| !process.frozen) {
            return;
        }
        let opened = Process::open(
            &self.disk,
            &mut self.rng,
            &self.script,
            &self.wall,
            self.own_unclean,
            self.mutation,
        );
        let Some(process) = opened else {
            self.trace
                .say(self.now, format_args!("a coordinator died before it began"));
            let ms = self.between(500, 5_000);
            return self.after(ms, Happening::CoordinatorStart);
        };
        let id = self.next_process;
        self.next_process += 1;
        let entries = store::lock(&self.disk).entries();
        self.trace.say(
            self.now,
            format_args!(
                "coordinator {id} begins, epoch {}, {entries} entries",
                process.epoch
            ),
        );
        self.processes.insert(id, process);
        self.after(
            LOOK,
            Happening::Look {
                process: id,
                prompt: false,
            },
        );
    }

    pub(super) fn freezes(&mut self, for_ms: Ms, own_disk: bool) {
        let Some((&id, process)) = self.processes.iter_mut().next_back() else {
            return;
        };
        if process.frozen {
            return;
        }
        process.freeze();
        if own_disk {
            // It goes on from a disk that is no longer the fleet's: a copy of a machine that should have been off.
            let copy = store::lock(&self.disk).clone();
            self.disk = Arc::new(Mutex::new(copy));
        }
        self.after(for_ms, Happening::Thaw { process: id });
        let ms = self.between(500, 10_000);
        self.after(ms, Happening::CoordinatorStart);
    }

    pub(super) async fn looks(&mut self, id: u64, prompt: bool) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        if process.is_dead() {
            return;
        }
        if !prompt {
            self.after(
                LOOK,
                Happening::Look {
                    process: id,
                    prompt: false,
                },
            );
        }
        let Some(process) = self.processes.get_mut(&id).filter(|process| !process.frozen) else {
            return;
        };
        process.prompt = false;
        let Some(silent) = process.look() else {
            return self.process_crashes(id);
        };
        for name in silent {
            if let Some(node) = self.nodes.iter().position(|node| node.name == name)
                && let Some(process) = self.processes.get_mut(&id)
                && let Some((line, _)) = process.sessions.remove(&node)
            {
                self.break_line(line);
            }
        }
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        let told = process.begin().await;
        let runs = process.executor.runs();
        for line in told {
            self.trace.say(self.now, format_args!("coordinator {id} {line}"));
        }
        for run in runs {
            match run.state {
                // Now and then somebody is there to be asked, once.
                RunState::Halted if self.asked.insert(run.id.clone()) => {
                    if self.percent(40) {
                        let ms = self.between(10_000, 90_000);
                        self.resume_after(ms, run.id.clone());
                    }
                }
                // Who paused it looks again, also if the word to go on was lost.
                RunState::Paused => self.resume_after(70_000, run.id.clone()),
                RunState::Halted | RunState::Running | RunState::Succeeded | RunState::Aborted => {}
            }
        }
    }

    /// Something came that the coordinator should not let wait.
    pub(super) fn look_soon(&mut self, id: u64) {
        if let Some(process) = self.processes.get_mut(&id)
            && !process.prompt
        {
            process.prompt = true;
            self.after(
                LOOK_SOON,
                Happening::Look {
                    process: id,
                    prompt: true,
                },
            );
        }
    }

    pub(super) fn bury(&mut self) {
        let dead: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, process)| process.is_dead())
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.process_crashes(id);
        }
    }

    pub(super) fn process_crashes(&mut self, id: u64) {
        self.process_dies(id, true);
        let ms = self.between(500, 20_000);
        self.after(ms, Happening::CoordinatorStart);
    }

    /// `heard`: its machine lives on and ends its connections.
    pub(super) fn process_dies(&mut self, id: u64, heard: bool) {
        if self.processes.remove(&id).is_none() {
            return;
        }
        self.trace.say(self.now, format_args!("coordinator {id} is dead"));
        let ours: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, line)| line.process == id)
            .map(|(line, _)| *line)
            .collect();
        for line in ours {
            if heard {
                self.end_line(line);
            } else {
                self.break_line(line);
            }
        }
    }

    pub(super) fn dispatched(&mut self, id: u64, mut order: Order) {
        if self.mutation == Some(Mutation::NewNamesAfterCrash) && order.epoch > 1 {
            order.command_id.push_str("/again");
        }
        self.trace.say(
            self.now,
            format_args!(
                "coordinator {id} (epoch {}) sends {}",
                order.epoch, order.command_id
            ),
        );
        self.judge_order(id, &order);
        let Some(at) = self.nodes.iter().position(|node| node.name == order.node) else {
            return;
        };
        let line = self
            .processes
            .get(&id)
            .and_then(|process| process.sessions.get(&at));
        if let Some((line, _)) = line.copied() {
            self.send_down(line, Down::Order(order));
        }
    }
}
