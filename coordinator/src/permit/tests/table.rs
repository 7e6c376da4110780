//! The table of truth, and `docs/permits.md`, which is written from it:
//! `BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-coordinator permit`.

use std::fmt::Write as _;
use std::{env, fs};

use super::*;
use Asker::{Agent, FleetLock};
use Health::{Down, Unknown, Up};
use PermitKind::{ControlPlaneRepair as Repair, Reboot, RuntimeRestart as Runtime};
use Presence::{Between, Gone, Here};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/permits.md");

/// What else there is.
#[derive(Debug, Clone, Copy)]
enum Also {
    Nothing,
    Held,
    PowerEvent,
    Run,
    Storm,
    /// This worker is silenced.
    Silenced(&'static str),
}

/// (who has a permit, who asks: oldest first)
type Has = (&'static str, PermitKind);
type Asks = (&'static str, PermitKind, Presence);
/// (what happens, masters m1…, workers w1…, who has a permit, who asks, what else, the verdict on each that asks)
type Row = (
    &'static str,
    &'static [Health],
    &'static [Health],
    &'static [Has],
    &'static [Asks],
    Also,
    &'static [&'static str],
);

const GRANT: &str = "**granted**";

#[rustfmt::skip]
const TABLE: &[(&str, &[Row])] = &[
    ("Masters: one at a time, and never below their quorum", &[
        ("a runtime hangs", &[Up; 3], &[], &[], &[("m1", Runtime, Here)], Also::Nothing, &[GRANT]),
        ("two at once", &[Up; 3], &[], &[], &[("m1", Runtime, Here), ("m2", Runtime, Here)], Also::Nothing,
            &[GRANT, "m1, which has the lane of the control plane for its runtime-restart"]),
        ("one is at it", &[Up; 3], &[], &[("m3", Reboot)], &[("m1", Runtime, Here)], Also::Nothing,
            &["m3, which has the lane of the control plane for its reboot"]),
        ("another is down", &[Up, Up, Down], &[], &[], &[("m1", Runtime, Here)], Also::Nothing,
            &["others to be up: 1 of the 2 others are known to be, and 2 have to be"]),
        ("another was not heard of", &[Up, Up, Unknown], &[], &[], &[("m1", Runtime, Here)], Also::Nothing,
            &["others to be up: 1 of the 2 others are known to be, and 2 have to be"]),
        ("it is down itself, and so is another", &[Down, Up, Down], &[], &[], &[("m1", Repair, Here)], Also::Nothing, &[GRANT]),
        ("all are down: one by one", &[Down; 3], &[], &[], &[("m1", Repair, Here), ("m2", Repair, Here)], Also::Nothing,
            &[GRANT, "m1, which has the lane of the control plane for its control-plane-repair"]),
        ("nobody knows how it is, nor how the others are", &[Unknown; 3], &[], &[], &[("m1", Repair, Here)], Also::Nothing,
            &["others to be up: 0 of the 2 others are known to be, and 2 have to be"]),
        ("one of five is down", &[Up, Up, Up, Up, Down], &[], &[], &[("m1", Reboot, Here)], Also::Nothing, &[GRANT]),
        ("the only one", &[Up], &[], &[], &[("m1", Runtime, Here)], Also::Nothing, &[GRANT]),
        ("one of two, the other down", &[Up, Down], &[], &[], &[("m1", Reboot, Here)], Also::Nothing,
            &["others to be up: 0 of the 1 others are known to be, and 1 have to be"]),
        ("it has one, and needs another", &[Up; 3], &[], &[("m1", Reboot)], &[("m1", Runtime, Here)], Also::Nothing, &[GRANT]),
        ("a worker is away", &[Up; 3], &[Up, Down], &[("w1", Reboot)], &[("m1", Runtime, Here)], Also::Nothing, &[GRANT]),
    ]),
    ("Turns: repairs, then runtimes, then reboots; the oldest first", &[
        ("a repair came later", &[Up, Down, Up], &[], &[], &[("m1", Reboot, Here), ("m2", Repair, Here)], Also::Nothing,
            &["m2, which has the lane of the control plane for its control-plane-repair", GRANT]),
        ("the first cannot go, the second can", &[Up, Down, Up], &[], &[], &[("m1", Runtime, Here), ("m2", Runtime, Here)], Also::Nothing,
            &["others to be up: 1 of the 2 others are known to be, and 2 have to be", GRANT]),
        ("the first one's session is gone", &[Up; 3], &[], &[], &[("m1", Runtime, Gone), ("m2", Runtime, Here)], Also::Nothing,
            &["whoever asked to ask again", GRANT]),
        ("a reboot tool asked first and will ask again", &[Up; 3], &[], &[], &[("m1", Reboot, Between), ("m2", Reboot, Here)], Also::Nothing,
            &["whoever asked to ask again", "m1, whose turn it is"]),
        ("a repair is not kept waiting by such a tool", &[Up, Down, Up], &[], &[], &[("m1", Reboot, Between), ("m2", Repair, Here)], Also::Nothing,
            &["m2, which has the lane of the control plane for its control-plane-repair", GRANT]),
    ]),
    ("Workers: a budget, here 2 of 4", &[
        ("nobody is away", &[], &[Up; 4], &[], &[("w1", Reboot, Here)], Also::Nothing, &[GRANT]),
        ("three at once", &[], &[Up; 4], &[], &[("w1", Reboot, Here), ("w2", Reboot, Here), ("w3", Reboot, Here)], Also::Nothing,
            &[GRANT, GRANT, "workers to be back: 2 away (w1, w2), at most 2 may be"]),
        ("one is down without a permit", &[], &[Up, Up, Up, Down], &[("w2", Reboot)], &[("w1", Reboot, Here)], Also::Nothing,
            &["workers to be back: 2 away (w2, w4), at most 2 may be"]),
        ("the one that is down is silenced", &[], &[Up, Up, Up, Down], &[("w2", Reboot)], &[("w1", Reboot, Here)], Also::Silenced("w4"),
            &["workers to be back: 1 away (w2), at most 1 may be"]),
        ("it is one of those that are down", &[], &[Down, Down, Up, Up], &[], &[("w1", Reboot, Here)], Also::Nothing, &[GRANT]),
        ("a master is at it", &[Up; 3], &[Up; 4], &[("m1", Reboot)], &[("w1", Reboot, Here)], Also::Nothing, &[GRANT]),
    ]),
    ("What nobody reboots in, and what is never granted", &[
        ("a hold of everything on the node", &[Up; 3], &[Up; 4], &[], &[("m1", Repair, Here), ("m2", Repair, Here)], Also::Held,
            &["a hold to be lifted (ann: new disk)", GRANT]),
        ("a power event", &[Down; 3], &[Up; 4], &[], &[("w1", Reboot, Here), ("m1", Repair, Here)], Also::PowerEvent,
            &["the cluster's power event to be over", GRANT]),
        ("a run", &[Up; 3], &[Up; 4], &[], &[("w1", Reboot, Here), ("m1", Runtime, Here)], Also::Run,
            &["run cold-start-3, which brings the cluster back", GRANT]),
        ("a storm", &[Up; 3], &[Up; 4], &[], &[("m2", Reboot, Here), ("m1", Repair, Here)], Also::Storm,
            &["a storm to pass (UnitFailed)", GRANT]),
        ("a worker with a control plane", &[Up; 3], &[Up; 4], &[], &[("w1", Repair, Here)], Also::Nothing,
            &["refused: the node is a worker by the inventory, and has no control plane to mend"]),
        ("a node of nobody's", &[Up; 3], &[], &[], &[("x", Reboot, Here)], Also::Nothing,
            &["refused: the node is not in the inventory; add it there and restart the coordinator"]),
    ]),
];

fn fleet(masters: &[Health], workers: &[Health], also: Also) -> FleetState {
    let mut state = ClusterState::default();
    for (letter, role, healths) in [("m", Role::ControlPlane, masters), ("w", Role::Worker, workers)] {
        for (index, health) in healths.iter().enumerate() {
            let name = NodeName(format!("{letter}{}", index + 1));
            state.members.insert(name, member(role, *health));
        }
    }
    match also {
        Also::Nothing => {}
        Also::Held => {
            let held = PermitKind::ALL.map(|kind| (kind, "ann: new disk".to_owned()));
            let first = state.members.get_mut(&NodeName("m1".to_owned()));
            first.unwrap().held = held.into();
        }
        Also::PowerEvent => state.power_event = true,
        Also::Run => state.run = Some("cold-start-3".to_owned()),
        Also::Storm => state.storm = Some("UnitFailed".to_owned()),
        Also::Silenced(name) => {
            let silenced = state.members.get_mut(&NodeName(name.to_owned()));
            silenced.unwrap().silenced = true;
        }
    }
    [(ClusterName("c".to_owned()), state)].into()
}

fn judged(row: &Row) -> Vec<String> {
    let (_, masters, workers, has, asks, also, _) = row;
    let now = Instant::now();
    let grants: Vec<_> = has
        .iter()
        .map(|(node, kind)| grant(wish(node, *kind, Agent), now))
        .collect();
    let requests: Vec<_> = asks
        .iter()
        .zip(0..)
        .map(|((node, kind, presence), after)| Request {
            wish: wish(node, *kind, if *kind == Reboot { FleetLock } else { Agent }),
            since: now + Duration::from_secs(after),
            presence: *presence,
        })
        .collect();
    let verdicts = decide(
        &requests,
        &grants,
        &fleet(masters, workers, *also),
        Budget::Percent(50),
    );
    verdicts
        .into_iter()
        .map(|verdict| match verdict {
            Verdict::Grant => GRANT.to_owned(),
            Verdict::Wait(on) => on.to_string(),
            Verdict::Refuse(why) => format!("refused: {why}"),
        })
        .collect()
}

#[test]
fn truth_table() {
    for (of, rows) in TABLE {
        for row in *rows {
            assert_eq!(judged(row), row.6, "{of}: {}", row.0);
        }
    }
}

fn words(masters: &[Health], workers: &[Health]) -> String {
    let word = |health: &Health| match health {
        Up => "up",
        Down => "down",
        Unknown => "not known",
    };
    let group = |letter: &str, healths: &[Health]| {
        let each = healths
            .iter()
            .enumerate()
            .map(|(index, health)| format!("{letter}{} {}", index + 1, word(health)));
        each.collect::<Vec<_>>()
    };
    [group("m", masters), group("w", workers)].concat().join(", ")
}

const fn also_words(also: Also) -> &'static str {
    match also {
        Also::Nothing => "",
        Also::Held => "; m1 is held",
        Also::PowerEvent => "; a power event",
        Also::Run => "; a cold start",
        Also::Storm => "; a storm",
        Also::Silenced(_) => "; w4 is silenced",
    }
}

const HEAD: &str = "\
# Permits

What takes a node away for a while goes in turn. Agents ask for a permit before a disruptive remedy, reboot tools before a reboot; this is what becomes of a
request. Written from the tests that hold it (`BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-coordinator permit`).

| lane | who | how many at once |
|---|---|---|
| control plane | the masters and external etcd members of a cluster | one; one that is up, or not known to be down, only while a quorum of its role is up without it |
| workers | the workers of a cluster | `permits.workers`: by default a tenth of them, and one at least; who is not up counts as away, who is silenced does not count |

| permit | asked by | before |
|---|---|---|
| control-plane-repair | agents of masters | a bounce of etcd or the API server (`static_pods.components` with `permit`) |
| runtime-restart | agents of masters | a kill of the container runtime |
| reboot | reboot tools, by FleetLock | a reboot |

A master is *up* when its agent attests, within `cold_start.fresh` and after its last permit ended, that its API server is ready; *down* when it attests that the API server failed;
otherwise nobody knows. A worker is up when its kubelet is healthy, an external etcd member when its agent is in session. Of two masters the other one has to be up; a single
one needs nobody. A node that is down costs nothing, so a control plane that has lost its quorum is mended one by one.

A permit ends when it is given back. What becomes of one that nobody gives back:

| asked by | its node | within its term | after it |
|---|---|---|---|
| agent | in session, and its agent says that it has it | stands | stands, and a `PermitOverdue` event says so |
| agent | in session for 10 s, and its agent does not say so | ends once the node is up | ends |
| reboot tool | in session and up | stands: it may boot any moment | ends |
| reboot tool | in session and not up | stands | stands, and a `PermitOverdue` event says so |
| either | not in session | stands | ends once the node has been silent for `permits.silent_for` |
| either | `blackstart permit release NODE` | ends | ends |
";

fn document() -> String {
    let mut text = HEAD.to_owned();
    for (of, rows) in TABLE {
        write!(
            text,
            "\n**{of}**\n\n| what happens | nodes | has a permit | asks, the oldest first | verdict, or what it waits for |\n|---|---|---|---|---|\n"
        )
        .unwrap();
        for (what, masters, workers, has, asks, also, verdicts) in *rows {
            let has: Vec<_> = has
                .iter()
                .map(|(node, kind)| format!("{node} ({})", kind.as_str()))
                .collect();
            let asks: Vec<_> = asks
                .iter()
                .map(|(node, kind, _)| format!("{node} ({})", kind.as_str()))
                .collect();
            let verdicts: Vec<_> = asks
                .iter()
                .zip(*verdicts)
                .map(|(ask, verdict)| format!("{}: {verdict}", ask.split(' ').next().unwrap_or_default()))
                .collect();
            writeln!(
                text,
                "| {what} | {}{} | {} | {} | {} |",
                words(masters, workers),
                also_words(*also),
                has.join(", "),
                asks.join(", "),
                verdicts.join("; ")
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn docs_permits_is_this_table() {
    let text = document();
    if env::var_os("BLACKSTART_WRITE_DOCS").is_some() {
        fs::write(FILE, &text).unwrap();
    }
    assert!(
        fs::read_to_string(FILE).unwrap_or_default() == text,
        "docs/permits.md is out of date: BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-coordinator permit"
    );
}
