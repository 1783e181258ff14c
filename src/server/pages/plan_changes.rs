//! What a plan changes, for people: its resources and outputs with their values. The agent has
//! masked what Terraform marks as sensitive.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::value_change::{ValueChange, has_secret_name, shown};

/// How many changes of a kind are shown: the log has all.
const MAX_CHANGES: usize = 200;

/// How much of their values is shown, in bytes.
const MAX_VALUES: usize = 64 * 1024;

/// The parts of a plan's JSON that people look at; the rest is passed over as it is read.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct PlanChanges {
    #[serde(rename(deserialize = "resource_changes"), deserialize_with = "resources")]
    resources: Changes,
    #[serde(rename(deserialize = "output_changes"), deserialize_with = "outputs")]
    outputs: Changes,
    #[serde(rename(deserialize = "resource_drift"), deserialize_with = "resources")]
    drift: Changes,
}

/// The first changes of a kind, and how many more there are.
#[derive(Debug, Default, Serialize)]
struct Changes {
    first: Vec<Change>,
    more: usize,
    #[serde(skip)]
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct Change {
    /// A resource's address or an output's name.
    name: String,
    action: &'static str,
    /// For the style sheet: `added`, `removed` or `changed`.
    kind: &'static str,
    /// A resource's earlier address.
    moved_from: Option<String>,
    /// The attributes that make Terraform replace it.
    replaced_for: Vec<String>,
    values: Vec<ValueChange>,
    /// Whether its values are left out, since others have taken the space.
    is_cut: bool,
}

/// A member of the list `resource_changes`.
#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    address: String,
    #[serde(default)]
    previous_address: Option<String>,
    #[serde(default)]
    deposed: Option<String>,
    change: RawChange,
}

#[derive(Debug, Deserialize)]
struct RawChange {
    actions: Vec<String>,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    after_unknown: Value,
    #[serde(default)]
    replace_paths: Vec<Vec<Value>>,
    #[serde(default)]
    importing: Option<Value>,
}

/// Reads a plan's JSON.
///
/// # Errors
/// It is not the JSON of a plan.
pub(super) fn read(plan: impl Read) -> serde_json::Result<PlanChanges> {
    serde_json::from_reader(plan)
}

impl Resource {
    fn into_change(self) -> Option<Change> {
        let moved_from = self.previous_address.filter(|previous| *previous != self.address);
        let (action, kind) = match self.change.action() {
            None if self.change.importing.is_some() => ("import", "added"),
            None => moved_from.as_ref().map(|_| ("move", "changed"))?,
            Some(action) => action,
        };
        let name = match self.deposed {
            Some(_) => format!("{} (deposed)", self.address),
            None => self.address,
        };
        let replaced_for = self.change.replace_paths.iter().filter_map(|path| path.first());
        Some(Change {
            name,
            action,
            kind,
            moved_from,
            replaced_for: replaced_for.filter_map(Value::as_str).map(str::to_owned).collect(),
            values: self.change.values(),
            is_cut: false,
        })
    }
}

/// The change of an output.
fn output(name: String, change: &RawChange) -> Option<Change> {
    let (action, kind) = change.action()?;
    let (is_secret, is_unknown) = (has_secret_name(&name), is_unknown(&change.after_unknown));
    let value = value_change("value", &change.before, &change.after, is_secret, is_unknown);
    let values = value.into_iter().collect();
    let (moved_from, replaced_for) = (None, Vec::new());
    Some(Change { name, action, kind, moved_from, replaced_for, values, is_cut: false })
}

impl RawChange {
    /// The action and its kind; none if nothing is changed.
    fn action(&self) -> Option<(&'static str, &'static str)> {
        let actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        match actions[..] {
            ["create"] => Some(("create", "added")),
            ["update"] => Some(("change", "changed")),
            ["delete"] => Some(("destroy", "removed")),
            ["forget"] => Some(("forget", "removed")),
            ["delete", "create"] | ["create", "delete"] => Some(("replace", "changed")),
            _ => None,
        }
    }

    /// The attributes of a resource that differ.
    fn values(&self) -> Vec<ValueChange> {
        let sides = [&self.before, &self.after, &self.after_unknown];
        let names: BTreeSet<&String> =
            sides.into_iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
        let value = |name: &String| {
            let is_unknown = is_unknown(&self.after_unknown[name]);
            let (before, after) = (&self.before[name], &self.after[name]);
            value_change(name, before, after, has_secret_name(name), is_unknown)
        };
        names.into_iter().filter_map(value).collect()
    }
}

/// A value, if it differs.
fn value_change(
    name: &str,
    before: &Value,
    after: &Value,
    is_secret: bool,
    is_unknown: bool,
) -> Option<ValueChange> {
    if before == after && !is_unknown {
        return None;
    }
    let before = shown(before, is_secret);
    let unknown = || is_unknown.then(|| "(known after apply)".to_owned());
    let after = shown(after, is_secret).or_else(unknown);
    (before.is_some() || after.is_some()).then(|| ValueChange {
        name: name.to_owned(),
        before,
        after,
    })
}

