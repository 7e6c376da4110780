//! A copy of one kind of object of a cluster, kept by list and watch.
//!
//! kube's `watcher` lists, watches from there, resumes where a watch broke off, and lists anew after 410 (Gone). Around it stands what a
//! recovery needs: a pause that grows between failures, the age of what is known, and when each object was last *seen* to change, by
//! our own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event, watcher};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::capabilities::GroupVersion;
use super::connection::{Connection, causes};
use super::objects::{Kept, Key, Metadata, Object, Owner};
use super::rights::{Lacking, Right, Verb};

/// The server ends each watch after this, and it is begun anew: so a server that lives is heard at least so often, and one that
/// is gone is noticed, however quiet the objects are. Seconds; well below the silence that the connection bears.
const WATCH: u32 = 20;
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// The pause after a first failure; each further one doubles it…
const FIRST: Duration = Duration::from_millis(500);
/// …up to this.
const CAP: Duration = Duration::from_secs(10);
/// A list that comes so soon after the last word continues what was watched; after a longer gap nobody can say when something changed.
const GAP: Duration = Duration::from_secs(15);

/// An object, and when it was seen to change.
#[derive(Debug, Clone)]
pub(super) struct Tracked<T> {
    /// As it is.
    pub(super) object: T,
    /// When its sign of life ([`Kept::pulse`]) was seen to change; `None`: not since `watched`.
    pub(super) seen: Option<Instant>,
    /// Since when it is watched without a gap.
    pub(super) watched: Instant,
}

/// See the module.
pub(super) struct Cache<T> {
    path: String,
    version: GroupVersion,
    inner: RwLock<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    objects: BTreeMap<Key, Tracked<T>>,
    /// Those of each node: a cluster has thousands of pods, and a look is about a node.
    by_node: BTreeMap<String, BTreeSet<Key>>,
    /// It was whole once.
    is_whole: bool,
    /// Why it is not kept at present.
    trouble: Option<String>,
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl<T: Kept> Cache<T> {
    /// Empty, of objects that are served by `version`.
    pub(super) fn new(version: GroupVersion) -> Self {
        let (_, number) = version.0.split_once('/').unwrap_or(("", &version.0));
        Self {
            path: T::RESOURCE.path(Some(number), T::RESOURCE.only_in().unwrap_or_default()),
            version,
            inner: RwLock::new(Inner {
                objects: BTreeMap::new(),
                by_node: BTreeMap::new(),
                is_whole: false,
                trouble: None,
            }),
        }
    }

    /// Looks at what is known. Short: the watch waits meanwhile.
    pub(super) fn read<R>(&self, look: impl FnOnce(&BTreeMap<Key, Tracked<T>>) -> R) -> R {
        look(&self.inner.read().unwrap_or_else(PoisonError::into_inner).objects)
    }

    /// Those of one node.
    pub(super) fn on(&self, node: &str) -> Vec<T>
    where
        T: Clone,
    {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let keys = inner.by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| Some(inner.objects.get(key)?.object.clone()))
            .collect()
    }

