//! How a drill looks while it goes on: a line a node, redrawn in place on a terminal; plain lines elsewhere; nothing where
//! a program reads.

use std::collections::{BTreeMap, HashMap};
use std::io;

use blackstart_agent::host::sim::SimStage;

use super::topology::Role;
use crate::output::live::Live;
use crate::output::table::{Cell, Line, Table, Tint};
use crate::output::words::took;
use crate::output::{Format, Output, progress};
use crate::view::{RunDetail, RunState, StepState};

/// One machine as it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat<'a> {
    pub(super) cluster: &'a str,
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) stage: Stage,
}

/// How far a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Without power.
    Dark,
    /// With power, and not at its boot gate yet; simulated machines never are.
    Booting,
    /// Its boot gate holds the kubelet.
    Held,
    /// Its kubelet may start, and is not healthy yet.
    Starting,
    Healthy,
    /// Its kubelet was healthy and is not any more.
    Down,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Dark,
        Self::Booting,
        Self::Held,
        Self::Starting,
        Self::Healthy,
        Self::Down,
    ];

    /// For people.
    pub(super) const fn name(self) -> &'static str {
        self.word().0
    }

    const fn word(self) -> (&'static str, Tint) {
        match self {
            Self::Dark => ("dark", Tint::Dim),
            Self::Booting => ("booting", Tint::Plain),
            Self::Held => ("held", Tint::Warning),
            Self::Starting => ("starting", Tint::Plain),
            Self::Healthy => ("healthy", Tint::Good),
            Self::Down => ("down", Tint::Bad),
        }
    }
}

impl From<SimStage> for Stage {
    fn from(stage: SimStage) -> Self {
        match stage {
            SimStage::Dark => Self::Dark,
            SimStage::Held => Self::Held,
            SimStage::Starting => Self::Starting,
            SimStage::Healthy => Self::Healthy,
            SimStage::Down => Self::Down,
        }
    }
}

/// The drill as it stands.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) title: &'a str,
    /// What is being done now.
    pub(super) act: &'a str,
    /// Milliseconds on the drill's clock.
    pub(super) at_ms: u64,
    /// Every machine, in order.
    pub(super) seats: Vec<Seat<'a>>,
    pub(super) runs: &'a [RunDetail],
    /// How the pods are that it is about; empty: it is about none.
    pub(super) pods: &'a str,
}

#[derive(Debug)]
enum Way {
    Frame(Live),
    Lines,
    Nothing,
}

/// Shows it.
#[derive(Debug)]
pub(super) struct Show {
    way: Way,
    act: String,
    pods: String,
    stages: BTreeMap<String, Stage>,
    steps: HashMap<(String, String), StepState>,
    states: HashMap<String, RunState>,
}

impl Show {
    pub(super) fn new(output: &Output) -> Self {
        let way = match output.format() {
            Format::Json | Format::Yaml => Way::Nothing,
            Format::Table | Format::Wide if output.is_for_people() => Way::Frame(Live::default()),
            Format::Table | Format::Wide => Way::Lines,
        };
        Self {
            way,
            act: String::new(),
            pods: String::new(),
            stages: BTreeMap::new(),
            steps: HashMap::new(),
            states: HashMap::new(),
        }
    }

    /// Shows how it stands, or what is new.
    pub(super) fn now(&mut self, scene: &Scene<'_>, output: &mut Output) -> io::Result<()> {
        match &mut self.way {
            Way::Nothing => Ok(()),
            Way::Frame(live) => live.draw(output, &frame(scene, Live::height())),
            Way::Lines => {
                let lines = self.news(scene);
                output.lines(&lines)?;
                output.flush()
            }
        }
    }

    /// What was shown last stays; the report comes below it, or in its place.
    pub(super) fn end(&mut self, output: &mut Output) -> io::Result<()> {
        match &mut self.way {
            Way::Frame(live) => live.draw(output, &[]),
            Way::Lines => output.line(""),
            Way::Nothing => Ok(()),
        }
    }

