//! The one loop: what was seen → what stands → what to do → what to say.
//!
//! It is woken by signals, commands, remedies that ended, and time, and each time looks at everything anew. It waits for
//! no disk and no unit: those are for flights.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::GRACE;
use super::flight::{Cargo, Crew, Landed};
use super::notify::Notify;
use super::orders::{Due, Orders};
use super::ports::{BATCH, MindPorts, has_room};
use super::publish::{self, View};
use crate::brakes::{SharedBrakes, Standing};
use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::Settings;
use crate::decide::health::Health;
use crate::decide::history::History;
use crate::decide::permits::Permits;
use crate::decide::{Brakes, DISK_AGAIN, Decision, Input, Proposal, decide};
use crate::diagnose::Diagnosis;
use crate::gate::{self, GateState, GateStatus};
use crate::host::Host;
use crate::ledger::{Outcome, SharedLedger};
use crate::link::LinkState;
use crate::metrics::Meters;
use crate::order::{Order, OrderAnswer, OrderStatus};
use crate::permit::{Desk, Use, Wish, needed};
use crate::reclaim::Rules;
use crate::remedy::Remedy;
use crate::remedy::perform::Hands;
use crate::report::Told;
use crate::set_aside::{Held, SetAside, comes_back};
use crate::signal::Signal;

/// A gate that holds is looked at so often, and one that may still come to hold where its files tell no events…
const GATE_SOON: Duration = Duration::from_millis(500);
/// …and any other: an open one does not close in this boot, and what the gate writes is told.
const GATE_LATER: Duration = Duration::from_secs(5);
/// After a write to the ledger failed, remedies that need one wait for so long.
const LEDGER_AGAIN: Duration = Duration::from_secs(2);
/// A ledger that nothing was written to since it failed is told of for so long.
const LEDGER_TOLD: Duration = Duration::from_mins(1);
/// What is set aside and has to come back is looked at so often: the words that keep it out come by another way…
const ASIDE_LOOK: Duration = Duration::from_secs(1);
/// …and what could not be put back is tried again after this.
const ASIDE_AGAIN: Duration = Duration::from_secs(5);
/// A timer that asks for the past is given this: no loop without a pause.
const SHORTEST: Duration = Duration::from_millis(1);

/// The ledger could not be written.
#[derive(Debug)]
struct LedgerTrouble {
    since: Instant,
    last: Instant,
    why: String,
}

/// What lasts longer than the mind, or is read elsewhere.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) ledger: SharedLedger,
    pub(super) brakes: SharedBrakes,
    pub(super) meters: Meters,
    pub(super) aside: SetAside,
}

/// What the agent knows and does.
#[derive(Debug)]
pub(super) struct Mind<H> {
    crew: Arc<Crew<H>>,
    settings: Arc<Settings>,
    /// New settings come here.
    in_force: watch::Receiver<Arc<Settings>>,
    host: Arc<H>,
    ports: MindPorts,
    notify: Notify,
    begun: Instant,
    diagnosis: Diagnosis,
    health: Health,
    history: History,
    gate: GateStatus,
    gate_look: Instant,
    /// Events of the gate's files; none of a simulated machine, of which there may be thousands in one process.
    gate_words: Option<gate::Wake>,
    trouble: Option<LedgerTrouble>,
    orders: Orders,
    brakes: watch::Receiver<Arc<Standing>>,
    permits: Desk,
    aside: SetAside,
    /// What is set aside, as it was looked at last.
    held: watch::Receiver<Arc<Vec<Held>>>,
    /// What could not be put back is not tried again before this.
    aside_again: Option<Instant>,
    in_flight: BTreeMap<String, Remedy>,
    flights: JoinSet<Landed>,
    /// What each task was begun for, for those that panic.
    tasks: HashMap<Id, (Option<Remedy>, Option<Order>)>,
    /// The conditions that were told of.
    told: Told,
    told_status: String,
    next_alive: Option<Instant>,
}

