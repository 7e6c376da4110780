//! What happens in a rehearsed power loss: which machines come back and when, drawn from a seed. Pure; the same seed is
//! the same scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::topology::{Role, Topology};

/// One power loss and how power comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PowerLoss {
    /// Machines that never come back.
    pub(crate) lost: BTreeSet<String>,
    /// The others, in the order in which power comes back to them; when, after the cut.
    pub(crate) power_on: Vec<(Duration, String)>,
    /// When the coordinator comes back, after the cut.
    pub(crate) coordinator_on: Duration,
    /// In every other drill it dies once more, amid its work: when, and when it is started again, after the cut.
    pub(crate) crash: Option<(Duration, Duration)>,
    /// How long each machine's kubelet takes from its start to health.
    pub(crate) kubelet_start: BTreeMap<String, Duration>,
}

/// Who may never come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// One machine or two, whatever they are.
    OneOrTwo,
    /// One worker.
    OneWorker,
}

/// The shortest time without power.
const DARK: Duration = Duration::from_millis(500);
/// Power comes back to all that return within this.
const RETURNING: Duration = Duration::from_secs(4);

impl PowerLoss {
    /// Draws it. Of each cluster a quorum of masters and `serving` of its workers come back: without them nobody could
    /// start the clusters that depend on it.
    pub(crate) fn draw(
        topology: &Topology,
        serving: impl Fn(usize) -> usize,
        may_be_lost: Lost,
        seed: u64,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let kubelet_start = topology
            .machines()
            .map(|(_, machine)| {
                let takes = Duration::from_millis(random.random_range(200..900));
                (machine.name.clone(), takes)
            })
            .collect();

        let one_or_two = random.random_range(1..=2);
        let how_many = match may_be_lost {
            Lost::OneOrTwo => one_or_two,
            Lost::OneWorker => 1,
        };
        let is_candidate = |name: &str| match may_be_lost {
            Lost::OneOrTwo => true,
            Lost::OneWorker => topology
                .machines()
                .any(|(_, machine)| machine.name == name && machine.role == Role::Worker),
        };
        let mut names: Vec<_> = topology.machines().map(|(_, m)| m.name.clone()).collect();
        names.shuffle(&mut random);
        let mut lost = BTreeSet::new();
        for name in names.iter().filter(|name| is_candidate(name)) {
            if lost.len() == how_many {
                break;
            }
            lost.insert(name.clone());
            if !can_serve(topology, &serving, &lost) {
                lost.remove(name);
            }
        }

        names.retain(|name| !lost.contains(name));
        let mut power_on: Vec<_> = names
            .into_iter()
            .map(|name| (DARK + RETURNING.mul_f64(random.random()), name))
            .collect();
        power_on.sort();
        let coordinator_on = DARK + RETURNING.mul_f64(random.random());
        let crash = random.random_bool(0.5).then(|| {
            let at = coordinator_on + Duration::from_millis(random.random_range(1_000..5_000));
            (at, at + Duration::from_millis(random.random_range(200..1_500)))
        });
        Self {
            lost,
            power_on,
            coordinator_on,
            crash,
            kubelet_start,
        }
    }

    /// The same for machines that are slower by this factor.
    pub(crate) fn slower(mut self, factor: u32) -> Self {
        for (at, _) in &mut self.power_on {
            *at *= factor;
        }
        self.coordinator_on *= factor;
        self.crash = self.crash.map(|(at, back)| (at * factor, back * factor));
        self
    }

    /// Is there no coordinator so long after the cut?
    pub(crate) fn coordinator_is_down(&self, at: Duration) -> bool {
        let crashed = self
            .crash
            .is_some_and(|(from, until)| (from..until).contains(&at));
        at < self.coordinator_on || crashed
    }
}

fn can_serve(topology: &Topology, serving: impl Fn(usize) -> usize, lost: &BTreeSet<String>) -> bool {
    topology.clusters.iter().all(|cluster| {
        let left = |role| {
            let machines = cluster.machines.iter();
            machines
                .filter(|machine| machine.role == role && !lost.contains(&machine.name))
                .count()
        };
        left(Role::Master) >= cluster.quorum() && left(Role::Worker) >= serving(cluster.count(Role::Worker))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(workers: usize) -> usize {
        workers.div_ceil(2)
    }

    #[test]
    fn the_same_seed_is_the_same_power_loss() {
        let plan = Topology::new(&[], None).unwrap();
        assert_eq!(
            PowerLoss::draw(&plan, half, Lost::OneOrTwo, 7),
            PowerLoss::draw(&plan, half, Lost::OneOrTwo, 7)
        );
        assert_ne!(
            PowerLoss::draw(&plan, half, Lost::OneOrTwo, 7),
            PowerLoss::draw(&plan, half, Lost::OneOrTwo, 8)
        );
    }

    #[test]
    fn one_or_two_are_lost_and_every_cluster_can_serve_without_them() {
        let plan = Topology::new(&[], None).unwrap();
        let mut masters_lost = 0;
        for seed in 0..500 {
            let drawn = PowerLoss::draw(&plan, half, Lost::OneOrTwo, seed);
            assert!((1..=2).contains(&drawn.lost.len()), "seed {seed}");
            assert_eq!(drawn.lost.len() + drawn.power_on.len(), 18, "seed {seed}");
            assert!(can_serve(&plan, half, &drawn.lost), "seed {seed}");
            let machines = plan.machines();
            masters_lost += machines
                .filter(|(_, m)| m.role == Role::Master && drawn.lost.contains(&m.name))
                .count();
        }
        assert!(masters_lost > 0, "no seed loses a master");
    }

    #[test]
    fn where_nobody_can_be_spared_nobody_is_lost() {
        let least = Topology::new(&["paas".to_owned()], Some(4)).unwrap();
        for seed in 0..50 {
            let drawn = PowerLoss::draw(&least, half, Lost::OneOrTwo, seed);
            // Three masters and one worker: one master at most.
            assert!(
                drawn.lost.len() <= 1 && !drawn.lost.contains("paas-4"),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn where_one_worker_is_to_be_lost_it_is_one() {
        let plan = Topology::new(&["paas".to_owned()], None).unwrap();
        for seed in 0..50 {
            let drawn = PowerLoss::draw(&plan, half, Lost::OneWorker, seed);
            let lost: Vec<_> = drawn.lost.iter().map(String::as_str).collect();
            assert!(matches!(lost[..], ["paas-4" | "paas-5" | "paas-6"]), "{lost:?}");
        }
    }

    #[test]
    fn slower_machines_do_the_same_later() {
        let plan = Topology::new(&[], None).unwrap();
        let crashing = |seed: &u64| {
            PowerLoss::draw(&plan, half, Lost::OneOrTwo, *seed)
                .crash
                .is_some()
        };
        let seed = (0..50).find(crashing).unwrap();
        let drawn = PowerLoss::draw(&plan, half, Lost::OneOrTwo, seed);
        let slower = drawn.clone().slower(2);
        assert_eq!(slower.lost, drawn.lost);
        let order = |drawn: &PowerLoss| {
            drawn
                .power_on
                .iter()
                .map(|(_, name)| name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(order(&slower), order(&drawn));
        assert_eq!(slower.power_on[0].0, drawn.power_on[0].0 * 2);
        let (from, until) = slower.crash.unwrap();
        let down = |at| slower.coordinator_is_down(at);
        assert!(down(Duration::ZERO) && !down(slower.coordinator_on));
        assert!(down(from) && !down(until));
    }
}