    /// How old the picture is, or why there is none.
    pub(super) fn age(&self, connection: &Connection, now: Instant) -> Result<Duration, String> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let heard = connection.pulse(&self.path).filter(|_| inner.is_whole);
        heard
            .map(|heard| now.saturating_duration_since(heard))
            .ok_or_else(|| match &inner.trouble {
                Some(trouble) => format!("{} were never listed: {trouble}", T::RESOURCE.name()),
                None => format!("{} are not listed yet", T::RESOURCE.name()),
            })
    }

    /// What keeps it from being kept at present.
    pub(super) fn trouble(&self) -> Option<String> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner
            .trouble
            .as_ref()
            .map(|why| format!("{}: {why}", T::RESOURCE.name()))
    }

    /// Keeps it, for ever. `changes` counts what was taken in.
    pub(super) async fn keep(&self, connection: &Connection, changes: &watch::Sender<u64>) {
        let mut failures = 0_u32;
        loop {
            let why = match connection.client().await {
                Ok(client) => self.follow(client, connection, changes, &mut failures).await,
                Err(error) => error.to_string(),
            };
            self.failed(why);
            let pause = FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(CAP);
            failures = failures.saturating_add(1);
            let jitter = rand::rng().random_range(0.0..0.5);
            sleep(pause + pause.mul_f64(jitter)).await;
        }
    }

    /// Until something fails for which it is better to begin anew: why.
    async fn follow(
        &self,
        client: kube::Client,
        connection: &Connection,
        changes: &watch::Sender<u64>,
        failures: &mut u32,
    ) -> String {
        let api = self.api(client);
        let config = watcher::Config::default().timeout(WATCH).page_size(PAGE);
        let mut events = std::pin::pin!(watcher(api, config));
        let mut listed = BTreeMap::new();
        let mut before_list = None;
        while let Some(event) = events.next().await {
            let now = Instant::now();
            match event {
                Ok(Event::Init) => {
                    listed.clear();
                    before_list = connection.pulse(&self.path);
                }
                Ok(Event::InitApply(object)) => {
                    if let Some(object) = T::keep(object.into()) {
                        listed.insert(object.key(), object);
                    }
                }
                Ok(Event::InitDone) => {
                    let is_gapless =
                        before_list.is_some_and(|heard| now.saturating_duration_since(heard) < GAP);
                    self.replace(std::mem::take(&mut listed), is_gapless, now);
                }
                Ok(Event::Apply(object)) => {
                    if let Some(object) = T::keep(object.into()) {
                        self.put(object, now);
                    }
                }
                Ok(Event::Delete(object)) => {
                    if let Some(object) = T::keep(object.into()) {
                        self.remove(&object.key());
                    }
                }
                // The server may answer a watch that is too old with a plain 410, on which the watcher would go on for ever; and a
                // client whose addresses all failed is to be made anew.
                Err(error) => return lacking::<T>(&error).unwrap_or_else(|| causes(&error)),
            }
            *failures = 0;
            changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        "the watch ended".to_owned()
    }

    fn api(&self, client: kube::Client) -> Api<DynamicObject> {
        let (group, version) = self.version.0.split_once('/').unwrap_or(("", &self.version.0));
        let kind = GroupVersionKind::gvk(group, version, T::KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, T::RESOURCE.name());
        match T::RESOURCE.only_in() {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }

    fn failed(&self, why: String) {
        tracing::info!(
            path = self.path,
            why,
            "objects of a cluster are not watched; trying again"
        );
        self.inner.write().unwrap_or_else(PoisonError::into_inner).trouble = Some(why);
    }

    fn replace(&self, listed: BTreeMap<Key, T>, is_gapless: bool, now: Instant) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut inner.objects);
        inner.by_node.clear();
        for (key, object) in listed {
            let known = before.remove(&key);
            inner.insert(key, track(known, object, is_gapless, now));
        }
        inner.is_whole = true;
        inner.trouble = None;
    }

    fn put(&self, object: T, now: Instant) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let key = object.key();
        let known = inner.remove(&key);
        inner.insert(key, track(known, object, true, now));
        inner.trouble = None;
    }

    fn remove(&self, key: &Key) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove(key);
    }
}

impl<T: Kept> Inner<T> {
    fn insert(&mut self, key: Key, tracked: Tracked<T>) {
        if let Some(node) = tracked.object.node() {
            self.by_node
                .entry(node.to_owned())
                .or_default()
                .insert(key.clone());
        }
        self.objects.insert(key, tracked);
    }

    fn remove(&mut self, key: &Key) -> Option<Tracked<T>> {
        let known = self.objects.remove(key)?;
        if let Some(node) = known.object.node()
            && let Some(here) = self.by_node.get_mut(node)
        {
            here.remove(key);
            if here.is_empty() {
                self.by_node.remove(node);
            }
        }
        Some(known)
    }
}

/// Which right it is that the server misses, if that is what it says.
fn lacking<T: Kept>(error: &watcher::Error) -> Option<String> {
    let (verb, status) = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => (Verb::List, status),
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) | watcher::Error::WatchError(status) => {
            (Verb::Watch, status)
        }
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => return None,
    };
    (status.code == 403).then(|| {
        let lacking = Lacking {
            right: Right::to(verb, T::RESOURCE),
            namespace: T::RESOURCE.only_in().unwrap_or_default().to_owned(),
            said: status.message.clone(),
        };
        lacking.to_string()
    })
}

