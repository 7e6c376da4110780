//! Every text of a report, in each language.

use clap::ValueEnum;

use crate::view::{RunState, StepState};

/// In which language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// English.
    En,
    /// 中文.
    Zh,
}

/// The texts that do not depend on the run.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) tag: &'static str,
    pub(super) state: &'static str,
    pub(super) began: &'static str,
    pub(super) took: &'static str,
    pub(super) reason: &'static str,
    pub(super) steps: &'static str,
    pub(super) residue: &'static str,
    pub(super) nobody: &'static str,
    pub(super) waits: &'static str,
    pub(super) clusters: &'static str,
    pub(super) cluster: &'static str,
    pub(super) nodes: &'static str,
    pub(super) first: &'static str,
    pub(super) last: &'static str,
    pub(super) timeline: &'static str,
    pub(super) from: &'static str,
    pub(super) until: &'static str,
    pub(super) step: &'static str,
    pub(super) evidence: &'static str,
    pub(super) attempts: &'static str,
    pub(super) notes: &'static str,
    pub(super) chart: &'static str,
    pub(super) fleet: &'static str,
    pub(super) clock: &'static str,
}

const EN: Words = Words {
    tag: "en",
    state: "State",
    began: "Began",
    took: "Took",
    reason: "Reason",
    steps: "Steps done",
    residue: "Did not come back",
    nobody: "every node came back",
    waits: "Waits on",
    clusters: "Clusters",
    cluster: "Cluster",
    nodes: "Nodes back",
    first: "First step",
    last: "Last step",
    timeline: "Timeline",
    from: "From",
    until: "Until",
    step: "Step",
    evidence: "Evidence",
    attempts: "attempts",
    notes: "Notes",
    chart: "Chart",
    fleet: "fleet",
    clock: "Times are counted from the beginning of the run. The time of day is the coordinator's, which a power loss may have put wrong.",
};

const ZH: Words = Words {
    tag: "zh-CN",
    state: "状态",
    began: "开始时间",
    took: "耗时",
    reason: "原因",
    steps: "已完成步骤",
    residue: "未恢复的节点",
    nobody: "所有节点均已恢复",
    waits: "正在等待",
    clusters: "集群",
    cluster: "集群",
    nodes: "已恢复节点",
    first: "首个步骤",
    last: "末个步骤",
    timeline: "时间线",
    from: "起",
    until: "止",
    step: "步骤",
    evidence: "依据",
    attempts: "次尝试",
    notes: "备注",
    chart: "甘特图",
    fleet: "全部集群",
    clock: "时间从本次运行开始时计起。时刻取自协调器的时钟,断电后该时钟可能不准。",
};

impl Language {
    pub(super) const fn words(self) -> &'static Words {
        match self {
            Self::En => &EN,
            Self::Zh => &ZH,
        }
    }

    pub(super) fn title(self, runbook: &str, id: &str) -> String {
        match (self, runbook) {
            (Self::En, _) => format!("Report of {id}"),
            (Self::Zh, "cold-start") => format!("冷启动报告:{id}"),
            (Self::Zh, "rejoin") => format!("节点重新加入报告:{id}"),
            (Self::Zh, _) => format!("运行报告:{id}"),
        }
    }

    pub(super) const fn run(self, state: RunState) -> &'static str {
        match (self, state) {
            (Self::En, state) => state.word(),
            (Self::Zh, RunState::Unknown) => "未知",
            (Self::Zh, RunState::Running) => "进行中",
            (Self::Zh, RunState::Paused) => "已暂停",
            (Self::Zh, RunState::Undoing) => "撤销中",
            (Self::Zh, RunState::Halted) => "已停止,等待处理",
            (Self::Zh, RunState::Succeeded) => "成功",
            (Self::Zh, RunState::Aborted) => "已中止",
        }
    }

    pub(super) const fn step(self, state: StepState) -> &'static str {
        match (self, state) {
            (Self::En, state) => state.word(),
            (Self::Zh, StepState::Unknown) => "未知",
            (Self::Zh, StepState::Pending) => "未开始",
            (Self::Zh, StepState::Waiting) => "等待中",
            (Self::Zh, StepState::Started) => "进行中",
            (Self::Zh, StepState::Done) => "完成",
            (Self::Zh, StepState::Residue) => "未恢复",
            (Self::Zh, StepState::Failed) => "失败",
            (Self::Zh, StepState::Cancelled) => "已取消",
        }
    }

    /// What a step does, by its kind; the plan's own words are English.
    pub(super) fn kind(self, kind: &str) -> &str {
        match (self, kind) {
            (Self::Zh, "release-kubelet") => "放行 kubelet",
            (Self::Zh, "control-plane-gate") => "控制面检查",
            (Self::Zh, "serving-gate") => "工作节点检查",
            (Self::Zh, "verify-cluster") => "集群恢复验证",
            (Self::Zh, "hold-manifest") => "移出静态 Pod 清单",
            (Self::Zh, "kubelets-gate") => "节点 kubelet 检查",
            (Self::Zh, "release-manifest") => "放回静态 Pod 清单",
            (_, kind) => kind,
        }
    }
}
