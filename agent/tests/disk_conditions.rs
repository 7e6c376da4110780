//! Real file systems that are read-only, or have no inodes left, as watchers and diagnosis see them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::condition::{Condition, ConditionKind, Severity};
use blackstart_agent::config::{DiskSettings, Settings};
use blackstart_agent::diagnose::Diagnosis;
use blackstart_agent::host::real::RealHost;
use blackstart_agent::signal::Signal;
use blackstart_agent::watch::beat::Beat;
use blackstart_agent::watch::{disk, holders, mounts};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use support::Mounted;
use support::records::{MIB, have};

/// What is awaited comes within this.
const DEADLINE: Duration = Duration::from_mins(1);

/// The watchers of one disk, and what diagnosis makes of it.
struct Watched {
    root: PathBuf,
    signals: mpsc::Receiver<Signal>,
    diagnosis: Diagnosis,
    _stop: DropGuard,
}

impl Watched {
    fn new(root: &Path, fstab: &Path) -> Self {
        let mut settings = Settings::for_node("n");
        settings.disks = vec![DiskSettings::at(root)];
        let stop = CancellationToken::new();
        let (send, signals) = mpsc::channel(64);
        let beat = Beat::begin();
        let host = RealHost::new(settings.kubelet.target.clone(), None, None);
        let (picture, pictures) = tokio::sync::watch::channel(disk::Picture::new());
        tokio::spawn(holders::watch(
            settings.disks.clone(),
            pictures,
            send.clone(),
            stop.clone(),
        ));
        tokio::spawn(disk::watch(
            Arc::new(host),
            settings.disks.clone(),
            picture,
            send.clone(),
            beat,
            stop.clone(),
        ));
        let sources = mounts::Sources {
            fstab: fstab.to_owned(),
            ..mounts::Sources::default()
        };
        tokio::spawn(mounts::watch(
            sources,
            vec![root.to_owned()],
            send,
            beat,
            stop.clone(),
        ));
        Self {
            root: root.to_owned(),
            signals,
            diagnosis: Diagnosis::new(&settings),
            _stop: stop.drop_guard(),
        }
    }

    fn standing(&self, kind: ConditionKind) -> Option<Condition> {
        let subject = self.root.display().to_string();
        self.diagnosis
            .conditions(Instant::now())
            .into_iter()
            .find(|condition| condition.key.kind == kind && condition.key.subject == subject)
    }

    /// Takes in a signal.
    async fn hear(&mut self) -> Signal {
        let signal = timeout(DEADLINE, self.signals.recv()).await.unwrap().unwrap();
        self.diagnosis.observe(&signal, Instant::now());
        signal
    }

    /// Until the mounts were looked at once more.
    async fn look_at_mounts(&mut self) {
        while !matches!(self.hear().await, Signal::Mounts(_)) {}
    }

    async fn until(&mut self, kind: ConditionKind, stands: bool) -> Option<Condition> {
        let until = Instant::now() + DEADLINE;
        while self.standing(kind).is_some() != stands {
            assert!(Instant::now() < until, "{kind}: {stands}");
            self.hear().await;
        }
        self.standing(kind)
    }
}

