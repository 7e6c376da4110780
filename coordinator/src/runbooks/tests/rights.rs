//! What the manifest that we ship allows is enough for every runbook (each of these tests runs with it enforced), and what it lacks is told by name.

use std::sync::Arc;
use std::time::Duration;

use blackstart_apiserver::Release;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::plan::Runbook;
use super::super::record::RunState;
use super::bed::{Bed, within};
use crate::inventory::ClusterName;
use crate::kubernetes::Cluster;
use crate::kubernetes::asked::Told;
use crate::kubernetes::connection::CallError;
use crate::kubernetes::reads::ReadError;
use crate::kubernetes::rights::tests::calls;
use crate::kubernetes::rights::{MANIFEST, Resource, Right, Verb};
use crate::kubernetes::view::Api;

/// The objects of the manifest.
pub(super) fn manifest() -> Vec<Value> {
    let text = include_str!("../../../../deploy/kubernetes/coordinator-rbac.yaml");
    let documents = text
        .split("\n---\n")
        .map(|one| serde_saphyr::from_str(one).unwrap());
    let objects: Vec<Value> = documents.filter(|one: &Value| one.is_object()).collect();
    assert_eq!(objects.len(), 4);
    objects
}

/// Everything that it grants.
fn granted() -> impl Iterator<Item = Right> {
    Resource::ALL.iter().flat_map(|resource| {
        let verbs = resource.grants().iter().flat_map(|grant| grant.verbs);
        verbs.map(|verb| Right::to(*verb, *resource))
    })
}

/// Takes one right of the coordinator away.
pub(super) async fn take_away(bed: &Bed, right: Right) {
    bed.world(|world| {
        let (kind, namespace) = match right.resource.only_in() {
            None => ("clusterroles", ""),
            Some(namespace) => ("roles", namespace),
        };
        world.change(kind, namespace, "blackstart-coordinator", |role| {
            let mut rules = Vec::new();
            for rule in role["rules"].as_array().unwrap() {
                let has = |list: &str, name: &str| rule[list].as_array().unwrap().iter().any(|one| one == name);
                let without = |list: &str, name: &str| {
                    let all = rule[list].as_array().unwrap().iter();
                    all.filter(|one| *one != name).cloned().collect::<Vec<_>>()
                };
                let (name, verb) = (right.resource.name(), right.verb.as_str());
                if !(has("apiGroups", right.resource.group()) && has("resources", name) && has("verbs", verb)) {
                    rules.push(rule.clone());
                    continue;
                }
                let groups = &rule["apiGroups"];
                rules.push(json!({"apiGroups": groups, "resources": without("resources", name), "verbs": rule["verbs"]}));
                rules.push(json!({"apiGroups": groups, "resources": [name], "verbs": without("verbs", verb)}));
            }
            role["rules"] = rules.into();
        });
    })
    .await;
}

/// Gives back what was taken.
async fn give_back(bed: &Bed) {
    bed.world(|world| {
        for object in manifest() {
            let kind = match object["kind"].as_str().unwrap() {
                "ClusterRole" => "clusterroles",
                "Role" => "roles",
                _ => continue,
            };
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            world.change(kind, namespace, "blackstart-coordinator", |role| {
                role["rules"] = object["rules"].clone();
            });
        }
    })
    .await;
}

/// What is said when something is asked that takes this right; `None`: it was allowed.
async fn asked(cluster: &Cluster, right: Right) -> Option<String> {
    match right.verb {
        Verb::Create | Verb::Patch | Verb::Delete => {
            let call = calls().into_iter().find(|call| call.right() == right).unwrap();
            match cluster.perform(&call).await {
                Err(CallError::Forbidden(lacking)) => Some(lacking.to_string()),
                Ok(()) | Err(_) => None,
            }
        }
        Verb::List if right.resource.group() == "metrics.k8s.io" => {
            cluster.ask_usage(Duration::ZERO).await;
            match cluster.usage() {
                Told::Unknown { why } => Some(why),
                Told::Known { trouble, .. } => trouble,
            }
        }
        Verb::List => match cluster.objects(right.resource, "biz", "").await {
            Err(ReadError::Forbidden(lacking)) => Some(lacking.to_string()),
            Ok(_) | Err(_) => None,
        },
        Verb::Get => match cluster.object(right.resource, "biz", "a").await {
            Err(ReadError::Forbidden(lacking)) => Some(lacking.to_string()),
            Ok(_) | Err(_) => None,
        },
        Verb::Watch => None,
    }
}

