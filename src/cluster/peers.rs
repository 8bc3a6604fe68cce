//! The list of nodes as a value that events are applied to: pure, and the same by every path.
//!
//! A list is staged beside what is known and takes its place only when it is whole; until then what is
//! known stays in force. A list that breaks off leaves no trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::addr::Vni;
use crate::model::node::{NodeName, NodeRecord, OwnNode, Snapshot};

use super::node;
use super::wire::SlimNode;

/// Who we are among the nodes, and what we compare them with.
#[derive(Clone, Debug)]
pub struct Viewpoint {
    /// The name of our own Node.
    pub own: NodeName,
    /// Our VNI; `None` with the host-gw backend, which has none.
    pub vni: Option<Vni>,
}

/// A Node, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Somebody else.
    Other(NodeRecord),
    /// Ourselves.
    Own(OwnNode),
    /// An object without a name: it could be anybody.
    Nameless,
}

impl Viewpoint {
    /// Reads a Node.
    pub fn see(&self, node: &SlimNode<'_>) -> Seen {
        match node::name(node) {
            None => Seen::Nameless,
            Some(name) if name == self.own => Seen::Own(node::own(name, node)),
            Some(name) => Seen::Other(node::record(name, node, self.vni)),
        }
    }
}

/// The nodes, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    live: Snapshot,
    stage: Option<Stage>,
}

/// A list that is coming in.
#[derive(Clone, Debug, Default)]
struct Stage {
    nodes: BTreeMap<NodeName, Arc<NodeRecord>>,
    own: Option<Arc<OwnNode>>,
    nameless: usize,
}

impl Peers {
    /// A list begins; one that had begun before is forgotten.
    pub fn begin(&mut self) {
        self.stage = Some(Stage::default());
    }

    /// The list broke off.
    pub fn abandon(&mut self) {
        self.stage = None;
    }

    /// Whether a list is coming in.
    pub fn listing(&self) -> bool {
        self.stage.is_some()
    }

    /// A node is there and is so. Goes to the list that is coming in, if one is.
    ///
    /// Returns whether the snapshot changed.
    pub fn apply(&mut self, seen: Seen) -> bool {
        if let Some(stage) = &mut self.stage {
            stage.apply(seen, &self.live);
            return false;
        }
        let changed = match seen {
            Seen::Nameless => false,
            Seen::Own(own) if self.live.own.as_deref() == Some(&own) => false,
            Seen::Own(own) => {
                self.live.own = Some(Arc::new(own));
                true
            }
            Seen::Other(node) if self.live.nodes.get(&node.name).is_some_and(|known| **known == node) => false,
            Seen::Other(node) => {
                Arc::make_mut(&mut self.live.nodes).insert(node.name.clone(), Arc::new(node));
                true
            }
        };
        self.live.generation += u64::from(changed);
        changed
    }

    /// A node is gone. Goes to the list that is coming in, if one is.
    ///
    /// Returns whether the snapshot changed.
    pub fn delete(&mut self, name: &str) -> bool {
        if let Some(stage) = &mut self.stage {
            stage.nodes.remove(name);
            stage.own.take_if(|own| &*own.name == name);
            return false;
        }
        let changed = match &self.live.own {
            Some(own) if &*own.name == name => self.live.own.take().is_some(),
            _ => self.live.nodes.contains_key(name) && Arc::make_mut(&mut self.live.nodes).remove(name).is_some(),
        };
        self.live.generation += u64::from(changed);
        changed
    }

    /// The list that is coming in is whole: it takes the place of what was known.
    ///
    /// If it had an object without a name, nobody can say who is missing from it: then nobody is taken
    /// to be gone, and it does not count as a whole list.
    ///
    /// # Errors
    /// How many objects without a name there were.
    pub fn swap(&mut self) -> Result<(), usize> {
        let Some(mut stage) = self.stage.take() else { return Ok(()) };
        let whole = stage.nameless == 0;
        if !whole {
            for (name, node) in self.live.nodes.iter() {
                stage.nodes.entry(name.clone()).or_insert_with(|| node.clone());
            }
            stage.own = stage.own.or_else(|| self.live.own.clone());
        }
        let changed = stage.nodes != *self.live.nodes || stage.own != self.live.own || (whole && !self.live.complete);
        if changed {
            self.live.nodes = Arc::new(stage.nodes);
            self.live.own = stage.own;
            self.live.generation += 1;
        }
        if !whole {
            return Err(stage.nameless);
        }
        self.live.complete = true;
        self.live.lists += 1;
        Ok(())
    }

    /// What is known now.
    pub fn snapshot(&self) -> &Snapshot {
        &self.live
    }
}

impl Stage {
    /// Nodes that are as they were share their record with the snapshot: a relist of a cluster that
    /// did not change costs no memory that lasts.
    fn apply(&mut self, seen: Seen, live: &Snapshot) {
        match seen {
            Seen::Nameless => self.nameless += 1,
            Seen::Own(own) => {
                let known = live.own.as_ref().filter(|known| ***known == own).cloned();
                self.own = Some(known.unwrap_or_else(|| Arc::new(own)));
            }
            Seen::Other(node) => {
                let known = live.nodes.get(&node.name).filter(|known| ***known == node).cloned();
                self.nodes.insert(node.name.clone(), known.unwrap_or_else(|| Arc::new(node)));
            }
        }
    }
}
