//! Did the laws hold? Judged from the [`Chronicle`]: what kubelets and health ports showed, the manifests on the disk and the agents' ledgers. Pure.

use std::fmt;

use super::chronicle::{Chronicle, Out, RunStory, StepStory};

/// What the drills on masters check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::drill) enum Law {
    OneAtATime,
    OnlyPlanned,
    Stops,
    Manifests,
    Evidence,
    Agents,
    TwoPersons,
    Data,
    Copies,
    End,
}

impl Law {
    pub(in crate::drill) const ALL: [Self; 10] = [
        Self::OneAtATime,
        Self::OnlyPlanned,
        Self::Stops,
        Self::Manifests,
        Self::Evidence,
        Self::Agents,
        Self::TwoPersons,
        Self::Data,
        Self::Copies,
        Self::End,
    ];

    pub(in crate::drill) const fn name(self) -> &'static str {
        match self {
            Self::OneAtATime => "one-at-a-time",
            Self::OnlyPlanned => "only-planned",
            Self::Stops => "stops",
            Self::Manifests => "manifests",
            Self::Evidence => "missing-evidence",
            Self::Agents => "agents",
            Self::TwoPersons => "two-persons",
            Self::Data => "data",
            Self::Copies => "copies",
            Self::End => "chapter-end",
        }
    }

    pub(in crate::drill) const fn sentence(self) -> &'static str {
        match self {
            Self::OneAtATime => {
                "no manifest went out before the pod of the one before it was well again, but of etcd members that are down, and none of a pod that was well while another master's was not"
            }
            Self::OnlyPlanned => "no manifest went out but by a step of a run at work, after its approval",
            Self::Stops => "after a bounce that did not help its run bounced nothing more",
            Self::Manifests => {
                "every manifest is there, as it was but for what a plan has changed, and then the old one is kept"
            }
            Self::Evidence => "what was refused, or stopped at, said what is missing and what was seen",
            Self::Agents => "agents obeyed only steps of runs on their node, each once, and no lower epoch",
            Self::TwoPersons => "no data was given up by the word of one person",
            Self::Data => {
                "every key of etcd's that was acknowledged is there, but for those that an approval said to be lost"
            }
            Self::Copies => {
                "the data of a member that was set aside is kept, and a verified snapshot was on two masters, or on the one that was left, before"
            }
            Self::End => "what the chapter is for was reached",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One law, and how it was broken: not at all, if there are no violations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) law: Law,
    pub(super) violations: Vec<String>,
}

/// Judges every law.
pub(super) fn judge(chronicle: &Chronicle) -> Vec<Verdict> {
    let of = |law| Verdict {
        law,
        violations: match law {
            Law::OneAtATime => one_at_a_time(chronicle),
            Law::OnlyPlanned => only_planned(chronicle),
            Law::Stops => stops(chronicle),
            Law::Manifests => manifests(chronicle),
            Law::Evidence => evidence(chronicle),
            Law::Agents => agents(chronicle),
            Law::TwoPersons => two_persons(chronicle),
            Law::Data => {
                let lost = chronicle.lost.iter();
                lost.map(|key| format!("key {key} was acknowledged, and is not there"))
                    .collect()
            }
            Law::Copies => chronicle.no_copy.clone(),
            Law::End => end(chronicle),
        },
    };
    Law::ALL.into_iter().map(of).collect()
}

fn words(out: &Out) -> String {
    format!("{} of {} went out at {} ms", out.pod, out.node, out.gone_ms)
}

fn at_work(run: &RunStory, at_ms: u64) -> bool {
    run.asked_ms <= at_ms && run.ended_ms.is_none_or(|ended| at_ms <= ended)
}

fn one_at_a_time(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    let run_at = |at_ms| chronicle.runs.iter().position(|run| at_work(run, at_ms));
    for (at, out) in chronicle.outs.iter().enumerate() {
        if is_deliberate(chronicle, out) {
            continue;
        }
        // One that is ill is not missed more.
        let was_well = chronicle
            .health
            .iter()
            .rev()
            .find(|one| one.node == out.node && one.pod == out.pod && one.at_ms < out.gone_ms)
            .is_some_and(|one| one.well);
        for before in &chronicle.outs[..at] {
            if before.node == out.node && before.pod == out.pod {
                continue;
            }
            if before.back_ms.is_none_or(|back| back > out.gone_ms) {
                violations.push(format!(
                    "{}, while {} of {} was out",
                    words(out),
                    before.pod,
                    before.node
                ));
            } else if (was_well || out.pod != "etcd")
                && run_at(before.gone_ms) == run_at(out.gone_ms)
                && !chronicle.is_well(&before.node, &before.pod, out.gone_ms)
            {
                violations.push(format!(
                    "{}, before {} of {} was well again",
                    words(out),
                    before.pod,
                    before.node
                ));
            }
        }
        let others: std::collections::BTreeSet<_> = chronicle
            .health
            .iter()
            .filter(|one| one.pod == out.pod && one.node != out.node)
            .map(|one| &one.node)
            .collect();
        for other in others.into_iter().filter(|_| was_well) {
            if !chronicle.is_well(other, &out.pod, out.gone_ms) {
                violations.push(format!(
                    "{}, which was well, while that of {other} was not",
                    words(out)
                ));
            }
        }
    }
    violations.sort();
    violations.dedup();
    violations
}

/// The place among a run's steps of the one that takes this manifest out.
fn step_at(run: &RunStory, out: &Out) -> Option<usize> {
    let part = out.pod.strip_prefix("kube-").unwrap_or(&out.pod);
    run.steps.iter().position(|step| {
        let (what, node) = step.id.split_once(':').unwrap_or((&step.id, &run.node));
        let does = if out.pod == "etcd" {
            [
                "bounce-etcd",
                "rebuild-etcd-member",
                "fence-etcd",
                "restore-etcd",
                "set-initial-cluster",
            ]
            .contains(&what)
        } else {
            what == STOP
                || ["bounce", "set-etcd-servers"]
                    .iter()
                    .any(|kind| what.strip_prefix(kind) == Some(&format!("-{part}")))
        };
        node == out.node && does
    })
}

