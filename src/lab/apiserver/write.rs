//! POST, PUT, PATCH and DELETE, from body to stored object.

use serde_json::{Value, json};

use super::managed::{self, Manager};
use super::object;
use super::patch;
use super::route::{Resource, Version};
use super::status::Failure;
use super::store::{Object, Store};

/// One write request.
pub(super) struct Write<'a> {
    /// Of what.
    pub(super) resource: Resource,
    /// In which version the body is.
    pub(super) version: Version,
    /// By whom.
    pub(super) manager: Manager,
    /// `dryRun` was asked for: everything but the writing.
    pub(super) dry_run: bool,
    /// The body.
    pub(super) body: &'a [u8],
}

impl Write<'_> {
    /// POST.
    pub(super) fn create(&self, store: &mut Store, namespace: Option<&str>) -> Result<Object, Failure> {
        let mut new = object::decode(self.body)?;
        object::normalise(self.resource, self.version, &mut new);
        let name = self.name(&mut new)?;
        object::check_name(self.resource, &name)?;
        let key = namespace.map_or_else(|| name.clone(), |space| format!("{space}/{name}"));
        if store.get(self.resource, &key).is_some() {
            return Err(Failure::exists(self.resource.plural(), &name));
        }
        if let Some(space) = namespace {
            object::check_event(&name, space, &new)?;
            new["metadata"]["namespace"] = space.into();
        }
        managed::track(None, &mut new, &self.manager, &object::now());
        Ok(self.store(store, &key, None, new))
    }

    fn name(&self, new: &mut Value) -> Result<String, Failure> {
        if let Some(name) = new["metadata"]["name"].as_str() {
            return Ok(name.to_owned());
        }
        let Some(prefix) = new["metadata"]["generateName"].as_str() else {
            let problem = "metadata.name: Required value: name or generateName is required";
            return Err(Failure::invalid(self.resource.kind(), "", problem));
        };
        let name = format!("{prefix}{}", object::uid().get(..5).unwrap_or("00000"));
        new["metadata"]["name"] = name.clone().into();
        Ok(name)
    }

    /// PUT.
    pub(super) fn update(&self, store: &mut Store, key: &str) -> Result<Object, Failure> {
        let old = self.existing(store, key)?;
        let mut new = object::decode(self.body)?;
        object::normalise(self.resource, self.version, &mut new);
        if new["metadata"]["name"] != old["metadata"]["name"] {
            return Err(Failure::bad_request("the name of the object does not match the name on the URL"));
        }
        if object::has_another_uid(&old, &new) {
            return Err(Failure::conflict(self.resource.plural(), key));
        }
        self.replace(store, key, &old, new)
    }

    /// PATCH.
    pub(super) fn patch(&self, store: &mut Store, key: &str, content_type: &str) -> Result<Object, Failure> {
        let old = self.existing(store, key)?;
        let mut new = old.clone();
        patch::apply(content_type, &mut new, self.body)?;
        let invalid = |problem| Failure::invalid("", "", &format!("patch: Invalid value: {problem}"));
        object::check_types(&new).map_err(invalid)?;
        object::normalise(self.resource, self.version, &mut new);
        self.replace(store, key, &old, new)
    }

    fn existing(&self, store: &Store, key: &str) -> Result<Value, Failure> {
        let name = key.rsplit('/').next().unwrap_or(key);
        store.get(self.resource, key).map(Object::value).ok_or_else(|| Failure::no_object(self.resource.plural(), name))
    }

    /// The common end of PUT and PATCH.
    fn replace(&self, store: &mut Store, key: &str, old: &Value, mut new: Value) -> Result<Object, Failure> {
        let name = key.rsplit('/').next().unwrap_or(key);
        let version = &new["metadata"]["resourceVersion"];
        if !version.is_null() && *version != old["metadata"]["resourceVersion"] {
            return Err(Failure::conflict(self.resource.plural(), name));
        }
        if self.resource == Resource::Nodes {
            // Metadata may be written through both ways; flanneld annotates through /status.
            let other = if self.manager.status { "spec" } else { "status" };
            new[other] = old[other].clone();
        }
        object::check_update(self.resource, name, old, &new)?;
        object::keep_identity(old, &mut new);
        if new == *old {
            // Nothing changed: no write, no event, the same resourceVersion.
            return store
                .get(self.resource, key)
                .cloned()
                .ok_or_else(|| Failure::no_object(self.resource.plural(), name));
        }
        managed::track(Some(old), &mut new, &self.manager, &object::now());
        Ok(self.store(store, key, Some(old), new))
    }

    fn store(&self, store: &mut Store, key: &str, old: Option<&Value>, mut new: Value) -> Object {
        object::stamp(old, &mut new, store.next_revision());
        if self.dry_run {
            return Object { json: new.to_string().into(), revision: store.revision() };
        }
        store.put(self.resource, key, &new)
    }

    /// DELETE; preconditions of the body are honoured.
    pub(super) fn delete(&self, store: &mut Store, key: &str) -> Result<Value, Failure> {
        let old = self.existing(store, key)?;
        let options: Value = serde_json::from_slice(self.body).unwrap_or_default();
        let name = key.rsplit('/').next().unwrap_or(key);
        for field in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][field];
            if !wanted.is_null() && *wanted != old["metadata"][field] {
                return Err(Failure::conflict(self.resource.plural(), name));
            }
        }
        if !self.dry_run {
            store.remove(self.resource, key);
        }
        let details = json!({ "name": name, "kind": self.resource.plural(), "uid": old["metadata"]["uid"] });
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details }))
    }
}
