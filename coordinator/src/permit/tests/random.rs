//! What must hold of any history of requests, returns, nodes that fall and come back.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::decide::needed;
use super::*;

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// This node asks.
    Ask(usize, PermitKind),
    /// The oldest permit is given back, its node well or not.
    GiveBack(bool),
    /// This node falls.
    Falls(usize),
    /// It is up again.
    Rises(usize),
    /// Nobody knows.
    Fades(usize),
    /// Its session comes or goes.
    Presence(usize, Presence),
}

fn kind() -> impl Strategy<Value = PermitKind> {
    proptest::sample::select(PermitKind::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..14_usize;
    let presence = proptest::sample::select(vec![Presence::Here, Presence::Between, Presence::Gone]);
    prop_oneof![
        4 => (node.clone(), kind()).prop_map(|(node, kind)| Step::Ask(node, kind)),
        3 => any::<bool>().prop_map(Step::GiveBack),
        1 => node.clone().prop_map(Step::Falls),
        2 => node.clone().prop_map(Step::Rises),
        1 => node.clone().prop_map(Step::Fades),
        1 => (node, presence).prop_map(|(node, presence)| Step::Presence(node, presence)),
    ]
}

/// Two clusters, and their lanes.
struct World {
    names: Vec<NodeName>,
    fleet: FleetState,
    grants: Vec<Grant>,
    requests: Vec<Request>,
    now: Instant,
    budget: Budget,
}

impl World {
    fn new(masters: usize, budget: Budget) -> Self {
        let mut names = Vec::new();
        let mut fleet = FleetState::new();
        for cluster in ["a", "b"] {
            let mut state = ClusterState::default();
            for (role, letter, count) in [
                (Role::ControlPlane, "m", masters),
                (Role::Worker, "w", 6 - masters),
            ] {
                for index in 0..count {
                    let name = NodeName(format!("{cluster}-{letter}{index}"));
                    names.push(name.clone());
                    state.members.insert(name, member(role, Health::Up));
                }
            }
            fleet.insert(ClusterName(cluster.to_owned()), state);
        }
        Self {
            names,
            fleet,
            grants: Vec::new(),
            requests: Vec::new(),
            now: Instant::now(),
            budget,
        }
    }

    fn member(&mut self, node: usize) -> Option<&mut Member> {
        let name = self.names.get(node)?;
        self.fleet
            .values_mut()
            .find_map(|state| state.members.get_mut(name))
    }

    fn take(&mut self, step: Step) {
        self.now += Duration::from_secs(1);
        match step {
            Step::Ask(node, kind) => {
                let Some(name) = self.names.get(node) else { return };
                let asked = wish(&name.0, kind, Asker::Agent);
                let known = self.requests.iter().any(|known| known.wish.id == asked.id)
                    || self.grants.iter().any(|known| known.wish.id == asked.id);
                if !known {
                    self.requests.push(Request {
                        wish: asked,
                        since: self.now,
                        presence: Presence::Here,
                    });
                }
            }
            Step::GiveBack(well) => {
                if self.grants.is_empty() {
                    return;
                }
                let ended = self.grants.remove(0).wish.id.node;
                let at = self.names.iter().position(|name| *name == ended).unwrap();
                self.member(at).unwrap().health = if well { Health::Up } else { Health::Down };
            }
            Step::Falls(node) => self.health(node, Health::Down),
            Step::Rises(node) => self.health(node, Health::Up),
            Step::Fades(node) => self.health(node, Health::Unknown),
            Step::Presence(node, presence) => {
                let Some(name) = self.names.get(node) else { return };
                let of = self
                    .requests
                    .iter_mut()
                    .filter(|known| known.wish.id.node == *name);
                of.for_each(|known| known.presence = presence);
            }
        }
    }

    fn health(&mut self, node: usize, health: Health) {
        if let Some(member) = self.member(node) {
            member.health = health;
        }
    }

    /// Decides, and holds each grant to the laws before it counts.
    fn pass(&mut self) {
        let verdicts = decide(&self.requests, &self.grants, &self.fleet, self.budget);
        let mut kept = Vec::new();
        for (request, verdict) in std::mem::take(&mut self.requests).into_iter().zip(verdicts) {
            if verdict == Verdict::Grant {
                assert_eq!(request.presence, Presence::Here, "{request:?}");
                self.lawful(&request);
                self.grants.push(grant(request.wish, self.now));
            } else {
                kept.push(request);
            }
        }
        self.requests = kept;
        self.lanes();
    }

    fn lawful(&self, request: &Request) {
        let node = &request.wish.id.node;
        let (_, state, own) = super::super::decide::member(&self.fleet, node).unwrap();
        if own.role == Role::Worker || own.health == Health::Down {
            return;
        }
        let peers = state.members.iter().filter(|(_, member)| member.role == own.role);
        let (count, up) = peers.fold((0, 0), |(count, up), (name, member)| {
            (
                count + 1,
                up + usize::from(name != node && member.health == Health::Up),
            )
        });
        assert!(up >= needed(count), "{node}: {up} of {count} would stay");
        if count >= 3 {
            assert!(up > count / 2, "{node}: no quorum would stay");
        }
    }

    fn lanes(&self) {
        for (cluster, state) in &self.fleet {
            let holders: BTreeSet<_> = self.grants.iter().map(|grant| &grant.wish.id.node).collect();
            let with = |role| {
                let of = holders.iter().filter(|node| {
                    state
                        .members
                        .get(**node)
                        .is_some_and(|member| member.role == role)
                });
                of.count()
            };
            assert!(
                with(Role::ControlPlane) <= 1,
                "two masters of {cluster}: {:?}",
                self.grants
            );
            let workers = state
                .members
                .values()
                .filter(|member| member.role == Role::Worker)
                .count();
            assert!(
                with(Role::Worker) <= self.budget.of(workers),
                "{cluster}: {:?}",
                self.grants
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_two_masters_never_below_quorum_and_nobody_starves(
        masters in 1..=5_usize,
        percent in 1..=100_u32,
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(masters, Budget::Percent(percent));
        for step in steps {
            world.take(step);
            world.pass();
        }
        // Everybody is there and well from now on, and permits are given back: whoever asked has his turn.
        for node in 0..world.names.len() {
            world.health(node, Health::Up);
            world.take(Step::Presence(node, Presence::Here));
        }
        let refused = |request: &Request| {
            request.wish.kind == PermitKind::ControlPlaneRepair && request.wish.id.node.0.contains("-w")
        };
        for _ in 0..200 {
            world.take(Step::GiveBack(true));
            world.pass();
        }
        prop_assert!(world.requests.iter().all(refused), "{:?}", world.requests);
    }
}
