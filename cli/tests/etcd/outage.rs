//! A cold start whose control plane does not come, since its etcd has no quorum: members have their chance first, then a restore is proposed.

use std::net::TcpStream;

use serde_json::Value;

use crate::bed::{Bed, programs};
use crate::member::{damage, set_aside};
use crate::store::{Writer, fill, has};

/// Members have so long to form a quorum, and the cold start begins by hand.
const CONFIG: &str = "cold_start: {trigger: \"off\"}\nrunbooks: {quorum_chance: 6s}\n";

/// So many keys are written before.
const KEYS: usize = 50;

/// After which revision everything is lost, as whoever is asked is told.
fn revision(proposal: &Value) -> usize {
    let notes = proposal["notes"].as_array().unwrap().iter();
    let told = notes
        .filter_map(Value::as_str)
        .find_map(|note| note.split_once("everything after revision "));
    let (_, rest) = told.unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// What the cold start waits for, in one text.
fn waits(run: &Value) -> String {
    let lines = run["waiting_on"].as_array().into_iter().flatten();
    lines.filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

async fn start(bed: &Bed) {
    bed.until("agents", &["get", "nodes"], |nodes| {
        let nodes = nodes["items"].as_array();
        nodes.is_some_and(|nodes| nodes.iter().all(|node| node["phase"] == "ready"))
    })
    .await;
    let begun = bed.blackstart(&["coldstart", "start", "--yes"]);
    assert!(begun.status.success(), "{begun:?}");
}

/// The run of this name, once it is proposed.
async fn proposed(bed: &Bed, run: &str) -> Value {
    bed.until("a proposal", &["runbook", "status", run], |run| {
        run["proposal"] == true
    })
    .await
}

async fn until_run(bed: &Bed, what: &str, run: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    bed.until(what, &["runbook", "status", run], |run| {
        assert_ne!(run["state"], "halted", "{run:#}");
        wanted(run)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cold_start_without_a_quorum_proposes_a_restore_and_two_persons_let_it_be_done() {
    for program in programs("a cold start whose etcd has no quorum") {
        let mut bed = Bed::new(&program).await;
        let tls = bed.client_files();
        let api_servers = bed.start_api_servers();
        fill(bed.masters[0].client, &tls, KEYS, 1024).await;
        bed.lose_power(CONFIG).await;
        for at in [1, 2] {
            damage(&bed.masters[at].data());
        }
        for at in 0..3 {
            bed.start_kubelet(at);
            bed.start_agent(at);
        }
        start(&bed).await;
        let cold_start = ["get", "run", "cold-start-1"];
        let run = bed
            .until("the chance of the members", &cold_start, |run| {
                waits(run).contains("more to form one from their disks")
            })
            .await;
        println!("{}", waits(&run));
        let none = bed.blackstart(&["runbook", "status", "-o", "json"]);
        assert!(
            !String::from_utf8_lossy(&none.stdout).contains("etcd-all"),
            "nothing is proposed before: {none:?}"
        );
        let id = "etcd-all-1";
        let proposal = proposed(&bed, id).await;
        assert_eq!(proposal["by"], "blackstart");
        let kept = revision(&proposal);
        assert!(kept > KEYS / 2, "{kept}");
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["runbook", "status", id]).stdout)
        );
        let run = bed
            .until("the command to approve it", &cold_start, |run| {
                waits(run).contains("blackstart runbook approve etcd-all-1")
            })
            .await;
        println!("{}", waits(&run));
        for part in ["no member of etcd answers", "biz-1 has data", "biz-2 has data"] {
            assert!(waits(&run).contains(part), "{part} in {}", waits(&run));
        }
        assert!(
            api_servers
                .iter()
                .all(|health| TcpStream::connect(health).is_ok())
                && bed.masters.iter().all(|master| master.manifest().exists()),
            "nothing is done by itself"
        );

        assert!(bed.blackstart(&["runbook", "approve", id]).status.success());
        until_run(&bed, "the question", id, |run| run["wants_approval"] == true).await;
        let one = bed.blackstart(&["runbook", "approve", id]);
        let told = String::from_utf8_lossy(&one.stderr);
        assert!(told.contains("wants two persons"), "{one:?}");
        assert!(bed.by("ben", &["runbook", "approve", id]).status.success());
        until_run(&bed, "its end", id, |run| run["state"] == "succeeded").await;

        // One API server of three is no control plane: the next member is proposed at once.
        let next = "etcd-member-1";
        proposed(&bed, next).await;
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["runbook", "status", next]).stdout)
        );
        assert!(bed.blackstart(&["runbook", "approve", next]).status.success());
        until_run(&bed, "its end", next, |run| run["state"] == "succeeded").await;
        let run = bed
            .until("the end of the cold start", &cold_start, |run| {
                run["state"] == "succeeded"
            })
            .await;
        println!("{run:#}");
        // Each key is a revision, from 2 on: what was told is lost, and no more.
        for number in 0..KEYS {
            let key = format!("fill/{number:06}");
            let found = has(bed.masters[1].client, &tls, &key).await;
            assert_eq!(found, number + 2 <= kept, "{key}, told {kept}");
        }
        bed.until("no proposal to be left", &["runbook", "status"], |runs| {
            let runs = runs["items"].as_array();
            runs.is_some_and(|runs| runs.iter().all(|run| run["proposal"] == false))
        })
        .await;
        bed.grow(2, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_that_form_a_quorum_late_have_the_proposal_withdrawn_and_nothing_is_lost() {
    let Some(program) = programs("members that come late").pop() else {
        return;
    };
    let mut bed = Bed::new(&program).await;
    let tls = bed.client_files();
    bed.start_api_servers();
    let writer = Writer::start(&[bed.masters[0].client], &tls);
    fill(bed.masters[1].client, &tls, 50, 1024).await;
    bed.lose_power(CONFIG).await;
    let acknowledged = writer.stop().await;
    for at in 0..3 {
        bed.start_agent(at);
    }
    // The kubelets of the others are up, and slow to start etcd.
    bed.start_kubelet(0);
    start(&bed).await;
    proposed(&bed, "etcd-all-1").await;
    for at in [1, 2] {
        bed.start_kubelet(at);
    }
    let run = until_run(&bed, "its withdrawal", "etcd-all-1", |run| {
        run["state"] == "aborted"
    })
    .await;
    assert_eq!(run["proposal"], false, "{run:#}");
    bed.until(
        "the end of the cold start",
        &["get", "run", "cold-start-1"],
        |run| run["state"] == "succeeded",
    )
    .await;
    for key in &acknowledged {
        assert!(has(bed.masters[2].client, &tls, key).await, "{key}");
    }
    for master in &bed.masters {
        assert_eq!(set_aside(&master.data()), [""; 0], "nobody's data was touched");
    }
}
