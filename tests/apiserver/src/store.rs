//! What etcd is to the real one: objects under keys, one revision that every write raises, and the history that watches read.

use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Where an object is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The plural name of its resource.
    pub resource: &'static str,
    /// Its namespace, or the empty string.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of an object of a resource.
    pub fn new(resource: &'static str, namespace: &str, name: &str) -> Self {
        Self {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key that an object says of itself.
    pub fn of(resource: &'static str, object: &Value) -> Self {
        Self::new(
            resource,
            crate::json::namespace(object),
            crate::json::name(object),
        )
    }
}

/// One write.
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision it made.
    pub revision: u64,
    /// What it wrote.
    pub key: Key,
    /// The object before.
    pub before: Option<Arc<Value>>,
    /// The object after.
    pub after: Option<Arc<Value>>,
}

/// How many writes are kept for watches to begin from. etcd is compacted every five minutes; this is a bound on memory.
const HISTORY: usize = 20_000;

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    revision: u64,
    compacted: u64,
    made: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            revision: 1,
            compacted: 1,
            made: 0,
        }
    }
}

impl Store {
    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision that a watch may begin from.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Forgets the history: watches from older revisions are answered with 410.
    pub fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.revision;
    }

    /// An object.
    pub fn get(&self, resource: &'static str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&Key::new(resource, namespace, name))
    }

    /// The objects of a resource, of one namespace or of all, in the order of their keys.
    pub fn list<'a>(
        &'a self,
        resource: &'static str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Value>> + 'a {
        self.objects
            .range(Key::new(resource, namespace.unwrap_or_default(), "")..)
            .take_while(move |(key, _)| {
                key.resource == resource && namespace.is_none_or(|wanted| key.namespace == wanted)
            })
            .map(|(_, object)| object)
    }

    /// The objects of a resource in all namespaces, held apart from the store so that it can be written meanwhile.
    pub fn all(&self, resource: &'static str) -> Vec<Arc<Value>> {
        self.list(resource, None).cloned().collect()
    }

    /// The writes after a revision; nothing if they were compacted away.
    pub fn since(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        let first = self.history.partition_point(|change| change.revision <= revision);
        (revision >= self.compacted).then(|| self.history.range(first..))
    }

    /// Writes an object with the next revision in it.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        crate::json::set(
            &mut object,
            "/metadata/resourceVersion",
            self.revision.to_string(),
        );
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        self.remember(Change {
            revision: self.revision,
            key,
            before,
            after: Some(Arc::clone(&object)),
        });
        object
    }

    /// Takes an object away.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.revision += 1;
        let change = Change {
            revision: self.revision,
            key: key.clone(),
            before: Some(Arc::clone(&before)),
            after: None,
        };
        self.remember(change);
        Some(before)
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.compacted = oldest.revision;
        }
    }

    /// A number that was never given before.
    pub fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// A `metadata.uid`.
    pub fn uid(&mut self) -> String {
        let number = self.number();
        format!("b1ac5747-0000-4000-8000-{number:012x}")
    }

    /// Five letters for names that are generated, from the letters that cannot spell words
    /// (k8s.io/apimachinery/pkg/util/rand).
    pub fn suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut number = self.number().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
        let mut suffix = String::new();
        for _ in 0..5 {
            let letter = usize::try_from(number % 27).unwrap_or_default();
            suffix.push(char::from(LETTERS[letter]));
            number /= 27;
        }
        suffix
    }
}

/// An object of the store as a resource's kind and version are written on the wire.
pub fn versioned(object: &Value, api_version: &str, kind: &str) -> Value {
    let mut written = json!({"kind": kind, "apiVersion": api_version});
    if let (Some(written), Some(object)) = (written.as_object_mut(), object.as_object()) {
        for (name, value) in object {
            if name != "kind" && name != "apiVersion" {
                written.insert(name.clone(), value.clone());
            }
        }
    }
    written
}
