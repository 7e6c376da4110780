//! An etcd member that is replaced on another node, and one whose node was set up anew: real etcd with TLS as static pods on real nodes, while others
//! write.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod etcd_story;

use blackstart_tests::docker::{Docker, say};
use blackstart_tests::masters::store::{Acknowledged, Writer};
use blackstart_tests::masters::{self, DATA, ETCD, Etcd, Masters};
use blackstart_tests::node::Node;
use blackstart_tests::wait;
use nix::sys::signal::{Signal, kill};

use self::etcd_story::{LONG, Story, exists, set_aside};

const KEY: &str = "/etc/kubernetes/pki/etcd/peer.key";
const AGENT: &str = "blackstart-agent.service";
const SPARE: &str = "master-4";

fn list(node: &Node) -> String {
    let manifest = node.read(&masters::manifest(ETCD)).unwrap();
    let line = manifest.lines().find(|line| line.contains("--initial-cluster="));
    line.unwrap().trim().to_owned()
}

/// The node of a member loses its power for good: another one takes its place, once it has all that it needs.
async fn dead_node(story: &Story) -> Vec<Acknowledged> {
    let spare = story.node(3);
    let key = spare.read(KEY).unwrap();
    spare.exec(&["rm", KEY]).await.unwrap();
    let writer = Writer::start("dead", &story.members[..2]).unwrap();
    story.node(2).power_off().await.unwrap();
    story.tell("a master is gone");
    story
        .status("its loss", |etcd| {
            etcd["voters_healthy"] == 2 && etcd["has_quorum"] == true
        })
        .await;
    let asked = ["etcd-member", "master-3", "--on", SPARE];
    let plan = ["runbook", "plan", asked[0], asked[1], asked[2], asked[3]];
    let lacking = story
        .until("what the spare node lacks", &plan, |plan| {
            plan["refusals"]
                .to_string()
                .contains(&format!("on {SPARE}: the key {KEY}"))
        })
        .await;
    story.tell(&lacking["refusals"].to_string());
    assert_eq!(
        lacking["steps"],
        serde_json::json!([]),
        "nothing is begun that cannot end"
    );
    spare.write(KEY, &key).unwrap();
    let taken = story.plan(&["etcd-member", "master-3", "--on", "master-2"]).await;
    assert!(
        taken.contains("master-2 has a member of this cluster already"),
        "{taken}"
    );
    let there = story
        .until("a plan", &plan, |plan| plan["refusals"] == serde_json::json!([]))
        .await;
    let notes = there["notes"].to_string();
    assert!(notes.contains(&format!("+ --name={SPARE}")), "{there:#}");

    let run = story.run(&asked).await;
    let question = story.question(&run).await;
    story.tell(&question);
    assert!(
        question.contains(&format!("a member on {SPARE} takes its place")),
        "{question}"
    );
    assert!(
        !exists(spare, &masters::manifest(ETCD)),
        "nothing before the approval"
    );
    story.ask(&["runbook", "approve", &run]).await.unwrap();
    story.succeeds(&run).await;
    story.well(3).await;
    story.tell("another one votes in its place");
    let keys = writer.stop().await.unwrap();
    assert!(keys.len() > 100, "{} keys", keys.len());
    story.all_are_there(3, &keys).await;
    let lists: Vec<_> = [0, 1, 3].map(|at| list(story.node(at))).into();
    assert!(lists.iter().all(|list| *list == lists[0]), "{lists:#?}");
    assert!(
        lists[0].contains(SPARE) && !lists[0].contains("master-3"),
        "{}",
        lists[0]
    );
    keys
}

/// The old node comes back with its data: it is no member any more, and nothing changes.
async fn comes_back(story: &Story, keys: &[Acknowledged]) {
    let old = story.node(2);
    old.power_on().await.unwrap();
    let log = format!("/var/log/pods/kube-system_etcd-{}_0a1b/etcd/0.log", old.name());
    wait::until("the old member to find itself removed", LONG, async || {
        Ok(old.read(&log)?.contains("removed").then_some(()))
    })
    .await
    .unwrap();
    story
        .status("three that are well, and the old one is none", |etcd| {
            let members = etcd["members"].as_array().unwrap();
            let old = members.iter().find(|member| member["node"] == "master-3");
            etcd["voters"] == 3
                && etcd["voters_healthy"] == 3
                && old.is_some_and(|old| old["id"].is_null() && !old["manifest"].is_null())
        })
        .await;
    story.tell("the old one is back, and no member");
    story.all_are_there(0, keys).await;
}