#[tokio::test]
async fn a_disk_that_somebody_mounts_read_only_is_told_until_it_can_be_written_again() {
    let Some(disk) = have(Mounted::ext4(16 * MIB)) else {
        return;
    };
    let mut watched = Watched::new(disk.root(), Path::new("/dev/null"));
    watched.look_at_mounts().await;
    assert_eq!(watched.standing(ConditionKind::FilesystemReadOnly), None);
    disk.make_read_only().unwrap();
    let told = watched
        .until(ConditionKind::FilesystemReadOnly, true)
        .await
        .unwrap();
    assert!(
        told.evidence.contains("was read-write before"),
        "{}",
        told.evidence
    );
    assert_eq!(told.severity, Severity::Critical);
    disk.make_writable().unwrap();
    watched.until(ConditionKind::FilesystemReadOnly, false).await;

    // An agent that begins then knows by fstab alone that it is wrong.
    disk.make_read_only().unwrap();
    let mut watched = Watched::new(disk.root(), Path::new("/dev/null"));
    watched.look_at_mounts().await;
    assert_eq!(watched.standing(ConditionKind::FilesystemReadOnly), None);
    let fstab = tempfile::NamedTempFile::new().unwrap();
    let line = format!("UUID=1 {} ext4 defaults 0 2\n", disk.root().display());
    fs::write(fstab.path(), line).unwrap();
    let mut watched = Watched::new(disk.root(), fstab.path());
    let told = watched
        .until(ConditionKind::FilesystemReadOnly, true)
        .await
        .unwrap();
    assert!(
        told.evidence.contains("read-write in /etc/fstab"),
        "{}",
        told.evidence
    );
}

#[tokio::test]
async fn a_disk_that_the_kernel_gives_up_after_an_error_is_told() {
    let Some(disk) = have(Mounted::ext4_with(16 * MIB, &[], "loop,errors=remount-ro")) else {
        return;
    };
    let mut watched = Watched::new(disk.root(), Path::new("/dev/null"));
    watched.look_at_mounts().await;
    assert_eq!(watched.standing(ConditionKind::FilesystemReadOnly), None);
    disk.break_ext4().unwrap();
    let refused = File::create(disk.root().join("file")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    let told = watched
        .until(ConditionKind::FilesystemReadOnly, true)
        .await
        .unwrap();
    assert!(
        told.evidence.contains("the kernel gave the file system up"),
        "{}",
        told.evidence
    );
}

#[tokio::test]
async fn a_disk_without_inodes_is_told_with_all_its_space_left() {
    let Some(disk) = have(Mounted::ext4_with(64 * MIB, &["-N", "1024"], "loop")) else {
        return;
    };
    let mut watched = Watched::new(disk.root(), Path::new("/dev/null"));
    let crowd = disk.root().join("sessions");
    fs::create_dir(&crowd).unwrap();
    let mut made = 0;
    let full = loop {
        match File::create(crowd.join(format!("file-{made}"))) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(
        full.kind() == ErrorKind::StorageFull && made > 900,
        "{full}, {made}"
    );
    let told = watched.until(ConditionKind::InodePressure, true).await.unwrap();
    assert_eq!(told.severity, Severity::Critical);
    assert!(
        told.evidence.starts_with("100% of its 1024 inodes"),
        "{}",
        told.evidence
    );
    assert_eq!(watched.standing(ConditionKind::DiskPressure), None);
    while !matches!(watched.hear().await, Signal::Holders(_)) {}
    let told = watched.standing(ConditionKind::InodePressure).unwrap();
    let where_they_are = format!("{made} files in {}", crowd.display());
    assert!(told.evidence.contains(&where_they_are), "{}", told.evidence);
    for file in 0..made / 2 {
        fs::remove_file(crowd.join(format!("file-{file}"))).unwrap();
    }
    watched.until(ConditionKind::InodePressure, false).await;
}

#[tokio::test]
async fn a_disk_that_fills_is_told_until_there_is_room_again() {
    let Some(disk) = have(Mounted::ext4(64 * MIB)) else {
        return;
    };
    let mut watched = Watched::new(disk.root(), Path::new("/dev/null"));
    let filler = disk.root().join("filler");
    let mut file = File::create(&filler).unwrap();
    let piece = vec![1; 1 << 20];
    while let Ok(()) = file.write_all(&piece) {}
    let told = watched.until(ConditionKind::DiskPressure, true).await.unwrap();
    assert_eq!(told.severity, Severity::Critical);
    drop(file);
    fs::remove_file(&filler).unwrap();
    watched.until(ConditionKind::DiskPressure, false).await;
}
