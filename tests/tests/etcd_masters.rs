//! The runbooks of etcd and of the control plane on real nodes: etcd with TLS as static pods, its data on the nodes' own disks, agents as the
//! hardened unit, a real coordinator, the command as operators type it. One bed of three masters a version of etcd, for all of its cases.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod etcd_story;

use blackstart_proto::part::Part;
use blackstart_tests::component::Mood;
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::masters::store::{self, Writer};
use blackstart_tests::masters::{self, DATA, ETCD, Etcd, Masters};
use blackstart_tests::node::Node;
use blackstart_tests::wait;
use serde_json::Value;

use self::etcd_story::{LONG, Story, exists, set_aside};

const API_SERVER: &str = Part::ApiServer.pod();
/// On the disk of etcd's data.
const FILLER: &str = "/var/lib/node-disk/filler";
/// Years with whose beginning certificates end.
const ENDED: i32 = 2024;
const GOOD: i32 = 2090;

/// One member's database is damaged: bounced in vain, then replaced on its node, while others write.
async fn one_lost(story: &Story) {
    let name = story.name(2);
    let well = story.plan(&["etcd-member", &name]).await;
    assert!(well.contains("it is well"), "{well}");
    let writer = Writer::start("one", &story.members[..2]).unwrap();
    masters::damage(story.node(2)).unwrap();
    story.tell("a member's database is damaged");
    story
        .status("its loss", |etcd| {
            etcd["voters_healthy"] == 2 && etcd["has_quorum"] == true
        })
        .await;
    let run = story.run(&["etcd-member", &name]).await;
    let question = story.question(&run).await;
    assert!(question.contains("its data is set aside"), "{question}");
    assert_eq!(set_aside(story.node(2)).await, 0, "nothing before the approval");
    story.ask(&["runbook", "approve", &run]).await.unwrap();
    story.succeeds(&run).await;
    story.well(3).await;
    story.tell("it votes again");
    let keys = writer.stop().await.unwrap();
    assert!(keys.len() > 100, "{} keys", keys.len());
    story.all_are_there(2, &keys).await;
    assert_eq!(set_aside(story.node(2)).await, 1, "nothing was thrown away");
    let manifest = story.node(2).read(&masters::manifest(ETCD)).unwrap();
    assert!(
        manifest.contains("--initial-cluster-state=existing"),
        "{manifest}"
    );
}

/// An API server hangs: it alone is bounced.
async fn hung(story: &Story) {
    let before: Vec<_> = story
        .masters
        .nodes()
        .map(|node| masters::process(node, API_SERVER).unwrap())
        .collect();
    let own = u32::try_from(before[0]).unwrap();
    masters::set_mood(story.node(0), Part::ApiServer, Mood::Hung(own)).unwrap();
    story.tell("an API server hangs");
    let run = story.run(&["control-plane", "--cluster", "bed"]).await;
    story
        .follow("the bounce", &run, |run| {
            run["wants_approval"] == true || run["state"] == "succeeded"
        })
        .await;
    let _unasked = story.ask(&["runbook", "approve", &run]).await;
    let ended = story.succeeds(&run).await.to_string();
    assert!(ended.contains("bounce-apiserver:master-1"), "{ended}");
    for (node, before) in story.masters.nodes().zip(before) {
        let after = masters::process(node, API_SERVER).unwrap();
        assert_eq!(after != before, node.name() == "master-1", "{}", node.name());
    }
    story.tell("it was bounced, and the others were not");
}

/// Free space of etcd's disk on a node, bytes.
async fn free(node: &Node) -> u64 {
    let told = node
        .exec(&["df", "--output=avail", "--block-size=1", DATA])
        .await
        .unwrap();
    told.lines().next_back().unwrap().trim().parse().unwrap()
}

/// Fills a node's disk, so that so much is left of it, MiB.
async fn fill_disk(node: &Node, left: u64) {
    let bytes = (free(node).await - (left << 20)).to_string();
    node.exec(&["fallocate", "--length", &bytes, FILLER])
        .await
        .unwrap();
}

async fn make_room(node: &Node) {
    node.exec(&["rm", FILLER]).await.unwrap();
}

