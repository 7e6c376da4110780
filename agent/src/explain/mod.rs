//! What each condition means, how it is seen, what the agent does about it, and what a person does: one place for the terminal
//! (`blackstart-agent explain`) and for `docs/conditions.md`, which a test holds to it.
//!
//! | module | story |
//! |---|---|
//! | `words` | the texts, one for each kind |
//! | `thresholds` | which settings a condition depends on, with the values in force |
//! | `proof` | which tests show it |
//! | `document` | all of it as Markdown |

#[cfg(test)]
mod document;
#[cfg(test)]
mod proof;
mod thresholds;
mod words;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::condition::ConditionKind;
use crate::config::Settings;
use crate::decide::Treatment;
use crate::span::Span;

/// Everything that there is to say about a kind of condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Its name.
    pub condition: String,
    /// What it means for the node.
    pub meaning: String,
    /// How bad it is, and when it is worse.
    pub severity: String,
    /// How the agent sees it.
    pub seen: String,
    /// The settings that it depends on.
    pub thresholds: Vec<Threshold>,
    /// What the agent does about it, step by step; empty when it only tells.
    pub ladder: Vec<String>,
    /// What clears it.
    pub clears: String,
    /// What a person does, step by step.
    pub by_hand: Vec<String>,
}

/// A setting with its value in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Its name in the configuration.
    pub setting: String,
    /// As it would be written there.
    pub value: String,
}

/// Explains a kind of condition, with the thresholds that `settings` have.
pub fn explain(kind: ConditionKind, settings: &Settings) -> Explanation {
    let words = words::words(kind);
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Explanation {
        condition: kind.as_str().to_owned(),
        meaning: words.meaning.to_owned(),
        severity: words.severity.to_owned(),
        seen: words.seen,
        thresholds: thresholds::of(kind, settings),
        ladder: ladder(Treatment::of(kind), settings),
        clears: words.clears,
        by_hand: owned(words.by_hand),
    }
}

/// The kind that somebody means: any case, with or without `-` and `_`.
///
/// # Errors
/// There is none of this name: a text for people that names the nearest, or all.
pub fn kind(name: &str) -> Result<ConditionKind, String> {
    let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let wanted = plain(name);
    if let Some(kind) = ConditionKind::ALL
        .into_iter()
        .find(|kind| plain(kind.as_str()) == wanted)
    {
        return Ok(kind);
    }
    let names = ConditionKind::ALL.map(ConditionKind::as_str);
    let near: Vec<_> = names
        .iter()
        .copied()
        .filter(|known| !wanted.is_empty() && plain(known).contains(&wanted))
        .collect();
    Err(if near.is_empty() {
        format!("there is no condition \"{name}\"; known: {}", names.join(", "))
    } else {
        format!("there is no condition \"{name}\"; near: {}", near.join(", "))
    })
}

