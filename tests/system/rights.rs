//! The role that is shipped allows what the agent asks the API server for, all of it and no more.

use std::collections::BTreeSet;

use serde_json::Value;
use weft::lab::apiserver::{Action, Logged, Verb};

use crate::stage::{SOON, annotate};
use crate::world::{World, within};

crate::tests![the_role_allows_what_the_agent_asks_for_and_no_more];

/// API group, resource with its subresource, verb: in the words of RBAC.
type Right = (String, String, String);

fn needed(request: &Logged) -> Right {
    let verb = match request.verb {
        Verb::List | Verb::Continue => "list",
        Verb::Watch | Verb::StreamingList => "watch",
        Verb::Get | Verb::Document => "get",
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
    };
    let parts: Vec<&str> = request.path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => panic!("{} is no resource", request.path),
    };
    let rest = if let ["namespaces", _, rest @ ..] = rest { rest } else { rest };
    let resource = match rest {
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, part] => format!("{resource}/{part}"),
        _ => panic!("{} is no resource", request.path),
    };
    (group.to_owned(), resource, verb.to_owned())
}

fn allowed() -> BTreeSet<Right> {
    let yaml = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/base/rbac.yaml"));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml.expect("the file")).expect("YAML");
    let roles = objects.iter().filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
    let words = |list: &Value| -> Vec<String> {
        let all = list.as_array().expect("a list");
        all.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().expect("rules")) {
        assert!(rule.as_object().is_some_and(|rule| rule.len() == 3), "{rule} says more than this test reads");
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                rights.extend(words(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    rights
}

fn the_role_allows_what_the_agent_asks_for_and_no_more() {
    let mut world = World::with_peers(2);
    // Somebody has to be told of this.
    world.api.patch_node("node-1", annotate("backend-data", "nonsense"));
    world.start();
    let allowed = allowed();
    let told = allowed.iter().any(|(_, resource, _)| resource == "events");
    if told {
        within(SOON, "an Event", || if world.api.events().is_empty() { Err("none") } else { Ok(()) });
    }
    assert!(world.take_agent().terminate().success());
    // An older API server, and an Event that is there already.
    world.api.inject(&[Verb::StreamingList], Action::RefuseStreaming, None);
    world.start();
    if told {
        within(SOON, "the Event is told again", || {
            let again = |it: &Logged| it.verb == Verb::Patch && it.path.contains("/events/");
            if world.api.log().iter().any(again) { Ok(()) } else { Err("not yet") }
        });
    }
    let asked: BTreeSet<Right> = world.api.log().iter().map(needed).collect();
    assert_eq!(asked, allowed, "asked for, and allowed");
}
