//! Changes of valid input: of the values in a JSON document, and of bytes.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// A change of a JSON document.
#[derive(Clone, Debug)]
pub(super) struct Change {
    place: Index,
    kind: ChangeKind,
}

#[derive(Clone, Debug)]
enum ChangeKind {
    Set(Value),
    Remove,
    /// A list gets this many times its entries.
    Repeat(usize),
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![
        8 => value().prop_map(ChangeKind::Set),
        1 => Just(ChangeKind::Remove),
        1 => (2_usize..2_000).prop_map(ChangeKind::Repeat),
    ];
    (any::<Index>(), kind).prop_map(|(place, kind)| Change { place, kind })
}

/// Values that are near a bound, or of another type.
fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        4 => "\\PC{0,40}",
        1 => prop::sample::select(vec!["", "..", "../../x", "\0", "\u{202e}", "task-1", "plan"])
            .prop_map(str::to_owned),
        1 => (any::<char>(), 0_usize..70_000).prop_map(|(c, length)| c.to_string().repeat(length)),
    ];
    let number = prop_oneof![
        (-3_i64..4).prop_map(|n| json!(n)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        Just(json!(u64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(u32::MAX)),
    ];
    let leaf = prop_oneof![
        3 => text.prop_map(Value::String),
        3 => number,
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
    ];
    prop_oneof![
        8 => leaf.clone(),
        1 => prop::collection::vec(leaf.clone(), 0..4).prop_map(Value::Array),
        1 => leaf.clone().prop_map(|value| json!({ "task_id": value })),
        // Beyond what a reader of JSON follows.
        1 => leaf.prop_map(|value| (0..200).fold(value, |inner, _| json!([inner]))),
    ]
}

pub(super) fn apply(change: &Change, document: &mut Value) {
    let mut found = Vec::new();
    places(document, "", &mut found);
    let place = change.place.get(&found);
    match &change.kind {
        ChangeKind::Set(value) => *document.pointer_mut(place).unwrap() = value.clone(),
        ChangeKind::Remove => {
            let (parent, name) = place.rsplit_once('/').unwrap_or(("", ""));
            if let Some(Value::Object(fields)) = document.pointer_mut(parent) {
                fields.remove(name);
            }
        }
        ChangeKind::Repeat(times) => {
            if let Some(Value::Array(entries)) = document.pointer_mut(place) {
                let all = entries.len() * times;
                *entries = entries.iter().cycle().take(all.min(4_000)).cloned().collect();
            }
        }
    }
}

fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            places(value, &format!("{at}/{name}"), found);
        }),
        Value::Array(entries) => entries
            .iter()
            .enumerate()
            .for_each(|(n, value)| places(value, &format!("{at}/{n}"), found)),
        _ => {}
    }
}

/// Mostly none.
pub(super) fn damage() -> impl Strategy<Value = Vec<(Index, u8)>> {
    let some = prop::collection::vec((any::<Index>(), any::<u8>()), 1..6);
    prop_oneof![3 => Just(Vec::new()), 1 => some]
}

/// The bytes with some of them replaced.
pub(super) fn damaged(mut bytes: Vec<u8>, damage: &[(Index, u8)]) -> Vec<u8> {
    for (at, value) in damage {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
    }
    bytes
}