#[expect(
    clippy::too_many_lines,
    reason = "one text after the other; a table would be no shorter"
)]
fn ladder(treatment: Treatment, settings: &Settings) -> Vec<String> {
    let policy = &settings.restart;
    let kill = format!(
        "kill it with SIGKILL and restart it, {} times, with the same pauses",
        policy.kill_restarts
    );
    let spent = format!(
        "then raise RemedyExhausted and leave it alone until it has been healthy for {}",
        Span(policy.window)
    );
    match treatment {
        Treatment::Ladder => vec![
            format!(
                "restart it, {} times: the first at once, then after pauses of {}, doubled up to {}",
                policy.restarts,
                Span(policy.backoff_first),
                Span(policy.backoff_max)
            ),
            kill,
            spent,
        ],
        Treatment::KillKubelet | Treatment::KillUnit => vec![kill, spent],
        Treatment::RestartKubelet => vec![
            format!(
                "tell, and leave it alone for {}: it is the container runtime as a rule",
                Span(settings.pleg.restart_after)
            ),
            format!("then restart the kubelet, {} times", policy.restarts),
            kill,
            spent,
        ],
        Treatment::RestartRuntime => vec![
            "on a master with a coordinator, wait for its permit, or until there has been no session for coordinator.permit_wait"
                .to_owned(),
            "ask it for its stacks (SIGUSR1) and keep them below state_dir".to_owned(),
            kill,
            spent,
        ],
        Treatment::RestartTimeService => vec![
            "restart the time service once: of clock.services the one that runs, otherwise the first that is installed and enabled; \
             none while a process that is none of them keeps the clock"
                .to_owned(),
            format!(
                "then raise RemedyExhausted and leave it alone until the clock has been kept for {}",
                Span(policy.window)
            ),
        ],
        Treatment::RestartCni => vec![
            format!(
                "restart network.cni.unit, where there is one, {} times, with {} for it to write the configuration",
                policy.restarts,
                Span(settings.network.cni.hold)
            ),
            format!(
                "then raise RemedyExhausted and leave it alone until the configuration has been there for {}",
                Span(policy.window)
            ),
            "without such a unit only tell: a pod writes it".to_owned(),
        ],
        Treatment::FreeDisk => vec![
            "its logs give way first: see LogRunaway".to_owned(),
            "remove archived journal files, the oldest first".to_owned(),
            "remove stopped containers, dangling and unused images, no more than is needed and never what prune.protect names"
                .to_owned(),
            format!(
                "then raise RemedyExhausted; the two come again {} later",
                Span(crate::decide::DISK_AGAIN)
            ),
        ],
        Treatment::FreeInodes => vec![
            "remove stopped containers, dangling and unused images, no more than is needed and never what prune.protect names"
                .to_owned(),
            format!(
                "then raise RemedyExhausted; it comes again {} later",
                Span(crate::decide::DISK_AGAIN)
            ),
        ],
        Treatment::RestartContainer => {
            let runtime = &settings.runtime;
            if runtime.may_restart_containers.is_empty() {
                return Vec::new();
            }
            vec![
                format!(
                    "restart those that runtime.may_restart_containers names, up to {} times within {}; each has to be healthy within {}",
                    runtime.container_restarts,
                    Span(runtime.container_restart_window),
                    Span(runtime.container_healthy_within)
                ),
                "then raise RemedyExhausted until the budget has room again".to_owned(),
            ]
        }
        Treatment::Reclaim => vec![
            format!(
                "give back its head and keep the last {}, up to {} times within {}",
                Bytes(settings.logs.keep_tail),
                settings.reclaim.budget,
                Span(settings.reclaim.window)
            ),
            "then raise RemedyExhausted until the budget has room again".to_owned(),
        ],
        Treatment::Bounce => {
            let pods = &settings.static_pods;
            vec![
                "leave alone what is not among static_pods.components, and what needs another component that is down".to_owned(),
                "with a coordinator, wait for its permit where the component needs one, unless static_pods.without_permit".to_owned(),
                format!(
                    "move its manifest to {} until its containers are gone, and back, {} times and never two components at once",
                    pods.held.display(),
                    pods.bounces
                ),
                format!(
                    "then raise RemedyExhausted and leave it alone until it has been healthy for {}",
                    Span(policy.window)
                ),
            ]
        }
        Treatment::RelieveMemory => vec![
            format!(
                "while it has been critical for {}: restart the largest unit that memory.may_restart names (by default none) and that holds \
                 {}% of the memory or more, {} times within {} each; never a pod",
                Span(settings.memory.restart_hold),
                settings.memory.restart_share_percent,
                settings.memory.restarts,
                Span(settings.memory.restart_window)
            ),
            "then raise RemedyExhausted".to_owned(),
        ],
        Treatment::Protect => vec![format!(
            "give the kubelet, docker, containerd and system.slice more weight of processors and disks until the next boot; looked after every {}",
            Span(crate::decide::LOAD_AGAIN)
        )],
        Treatment::Tell => Vec::new(),
    }
}

impl Explanation {
    /// For the terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n  {}\n", self.condition, self.meaning);
        let mut part = |head: &str, lines: &[String]| {
            let _infallible = write!(text, "\n{head}\n");
            for line in lines {
                let _infallible = writeln!(text, "  {line}");
            }
        };
        part("Severity", std::slice::from_ref(&self.severity));
        part("Seen by", std::slice::from_ref(&self.seen));
        if !self.thresholds.is_empty() {
            let width = self
                .thresholds
                .iter()
                .map(|at| at.setting.len())
                .max()
                .unwrap_or(0);
            let lines: Vec<_> = self
                .thresholds
                .iter()
                .map(|at| format!("{:width$}  {}", at.setting, at.value))
                .collect();
            part("Settings in force", &lines);
        }
        let told = ["tells the coordinator and the log; nothing that it may do would mend this".to_owned()];
        part(
            "What the agent does",
            if self.ladder.is_empty() {
                &told
            } else {
                &self.ladder
            },
        );
        part("Cleared when", std::slice::from_ref(&self.clears));
        part("By hand", &self.by_hand);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_condition_is_explained_in_full_and_by_its_own_words() {
        let settings = Settings::for_node("n");
        let mut meanings = BTreeSet::new();
        for kind in ConditionKind::ALL {
            let told = explain(kind, &settings);
            for text in [&told.meaning, &told.severity, &told.seen, &told.clears] {
                assert!(text.len() >= 7 && !text.ends_with('.'), "{kind}: {text}");
            }
            assert!(!told.by_hand.is_empty(), "{kind}");
            assert!(meanings.insert(told.meaning.clone()), "{kind}");
            assert!(told.text().contains("What the agent does"));
        }
    }

    #[test]
    fn thresholds_are_those_in_force() {
        let mut settings = Settings::for_node("n");
        settings.restart.inactive_hold = std::time::Duration::from_secs(7);
        settings.restart.restarts = 9;
        let told = explain(ConditionKind::UnitInactive, &settings);
        let hold = told
            .thresholds
            .iter()
            .find(|at| at.setting == "restart.inactive_hold")
            .unwrap();
        assert_eq!(hold.value, "7s");
        assert!(told.ladder[0].contains("9 times"), "{:?}", told.ladder);
    }

    #[test]
    fn a_name_is_found_however_it_is_written_and_a_wrong_one_gets_advice() {
        for name in ["DiskPressure", "diskpressure", "disk-pressure", "DISK_PRESSURE"] {
            assert_eq!(kind(name), Ok(ConditionKind::DiskPressure));
        }
        assert!(kind("clock").unwrap_err().contains("ClockJumped"));
        assert!(kind("nonsense").unwrap_err().contains("UnitFailed"));
    }
}
