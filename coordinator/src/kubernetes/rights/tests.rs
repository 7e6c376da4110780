//! The manifest is what the code asks, no more and no less. `BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-coordinator rights` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::{env, fs};

use super::super::calls::{Precondition, TemplateChange};
use super::super::capabilities::GroupVersion;
use super::super::objects::workload::WorkloadName;
use super::super::objects::{Attachment, Budget, Kept, Key, Lease, Node, Pod};
use super::*;
use crate::runbooks::plan::Runbook;

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/kubernetes/coordinator-rbac.yaml"
);

const HEAD: &str = "\
# What the coordinator asks of a cluster's API, and nothing else: it reads no secrets and makes no workloads.
# Written from coordinator/src/kubernetes/rights.rs, and the tests of runbooks run with it enforced.
#
# kubectl apply -f coordinator-rbac.yaml
#
# Change the subjects to the user of the coordinator's client certificate (its common name), or to a service account. Where a rule is left
# out, a run that needs it says which right is missing, and everything else works; what every decision rests on cannot be left out. Clusters
# before 1.14 have no namespace kube-node-lease, and need neither the Role nor its binding.
";

const SUBJECTS: &str = "\
subjects:
  - apiGroup: rbac.authorization.k8s.io
    kind: User
    name: blackstart-coordinator
";

/// A role of some resources; those with the same grant in one rule.
fn role(kind: &str, namespace: Option<&str>) -> String {
    let mut rules: Vec<(Grant, &str, Vec<&str>)> = Vec::new();
    for resource in Resource::ALL
        .iter()
        .filter(|resource| resource.only_in() == namespace)
    {
        for grant in resource.grants() {
            let like = rules
                .iter_mut()
                .find(|(one, group, _)| one == grant && *group == resource.group());
            match like {
                Some((_, _, names)) => names.push(resource.name()),
                None => rules.push((*grant, resource.group(), vec![resource.name()])),
            }
        }
    }
    let within = namespace.map_or_else(String::new, |namespace| format!("\n  namespace: {namespace}"));
    let mut text = format!(
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: blackstart-coordinator{within}\nrules:\n"
    );
    for (grant, group, names) in rules {
        let whose = match grant.runbooks {
            [] => "all runbooks".to_owned(),
            runbooks => runbooks.join(", "),
        };
        let group = if group.is_empty() { "\"\"" } else { group };
        let verbs: Vec<_> = grant.verbs.iter().map(|verb| verb.as_str()).collect();
        writeln!(
            text,
            "  # {whose}: {}\n  - apiGroups: [{group}]\n    resources: [{}]\n    verbs: [{}]",
            grant.why,
            names.join(", "),
            verbs.join(", ")
        )
        .unwrap();
    }
    write!(
        text,
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}Binding\nmetadata:\n  name: blackstart-coordinator{within}\nroleRef:\n  apiGroup: \
         rbac.authorization.k8s.io\n  kind: {kind}\n  name: blackstart-coordinator\n{SUBJECTS}"
    )
    .unwrap();
    text
}

#[test]
fn the_manifest_is_this_table() {
    let text = format!(
        "{HEAD}{}{}",
        role("ClusterRole", None),
        role("Role", Some(LEASES))
    );
    if env::var_os("BLACKSTART_WRITE_DOCS").is_some() {
        fs::write(FILE, &text).unwrap();
    }
    assert!(
        fs::read_to_string(FILE).unwrap_or_default() == text,
        "{MANIFEST} is out of date: BLACKSTART_WRITE_DOCS=1 cargo test -p blackstart-coordinator rights"
    );
}

/// One of each call.
pub(crate) fn calls() -> Vec<ApiCall> {
    let node = || Precondition {
        name: "n".into(),
        uid: "u".into(),
        resource_version: "1".into(),
    };
    let pod = || Key {
        namespace: "biz".into(),
        name: "p".into(),
    };
    let mut calls = vec![
        ApiCall::Schedulable {
            node: node(),
            unschedulable: true,
            mark: ("m", None),
        },
        ApiCall::OutOfService {
            node: node(),
            taints: Vec::new(),
            mark: ("m", None),
        },
        ApiCall::Evict {
            pod: pod(),
            uid: "u".into(),
            version: GroupVersion("policy/v1".into()),
        },
        ApiCall::DeletePod {
            pod: pod(),
            uid: "u".into(),
            force: true,
        },
        ApiCall::DeleteAttachment {
            name: "a".into(),
            uid: "u".into(),
        },
    ];
    // A replica set's template is its deployment's, and never changed.
    calls.extend(WorkloadKind::ROLLING.map(|kind| ApiCall::Template {
        workload: WorkloadName { kind, key: pod() },
        uid: "u".into(),
        resource_version: "1".into(),
        change: TemplateChange::Restart("now".into()),
        marks: Vec::new(),
    }));
    calls
}

/// A new call does not compile here before it is among [`calls`].
const fn is_among(call: &ApiCall) -> usize {
    match call {
        ApiCall::Schedulable { .. } => 0,
        ApiCall::OutOfService { .. } => 1,
        ApiCall::Evict { .. } => 2,
        ApiCall::DeletePod { .. } => 3,
        ApiCall::DeleteAttachment { .. } => 4,
        ApiCall::Template { .. } => 5,
    }
}

#[test]
fn what_changes_and_what_caches_keep_is_granted_and_nothing_else_changes_anything() {
    let calls = calls();
    let kinds: BTreeSet<_> = calls.iter().map(is_among).collect();
    assert_eq!(kinds, (0..=5).collect());
    let kept = [
        Node::RESOURCE,
        Pod::RESOURCE,
        Lease::RESOURCE,
        Budget::RESOURCE,
        Attachment::RESOURCE,
    ];
    let watched = kept.into_iter().map(|resource| Right::to(Verb::Watch, resource));
    let asked: BTreeSet<_> = calls.iter().map(ApiCall::right).chain(watched).collect();
    let granted = Resource::ALL.iter().flat_map(|resource| {
        let verbs = resource.grants().iter().flat_map(|grant| grant.verbs);
        verbs.map(|verb| Right::to(*verb, *resource))
    });
    let granted: BTreeSet<_> = granted
        .filter(|right| match right.verb {
            // What is read aside is held by the tests that run with the manifest.
            Verb::Get | Verb::List => false,
            Verb::Watch | Verb::Create | Verb::Patch | Verb::Delete => true,
        })
        .collect();
    assert_eq!(asked, granted);
}

#[test]
fn the_path_and_verb_on_the_wire_are_those_of_the_right() {
    for call in calls() {
        let wire = call.wire(None);
        let Right { verb, resource } = call.right();
        let method = match verb {
            Verb::Create => "POST",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::Get | Verb::List | Verb::Watch => "GET",
        };
        assert_eq!(wire.method, method, "{call}");
        let (name, part) = resource.name().split_once('/').unwrap_or((resource.name(), ""));
        let (root, last) = wire.path.split_once(&format!("/{name}/")).unwrap();
        assert!(last.ends_with(part), "{}", wire.path);
        let group = match resource.group() {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        let within = match call.namespace() {
            "" => String::new(),
            namespace => format!("/namespaces/{namespace}"),
        };
        assert_eq!(root, format!("{group}{within}"), "{call}");
    }
}

#[test]
fn the_runbooks_of_a_grant_are_runbooks() {
    for grant in Resource::ALL.iter().flat_map(|resource| resource.grants()) {
        for name in grant.runbooks {
            assert!(Runbook::named(name).is_some(), "{name}");
        }
    }
}
