//! What is asked of a cluster when somebody needs it: it cannot be watched (metrics), or is seldom needed (workloads). Kept with its
//! age, and asked for again no more often than is said.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::objects::Key;
use super::objects::resources::{Resources, shown};
use super::objects::workload::Workload;

/// So many samples of each node are kept.
const SAMPLES: usize = 64;

/// What something uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cpu {}, memory {}",
            shown("cpu", self.cpu),
            shown("memory", self.memory)
        )
    }
}

/// What nodes and pods use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// By name.
    pub nodes: BTreeMap<String, Used>,
    /// By name.
    pub pods: BTreeMap<Key, Used>,
}

impl Usage {
    /// From the lists of `metrics.k8s.io`.
    pub(super) fn read(nodes: &[Value], pods: &[Value]) -> Self {
        let used = |usage: &Value| {
            let all = Resources::read(usage);
            Used {
                cpu: all.cpu,
                memory: all.memory,
            }
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = |item: &Value| Key {
            namespace: text(&item["metadata"]["namespace"]),
            name: text(&item["metadata"]["name"]),
        };
        Self {
            nodes: nodes
                .iter()
                .map(|node| (key(node).name, used(&node["usage"])))
                .collect(),
            pods: pods
                .iter()
                .map(|pod| {
                    let containers = pod["containers"].as_array();
                    let each = containers.into_iter().flatten();
                    let sum = each
                        .map(|one| used(&one["usage"]))
                        .fold(Used::default(), |sum, one| Used {
                            cpu: sum.cpu.saturating_add(one.cpu),
                            memory: sum.memory.saturating_add(one.memory),
                        });
                    (key(pod), sum)
                })
                .collect(),
        }
    }
}

/// What a node used at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked for.
    pub at: Instant,
    /// What it used then.
    pub used: Used,
}

/// What was answered.
#[derive(Debug, Clone)]
pub enum Told<T> {
    /// Nothing so far.
    Unknown {
        /// Why.
        why: String,
    },
    /// This.
    Known {
        /// When it was asked for.
        at: Instant,
        /// The answer.
        value: Arc<T>,
        /// Why a later question was not answered.
        trouble: Option<String>,
    },
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self::Unknown {
            why: "it was not asked for yet".to_owned(),
        }
    }
}

impl<T> Told<T> {
    /// The answer, if it is no older than this; otherwise why there is none.
    pub fn within(&self, age: Duration, now: Instant) -> Result<&T, String> {
        match self {
            Self::Unknown { why } => Err(why.clone()),
            Self::Known { at, value, .. } if now.saturating_duration_since(*at) <= age => Ok(value),
            Self::Known { trouble, .. } => Err(trouble
                .clone()
                .unwrap_or_else(|| "it is an old answer".to_owned())),
        }
    }
}

/// One kind of answer.
#[derive(Debug)]
pub(super) struct Slot<T> {
    told: Told<T>,
    tried: Option<Instant>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            told: Told::default(),
            tried: None,
        }
    }
}

impl<T> Slot<T> {
    pub(super) fn told(&self) -> Told<T> {
        match &self.told {
            Told::Unknown { why } => Told::Unknown { why: why.clone() },
            Told::Known { at, value, trouble } => Told::Known {
                at: *at,
                value: Arc::clone(value),
                trouble: trouble.clone(),
            },
        }
    }

    /// It is to be asked for; whoever is told so asks.
    pub(super) fn is_due(&mut self, every: Duration) -> bool {
        let due = self.tried.is_none_or(|tried| tried.elapsed() >= every);
        if due {
            self.tried = Some(Instant::now());
        }
        due
    }

    pub(super) fn take(&mut self, answer: Result<T, String>) {
        match (answer, &mut self.told) {
            (Ok(value), told) => {
                *told = Told::Known {
                    at: Instant::now(),
                    value: Arc::new(value),
                    trouble: None,
                };
            }
            (Err(why), Told::Known { trouble, .. }) => *trouble = Some(why),
            (Err(why), told @ Told::Unknown { .. }) => *told = Told::Unknown { why },
        }
    }
}

/// Everything that was asked of a cluster.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) usage: Slot<Usage>,
    pub(super) workloads: Slot<Vec<Workload>>,
    samples: BTreeMap<String, VecDeque<Sample>>,
}

impl Asked {
    pub(super) fn samples(&self, node: &str) -> Vec<Sample> {
        self.samples
            .get(node)
            .map(|samples| samples.iter().copied().collect())
            .unwrap_or_default()
    }

    pub(super) fn take_usage(&mut self, usage: Result<Usage, String>) {
        if let Ok(usage) = &usage {
            let at = Instant::now();
            self.samples.retain(|node, _| usage.nodes.contains_key(node));
            for (node, used) in &usage.nodes {
                let samples = self.samples.entry(node.clone()).or_default();
                samples.push_back(Sample { at, used: *used });
                if samples.len() > SAMPLES {
                    samples.pop_front();
                }
            }
        }
        self.usage.take(usage);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_when_the_next_fails_and_grows_old() {
        let mut asked = Asked::default();
        let every = Duration::from_secs(15);
        assert!(asked.usage.is_due(every));
        assert!(!asked.usage.is_due(every), "somebody asks already");
        let node = |cpu: &str| json!({"metadata": {"name": "w1"}, "usage": {"cpu": cpu, "memory": "1Gi"}});
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "containers": [
            {"usage": {"cpu": "250000000n", "memory": "1Mi"}}, {"usage": {"cpu": "1", "memory": "1Mi"}}]});
        asked.take_usage(Ok(Usage::read(&[node("2")], &[pod])));
        tokio::time::advance(every).await;
        assert!(asked.usage.is_due(every));
        asked.take_usage(Err("503".to_owned()));
        let now = Instant::now();
        let told = asked.usage.told();
        let usage = told.within(every, now).unwrap();
        assert_eq!(
            usage.pods.values().next().unwrap().to_string(),
            "cpu 1250m, memory 2Mi"
        );
        assert_eq!(told.within(Duration::from_secs(1), now).unwrap_err(), "503");
        assert_eq!(asked.samples("w1").len(), 1);
        assert_eq!(asked.samples("w1")[0].used.cpu, 2000);
    }
}
