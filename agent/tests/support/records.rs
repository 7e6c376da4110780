//! A log of numbered records, and the check that its tail is whole and in order.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::Mounted;

/// Bytes.
pub(crate) const MIB: u64 = 1 << 20;
/// The tail that is kept.
pub(crate) const KEEP: u64 = 16 * MIB;
/// A decimal sequence number, padded, and a newline: divides every block size, so cuts fall between records.
pub(crate) const RECORD: usize = 256;
const DIGITS: usize = 12;

/// The file system, or `None` after saying that the test is skipped.
pub(crate) fn have(mounted: Result<Mounted, String>) -> Option<Mounted> {
    match mounted {
        Ok(mounted) => Some(mounted),
        Err(why) => {
            assert!(
                !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                "no file system to test on: {why}"
            );
            println!("SKIPPED: no file system to test on: {why}");
            None
        }
    }
}

/// So many bytes of records, from this number on.
pub(crate) fn records(from: u64, bytes: u64) -> Vec<u8> {
    let count = bytes / RECORD as u64;
    let mut all = vec![b' '; usize::try_from(bytes).unwrap()];
    for (record, sequence) in all.chunks_exact_mut(RECORD).zip(from..from + count) {
        record[RECORD - 1] = b'\n';
        write!(&mut record[RECORD - DIGITS - 1..], "{sequence:>DIGITS$}").unwrap();
    }
    all
}

/// Every record of `bytes` whole and in order; the number of the last.
pub(crate) fn check(bytes: &[u8]) -> u64 {
    let number = |record: &[u8]| {
        let text = std::str::from_utf8(&record[RECORD - DIGITS - 1..RECORD - 1]).unwrap();
        assert_eq!((record[0], record[RECORD - 1]), (b' ', b'\n'), "a torn record");
        text.trim_ascii_start().parse::<u64>().unwrap()
    };
    let mut last = None;
    for record in bytes.chunks_exact(RECORD) {
        let sequence = number(record);
        assert!(
            last.is_none_or(|last| sequence == last + 1),
            "{sequence} after {last:?}"
        );
        last = Some(sequence);
    }
    last.expect("at least one record")
}

/// Reads the last 16 MiB of a log that may grow meanwhile, checks them, and returns the last record's number.
pub(crate) fn check_tail(reader: &File) -> u64 {
    let end = reader.metadata().unwrap().len() / RECORD as u64 * RECORD as u64;
    let mut tail = vec![0; usize::try_from(KEEP).unwrap()];
    reader.read_exact_at(&mut tail, end - KEEP).unwrap();
    check(&tail)
}
