//! The truth table of a cluster of four, and `docs/outage.md`, which is written from it:
//! `BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-coordinator outage`.

use std::fmt::Write as _;
use std::{env, fs};

use super::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/outage.md");

/// (what happened, the nodes, the coordinator's own boot was unclean, seconds after it began, verdict)
type Row = (&'static str, &'static [Node], bool, u64, Expect);

#[rustfmt::skip]
const TABLE: &[(&str, &[Row])] = &[
    ("Nothing much", &[
        ("nothing", &[Fine; 4], false, 60, Expect::Normal),
        ("one lost", &[Lost(50), Fine, Fine, Fine], false, 60, Expect::Normal),
        ("one crash", &[Back(Unclean, 50), Fine, Fine, Fine], false, 60, Expect::Normal),
        ("lost far apart", &[Lost(50), Lost(HOUR), Fine, Fine], false, 2 * HOUR, Expect::Normal),
        ("a crash long after a loss", &[Back(Unclean, 2 * HOUR), Lost(1), Fine, Fine], false, 2 * HOUR + 60, Expect::Normal),
    ]),
    ("Power loss", &[
        ("the first of the lost is back unclean", &[Back(Unclean, 55), Lost(10), Lost(10), Lost(11)], false, 60, Expect::Power),
        ("half back unclean", &[Back(Unclean, 50), Back(Unclean, 55), Fine, Fine], false, 60, Expect::Power),
        ("half back, one of them clean", &[Back(Unclean, 50), Back(Clean, 55), Fine, Fine], false, 60, Expect::Normal),
        ("held counts as unclean", &[Held(50), Lost(10), Fine, Fine], false, 60, Expect::Power),
        ("held, the coordinator restarted meanwhile", &[HeldFromBefore, HeldFromBefore, Fine, Fine], false, 60, Expect::Power),
        ("a long outage: boots together, losses long ago", &[Held(2 * HOUR), Held(2 * HOUR + 60), Lost(1), Lost(1)], false, 2 * HOUR + 90, Expect::Power),
        ("recovered, and an hour later", &[Back(Unclean, 50); 4], false, HOUR, Expect::Normal),
        ("still held an hour later", &[Held(50); 4], false, HOUR, Expect::Power),
    ]),
    ("Network partition", &[
        ("half lost together", &[Lost(50), Lost(51), Fine, Fine], false, 60, Expect::Suspicion),
        ("all lost", &[Lost(50); 4], false, 60, Expect::Suspicion),
        ("it lasts", &[Lost(50); 4], false, 3 * HOUR, Expect::Suspicion),
        ("it is over: same boots", &[SameBoot; 4], false, 60, Expect::Normal),
        ("half lost, and a crash beside it in the same minutes", &[Lost(50), Lost(51), Back(Unclean, 55), Fine], false, 60, Expect::Power),
    ]),
    ("Rolling reboot", &[
        ("one after the other, in order", &[Back(Clean, 40), Back(Clean, 45), Back(Clean, 50), Goodbye], false, 60, Expect::Normal),
        ("machines shut down in order", &[Goodbye; 4], false, 60, Expect::Normal),
        ("one of them crashed on its way", &[Back(Clean, 40), Back(Unclean, 45), Back(Clean, 50), Goodbye], false, 60, Expect::Normal),
        ("reset buttons, one after the other", &[Back(Unclean, 40), Back(Unclean, 50), Fine, Fine], false, 60, Expect::Power),
    ]),
    ("Deployment of the agent", &[
        ("restarted: goodbye, same boots", &[Goodbye, SameBoot, SameBoot, SameBoot], false, 60, Expect::Normal),
        ("a bad one: all crash at once and stay down", &[Lost(50); 4], false, 60, Expect::Suspicion),
        ("a bad one in a crash loop: some lost, some back in the same boot", &[Lost(50), Lost(51), SameBoot, SameBoot], false, 60, Expect::Suspicion),
        ("rolled back: same boots", &[SameBoot; 4], false, 60, Expect::Normal),
        ("installed for the first time: first boots", &[Back(FirstBoot, 50); 4], false, 60, Expect::Normal),
    ]),
    ("The coordinator's own outage", &[
        ("it restarted, nobody is back yet", &[Unheard; 4], false, 60, Expect::Normal),
        ("it restarted, some are back in the same boot", &[SameBoot, SameBoot, Unheard, Unheard], false, 60, Expect::Normal),
        ("a new one meets old crashes", &[FirstContact(50); 4], false, 60, Expect::Normal),
        ("its own unclean boot, nobody is back", &[Unheard; 4], true, 60, Expect::Normal),
        ("its own unclean boot, one lost", &[Lost(50), Fine, Fine, Fine], true, 60, Expect::Normal),
        ("its own unclean boot, one back unclean", &[Back(Unclean, 50), Unheard, Unheard, Unheard], true, 60, Expect::Power),
        ("its own unclean boot, one back clean", &[Back(Clean, 50), Unheard, Unheard, Unheard], true, 60, Expect::Normal),
        ("its own unclean boot, a crash hours later", &[Back(Unclean, 2 * HOUR), Fine, Fine, Fine], true, 2 * HOUR + 60, Expect::Normal),
    ]),
    ("Loss of a rack with half of the cluster", &[
        ("its nodes lost", &[Lost(50), Lost(50), Fine, Fine], false, 60, Expect::Suspicion),
        ("its nodes held", &[Held(50), Held(52), Fine, Fine], false, 60, Expect::Power),
    ]),
];