fn track<T: Kept>(known: Option<Tracked<T>>, object: T, is_gapless: bool, now: Instant) -> Tracked<T> {
    let Some(known) = known else {
        return Tracked {
            object,
            seen: None,
            watched: now,
        };
    };
    let beats = known.object.pulse() != object.pulse();
    let (seen, watched) = match (beats, is_gapless) {
        (true, true) => (Some(now), known.watched),
        // Some time in the gap: nobody saw when.
        (true, false) => (None, now),
        (false, _) => (known.seen, known.watched),
    };
    Tracked {
        object,
        seen,
        watched,
    }
}

impl From<DynamicObject> for Object {
    fn from(object: DynamicObject) -> Self {
        let DynamicObject {
            metadata, mut data, ..
        } = object;
        let owner = |owner: OwnerReference| Owner {
            kind: owner.kind,
            name: owner.name,
            controller: owner.controller.unwrap_or_default(),
        };
        Self {
            metadata: Metadata {
                name: metadata.name.unwrap_or_default(),
                namespace: metadata.namespace.unwrap_or_default(),
                uid: metadata.uid.unwrap_or_default(),
                resource_version: metadata.resource_version.unwrap_or_default(),
                deletion_timestamp: metadata.deletion_timestamp.map(|time| time.0.to_string()),
                labels: metadata.labels.unwrap_or_default(),
                annotations: metadata.annotations.unwrap_or_default(),
                owner_references: metadata
                    .owner_references
                    .into_iter()
                    .flatten()
                    .map(owner)
                    .collect(),
            },
            spec: data["spec"].take(),
            status: data["status"].take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::objects::{Lease, Pod};
    use super::*;

    fn lease(renewed: &str) -> Lease {
        Lease {
            name: "n".into(),
            renewed: Some(renewed.parse().unwrap()),
        }
    }

    const EARLY: &str = "2026-11-28T08:00:00Z";
    const LATE: &str = "2026-11-28T08:00:10Z";

    #[tokio::test(start_paused = true)]
    async fn a_renewal_counts_as_seen_only_if_nothing_was_missed() {
        let version = || GroupVersion("coordination.k8s.io/v1".into());
        let cache: Cache<Lease> = Cache::new(version());
        assert_eq!(
            cache.path,
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        );
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let listed = |text| BTreeMap::from([(lease(text).key(), lease(text))]);
        let life = |cache: &Cache<Lease>| {
            cache.read(|all| all.values().map(|it| (it.seen, it.watched)).next().unwrap())
        };
        cache.replace(listed(EARLY), false, now);
        assert_eq!(life(&cache), (None, now));
        // Told again, it has not been renewed.
        cache.put(lease(EARLY), later);
        assert_eq!(life(&cache), (None, now));
        cache.put(lease(LATE), later);
        assert_eq!(life(&cache), (Some(later), now));
        // After a gap an older or newer time says that it was renewed, and not when.
        let after = later + Duration::from_mins(5);
        cache.replace(listed(EARLY), false, after);
        assert_eq!(life(&cache), (None, after));
        cache.replace(listed(LATE), true, after);
        assert_eq!(life(&cache), (Some(after), after));
        cache.replace(BTreeMap::new(), true, after);
        assert_eq!(cache.read(BTreeMap::len), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pods_of_a_node_are_found_wherever_they_were_before() {
        let cache: Cache<Pod> = Cache::new(GroupVersion("v1".into()));
        let now = Instant::now();
        let pod = |name: &str, node: &str| {
            let object = json!({"metadata": {"name": name, "namespace": "biz"}, "spec": {"nodeName": node}});
            Pod::keep(serde_json::from_value(object).unwrap()).unwrap()
        };
        let on = |node: &str| {
            let pods = cache.on(node).into_iter();
            pods.map(|pod| pod.key.name).collect::<Vec<_>>()
        };
        let listed = [pod("a", "n1"), pod("b", "n1"), pod("c", "")];
        let listed = listed.map(|pod| (pod.key(), pod));
        cache.replace(listed.into(), false, now);
        assert_eq!(on("n1"), ["a", "b"]);
        // It finds its node; another is made anew elsewhere; one goes.
        cache.put(pod("c", "n1"), now);
        cache.put(pod("a", "n2"), now);
        cache.remove(&pod("b", "n1").key());
        assert_eq!(
            (on("n1"), on("n2"), on("")),
            (vec!["c".to_owned()], vec!["a".to_owned()], vec![])
        );
        cache.replace(BTreeMap::new(), true, now);
        assert_eq!(on("n1"), Vec::<String>::new());
    }
}
