//! `RelieveMemory`: the largest unit that may be restarted is, when memory is critically short; verified by what is available then.
//!
//! Never a pod: its limit, its eviction and its place are the cluster's. Which units: `memory.may_restart`, which is empty unless somebody
//! has said that a restart of theirs does no harm.

use std::io;
use std::time::Duration;

use globset::Glob;
use tokio::time::{Instant, sleep};

use crate::bytes::Bytes;
use crate::config::Settings;
use crate::host::Machine;
use crate::watch::cgroup::Cgroups;
use crate::watch::memory;

/// What a process held is free soon after it is gone.
const FREED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// At least so much of what the unit held has to be available: others take their part meanwhile.
const RECOVERED_PERCENT: u128 = 25;

/// Which units may be restarted for their memory.
#[derive(Debug, Clone)]
pub struct RelieveRules {
    may_restart: Vec<String>,
    protect: Vec<String>,
    /// The kubelet and the container runtimes.
    vital: [String; 3],
}

impl RelieveRules {
    /// From the configuration.
    pub fn new(settings: &Settings) -> Self {
        Self {
            may_restart: settings.memory.may_restart.clone(),
            protect: settings.memory.protect.clone(),
            vital: settings
                .runtime
                .start_order(&settings.kubelet_unit)
                .map(str::to_owned),
        }
    }

    /// May this unit be restarted?
    pub fn allow(&self, unit: &str) -> bool {
        let hit = |globs: &[String]| {
            globs
                .iter()
                .any(|glob| Glob::new(glob).is_ok_and(|glob| glob.compile_matcher().is_match(unit)))
        };
        let named = self.may_restart.iter().any(|name| name == unit);
        let vital = self.vital.iter().any(|vital| vital == unit);
        !hit(&self.protect) && (named || (!vital && hit(&self.may_restart)))
    }
}

/// Memory before a restart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// Bytes available on the node.
    available: u64,
    /// Bytes that the unit held.
    held: u64,
}

/// Looks at it.
pub(super) async fn look(machine: &Machine, unit: &str) -> Result<Before, String> {
    let (machine, name) = (machine.clone(), unit.to_owned());
    let look = tokio::task::spawn_blocking(move || {
        let held = Cgroups::mounted(&machine.cgroups).unit(&name, &machine.proc);
        memory::available(&machine.memory).map(|available| (available, held))
    });
    match look.await.map_err(io::Error::other) {
        Ok(Ok((available, Some(held)))) => Ok(Before {
            available,
            held: held.bytes,
        }),
        Ok(Ok((_, None))) => Err(format!(
            "what memory {unit} holds cannot be told: it is left alone"
        )),
        Ok(Err(error)) | Err(error) => Err(format!("memory cannot be looked at: {error}")),
    }
}

/// Waits until what the unit held is available.
pub(super) async fn recovered(machine: &Machine, unit: &str, before: Before) -> Result<String, String> {
    let deadline = Instant::now() + FREED_WITHIN;
    loop {
        let sources = machine.memory.clone();
        let available = tokio::task::spawn_blocking(move || memory::available(&sources))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| format!("{unit} was restarted; memory cannot be looked at: {error}"))?;
        let told = format!(
            "it held {}; {} are available, {} before",
            Bytes(before.held),
            Bytes(available),
            Bytes(before.available)
        );
        let gained = u128::from(available.saturating_sub(before.available));
        if gained * 100 >= u128::from(before.held) * RECOVERED_PERCENT && gained > 0 {
            return Ok(told);
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "{unit} was restarted and memory has not come back: {told}"
            ));
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_goes_and_vital_units_only_by_name() {
        let mut settings = Settings::for_node("n");
        let allows = |settings: &Settings, unit: &str| RelieveRules::new(settings).allow(unit);
        assert!(!allows(&settings, "app.service"), "by default none");
        settings.memory.may_restart = vec!["*".into()];
        for (unit, expected) in [
            ("app.service", true),
            ("kubelet.service", false),
            ("docker.service", false),
            ("containerd.service", false),
            ("systemd-journald.service", false),
            ("etcd.service", false),
            ("blackstart-agent.service", false),
        ] {
            assert_eq!(allows(&settings, unit), expected, "{unit}");
        }
        settings.memory.may_restart = vec!["docker.service".into(), "etcd.service".into()];
        assert!(allows(&settings, "docker.service"));
        assert!(!allows(&settings, "etcd.service"), "protect has the last word");
    }
}
