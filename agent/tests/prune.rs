//! Real images and containers on a real disk that is short.

mod support;

use std::path::Path;
use std::time::Duration;

use blackstart_agent::config::Settings;
use blackstart_agent::host::Host;
use blackstart_agent::host::real::RealHost;
use blackstart_agent::ledger::Outcome;
use blackstart_agent::remedy::prune::{PruneRules, prune, remove};
use support::Mounted;
use support::docker::{Dockerd, skipped};

const MIB: usize = 1 << 20;

fn used_percent(host: &RealHost, disk: &Path) -> u64 {
    let seen = host.disk_usage(disk).expect("a mounted disk");
    (seen.bytes_total - seen.bytes_available) * 100 / seen.bytes_total
}

fn names(pruned: &blackstart_agent::remedy::prune::Pruned) -> Vec<&str> {
    pruned
        .removed
        .iter()
        .map(|removed| removed.name.as_str())
        .collect()
}

#[tokio::test]
async fn only_as_much_goes_as_the_disk_needs_and_what_is_protected_or_used_stays() {
    let disk = match Mounted::ext4(400 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(&why),
    };
    let dockerd = match Dockerd::start(disk.root()).await {
        Ok(dockerd) => dockerd,
        Err(why) => return skipped(&why),
    };
    for name in ["shop:1", "kept:1", "pause:3.9", "shop:2"] {
        dockerd.image(Some(name), 20 * MIB);
    }
    dockerd.docker(&["tag", "shop:2", "10.0.0.1:5000/shop:latest"]);
    let dangling = dockerd.image(None, 20 * MIB);
    let run = |name: &str, options: &[&str]| {
        let fixed = ["run", "--network", "none", "--name", name];
        dockerd.docker(&[&fixed, options, &["kept:1", "true"]].concat());
    };
    run("stopped", &[]);
    run("comes-again", &["--restart", "on-failure:1"]);

    let settings = Settings::for_node("n");
    let host = RealHost::new(settings.kubelet.target.clone(), None, None);
    let rules = |clear_percent: u64, stopped_for: Duration, unused_for: Duration| {
        let mut settings = settings.clone();
        settings.runtime.docker.socket = dockerd.socket();
        settings.disks[0].mount_point = disk.root().to_owned();
        settings.disks[0].clear_percent = clear_percent;
        settings.prune.stopped_for = stopped_for;
        settings.prune.unused_for = unused_for;
        PruneRules::new(&settings).unwrap()
    };
    let (hour, none) = (Duration::from_hours(1), Duration::ZERO);
    let before = dockerd.images();

    // Enough is free: nothing goes.
    let pruned = remove(&host, disk.root(), &rules(99, none, none), false)
        .await
        .unwrap();
    assert!(pruned.enough && pruned.removed.is_empty(), "{pruned}");

    // What was pulled a moment ago, and what was stopped a moment ago, stays. An image without a name was never pulled.
    let pruned = remove(&host, disk.root(), &rules(0, hour, hour), true)
        .await
        .unwrap();
    assert_eq!(names(&pruned), [dangling.as_str()], "{pruned}");
    assert!(
        pruned.kept.iter().any(|kept| kept.contains("it was pulled")),
        "{pruned}"
    );

    // An image is 6 % of the disk: the dangling one is not enough, with the older unused one it is.
    let clear = used_percent(&host, disk.root()) - 7;
    let planned = remove(&host, disk.root(), &rules(clear, hour, none), true)
        .await
        .unwrap();
    assert_eq!(names(&planned), [dangling.as_str(), "shop:1"], "{planned}");
    assert_eq!(dockerd.images(), before, "a dry run changes nothing");
    let pruned = remove(&host, disk.root(), &rules(clear, hour, none), false)
        .await
        .unwrap();
    assert_eq!(names(&pruned), names(&planned), "{pruned}");
    assert!(pruned.enough && pruned.freed() >= 40 << 20, "{pruned}");
    assert!(used_percent(&host, disk.root()) < clear);

    // All that may go: the container before the images, and an image with all its names.
    let outcome = prune(&host, disk.root(), &rules(0, none, none), false).await;
    assert!(
        matches!(&outcome, Outcome::Succeeded { detail } if detail.contains("stopped container stopped")),
        "{outcome:?}"
    );
    assert_eq!(dockerd.images(), ["kept:1", "pause:3.9"]);
    let containers = dockerd.docker(&["ps", "-a", "--format", "{{.Names}}"]);
    assert_eq!(containers, "comes-again");

    // Again: nothing is left, which is said.
    let outcome = prune(&host, disk.root(), &rules(0, none, none), false).await;
    assert!(
        matches!(&outcome, Outcome::Failed { detail } if detail.contains("nothing is left that may go")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn another_disk_than_dockers_is_not_helped() {
    let (dir, other) = match (tempfile::tempdir(), Mounted::in_memory("tmpfs")) {
        (Ok(dir), Ok(other)) => (dir, other),
        (_, other) => return skipped(&other.err().unwrap_or_default()),
    };
    let dockerd = match Dockerd::start(dir.path()).await {
        Ok(dockerd) => dockerd,
        Err(why) => return skipped(&why),
    };
    let mut settings = Settings::for_node("n");
    settings.runtime.docker.socket = dockerd.socket();
    settings.disks[0].mount_point = other.root().to_owned();
    let host = RealHost::new(settings.kubelet.target.clone(), None, None);
    let rules = PruneRules::new(&settings).unwrap();
    let outcome = prune(&host, other.root(), &rules, false).await;
    assert!(
        matches!(&outcome, Outcome::Failed { detail } if detail.contains("are not on the disk")),
        "{outcome:?}"
    );
}
