//! What a request is for: its path and query, parsed once.

use http::Method;

use super::status::Failure;

/// What is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// `nodes`, not namespaced.
    Nodes,
    /// `events`, namespaced; the same objects under `v1` and `events.k8s.io/v1`.
    Events,
}

impl Resource {
    /// The word in the path.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Events => "events",
        }
    }

    /// The word in the object.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "Node",
            Self::Events => "Event",
        }
    }
}

/// Which thing of the API a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A document that never changes: discovery, version, API description, health.
    Document,
    /// All objects of a resource (in a namespace).
    Collection(Resource, Option<String>),
    /// One object by its key, or its status alone.
    Object(Resource, String, bool),
    /// A resource that kubectl asks for and that is always empty here.
    Empty(&'static str),
}

/// A resource's API version, as the path named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// `v1`.
    Core,
    /// `events.k8s.io/v1`.
    Events,
}

impl Version {
    /// `apiVersion` in objects.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Core => "v1",
            Self::Events => "events.k8s.io/v1",
        }
    }
}

/// Parses a path.
pub(super) fn target(path: &str) -> Result<(Target, Version), Failure> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (version, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] if !rest.is_empty() => (Version::Core, rest),
        ["apis", "events.k8s.io", "v1", rest @ ..] if !rest.is_empty() => (Version::Events, rest),
        _ => return Ok((Target::Document, Version::Core)),
    };
    let target = match (version, rest) {
        (Version::Core, ["nodes"]) => Target::Collection(Resource::Nodes, None),
        (Version::Core, ["nodes", name]) => Target::Object(Resource::Nodes, decode(name), false),
        (Version::Core, ["nodes", name, "status"]) => Target::Object(Resource::Nodes, decode(name), true),
        (_, ["events"]) => Target::Collection(Resource::Events, None),
        (_, ["namespaces", space, "events"]) => Target::Collection(Resource::Events, Some(decode(space))),
        (_, ["namespaces", space, "events", name]) => {
            Target::Object(Resource::Events, format!("{}/{}", decode(space), decode(name)), false)
        }
        (Version::Core, ["pods"] | ["namespaces", _, "pods"]) => Target::Empty("PodList"),
        _ => return Err(Failure::no_path()),
    };
    Ok((target, version))
}

/// A query string, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what stands after the `?`.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// A parameter that is true: `true` or `1`.
    pub(super) fn is(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1"))
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Failure> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Failure::bad_request(format!("{key}: Invalid value: {text:?}: not a number")))
        };
        self.get(key).map(parse).transpose()
    }
}

/// Undoes percent-encoding (and `+` for a space); what is malformed stays as it stands.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match (escaped, first) {
            (Some(byte), _) => out.push(byte),
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(*byte),
        }
        rest = tail.get(if escaped.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The kinds of request: what faults and counters tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// A first page, or a whole list.
    List,
    /// A further page.
    Continue,
    /// A watch that starts from a revision.
    Watch,
    /// A watch that brings the list with it (`sendInitialEvents=true`).
    StreamingList,
    /// GET of one object.
    Get,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH, of an object or its status.
    Patch,
    /// DELETE.
    Delete,
    /// Discovery, version, API description, health.
    Document,
}

impl Verb {
    pub(super) fn of(method: &Method, target: &Target, query: &Query) -> Result<Self, Failure> {
        let verb = match (method.as_str(), target) {
            ("GET" | "HEAD", Target::Document) => Self::Document,
            ("GET", Target::Collection(..) | Target::Empty(_)) if query.is("watch") => {
                if query.is("sendInitialEvents") { Self::StreamingList } else { Self::Watch }
            }
            ("GET", Target::Collection(..) | Target::Empty(_)) if query.get("continue").is_some() => Self::Continue,
            ("GET", Target::Collection(..) | Target::Empty(_)) => Self::List,
            ("GET", Target::Object(..)) => Self::Get,
            ("POST", Target::Collection(..)) => Self::Create,
            ("PUT", Target::Object(..)) => Self::Update,
            ("PATCH", Target::Object(..)) => Self::Patch,
            ("DELETE", Target::Object(_, _, false)) => Self::Delete,
            _ => return Err(Failure::no_method()),
        };
        Ok(verb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_garbage_stays() {
        let query = Query::parse("fieldSelector=metadata.name%3Dnode-1&watch=1&x=%zz%4&empty=&a+b=c%20d");
        assert_eq!(query.get("fieldSelector"), Some("metadata.name=node-1"));
        assert!(query.is("watch"));
        assert_eq!(query.get("x"), Some("%zz%4"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("a b"), Some("c d"));
    }
}
