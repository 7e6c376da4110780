//! Of which cluster a data directory is: the first lines of its write-ahead log say so, and nothing else on the disk does.
//!
//! A log file is a row of frames: eight bytes with the length of the record (in the lower 56 bits) and of its padding, then the record, a
//! protobuf of type, CRC and data. Each file begins with the CRC of the one before it and then has the metadata, a protobuf of the
//! member's id and the cluster's (etcd 3.5: server/wal/decoder.go, wal.go, `raft_internal.proto`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The metadata's record.
const METADATA: u64 = 1;
/// No record before the first entry is larger, bytes.
const LARGEST: usize = 4096;
/// The metadata is the second record of a file.
const LOOKED_AT: usize = 4;

/// The member's id and the cluster's, by the newest file of a log.
///
/// # Errors
/// There is no log, or its beginning is torn.
pub(super) fn ids(dir: &Path) -> io::Result<(u64, u64)> {
    let mut logs: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "wal"))
        .collect();
    logs.sort();
    let mut why = io::Error::from(io::ErrorKind::NotFound);
    for log in logs.iter().rev() {
        match File::open(log).and_then(read) {
            Ok(ids) => return Ok(ids),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn read(mut from: impl Read) -> io::Result<(u64, u64)> {
    let torn = || io::Error::from(io::ErrorKind::InvalidData);
    for _ in 0..LOOKED_AT {
        let mut head = [0; 8];
        from.read_exact(&mut head)?;
        let head = u64::from_le_bytes(head);
        let padding = if head >> 63 == 1 { (head >> 56) & 0x7 } else { 0 };
        let length = usize::try_from((head & !(0xff << 56)) + padding).map_err(|_| torn())?;
        if length == 0 || length > LARGEST {
            return Err(torn());
        }
        let mut record = vec![0; length];
        from.read_exact(&mut record)?;
        let (kind, data) = record_of(&record).ok_or_else(torn)?;
        if kind == METADATA {
            return metadata(data).ok_or_else(torn);
        }
    }
    Err(torn())
}

/// A record's type and its data.
fn record_of(mut bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (mut kind, mut data) = (0, &[][..]);
    // Padding is zeroes, and no field has the number 0.
    while bytes.first().is_some_and(|tag| *tag != 0) {
        match varint(&mut bytes)? {
            0x08 => kind = varint(&mut bytes)?,
            0x10 => drop(varint(&mut bytes)?),
            0x1a => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                data = bytes.get(..length)?;
                bytes = bytes.get(length..)?;
            }
            _ => return None,
        }
    }
    Some((kind, data))
}

fn metadata(mut bytes: &[u8]) -> Option<(u64, u64)> {
    let (mut member, mut cluster) = (None, None);
    while !bytes.is_empty() {
        match varint(&mut bytes)? {
            0x08 => member = Some(varint(&mut bytes)?),
            0x10 => cluster = Some(varint(&mut bytes)?),
            _ => return None,
        }
    }
    Some((member?, cluster?))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(value: u64, to: &mut Vec<u8>) {
        let mut value = value;
        while value >= 0x80 {
            to.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        to.push(u8::try_from(value).unwrap());
    }

    /// As etcd writes the head of a file.
    fn log(member: u64, cluster: u64) -> Vec<u8> {
        let mut ids = vec![0x08];
        put(member, &mut ids);
        ids.push(0x10);
        put(cluster, &mut ids);
        let mut metadata = vec![0x08, 1, 0x10, 7, 0x1a];
        put(ids.len() as u64, &mut metadata);
        metadata.extend(ids);
        let mut file = Vec::new();
        for record in [vec![0x08, 4, 0x10, 0], metadata] {
            let padding = (8 - record.len() % 8) % 8;
            let mut head = record.len() as u64;
            if padding > 0 {
                head |= (0x80 | padding as u64) << 56;
            }
            file.extend(head.to_le_bytes());
            file.extend(&record);
            file.extend(vec![0; padding]);
        }
        file.extend([0; 64]);
        file
    }

    #[test]
    fn the_newest_file_that_can_be_read_tells() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ids(dir.path()).is_err());
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        write("0000000000000000-0000000000000000.wal", &log(1, 0xabc));
        write("0000000000000001-0000000000000100.wal", &log(1, u64::MAX));
        write("0.tmp", b"");
        assert_eq!(ids(dir.path()).unwrap(), (1, u64::MAX));
        write("0000000000000002-0000000000000200.wal", &[0; 128]);
        assert_eq!(ids(dir.path()).unwrap(), (1, u64::MAX), "the newest is torn");
    }

    proptest! {
        #[test]
        fn ids_are_read_back_and_noise_is_refused(member: u64, cluster: u64, noise in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let mut file = log(member, cluster);
            prop_assert_eq!(read(&file[..]).unwrap(), (member, cluster));
            let _read_or_refused = read(&noise[..]);
            file.truncate(at.index(file.len()));
            let _read_or_refused = read(&file[..]);
        }
    }
}
