//! A cluster in one thread: messages that are lost, late and repeated, members that crash with what they had not saved. A seed is a run.

use rand::SeedableRng;
use rand::seq::IndexedRandom;

use super::*;

/// One member, and its disk.
struct Node {
    core: Core,
    /// What a crash leaves.
    saved: (HardState, Log),
    applied: u64,
    carried_out: Vec<(u64, u64, Vec<u8>)>,
    is_up: bool,
}

struct World {
    nodes: Vec<Node>,
    flying: Vec<Message>,
    random: StdRng,
    who: Voters,
    /// Reads that were asked: by whom, and what had been agreed by then.
    reads: BTreeMap<u64, (usize, u64)>,
    answered: usize,
}

impl World {
    fn new(seed: u64, members: u64) -> Self {
        let who = Voters {
            voters: (1..=members).collect(),
            learners: BTreeSet::new(),
        };
        let mut random = StdRng::seed_from_u64(seed);
        let nodes = (1..=members).map(|id| {
            let log = Log::new(Place::default(), Vec::new());
            let core = Core::new(
                id,
                HardState::default(),
                who.clone(),
                log.clone(),
                StdRng::from_rng(&mut random),
            );
            Node {
                core,
                saved: (HardState::default(), log),
                applied: 0,
                carried_out: Vec::new(),
                is_up: true,
            }
        });
        let nodes = nodes.collect();
        Self {
            nodes,
            flying: Vec::new(),
            random,
            who,
            reads: BTreeMap::new(),
            answered: 0,
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = self.nodes.iter().enumerate();
        leads
            .filter(|(_, node)| node.is_up && node.core.is_leader())
            .max_by_key(|(_, node)| node.core.hard().term)
            .map(|(at, _)| at)
    }

    /// Saves, then sends, then carries out.
    fn settle(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let unsaved = node.core.log.take_unsaved();
        node.saved.1 = node.core.log.clone();
        node.saved.0 = node.core.hard();
        drop(unsaved);
        let out = node.core.take();
        self.flying.extend(out.messages);
        for answer in out.answers {
            if let Some((_, agreed)) = self.reads.remove(&answer.number) {
                self.answered += 1;
                assert!(
                    answer.index >= agreed,
                    "a read that was asked at {agreed} was answered with {}",
                    answer.index
                );
            }
        }
        while node.applied < node.core.hard().commit {
            node.applied += 1;
            let entry = node.core.log.get(node.applied).unwrap();
            let (term, data) = (entry.term, entry.data.clone().unwrap_or_default());
            node.carried_out.push((node.applied, term, data));
        }
    }

    fn crash(&mut self, at: usize) {
        self.nodes[at].is_up = false;
    }

    fn start(&mut self, at: usize) {
        let random = StdRng::from_rng(&mut self.random);
        let node = &mut self.nodes[at];
        let (hard, log) = node.saved.clone();
        node.core = Core::new(at as u64 + 1, hard, self.who.clone(), log, random);
        node.is_up = true;
    }

    /// One thing happens; `is_bad`: it may be a bad one.
    fn step(&mut self, is_bad: bool) {
        let at = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..100) {
            0..20 if self.nodes[at].is_up => self.nodes[at].core.tick(),
            20..23 if is_bad => self.crash(at),
            23..30 if !self.nodes[at].is_up => self.start(at),
            30..40 if !self.flying.is_empty() && is_bad => {
                let lost = self.random.random_range(0..self.flying.len());
                self.flying.swap_remove(lost);
            }
            40..45 if is_bad => {
                if let Some(again) = self.flying.choose(&mut self.random).cloned() {
                    self.flying.push(again);
                }
            }
            _ if !self.flying.is_empty() => {
                let next = if is_bad {
                    self.random.random_range(0..self.flying.len())
                } else {
                    0
                };
                let message = self.flying.remove(next);
                let to = usize::try_from(message.to - 1).unwrap();
                if self.nodes[to].is_up {
                    self.nodes[to].core.step(message);
                    self.settle(to);
                }
            }
            _ => {}
        }
        if self.nodes[at].is_up {
            self.settle(at);
        }
        // Nobody has a message for ever.
        if self.flying.len() > 500 {
            self.flying.drain(..100);
        }
    }

    /// What was carried out anywhere is the same everywhere, as far as it goes.
    fn agree_on_the_past(&self) {
        let longest = self
            .nodes
            .iter()
            .max_by_key(|node| node.carried_out.len())
            .unwrap();
        for node in &self.nodes {
            assert_eq!(node.carried_out, longest.carried_out[..node.carried_out.len()]);
        }
    }
}