    fn news(&mut self, scene: &Scene<'_>) -> Vec<Line> {
        let mut lines = Vec::new();
        let at = |what: String| Line::new(format!("+{:<7}  {what}", took(scene.at_ms)));
        if self.act != scene.act {
            scene.act.clone_into(&mut self.act);
            lines.push(at(scene.act.to_owned()));
        }
        for seat in &scene.seats {
            let stage = seat.stage;
            let before = self.stages.insert(seat.name.to_owned(), stage);
            if before.is_some_and(|before| before != stage) {
                lines.push(at(format!("{:<8}  {}", stage.word().0, seat.name)));
            }
        }
        if self.pods != scene.pods {
            scene.pods.clone_into(&mut self.pods);
            lines.push(at(format!("{:<8}  {}", "pods", scene.pods)));
        }
        for run in scene.runs {
            let summary = &run.run;
            let before = self.states.insert(summary.id.clone(), summary.state);
            if before.is_none() {
                lines.push(at(format!("began     {}: {}", summary.id, summary.reason)));
            }
            for step in &run.steps {
                let key = (summary.id.clone(), step.plan.id.clone());
                let before = self.steps.insert(key, step.state);
                if before != Some(step.state) && step.state != StepState::Pending {
                    let said = step.waiting_on.as_ref().or(step.evidence.as_ref());
                    let said = said.map_or("", String::as_str);
                    lines.push(at(format!(
                        "{:<8}  {}  {said}",
                        step.state.word().to_lowercase(),
                        step.plan.id
                    )));
                }
            }
            if before.is_some_and(|before| before != summary.state) {
                let ending = if starts_nodes(run) {
                    progress::ending(run)
                } else {
                    format!("{} after {}", summary.id, took(summary.elapsed_ms))
                };
                let state = summary.state.word().to_lowercase();
                lines.push(at(format!("{state}  {ending}")));
            }
        }
        lines
    }
}

fn frame(scene: &Scene<'_>, height: usize) -> Vec<Line> {
    let mut lines = vec![
        Line::tinted(scene.title, Tint::Bold)
            .and(format!("  {}  {}", took(scene.at_ms), scene.act), Tint::Plain),
    ];
    for run in scene.runs {
        let summary = &run.run;
        let waits = match summary.waiting_on.first() {
            Some(first) if summary.state.is_active() => format!("; waits for {first}"),
            Some(_) | None => String::new(),
        };
        lines.push(Line::new(format!(
            "{} {}, {} of {} steps done{waits}",
            summary.id,
            summary.state.word(),
            summary.steps_done,
            summary.steps_total
        )));
    }
    if !scene.pods.is_empty() {
        lines.push(Line::new(format!("pods: {}", scene.pods)));
    }
    if scene.runs.is_empty() {
        lines.push(Line::default());
    }
    let room = height.saturating_sub(lines.len() + 1);
    if scene.seats.len() <= room {
        lines.extend(nodes(scene).lines());
    } else {
        lines.extend(clusters(scene).lines());
        if let Some(run) = scene.runs.iter().find(|run| run.run.state.is_active()) {
            lines.push(Line::default());
            lines.extend(progress::frame(run, height.saturating_sub(lines.len())));
        }
    }
    lines.extend(steps(scene));
    lines.truncate(height);
    lines
}

/// It brings nodes back, each step one of them; others are a few steps about one thing.
fn starts_nodes(run: &RunDetail) -> bool {
    matches!(run.run.runbook.as_str(), "cold-start" | "rejoin")
}

/// The steps of the last run that is about one thing.
fn steps(scene: &Scene<'_>) -> Vec<Line> {
    let last = scene.runs.last().filter(|run| !starts_nodes(run));
    let steps = last.into_iter().flat_map(|run| &run.steps);
    let lines = steps.map(|step| {
        let said = step.waiting_on.as_ref().or(step.evidence.as_ref());
        Line::default()
            .and(
                format!("{:<10}", step.state.word()),
                progress::step_tint(step.state),
            )
            .and(format!("{:<22}", step.plan.id), Tint::Plain)
            .and(said.map_or("", String::as_str), Tint::Plain)
    });
    lines.collect()
}

