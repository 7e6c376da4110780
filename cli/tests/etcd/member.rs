//! The runbook `etcd-member`: a member whose data a power loss left damaged is replaced on its node, while others write; and everybody who
//! has a part in it crashes on the way.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::bed::{Bed, programs};
use crate::store::{Writer, fill, has};

/// As a power loss leaves a file that was not synced: full of zeroes.
pub(crate) fn damage(data: &Path) {
    let database = data.join("member/snap/db");
    let size = fs::metadata(&database).unwrap().len();
    fs::write(&database, vec![0; usize::try_from(size).unwrap()]).unwrap();
}

async fn lose(bed: &mut Bed, at: usize) {
    bed.stop_kubelet(at);
    damage(&bed.masters[at].data());
    bed.start_kubelet(at);
    let name = bed.masters[at].name;
    bed.until_etcd("its loss", |etcd| {
        let members = etcd["members"].as_array();
        members.is_some_and(|members| {
            members
                .iter()
                .any(|member| member["node"] == name && member["healthy"] == false)
        }) && etcd["has_quorum"] == true
    })
    .await;
}

fn begin(bed: &Bed, node: &str) -> String {
    let begun = bed.blackstart(&["runbook", "run", "etcd-member", node, "--yes", "-o", "json"]);
    assert!(begun.status.success(), "{begun:?}");
    let run: Value = serde_json::from_slice(&begun.stdout).unwrap();
    run["id"].as_str().unwrap().to_owned()
}

async fn wants_approval(bed: &Bed, run: &str) -> Value {
    bed.until("the question", &["runbook", "status", run], |run| {
        assert_ne!(run["state"], "halted", "{run:#}");
        run["wants_approval"] == true
    })
    .await
}

async fn succeeds(bed: &Bed, run: &str) -> Value {
    bed.until("its end", &["runbook", "status", run], |run| {
        assert_ne!(run["state"], "halted", "{run:#}");
        run["state"] == "succeeded"
    })
    .await
}

