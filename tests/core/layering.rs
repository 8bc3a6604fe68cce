//! The architecture, executed: who may import whom, who may read a clock or an error number, and how
//! long a file or a function may get.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// For each folder of `src/`, what it may import of the crate; `model` and itself always.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("plan", &[]),
    ("kernel", &[]),
    ("cluster", &[]),
    ("config", &["cluster"]),
    ("node", &[]),
    ("reconcile", &["plan", "kernel"]),
    ("status", &["reconcile", "plan"]),
    ("agent", &["plan", "kernel", "cluster", "config", "node", "reconcile", "status"]),
    ("lab", &["plan", "kernel", "cluster", "config", "node", "reconcile", "status", "agent", "logging"]),
    ("command", &["plan", "kernel", "cluster", "config", "node", "reconcile"]),
    ("logging", &["config"]),
    ("cli", &["config", "command", "agent", "lab", "logging"]),
];

/// Crates that only the shell may use; the core must build without them.
const SHELL_CRATES: &[&str] = &["tokio", "kube", "netlink_", "rtnetlink", "nix", "hyper", "socket2", "clap"];
const CORE: &[&str] = &["model", "plan", "reconcile"];

const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 60;

#[test]
fn every_folder_imports_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some(folder) = file.folder() else { continue };
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == folder);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("src/{folder} is not in the table of {}", file!()));
        for (line, target) in file.imports() {
            if target != folder && target != "model" && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{}:{line}: {folder} imports {target}", file.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_lists_only_folders_that_exist() {
    let folders: Vec<_> = sources().iter().filter_map(Source::folder).collect();
    for (name, allowed) in MAY_IMPORT {
        for name in allowed.iter().chain([name]) {
            assert!(folders.iter().any(|folder| folder == name), "src/{name} does not exist");
        }
    }
}

