//! `/metrics`: the whole page, and that the documentation knows each metric.

use std::collections::BTreeSet;
use std::path::Path;

use weft::status::View;
use weft::status::metrics::render;
use weft::status::notices::stories::Reason;

use crate::world::{World, assert_expected};

#[test]
fn the_page_is_as_expected() {
    let mut world = World::with_trouble();
    world.pass();
    world.flush_routes();
    world.refuse(1, 1);
    world.pass();
    assert_expected("metrics.txt", &render(&world.view()));
}

#[test]
fn a_node_that_never_took_part_is_seen_by_its_metrics() {
    let mut world = World::with_peers(1);
    let ready = |view: &View| {
        let page = render(view);
        page.lines().find_map(|line| line.strip_prefix("weft_ready ")).expect("weft_ready").to_owned()
    };
    assert_eq!(ready(&world.view()), "0");
    world.pass();
    let mut view = world.view();
    assert_eq!(ready(&view), "1");
    view.unready.push("our annotations are not on our Node yet".to_owned());
    assert_eq!(ready(&view), "0");
}

/// Its name, and its type.
fn metrics(page: &str) -> BTreeSet<(String, String)> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

fn values(page: &str) -> BTreeSet<&str> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
}

#[test]
fn counters_are_there_before_anything_has_happened() {
    let mut world = World::with_trouble();
    let before = render(&world.view());
    world.pass();
    world.flush_routes();
    world.refuse(1, 1);
    world.pass();
    let after = render(&world.view());
    let appeared: Vec<_> = values(&after).difference(&values(&before)).copied().collect();
    assert!(appeared.iter().all(|name| name.starts_with("weft_last_verified")), "{appeared:?}");
}

#[test]
fn every_value_has_a_name_once_and_the_page_ends() {
    let mut world = World::with_trouble();
    world.pass();
    let page = render(&world.view());
    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(lines, values(&page).len(), "a name is there twice");
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let text = std::fs::read_to_string(path).expect("docs/operating.md");
    let documented: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.split('{').next().unwrap_or(name).to_owned())
        .filter(|name| (name.starts_with("weft_") || name.starts_with("process_")) && !name.contains(' '))
        .collect();
    let exist: BTreeSet<String> = metrics(&render(&World::new().view()))
        .into_iter()
        .map(|(name, kind)| match kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name,
        })
        .collect();
    assert_eq!(documented, exist);
}

#[test]
fn every_reason_of_an_event_is_documented_and_every_documented_one_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let text = std::fs::read_to_string(path).expect("docs/operating.md");
    let (_, section) = text.split_once("\n## Events\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("another after it");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<&str> = rows.map(|(reason, _)| reason).collect();
    let ends = Reason::ALL.iter().filter_map(|reason| reason.end()).map(|(word, _)| word);
    let exist: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.word()).chain(ends).collect();
    assert_eq!(documented, exist);
}