/// Two members' databases are damaged, and the disk of the third one is nearly full.
async fn quorum_lost(story: &Story, etcd: &Etcd) {
    let left = story.node(0);
    let writer = Writer::start("quorum", &story.members[..1]).unwrap();
    // Something is to be acknowledged before the loss.
    let revision = |etcd: &Value| etcd["members"][0]["revision"].as_i64().unwrap_or_default();
    let before = revision(&story.status("what is written", |etcd| revision(etcd) > 0).await);
    story.status("more", |etcd| revision(etcd) > before + 100).await;
    for at in [1, 2] {
        masters::damage(story.node(at)).unwrap();
    }
    story.tell("two databases are damaged");
    story.status("the loss", |etcd| etcd["has_quorum"] == false).await;
    let keys = writer.stop().await.unwrap();

    fill_disk(left, 40).await;
    let asked = ["etcd-quorum", "--cluster", "bed"];
    let plan = story
        .until(
            "a plan that sees the full disk",
            &["runbook", "plan", asked[0], asked[1], asked[2]],
            |plan| plan.to_string().contains("MiB"),
        )
        .await;
    story.tell(&format!("{}", plan["refusals"]));
    let told = plan["refusals"].to_string();
    assert!(
        told.contains("/var/lib/etcd of master-1") && told.contains("are missing"),
        "{told}"
    );
    assert_eq!(
        plan["steps"],
        serde_json::json!([]),
        "nothing is begun that does not fit"
    );
    make_room(left).await;

    let run = story.run(&asked).await;
    let question = story.question(&run).await;
    assert!(question.contains("becomes a cluster of one"), "{question}");
    assert!(
        exists(story.node(1), &masters::manifest(API_SERVER)),
        "nothing is stopped yet"
    );
    // It fills again while people talk.
    fill_disk(left, 40).await;
    story.approve_by_two(&run).await;
    let halted = story
        .until("what does not fit", &["runbook", "status", &run], |run| {
            run["state"] == "halted"
        })
        .await;
    let told = halted["waiting_on"].to_string();
    assert!(
        told.contains("make room first; nothing was changed"),
        "{halted:#}"
    );
    assert!(
        exists(left, &format!("{DATA}/member/snap/db")),
        "its data is where it was"
    );
    story.tell(&told);
    make_room(left).await;
    let asked = ["runbook", "approve", run.as_str()];
    story
        .masters
        .bed()
        .coordinator()
        .unwrap()
        .ask_as(&story.second, &asked)
        .await
        .unwrap();
    story
        .until("its end", &["runbook", "status", &run], |run| {
            run["state"] == "succeeded"
        })
        .await;
    let restored = story
        .status("a cluster of one", |etcd| {
            etcd["has_quorum"] == true && etcd["voters"] == 1
        })
        .await;
    story.tell("a cluster of one");
    story.all_are_there(0, &keys).await;
    if etcd.bumps() {
        assert!(
            revision(&restored) > 1_000_000_000,
            "no watcher goes on from an old one: {restored:#}"
        );
    }
    for (at, voters) in [(1, 2), (2, 3)] {
        let node = story.node(at);
        assert!(!exists(node, &masters::manifest(ETCD)), "fenced");
        assert!(!exists(node, &masters::manifest(API_SERVER)), "stopped");
        story.grow(at, voters).await;
        assert!(exists(node, &masters::manifest(API_SERVER)));
        story.tell(&format!("{voters} members"));
    }
    story.all_are_there(2, &keys).await;
}

/// All databases are damaged: the newest snapshot is restored, and what was told is lost, and no more.
async fn all_lost(story: &Story) {
    let writer = Writer::start("all", &story.members).unwrap();
    story
        .ask(&["etcd", "snapshot", "take", "bed", "--yes", "--wait"])
        .await
        .unwrap();
    let age = |etcd: &Value| etcd["last_snapshot_age_ms"].as_u64();
    story
        .status("more than the snapshot has", |etcd| age(etcd) > Some(1000))
        .await;
    for at in 0..3 {
        masters::damage(story.node(at)).unwrap();
    }
    story.tell("all databases are damaged");
    let keys = writer.stop().await.unwrap();
    let silent = |etcd: &Value| {
        let members = etcd["members"].as_array();
        etcd["cluster_id"].is_null()
            && members.is_some_and(|all| all.iter().all(|one| one["revision"].is_null()))
    };
    story.status("the loss of all", silent).await;
    let run = story.run(&["etcd-all", "--cluster", "bed"]).await;
    let question = story.question(&run).await;
    story.tell(&question);
    let (_, after) = question.split_once("everything after revision ").unwrap();
    let told: i64 = after.split(' ').next().unwrap().parse().unwrap();
    story.approve_by_two(&run).await;
    story.succeeds(&run).await;
    let restored = story
        .status("a cluster of one", |etcd| {
            etcd["has_quorum"] == true && etcd["voters"] == 1
        })
        .await;
    let members = restored["members"].as_array().unwrap();
    let on = members.iter().position(|member| member["leads"] == true).unwrap();
    let (kept, gone): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.revision <= told);
    story.all_are_there(on, &kept).await;
    let absent = store::missing(&story.members[on], &gone).await.unwrap();
    assert_eq!(absent.len(), gone.len(), "exactly what was told is lost");
    assert!(!gone.is_empty());
    story.tell(&format!("{} keys that were told to be lost are", gone.len()));
    for (at, voters) in (0..3).filter(|at| *at != on).zip([2, 3]) {
        story.grow(at, voters).await;
    }
    story.tell("three members");
}

