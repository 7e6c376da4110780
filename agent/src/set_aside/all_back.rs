//! Everything goes back, whoever set it aside: there will be no agent any more that would do it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::shared::FILE;
use crate::config::StaticPodSettings;
use crate::watch::static_pods::directory::{Back, Places};

/// What became of what lay out of the kubelet's sight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutBack {
    /// Pods whose manifests are where the kubelet looks.
    pub back: Vec<String>,
    /// Manifests that lie where they lay, because another one has taken their place.
    pub superseded: Vec<PathBuf>,
    /// Manifests that could not be moved, and why.
    pub failed: Vec<(String, String)>,
}

/// Moves back every manifest that is out, and forgets why. No agent may run. May be done twice. Blocks.
///
/// # Errors
/// Whether manifests are out cannot be told.
pub fn all_back(state_dir: &Path, settings: &StaticPodSettings) -> io::Result<PutBack> {
    let places = Places::of(settings);
    let mut pods: Vec<_> = places.out()?.into_iter().map(|(pod, _)| pod).collect();
    pods.dedup();
    let mut done = PutBack::default();
    for pod in pods {
        match places.put_back(&pod) {
            Ok(Back::Moved) => done.back.push(pod),
            Ok(Back::NoneOut) => {}
            Ok(Back::Superseded(path)) => done.superseded.push(path),
            Err(error) => done.failed.push((pod, error.to_string())),
        }
    }
    if done.failed.is_empty() {
        match fs::remove_file(state_dir.join(FILE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_goes_back_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let settings = StaticPodSettings {
            manifests: dir.path().join("manifests"),
            held: dir.path().join("held"),
            ..StaticPodSettings::default()
        };
        assert_eq!(
            all_back(dir.path(), &settings).unwrap(),
            PutBack::default(),
            "a worker has none"
        );
        fs::create_dir(&settings.manifests).unwrap();
        let places = Places::of(&settings);
        for pod in ["etcd", "kube-scheduler"] {
            let file = format!("{pod}.yaml");
            fs::write(settings.manifests.join(&file), pod).unwrap();
            places.move_out(pod, &file).unwrap();
        }
        fs::write(settings.manifests.join("etcd.yaml"), "another").unwrap();
        fs::write(dir.path().join(FILE), "{}").unwrap();

        let done = all_back(dir.path(), &settings).unwrap();
        assert_eq!(done.back, ["kube-scheduler"]);
        assert_eq!(done.superseded, [settings.held.join("etcd/etcd.yaml")]);
        assert!(settings.manifests.join("kube-scheduler.yaml").exists());
        assert_eq!(
            fs::read_to_string(settings.manifests.join("etcd.yaml")).unwrap(),
            "another"
        );
        assert!(!dir.path().join(FILE).exists());
        assert!(all_back(dir.path(), &settings).unwrap().back.is_empty());
    }
}
