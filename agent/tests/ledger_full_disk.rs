//! The ledger on a disk that is full: when logs must be reclaimed, it must still be writable.

mod support;

use std::fs;
use std::io::Write;

use blackstart_agent::ledger::{Intent, Ledger, LedgerError, Outcome, Recovery};
use support::Mounted;

fn intent() -> Intent {
    Intent {
        remedy: "reclaim-log".into(),
        subject: "/var/log/app.log".into(),
        reason: "97 % used, full within 20 s".into(),
        command_id: None,
        dry_run: false,
    }
}

#[test]
fn a_full_disk_takes_the_reserved_records_then_refuses_whole_ones() {
    let disk = match Mounted::ext4(16 << 20) {
        Ok(disk) => disk,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "cannot mount ext4: {why}");
            println!("SKIPPED: cannot mount ext4: {why}");
            return;
        }
    };
    let path = disk.root().join("ledger");
    let (mut ledger, _) = Ledger::open(&path, "boot").unwrap();
    let before = ledger.intent(intent()).unwrap();

    let filler = disk.root().join("app.log");
    let mut log = fs::File::create(&filler).unwrap();
    for size in [1 << 16, 1 << 10, 1] {
        let block = vec![b'x'; size];
        while log.write_all(&block).and_then(|()| log.sync_data()).is_ok() {}
    }

    let done = Outcome::Succeeded {
        detail: "freed 12.0 MiB".into(),
    };
    ledger.outcome(before, done.clone()).unwrap();
    let mut written = 1;
    let error = loop {
        match ledger.intent(intent()) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100_000, "the disk is not full");
    };
    assert!(matches!(error, LedgerError::Io { .. }), "{error}");
    assert!(written > 500, "only {written} records fitted into the reserve");
    assert_eq!(ledger.records().count(), written, "a refused record counts");

    drop(log);
    fs::remove_file(&filler).unwrap();
    ledger.intent(intent()).unwrap();
    written += 1;
    drop(ledger);

    let (ledger, recovery) = Ledger::open(&path, "boot").unwrap();
    assert_eq!(recovery, Recovery::Whole);
    assert_eq!(ledger.records().count(), written);
    assert_eq!(ledger.record(before).unwrap().outcome, Some(done));
}