impl<H: Host> Mind<H> {
    pub(super) fn new(
        mut in_force: watch::Receiver<Arc<Settings>>,
        host: Arc<H>,
        rules: Option<Arc<Rules>>,
        notify: Notify,
        books: Books,
        ports: MindPorts,
    ) -> Self {
        let Books {
            ledger,
            brakes,
            meters,
            aside,
        } = books;
        let settings = Arc::clone(&in_force.borrow_and_update());
        let now = Instant::now();
        let history = {
            let ledger = ledger.lock();
            History::replay(ledger.records(), &ledger.now(), now)
        };
        let hands = Hands::new(Arc::clone(&host), &settings, rules, aside.clone());
        Self {
            diagnosis: Diagnosis::new(&settings),
            health: Health::new(&settings.kubelet_unit),
            gate_words: host
                .machine()
                .is_some()
                .then(|| gate::Wake::on(&settings.runtime_dir)),
            gate: gate::status(&settings.runtime_dir),
            crew: Arc::new(Crew {
                settings: Arc::clone(&settings),
                ledger,
                hands,
                meters,
                reports: ports.reports.clone(),
                brakes: brakes.clone(),
            }),
            settings,
            in_force,
            host,
            ports,
            begun: now,
            history,
            gate_look: now,
            trouble: None,
            orders: Orders::default(),
            brakes: brakes.subscribe(),
            permits: Desk::new(rand::random()),
            held: aside.subscribe(),
            aside,
            aside_again: None,
            in_flight: BTreeMap::new(),
            flights: JoinSet::new(),
            tasks: HashMap::new(),
            told: Told::default(),
            told_status: String::new(),
            next_alive: notify.interval().map(|_| now),
            notify,
        }
    }

