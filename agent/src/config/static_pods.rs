//! What the agent is told of static pods.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use blackstart_proto::yaml::{Item, Table};

use super::read::{absolute, count, name, positive, set};
use crate::span::Span;

/// Static pods of which one is not well are looked at at least so often.
const LONGEST_WHILE_FAILING: Duration = Duration::from_secs(2);

/// Static pods of this node, those of the control plane above all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPodSettings {
    /// The kubelet's `staticPodPath`. Not there: this node has none.
    pub manifests: PathBuf,
    /// Where a manifest lies while it is out. On the file system of `manifests`, and outside of it.
    pub held: PathBuf,
    /// Where the kubelet keeps what pods write.
    pub logs: PathBuf,
    /// How often health ports are asked.
    pub interval: Duration,
    /// How long an answer may take.
    pub deadline: Duration,
    /// So many looks in a row that find a component down raise `ControlPlaneComponentDown`.
    pub failures_to_raise: u32,
    /// A component is not judged before its manifest, and the kubelet, have been there for so long.
    pub start_grace: Duration,
    /// Pods whose manifests have to be there; `None`: those that were there before.
    pub expected: Option<Vec<String>>,
    /// The components that may be bounced, and where they answer when their manifests do not say.
    pub components: Vec<ComponentSettings>,
    /// So many bounces of a component, refilled by health for `restart.window`.
    pub bounces: u32,
    /// A manifest stays out for at least so long: a kubelet that missed the event looks at its files every 20 s.
    pub out_at_least: Duration,
    /// A pod's containers have so long to end once its manifest is out. Longer than their grace period.
    pub gone_deadline: Duration,
    /// A pod has so long to be healthy once its manifest is back.
    pub ready_deadline: Duration,
    /// Bounce what needs the coordinator's permit without one.
    pub without_permit: bool,
}

/// A component of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentSettings {
    /// Its pod's name in the manifest.
    pub name: String,
    /// Its health port on the loopback address; `None`: only its manifest may say.
    pub port: Option<u16>,
    /// The path, with its leading slash.
    pub path: String,
    /// It speaks HTTPS.
    pub tls: bool,
    /// A bounce of it needs the coordinator's permit: the cluster feels it.
    pub permit: bool,
}

impl ComponentSettings {
    /// Spoken to over HTTP, bounced without a permit.
    pub fn new(name: &str, port: u16, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            port: Some(port),
            path: path.to_owned(),
            tls: false,
            permit: false,
        }
    }
}

impl StaticPodSettings {
    /// From one look to the next while a pod is not well: failures are counted, and the end of a bounce is waited for.
    pub fn while_failing(&self) -> Duration {
        self.interval.min(LONGEST_WHILE_FAILING)
    }

    /// What is known of a component.
    pub fn component(&self, pod: &str) -> Option<&ComponentSettings> {
        self.components.iter().find(|component| component.name == pod)
    }
}

impl Default for StaticPodSettings {
    /// Ports and paths are those of kubeadm. etcd is asked for itself, not for its quorum: a bounce brings no quorum back.
    fn default() -> Self {
        let tls = |component| ComponentSettings {
            tls: true,
            ..component
        };
        let permit = |component| ComponentSettings {
            permit: true,
            ..component
        };
        Self {
            manifests: "/etc/kubernetes/manifests".into(),
            held: "/etc/kubernetes/blackstart-held".into(),
            logs: "/var/log/pods".into(),
            interval: Duration::from_secs(5),
            deadline: Duration::from_secs(2),
            failures_to_raise: 10,
            start_grace: Duration::from_mins(2),
            expected: None,
            components: vec![
                permit(ComponentSettings::new("etcd", 2381, "/health?serializable=true")),
                permit(tls(ComponentSettings::new("kube-apiserver", 6443, "/livez"))),
                tls(ComponentSettings::new(
                    "kube-controller-manager",
                    10257,
                    "/healthz",
                )),
                tls(ComponentSettings::new("kube-scheduler", 10259, "/healthz")),
            ],
            bounces: 1,
            out_at_least: Duration::from_secs(20),
            gone_deadline: Duration::from_secs(90),
            ready_deadline: Duration::from_mins(3),
            without_permit: false,
        }
    }
}

impl fmt::Display for ComponentSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(port) = self.port {
            let scheme = if self.tls { "https" } else { "http" };
            write!(f, " {scheme}:{port}{}", self.path)?;
        }
        if self.permit {
            f.write_str(" by permit")?;
        }
        Ok(())
    }
}

