//! The objects, their revisions, and a bounded history of both. No I/O and no clock.
//!
//! One counter gives every write its `resourceVersion`, as etcd does. History is what lets a watch
//! continue where a list ended, and its end is what makes 410 real.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::route::Resource;

/// An object as stored: JSON text without `kind` and `apiVersion`, which lists leave out too. Text and
/// not a tree, because five thousand Nodes of 20 kB are 100 MB of one and half a gigabyte of the other.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// The text; an object with at least `metadata`.
    pub(super) json: Bytes,
    /// When it was written.
    pub(super) revision: u64,
}

impl Object {
    /// The tree.
    pub(super) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// One write.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Its revision.
    pub(super) revision: u64,
    /// Of which object.
    key: Arc<str>,
    /// How it was before; `None` if it was not.
    pub(super) before: Option<Object>,
    /// How it is since; for a removal its last state, with the revision of the removal.
    pub(super) after: Object,
    /// Whether it was removed.
    pub(super) removed: bool,
}

/// History does not reach that far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compacted {
    /// The oldest revision that a watch can still start from.
    pub(super) oldest: u64,
}

/// Everything of one resource, by key (`name` or `namespace/name`).
#[derive(Debug, Default)]
struct Collection {
    objects: BTreeMap<Arc<str>, Object>,
    history: VecDeque<Change>,
    /// What starts anew must start here or later.
    oldest: u64,
    /// The last write that history has lost. Between this and `oldest` lies only forgotten time in
    /// which nothing was written: a watch that stands there has missed nothing.
    lost: u64,
}

/// All resources.
#[derive(Debug)]
pub(super) struct Store {
    revision: u64,
    kept: usize,
    nodes: Collection,
    events: Collection,
}

impl Store {
    /// An empty store that remembers `kept` writes of each resource.
    pub(super) fn new(kept: usize) -> Self {
        Self { revision: 1, kept, nodes: Collection::default(), events: Collection::default() }
    }

    /// The revision of the latest write.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision that the next write will have.
    pub(super) const fn next_revision(&self) -> u64 {
        self.revision + 1
    }

    /// One object.
    pub(super) fn get(&self, resource: Resource, key: &str) -> Option<&Object> {
        self.collection(resource).objects.get(key)
    }

    /// Writes an object; its `metadata.resourceVersion` must already be [`Self::next_revision`].
    pub(super) fn put(&mut self, resource: Resource, key: &str, value: &Value) -> Object {
        self.revision += 1;
        let after = Object { json: value.to_string().into(), revision: self.revision };
        let key: Arc<str> = key.into();
        let before = self.collection_mut(resource).objects.insert(Arc::clone(&key), after.clone());
        self.record(resource, Change { revision: after.revision, key, before, after: after.clone(), removed: false });
        after
    }

    /// Removes an object and gives its last state, with the revision of the removal.
    pub(super) fn remove(&mut self, resource: Resource, key: &str) -> Option<Object> {
        let (key, before) = self.collection_mut(resource).objects.remove_entry(key)?;
        self.revision += 1;
        let mut value = before.value();
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let after = Object { json: value.to_string().into(), revision: self.revision };
        let change =
            Change { revision: after.revision, key, before: Some(before), after: after.clone(), removed: true };
        self.record(resource, change);
        Some(after)
    }

    /// Whether a watch or a list can still start from a revision.
    pub(super) fn reaches(&self, resource: Resource, revision: u64) -> Result<(), Compacted> {
        let oldest = self.collection(resource).oldest;
        if revision < oldest { Err(Compacted { oldest }) } else { Ok(()) }
    }

    /// Everything as it was at a revision, in the order of the keys.
    pub(super) fn at(&self, resource: Resource, revision: u64) -> Result<BTreeMap<Arc<str>, Object>, Compacted> {
        self.reaches(resource, revision)?;
        let collection = self.collection(resource);
        let mut objects = collection.objects.clone();
        for change in collection.since(revision)?.rev() {
            match &change.before {
                Some(before) => drop(objects.insert(Arc::clone(&change.key), before.clone())),
                None => drop(objects.remove(&change.key)),
            }
        }
        Ok(objects)
    }

    /// Every write after a revision that a watch stands at, oldest first.
    pub(super) fn since(&self, resource: Resource, revision: u64) -> Result<Vec<Change>, Compacted> {
        Ok(self.collection(resource).since(revision)?.cloned().collect())
    }

    /// Forgets all history: every revision but the current one is too old from now on.
    pub(super) fn compact(&mut self) {
        // A write that changes nothing moves the counter, so that "the current one" is nobody's.
        self.revision += 1;
        for collection in [&mut self.nodes, &mut self.events] {
            collection.lost = collection.history.back().map_or(collection.lost, |last| last.revision);
            collection.history.clear();
            collection.oldest = self.revision;
        }
    }

    /// Remembers `kept` writes of each resource from now on.
    pub(super) const fn keep(&mut self, kept: usize) {
        self.kept = kept;
    }

    fn record(&mut self, resource: Resource, change: Change) {
        let kept = self.kept;
        let collection = self.collection_mut(resource);
        collection.history.push_back(change);
        while collection.history.len() > kept {
            collection.lost = collection.history.pop_front().map_or(collection.lost, |gone| gone.revision);
            collection.oldest = collection.oldest.max(collection.lost);
        }
    }

    const fn collection(&self, resource: Resource) -> &Collection {
        match resource {
            Resource::Nodes => &self.nodes,
            Resource::Events => &self.events,
        }
    }

    const fn collection_mut(&mut self, resource: Resource) -> &mut Collection {
        match resource {
            Resource::Nodes => &mut self.nodes,
            Resource::Events => &mut self.events,
        }
    }
}

impl Collection {
    fn since(&self, revision: u64) -> Result<impl DoubleEndedIterator<Item = &Change>, Compacted> {
        if revision < self.lost {
            return Err(Compacted { oldest: self.oldest });
        }
        let first = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.range(first..))
    }
}
