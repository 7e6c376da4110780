//! A kernel message → what it says of the node's health. Pure.
//!
//! The texts are the kernel's own format strings; each is named with its source file. Most messages match none and are
//! let go after one look for each needle.

use crate::signal::KernelEvent;

/// Longer names than this are cut: a device, a task or a cgroup is shorter.
const MAX_NAME: usize = 128;

/// What `text` says, if it is one of those that are looked for.
pub(crate) fn classify(text: &str) -> Option<KernelEvent> {
    out_of_memory(text)
        .or_else(|| filesystem(text))
        .or_else(|| hung(text))
        .or_else(|| hardware(text))
        .or_else(|| network(text))
}

/// `mm/oom_kill.c`: `%s: Killed process %d (%s) total-vm:…`, where %s is `Out of memory` or `Memory cgroup out of memory`.
fn out_of_memory(text: &str) -> Option<KernelEvent> {
    let (whole, rest) = match text.strip_prefix("Out of memory: Killed process ") {
        Some(rest) => (true, rest),
        None => (
            false,
            text.strip_prefix("Memory cgroup out of memory: Killed process ")?,
        ),
    };
    let (pid, rest) = rest.split_once(" (")?;
    // A task's name may hold a parenthesis.
    let (name, _) = rest.split_once(") total-vm:").or_else(|| rest.rsplit_once(')'))?;
    Some(KernelEvent::OomKill {
        pid: pid.parse().ok()?,
        task: short(name),
        whole_machine: whole,
    })
}

/// `fs/ext4/super.c`, `fs/xfs`, `block/blk-mq.c`.
fn filesystem(text: &str) -> Option<KernelEvent> {
    if let Some(rest) = text.strip_prefix("EXT4-fs (") {
        // `EXT4-fs (sda1): Remounting filesystem read-only`
        let (device, rest) = rest.split_once("): ")?;
        return rest
            .starts_with("Remounting filesystem read-only")
            .then(|| KernelEvent::ReadOnly {
                device: short(device),
            });
    }
    if let Some(rest) = text.strip_prefix("EXT4-fs error (device ") {
        // `EXT4-fs error (device sda1): ext4_lookup:1785: inode #2: comm ls: deleted inode referenced: 12`
        let (device, why) = rest.split_once("): ")?;
        return Some(KernelEvent::FilesystemError {
            device: short(device),
            why: short(why),
        });
    }
    if let Some(rest) = text.strip_prefix("XFS (") {
        // fs/xfs/xfs_fsops.c, xfs_message.c: `XFS (dm-0): Metadata corruption detected at …`, `…: Corruption of in-memory data …`
        let (device, why) = rest.split_once("): ")?;
        return [
            "Metadata corruption detected",
            "Corruption of in-memory data",
            "Filesystem has been shut down",
        ]
        .iter()
        .any(|needle| why.starts_with(needle))
        .then(|| KernelEvent::FilesystemError {
            device: short(device),
            why: short(why),
        });
    }
    // block/blk-mq.c: `I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2`; older kernels put
    // `blk_update_request: ` before it.
    let rest = text.strip_prefix("blk_update_request: ").unwrap_or(text);
    for prefix in [
        "I/O error, dev ",
        "critical medium error, dev ",
        "critical target error, dev ",
    ] {
        if let Some(rest) = rest.strip_prefix(prefix) {
            let device = rest.split([',', ' ']).next()?;
            return Some(KernelEvent::IoError {
                device: short(device),
            });
        }
    }
    None
}

/// `kernel/hung_task.c`: `INFO: task %s:%d blocked for more than %ld seconds.`; `kernel/watchdog.c`: `watchdog: BUG: soft lockup - CPU#…`.
fn hung(text: &str) -> Option<KernelEvent> {
    if let Some(rest) = text.strip_prefix("INFO: task ") {
        let (task, _) = rest.split_once(" blocked for more than ")?;
        let (name, pid) = task.rsplit_once(':')?;
        return Some(KernelEvent::HungTask {
            pid: pid.parse().ok()?,
            task: short(name),
        });
    }
    let rest = text.strip_prefix("watchdog: ").unwrap_or(text);
    rest.starts_with("BUG: soft lockup - CPU#")
        .then(|| KernelEvent::Lockup { why: short(rest) })
}

/// `arch/x86/kernel/cpu/mce`, `drivers/edac/edac_mc.c`.
fn hardware(text: &str) -> Option<KernelEvent> {
    let machine_check = text.contains("[Hardware Error]: ") || text.starts_with("mce: ");
    // `EDAC MC0: 1 UE memory read error on …`: uncorrected; a corrected one (CE) is what the memory is for.
    let uncorrected = text.starts_with("EDAC ") && text.contains(" UE ");
    let serious = machine_check && !text.contains("CPU supports") && !text.contains("disabled");
    (serious || uncorrected).then(|| KernelEvent::Hardware { why: short(text) })
}