/// The section as written.
pub(super) fn read(mut table: Table, to: &mut StaticPodSettings) {
    for (key, to) in [
        ("manifests", &mut to.manifests),
        ("held", &mut to.held),
        ("logs", &mut to.logs),
    ] {
        set(to, table.item(key).and_then(|item| absolute(&item)));
    }
    if to.held.starts_with(&to.manifests) || to.manifests.starts_with(&to.held) {
        table.problem(
            "held",
            "must lie outside of `manifests`, and not around it: the kubelet runs what it finds there",
        );
    }
    set(&mut to.interval, positive(&mut table, "interval"));
    set(&mut to.deadline, positive(&mut table, "deadline"));
    set(
        &mut to.failures_to_raise,
        count(table.integer("failures_to_raise", 1..=100)),
    );
    set(&mut to.start_grace, table.duration("start_grace"));
    if let Some(expected) = table.list("expected") {
        to.expected = Some(expected.iter().filter_map(name).collect());
    }
    if let Some(components) = table.list("components") {
        to.components = components.into_iter().filter_map(component).collect();
    }
    set(&mut to.bounces, count(table.integer("bounces", 0..=10)));
    set(&mut to.out_at_least, table.duration("out_at_least"));
    set(&mut to.gone_deadline, positive(&mut table, "gone_deadline"));
    set(&mut to.ready_deadline, positive(&mut table, "ready_deadline"));
    if to.gone_deadline <= to.out_at_least {
        table.problem("gone_deadline", "must be longer than out_at_least");
    }
    set(&mut to.without_permit, table.boolean("without_permit"));
}

fn component(item: Item) -> Option<ComponentSettings> {
    let mut table = item.table()?;
    let named = table.required("name").and_then(|item| name(&item));
    let port = table.integer("port", 1..=u64::from(u16::MAX));
    let mut to = ComponentSettings {
        name: named.clone().unwrap_or_default(),
        port: port.and_then(|port| u16::try_from(port).ok()),
        path: "/healthz".to_owned(),
        tls: false,
        permit: false,
    };
    if let Some(item) = table.item("path")
        && let Some(path) = item.string()
    {
        if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic()) {
            to.path = path;
        } else {
            item.problem("expected a path such as \"/healthz\"");
        }
    }
    set(&mut to.tls, table.boolean("https"));
    set(&mut to.permit, table.boolean("permit"));
    named.map(|_| to)
}

/// Each field with its value; none of them needs a restart.
pub(super) fn fields(settings: &StaticPodSettings) -> Vec<(&'static str, String)> {
    let StaticPodSettings {
        manifests,
        held,
        logs,
        interval,
        deadline,
        failures_to_raise,
        start_grace,
        expected,
        components,
        bounces,
        out_at_least,
        gone_deadline,
        ready_deadline,
        without_permit,
    } = settings;
    let components: Vec<_> = components.iter().map(ToString::to_string).collect();
    let expected = expected
        .as_ref()
        .map_or_else(|| "what was there before".to_owned(), |names| names.join(" "));
    vec![
        ("static_pods.manifests", manifests.display().to_string()),
        ("static_pods.held", held.display().to_string()),
        ("static_pods.logs", logs.display().to_string()),
        ("static_pods.interval", Span(*interval).to_string()),
        ("static_pods.deadline", Span(*deadline).to_string()),
        ("static_pods.failures_to_raise", failures_to_raise.to_string()),
        ("static_pods.start_grace", Span(*start_grace).to_string()),
        ("static_pods.expected", expected),
        ("static_pods.components", components.join(", ")),
        ("static_pods.bounces", bounces.to_string()),
        ("static_pods.out_at_least", Span(*out_at_least).to_string()),
        ("static_pods.gone_deadline", Span(*gone_deadline).to_string()),
        ("static_pods.ready_deadline", Span(*ready_deadline).to_string()),
        ("static_pods.without_permit", without_permit.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn the_held_directory_must_not_be_where_the_kubelet_looks() {
        for held in [
            "/etc/kubernetes/manifests/held",
            "/etc/kubernetes/manifests",
            "/etc/kubernetes",
        ] {
            let text = format!("node: m\nstatic_pods: {{held: {held}}}\n");
            let problems = parse("agent.yaml", &text).unwrap_err();
            assert_eq!(problems.list[0].field, "static_pods.held", "{problems}");
        }
    }

    #[test]
    fn a_component_needs_a_name_and_may_leave_its_port_to_its_manifest() {
        let text = "node: m\nstatic_pods: {components: [{name: etcd, permit: true}, {port: 1}], gone_deadline: 1s}\n";
        let problems = parse("agent.yaml", text).unwrap_err();
        let fields: Vec<_> = problems.list.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields.len(), 2, "{problems}");
        let text = "node: m\nstatic_pods: {components: [{name: etcd, permit: true}], expected: []}\n";
        let settings = parse("agent.yaml", text).unwrap().static_pods;
        assert_eq!(settings.components[0].port, None);
        assert_eq!(settings.expected, Some(Vec::new()));
    }
}
