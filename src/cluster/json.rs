//! Reading JSON of which only a little is wanted, and which may have any shape.
//!
//! A derived `Deserialize` fails a whole list for one member of the wrong type. Here a value says
//! which members it wants and takes what it can use of them; everything else, of whatever shape, is
//! skipped without being stored. Only text that is no JSON at all is an error.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Something that can be filled from a JSON value. Each method is a shape that the value may have; a
/// shape that is not wanted is passed over.
pub(super) trait Fill {
    /// The value is this string.
    fn text(&mut self, _text: &str) {}

    /// The value is this number, whole and not negative.
    fn number(&mut self, _number: u64) {}

    /// The value is a list, an object, a boolean, null or any other number.
    fn other(&mut self) {}

    /// The value is a list, empty or not.
    fn list(&mut self) {
        self.other();
    }

    /// The value is an object with this member: where its value goes, if it is wanted.
    fn member(&mut self, _key: &str) -> Option<&mut dyn Fill> {
        None
    }

    /// The value is a list with one more item: where it goes, if it is wanted.
    fn item(&mut self) -> Option<&mut dyn Fill> {
        None
    }
}

/// The text of a string.
impl Fill for String {
    fn text(&mut self, text: &str) {
        self.clear();
        self.push_str(text);
    }
}

/// Reads one JSON document.
///
/// # Errors
/// If it is not JSON: cut short, or something else altogether.
pub(super) fn fill(target: &mut dyn Fill, json: &[u8]) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Value(target).deserialize(&mut reader)?;
    reader.end()
}

/// A value on its way to where it goes.
struct Value<'a>(&'a mut dyn Fill);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.text(text);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.0.number(number);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.other();
        while let Some(place) = map.next_key_seed(Key(&mut *self.0))? {
            match place {
                Some(place) => map.next_value_seed(Value(place))?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.list();
        while seq.next_element_seed(Item(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// A key, exchanged for the place where its value goes.
struct Key<'a>(&'a mut dyn Fill);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a mut dyn Fill>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a mut dyn Fill>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.member(key))
    }
}

/// An item of a list: its place is asked for only once it is known to be there.
struct Item<'a>(&'a mut dyn Fill);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.0.item() {
            Some(place) => Value(place).deserialize(from),
            None => from.deserialize_ignored_any(IgnoredAny).map(drop),
        }
    }
}
