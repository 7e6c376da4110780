//! Snapshots by the agents' own doing: each master's of its own member, in their time, kept by count and verified, with or without a coordinator;
//! none of a cluster without a leader, and what keeps one from being taken is told.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blackstart_tests::wait;
use serde_json::Value;

use crate::bed::{Bed, KEEP, MASTERS, Master, programs};
use crate::store::fill;

/// Much shorter than any configuration may have it.
const EVERY: Duration = Duration::from_secs(2);
/// Nothing here takes longer on the slowest machine.
const DEADLINE: Duration = Duration::from_mins(2);

fn ms(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap()
}

/// The finished snapshots of a master: when each was taken, ms since 1970.
fn there(master: &Master) -> BTreeSet<u64> {
    let entries = fs::read_dir(master.dir.join("snapshots"));
    let entries = entries.into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(".json")?.rsplit('-').next()?.parse().unwrap()))
        .collect()
}

/// Every snapshot that was seen of each master, also those that have gone since.
struct Seen([BTreeSet<u64>; MASTERS.len()]);

impl Seen {
    fn look(&mut self, bed: &Bed) {
        for (master, seen) in bed.masters.iter().zip(&mut self.0) {
            let there = there(master);
            // A new one is whole before an old one goes.
            let most = usize::try_from(KEEP).unwrap() + 1;
            assert!(there.len() <= most, "{}: {there:?}", master.name);
            seen.extend(there);
        }
    }

    /// Each master takes so many more.
    async fn more(&mut self, bed: &Bed, what: &str, more: usize) {
        self.look(bed);
        let before = self.0.each_ref().map(BTreeSet::len);
        wait::until(what, DEADLINE, async || {
            self.look(bed);
            let mut all = self.0.iter().zip(before);
            Ok(all
                .all(|(seen, before)| seen.len() >= before + more)
                .then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", self.0));
    }

    /// Nobody has taken one for longer than any waits.
    async fn no_more(&mut self, bed: &Bed) {
        wait::until("no snapshot any more", DEADLINE, async || {
            self.look(bed);
            let now = ms(SystemTime::now().duration_since(UNIX_EPOCH)?);
            let mut newest = self.0.iter().map(|seen| seen.last().copied().unwrap());
            Ok(newest.all(|taken| taken + ms(EVERY * 2) < now).then_some(()))
        })
        .await
        .unwrap();
    }
}

fn findings(etcd: &Value) -> String {
    etcd["findings"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_master_takes_snapshots_of_its_own_member_in_their_time() {
    for program in programs("snapshots by themselves") {
        let mut bed = Bed::new(&program).await;
        fill(bed.masters[0].client, &bed.client_files(), 100, 4096).await;
        for master in &bed.masters {
            assert!(there(master).is_empty(), "{}: nobody has asked", master.name);
        }
        bed.every = Some(EVERY);
        for at in 0..bed.masters.len() {
            bed.kill_agent(at).await;
            bed.start_agent(at);
        }
        let mut seen = Seen(Default::default());
        let more = usize::try_from(KEEP).unwrap() + 1;
        seen.more(&bed, "more than are kept, on each master", more).await;

        bed.kill_coordinator();
        seen.more(&bed, "more without a coordinator", 2).await;
        for (seen, name) in seen.0.iter().zip(MASTERS) {
            let taken: Vec<_> = seen.iter().copied().collect();
            let too_soon = taken.windows(2).find(|two| two[1] - two[0] < ms(EVERY));
            assert_eq!(too_soon, None, "{name}: {taken:?}");
        }
        bed.start_coordinator();
        bed.until_etcd("its word again", |etcd| etcd["voters_healthy"] == 3)
            .await;

        cannot_be_taken(&bed, &mut seen).await;

        // What is left has no leader: what it has, others may have.
        for at in [1, 2] {
            bed.stop_kubelet(at);
        }
        bed.until_etcd("the loss of the quorum", |etcd| etcd["has_quorum"] == false)
            .await;
        seen.no_more(&bed).await;
        are_whole(&bed, &seen).await;
        for at in [1, 2] {
            bed.start_kubelet(at);
        }
        seen.more(&bed, "more with a quorum again", 1).await;
    }
}

/// Something is in the way on one master: it is told, the others go on, and so does that one once it is away.
async fn cannot_be_taken(bed: &Bed, seen: &mut Seen) {
    let stuck = bed.masters[0].dir.join("snapshots/stuck.partial");
    fs::create_dir(&stuck).unwrap();
    let due = "the snapshot that is due was not taken: prepare ";
    let told = bed
        .until_etcd("what is in the way", |etcd| findings(etcd).contains(due))
        .await;
    let all = told["findings"].as_array().unwrap().iter();
    let of = all.filter(|finding| finding["text"].as_str().unwrap().contains(due));
    let nodes: Vec<_> = of.map(|finding| finding["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, [MASTERS[0]], "{told:#}");
    fs::remove_dir(&stuck).unwrap();
    seen.more(bed, "more with nothing in the way", 1).await;
    bed.until_etcd("nothing to tell", |etcd| !findings(etcd).contains(due))
        .await;
}

/// At rest, the newest are kept and no others, and each is what etcd has sent.
async fn are_whole(bed: &Bed, seen: &Seen) {
    let keep = usize::try_from(KEEP).unwrap();
    let list = bed
        .until("the list", &["etcd", "snapshot", "list", "biz"], |_| true)
        .await;
    let list = list["items"].as_array().unwrap();
    for (master, seen) in bed.masters.iter().zip(&seen.0) {
        let newest: BTreeSet<_> = seen.iter().rev().take(keep).copied().collect();
        assert_eq!(there(master), newest, "{}", master.name);
        let of_it: Vec<_> = list.iter().filter(|one| one["node"] == master.name).collect();
        assert_eq!(of_it.len(), keep, "{list:#?}");
        for one in of_it {
            assert!(one["revision"].as_i64().unwrap() > 100, "{one:#}");
        }
    }
    let verified = bed.blackstart(&["etcd", "snapshot", "verify", "biz"]);
    println!("{}", String::from_utf8_lossy(&verified.stdout));
    assert!(verified.status.success(), "{verified:?}");
}