fn names(told: &str, right: Right, place: &str) {
    let Right { verb, resource } = right;
    for part in [
        &format!("the coordinator may not {right} {place}"),
        MANIFEST,
        &format!(
            "apiGroups: [\"{}\"], resources: [{}], verbs: [{verb}]",
            resource.group(),
            resource.name()
        ),
    ] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_of_a_call_or_a_read_is_enough_and_named_when_it_is_missing() {
    let bed = Bed::new(Release::CURRENT).await;
    let clusters = bed.clusters();
    let cluster = Arc::clone(clusters.get(&ClusterName("biz".into())).unwrap());
    let stop = CancellationToken::new();
    let kept = tokio::spawn(clusters.run(stop.clone()));
    within("what it can do", async {
        while cluster.capabilities().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for right in granted().filter(|right| !is_kept(*right)) {
        let told = asked(&cluster, right).await;
        assert_eq!(told, None, "{right}");
        take_away(&bed, right).await;
        let told = asked(&cluster, right).await;
        let told = told.unwrap_or_else(|| panic!("{right} is not needed for what it is granted for"));
        let is_of_all = right.resource.group() == "metrics.k8s.io"
            || matches!(right.resource, Resource::Nodes | Resource::Attachments);
        let place = if is_of_all {
            "in the whole cluster"
        } else {
            "in namespace biz"
        };
        names(&told, right, place);
        give_back(&bed).await;
    }
    stop.cancel();
    kept.await.unwrap();
}

/// Lists and watches of caches.
fn is_kept(right: Right) -> bool {
    let grants = right.resource.grants();
    let watched = grants.iter().find(|grant| grant.verbs.contains(&Verb::Watch));
    watched.is_some_and(|grant| grant.verbs.contains(&right.verb))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_of_what_is_kept_is_named_when_it_is_missing_and_nothing_is_planned() {
    let bed = Bed::cold(Release::CURRENT).await;
    for right in granted().filter(|right| is_kept(*right)) {
        take_away(&bed, right).await;
        let clusters = bed.clusters();
        let cluster = Arc::clone(clusters.get(&ClusterName("biz".into())).unwrap());
        let stop = CancellationToken::new();
        let kept = tokio::spawn(clusters.run(stop.clone()));
        let told = within("the missing right", async {
            loop {
                let view = cluster.view("worker-1", Instant::now());
                let told = match (view, cluster.trouble()) {
                    (Api::Unknown { why }, _) if why.contains("may not") => Some(why),
                    (Api::Known(_), trouble) => trouble,
                    (Api::Unknown { .. }, _) => None,
                };
                if let Some(told) = told {
                    return told;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let place = match right.resource.only_in() {
            None => "in the whole cluster",
            Some(_) => "in namespace kube-node-lease",
        };
        names(&told, right, place);
        stop.cancel();
        kept.await.unwrap();
        give_back(&bed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_lacks_a_right_says_which_and_goes_on_once_it_is_given() {
    let bed = Bed::new(Release::CURRENT).await;
    bed.deploy("web", 2).await;
    let (cordon, evict) = (
        Right::to(Verb::Patch, Resource::Nodes),
        Right::to(Verb::Create, Resource::Evictions),
    );
    take_away(&bed, cordon).await;
    let run = bed.begin(Runbook::Drain).await.unwrap();
    let waits = |right: Right, place: &'static str| {
        let wanted = format!("the coordinator may not {right} {place}");
        move |run: &super::super::status::RunbookStatus| {
            let waiting = run.waiting.as_ref().map(ToString::to_string);
            waiting.is_some_and(|waiting| waiting.contains(&wanted) && waiting.contains(MANIFEST))
        }
    };
    bed.until(
        &run.id,
        "waiting for the right to cordon",
        waits(cordon, "in the whole cluster"),
    )
    .await;
    assert!(!bed.is_cordoned().await);
    take_away(&bed, evict).await;
    bed.world(|world| {
        world.change("clusterroles", "", "blackstart-coordinator", |role| {
            let rules = role["rules"].as_array_mut().unwrap();
            rules.push(json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]}));
        });
    })
    .await;
    bed.until(
        &run.id,
        "waiting for the right to evict",
        waits(evict, "in namespace default"),
    )
    .await;
    give_back(&bed).await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
}
