//! LIST: from which revision, which page, in which form.

use bytes::Bytes;
use serde_json::json;

use super::fault::Action;
use super::render::Render;
use super::route::Query;
use super::selector::Selector;
use super::status::Failure;
use super::store::{Object, Store};

/// An object that no client can take for a Node.
pub(super) const UNDECODABLE: &[u8] = br#"{"metadata":"this is no object","spec":[1,2,3]}"#;

/// Which objects are asked for.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// Of this namespace, if one is named.
    pub(super) namespace: Option<String>,
    /// That match.
    pub(super) selector: Selector,
}

impl Filter {
    /// Whether it lets everything through.
    const fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.namespace.is_none()
    }

    /// Whether it lets an object through.
    pub(super) fn admits(&self, object: &Object) -> bool {
        if self.is_empty() {
            return true;
        }
        let value = object.value();
        let space = self.namespace.as_ref().is_none_or(|space| value["metadata"]["namespace"] == space.as_str());
        space && self.selector.admits(&value)
    }
}

/// Where a list starts, and at which revision.
struct Start {
    revision: u64,
    after: Option<String>,
    limit: usize,
}

/// The answer, in pieces that share the stored texts.
pub(super) fn list(
    store: &Store,
    render: Render,
    query: &Query,
    filter: &Filter,
    fault: Option<&Action>,
) -> Result<Vec<Bytes>, Failure> {
    let start = start(store, query)?;
    let objects = store.at(render.resource, start.revision).map_err(|gone| match start.after {
        Some(_) => Failure::expired_page(),
        None => Failure::expired(start.revision, gone.oldest),
    })?;
    let after = |key: &str| start.after.as_deref().is_none_or(|after| key > after);
    let matching = objects.iter().filter(|(key, object)| after(key) && filter.admits(object));
    let mut page: Vec<_> = matching.clone().take(start.limit).collect();
    let mut meta = json!({ "resourceVersion": start.revision.to_string() });
    let left = if page.len() < start.limit { 0 } else { matching.count() - page.len() };
    if let (Some((last, _)), true) = (page.last(), left > 0) {
        meta["continue"] = format!("{}~{last}", start.revision).into();
        if filter.is_empty() {
            meta["remainingItemCount"] = left.into();
        }
    }
    if fault == Some(&Action::HalfList) {
        page = page.into_iter().step_by(2).collect();
    }
    let mut items: Vec<Bytes> = page.into_iter().map(|(_, object)| render.item(object)).collect();
    if fault == Some(&Action::Undecodable) {
        items.push(Bytes::from_static(UNDECODABLE));
    }
    let (head, tail) = render.frame(&meta);
    Ok(pieces(head, items, tail))
}

fn pieces(head: String, items: Vec<Bytes>, tail: &'static str) -> Vec<Bytes> {
    let mut out = vec![Bytes::from(head)];
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(Bytes::from_static(b","));
        }
        out.push(item);
    }
    out.push(Bytes::from_static(tail.as_bytes()));
    out
}

/// The rules of "Resource versions" in the Kubernetes API concepts, for lists.
fn start(store: &Store, query: &Query) -> Result<Start, Failure> {
    let limit = match query.number("limit")? {
        None | Some(0) => usize::MAX,
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    if let Some(token) = query.get("continue") {
        let parsed = token.split_once('~').and_then(|(revision, key)| Some((revision.parse().ok()?, key.to_owned())));
        let (revision, after) =
            parsed.ok_or_else(|| Failure::bad_request(format!("continue key is not valid: {token:?}")))?;
        return Ok(Start { revision, after: Some(after), limit });
    }
    let asked = query.number("resourceVersion")?;
    let current = store.revision();
    if let Some(asked) = asked.filter(|asked| *asked > current) {
        return Err(Failure::too_new(asked, current));
    }
    let exact = match (query.get("resourceVersionMatch"), asked) {
        (Some("Exact"), Some(0) | None) => {
            return Err(options("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""));
        }
        (Some("Exact"), Some(_)) => true,
        (Some("NotOlderThan"), Some(_)) => false,
        (Some("NotOlderThan"), None) => {
            return Err(options("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        (Some(other), _) => return Err(options(&format!("resourceVersionMatch: Unsupported value: {other:?}"))),
        (None, asked) => asked.is_some_and(|asked| asked > 0) && limit != usize::MAX,
    };
    // A server answers resourceVersion=0 from its cache, which knows no pages.
    let limit = if asked == Some(0) { usize::MAX } else { limit };
    Ok(Start { revision: asked.filter(|_| exact).unwrap_or(current), after: None, limit })
}

fn options(problem: &str) -> Failure {
    Failure::invalid("ListOptions", "", problem)
}