/// The machine of a member is set up anew under its old name: it has certificates, and neither a manifest nor data.
async fn anew(story: &Story, keys: &[Acknowledged]) {
    let node = story.node(1);
    let writer = Writer::start("anew", &story.members[..1]).unwrap();
    node.exec(&["rm", &masters::manifest(ETCD)]).await.unwrap();
    story
        .status("its loss", |etcd| {
            etcd["voters_healthy"] == 2 && etcd["has_quorum"] == true
        })
        .await;
    node.exec(&["rm", "-r", &format!("{DATA}/member")]).await.unwrap();
    story.tell("a master is set up anew");
    let run = story.run(&["etcd-member", "master-2"]).await;
    let question = story.question(&run).await;
    story.tell(&question);
    story.ask(&["runbook", "approve", &run]).await.unwrap();
    story.succeeds(&run).await;
    story.well(3).await;
    let written = writer.stop().await.unwrap();
    story.all_are_there(1, &written).await;
    story.all_are_there(1, keys).await;
    let manifest = node.read(&masters::manifest(ETCD)).unwrap();
    for line in ["--name=master-2", "--initial-cluster-state=existing"] {
        assert!(manifest.contains(line), "{manifest}");
    }
    story.tell("it votes again");
}

/// A member's database is lost while its node goes on: the node that came back takes its place, with what it has of old set aside.
async fn moves(story: &Story) {
    let (from, to) = (story.node(0), story.node(2));
    let writer = Writer::start("moves", &[story.members[1].clone(), story.members[3].clone()]).unwrap();
    masters::damage(from).unwrap();
    story
        .status("its loss", |etcd| {
            etcd["voters_healthy"] == 2 && etcd["has_quorum"] == true
        })
        .await;
    let asked = ["etcd-member", "master-1", "--on", "master-3"];
    let taken = story.plan(&asked).await;
    assert!(taken.contains("etcd.yaml is there on master-3"), "{taken}");
    to.exec(&["rm", &masters::manifest(ETCD)]).await.unwrap();
    let run = story.run(&asked).await;
    story.question(&run).await;
    story.ask(&["runbook", "approve", &run]).await.unwrap();
    // The agent that writes the manifest crashes, and so does the coordinator.
    let agent = to.main_pid(AGENT).await.unwrap().unwrap();
    story
        .follow("the removal", &run, |run| {
            run["current"] != "remove-etcd-member:master-2" && run["current"] != "remove-etcd-member:master-4"
        })
        .await;
    kill(agent, Signal::SIGKILL).unwrap();
    let coordinator = story.masters.bed().coordinator().unwrap();
    coordinator.kill().await.unwrap();
    coordinator.start().await.unwrap();
    story.succeeds(&run).await;
    story.well(3).await;
    let keys = writer.stop().await.unwrap();
    story.all_are_there(2, &keys).await;
    assert!(
        !exists(from, &masters::manifest(ETCD)),
        "a member that was removed is not started again and again"
    );
    assert!(set_aside(to).await > 0, "what it had of old is kept");
    let lists: Vec<_> = [1, 2, 3].map(|at| list(story.node(at))).into();
    assert!(
        lists
            .iter()
            .all(|list| *list == lists[0] && !list.contains("master-1=")),
        "{lists:#?}"
    );
    // What has none by design is no trouble.
    let etcd = story.ask(&["etcd", "status", "bed"]).await.unwrap();
    let findings = etcd["findings"].to_string();
    assert!(!findings.contains("master-1"), "{findings}");
    story.tell("it has moved");
}

#[tokio::test]
async fn a_member_is_replaced_on_another_node_and_on_one_that_was_set_up_anew() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    for (number, etcd) in Etcd::all_or_skip().iter().enumerate() {
        say(&format!("{etcd:?}"));
        let name = format!("newcomer-{number}");
        let masters = Masters::raise_with_spare(&docker, &name, etcd).await.unwrap();
        let story = Story::begin(masters).await;
        let keys = dead_node(&story).await;
        comes_back(&story, &keys).await;
        anew(&story, &keys).await;
        moves(&story).await;
        story.masters.take_down().await.unwrap();
    }
}