/// Whether a value or a part of it is known only after the apply, as `after_unknown` says.
fn is_unknown(marks: &Value) -> bool {
    match marks {
        Value::Bool(is_unknown) => *is_unknown,
        Value::Array(marks) => marks.iter().any(is_unknown),
        Value::Object(marks) => marks.values().any(is_unknown),
        Value::Null | Value::Number(_) | Value::String(_) => false,
    }
}

impl Changes {
    fn add(&mut self, change: Option<Change>) {
        let Some(mut change) = change else { return };
        if self.first.len() == MAX_CHANGES {
            self.more += 1;
            return;
        }
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let values = change.values.iter();
        let bytes: usize = values
            .map(|value| value.name.len() + length(&value.before) + length(&value.after))
            .sum();
        if self.bytes + bytes > MAX_VALUES {
            change.is_cut = true;
            change.values.clear();
        } else {
            self.bytes += bytes;
        }
        self.first.push(change);
    }
}

fn resources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Changes, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Changes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of changed resources")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Changes, A::Error> {
            let mut changes = Changes::default();
            while let Some(resource) = list.next_element::<Resource>()? {
                changes.add(resource.into_change());
            }
            Ok(changes)
        }
    }
    deserializer.deserialize_seq(List)
}

fn outputs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Changes, D::Error> {
    struct ByName;
    impl<'de> Visitor<'de> for ByName {
        type Value = Changes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("changed outputs by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Changes, A::Error> {
            let mut changes = Changes::default();
            while let Some((name, change)) = map.next_entry::<String, RawChange>()? {
                changes.add(output(name, &change));
            }
            Ok(changes)
        }
    }
    deserializer.deserialize_map(ByName)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RECORDED: &str = include_str!("../../agent/task/recorded/plan-1.11.4.json");

    fn of(resources: Value) -> PlanChanges {
        read(json!({ "resource_changes": resources }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_plan_lists_what_it_creates_changes_replaces_and_destroys() {
        let changes = read(RECORDED.as_bytes()).unwrap();
        let list: Vec<String> = changes
            .resources
            .first
            .iter()
            .map(|change| format!("{} {}", change.action, change.name))
            .collect();
        let expected = [
            "replace terraform_data.again",
            "destroy terraform_data.gone[0]",
            "change terraform_data.kept",
            "change module.inner.terraform_data.deep",
        ];
        assert_eq!(list, expected);
        let again = &changes.resources.first[0];
        assert_eq!(again.replaced_for, ["triggers_replace"]);
        let value = |name: &str| again.values.iter().find(|value| value.name == name).unwrap();
        assert_eq!(value("input").before.as_deref(), Some("4"));
        assert_eq!(value("input").after.as_deref(), Some("5"));
        assert_eq!(value("id").after.as_deref(), Some("(known after apply)"));
    }

    #[test]
    fn sensitive_values_of_a_plan_are_not_shown() {
        let after = json!({
            "db_Token": { "deep": "hunter2" }, "marked": "(sensitive value)", "password": "hunter2",
        });
        let change = json!({ "actions": ["create"], "before": null, "after": after });
        let changes = of(json!([{ "address": "x.y", "change": change }]));
        let values = changes.resources.first[0].values.iter();
        let shown: Vec<_> = values.map(|value| value.after.as_deref().unwrap()).collect();
        assert_eq!(shown, ["(sensitive value)"; 3]);
    }

    #[test]
    fn moves_imports_and_forgotten_resources_are_changes_and_reads_are_none() {
        let resource = |actions: Value, more: Value| {
            let mut resource = json!({ "address": "x.y", "change": { "actions": actions } });
            let fields = more.as_object().unwrap().clone();
            resource.as_object_mut().unwrap().extend(fields);
            resource
        };
        let moved = json!({ "previous_address": "x.old" });
        let imported = json!({ "change": { "actions": ["no-op"], "importing": { "id": "1" } } });
        let changes = of(json!([
            resource(json!(["no-op"]), moved),
            resource(json!(["no-op"]), imported),
            resource(json!(["forget"]), json!({})),
            resource(json!(["read"]), json!({})),
            resource(json!(["no-op"]), json!({})),
        ]));
        let actions: Vec<_> = changes.resources.first.iter().map(|change| change.action).collect();
        assert_eq!(actions, ["move", "import", "forget"]);
        assert_eq!(changes.resources.first[0].moved_from.as_deref(), Some("x.old"));
    }

    #[test]
    fn a_long_plan_shows_its_first_changes_and_counts_the_rest() {
        let change = json!({ "address": "x.y", "change": { "actions": ["create"] } });
        let changes = of(Value::Array(vec![change; MAX_CHANGES + 3]));
        assert_eq!((changes.resources.first.len(), changes.resources.more), (MAX_CHANGES, 3));
    }

    #[test]
    fn values_that_take_too_much_space_are_left_out() {
        let values: Map<String, Value> =
            (0..200).map(|number| (format!("a{number}"), "x".repeat(300).into())).collect();
        let change = json!({ "actions": ["create"], "after": values });
        let resource = json!({ "address": "x.y", "change": change });
        let changes = of(json!([resource, resource]));
        let is_cut: Vec<_> = changes.resources.first.iter().map(|change| change.is_cut).collect();
        assert_eq!(is_cut, [false, true]);
        assert_eq!(changes.resources.first[1].values, []);
    }
}