#[test]
fn what_was_agreed_stays_however_messages_and_members_go() {
    let (mut agreed, mut answered) = (0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed, if seed % 2 == 0 { 3 } else { 5 });
        let mut number: u64 = 0;
        let mut acknowledged = Vec::new();
        for turn in 0..6_000_u64 {
            world.step(true);
            if turn % 20 == 0
                && let Some(leader) = world.leader()
            {
                number += 1;
                let proposal = Proposal {
                    kind: Entry::NORMAL,
                    data: number.to_be_bytes().to_vec(),
                };
                let _taken = world.nodes[leader].core.propose(proposal);
                world.settle(leader);
            }
            if turn % 11 == 0 {
                let agreed = world.nodes.iter().map(|node| node.applied).max().unwrap();
                let at = world.random.random_range(0..world.nodes.len());
                world.reads.insert(turn, (at, agreed));
                if world.nodes[at].is_up {
                    world.nodes[at].core.read(turn);
                    world.settle(at);
                }
            }
            for node in &world.nodes {
                if node.carried_out.len() > acknowledged.len() {
                    acknowledged.clone_from(&node.carried_out);
                }
            }
            if turn % 100 == 0 {
                world.agree_on_the_past();
            }
        }
        // Then all is well: everybody comes to have everything, and a leader is found.
        for at in 0..world.nodes.len() {
            if !world.nodes[at].is_up {
                world.start(at);
            }
        }
        for _ in 0..20_000 {
            world.step(false);
        }
        world.agree_on_the_past();
        assert!(world.leader().is_some(), "seed {seed}: nobody leads");
        for node in &world.nodes {
            assert!(
                node.carried_out.starts_with(&acknowledged),
                "seed {seed}: something that was agreed on is lost"
            );
        }
        assert!(!acknowledged.is_empty(), "seed {seed}: nothing was agreed on");
        // What is proposed in good times is agreed on by everybody.
        let leader = world.leader().unwrap();
        let last = Proposal {
            kind: Entry::NORMAL,
            data: b"last".to_vec(),
        };
        world.nodes[leader].core.propose(last).unwrap();
        world.settle(leader);
        for _ in 0..2_000 {
            world.step(false);
        }
        for node in &world.nodes {
            // Behind it may stand what a leader begins with, if another one leads by then.
            let has = node.carried_out.iter().any(|(.., data)| data == b"last");
            assert!(has, "seed {seed}: it is not agreed on");
        }
        agreed += acknowledged.len();
        answered += world.answered;
    }
    // A single bad time may be so bad that little is agreed on in it.
    assert!(agreed > 60 * 20, "{agreed} entries");
    assert!(answered > 300, "{answered} reads");
}

#[test]
fn a_leader_that_hears_of_nobody_steps_down_and_agrees_on_nothing() {
    let mut world = World::new(7, 3);
    while world.leader().is_none() {
        world.step(false);
    }
    let leader = world.leader().unwrap();
    let before = world.nodes[leader].core.hard().commit;
    let core = &mut world.nodes[leader].core;
    core.propose(Proposal {
        kind: Entry::NORMAL,
        data: vec![1],
    })
    .unwrap();
    for _ in 0..2 * ELECTION {
        core.tick();
    }
    assert!(!core.is_leader());
    assert_eq!((core.leader(), core.hard().commit), (0, before));
    let alone = Proposal {
        kind: Entry::NORMAL,
        data: vec![2],
    };
    assert!(core.propose(alone).is_err(), "nobody takes it");
}

#[test]
fn a_learner_gets_the_log_and_has_no_say() {
    let mut world = World::new(3, 3);
    let mut who = world.who.clone();
    who.learners.insert(4);
    let random = StdRng::seed_from_u64(4);
    let log = Log::new(Place::default(), Vec::new());
    let mut learner = Core::new(4, HardState::default(), Voters::default(), log, random);
    while world.leader().is_none() {
        world.step(false);
    }
    let leader = world.leader().unwrap();
    let core = &mut world.nodes[leader].core;
    core.set(who);
    assert!(!core.is_in_sync(4));
    for _ in 0..50 {
        core.tick();
        learner.tick();
        let out = core.take().messages;
        for message in out.into_iter().filter(|message| message.to == 4) {
            learner.step(message);
        }
        for message in learner.take().messages {
            assert!(!matches!(message.body, Some(Body::Canvass(_))));
            core.step(message);
        }
        // The others say that they are there, and no more.
        for from in [1, 2, 3] {
            let said = Appended::default();
            core.step(Message {
                from,
                to: leader as u64 + 1,
                term: core.hard().term,
                body: Some(Body::Appended(said)),
            });
        }
    }
    assert!(core.is_leader() && core.is_in_sync(4));
    assert_eq!(learner.log.last(), core.log.last());
    assert_eq!(learner.leader(), leader as u64 + 1);
}

#[test]
fn whoever_lacks_what_the_log_has_not_any_more_is_sent_the_database() {
    let base = Place { index: 9, term: 2 };
    let hard = HardState {
        term: 2,
        vote: 1,
        commit: 9,
    };
    let who = Voters {
        voters: BTreeSet::from([1]),
        learners: BTreeSet::from([2]),
    };
    let random = StdRng::seed_from_u64(1);
    let mut core = Core::new(1, hard, who.clone(), Log::new(base, Vec::new()), random.clone());
    let log = Log::new(Place::default(), Vec::new());
    let mut learner = Core::new(2, HardState::default(), Voters::default(), log, random);
    let mut sent = 0;
    for _ in 0..60 {
        core.tick();
        let out = core.take();
        for message in out.messages {
            learner.step(message);
        }
        for to in out.databases {
            sent += 1;
            let upto = Place {
                index: core.hard().commit,
                term: core.log.last().term,
            };
            assert!(learner.install(upto, who.clone()));
            assert!(!learner.install(upto, who.clone()), "it has that");
            core.sent_database(to, Some(upto.index));
        }
        for message in learner.take().messages {
            core.step(message);
        }
    }
    assert_eq!(sent, 1);
    assert_eq!(learner.hard().commit, core.hard().commit);
}
