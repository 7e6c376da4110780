//! The one record of what is out: the marker on disk, the files, and whoever looks.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blackstart_proto::component::Component;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::Held;
use crate::config::StaticPodSettings;
use crate::gate::boottime;
use crate::watch::static_pods::directory::{self, Back, Places};

/// Its name in the state directory.
pub(super) const FILE: &str = "set-aside.json";

/// Why a manifest could not be moved out or back.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The directories cannot be read.
    #[error("look for the manifest of {component}: {source}; nothing was changed")]
    Look {
        /// Of which component.
        component: Component,
        /// Why not.
        source: io::Error,
    },
    /// Why it is out would not survive the agent, so it is not moved.
    #[error("write {}: {source}; nothing was changed", path.display())]
    Marker {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It could not be moved.
    #[error("move {file} out: {source}; nothing was changed")]
    Out {
        /// The manifest.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// It could not be moved back, and is still out.
    #[error("move the manifest of {component} back: {source}; it is still out, and is tried again")]
    Back {
        /// Of which component.
        component: Component,
        /// Why not.
        source: io::Error,
    },
}

/// Cheap to clone; all clones are one record.
#[derive(Debug, Clone)]
pub struct SetAside {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    boot: String,
    /// One move at a time.
    moves: Mutex<()>,
    held: watch::Sender<Arc<Vec<Held>>>,
    unclaimed: Mutex<Option<Duration>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    /// The nonce of the boot that it was written in.
    boot: String,
    held: Vec<Held>,
}

impl SetAside {
    /// Nothing is held, and nothing is looked for: a simulated node has no manifests.
    pub fn none(state_dir: &Path, boot: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                path: state_dir.join(FILE),
                boot: boot.to_owned(),
                moves: Mutex::new(()),
                held: watch::Sender::new(Arc::default()),
                unclaimed: Mutex::new(None),
            }),
        }
    }

    /// What is out in the boot of this nonce. A component that is out, and that the marker does not name, is put back. Blocks.
    pub fn open(state_dir: &Path, boot: &str, settings: &StaticPodSettings) -> Self {
        let this = Self::none(state_dir, boot);
        let places = Places::of(settings);
        let marker = match read(&this.inner.path) {
            Ok(marker) => marker,
            Err(error) => {
                warn!(path = %this.inner.path.display(), %error, "what was set aside cannot be read; it is put back");
                None
            }
        };
        let out = match places.out() {
            Ok(out) => out,
            Err(error) => {
                warn!(path = %places.held.display(), %error, "whether manifests are out cannot be told");
                Vec::new()
            }
        };
        let is_out = |component: Component| out.iter().any(|(pod, _)| pod == component.pod());
        let mut held = marker
            .as_ref()
            .map(|marker| marker.held.clone())
            .unwrap_or_default();
        held.retain(|held| is_out(held.component));
        for component in Component::ALL {
            if is_out(component) && !held.iter().any(|held| held.component == component) {
                let back = places.put_back(component.pod());
                warn!(%component, ?back, "its manifest was out, and nothing says why: it is put back");
            }
        }
        if marker.as_ref().is_some_and(|marker| marker.boot != boot) {
            // The dead-man time of this boot begins now, and not anew with each agent of it.
            let now = boottime();
            for held in &mut held {
                held.since = now;
            }
        }
        if !held.is_empty() {
            info!(?held, "manifests are set aside");
        }
        if (marker.is_some() || !held.is_empty())
            && let Err(error) = this.write(&held)
        {
            warn!(path = %this.inner.path.display(), %error, "what is set aside cannot be written down");
        }
        this.inner.held.send_replace(Arc::new(held));
        this
    }

    /// What is out, and every change of it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Vec<Held>>> {
        self.inner.held.subscribe()
    }

    /// What is out.
    pub fn held(&self) -> Arc<Vec<Held>> {
        Arc::clone(&self.inner.held.borrow())
    }

    /// This pod's manifest is out by the coordinator's word.
    pub fn holds(&self, pod: &str) -> bool {
        self.held().iter().any(|held| held.component.pod() == pod)
    }

    /// A coordinator has answered, and works on this node or not.
    pub fn answered(&self, claims: bool) {
        let mut unclaimed = self
            .inner
            .unclaimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if claims {
            *unclaimed = None;
        } else {
            unclaimed.get_or_insert_with(boottime);
        }
    }

    /// Nobody answers any more: what nobody says is no word.
    pub fn hung_up(&self) {
        self.answered(true);
    }

    /// Since when a coordinator has answered without a claim, by `CLOCK_BOOTTIME`.
    pub fn unclaimed(&self) -> Option<Duration> {
        *self
            .inner
            .unclaimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a component's manifest out; what was done, for people. Durable once it has returned; may be done twice. Blocks.
    ///
    /// # Errors
    /// It is where it was.
    pub fn hold(
        &self,
        component: Component,
        run_id: &str,
        reason: &str,
        settings: &StaticPodSettings,
    ) -> Result<String, HoldError> {
        let places = Places::of(settings);
        let _one_at_a_time = self.moves();
        let mut held: Vec<_> = self.held().to_vec();
        if let Some(known) = held.iter().find(|held| held.component == component) {
            return Ok(format!(
                "the manifest of {component} was out already, for run {}",
                known.run_id
            ));
        }
        let look = |source| HoldError::Look { component, source };
        let found = match directory::read(&places.manifests) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(look(error)),
        };
        let own = found.into_iter().find(|found| {
            let manifest = found.manifest.as_ref();
            manifest.is_ok_and(|manifest| manifest.name == component.pod())
        });
        let Some(own) = own else {
            let dir = places.manifests.display();
            return Ok(format!(
                "no manifest in {dir} is of {component}: nothing to set aside"
            ));
        };
        held.push(Held {
            component,
            run_id: run_id.to_owned(),
            reason: reason.to_owned(),
            since: boottime(),
        });
        self.write(&held).map_err(|source| HoldError::Marker {
            path: self.inner.path.clone(),
            source,
        })?;
        match places.move_out(component.pod(), &own.file) {
            Ok(path) => {
                self.inner.held.send_replace(Arc::new(held));
                Ok(format!("{} is out, in {}", own.file, path.display()))
            }
            Err(source) => {
                // What the marker then names too much is not out, and so is dropped by the next agent.
                if let Err(error) = self.write(&self.held()) {
                    warn!(path = %self.inner.path.display(), %error, "what is set aside cannot be written down");
                }
                Err(HoldError::Out {
                    file: own.file,
                    source,
                })
            }
        }
    }

    /// Moves a component's manifest back; what was done, for people. Durable once it has returned; may be done twice. Blocks.
    ///
    /// # Errors
    /// It is still out.
    pub fn release(&self, component: Component, settings: &StaticPodSettings) -> Result<String, HoldError> {
        let places = Places::of(settings);
        let _one_at_a_time = self.moves();
        let back = places
            .put_back(component.pod())
            .map_err(|source| HoldError::Back { component, source })?;
        let mut held: Vec<_> = self.held().to_vec();
        let before = held.len();
        held.retain(|held| held.component != component);
        if held.len() < before {
            if let Err(error) = self.write(&held) {
                warn!(path = %self.inner.path.display(), %error, "what is set aside cannot be written down");
            }
            self.inner.held.send_replace(Arc::new(held));
        }
        Ok(match back {
            Back::Moved => format!(
                "the manifest of {component} is back in {}",
                places.manifests.display()
            ),
            Back::NoneOut => format!("the manifest of {component} was not out"),
            Back::Superseded(path) => format!(
                "another manifest of {component} was put there meanwhile and stays; the old one is in {}",
                path.display()
            ),
        })
    }

    fn moves(&self) -> MutexGuard<'_, ()> {
        self.inner.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, held: &[Held]) -> io::Result<()> {
        let marker = Marker {
            boot: self.inner.boot.clone(),
            held: held.to_vec(),
        };
        let path = &self.inner.path;
        let aside = path.with_extension("json.new");
        let mut file = File::create(&aside)?;
        file.write_all(&serde_json::to_vec(&marker)?)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

fn read(path: &Path) -> io::Result<Option<Marker>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const MANAGER: Component = Component::ControllerManager;

    struct Node {
        dir: TempDir,
        settings: StaticPodSettings,
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let settings = StaticPodSettings {
                manifests: dir.path().join("manifests"),
                held: dir.path().join("held"),
                ..StaticPodSettings::default()
            };
            fs::create_dir(&settings.manifests).unwrap();
            for pod in ["etcd", MANAGER.pod(), Component::Scheduler.pod()] {
                let text =
                    format!("kind: Pod\nmetadata: {{name: {pod}}}\nspec: {{containers: [{{name: c}}]}}\n");
                fs::write(settings.manifests.join(format!("{pod}.yaml")), text).unwrap();
            }
            Self { dir, settings }
        }

        fn agent(&self, boot: &str) -> SetAside {
            SetAside::open(self.dir.path(), boot, &self.settings)
        }

        fn in_place(&self) -> Vec<String> {
            let found = directory::read(&self.settings.manifests).unwrap();
            found.into_iter().map(|found| found.file).collect()
        }
    }

    fn held(agent: &SetAside) -> Vec<Component> {
        agent.held().iter().map(|held| held.component).collect()
    }

    #[test]
    fn both_go_out_stay_out_over_a_boot_and_come_back_and_twice_is_no_harm() {
        let node = Node::new();
        let agent = node.agent("a");
        for component in Component::ALL.into_iter().chain(Component::ALL) {
            agent
                .hold(component, "run", "its leases are old", &node.settings)
                .unwrap();
        }
        assert_eq!(node.in_place(), ["etcd.yaml"]);
        assert!(agent.holds(MANAGER.pod()) && !agent.holds("etcd"));
        let since = agent.held()[0].since;
        assert_eq!(
            node.agent("a").held(),
            agent.held(),
            "a restart does not make it longer"
        );
        let next = node.agent("b");
        assert_eq!(held(&next), Component::ALL);
        assert!(next.held()[0].since > since, "a new boot begins anew");
        assert_eq!(node.agent("b").held(), next.held());
        for component in Component::ALL.into_iter().chain(Component::ALL) {
            next.release(component, &node.settings).unwrap();
        }
        assert_eq!(node.in_place().len(), 3);
        assert!(next.held().is_empty() && node.agent("b").held().is_empty());
    }

    #[test]
    fn a_crash_at_any_point_is_found_by_the_next_agent() {
        let node = Node::new();
        let places = Places::of(&node.settings);
        // Before the move: named, and not out.
        let agent = node.agent("a");
        let named = Held {
            component: MANAGER,
            run_id: String::new(),
            reason: String::new(),
            since: Duration::ZERO,
        };
        agent.write(std::slice::from_ref(&named)).unwrap();
        assert!(node.agent("a").held().is_empty());
        // Out, and not named: the marker was lost, or a bounce of an older agent left it.
        places
            .move_out(MANAGER.pod(), "kube-controller-manager.yaml")
            .unwrap();
        assert!(node.agent("a").held().is_empty());
        assert_eq!(node.in_place().len(), 3);
        // A marker that cannot be read.
        agent.hold(MANAGER, "run", "", &node.settings).unwrap();
        fs::write(node.dir.path().join(FILE), "{\"boot").unwrap();
        assert!(node.agent("a").held().is_empty());
        assert_eq!(node.in_place().len(), 3);
        // Back, and still named.
        let agent = node.agent("a");
        agent.hold(MANAGER, "run", "", &node.settings).unwrap();
        places.put_back(MANAGER.pod()).unwrap();
        assert!(node.agent("a").held().is_empty());
    }

    #[test]
    fn what_has_no_manifest_needs_none_and_what_cannot_be_moved_stays() {
        let node = Node::new();
        let agent = node.agent("a");
        fs::remove_file(node.settings.manifests.join("kube-scheduler.yaml")).unwrap();
        let told = agent
            .hold(Component::Scheduler, "run", "", &node.settings)
            .unwrap();
        assert!(told.contains("nothing to set aside"), "{told}");
        // A file where the directory should be.
        fs::write(&node.settings.held, "").unwrap();
        let error = agent.hold(MANAGER, "run", "", &node.settings).unwrap_err();
        assert!(error.to_string().contains("nothing was changed"), "{error}");
        assert!(agent.held().is_empty());
        assert_eq!(node.in_place().len(), 2);
    }
}
