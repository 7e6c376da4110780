//! The coordinator's own boot: did *its* machine lose power while it knew a fleet?
//!
//! A clean stop of the process leaves the clean-shutdown marker, and its next start in the same boot takes the marker
//! back. So a boot counts as unclean if the coordinator was running when its machine died, and only then.
//!
//! That evidence belongs to the first minutes of a boot. It is kept for a restart within them (a coordinator that crashes
//! while it acts on it must not forget), and is used up once [`OwnBoot::settle`] wrote down that this boot is an old story.
//! All of it is this machine's own: with several coordinators, each has its own boots.

use std::path::PathBuf;

use std::sync::atomic::{AtomicBool, Ordering};

use blackstart_proto::boot::{
    BootError, BootIdentity, PreviousShutdown, establish, is_settled, mark_clean_shutdown, mark_settled,
    unmark_clean_shutdown,
};

use crate::config::Settings;

/// This boot of the coordinator's machine.
#[derive(Debug)]
pub struct OwnBoot {
    identity: BootIdentity,
    state_dir: PathBuf,
    unclean: AtomicBool,
}

impl OwnBoot {
    /// Tells this boot, and takes back a marker that an earlier process of it left.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn begin(settings: &Settings) -> Result<Self, BootError> {
        let identity = establish(&settings.boot_id_file, &settings.state_dir, &settings.runtime_dir)?;
        unmark_clean_shutdown(&settings.state_dir)?;
        let unclean = identity.previous_shutdown == PreviousShutdown::Unclean
            && !is_settled(&settings.state_dir, &identity);
        Ok(Self {
            unclean: AtomicBool::new(unclean),
            identity,
            state_dir: settings.state_dir.clone(),
        })
    }

    /// Its machine booted anew after an unclean end, and that is still news.
    pub fn is_unclean(&self) -> bool {
        self.unclean.load(Ordering::Relaxed)
    }

    /// From now on this boot is an old story, also for a later process. Durable once it has returned.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn settle(&self) -> Result<(), BootError> {
        self.unclean.store(false, Ordering::Relaxed);
        mark_settled(&self.state_dir, &self.identity)
    }

    /// The process ends in order. Durable once it has returned.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn end(&self) -> Result<(), BootError> {
        mark_clean_shutdown(&self.state_dir, &self.identity)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Machine {
        dir: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
            }
        }

        /// The power comes (back): nothing of the runtime directory is left.
        fn power_on(&self, boot: &str) -> OwnBoot {
            let _ = fs::remove_dir_all(self.dir.path().join("run"));
            fs::write(self.dir.path().join("boot_id"), boot).unwrap();
            self.start()
        }

        /// The process starts.
        fn start(&self) -> OwnBoot {
            let dir = self.dir.path();
            let settings = Settings {
                boot_id_file: dir.join("boot_id"),
                state_dir: dir.join("state"),
                runtime_dir: dir.join("run"),
                ..Settings::default()
            };
            OwnBoot::begin(&settings).unwrap()
        }
    }

    #[test]
    fn a_power_loss_while_it_runs_is_unclean_and_a_stop_before_it_is_not() {
        let machine = Machine::new();
        assert!(!machine.power_on("a").is_unclean(), "the first boot");
        assert!(machine.power_on("b").is_unclean());
        machine.start().end().unwrap();
        assert!(!machine.power_on("c").is_unclean());
    }

    #[test]
    fn a_marker_of_an_earlier_process_of_the_same_boot_does_not_hide_a_power_loss() {
        let machine = Machine::new();
        machine.power_on("a").end().unwrap();
        machine.start();
        assert!(machine.power_on("b").is_unclean());
    }

    #[test]
    fn it_stays_news_across_a_crash_until_it_is_settled() {
        let machine = Machine::new();
        machine.power_on("a");
        machine.power_on("b");
        let again = machine.start();
        assert!(again.is_unclean());
        again.settle().unwrap();
        assert!(!machine.start().is_unclean());
        assert!(
            machine.power_on("c").is_unclean(),
            "the next power loss is news again"
        );
    }
}
