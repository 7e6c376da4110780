//! Masters with etcd on real nodes, and who works on them: shared by the tests of its runbooks.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "helpers of tests; each uses a part of them"
)]

use std::time::Duration;

use blackstart_proto::tls::TlsFiles;
use blackstart_tests::docker::say;
use blackstart_tests::masters::store::{self, Acknowledged, Member};
use blackstart_tests::masters::{DATA, Masters};
use blackstart_tests::node::Node;
use blackstart_tests::wait;
use serde_json::Value;
use tokio::time::Instant;

/// For what takes as long as it takes.
pub(crate) const LONG: Duration = Duration::from_mins(3);
/// Written before anything happens.
const MIB: usize = 8;

/// A bed, and who works on it.
pub(crate) struct Story {
    pub(crate) masters: Masters,
    pub(crate) members: Vec<Member>,
    /// Another operator than the one who begins.
    pub(crate) second: TlsFiles,
    began: Instant,
}

impl Story {
    /// Once three members are well, with some data.
    pub(crate) async fn begin(masters: Masters) -> Self {
        let began = Instant::now();
        let story = Self {
            members: masters.members(),
            second: masters.second_operator().unwrap(),
            masters,
            began,
        };
        story.well(3).await;
        store::fill(&story.members[0], MIB).await.unwrap();
        story
    }

    pub(crate) fn tell(&self, what: &str) {
        say(&format!("{:>5.1} s  {what}", self.began.elapsed().as_secs_f32()));
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        self.masters.nodes().nth(at).unwrap()
    }

    pub(crate) fn name(&self, at: usize) -> String {
        self.node(at).name().to_owned()
    }

    pub(crate) async fn ask(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.masters.bed().coordinator().unwrap().ask(args).await
    }

    /// What the command prints, once it is as wanted.
    pub(crate) async fn until(&self, what: &str, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = String::new();
        let awaited = wait::until(what, LONG, async || {
            let answer = self.ask(args).await;
            last = format!("{answer:#?}");
            Ok(answer.ok().filter(|json| wanted(json)))
        })
        .await;
        awaited.unwrap_or_else(|error| panic!("{error:#}: {last}"))
    }

    pub(crate) async fn status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until(what, &["etcd", "status", "bed"], wanted).await
    }

    /// So many members vote and are well.
    pub(crate) async fn well(&self, voters: u64) {
        self.status(&format!("{voters} members that are well"), |etcd| {
            etcd["has_quorum"] == true && etcd["voters"] == voters && etcd["voters_healthy"] == voters
        })
        .await;
    }

    /// The plan of a runbook, as text for assertions.
    pub(crate) async fn plan(&self, args: &[&str]) -> String {
        let args: Vec<_> = ["runbook", "plan"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.ask(&args).await.unwrap().to_string()
    }

    /// Begins a run, once what is known allows it.
    pub(crate) async fn run(&self, args: &[&str]) -> String {
        let args: Vec<_> = ["runbook", "run"]
            .into_iter()
            .chain(args.iter().copied())
            .chain(["--yes"])
            .collect();
        let run = self.until("a run", &args, |run| run["id"].is_string()).await;
        run["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn follow(&self, what: &str, run: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until(what, &["runbook", "status", run], |run| {
            assert_ne!(run["state"], "halted", "{run:#}");
            wanted(run)
        })
        .await
    }

    pub(crate) async fn question(&self, run: &str) -> String {
        let asked = self
            .follow("the question", run, |run| run["wants_approval"] == true)
            .await;
        asked["waiting_on"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn succeeds(&self, run: &str) -> Value {
        self.follow("its end", run, |run| run["state"] == "succeeded")
            .await
    }

    /// By the word of two persons.
    pub(crate) async fn approve_by_two(&self, run: &str) {
        let one = self.ask(&["runbook", "approve", run]).await.unwrap_err();
        assert!(format!("{one:#}").contains("wants two persons"), "{one:#}");
        let coordinator = self.masters.bed().coordinator().unwrap();
        coordinator
            .ask_as(&self.second, &["runbook", "approve", run])
            .await
            .unwrap();
    }

    /// A fenced member joins anew.
    pub(crate) async fn grow(&self, at: usize, voters: u64) {
        let name = self.name(at);
        let run = self.run(&["etcd-member", &name]).await;
        self.follow("the question", &run, |run| {
            run["wants_approval"] == true || run["state"] == "succeeded"
        })
        .await;
        let _already = self.ask(&["runbook", "approve", &run]).await;
        self.succeeds(&run).await;
        self.well(voters).await;
    }

    pub(crate) async fn all_are_there(&self, at: usize, keys: &[Acknowledged]) {
        let lost = store::missing(&self.members[at], keys).await.unwrap();
        assert_eq!(lost, [""; 0], "acknowledged, and not there");
        assert!(!keys.is_empty());
        self.tell(&format!("{} acknowledged keys are all there", keys.len()));
    }
}

/// What runs have set aside on a node.
pub(crate) async fn set_aside(node: &Node) -> usize {
    let names = node.exec(&["ls", DATA]).await.unwrap();
    names
        .lines()
        .filter(|name| name.starts_with("member.set-aside."))
        .count()
}

pub(crate) fn exists(node: &Node, path: &str) -> bool {
    node.path(path).unwrap().exists()
}