    /// Runs until `stop`, then waits for what is under way.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let settle = Arc::clone(&self.crew).settle();
        self.flights.spawn(settle);
        let mut ready = false;
        let mut batch = Vec::with_capacity(BATCH);
        // Without any watcher left there is still the coordinator to obey.
        let mut seeing = true;
        let mut tuned = true;
        loop {
            let now = Instant::now();
            let wake = self.pass(now);
            self.crew.meters.passed(now.elapsed());
            if !ready {
                self.notify.ready();
                ready = true;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                count = self.ports.signals.recv_many(&mut batch, BATCH), if seeing => {
                    seeing = count > 0;
                    let now = Instant::now();
                    for signal in batch.drain(..) {
                        self.observe(&signal, now);
                    }
                }
                Some(order) = self.ports.orders.recv(), if self.orders.has_room() => self.orders.take(order),
                Some(landed) = self.flights.join_next_with_id() => self.land(landed, Instant::now()),
                // The next look gives them out.
                true = has_room(&self.ports.answers), if self.orders.has_answers() => {}
                Ok(()) = self.ports.lacks.changed() => {}
                changed = self.in_force.changed(), if tuned => {
                    tuned = changed.is_ok();
                    self.retune();
                }
                // The next look obeys it. Its sender lives as long as the crew.
                Ok(()) = self.brakes.changed() => {}
                Some(answer) = self.ports.permits.recv() => self.permits.answered(answer, Instant::now()),
                Ok(()) = self.ports.link.changed() => {}
                // The next look tells it, and that nothing is missed.
                Ok(()) = self.held.changed() => {}
                () = written(&mut self.gate_words) => self.gate_look = Instant::now(),
                () = sleep_until(wake) => {}
            }
        }
        self.end().await;
    }

    /// Nothing new is begun; what is under way may end.
    async fn end(mut self) {
        self.notify.stopping();
        let deadline = Instant::now() + GRACE;
        while let Ok(Some(landed)) = timeout_at(deadline, self.flights.join_next_with_id()).await {
            self.land(landed, Instant::now());
        }
        for remedy in self.in_flight.values() {
            warn!(%remedy, "broken off by the agent's stop; the next start looks into it");
        }
        self.flights.shutdown().await;
    }

    /// Goes on by other settings. Remedies under way end by those that they were begun with.
    fn retune(&mut self) {
        let settings = Arc::clone(&self.in_force.borrow_and_update());
        if settings == self.settings {
            return;
        }
        self.crew = Arc::new(Crew {
            settings: Arc::clone(&settings),
            ledger: self.crew.ledger.clone(),
            hands: Hands::new(
                Arc::clone(&self.host),
                &settings,
                super::rules(&settings),
                self.aside.clone(),
            ),
            meters: self.crew.meters.clone(),
            reports: self.crew.reports.clone(),
            brakes: self.crew.brakes.clone(),
        });
        self.diagnosis.retune(&settings);
        self.settings = settings;
    }

    fn observe(&mut self, signal: &Signal, now: Instant) {
        self.crew.meters.seen(signal);
        self.diagnosis.observe(signal, now);
        self.health.observe(signal, now);
    }

    /// One look at everything. Returns when the next is due though nothing happens.
    fn pass(&mut self, now: Instant) -> Instant {
        while let Ok(signal) = self.ports.signals.try_recv() {
            self.observe(&signal, now);
        }
        if now >= self.gate_look {
            self.look_at_gate(now);
        }
        let held = Arc::clone(&self.held.borrow_and_update());
        self.diagnosis.set_aside(&held);
        let standing = self.diagnosis.conditions(now);
        self.health.judge(&standing, now);
        let brakes = self.brakes(now);
        let mut decision = decide(&Input {
            conditions: &standing,
            history: &self.history,
            health: &self.health,
            settings: &self.settings,
            brakes: &brakes,
            in_flight: &self.in_flight,
            stress: self.diagnosis.stress(),
            now,
        });
        for proposal in std::mem::take(&mut decision.begin) {
            self.begin(proposal, now);
        }
        self.wish(&decision.wishes, now);
        for unit in std::mem::take(&mut decision.refill) {
            info!(unit, window = ?self.settings.restart.window, "healthy for long enough: budget refilled");
            self.history.refilled(&unit);
            self.flights.spawn(Arc::clone(&self.crew).refill(unit));
        }
        let comes_back = self.put_back(&held, now);
        for (order, due) in self.orders.due(&self.in_flight, now) {
            self.obey(order, due);
        }
        self.publish(&mut decision, now);
        self.orders.give_out(&self.ports.answers);
        self.alive(now);
        let wakes = [
            Some(self.gate_look),
            comes_back,
            decision.next_look,
            self.diagnosis.next_change(now),
            self.orders.next_expiry(),
            self.trouble.as_ref().map(|trouble| trouble.last + LEDGER_TOLD),
            self.next_alive,
            self.brakes.borrow().next_end(now),
            self.permits.next_change(now),
        ];
        let wake = wakes.into_iter().flatten().min().unwrap_or(self.gate_look);
        wake.max(now + SHORTEST)
    }

    fn look_at_gate(&mut self, now: Instant) {
        let gate = gate::status(&self.settings.runtime_dir);
        if gate.state != self.gate.state {
            info!(state = ?gate.state, why = gate.why, "boot gate");
        }
        let hears = self.gate_words.as_ref().is_some_and(gate::Wake::hears);
        self.gate_look = now
            + match gate.state {
                GateState::Absent if hears => GATE_LATER,
                GateState::Held | GateState::Absent => GATE_SOON,
                GateState::Released | GateState::Passed | GateState::DeadMan => GATE_LATER,
            };
        self.diagnosis.set_gate_held(gate.state == GateState::Held);
        self.gate = gate;
    }

    /// Puts back what is set aside if nobody speaks for it any more; when to look again.
    fn put_back(&mut self, held: &[Held], now: Instant) -> Option<Instant> {
        // Its words are files, which nobody has to read for nothing.
        if held.is_empty() {
            return None;
        }
        let boottime = gate::boottime();
        let at = comes_back(
            held,
            gate::heard_at(&self.settings.runtime_dir),
            self.aside.unclaimed(),
            self.settings.gate.set_aside(&self.settings.node),
            boottime,
        )?;
        if let Some(again) = self.aside_again.filter(|again| now < *again) {
            return Some(again);
        }
        let left = at.saturating_sub(boottime);
        if !left.is_zero() {
            return Some(now + left.min(ASIDE_LOOK));
        }
        self.aside_again = Some(now + ASIDE_AGAIN);
        for held in held {
            let remedy = Remedy::ReleaseManifest {
                component: held.component,
            };
            if !self.in_flight.contains_key(&remedy.subject()) {
                let reason = format!("no coordinator claims what run {} has set aside", held.run_id);
                self.begin(Proposal { remedy, reason }, now);
            }
        }
        self.aside_again
    }

    fn brakes(&mut self, now: Instant) -> Brakes {
        Brakes {
            gate_held: self.gate.state == GateState::Held,
            systemd_away: self.health.unobservable_since().is_some(),
            ledger_until: self.trouble.as_ref().map(|trouble| trouble.last + LEDGER_AGAIN),
            lacks: self.ports.lacks.borrow_and_update().clone(),
            standing: self.brakes.borrow().at(now),
            permits: Permits {
                away_since: match *self.ports.link.borrow_and_update() {
                    LinkState::Up { .. } => None,
                    LinkState::Down { since, .. } => Some(since),
                },
                granted: self.permits.granted(),
                told: self.permits.told(),
            },
        }
    }

    /// What is wished for is what waits for a permit now.
    fn wish(&mut self, wishes: &[Wish], now: Instant) {
        self.permits.want(wishes, now);
        let said = self.permits.said();
        self.ports.wishes.send_if_modified(|last| {
            let changed = **last != said;
            if changed {
                *last = Arc::new(said);
            }
            changed
        });
    }

    fn begin(&mut self, proposal: Proposal, now: Instant) {
        let unit = match &proposal.remedy {
            Remedy::RestartUnit { unit }
            | Remedy::KillRestartUnit { unit }
            | Remedy::RestartRuntime { unit }
            | Remedy::RelieveMemory { unit } => Some(unit),
            Remedy::ReclaimLog { .. }
            | Remedy::Prune { .. }
            | Remedy::VacuumJournal { .. }
            | Remedy::RestartContainer { .. }
            | Remedy::BounceStaticPod { .. }
            | Remedy::ProtectUnits
            | Remedy::ReleaseKubelet { .. }
            | Remedy::HoldManifest { .. }
            | Remedy::ReleaseManifest { .. }
            | Remedy::StopKubelet { .. }
            | Remedy::StartKubelet { .. }
            | Remedy::Etcd(_)
            | Remedy::ControlPlane(_) => None,
        };
        // The gate may have come to hold since it was looked at.
        let bounce = matches!(proposal.remedy, Remedy::BounceStaticPod { .. });
        if bounce || unit == Some(&self.settings.kubelet_unit) {
            self.look_at_gate(now);
            if self.gate.state == GateState::Held {
                return;
            }
        }
        let remedy = proposal.remedy.clone();
        let longest = self
            .settings
            .reclaim
            .window
            .max(self.settings.runtime.container_restart_window)
            .max(DISK_AGAIN);
        self.history.prune(longest, now);
        self.history.begun(&remedy, now);
        self.in_flight.insert(remedy.subject(), remedy.clone());
        let epoch =
            needed(&remedy, &self.settings).and_then(|kind| self.permits.used(kind, &remedy.subject()));
        let task = self
            .flights
            .spawn(Arc::clone(&self.crew).carry_out(proposal, epoch));
        self.remember(&task, Some(remedy), None);
    }

    fn obey(&mut self, order: Order, due: Due) {
        info!(command = order.command_id, epoch = order.epoch, remedy = %order.remedy, reason = order.reason, "command");
        let held = (due == Due::Free).then(|| order.remedy.clone());
        if let Some(remedy) = &held {
            self.in_flight.insert(remedy.subject(), remedy.clone());
        }
        let task = self
            .flights
            .spawn(Arc::clone(&self.crew).obey(order.clone(), due));
        self.remember(&task, held, Some(order));
    }

    fn remember(&mut self, task: &AbortHandle, remedy: Option<Remedy>, order: Option<Order>) {
        self.tasks.insert(task.id(), (remedy, order));
    }

    fn land(&mut self, landed: Result<(Id, Landed), JoinError>, now: Instant) {
        let landed = match landed {
            Ok((id, landed)) => {
                self.tasks.remove(&id);
                landed
            }
            Err(error) => match self.crashed(&error) {
                Some(landed) => landed,
                None => return,
            },
        };
        match landed.ledger {
            Some(Ok(())) => self.trouble = None,
            Some(Err(why)) => self.ledger_failed(why, now),
            None => {}
        }
        match landed.cargo {
            Cargo::Done { remedy, outcome } => self.done(&remedy, &outcome, now),
            Cargo::NotBegun { remedy } => {
                self.in_flight.remove(&remedy.subject());
                self.permits.ended(&remedy.subject(), Use::Unused);
                self.history.withdrawn(&remedy.subject());
            }
            Cargo::Order { subject, answer } => {
                if let Some(subject) = subject {
                    self.in_flight.remove(&subject);
                    // A release is at once seen in the picture that follows its answer.
                    self.gate_look = now;
                }
                info!(command = answer.command_id, status = ?answer.status, detail = answer.detail, "command answered");
                self.orders.answered(answer);
            }
            Cargo::Books => {}
        }
    }

    fn done(&mut self, remedy: &Remedy, outcome: &Outcome, now: Instant) {
        let subject = remedy.subject();
        self.in_flight.remove(&subject);
        self.history.ended(&subject, outcome, self.settings.dry_run, now);
        let how = match outcome.clone() {
            Outcome::Succeeded { detail } => Use::Succeeded { detail },
            Outcome::Failed { detail } => Use::Failed { detail },
        };
        self.permits.ended(&subject, how);
        let done = matches!(outcome, Outcome::Succeeded { .. });
        if let (Remedy::ReclaimLog { log }, true, false) = (remedy, done, self.settings.dry_run) {
            // What is known of its size is out of date.
            self.observe(&Signal::LogGone(log.clone()), now);
        }
    }

    /// A flight that panicked: whatever it was for has failed.
    fn crashed(&mut self, error: &JoinError) -> Option<Landed> {
        let (remedy, order) = self.tasks.remove(&error.id())?;
        error!(?remedy, %error, "a remedy broke");
        let detail = "it was broken off by an error of the agent's own".to_owned();
        let cargo = match (remedy, order) {
            (remedy, Some(order)) => Cargo::Order {
                subject: remedy.map(|remedy| remedy.subject()),
                answer: OrderAnswer {
                    command_id: order.command_id,
                    status: OrderStatus::Failed,
                    detail,
                },
            },
            (Some(remedy), None) => Cargo::Done {
                remedy,
                outcome: Outcome::Failed { detail },
            },
            (None, None) => return None,
        };
        Some(Landed { cargo, ledger: None })
    }

    fn ledger_failed(&mut self, why: String, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            debug!(why, "the ledger still cannot be written");
            trouble.last = now;
            trouble.why = why;
        } else {
            error!(
                why,
                "the ledger cannot be written: only logs are reclaimed until it can"
            );
            self.trouble = Some(LedgerTrouble {
                since: now,
                last: now,
                why,
            });
        }
    }

    fn publish(&mut self, decision: &mut Decision, now: Instant) {
        let mut conditions = std::mem::take(&mut decision.conditions);
        if self
            .trouble
            .as_ref()
            .is_some_and(|trouble| now.saturating_duration_since(trouble.last) >= LEDGER_TOLD)
        {
            self.trouble = None;
        }
        if let Some(trouble) = &self.trouble {
            conditions.push(Condition {
                key: ConditionKey {
                    kind: ConditionKind::LedgerUnwritable,
                    subject: self.settings.ledger().display().to_string(),
                },
                severity: Severity::Critical,
                since: trouble.since,
                evidence: format!("{}; units are not restarted until it can be written", trouble.why),
                escalated: true,
                log: None,
                heaviest: Vec::new(),
            });
        }
        for happening in self.told.changes(&conditions) {
            self.crew.reports.tell(happening);
        }
        let picture = View {
            settings: &self.settings,
            diagnosis: &self.diagnosis,
            health: &self.health,
            gate: &self.gate,
            conditions,
            waiting: &decision.waiting,
            brakes: self.brakes.borrow().at(now),
            set_aside: Arc::clone(&self.held.borrow()),
            machine: self.host.machine().is_some(),
            begun: self.begun,
        }
        .picture();
        let status = publish::status(&picture);
        if status != self.told_status {
            self.notify.status(&status);
            self.told_status = status;
        }
        self.ports.picture.send_if_modified(|last| {
            let changed = **last != picture;
            if changed {
                *last = Arc::new(picture);
            }
            changed
        });
    }

    fn alive(&mut self, now: Instant) {
        if let (Some(due), Some(interval)) = (self.next_alive, self.notify.interval())
            && now >= due
        {
            self.notify.alive();
            self.next_alive = Some(now + interval);
        }
    }
}

/// Returns when the gate has written something; never, where that is not told.
async fn written(words: &mut Option<gate::Wake>) {
    match words {
        Some(words) => words.written().await,
        None => pending().await,
    }
}
