//! What may go next: a function of what docker has. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    /// Id of its image.
    pub(super) image: String,
    /// `None` while it runs, and for one that is started again by itself.
    pub(super) stopped_for: Option<Duration>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) id: String,
    /// Id of the image that it was built on, if it was here; otherwise empty.
    pub(super) parent: String,
    /// Tags, then digests.
    pub(super) names: Vec<String>,
    /// Seconds since the Unix epoch.
    pub(super) created: i64,
    /// Bytes, with layers that it shares.
    pub(super) size: u64,
    /// Marked as never to go.
    pub(super) pinned: bool,
}

/// What docker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) containers: Vec<Container>,
    /// Intermediate ones too.
    pub(super) images: Vec<Image>,
}

/// Why something may go; in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    StoppedContainer,
    DanglingImage,
    UnusedImage,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::StoppedContainer => "stopped container",
            Self::DanglingImage => "dangling image",
            Self::UnusedImage => "unused image",
        }
    }
}

/// What may go next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// Empty for a dangling image.
    pub(super) names: Vec<String>,
    pub(super) size: u64,
}

impl Candidate {
    /// For people.
    pub(super) fn name(&self) -> String {
        self.names.first().unwrap_or(&self.id).clone()
    }
}

impl Snapshot {
    /// What may go next; nothing that was `passed_over`.
    pub(super) fn next(
        &self,
        stopped_for: Duration,
        protect: &Protect,
        passed_over: &BTreeSet<String>,
    ) -> Option<Candidate> {
        let stopped = self
            .containers
            .iter()
            .filter(|container| !passed_over.contains(&container.id))
            .filter_map(|container| Some((container.stopped_for?, container)))
            .filter(|(since, _)| *since >= stopped_for)
            .max_by_key(|(since, _)| *since);
        if let Some((_, container)) = stopped {
            return Some(Candidate {
                kind: Kind::StoppedContainer,
                id: container.id.clone(),
                names: vec![container.name.clone()],
                size: 0,
            });
        }
        let parents: BTreeSet<_> = self.images.iter().map(|image| image.parent.as_str()).collect();
        let used: BTreeSet<_> = self
            .containers
            .iter()
            .map(|container| container.image.as_str())
            .collect();
        let free = self.images.iter().filter(|image| {
            !image.pinned
                && !passed_over.contains(&image.id)
                && !parents.contains(image.id.as_str())
                && !used.contains(image.id.as_str())
                && !image.names.iter().any(|name| protect.covers(name))
        });
        // Those without a name first, then by age.
        free.min_by_key(|image| (!image.names.is_empty(), image.created, &image.id))
            .map(|image| Candidate {
                kind: if image.names.is_empty() {
                    Kind::DanglingImage
                } else {
                    Kind::UnusedImage
                },
                id: image.id.clone(),
                names: image.names.clone(),
                size: image.size,
            })
    }

    /// It is gone.
    pub(super) fn forget(&mut self, id: &str) {
        self.containers.retain(|container| container.id != id);
        self.images.retain(|image| image.id != id);
    }
}

/// Images that never go.
#[derive(Debug, Clone)]
pub(super) struct Protect {
    /// Held against the whole name.
    whole: GlobSet,
    /// Held against the last part of the name, without tag and digest.
    last: GlobSet,
}

impl Protect {
    /// # Errors
    /// A pattern is no glob.
    pub(super) fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut whole = GlobSetBuilder::new();
        let mut last = GlobSetBuilder::new();
        for pattern in patterns {
            let set = if pattern.contains(['/', ':']) {
                &mut whole
            } else {
                &mut last
            };
            set.add(Glob::new(pattern)?);
        }
        Ok(Self {
            whole: whole.build()?,
            last: last.build()?,
        })
    }

    fn covers(&self, name: &str) -> bool {
        self.whole.is_match(name) || self.last.is_match(last_part(name))
    }
}

