//! Who plays what in a drill: drawn from its seed. Pure; the same seed is the same cast.

use std::collections::BTreeMap;
use std::time::Duration;

use blackstart_apiserver::Release;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::super::topology::{Role, Topology};

/// Who plays what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cast {
    /// What the cluster runs: the newest release that is played, or 1.13.
    pub(super) release: Release,
    /// The worker to which it happens.
    pub(super) victim: String,
    /// Another worker, where those live that are to be left alone.
    pub(super) refuge: String,
    /// The workers beside these two.
    pub(super) others: Vec<String>,
    /// How many pods the workload has that it happens to.
    pub(super) replicas: u32,
    /// How long each machine's kubelet takes from its start to health.
    pub(super) kubelet_start: BTreeMap<String, Duration>,
}

impl Cast {
    /// The steps by which pods leave a node that is off: older clusters have no out-of-service taint, and their pods are deleted by force.
    pub(super) fn moved_when_off(&self) -> &'static [&'static str] {
        if self.release == Release::V1_13 {
            &["cordon", "force-delete", "await-moved"]
        } else {
            &["cordon", "taint-out-of-service", "await-moved"]
        }
    }

    /// The steps by which such a node is taken back.
    pub(super) fn taken_back(&self) -> &'static [&'static str] {
        if self.release == Release::V1_13 {
            &["start-kubelet", "await-ready", "uncordon", "unsilence"]
        } else {
            &[
                "start-kubelet",
                "await-ready",
                "remove-taint",
                "uncordon",
                "unsilence",
            ]
        }
    }

    /// Draws it; the topology has three workers at least.
    pub(super) fn draw(topology: &Topology, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let kubelet_start = topology
            .machines()
            .map(|(_, machine)| {
                let takes = Duration::from_millis(random.random_range(200..900));
                (machine.name.clone(), takes)
            })
            .collect();
        let workers = topology
            .machines()
            .filter(|(_, machine)| machine.role == Role::Worker);
        let mut workers: Vec<_> = workers.map(|(_, machine)| machine.name.clone()).collect();
        workers.shuffle(&mut random);
        let mut workers = workers.into_iter();
        Self {
            release: if random.random_bool(0.5) {
                Release::CURRENT
            } else {
                Release::V1_13
            },
            victim: workers.next().unwrap_or_default(),
            refuge: workers.next().unwrap_or_default(),
            others: workers.collect(),
            replicas: random.random_range(3..=6),
            kubelet_start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_cast_and_nobody_plays_two_parts() {
        let business = Topology::new(&["business".to_owned()], None).unwrap();
        let mut victims = std::collections::BTreeSet::new();
        let mut releases = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let cast = Cast::draw(&business, seed);
            assert_eq!(cast, Cast::draw(&business, seed));
            assert!(cast.victim != cast.refuge && !cast.others.contains(&cast.victim));
            assert_eq!(cast.others.len(), 2, "seed {seed}");
            releases.insert(cast.release.minor);
            victims.insert(cast.victim);
        }
        assert_eq!((victims.len(), releases.len()), (4, 2));
    }
}