/// `net/netfilter/nf_conntrack_core.c`: `nf_conntrack: nf_conntrack: table full, dropping packet`, of another network namespace than the machine's
/// `nf_conntrack: nf_conntrack: table full in netns 4026532301, dropping packet` in newer kernels; `net/sched/sch_generic.c`:
/// `NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out`, and in newer ones `e1000e 0000:00:1f.6 eth0: NETDEV WATCHDOG: CPU: 2: transmit …`.
fn network(text: &str) -> Option<KernelEvent> {
    if text.contains("nf_conntrack: table full") {
        return Some(KernelEvent::ConntrackFull);
    }
    let (before, rest) = text.split_once("NETDEV WATCHDOG: ")?;
    let device = if rest.starts_with("CPU: ") {
        before.trim_end().strip_suffix(':')?.split(' ').next_back()?
    } else {
        rest.split([' ', ':']).next()?
    };
    Some(KernelEvent::NicReset {
        device: short(device),
    })
}

/// At most [`MAX_NAME`] bytes, without what could break a line or a terminal.
fn short(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(MAX_NAME)];
    cut.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_the_kernels_words() {
        let device = |name: &str| name.to_owned();
        for (text, event) in [
            (
                "Out of memory: Killed process 812 (java) total-vm:8000kB, anon-rss:1kB, file-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0",
                KernelEvent::OomKill {
                    pid: 812,
                    task: "java".into(),
                    whole_machine: true,
                },
            ),
            (
                "Memory cgroup out of memory: Killed process 9 (a) b) total-vm:1kB",
                KernelEvent::OomKill {
                    pid: 9,
                    task: "a) b".into(),
                    whole_machine: false,
                },
            ),
            (
                "EXT4-fs (sda1): Remounting filesystem read-only",
                KernelEvent::ReadOnly {
                    device: device("sda1"),
                },
            ),
            (
                "EXT4-fs error (device dm-3): ext4_find_entry:1455: inode #2: comm x: reading directory lblock 0",
                KernelEvent::FilesystemError {
                    device: device("dm-3"),
                    why: "ext4_find_entry:1455: inode #2: comm x: reading directory lblock 0".into(),
                },
            ),
            (
                "XFS (sdb): Metadata corruption detected at xfs_buf_ioend+0x51c/0x720",
                KernelEvent::FilesystemError {
                    device: device("sdb"),
                    why: "Metadata corruption detected at xfs_buf_ioend+0x51c/0x720".into(),
                },
            ),
            (
                "blk_update_request: I/O error, dev sdc, sector 0",
                KernelEvent::IoError {
                    device: device("sdc"),
                },
            ),
            (
                "I/O error, dev loop3, sector 1 op 0x1:(WRITE)",
                KernelEvent::IoError {
                    device: device("loop3"),
                },
            ),
            (
                "INFO: task kworker/u8:2:77 blocked for more than 120 seconds.",
                KernelEvent::HungTask {
                    pid: 77,
                    task: "kworker/u8:2".into(),
                },
            ),
            (
                "nf_conntrack: nf_conntrack: table full in netns 4026532301, dropping packet",
                KernelEvent::ConntrackFull,
            ),
            (
                "e1000e 0000:00:1f.6 eth0: NETDEV WATCHDOG: CPU: 2: transmit queue 0 timed out 5021 ms",
                KernelEvent::NicReset {
                    device: device("eth0"),
                },
            ),
            (
                "nf_conntrack: nf_conntrack: table full, dropping packet",
                KernelEvent::ConntrackFull,
            ),
            (
                "NETDEV WATCHDOG: eth0 (ixgbe): transmit queue 3 timed out",
                KernelEvent::NicReset {
                    device: device("eth0"),
                },
            ),
            (
                "EDAC MC0: 1 UE memory read error on CPU_SrcID#0",
                KernelEvent::Hardware {
                    why: "EDAC MC0: 1 UE memory read error on CPU_SrcID#0".into(),
                },
            ),
        ] {
            assert_eq!(classify(text), Some(event), "{text}");
        }
    }

    #[test]
    fn lets_the_rest_go() {
        for text in [
            "EXT4-fs (vda): mounted filesystem r/w without journal",
            "mce: CPU supports 32 MCE banks",
            "EDAC MC0: 1 CE memory read error",
            "process_api (1): drop_caches: 10",
            "XFS (sda): Mounting V5 Filesystem",
            "",
        ] {
            assert_eq!(classify(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "\\PC{0,300}") {
            let _ = classify(&text);
        }

        #[test]
        fn nor_does_one_that_begins_as_a_known_one(
            start in prop::sample::select(vec![
                "Out of memory: Killed process ", "EXT4-fs (", "EXT4-fs error (device ", "XFS (", "INFO: task ", "I/O error, dev ",
                "NETDEV WATCHDOG: ", "watchdog: BUG: soft lockup - CPU#",
            ]),
            text in "\\PC{0,200}",
        ) {
            let _ = classify(&format!("{start}{text}"));
        }
    }
}