/// `registry:5000/team/app:1.2@sha256:…` → `app`.
fn last_part(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::PruneSettings;

    const DAY: Duration = Duration::from_hours(24);

    fn container(id: &str, image: &str, stopped_for: Option<Duration>) -> Container {
        Container {
            id: id.into(),
            name: id.into(),
            image: image.into(),
            stopped_for,
        }
    }

    fn image(id: &str, names: &[&str], created: i64) -> Image {
        Image {
            id: id.into(),
            parent: String::new(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            created,
            size: 1,
            pinned: false,
        }
    }

    fn defaults() -> Protect {
        Protect::new(&PruneSettings::default().protect).unwrap()
    }

    fn all(mut snapshot: Snapshot) -> Vec<(Kind, String)> {
        let mut went = Vec::new();
        while let Some(next) = snapshot.next(DAY, &defaults(), &BTreeSet::new()) {
            snapshot.forget(&next.id);
            went.push((next.kind, next.id));
        }
        went
    }

    #[test]
    fn what_a_node_needs_to_come_back_is_protected() {
        let protect = defaults();
        for name in [
            "registry.k8s.io/pause:3.9",
            "pause:3.2",
            "10.128.38.9:5000/mirror/pause-amd64:3.1",
            "k8s.gcr.io/kube-apiserver:v1.21.0",
            "quay.io/coreos/etcd:v3.4.13",
            "k8s.gcr.io/coredns/coredns:v1.8.0",
            "rancher/mirrored-coredns-coredns:1.9",
            "calico/node:v3.20.0",
            "docker.io/calico/cni@sha256:0123",
            "quay.io/cilium/operator-generic:v1.14",
            "rancher/mirrored-flannelcni-flannel:v0.19",
            "registry:2",
            "docker.io/library/registry:2.8",
            "goharbor/nginx-photon:v2.5",
            "rancher/hyperkube:v1.20",
        ] {
            assert!(protect.covers(name), "{name}");
        }
        for name in [
            "registry:5000/shop/app:1",
            "registry.k8s.io/shop:1",
            "shop/web:pause",
            "busybox:1.36",
        ] {
            assert!(!protect.covers(name), "{name}");
        }
    }

    #[test]
    fn goes_in_order_and_what_a_container_held_goes_after_it() {
        let snapshot = Snapshot {
            containers: vec![
                container("fresh", "used-by-fresh", Some(DAY / 2)),
                container("older", "held", Some(DAY * 3)),
                container("old", "held", Some(DAY)),
                container("runs", "used", None),
            ],
            images: vec![
                image("new", &["shop:2"], 20),
                image("held", &["shop:1"], 10),
                image("dangling", &[], 30),
                image("used", &["web:1"], 1),
                image("used-by-fresh", &["batch:1"], 1),
                image("pause", &["pause:3.9"], 1),
                image("digest-only", &["shop@sha256:1"], 15),
            ],
        };
        let expected = [
            (Kind::StoppedContainer, "older"),
            (Kind::StoppedContainer, "old"),
            (Kind::DanglingImage, "dangling"),
            (Kind::UnusedImage, "held"),
            (Kind::UnusedImage, "digest-only"),
            (Kind::UnusedImage, "new"),
        ];
        assert_eq!(all(snapshot), expected.map(|(kind, id)| (kind, id.to_owned())));
    }

    #[test]
    fn what_others_build_on_and_what_is_pinned_stays() {
        let child = Image {
            parent: "base".into(),
            ..image("child", &["app:1"], 9)
        };
        let pinned = Image {
            pinned: true,
            ..image("pinned", &["shop:1"], 1)
        };
        let snapshot = |used: &str| Snapshot {
            containers: vec![container("runs", used, None)],
            images: vec![image("base", &["app-base:1"], 1), child.clone(), pinned.clone()],
        };
        assert_eq!(all(snapshot("child")), []);
        let both = ["child", "base"].map(|id| (Kind::UnusedImage, id.to_owned()));
        assert_eq!(all(snapshot("other")), both);
    }

    proptest! {
        #[test]
        fn never_takes_what_is_used_protected_or_passed_over(
            containers in prop::collection::vec((0_u8..8, prop::option::of(0_u64..48)), 0..8),
            images in prop::collection::vec((0_u8..10, 0_usize..4, any::<bool>()), 0..10),
            passed_over in prop::collection::btree_set("[0-9]", 0..4),
        ) {
            let names: [&[&str]; 4] = [&[], &["shop:1"], &["pause:3.9"], &["shop:1", "x/etcd:3"]];
            let snapshot = Snapshot {
                containers: containers.iter().enumerate().map(|(n, (of, hours))| {
                    let since = hours.map(Duration::from_hours);
                    container(&format!("c{n}"), &of.to_string(), since)
                }).collect(),
                images: images.iter().enumerate().map(|(n, (parent, name, pinned))| Image {
                    parent: parent.to_string(),
                    pinned: *pinned,
                    ..image(&n.to_string(), names[*name], i64::from(*parent))
                }).collect(),
            };
            let mut left = snapshot;
            while let Some(next) = left.next(DAY, &defaults(), &passed_over) {
                prop_assert!(!passed_over.contains(&next.id));
                if next.kind == Kind::StoppedContainer {
                    let taken = left.containers.iter().find(|container| container.id == next.id).unwrap();
                    prop_assert!(taken.stopped_for.is_some_and(|since| since >= DAY));
                } else {
                    prop_assert!(left.containers.iter().all(|container| container.image != next.id));
                    prop_assert!(!next.names.iter().any(|name| name.contains("pause") || name.contains("etcd")));
                    let taken = left.images.iter().find(|image| image.id == next.id).unwrap();
                    prop_assert!(!taken.pinned);
                }
                left.forget(&next.id);
            }
        }
    }
}