/// The certificates that members show each other end: etcd refuses its peers. It is said which, and nothing is restored.
async fn expired(story: &Story) {
    let node = story.node(1);
    story.masters.certify_peer("master-2", ENDED).unwrap();
    masters::kill_pod(node, ETCD).unwrap();
    story.tell("the peer certificate of one member has ended");
    is_refused_by(story.node(0)).await;
    let lost = story
        .status("its loss", |etcd| {
            etcd["voters_healthy"] == 2 && etcd["has_quorum"] == true
        })
        .await;
    names(&lost, &["master-2"]);
    refuses(story, &["etcd-member", "master-2"]).await;
    // The others follow, as they do where all were made on one day.
    for (at, name) in [(0, "master-1"), (2, "master-3")] {
        story.masters.certify_peer(name, ENDED).unwrap();
        masters::kill_pod(story.node(at), ETCD).unwrap();
    }
    let lost = story
        .status("the loss of the quorum", |etcd| {
            let members = etcd["members"].as_array();
            // One that finds no leader takes no clients: only its certificate tells it from one that is lost.
            members.is_some_and(|all| all.iter().all(|one| one["revision"].is_null()))
        })
        .await;
    names(&lost, &["master-1", "master-2", "master-3"]);
    for name in ["master-1", "master-2", "master-3"] {
        refuses(story, &["etcd-member", name]).await;
    }
    for runbook in ["etcd-quorum", "etcd-all"] {
        refuses(story, &[runbook, "--cluster", "bed"]).await;
    }
    for name in ["master-1", "master-2", "master-3"] {
        story.masters.certify_peer(name, GOOD).unwrap();
    }
    story.well(3).await;
    story.tell("with new ones they are well, and nothing was restored");
}

/// etcd itself refuses a peer for its certificate: its log says so.
async fn is_refused_by(node: &Node) {
    let log = format!("/var/log/pods/kube-system_etcd-{}_0a1b/etcd/0.log", node.name());
    wait::until("a peer to be refused", LONG, async || {
        Ok(node
            .read(&log)?
            .contains("certificate has expired or is not yet valid")
            .then_some(()))
    })
    .await
    .unwrap();
}

/// Each of these nodes has a finding of its own that says which certificate has ended, and when.
fn names(etcd: &Value, nodes: &[&str]) {
    let findings = etcd["findings"].as_array().unwrap();
    for node in nodes {
        let of_node = findings.iter().filter(|finding| finding["node"] == *node);
        let texts: Vec<_> = of_node.map(|finding| finding["text"].as_str().unwrap()).collect();
        let wanted = "/etc/kubernetes/pki/etcd/peer.crt has expired, at 2024-01-01T00:00:00Z";
        assert!(texts.iter().any(|text| text.contains(wanted)), "{node}: {etcd:#}");
    }
}

/// A plan is refused for want of certificates that are good, and has no step.
async fn refuses(story: &Story, asked: &[&str]) {
    let args: Vec<_> = ["runbook", "plan"]
        .into_iter()
        .chain(asked.iter().copied())
        .collect();
    let plan = story
        .until("a refusal", &args, |plan| {
            plan["refusals"]
                .to_string()
                .contains("certificates that are good")
        })
        .await;
    let told = plan["refusals"].to_string();
    assert!(
        told.contains("peer.crt") && told.contains("2024-01-01"),
        "{asked:?}: {told}"
    );
    assert_eq!(plan["steps"], serde_json::json!([]), "{asked:?}");
}

async fn every_case(docker: &Docker, name: &str, etcd: &Etcd) {
    let story = Story::begin(Masters::raise(docker, name, Some(etcd)).await.unwrap()).await;
    story.tell("three members are well");
    expired(&story).await;
    one_lost(&story).await;
    hung(&story).await;
    quorum_lost(&story, etcd).await;
    all_lost(&story).await;
    story.masters.take_down().await.unwrap();
}

#[tokio::test]
async fn each_chapter_of_etcd_ends_well_on_real_nodes() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    for (number, etcd) in Etcd::all_or_skip().iter().enumerate() {
        say(&format!("{etcd:?}"));
        every_case(&docker, &format!("etcd-{number}"), etcd).await;
    }
}