#[test]
fn the_core_uses_no_crate_of_the_shell() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.folder().is_some_and(|folder| CORE.contains(&folder.as_str()))) {
        for (number, line) in file.code() {
            if SHELL_CRATES.iter().any(|name| names_crate(line, name)) {
                wrong.push(format!("{}:{number}: {}", file.name(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_agent_and_the_lab_read_clocks() {
    let clocks = ["Instant::now", "SystemTime"];
    let mut wrong = lines_with(&clocks, |file| matches!(file.folder().as_deref(), None | Some("agent" | "lab")));
    // The list-watch loop waits between requests, for as long as it is told; the HTTP server when it
    // has no file descriptor left.
    let waits = ["sleep(", "sleep_until(", "time::interval"];
    wrong.extend(lines_with(&waits, |file| {
        matches!(file.folder().as_deref(), None | Some("agent" | "lab" | "cluster" | "status"))
    }));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_kernel_and_the_verdict_know_error_numbers() {
    let words = ["ENOENT", "ESRCH", "EEXIST", "ENODEV", "ENETDOWN", "EADDRNOTAVAIL", "EOPNOTSUPP", "EINVAL", "ENOBUFS"];
    let constants: Vec<String> = words.iter().flat_map(|word| [format!("const {word}"), format!("::{word}")]).collect();
    let constants: Vec<&str> = constants.iter().map(String::as_str).collect();
    // The lab reports why the host forbids it a user namespace; it decides nothing about tables.
    let may = |file: &Source| {
        matches!(file.folder().as_deref(), Some("kernel" | "lab")) || file.name() == "src/plan/verdict.rs"
    };
    let wrong = lines_with(&constants, may);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_file_has_unsafe_code() {
    // docs/decisions/0008-flannels-rules.md
    let wrong = lines_with(&["unsafe"], |file| file.name() == "src/kernel/legacy/sockopt.rs");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_400_lines() {
    let long: Vec<_> = sources()
        .iter()
        .map(|file| (file.product().len(), file.name()))
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .map(|(lines, name)| format!("{name}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_function_is_longer_than_60_lines() {
    let mut long = Vec::new();
    for file in sources() {
        for (name, at, lines) in functions(&file.product()) {
            if lines > LONGEST_FUNCTION {
                long.push(format!("{}:{at}: fn {name} has {lines} lines", file.name()));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let silent: Vec<_> = sources().iter().filter(|file| !file.text.starts_with("//!")).map(Source::name).collect();
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

/// The readers of this file can go wrong too: they are tried on text that breaks every rule.
mod readers {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn imports_are_found_alone_in_groups_and_in_paths() {
        let text = "use crate::plan;\nuse crate::{\n    kernel::Kernel,\n    model::{a, b},\n};\nfn f() { crate::agent::g() }\n// crate::lab\npub(in crate::node) fn h() {}\n";
        let found: Vec<_> = source("src/x/y.rs", text).imports().into_iter().map(|(_, name)| name).collect();
        assert_eq!(found, ["plan", "kernel", "model", "agent", "node"]);
    }

    #[test]
    fn tests_at_the_end_of_a_file_are_not_counted() {
        let file = source("src/x/y.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\nfn b() {}\n}\n");
        assert_eq!(file.product(), ["fn a() {}"]);
    }

    #[test]
    fn a_functions_length_is_counted_from_its_first_line_to_its_last() {
        let text = "impl X {\n    pub const fn a(\n        b: u8,\n    ) -> u8 {\n        b\n    }\n}\nfn c() {}\n";
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(functions(&lines), [("a".to_owned(), 2, 5), ("c".to_owned(), 8, 1)]);
    }

    #[test]
    fn a_crate_is_recognised_by_its_path_only() {
        assert!(names_crate("use tokio::sync::watch;", "tokio"));
        assert!(names_crate("let x = netlink_sys::Socket::new();", "netlink_"));
        assert!(!names_crate("let tokio_like = kernel::netlink::x();", "tokio"));
    }
}

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The folder (or file) right under `src/`; `None` for the crate's roots.
    fn folder(&self) -> Option<String> {
        let mut parts = self.path.components().skip(1).map(|part| part.as_os_str().to_string_lossy());
        let first = parts.next()?;
        let first = first.trim_end_matches(".rs");
        (!["lib", "main"].contains(&first)).then(|| first.to_owned())
    }

    /// The lines before the unit tests.
    fn product(&self) -> Vec<&str> {
        self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]").collect()
    }

    /// Numbered lines without comments, unit tests included: they are bound by the same table.
    fn code(&self) -> Vec<(usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")));
        lines.filter(|(_, line)| !line.trim().is_empty()).collect()
    }

    /// Modules named after `crate::`, with the line.
    fn imports(&self) -> Vec<(usize, String)> {
        let strip = |line: &str| line.split("//").next().unwrap_or("").to_owned();
        let text = self.text.lines().map(strip).collect::<Vec<_>>().join("\n");
        let mut found = Vec::new();
        for (at, _) in text.match_indices("crate::") {
            let line = text[..at].lines().count().max(1);
            let rest = &text[at + "crate::".len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => top_level(group),
                None => vec![rest],
            };
            found.extend(names.into_iter().map(first_word).filter(|name| !name.is_empty()).map(|name| (line, name)));
        }
        found
    }
}

/// The members of a `use` group, without what is nested in them.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0_i32, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

fn first_word(text: &str) -> String {
    text.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let word: String = line[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let path = line[at + word.len()..].starts_with("::") && (word == name || name.ends_with('_'));
        path && !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn lines_with(words: &[&str], may: impl Fn(&Source) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in sources().iter().filter(|file| !may(file)) {
        for (number, line) in file.code() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", file.name(), line.trim()));
            }
        }
    }
    found
}

/// Name, first line and length of every function; rustfmt puts a closing brace under its `fn`.
fn functions(lines: &[&str]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line.trim_start()) else { continue };
        let end = if line.trim_end().ends_with('}') || line.trim_end().ends_with(';') {
            Some(at)
        } else {
            let close = format!("{}}}", " ".repeat(indent));
            (at..lines.len()).find(|end| lines[*end] == close)
        };
        found.push((name, at + 1, end.unwrap_or(lines.len() - 1) - at + 1));
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line;
    for word in ["pub", "const", "async", "extern"] {
        if let Some(after) = rest.strip_prefix(word) {
            rest = after.trim_start();
            if rest.starts_with('(') {
                rest = rest.split_once(')')?.1.trim_start();
            }
        }
    }
    rest.strip_prefix("fn ").map(first_word)
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    walk(&root.join("src"), &mut |path| {
        let text = fs::read_to_string(path).expect("a source file is text");
        let path = path.strip_prefix(root).expect("it is below the root").to_owned();
        found.insert(path.clone(), Source { path, text });
    });
    assert!(found.len() > 20, "src/ was not found");
    found.into_values().collect()
}

fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            walk(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path);
        }
    }
}
