//! Nodes, and lists of them, as they come over the wire: only what is used is kept, whatever else there
//! is and whatever shape it has.

use super::annotations::{Keys, shorten};
use super::condition::Status;
use super::json::{self, Fill};

/// No more pod CIDRs than this are kept of a Node; two are allowed.
pub const MAX_CIDRS: usize = 3;

/// What stands in the place of an annotation's value that is not a string. No annotation may be this.
pub const NOT_A_STRING: &str = "(not a string)";

/// The API server marks the bookmark that ends the initial events of a streaming list with this.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A Node object, as little of it as is used.
///
/// A real Node is about 20 kB of JSON, most of it images, conditions and managedFields; this is a few
/// hundred bytes, and lives only until [`super::node`] has read it.
#[derive(Clone, Debug)]
pub struct SlimNode<'k> {
    /// `metadata`.
    pub meta: Meta<'k>,
    /// `spec`.
    pub spec: Spec,
    /// `status`, one condition of it.
    pub status: Status,
}

/// `metadata` of a Node. What is missing is empty.
#[derive(Clone, Debug)]
pub struct Meta<'k> {
    /// `name`.
    pub name: String,
    /// `uid`.
    pub uid: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `creationTimestamp`.
    pub created: String,
    /// `annotations`, those that matter.
    pub annotations: Annotations<'k>,
}

/// `metadata.annotations` of a Node.
#[derive(Clone, Debug)]
pub struct Annotations<'k> {
    keys: &'k Keys,
    /// Those under our prefix, without it.
    pub ours: Vec<(String, Text)>,
    /// Whether this is the bookmark that ends the initial events of a streaming list.
    pub initial_events_end: bool,
}

/// `spec` of a Node. What is missing is empty.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// `podCIDR`.
    pub pod_cidr: String,
    /// `podCIDRs`.
    pub pod_cidrs: PodCidrs,
}

/// `spec.podCIDRs` of a Node.
#[derive(Clone, Debug, Default)]
pub struct PodCidrs {
    /// The first [`MAX_CIDRS`].
    pub first: Vec<Text>,
    /// How many there are.
    pub len: usize,
}

/// A text, or [`NOT_A_STRING`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl<'k> SlimNode<'k> {
    /// Nothing yet; annotations will be kept if they have the prefix of `keys`.
    pub fn new(keys: &'k Keys) -> Self {
        let annotations = Annotations { keys, ours: Vec::new(), initial_events_end: false };
        let meta = Meta {
            name: String::new(),
            uid: String::new(),
            resource_version: String::new(),
            created: String::new(),
            annotations,
        };
        Self { meta, spec: Spec::default(), status: Status::default() }
    }

    /// Reads one Node object.
    ///
    /// # Errors
    /// If it is not JSON. No shape that JSON may have is an error.
    pub fn read(keys: &'k Keys, json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut node = Self::new(keys);
        json::fill(&mut node, json)?;
        Ok(node)
    }

    /// The value of an annotation, by its key without the prefix.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.meta.annotations.ours.iter().find(|(k, _)| k == key).map(|(_, value)| value.0.as_str())
    }
}

impl Fill for SlimNode<'_> {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "metadata" => Some(&mut self.meta),
            "spec" => Some(&mut self.spec),
            "status" => Some(&mut self.status),
            _ => None,
        }
    }
}

impl Fill for Meta<'_> {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "name" => Some(&mut self.name),
            "uid" => Some(&mut self.uid),
            "resourceVersion" => Some(&mut self.resource_version),
            "creationTimestamp" => Some(&mut self.created),
            "annotations" => Some(&mut self.annotations),
            _ => None,
        }
    }
}

impl Fill for Annotations<'_> {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        if key == INITIAL_EVENTS_END {
            self.initial_events_end = true;
        }
        let key = self.keys.strip(key)?;
        self.ours.retain(|(other, _)| other != key);
        self.ours.push((key.to_owned(), Text::default()));
        self.ours.last_mut().map(|(_, value)| value as &mut dyn Fill)
    }
}

impl Fill for Spec {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "podCIDR" => Some(&mut self.pod_cidr),
            "podCIDRs" => Some(&mut self.pod_cidrs),
            _ => None,
        }
    }
}

