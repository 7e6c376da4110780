//! What `blackstart etcd status` says of members that are well, stopped, without a leader, and behind an expired certificate.

use serde_json::Value;

use crate::bed::{Bed, MASTERS, programs};

fn of<'a>(etcd: &'a Value, node: &str) -> &'a Value {
    let members = etcd["members"].as_array().unwrap();
    members.iter().find(|member| member["node"] == node).unwrap()
}

fn findings(etcd: &Value) -> String {
    etcd["findings"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_member_is_told_of_as_it_is_and_trouble_has_a_name() {
    for program in programs("what is told of etcd") {
        let mut bed = Bed::new(&program).await;
        let etcd = bed
            .until_etcd("a leader", |etcd| {
                etcd["has_quorum"] == true && etcd["members"].as_array().is_some_and(|all| all.len() == 3)
            })
            .await;
        assert_eq!(
            (&etcd["voters"], &etcd["quorum"]),
            (&3.into(), &2.into()),
            "{etcd:#}"
        );
        for node in MASTERS {
            let member = of(&etcd, node);
            assert_eq!(
                (&member["name"], &member["healthy"]),
                (&node.into(), &true.into())
            );
            assert!(
                member["version"].as_str().unwrap().starts_with("3."),
                "{member:#}"
            );
            assert_eq!(member["certificates"].as_array().unwrap().len(), 2, "{member:#}");
        }
        assert_eq!(
            etcd["members"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|member| member["leads"] == true)
                .count(),
            1
        );
        let table = String::from_utf8(bed.blackstart(&["etcd", "status", "biz"]).stdout).unwrap();
        println!("{table}");
        assert!(table.contains("3 of 3 voters are well"), "{table}");
        assert!(
            findings(&etcd).contains("blackstart etcd snapshot take"),
            "nothing was ever kept: {etcd:#}"
        );

        // One is stopped: the others go on, and its agent says why it does not answer.
        bed.stop_kubelet(2);
        let etcd = bed
            .until_etcd("the loss of one", |etcd| {
                of(etcd, "biz-3")["trouble"] == "refused"
            })
            .await;
        assert_eq!(etcd["has_quorum"], true, "{etcd:#}");
        assert!(
            findings(&etcd).contains("nobody listens on https://127."),
            "{etcd:#}"
        );

        // Another one: what is left has no leader, and is still told of.
        bed.stop_kubelet(1);
        let etcd = bed
            .until_etcd("the loss of the quorum", |etcd| {
                etcd["has_quorum"] == false && etcd["leader"].is_null()
            })
            .await;
        let left = of(&etcd, "biz-1");
        assert!(
            left["why_not"].as_str().unwrap().contains("no leader"),
            "{left:#}"
        );
        assert!(left["revision"].as_i64().unwrap() > 0, "{left:#}");
        let table = String::from_utf8(bed.blackstart(&["etcd", "status", "biz"]).stdout).unwrap();
        println!("{table}");
        assert!(table.contains("NO QUORUM"), "{table}");

        // They come back with a certificate that expired.
        bed.certificate("biz-2", 2024);
        bed.start_kubelet(1);
        bed.start_kubelet(2);
        let etcd = bed
            .until_etcd("the expired certificate", |etcd| {
                of(etcd, "biz-2")["trouble"] == "expired"
            })
            .await;
        let why = of(&etcd, "biz-2")["why_not"].as_str().unwrap();
        assert!(
            why.contains("biz-2.crt has expired, at 2024-01-01T00:00:00Z"),
            "which file, and since when: {why}"
        );

        // An agent that is away is told apart from a member that is.
        bed.kill_agent(0).await;
        let etcd = bed
            .until_etcd("the loss of an agent", |etcd| {
                of(etcd, "biz-1")["why_not"]
                    .as_str()
                    .is_some_and(|why| why.contains("agent"))
            })
            .await;
        assert!(of(&etcd, "biz-1")["trouble"].is_null(), "{etcd:#}");
        let unknown = bed.blackstart(&["etcd", "status", "nowhere"]);
        assert_eq!(unknown.status.code(), Some(5), "{unknown:?}");
    }
}
