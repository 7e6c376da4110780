//! What the agent is told of the node's network and of its clock.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The node's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// The default route, and the carrier of the interface that has it, are watched. One that was never there in this boot is no matter.
    pub default_route: bool,
    /// Isolation has to last for so long; shorter is a renewed lease or a switch that changes over.
    pub hold: Duration,
    /// Between looks at whatever the kernel tells no events of; up to a fifth more or less.
    pub interval: Duration,
    /// A peer or a name server has so long to answer.
    pub deadline: Duration,
    /// Other nodes, a port of each that is open as long as they run. Only together with a second one, or with the coordinator, do they say anything.
    pub peers: Vec<SocketAddr>,
    /// The network configuration of pods.
    pub cni: CniSettings,
    /// `None`: names are not looked up.
    pub dns: Option<DnsSettings>,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            default_route: true,
            hold: Duration::from_secs(15),
            interval: Duration::from_secs(10),
            deadline: Duration::from_secs(2),
            peers: Vec::new(),
            cni: CniSettings::default(),
            dns: None,
        }
    }
}

/// The network configuration of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniSettings {
    /// It is watched, where its directory is there.
    pub watch: bool,
    /// The directory has to be there.
    pub required: bool,
    /// Where it is.
    pub dir: PathBuf,
    /// It has to be missing for so long: a CNI pod writes it when it starts.
    pub hold: Duration,
    /// The unit that writes it, if one does: it is restarted. `None`: a pod writes it, and the agent only tells.
    pub unit: Option<String>,
}

impl Default for CniSettings {
    fn default() -> Self {
        Self {
            watch: true,
            required: false,
            dir: "/etc/cni/net.d".into(),
            hold: Duration::from_mins(2),
            unit: None,
        }
    }
}

/// Whether names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// The name that is asked for (type A): one that is always there.
    pub name: String,
    /// Which servers are asked.
    pub resolv_conf: PathBuf,
    /// It has to fail for so long.
    pub hold: Duration,
}

impl DnsSettings {
    /// The defaults for a name.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            resolv_conf: "/etc/resolv.conf".into(),
            hold: Duration::from_mins(1),
        }
    }
}

/// The node's wall clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockSettings {
    /// It has to be unsynchronised for so long: a time service needs a while after a boot.
    pub unsynchronised_hold: Duration,
    /// The machine's own clock (RTC) has to be so far behind. Less may be a time zone: some keep local time in it.
    pub rtc_behind: Duration,
    /// Units that may keep it. The one that runs, otherwise the first that is installed and enabled, may be restarted for it.
    pub services: Vec<String>,
}

impl Default for ClockSettings {
    fn default() -> Self {
        Self {
            unsynchronised_hold: Duration::from_mins(10),
            rtc_behind: Duration::from_hours(24),
            services: [
                "chronyd.service",
                "chrony.service",
                "systemd-timesyncd.service",
                "ntpd.service",
                "ntp.service",
            ]
            .map(str::to_owned)
            .into(),
        }
    }
}