/// The step that stops all control planes.
const STOP: &str = "stop-control-plane";
/// Steps that take several manifests out, and leave them out.
const DELIBERATE: [&str; 3] = [STOP, "fence-etcd", "restore-etcd"];

/// It is taken out for a restore, after an approval: bounces come before any.
fn is_deliberate(chronicle: &Chronicle, out: &Out) -> bool {
    let does = |run: &RunStory| {
        let approved = |step: &StepStory| step.approved_ms.is_some_and(|at| at <= out.gone_ms);
        let takes = |step: &StepStory| {
            let (what, node) = step.id.split_once(':').unwrap_or((&step.id, &run.node));
            DELIBERATE.contains(&what)
                && node == out.node
                && step.ended_ms.is_none_or(|ended| ended >= out.gone_ms)
        };
        run.steps.iter().any(approved) && run.steps.iter().any(takes)
    };
    let mut runs = chronicle.runs.iter().filter(|run| at_work(run, out.gone_ms));
    runs.any(does)
}

fn only_planned(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for out in &chronicle.outs {
        let step = chronicle
            .runs
            .iter()
            .filter(|run| at_work(run, out.gone_ms))
            .find_map(|run| Some((run, step_at(run, out)?)));
        match step {
            None => violations.push(format!("{}: no step of a run at work then does that", words(out))),
            Some((run, at)) => {
                // Who approves of a step approves of what comes after it.
                let mut asks = run.steps[..=at].iter().filter(|step| step.wants_approval);
                if !asks.all(|one| one.approved_ms.is_some_and(|at| at <= out.gone_ms)) {
                    violations.push(format!(
                        "{}: nobody had approved of {}",
                        words(out),
                        run.steps[at].id
                    ));
                }
            }
        }
    }
    violations
}

/// Data is given up by the word of two persons only.
fn two_persons(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for run in chronicle.runs.iter().filter(|run| {
        ["etcd-quorum", "etcd-all"]
            .iter()
            .any(|kind| run.id.starts_with(kind))
    }) {
        let asks = run.steps.iter().filter(|step| step.wants_approval);
        let alone = asks.filter(|step| step.approved_ms.is_some() && !step.by_another);
        violations
            .extend(alone.map(|step| format!("{} of {} was approved by who had begun it", step.id, run.id)));
    }
    violations
}

fn stops(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for run in &chronicle.runs {
        let Some(failed) = run.steps.iter().find(|step| step.phase == "failed") else {
            continue;
        };
        let Some(at) = failed.ended_ms else { continue };
        let more = chronicle
            .outs
            .iter()
            .filter(|out| at_work(run, out.gone_ms) && out.gone_ms > at);
        violations
            .extend(more.map(|out| format!("{}, after {} of {} had failed", words(out), failed.id, run.id)));
        let again = chronicle.outs.iter().filter(|out| {
            at_work(run, out.gone_ms) && step_at(run, out).is_some_and(|at| run.steps[at].id == failed.id)
        });
        if again.count() > 1 {
            violations.push(format!("{} of {} was bounced again and again", failed.id, run.id));
        }
    }
    violations
}

fn manifests(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for one in &chronicle.manifests {
        let whose = format!("the manifest of {} on {}", one.pod, one.node);
        match &one.after {
            None => violations.push(format!("{whose} is gone")),
            Some(after) if *after != one.wanted => violations.push(format!("{whose} is not as it should be")),
            Some(_) if one.rewritten && !one.kept => {
                violations.push(format!("{whose} was changed, and the old one is not kept"));
            }
            Some(_) => {}
        }
    }
    violations
}

fn evidence(chronicle: &Chronicle) -> Vec<String> {
    let unsaid = chronicle
        .heard
        .iter()
        .filter(|heard| !heard.said.iter().any(|said| said.contains(&heard.expected)));
    unsaid
        .map(|heard| {
            format!(
                "{} was to say {:?}, and said: {:?}",
                heard.asked,
                heard.expected,
                heard.said.join("; ")
            )
        })
        .collect()
}

fn agents(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for (node, ledger) in &chronicle.ledgers {
        let mut obeyed: Vec<&str> = Vec::new();
        for entry in ledger {
            let Some(command) = &entry.command else { continue };
            let id = command.split('/').next().unwrap_or_default();
            let known = chronicle.runs.iter().find(|run| run.id == id);
            let has_step = known.is_some_and(|run| {
                run.steps
                    .iter()
                    .any(|step| step.id.ends_with(&format!(":{node}")) || run.node == *node)
            });
            if !has_step {
                violations.push(format!(
                    "{node} obeyed {command} ({}), which no run on it has given",
                    entry.remedy
                ));
            }
            if obeyed.contains(&command.as_str()) {
                violations.push(format!("{node} obeyed {command} twice"));
            }
            obeyed.push(command);
        }
        for pair in ledger.windows(2) {
            let [before, after] = pair else { continue };
            if after.epoch < before.epoch {
                violations.push(format!(
                    "{node} went back from epoch {} to {}",
                    before.epoch, after.epoch
                ));
            }
        }
    }
    violations
}

fn end(chronicle: &Chronicle) -> Vec<String> {
    let stuck = chronicle
        .stuck
        .iter()
        .map(|what| format!("waited in vain for {what}"));
    stuck.chain(chronicle.wrong.iter().cloned()).collect()
}

#[cfg(test)]
mod tests;