fn nodes(scene: &Scene<'_>) -> Table {
    let mut table = Table::new(["CLUSTER", "NODE", "ROLE", "KUBELET", "STEP", "SAYS"]);
    for seat in &scene.seats {
        let (stage, tint) = seat.stage.word();
        let mut steps = scene.runs.iter().rev().flat_map(|run| &run.steps);
        let step = steps.find(|step| step.plan.node.as_deref() == Some(seat.name));
        let (step, says) = match step {
            Some(step) => (
                Cell::tinted(step.state.word(), progress::step_tint(step.state)),
                step.waiting_on
                    .as_ref()
                    .or(step.evidence.as_ref())
                    .map_or("", String::as_str),
            ),
            None => (Cell::new(""), ""),
        };
        table.row(vec![
            seat.cluster.into(),
            seat.name.into(),
            seat.role.word().into(),
            Cell::tinted(stage, tint),
            step,
            says.into(),
        ]);
    }
    table
}

fn clusters(scene: &Scene<'_>) -> Table {
    let mut table = Table::new([
        "CLUSTER", "DARK", "BOOTING", "HELD", "STARTING", "HEALTHY", "DOWN",
    ]);
    let mut rows: Vec<(&str, [usize; 6])> = Vec::new();
    for seat in &scene.seats {
        if rows.last().is_none_or(|(cluster, _)| *cluster != seat.cluster) {
            rows.push((seat.cluster, [0; 6]));
        }
        let index = Stage::ALL.iter().position(|known| *known == seat.stage);
        if let (Some((_, counts)), Some(index)) = (rows.last_mut(), index) {
            counts[index] += 1;
        }
    }
    for (cluster, counts) in rows {
        let mut row = vec![Cell::new(cluster)];
        row.extend(counts.iter().zip(Stage::ALL).map(|(&count, stage)| match count {
            0 => Cell::new(""),
            some => Cell::tinted(some.to_string(), stage.word().1),
        }));
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::fleet::Fleet;
    use super::super::power_loss::serving;
    use super::super::scenario::{Lost, PowerLoss};
    use super::super::topology::Topology;
    use super::*;
    use crate::output::table::plain;

    fn dark(dir: &Path, nodes: Option<usize>) -> Fleet {
        let topology = Topology::new(&[], nodes).unwrap();
        let drawn = PowerLoss::draw(&topology, serving, Lost::OneOrTwo, 1);
        let coordinator = "127.0.0.1:7443".parse().unwrap();
        Fleet::new(dir, dir, coordinator, &topology, &drawn.kubelet_start).unwrap()
    }

    fn scene(fleet: &Fleet) -> Scene<'_> {
        Scene {
            title: "power-loss on sim, seed 1",
            act: "power comes back",
            at_ms: 1_200,
            seats: fleet.seats(),
            runs: &[],
            pods: "",
        }
    }

    #[test]
    fn a_fleet_that_fits_has_a_line_for_each_node() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = dark(dir.path(), None);
        let frame = frame(&scene(&fleet), 23);
        let text = plain(&frame);
        assert!(
            text.starts_with("power-loss on sim, seed 1  1.2s  power comes back\n"),
            "{text}"
        );
        assert_eq!(frame.len(), 2 + 1 + 18, "{text}");
        assert!(text.contains("paas-6   worker          dark"), "{text}");
    }

    #[test]
    fn a_larger_one_has_a_line_for_each_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = dark(dir.path(), Some(60));
        let frame = frame(&scene(&fleet), 23);
        let text = plain(&frame);
        assert_eq!(frame.len(), 2 + 1 + 3, "{text}");
        assert!(text.contains("business     25"), "{text}");
    }
}
