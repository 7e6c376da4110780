//! The texts. Sentences without a full stop, so that they stand in tables and terminals alike.

use crate::condition::ConditionKind as Kind;
use crate::diagnose::{clock, containers, disk, kernel, kubelet, load, memory, pleg};
use crate::span::Span;

/// What is said of a kind.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) meaning: &'static str,
    pub(super) severity: &'static str,
    pub(super) seen: String,
    pub(super) clears: String,
    pub(super) by_hand: &'static [&'static str],
}

#[expect(
    clippy::too_many_lines,
    reason = "one text after the other; a table would be no shorter"
)]
pub(super) fn words(kind: Kind) -> Words {
    let quiet = || format!("the kernel has been silent about it for {}", Span(kernel::QUIET));
    let told = || {
        let told = Span(containers::TOLD);
        format!("{told} after the last time, while docker answers")
    };
    let reboot = || "the agent starts in another boot: only a repair and a reboot mend it".to_owned();
    match kind {
        Kind::UnitFailed => Words {
            meaning: "a unit that this node needs has failed, and systemd has given it up",
            severity: "critical",
            seen: "systemd's D-Bus: ActiveState is failed; at once".to_owned(),
            clears: "the unit is in any other state".to_owned(),
            by_hand: &[
                "systemctl status UNIT; journalctl -u UNIT -b -n 200",
                "mend what its log names, then: systemctl reset-failed UNIT && systemctl start UNIT",
                "to keep it down on purpose: systemctl disable --now UNIT (a disabled unit is not wanted here)",
            ],
        },
        Kind::UnitInactive => Words {
            meaning: "a unit that this node needs was stopped without failure, and nobody has started it again",
            severity: "warning",
            seen: "systemd's D-Bus: ActiveState is inactive for as long as restart.inactive_hold; never while the boot gate holds \
                   the kubelet"
                .to_owned(),
            clears: "the unit is in any other state".to_owned(),
            by_hand: &[
                "systemctl start UNIT",
                "to keep it down on purpose: systemctl disable --now UNIT (a disabled unit is not wanted here)",
            ],
        },
        Kind::KubeletUnhealthy => Words {
            meaning: "the kubelet runs and does not answer: its pods live on, and the cluster loses sight of them",
            severity: "critical",
            seen: format!(
                "HTTP: kubelet.failures_to_raise probes in a row were refused, timed out or answered otherwise than 200, while the unit is \
                 active; not within {} of its start",
                Span(kubelet::GRACE)
            ),
            clears: "one probe is answered with 200, or the process has ended".to_owned(),
            by_hand: &[
                "curl -sS http://127.0.0.1:10248/healthz; journalctl -u kubelet -b -n 200",
                "look whether the container runtime answers: crictl info, or docker info",
                "systemctl kill -s KILL kubelet && systemctl restart kubelet",
            ],
        },
        Kind::DiskPressure => Words {
            meaning: "a file system is short of bytes: writers fail before long, and the kubelet evicts pods",
            severity: "warning; critical from 95 percent, or when it is full within a sixth of raise_time_to_full",
            seen: "statvfs: raise_percent used".to_owned(),
            clears: "below clear_percent".to_owned(),
            by_hand: &[
                "du -xh --max-depth=3 MOUNT | sort -h | tail -30",
                "lsof +L1 MOUNT names deleted files that are held open",
                "crictl rmi --prune (or docker image prune) frees images; journalctl --vacuum-size=200M frees the journal",
            ],
        },
        Kind::InodePressure => Words {
            meaning: "a file system is short of inodes: no file can be made on it, whatever space is left",
            severity: "warning; critical from 95 percent",
            seen: "statvfs: raise_percent of the inodes used".to_owned(),
            clears: "below clear_percent".to_owned(),
            by_hand: &[
                "df -i MOUNT; find MOUNT -xdev -printf '%h\\n' | sort | uniq -c | sort -n | tail names where the files are",
                "mostly sessions, mail queues or caches that nobody clears: mend who makes them, then remove them",
                "crictl rmi --prune (or docker system prune) frees the files of containers and images",
            ],
        },
        Kind::DiskFilling => Words {
            meaning: "a file system will be full soon at the present rate",
            severity: "warning; critical from 95 percent used, or when it is full within a sixth of raise_time_to_full",
            seen: "statvfs: what is left, and the rate at which it fills".to_owned(),
            clears: format!(
                "for {} no sooner full than three times raise_time_to_full",
                Span(disk::CALM)
            ),
            by_hand: &[
                "who writes: iotop -obn3, or pidstat -d 1 5; lsof -p PID names the files",
                "a log: see LogRunaway; a copy or an image pull ends by itself, if there is room for it",
            ],
        },
        Kind::LogRunaway => Words {
            meaning: "a log grows so fast, or has grown so large, that it endangers its file system",
            severity: "warning; critical while its disk fills",
            seen: "size and growth of the files under logs.globs, also deleted ones that are held open; only while their disk is under \
                   pressure"
                .to_owned(),
            clears: "its head was given back, or its disk is under pressure no more".to_owned(),
            by_hand: &[
                "find who writes it, and why: lsof PATH; tail PATH",
                "never rm a log that is held open: it frees nothing; truncate -s 0 PATH if its writer appends",
                "give the writer a rotation or a lower log level",
            ],
        },
        Kind::FilesystemReadOnly => Words {
            meaning: "a file system that ought to be writable is read-only: the kernel gave it up after an error, or somebody mounted it so",
            severity: "critical",
            seen: "of a device: the kernel's log (/dev/kmsg); of a mount point: the mount table against /etc/fstab, and against what it was before"
                .to_owned(),
            clears: "of a mount point: it can be written again; of a device: the agent starts in another boot".to_owned(),
            by_hand: &[
                "dmesg -T | grep -i -e ext4 -e xfs -e remount; smartctl -a DEVICE",
                "drain the node; stop what uses the file system; umount; fsck DEVICE (xfs_repair for XFS)",
                "reboot; replace the disk if errors return",
            ],
        },
        Kind::FilesystemCorrupt => Words {
            meaning: "the kernel found a file system damaged",
            severity: "critical",
            seen: "the kernel's log (/dev/kmsg)".to_owned(),
            clears: reboot(),
            by_hand: &[
                "drain the node, and save what is only here (on a master: etcdctl snapshot save)",
                "umount; fsck DEVICE (xfs_repair for XFS); reboot",
                "what fsck removed from a container store is pulled again; from etcd's data it is a new member",
            ],
        },
        Kind::DiskFailing => Words {
            meaning: "a disk does not read or write some of its blocks",
            severity: "critical",
            seen: "I/O errors in the kernel's log (/dev/kmsg)".to_owned(),
            clears: quiet(),
            by_hand: &[
                "smartctl -a DEVICE; check cables, controller and multipath (multipath -ll)",
                "drain the node, save what is only here, replace the disk",
            ],
        },
        Kind::MemoryPressure => Words {
            meaning: "memory is short: work waits for it, and the OOM killer is not far",
            severity: "warning; critical below memory.critical_available_percent",
            seen: format!(
                "/proc/meminfo and pressure stall information, for {}: little is available, or all tasks wait",
                Span(memory::HOLD)
            ),
            clears: format!("calm for {}", Span(memory::CALM)),
            by_hand: &[
                "the evidence names the largest pods, units and processes; kubectl top pods, or systemd-cgtop -m",
                "move or restart what leaks; give it a limit",
                "a unit whose restart does no harm can be left to the agent: memory.may_restart",
            ],
        },
        Kind::OomStorm => Words {
            meaning: "the OOM killer kills again and again, or the whole machine ran out of memory",
            severity: "critical for the whole machine, warning for control groups at their limits",
            seen: format!(
                "the kernel's log (/dev/kmsg): one kill for the whole machine, or {} kills in control groups within {}",
                kernel::OOM_KILLS,
                Span(kernel::OOM_WINDOW)
            ),
            clears: quiet(),
            by_hand: &[
                "dmesg -T | grep -i 'killed process' names who; kubectl describe pod shows OOMKilled",
                "raise the limit of what needs it, or move it; keep system daemons' memory reserved (kubelet --system-reserved)",
            ],
        },
        Kind::KernelHang => Words {
            meaning: "tasks or processors hang in the kernel: what waits for them never ends",
            severity: "warning for tasks, critical for processors",
            seen: "hung-task and lockup messages in the kernel's log (/dev/kmsg)".to_owned(),
            clears: quiet(),
            by_hand: &[
                "ps -eo pid,stat,wchan:30,cmd | awk '$2 ~ /D/' shows what hangs and where; mostly a disk or an NFS server that is gone",
                "bring that back (umount -f -l for NFS); otherwise drain and reboot the node",
            ],
        },
        Kind::HardwareFault => Words {
            meaning: "the machine reported an error of its hardware: a machine check, or memory that could not be corrected",
            severity: "critical",
            seen: "the kernel's log (/dev/kmsg)".to_owned(),
            clears: quiet(),
            by_hand: &[
                "ras-mc-ctl --summary; mcelog; the BMC's event log (ipmitool sel list)",
                "drain the node and replace what it names",
            ],
        },
        Kind::NicFailing => Words {
            meaning: "the kernel resets a network device: traffic stops each time",
            severity: "warning",
            seen: "transmit timeouts in the kernel's log (/dev/kmsg)".to_owned(),
            clears: quiet(),
            by_hand: &[
                "ethtool DEVICE; ethtool -S DEVICE | grep -i err; check cable, switch port and firmware",
                "a failing one of a bond: ip link set DEVICE down",
            ],
        },
        Kind::ConntrackFull => Words {
            meaning: "the connection-tracking table is full: packets of new connections are dropped",
            severity: "critical",
            seen: "the kernel's log (/dev/kmsg)".to_owned(),
            clears: quiet(),
            by_hand: &[
                "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
                "sysctl -w net.netfilter.nf_conntrack_max=1048576, and kube-proxy's conntrack.maxPerCore, which sets it anew",
                "conntrack -L | awk '{print $4, $5}' | sort | uniq -c | sort -n | tail shows who opens so many",
            ],
        },
        Kind::Overload => Words {
            meaning: "more tasks want a processor or a disk than the node can serve",
            severity: "warning",
            seen: "/proc/loadavg: one minute's average above load.raise_per_processor for each processor; or pressure stall information, where \
                   the kernel has it: tasks wait for processors or disks for too large a part of a minute; for load.hold"
                .to_owned(),
            clears: format!("below half of all of these for {}", Span(load::CALM)),
            by_hand: &[
                "the evidence names the heaviest pods and units, and what hangs in the kernel; top, or systemd-cgtop",
                "many in state D are a slow disk: iostat -x 2",
                "after a cold start it passes by itself when images are pulled; otherwise move work away",
                "to take the weights back before the next boot: rm -r /run/systemd/system.control/UNIT.d && systemctl daemon-reload",
            ],
        },
        Kind::ClockBehind => Words {
            meaning: "the wall clock is behind a time that this node has already trusted: certificates look not yet valid, leases old",
            severity: "critical",
            seen: "the wall clock is compared with the latest time kept in the state directory".to_owned(),
            clears: "the wall clock has caught up".to_owned(),
            by_hand: &[
                "timedatectl; chronyc tracking; chronyc makestep (ntpd: ntpd -gq)",
                "no time server yet: date -s 'YYYY-MM-DD HH:MM:SS' && hwclock -w",
                "replace the battery of the machine's clock",
            ],
        },
        Kind::ClockUnsynchronised => Words {
            meaning: "no time service keeps the wall clock: it drifts, and etcd and certificates suffer first",
            severity: "warning",
            seen: "adjtimex says unsynchronised for clock.unsynchronised_hold".to_owned(),
            clears: "a time service keeps it".to_owned(),
            by_hand: &[
                "systemctl status chronyd systemd-timesyncd; chronyc sources",
                "check that its servers are addresses that answer without cluster DNS",
            ],
        },
        Kind::ClockJumped => Words {
            meaning: "the wall clock jumped: timers, leases and logs around it lie",
            severity: "warning",
            seen: "the wall clock is compared with CLOCK_BOOTTIME, which only ever advances".to_owned(),
            clears: format!("{} have passed", Span(clock::JUMP_TOLD)),
            by_hand: &[
                "nothing if a time service put it right (chronyc tracking)",
                "if it happens again: two services that disagree, or a hypervisor that sets the guest's clock",
            ],
        },
        Kind::RuntimeHung => Words {
            meaning: "a container runtime runs and does not answer: its containers live on, and nothing can be started or stopped",
            severity: "critical",
            seen: "runtime.failures_to_raise real calls in a row (docker: list containers; containerd: list namespaces) timed out or failed, \
                   while the unit is active; docker's count only while containerd answers"
                .to_owned(),
            clears: "one call is answered, or the process has ended".to_owned(),
            by_hand: &[
                "time docker ps; time ctr namespaces ls; journalctl -u docker -u containerd -b -n 200",
                "first its stacks, for the cause: systemctl kill -s USR1 --kill-who=main docker; they are in /var/run/docker",
                "systemctl kill -s KILL --kill-who=main docker && systemctl restart docker; containerd before docker, docker before the kubelet",
            ],
        },
        Kind::ContainerFlapping => Words {
            meaning: "a container dies and is started again, over and over",
            severity: "warning",
            seen: "docker's events: runtime.flapping_restarts restarts within runtime.flapping_window that nobody asked for".to_owned(),
            clears: "no restart for runtime.flapping_window, while docker answers".to_owned(),
            by_hand: &[
                "docker logs --tail 200 NAME; kubectl logs -p POD -c CONTAINER; the evidence has its last exit status",
                "what it depends on may not be back yet: kubectl delete pod POD ends a long back-off once it is",
            ],
        },
        Kind::ContainerOomKilled => Words {
            meaning: "a container ran out of its memory, and the OOM killer took a process of it",
            severity: "warning",
            seen: "docker's events, of containers with a restart policy and of pods".to_owned(),
            clears: told(),
            by_hand: &[
                "docker stats --no-stream NAME; kubectl top pod POD --containers",
                "raise its limit, or lower what it takes (the heap of a JVM: below three quarters of the limit)",
            ],
        },
        Kind::ContainerDied => Words {
            meaning: "a container that is to stay up ended with an error",
            severity: "info: it is started again",
            seen: "docker's events, of containers with a restart policy and of pods; not what a person or the kubelet ended".to_owned(),
            clears: told(),
            by_hand: &["docker logs --tail 200 NAME; kubectl logs -p POD -c CONTAINER"],
        },
        Kind::ContainerUnhealthy => Words {
            meaning: "a container's own health check fails",
            severity: "warning",
            seen: "docker's events; restarted only where runtime.may_restart_containers names it, and never a pod's".to_owned(),
            clears: "docker says healthy, or the container has ended".to_owned(),
            by_hand: &["docker inspect -f '{{json .State.Health}}' NAME shows what its check said"],
        },
        Kind::CertificateExpiring => Words {
            meaning: "a certificate expires soon: whatever needs it fails then, and does not come back after a power loss",
            severity: "warning",
            seen: "the files under preflight.certificates, judged by the later of the wall clock and the latest time that this node has \
                   trusted"
                .to_owned(),
            clears: "the file holds none that expires within preflight.expires_within, or is gone".to_owned(),
            by_hand: &[
                "openssl x509 -noout -subject -enddate -in PATH",
                "kubeadm certs renew all on each master in turn, then restart its control plane's pods; copy the new admin.conf",
                "the kubelet's renews itself while the API server answers: journalctl -u kubelet | grep -i certificate_manager",
                "the agent's own: blackstart pki issue node NAME --force, copy it; no restart is needed",
            ],
        },
        Kind::CertificateExpired => Words {
            meaning: "a certificate has expired: what needs it is refused, and a kubelet whose own has expired does not start",
            severity: "critical",
            seen: "the files under preflight.certificates, judged by the later of the wall clock and the latest time that this node has \
                   trusted"
                .to_owned(),
            clears: "the file holds none that has expired, or is gone".to_owned(),
            by_hand: &[
                "first of all look at the clock: date; a clock that is ahead makes every certificate look expired",
                "kubeadm certs renew all on each master in turn, then restart its control plane's pods",
                "the kubelet's: copy a fresh bootstrap-kubelet.conf (kubeadm token create), rm /etc/kubernetes/kubelet.conf, restart it",
                "the agent's own: blackstart pki issue node NAME --force, copy it; no restart is needed",
            ],
        },
        Kind::ControlPlaneComponentDown => Words {
            meaning: "a static pod's manifest is there and the kubelet is well, but the pod does not run or does not answer",
            severity: "critical",
            seen: "a GET of the health port that its liveness probe names, or that is configured for the component, and docker's list of \
                   running containers; where there is no docker the port alone. static_pods.failures_to_raise looks in a row; not within \
                   static_pods.start_grace of the kubelet's or the manifest's appearance; never while the boot gate holds the kubelet or the \
                   kubelet is down"
                .to_owned(),
            clears: "one look finds it up, its manifest was written anew, or the kubelet is down".to_owned(),
            by_hand: &[
                "crictl ps -a --name NAME (or docker ps -a), and crictl logs of its last container",
                "etcd: etcdctl endpoint status and alarm list; df -h of its data; never remove data of the last member that runs",
                "the API server: first see that etcd answers, then its certificates: blackstart-agent check",
                "start it anew: mv its manifest out of the directory, wait until crictl ps shows it no more, mv it back",
            ],
        },
        Kind::StaticPodManifestMissing => Words {
            meaning: "a manifest that is to be there is gone: the kubelet has stopped its pod, and nothing starts it again",
            severity: "critical",
            seen: "no file in static_pods.manifests is of a pod that static_pods.expected names; without that list, of one that had a manifest \
                   before. One that a bounce has moved out counts when it stays out longer than a bounce may take"
                .to_owned(),
            clears: "a manifest of the pod is there, it is no longer expected, or the kubelet is down".to_owned(),
            by_hand: &[
                "look whether it lies in static_pods.held, and if so: mv it back",
                "copy it from another master and mend addresses and names, or: kubeadm init phase control-plane NAME, kubeadm init phase etcd local",
                "it was removed on purpose: take its line out of the file static-pods in state_dir",
            ],
        },
        Kind::StaticPodManifestInvalid => Words {
            meaning: "a file among the manifests cannot be read as a static pod, or is a second manifest of one",
            severity: "warning",
            seen: "the files in static_pods.manifests whose names do not begin with a dot; symbolic links are not followed".to_owned(),
            clears: "the file can be read, or is gone".to_owned(),
            by_hand: &[
                "journalctl -u kubelet -b | grep -i -e manifest -e 'static pod' shows what the kubelet says of it",
                "move backups and editors' leftovers to another directory: the kubelet takes every file for a manifest",
            ],
        },
        Kind::RemedyExhausted => Words {
            meaning: "the budget of a remedy is spent and its condition stands: the agent leaves it alone, somebody has to look",
            severity: "critical",
            seen: "the ledger: every rung of the ladder was tried".to_owned(),
            clears: "the condition behind it clears; a unit's budget refills after health for restart.window, a log's as its window passes"
                .to_owned(),
            by_hand: &[
                "blackstart-agent remedies shows what was tried, and how each ended",
                "mend the cause: blackstart-agent explain tells of the condition behind it",
            ],
        },
        Kind::LedgerUnwritable => Words {
            meaning: "the agent's record on disk cannot be written: nothing is begun that needs a durable intent; logs are reclaimed all \
                      the same",
            severity: "critical",
            seen: "a write failed".to_owned(),
            clears: "a write has succeeded, or none was needed for a minute".to_owned(),
            by_hand: &[
                "df -h and df -i of the state directory; free space, the next write goes on by itself",
                "a read-only or damaged file system: blackstart-agent explain FilesystemReadOnly",
            ],
        },
        Kind::MemoryLeak => Words {
            meaning: "a system daemon's memory only ever grows: one day it takes the node with it",
            severity: "warning; critical when the node's memory would be full within an hour",
            seen: "the anonymous memory of each unit's control group, once a minute: it has grown in every part of memory.leak.window, by \
                   memory.leak.min_growth and memory.leak.min_growth_percent, over memory.leak.min_span or longer"
                .to_owned(),
            clears: "its process is another one, or it does not grow any more".to_owned(),
            by_hand: &[
                "what it holds: systemctl status UNIT; for docker, kubelet and containerd a heap profile (debug/pprof/heap)",
                "restart it at a time of your choosing; containers live on: systemctl restart UNIT",
                "look for a newer version; until then a MemoryHigh= drop-in bounds what it can do",
            ],
        },
        Kind::UnitFlapping => Words {
            meaning: "a unit dies and is started again, over and over: it serves nobody in between, and never counts as failed",
            severity: "critical; warning once a unit that systemd had given up was mended",
            seen: "systemd's D-Bus: NRestarts grew by unit_states.flapping_restarts within unit_states.flapping_window, or it was \
                   given up after restarts (then UnitFailed stands beside it, and its ladder resets the start limit)"
                .to_owned(),
            clears: "systemd has not restarted it for unit_states.flapping_window".to_owned(),
            by_hand: &[
                "journalctl -u UNIT -b -n 200; the evidence has its last exit status",
                "systemctl show UNIT -p NRestarts -p Result -p ExecMainStatus",
                "mend what its log names; to stop the loop meanwhile: systemctl stop UNIT",
                "given up by systemd: systemctl reset-failed UNIT && systemctl start UNIT",
            ],
        },
        Kind::UnitMasked => Words {
            meaning: "a unit that the agent is to watch is masked: nobody can start it, and it does not come back after a power loss",
            severity: "warning",
            seen: "systemd's D-Bus: LoadState is masked for as long as restart.inactive_hold".to_owned(),
            clears: "the unit is unmasked, which the agent never does: it is somebody's wish".to_owned(),
            by_hand: &[
                "ask who masked it, and why; then: systemctl unmask UNIT && systemctl start UNIT",
                "to keep it so: take UNIT out of `units` in the agent's configuration",
            ],
        },
        Kind::UnitJobHung => Words {
            meaning: "a start or stop of a unit does not end: systemd waits for it, and so does all that is ordered after it",
            severity: "critical",
            seen: "systemd's D-Bus: the unit has been activating or deactivating for unit_states.job_hung_after; a start that waits its turn \
                   and systemd's own pause before a restart do not count"
                .to_owned(),
            clears: "the start or stop has ended, or another one has begun".to_owned(),
            by_hand: &[
                "systemctl list-jobs; systemctl status UNIT; journalctl -u UNIT -b -n 200",
                "ps -eo pid,stat,wchan:30,cmd shows whether it hangs in the kernel (state D): then no kill helps, see KernelHang",
                "systemctl kill -s KILL UNIT && systemctl restart UNIT (a container runtime: with --kill-who=main)",
            ],
        },
        Kind::KubeletPlegUnhealthy => Words {
            meaning: "the kubelet answers, and does not see its containers: its node becomes NotReady, and no pod is started or stopped",
            severity: "critical",
            seen: format!(
                "the kubelet's journal, looked at each pleg.interval: \"PLEG is not healthy\" or \"container runtime is down\"; what each \
                 kubelet says while it starts counts only in {} looks in a row",
                pleg::STARTING_LOOKS
            ),
            clears: "a whole look finds no such message".to_owned(),
            by_hand: &[
                "journalctl -u kubelet -b | grep -i pleg | tail; time docker ps; time crictl ps",
                "one container that hangs is enough: docker inspect each, crictl inspect each; ps -eo pid,stat,cmd | grep ' D'",
                "the runtime first: restart it (see RuntimeHung); then systemctl restart kubelet",
            ],
        },
        Kind::NetworkIsolated => Words {
            meaning: "the node is cut off: it has no way out, or reaches nobody; its pods run on and serve nobody",
            severity: "critical without default route or carrier; a warning when coordinator and peers are out of reach",
            seen: "for network.hold: no default route where there was one in this boot, or no carrier under it (rtnetlink, /proc/net, \
                   /sys/class/net); or no session with the coordinator and no TCP connection to any of network.peers, two of them at least. \
                   Nothing is restarted because of it"
                .to_owned(),
            clears: "there is a way out, and one of them is reached".to_owned(),
            by_hand: &[
                "ip -br link; ip route; ip -6 route; ethtool INTERFACE",
                "no carrier: cable, switch port, transceiver; a bond: cat /proc/net/bonding/*",
                "no route: networkctl status, nmcli device, or journalctl -u systemd-networkd -u NetworkManager -b",
                "nobody in reach though there is a route: ask of the switch, the VLAN, and the firewall between racks",
            ],
        },
        Kind::CniMissing => Words {
            meaning: "there is no network configuration for pods that can be used: the node is NotReady, and no pod that it starts gets an \
                      address",
            severity: "critical",
            seen: "for network.cni.hold: no *.conflist, *.conf or *.json in network.cni.dir that libcni would take; only where the directory \
                   is there, was there, or is required"
                .to_owned(),
            clears: "there is one".to_owned(),
            by_hand: &[
                "ls -l /etc/cni/net.d; a file of no bytes was not on disk when the power went: remove it",
                "a pod writes it: kubectl -n kube-system delete pod of calico-node, cilium or kube-flannel on this node",
                "the API server is down: copy the file from another node of the same cluster, and look for the node's own name and range in it",
            ],
        },
        Kind::DnsFailing => Words {
            meaning: "no name server knows a name that is always there: images cannot be pulled, and many applications fail one by one",
            severity: "warning",
            seen: "for network.dns.hold: a query over UDP to each server of resolv_conf was not answered, or answered without an address"
                .to_owned(),
            clears: "one server answers with an address".to_owned(),
            by_hand: &[
                "cat /etc/resolv.conf; dig @SERVER NAME",
                "a node's resolv.conf that names cluster DNS cannot bring the cluster back: name servers outside of it",
            ],
        },
        Kind::RtcBehind => Words {
            meaning: "the machine's own clock is far behind: the wall clock is right by its time service alone, and wrong after the next power \
                      loss",
            severity: "warning",
            seen: "/sys/class/rtc/rtc0 is compared with the latest time kept in the state directory".to_owned(),
            clears: "the machine's own clock is less than clock.rtc_behind behind".to_owned(),
            by_hand: &["hwclock -w, once the wall clock is right", "if it comes back: replace the battery of the machine's clock"],
        },
    }
}