pub(crate) fn set_aside(data: &Path) -> Vec<String> {
    let names = fs::read_dir(data).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("set-aside")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_member_is_replaced_on_its_node_and_nothing_acknowledged_is_lost() {
    for program in programs("an etcd member that is replaced") {
        let mut bed = Bed::new(&program).await;
        let tls = bed.client_files();
        let survivors = [bed.masters[0].client, bed.masters[1].client];
        fill(survivors[0], &tls, 200, 4096).await;
        let well = bed.blackstart(&["runbook", "plan", "etcd-member", "biz-3"]);
        assert!(
            String::from_utf8_lossy(&well.stdout).contains("it is well"),
            "nothing is done to a member that is well: {well:?}"
        );
        let writer = Writer::start(&survivors, &tls);
        lose(&mut bed, 2).await;
        let before = fs::read_to_string(bed.masters[2].manifest()).unwrap();

        let plan = bed.blackstart(&["runbook", "plan", "etcd-member", "biz-3"]);
        let plan = String::from_utf8(plan.stdout).unwrap();
        println!("{plan}");
        for part in [
            "snapshot-etcd:",
            "bounce-etcd",
            "2 voters are well, 2 of the 2 that are left after the removal make a quorum",
            "--initial-cluster-state=new becomes existing",
            "wants your approval",
        ] {
            assert!(plan.contains(part), "{part}");
        }
        let run = begin(&bed, "biz-3");
        let asked = wants_approval(&bed, &run).await;
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["runbook", "status", &run]).stdout)
        );
        assert!(
            asked["waiting_on"]
                .as_str()
                .unwrap()
                .contains("its data is set aside"),
            "{asked:#}"
        );
        let snapshots = bed
            .until("snapshots", &["etcd", "snapshot", "list", "biz"], |_| true)
            .await;
        assert_eq!(
            snapshots["items"].as_array().unwrap().len(),
            2,
            "before anything is changed: {snapshots:#}"
        );
        assert_eq!(
            fs::read_to_string(bed.masters[2].manifest()).unwrap(),
            before,
            "the bounce has put it back as it was"
        );
        assert!(set_aside(&bed.masters[2].data()).is_empty());

        let approved = bed.blackstart(&["runbook", "approve", &run]);
        assert!(approved.status.success(), "{approved:?}");
        let ended = succeeds(&bed, &run).await;
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["runbook", "status", &run]).stdout)
        );
        let etcd = bed
            .until_etcd("three that are well", |etcd| {
                etcd["voters_healthy"] == 3 && etcd["voters"] == 3
            })
            .await;
        assert!(
            etcd["members"]
                .as_array()
                .unwrap()
                .iter()
                .all(|member| member["is_learner"] == false),
            "{etcd:#}"
        );
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["etcd", "status", "biz"]).stdout)
        );

        // Nothing that was ever acknowledged is missing, asked of the new member.
        let acknowledged = writer.stop().await;
        assert!(acknowledged.len() > 100, "{} keys", acknowledged.len());
        for key in &acknowledged {
            assert!(has(bed.masters[2].client, &tls, key).await, "{key}");
        }
        println!("{} acknowledged keys are all there", acknowledged.len());
        // Nothing was deleted either.
        assert_eq!(
            set_aside(&bed.masters[2].data()),
            [format!("member.set-aside.{run}")],
            "{ended:#}"
        );
        let kept = bed.masters[2]
            .dir
            .join("blackstart-etcd")
            .join(&run)
            .join("etcd.yaml");
        assert_eq!(fs::read_to_string(kept).unwrap(), before);
        let after = fs::read_to_string(bed.masters[2].manifest()).unwrap();
        assert!(after.contains("--initial-cluster-state=existing"), "{after}");
        let changed = after.lines().filter(|line| !before.contains(line)).count();
        assert_eq!(changed, 1, "nothing else was changed:\n{after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_that_comes_back_in_place_is_kept() {
    for program in programs("an etcd member that comes back") {
        let mut bed = Bed::new(&program).await;
        bed.stop_kubelet(2);
        bed.until_etcd("its loss", |etcd| etcd["voters_healthy"] == 2)
            .await;
        let run = begin(&bed, "biz-3");
        bed.until("the bounce", &["runbook", "status", &run], |run| {
            run["current"] == "bounce-etcd"
        })
        .await;
        bed.start_kubelet(2);
        // Nobody is asked for an approval: each step finds that nothing is left to do.
        let ended = succeeds(&bed, &run).await;
        let text = ended.to_string();
        assert!(text.contains("is well again, and is kept"), "{ended:#}");
        assert!(set_aside(&bed.masters[2].data()).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn coordinator_and_agents_may_crash_at_every_step() {
    for program in programs("crashes while an etcd member is replaced") {
        let mut bed = Bed::new(&program).await;
        let tls = bed.client_files();
        let survivors = [bed.masters[0].client, bed.masters[1].client];
        fill(survivors[0], &tls, 100, 1024).await;
        let writer = Writer::start(&survivors, &tls);
        lose(&mut bed, 2).await;
        let run = begin(&bed, "biz-3");
        wants_approval(&bed, &run).await;
        let approved = bed.blackstart(&["runbook", "approve", &run]);
        assert!(approved.status.success(), "{approved:?}");
        let mut ended = false;
        for round in 0_u64..40 {
            if ended {
                break;
            }
            // Another moment each time.
            sleep(Duration::from_millis(150 + 130 * (round % 7))).await;
            bed.kill_coordinator();
            let at = usize::try_from(round % 3).unwrap();
            bed.kill_agent(at).await;
            bed.start_agent(at);
            bed.start_coordinator();
            let seen = bed
                .until("the run", &["runbook", "status", &run], |run| {
                    run["state"].is_string()
                })
                .await;
            assert!(
                ["running", "succeeded"].contains(&seen["state"].as_str().unwrap()),
                "{seen:#}"
            );
            ended = seen["state"] == "succeeded";
        }
        let ended = succeeds(&bed, &run).await;
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["runbook", "status", &run]).stdout)
        );
        bed.until_etcd("three that are well", |etcd| {
            etcd["voters_healthy"] == 3 && etcd["voters"] == 3
        })
        .await;
        let acknowledged = writer.stop().await;
        for key in &acknowledged {
            assert!(has(bed.masters[2].client, &tls, key).await, "{key}");
        }
        println!("{} acknowledged keys are all there", acknowledged.len());
        assert_eq!(
            set_aside(&bed.masters[2].data()),
            [format!("member.set-aside.{run}")],
            "{ended:#}"
        );
    }
}