#[test]
fn truth_table() {
    for (of, rows) in TABLE {
        for (what, nodes, own, now, expect) in *rows {
            let verdict = judged(nodes, *own, *now);
            assert_eq!(Expect::of(&verdict), *expect, "{of}: {what}: {verdict:?}");
        }
    }
}

const fn word(node: Node) -> &'static str {
    match node {
        Fine => "well",
        Lost(_) => "lost",
        SameBoot => "same boot",
        Back(Clean, _) => "new boot, clean end",
        Back(Unclean, _) => "new boot, unclean end",
        Back(FirstBoot, _) => "first boot",
        Held(_) => "held",
        HeldFromBefore => "held, known before",
        FirstContact(_) => "first contact, unclean end",
        Goodbye => "goodbye",
        Unheard => "not heard of yet",
    }
}

fn words(nodes: &[Node]) -> String {
    let words: Vec<_> = nodes.iter().map(|node| word(*node)).collect();
    let groups = words.chunk_by(|a, b| a == b).map(|group| match group.len() {
        1 => group[0].to_owned(),
        count => format!("{count} × {}", group[0]),
    });
    groups.collect::<Vec<_>>().join("; ")
}

const fn verdict(expect: Expect) -> &'static str {
    match expect {
        Expect::Normal => "normal",
        Expect::Suspicion => "suspicion",
        Expect::Power => "**power event**",
    }
}

const HEAD: &str = "\
# What is an outage

What the coordinator takes for a power event of a cluster, and what only looks like one. Written from the tests that hold it
(`BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-coordinator outage`); values are the defaults of `outage` in `coordinator.yaml`.

| verdict on a cluster | what it rests on | what begins by itself |
|---|---|---|
| normal | too few signs, or none | nothing; a node that is held alone for 30 s rejoins alone |
| suspicion | half of the nodes lost without a goodbye within 15 minutes, and nobody back to say why | nothing by itself; if another cluster has a power event, this one is in its cold start |
| power event | the same, and one of them back in a new boot after an unclean end, or held at its gate; or one such node, and the coordinator's own boot was unclean within the same 15 minutes | `cold_start.trigger: auto` the cold start, `propose` a proposal, `off` nothing |

Verdicts are of a cluster, from its own nodes alone. A cold start leaves nodes that run alone, so a verdict that is wrong (a partition with a crash beside it)
starts nothing anew: it waits for the lost, and calls those that do not come back residue.

**The operator's word** stands above all of it. `blackstart coldstart start --cluster NAME` begins whatever the verdict; `blackstart coldstart abort`
ends what began, and nothing begins for the same boots by itself again; `cold_start.trigger` says whether anything may begin at all.

## A cluster of four
";

const RACKS: &str = "
## Racks
Two clusters over three racks (`rack` in the inventory), two nodes of each cluster in each rack. A rack is judged across clusters, by all of its nodes that were there, once
nothing about it changed for 30 s. It is told as an event, and nothing is begun for it: its nodes rejoin one by one, or with their cluster if the rack had half of
it. What takes every rack is told by the clusters.

| what happened | nodes of the first rack | told |
|---|---|---|
";

fn document() -> String {
    let mut text = HEAD.to_owned();
    for (of, rows) in TABLE {
        write!(
            text,
            "\n**{of}**\n\n| what happened | nodes | verdict |\n|---|---|---|\n"
        )
        .unwrap();
        for (what, nodes, _, _, expect) in *rows {
            writeln!(text, "| {what} | {} | {} |", words(nodes), verdict(*expect)).unwrap();
        }
    }
    text += RACKS;
    for (what, first, _, _, _, told) in super::racks::TABLE {
        let told: Vec<_> = told
            .iter()
            .map(|(rack, expect)| format!("{rack}: {}", verdict(*expect)))
            .collect();
        let told = if told.is_empty() {
            "nothing".to_owned()
        } else {
            told.join(", ")
        };
        writeln!(text, "| {what} | {} | {told} |", words(first)).unwrap();
    }
    text
}

#[test]
fn docs_outage_is_this_table() {
    let text = document();
    if env::var_os("BLACKSTART_WRITE_DOCS").is_some() {
        fs::write(FILE, &text).unwrap();
    }
    assert!(
        fs::read_to_string(FILE).unwrap_or_default() == text,
        "docs/outage.md is out of date: BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-coordinator outage"
    );
}
