//! One record of `/dev/kmsg` → priority, facility, text. Pure.
//!
//! The form is that of the kernel's Documentation/ABI/testing/dev-kmsg: `PREFIX;TEXT\n`, where the prefix is
//! `priority,sequence,microseconds,flags[,…]` and lines that begin with a space are properties.

/// The facility of the kernel itself. What a process writes to `/dev/kmsg` is marked with another one by the kernel, so a
/// forged message is told from a real one.
const KERNEL: u32 = 0;
/// The level occupies the lowest three bits.
const LEVEL: u32 = 7;

/// What the kernel said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// 0 (emergency) to 7 (debug).
    pub(crate) level: u32,
    /// Rising by one; a gap is what was lost.
    pub(crate) sequence: u64,
    /// Microseconds since the kernel's start.
    pub(crate) micros: u64,
    /// The message, without its properties.
    pub(crate) text: &'a str,
}

/// `None` for what is not a record, and for what did not come from the kernel.
pub(crate) fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let split = bytes.iter().position(|byte| *byte == b';')?;
    let prefix = std::str::from_utf8(bytes.get(..split)?).ok()?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let micros = fields.next()?.parse().ok()?;
    if priority >> 3 != KERNEL {
        return None;
    }
    let rest = bytes.get(split + 1..)?;
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    // The kernel escapes what cannot be printed, so other bytes are no message that is looked for.
    let text = std::str::from_utf8(rest.get(..end)?).ok()?;
    Some(Record {
        level: priority & LEVEL,
        sequence,
        micros,
        text,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_the_text_without_its_properties() {
        let record =
            parse(b"4,511,1316096,-;EXT4-fs (vda): warning\n SUBSYSTEM=block\n DEVICE=b254:0\n").unwrap();
        assert_eq!(
            record,
            Record {
                level: 4,
                sequence: 511,
                micros: 1_316_096,
                text: "EXT4-fs (vda): warning"
            }
        );
        assert_eq!(parse(b"6,1,2,-,caller=T1;a;b").unwrap().text, "a;b");
    }

    #[test]
    fn what_a_process_wrote_is_not_the_kernels_word() {
        // Facility 1, as the kernel marks what is written to /dev/kmsg.
        assert_eq!(
            parse(b"12,512,1,-;Out of memory: Killed process 1 (kubelet)"),
            None
        );
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(record) = parse(&bytes) {
                prop_assert!(record.level <= 7);
            }
        }

        #[test]
        fn every_kernel_record_is_read(level in 0_u32..8, sequence: u64, micros: u64, text in "[ -~]{0,80}") {
            let line = format!("{level},{sequence},{micros},-;{text}\n KEY=value\n");
            let record = parse(line.as_bytes()).unwrap();
            prop_assert_eq!((record.level, record.sequence, record.text), (level, sequence, text.as_str()));
        }
    }
}
