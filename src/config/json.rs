//! JSON objects as Go reads them, since that is what wrote the files that exist.
//!
//! flannel decodes with Go's `encoding/json`: keys match whatever their case, the last of several
//! wins, and `null` leaves a setting as it was. `serde_json::Value` keeps neither order nor
//! duplicates, so objects are read into a list of pairs here.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A JSON value whose objects keep every key as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    /// An object, its members in the order of the text.
    Object(Vec<(String, Json)>),
    /// Anything else.
    Plain(Value),
}

impl fmt::Display for Json {
    /// As JSON, shortened to what fits into a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        match self {
            Self::Object(_) => f.write_str("an object"),
            Self::Plain(value) => {
                let text = value.to_string();
                match text.char_indices().nth(LONGEST) {
                    Some((end, _)) => write!(f, "{}…", &text[..end]),
                    None => f.write_str(&text),
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Json::Plain(Value::Array(values)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Plain(Value::Null))
    }
}

/// The members of an object, taken out one setting at a time; what is left over was not known.
#[derive(Debug)]
pub(super) struct Fields {
    /// What stands before a key in messages: empty, or `Backend.`.
    path: &'static str,
    members: Vec<(String, Json)>,
}

impl Fields {
    /// Members that are `null` are dropped: to Go they change nothing.
    pub(super) fn new(path: &'static str, mut members: Vec<(String, Json)>) -> Self {
        members.retain(|(_, value)| *value != Json::Plain(Value::Null));
        Self { path, members }
    }

    /// The full name of a key, for messages.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// Takes a setting out: the last of those whose key is the same but for case.
    pub(super) fn take(&mut self, key: &str, notices: &mut Vec<String>) -> Option<Json> {
        let (mut found, rest) =
            std::mem::take(&mut self.members).into_iter().partition::<Vec<_>, _>(|(name, _)| same_key(name, key));
        self.members = rest;
        if found.len() > 1 {
            notices.push(format!("{} is given {} times; the last one counts", self.name(key), found.len()));
        }
        found.pop().map(|(_, value)| value)
    }

    /// The keys that nobody took, as written.
    pub(super) fn leftovers(&self) -> impl Iterator<Item = String> + '_ {
        self.members.iter().map(|(key, _)| self.name(key))
    }
}

/// Go's `encoding/json` folds case as Unicode does; of the letters in our keys only `k` and `s` have a
/// relative outside ASCII (the Kelvin sign and the long s).
fn same_key(written: &str, key: &str) -> bool {
    let fold = |c: char| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    };
    written.chars().map(fold).eq(key.chars().map(fold))
}