impl Fill for PodCidrs {
    fn item(&mut self) -> Option<&mut dyn Fill> {
        self.len += 1;
        if self.len > MAX_CIDRS {
            return None;
        }
        self.first.push(Text::default());
        self.first.last_mut().map(|cidr| cidr as &mut dyn Fill)
    }
}

impl Default for Text {
    fn default() -> Self {
        Self(NOT_A_STRING.to_owned())
    }
}

impl Fill for Text {
    fn text(&mut self, text: &str) {
        text.clone_into(&mut self.0);
    }
}

/// One page of a list of Nodes.
#[derive(Clone, Debug)]
pub struct Page<'k> {
    kind: String,
    /// `metadata` of the list itself.
    pub meta: PageMeta,
    /// `items`.
    pub items: Items<'k>,
}

/// `items` of a list.
#[derive(Clone, Debug)]
pub struct Items<'k> {
    keys: &'k Keys,
    /// Whether they are there, as a list: `null` or an object must not pass for an empty cluster.
    present: bool,
    /// The Nodes.
    pub nodes: Vec<SlimNode<'k>>,
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default)]
pub struct PageMeta {
    /// `resourceVersion`: where a watch goes on.
    pub resource_version: String,
    /// `continue`: the token of the next page; empty on the last.
    pub next: String,
}

/// Why something is not a list of Nodes.
#[derive(Debug, thiserror::Error)]
pub enum NotAList {
    /// No JSON, or cut short.
    #[error("not whole JSON ({0})")]
    Json(#[from] serde_json::Error),
    /// Another kind of object.
    #[error("a {0:?} in the place of a list of Nodes")]
    Kind(Box<str>),
    /// None, or no list of them. An empty object must never pass for an empty cluster.
    #[error("a list without items")]
    NoItems,
    /// No watch could go on from it.
    #[error("a list without a resourceVersion")]
    NoVersion,
}

impl<'k> Page<'k> {
    /// Reads one page, as the API server sends it.
    ///
    /// # Errors
    /// If it is not a list that a watch can go on from.
    pub fn read(keys: &'k Keys, json: &[u8]) -> Result<Self, NotAList> {
        let page = Self::read_file(keys, json)?;
        if page.meta.resource_version.is_empty() { Err(NotAList::NoVersion) } else { Ok(page) }
    }

    /// Reads a list that somebody saved: `kubectl get nodes -o json` gives it no resourceVersion.
    ///
    /// # Errors
    /// If it is not a list.
    pub fn read_file(keys: &'k Keys, json: &[u8]) -> Result<Self, NotAList> {
        let items = Items { keys, present: false, nodes: Vec::new() };
        let mut page = Self { kind: String::new(), meta: PageMeta::default(), items };
        json::fill(&mut page, json)?;
        match &*page.kind {
            "" | "NodeList" | "List" if page.items.present => Ok(page),
            "" | "NodeList" | "List" => Err(NotAList::NoItems),
            other => Err(NotAList::Kind(shorten(other))),
        }
    }
}

impl Fill for Page<'_> {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "kind" => Some(&mut self.kind),
            "metadata" => Some(&mut self.meta),
            "items" => Some(&mut self.items),
            _ => None,
        }
    }
}

impl Fill for PageMeta {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "resourceVersion" => Some(&mut self.resource_version),
            "continue" => Some(&mut self.next),
            _ => None,
        }
    }
}

impl Fill for Items<'_> {
    fn list(&mut self) {
        self.present = true;
    }

    fn item(&mut self) -> Option<&mut dyn Fill> {
        self.nodes.push(SlimNode::new(self.keys));
        self.nodes.last_mut().map(|node| node as &mut dyn Fill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::annotations::DEFAULT_PREFIX;

    #[test]
    fn only_a_json_array_is_a_list_of_nodes() {
        let keys = Keys::new(DEFAULT_PREFIX).expect("a prefix");
        let read = |items: &str| {
            let list = format!(r#"{{"kind":"NodeList","metadata":{{"resourceVersion":"1"}},"items":{items}}}"#);
            Page::read(&keys, list.as_bytes()).map(|page| page.items.nodes.len())
        };
        for garbage in ["null", "{}", r#"{"a":[]}"#, "5", "-5", "0.5", "true", r#""""#] {
            assert!(matches!(read(garbage), Err(NotAList::NoItems)), "{garbage}");
        }
        assert_eq!(read("[]").ok(), Some(0));
        assert_eq!(read("[{}, null]").ok(), Some(2));
    }
}
