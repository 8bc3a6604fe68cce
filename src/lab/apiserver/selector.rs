//! Label and field selectors.

use serde_json::Value;

use super::route::Query;
use super::status::Failure;

/// What a list or a watch is narrowed to. Empty lets everything through.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    /// JSON pointer of the value.
    path: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`.
    pub(super) fn parse(query: &Query) -> Result<Self, Failure> {
        let mut terms = Vec::new();
        for text in query.get("fieldSelector").into_iter().flat_map(|text| text.split(',')) {
            terms.push(equality(text, |key| format!("/{}", key.replace('.', "/"))).ok_or_else(|| bad(text))?);
        }
        for text in query.get("labelSelector").into_iter().flat_map(requirements) {
            terms.push(label(text.trim()).ok_or_else(|| bad(text))?);
        }
        Ok(Self { terms })
    }

    /// Whether it lets everything through.
    pub(super) const fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it lets an object through.
    pub(super) fn admits(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| term.admits(object.pointer(&term.path)))
    }
}

impl Term {
    fn admits(&self, value: Option<&Value>) -> bool {
        let text = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        match &self.test {
            Test::In(values) => values.contains(&text.unwrap_or_default()),
            Test::NotIn(values) => !values.contains(&text.unwrap_or_default()),
            Test::Exists => text.is_some(),
            Test::Missing => text.is_none(),
        }
    }
}

fn bad(text: &str) -> Failure {
    Failure::bad_request(format!("unable to parse requirement: {text:?}"))
}

/// Splits at commas outside of parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let split = |symbol: char| {
        depth += i32::from(symbol == '(') - i32::from(symbol == ')');
        symbol == ',' && depth == 0
    };
    text.split(split).collect()
}

fn label_path(key: &str) -> String {
    format!("/metadata/labels/{}", key.trim().replace('~', "~0").replace('/', "~1"))
}

fn label(text: &str) -> Option<Term> {
    if let Some((key, values)) = text.split_once(" notin ") {
        return Some(Term { path: label_path(key), test: Test::NotIn(set(values)?) });
    }
    if let Some((key, values)) = text.split_once(" in ") {
        return Some(Term { path: label_path(key), test: Test::In(set(values)?) });
    }
    if text.contains('=') {
        return equality(text, label_path);
    }
    match text.strip_prefix('!') {
        Some(key) if !key.is_empty() => Some(Term { path: label_path(key), test: Test::Missing }),
        None if !text.is_empty() => Some(Term { path: label_path(text), test: Test::Exists }),
        _ => None,
    }
}

fn set(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

fn equality(text: &str, path: impl Fn(&str) -> String) -> Option<Term> {
    let split = |by: &str| text.split_once(by).map(|(key, value)| (path(key.trim()), vec![value.trim().to_owned()]));
    if let Some((path, values)) = split("!=") {
        return Some(Term { path, test: Test::NotIn(values) });
    }
    let (path, values) = split("==").or_else(|| split("="))?;
    Some(Term { path, test: Test::In(values) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_say_what_kubectl_means_by_them() {
        let node = json!({"metadata": {"name": "a", "labels": {"zone": "x", "k8s.io/role": "w"}}, "spec": {"unschedulable": true}});
        let admits = |query: &str| Selector::parse(&Query::parse(query)).expect("a selector").admits(&node);
        for yes in [
            "labelSelector=zone%3Dx,k8s.io/role",
            "labelSelector=zone in (x,y),!gone",
            "labelSelector=zone notin (y)",
            "fieldSelector=metadata.name=a",
            "fieldSelector=spec.unschedulable=true",
            "labelSelector=zone!=y",
            "",
        ] {
            assert!(admits(yes), "{yes}");
        }
        for no in
            ["labelSelector=zone=y", "labelSelector=!zone", "fieldSelector=metadata.name!=a", "labelSelector=none"]
        {
            assert!(!admits(no), "{no}");
        }
        assert!(Selector::parse(&Query::parse("labelSelector=!")).is_err());
    }
}
