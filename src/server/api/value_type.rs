//! What values in documents may be: requests are checked by it, and the API's own document says
//! it.

use serde_json::{Value, json};

use protocol::limits::{MAX_NAME, MAX_TEXT};

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum ValueType {
    /// `true` or `false`.
    Flag,
    /// A text of at most [`MAX_TEXT`] bytes.
    Text,
    /// A text whose length is bounded otherwise: by what the whole document may have, or by what
    /// it means.
    LongText,
    /// 1 to [`MAX_NAME`] printable characters, without spaces at the ends.
    Name,
    /// An instant in RFC 3339.
    Time,
    /// A whole number, at least 0.
    Count,
    /// A whole number from the first to the second, and what it counts.
    Number(i64, i64, &'static str),
    /// One of these texts.
    OneOf(fn() -> Vec<&'static str>),
    /// A list of such values.
    List(&'static Self),
    /// An object with these members. One that may be null may be left out.
    Object(&'static [(&'static str, Self)]),
    /// An object with some of these names, and what each may be.
    Named(fn() -> Vec<&'static str>, &'static Self),
    /// An object with arbitrary names.
    Map(&'static Self),
    /// It, or null.
    OrNull(&'static Self),
    /// Any JSON.
    Anything,
}

impl ValueType {
    /// Whether a client may write `value`.
    pub(super) fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Anything, _) | (Self::OrNull(_), Value::Null) => true,
            (Self::OrNull(inner), _) => inner.accepts(value),
            (Self::Flag, Value::Bool(_)) => true,
            (Self::Text | Self::LongText | Self::Name | Self::Time, Value::String(_)) => true,
            (Self::Count, Value::Number(number)) => number.as_u64().is_some(),
            (Self::Number(least, most, _), Value::Number(number)) => {
                number.as_i64().is_some_and(|number| (*least..=*most).contains(&number))
            }
            (Self::OneOf(names), Value::String(text)) => names().contains(&text.as_str()),
            (Self::List(of), Value::Array(values)) => values.iter().all(|value| of.accepts(value)),
            (Self::Object(members), Value::Object(values)) => {
                values.keys().all(|name| members.iter().any(|(member, _)| member == name))
                    && members.iter().all(|(name, of)| of.accepts(&value[*name]))
            }
            (Self::Named(names, of), Value::Object(values)) => {
                let names = names();
                let is_known = |name: &String| names.contains(&name.as_str());
                values.iter().all(|(name, value)| is_known(name) && of.accepts(value))
            }
            (Self::Map(of), Value::Object(values)) => {
                values.values().all(|value| of.accepts(value))
            }
            _ => false,
        }
    }

    /// What it takes, in the words of an error: "This field takes …".
    pub(super) fn words(&self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Text | Self::LongText | Self::Name => "a text".to_owned(),
            Self::Time => "an instant in RFC 3339".to_owned(),
            Self::Count => "a whole number".to_owned(),
            Self::Number(least, most, counted) => {
                format!("a whole number of {counted} from {least} to {most}")
            }
            Self::OneOf(names) => format!("one of: {}", names().join(", ")),
            Self::List(of) => format!("a list; each of it takes {}", of.words()),
            Self::Object(members) => {
                let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
                format!("an object with {}", names.join(", "))
            }
            Self::Named(names, of) => {
                format!(
                    "an object with any of {}, each of which takes {}",
                    names().join(", "),
                    of.words()
                )
            }
            Self::Map(of) => format!("an object, each member of which takes {}", of.words()),
            Self::OrNull(of) => format!("{}, or null", of.words()),
            Self::Anything => "any value".to_owned(),
        }
    }

    /// The same as JSON Schema.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Flag => json!({ "type": "boolean" }),
            Self::Text => json!({ "type": "string", "maxLength": MAX_TEXT }),
            Self::LongText => json!({ "type": "string" }),
            Self::Name => json!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME }),
            Self::Time => json!({ "type": "string", "format": "date-time" }),
            Self::Count => json!({ "type": "integer", "minimum": 0 }),
            Self::Number(least, most, counted) => json!({
                "type": "integer", "minimum": least, "maximum": most, "description": counted,
            }),
            Self::OneOf(names) => json!({ "type": "string", "enum": names() }),
            Self::List(of) => json!({ "type": "array", "items": of.schema() }),
            Self::Object(members) => {
                let needed = members.iter().filter(|(_, of)| !matches!(of, Self::OrNull(_)));
                json!({
                    "type": "object",
                    "properties": properties(members),
                    "required": needed.map(|(name, _)| *name).collect::<Vec<_>>(),
                    "additionalProperties": false,
                })
            }
            Self::Named(names, of) => {
                let named = names().into_iter().map(|name| (name.to_owned(), of.schema()));
                json!({
                    "type": "object",
                    "properties": Value::Object(named.collect()),
                    "additionalProperties": false,
                })
            }
            Self::Map(of) => json!({ "type": "object", "additionalProperties": of.schema() }),
            Self::OrNull(of) => or_null(of.schema()),
            Self::Anything => json!({}),
        }
    }
}

/// The members of an object in JSON Schema.
pub(super) fn properties(members: &[(&str, ValueType)]) -> Value {
    members.iter().map(|(name, of)| ((*name).to_owned(), of.schema())).collect()
}

/// What a schema says, or null.
pub(super) fn or_null(mut schema: Value) -> Value {
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.push(Value::Null);
    }
    if let Some(kind) = schema.get("type").filter(|kind| kind.is_string()).cloned() {
        schema["type"] = json!([kind, "null"]);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_accepted_by_its_type_alone() {
        const HEADER: ValueType = ValueType::Object(&[
            ("name", ValueType::Text),
            ("value", ValueType::OrNull(&ValueType::Text)),
        ]);
        for (of, good, bad) in [
            (ValueType::Flag, json!([true, false]), json!(["true", 1, null])),
            (ValueType::Text, json!(["", "x"]), json!([1, null, ["x"]])),
            (ValueType::Count, json!([0, 5]), json!([-1, 1.5, "1"])),
            (ValueType::Number(1, 60, "seconds"), json!([1, 60]), json!([0, 61, 1.5, "1"])),
            (ValueType::OneOf(|| vec!["a", "b"]), json!(["a"]), json!(["c", 1, null])),
            (ValueType::OrNull(&ValueType::Flag), json!([null, true]), json!(["x"])),
            (ValueType::List(&ValueType::Text), json!([[], ["x"]]), json!([[1], "x", null])),
            (
                HEADER,
                json!([{ "name": "x" }, { "name": "x", "value": null }]),
                json!([{ "value": "x" }, { "name": "x", "more": 1 }, [], { "name": 1 }]),
            ),
            (
                ValueType::Named(|| vec!["a"], &ValueType::Text),
                json!([{}, { "a": "x" }]),
                json!([{ "b": "x" }, { "a": 1 }]),
            ),
            (ValueType::Map(&ValueType::Flag), json!([{ "x": true }]), json!([{ "x": 1 }])),
        ] {
            assert!(good.as_array().unwrap().iter().all(|value| of.accepts(value)), "{of:?}");
            assert!(!bad.as_array().unwrap().iter().any(|value| of.accepts(value)), "{of:?}");
        }
    }
}
