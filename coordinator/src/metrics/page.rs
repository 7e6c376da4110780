//! One scrape.

use std::collections::BTreeMap;
use std::fmt;

use blackstart_proto::metrics::{Labels, Page, count};
use tokio::time::Instant;

use super::{Metrics, Sources};
use crate::execute::status::RunState as ColdStartState;
use crate::fleet::view::Phase;
use crate::inventory::Inventory;
use crate::permit::Standing;
use crate::pki::Seen;
use crate::runbooks::record::RunState;

const PHASES: [Phase; 6] = [
    Phase::Unknown,
    Phase::Ready,
    Phase::NotReady,
    Phase::Held,
    Phase::Silent,
    Phase::Stopped,
];

/// Everything there is to tell, in the text format of `OpenMetrics`. Reads the certificate: for a thread that may block.
pub(super) fn page(metrics: &Metrics) -> Result<String, fmt::Error> {
    let mut page = Page::new("blackstart_coordinator");
    let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
    page.family("info", "The coordinator, always 1", [(version, 1)]);
    if let Ok(own) = Seen::read(&metrics.certificate) {
        let help = "When its own certificate ends, seconds since the Unix epoch";
        page.gauge("certificate_ends_seconds", help, own.ends.as_second());
    }
    let sources = metrics.sources();
    page.gauge("leading", "1: it leads", sources.is_some().into());
    if let Some(sources) = sources {
        fleet(&mut page, &metrics.inventory, &sources);
        runs(&mut page, &sources);
        brakes(&mut page, &metrics.inventory, &sources);
    }
    page.text()
}

/// Also the phases in which no node is, so that an alert has something to look at.
fn fleet(page: &mut Page, inventory: &Inventory, sources: &Sources) {
    let mut phases: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for cluster in &inventory.clusters {
        for phase in PHASES {
            phases.insert((cluster.name.0.as_str(), named(phase)), 0);
        }
    }
    for (name, node) in &sources.fleet.view().borrow().nodes {
        if let Some(spec) = inventory.node(name) {
            let key = (spec.cluster.0.as_str(), named(node.phase));
            *phases.entry(key).or_default() += 1;
        }
    }
    let mut conditions: BTreeMap<(String, String), i64> = BTreeMap::new();
    sources.fleet.read(|state| {
        for (name, node) in state.nodes() {
            let Some(spec) = inventory.node(name) else {
                continue;
            };
            for condition in node.conditions() {
                let key = (spec.cluster.0.clone(), condition.kind.clone());
                *conditions.entry(key).or_default() += 1;
            }
        }
    });
    let phases = phases
        .into_iter()
        .map(|((cluster, phase), nodes)| (labels(["cluster", "phase"], [cluster, phase]), nodes));
    page.family("nodes", "Nodes by what they are doing", phases);
    let conditions = conditions
        .iter()
        .map(|((cluster, kind), standing)| (labels(["cluster", "kind"], [cluster, kind]), *standing));
    page.family("conditions", "Conditions that stand on nodes", conditions);
}

fn runs(page: &mut Page, sources: &Sources) {
    let epoch = i64::try_from(sources.executor.epoch()).unwrap_or(i64::MAX);
    page.gauge("epoch", "The epoch that its orders carry", epoch);
    let mut runs: BTreeMap<(String, &str), i64> = BTreeMap::new();
    let mut asking = 0;
    for run in sources.executor.runs() {
        *runs
            .entry((run.plan.runbook.clone(), of_cold_start(run.state)))
            .or_default() += 1;
        asking += i64::from(run.state == ColdStartState::Halted);
    }
    for run in sources.runbooks.runs().values() {
        let runbook = run.plan.request.runbook.as_str().to_owned();
        *runs.entry((runbook, of_run(run.state))).or_default() += 1;
        asking += i64::from(run.wants_approval());
    }
    let runs = runs
        .iter()
        .map(|((runbook, state), number)| (labels(["runbook", "state"], [runbook, state]), *number));
    page.family("runs", "Runs that are remembered, by how they stand", runs);
    page.gauge("runs_asking", "Runs that wait for an operator's word", asking);
}

fn brakes(page: &mut Page, inventory: &Inventory, sources: &Sources) {
    let book = sources.brakes.book();
    let holds = count(book.standing(Instant::now()).count());
    page.gauge("holds", "Operators' holds and silences that stand", holds);
    let storms = inventory.clusters.iter().map(|cluster| {
        let here = book.storms.keys().filter(|(of, _)| *of == cluster.name);
        (labels(["cluster"], [&cluster.name.0]), count(here.count()))
    });
    page.family(
        "storms",
        "Conditions for which nothing is mended, since many have them at once",
        storms,
    );
    let (mut granted, mut waiting) = (0, 0);
    for line in &sources.permits.book().lines {
        match line.standing {
            Standing::Granted { .. } => granted += 1,
            Standing::Waiting(_) | Standing::Refused(_) => waiting += 1,
        }
    }
    let permits = [("granted", granted), ("waiting", waiting)]
        .map(|(standing, number)| (labels(["standing"], [standing]), number));
    page.family("permits", "Permits of nodes to be away for a while", permits);
}

fn labels<const N: usize>(names: [&'static str; N], values: [&str; N]) -> Labels<N> {
    std::array::from_fn(|at| (names[at], values[at].to_owned()))
}

const fn named(phase: Phase) -> &'static str {
    match phase {
        Phase::Unknown => "unknown",
        Phase::Ready => "ready",
        Phase::NotReady => "not-ready",
        Phase::Held => "held",
        Phase::Silent => "silent",
        Phase::Stopped => "stopped",
    }
}

const fn of_cold_start(state: ColdStartState) -> &'static str {
    match state {
        ColdStartState::Running => "running",
        ColdStartState::Paused => "paused",
        ColdStartState::Halted => "halted",
        ColdStartState::Succeeded => "succeeded",
        ColdStartState::Aborted => "aborted",
    }
}

const fn of_run(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Halted => "halted",
        RunState::Undoing => "undoing",
        RunState::Succeeded => "succeeded",
        RunState::Aborted => "aborted",
    }
}
