//! What a drill consists of, as data: what stands in the cluster, what happens to it, which runbooks are run, and what is to be true
//! at the end. A chapter's file makes one; [`super::rehearsal`] carries it out.

use blackstart_apiserver::Outcome;
use blackstart_apiserver::bmc::Mood;
use blackstart_proto::v1::RunbookRequest;
use serde_json::Value;

use super::super::show::Stage;
use super::cast::Cast;
use super::objects::{APP, BYSTANDER, GUARDED, OURS, THEIRS, bystanders};

/// A drill.
#[derive(Debug)]
pub(super) struct Script {
    /// Put into the cluster before anything happens, beside [`bystanders`].
    pub(super) objects: Vec<Value>,
    /// What the coordinator's configuration says of workloads, as YAML.
    pub(super) declared: String,
    /// Its machines have management controllers, which the coordinator may ask.
    pub(super) has_bmc: bool,
    /// Seen before anything happens.
    pub(super) at_first: Vec<Sight>,
    /// One after the other.
    pub(super) acts: Vec<Act>,
    /// What is to be true at the end.
    pub(super) ends: Vec<End>,
    /// What Blackstart changes for good: the chapter says so.
    pub(super) leaves: Vec<Left>,
}

impl Script {
    /// With those that stand in every drill's cluster, and that are to be well at its end as well.
    pub(super) fn new(cast: &Cast, objects: Vec<Value>) -> Self {
        let mut all = bystanders(cast.release, &cast.refuge);
        all.extend(objects);
        let well = |name: &str| Sight::ready(THEIRS, name, 2);
        Self {
            objects: all,
            declared: String::new(),
            has_bmc: false,
            at_first: vec![well(GUARDED), well(BYSTANDER)],
            acts: Vec::new(),
            ends: vec![
                End::Whole {
                    namespace: THEIRS,
                    workload: GUARDED,
                },
                End::Whole {
                    namespace: THEIRS,
                    workload: BYSTANDER,
                },
            ],
            leaves: Vec::new(),
        }
    }
}

/// What an operator, a machine or a cluster does.
#[derive(Debug)]
pub(super) enum Act {
    /// What the drill is about: the clock of the recovery begins.
    Trouble(String, Event),
    /// Something else happens.
    Happens(String, Event),
    /// Waits until it is seen in the cluster.
    Until(Sight),
    /// A runbook that is not to be run yet: its plan has no step, and says what is missing.
    Refused {
        request: RunbookRequest,
        /// A part of what is said to be missing.
        missing: &'static str,
    },
    /// A runbook is run, approved of where it asks, and followed to its end.
    Run(Run),
}

/// A runbook that is run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) request: RunbookRequest,
    /// The steps that its plan is to have; it is begun once it has them.
    pub(super) steps: &'static [&'static str],
    /// A part of what its plan says to be missing for the rest, if it refuses some.
    pub(super) missing: Option<&'static str>,
    /// What happens once it is this step's turn.
    pub(super) meanwhile: Option<(&'static str, Vec<Act>)>,
}

impl Run {
    pub(super) const fn new(request: RunbookRequest, steps: &'static [&'static str]) -> Self {
        Self {
            request,
            steps,
            missing: None,
            meanwhile: None,
        }
    }

    /// It refuses a part.
    pub(super) const fn lacking(mut self, missing: &'static str) -> Self {
        self.missing = Some(missing);
        self
    }

    /// Something happens once it is this step's turn.
    pub(super) fn meanwhile(mut self, step: &'static str, acts: Vec<Act>) -> Self {
        self.meanwhile = Some((step, acts));
        self
    }
}

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A machine loses its power.
    PowerOff(String),
    /// A machine has power again.
    PowerOn(String),
    /// Somebody at the machine lets its kubelet go.
    LetGo(String),
    /// A kubelet does not reach its API servers; its agent reaches the coordinator.
    CutOff(String),
    /// It reaches them again.
    Reconnect(String),
    /// Pods whose image contains the text fare so from now on; nobody does otherwise.
    Fare(Option<(&'static str, Outcome)>),
    /// The pods of [`APP`] that are there fare so, whatever happens to others.
    Ail(&'static str),
    /// The machines' management controllers are so from now on.
    Bmc(Mood),
    /// Somebody makes objects.
    Put(Vec<Value>),
    /// Somebody takes one away.
    Remove {
        resource: &'static str,
        name: &'static str,
    },
    /// Somebody changes one of [`OURS`], as a merge patch does.
    Change {
        resource: &'static str,
        name: &'static str,
        patch: Value,
    },
    /// Somebody else than Blackstart cordons nodes, or ends that.
    Cordon(Vec<String>, bool),
}

/// Something that is seen in the cluster, or at a machine.
#[derive(Debug, Clone)]
pub(super) enum Sight {
    /// So many pods of a workload are ready.
    Ready {
        namespace: &'static str,
        workload: String,
        pods: u64,
    },
    /// Every pod of [`APP`] waits for this reason, and was started again so often.
    Waits { reason: &'static str, restarts: i64 },
    /// Some pod of [`APP`] is not ready.
    NotReady,
    /// No node was found for some pod of [`APP`].
    Unscheduled,
    /// A machine is so far.
    Machine(String, Stage),
    /// A node is Ready, or not.
    Node(String, bool),
    /// [`APP`] has pods on the node.
    On(String),
    /// It has none there but those that are going.
    Elsewhere(String),
}

impl Sight {
    pub(super) fn ready(namespace: &'static str, workload: &str, pods: u64) -> Self {
        Self::Ready {
            namespace,
            workload: workload.to_owned(),
            pods,
        }
    }

    /// So many pods of [`APP`] are ready.
    pub(super) fn app_ready(pods: u32) -> Self {
        Self::ready(OURS, APP, pods.into())
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Ready {
                namespace,
                workload,
                pods,
            } => format!("{pods} ready pods of {namespace}/{workload}"),
            Self::Waits { reason, .. } => format!("every pod of {OURS}/{APP} to wait in {reason}"),
            Self::NotReady => format!("a pod of {OURS}/{APP} that is not ready"),
            Self::Unscheduled => format!("a pod of {OURS}/{APP} without a node"),
            Self::Machine(name, stage) => format!("machine {name} to be {}", stage.name()),
            Self::Node(name, true) => format!("node {name} to be Ready"),
            Self::Node(name, false) => format!("node {name} to be not Ready"),
            Self::Elsewhere(node) => format!("no pod of {OURS}/{APP} to stay on {node}"),
            Self::On(node) => format!("pods of {OURS}/{APP} on {node}"),
        }
    }
}

/// What is to be true at the end.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// A workload has as many ready pods as it wants, all Running.
    Whole {
        namespace: &'static str,
        workload: &'static str,
    },
    /// A node is Ready, takes pods, and is not said to be out of service; its machine's own kubelet is healthy.
    Back(String),
    /// No pod of the workload of [`OURS`] is on the node.
    Left { workload: &'static str, node: String },
    /// The pods of a node use less of its processors than this.
    Load {
        node: String,
        /// Percent.
        below: i64,
    },
    /// What a template says, by a JSON pointer.
    Template {
        workload: &'static str,
        at: &'static str,
        is: Value,
    },
}

impl End {
    /// Of [`APP`].
    pub(super) const fn whole() -> Self {
        Self::Whole {
            namespace: OURS,
            workload: APP,
        }
    }
}

/// Something that Blackstart changes for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// `nodes` or the plural of a workload's kind.
    pub(super) resource: &'static str,
    pub(super) name: &'static str,
    /// `memory`, `restarted-at` or an annotation.
    pub(super) what: &'static str,
}
