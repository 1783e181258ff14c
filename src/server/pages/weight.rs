//! What a JSON text takes in memory as values: a hundred times its length, if a run wants that.

use std::cell::Cell;
use std::fmt;
use std::io::Read;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The most that a text may take that is shown, in bytes.
const MOST: u64 = 192 * 1024 * 1024;

/// What a value takes besides its text, and an object besides its members.
const OF_VALUE: u64 = 64;
const OF_OBJECT: u64 = 640;

/// Whether the values of a text take little memory.
///
/// # Errors
/// It is no JSON.
pub(super) fn is_light(json: impl Read) -> serde_json::Result<bool> {
    let left = Cell::new(Some(MOST));
    let mut json = serde_json::Deserializer::from_reader(json);
    match Weigher(&left).deserialize(&mut json) {
        Err(_) if left.get().is_none() => Ok(false),
        weighed => weighed.map(|()| true),
    }
}

/// Takes what each value weighs from what is left; nothing is once it was too much.
#[derive(Clone, Copy)]
struct Weigher<'a>(&'a Cell<Option<u64>>);

impl Weigher<'_> {
    fn take<E: Error>(self, bytes: u64) -> Result<(), E> {
        self.0.set(self.0.get().and_then(|left| left.checked_sub(bytes)));
        self.0.get().map(drop).ok_or_else(|| E::custom("it takes too much memory"))
    }
}

impl<'de> DeserializeSeed<'de> for Weigher<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigher<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.take(OF_VALUE)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.take(OF_VALUE)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.take(OF_VALUE)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.take(OF_VALUE)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.take(OF_VALUE)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.take(OF_VALUE + text.len() as u64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.take(OF_VALUE)?;
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.take(OF_OBJECT)?;
        while members.next_key_seed(self)?.is_some() {
            members.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_weighs_what_its_values_do() {
        let texts = format!("[{}1]", r#""a text as long as many of a state are","#.repeat(400_000));
        assert!(is_light(texts.as_bytes()).unwrap());
        for short in [r#"{"a":0},"#, "{},", "[],", "0,"] {
            let many = format!("[{}1]", short.repeat(16 * 1024 * 1024 / short.len()));
            assert!(!is_light(many.as_bytes()).unwrap(), "{short}");
        }
        assert!(is_light("{".as_bytes()).is_err());
    }
}
