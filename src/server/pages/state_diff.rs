//! What differs between two states, for people. Sensitive values are not in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::value_change::{ValueChange, has_secret_name, shown};

/// The parts of a state that people look at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Content {
    #[serde(default)]
    outputs: BTreeMap<String, Output>,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Debug, Deserialize)]
struct Output {
    #[serde(default)]
    value: Value,
    #[serde(default)]
    sensitive: bool,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    module: String,
    #[serde(default)]
    mode: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    instances: Vec<Instance>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    #[serde(default)]
    index_key: Value,
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
    #[serde(default)]
    sensitive_attributes: Vec<Value>,
}

/// Something that differs.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Change {
    /// A resource's address or an output's name.
    pub name: String,
    /// `added`, `removed` or `changed`.
    pub kind: &'static str,
    /// What differs in it.
    pub values: Vec<ValueChange>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Diff {
    pub outputs: Vec<Change>,
    pub resources: Vec<Change>,
}

/// A thing's values by name, each with whether it is sensitive.
type Values<'a> = BTreeMap<&'a str, (&'a Value, bool)>;

pub(super) fn diff(before: &Content, after: &Content) -> Diff {
    Diff {
        outputs: changes(&outputs(before), &outputs(after)),
        resources: changes(&resources(before), &resources(after)),
    }
}

fn outputs(content: &Content) -> BTreeMap<String, Values<'_>> {
    let outputs = content.outputs.iter();
    outputs
        .map(|(name, output)| {
            (name.clone(), Values::from([("value", (&output.value, output.sensitive))]))
        })
        .collect()
}

fn resources(content: &Content) -> BTreeMap<String, Values<'_>> {
    let mut all = BTreeMap::new();
    for resource in &content.resources {
        for instance in &resource.instances {
            let sensitive = instance.sensitive();
            let values = instance.attributes.iter().map(|(name, value)| {
                let is_secret = sensitive.contains(name.as_str()) || has_secret_name(name);
                (name.as_str(), (value, is_secret))
            });
            all.insert(resource.address(instance), values.collect());
        }
    }
    all
}

impl Resource {
    fn address(&self, instance: &Instance) -> String {
        let mut address = String::new();
        if !self.module.is_empty() {
            address = format!("{}.", self.module);
        }
        if self.mode == "data" {
            address.push_str("data.");
        }
        address.push_str(&format!("{}.{}", self.kind, self.name));
        if !instance.index_key.is_null() {
            address.push_str(&format!("[{}]", instance.index_key));
        }
        address
    }
}

impl Instance {
    /// The attributes in which something is sensitive: a path begins with its attribute's name.
    fn sensitive(&self) -> BTreeSet<&str> {
        let paths = self.sensitive_attributes.iter();
        paths.filter_map(|path| path.get(0)?.get("value")?.as_str()).collect()
    }
}

fn changes(
    before: &BTreeMap<String, Values<'_>>,
    after: &BTreeMap<String, Values<'_>>,
) -> Vec<Change> {
    let none = Values::new();
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let kind = match (before.contains_key(name), after.contains_key(name)) {
                (true, true) => "changed",
                (true, false) => "removed",
                _ => "added",
            };
            let (old, new) = (before.get(name).unwrap_or(&none), after.get(name).unwrap_or(&none));
            let values = value_changes(old, new);
            (kind != "changed" || !values.is_empty()).then(|| Change {
                name: name.clone(),
                kind,
                values,
            })
        })
        .collect()
}

fn value_changes(before: &Values<'_>, after: &Values<'_>) -> Vec<ValueChange> {
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (old, new) = (before.get(name), after.get(name));
            if old.map(|old| old.0) == new.map(|new| new.0) {
                return None;
            }
            // One that was sensitive may have the same value now.
            let is_secret = [old, new].into_iter().flatten().any(|(_, is_secret)| *is_secret);
            let show = |value: Option<&(&Value, bool)>| shown(value?.0, is_secret);
            let (before, after) = (show(old), show(new));
            (before.is_some() || after.is_some()).then(|| ValueChange {
                name: name.to_owned(),
                before,
                after,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn content(outputs: Value, resources: Value) -> Content {
        serde_json::from_value(json!({ "outputs": outputs, "resources": resources })).unwrap()
    }

    fn resource(name: &str, attributes: Value) -> Value {
        json!({
            "mode": "managed", "type": "x", "name": name,
            "instances": [{ "attributes": attributes }],
        })
    }

    #[test]
    fn resources_and_outputs_are_compared_by_name() {
        let before = content(
            json!({ "a": { "value": 1 }, "same": { "value": "x" } }),
            json!([resource("gone", json!({ "id": "1" })), resource("kept", json!({ "n": 1 }))]),
        );
        let after = content(
            json!({ "a": { "value": 2 }, "same": { "value": "x" } }),
            json!([
                resource("kept", json!({ "n": 2, "none": null })),
                {
                    "module": "module.m", "mode": "data", "type": "y", "name": "new",
                    "instances": [{ "index_key": "k", "attributes": { "id": "2" } }],
                },
            ]),
        );
        let Diff { outputs, resources } = diff(&before, &after);
        let summary = |changes: &[Change]| -> Vec<String> {
            changes.iter().map(|change| format!("{} {}", change.kind, change.name)).collect()
        };
        assert_eq!(summary(&outputs), ["changed a"]);
        let expected = ["added module.m.data.y.new[\"k\"]", "removed x.gone", "changed x.kept"];
        assert_eq!(summary(&resources), expected);
        let value = &resources[2].values[0];
        assert_eq!((value.before.as_deref(), value.after.as_deref()), (Some("1"), Some("2")));
        assert_eq!(resources[2].values.len(), 1);
    }

    #[test]
    fn sensitive_values_are_not_in_a_diff() {
        let secret = |value: &str, sensitive: bool| {
            content(
                json!({ "o": { "value": value, "sensitive": sensitive } }),
                json!([{
                    "mode": "managed", "type": "x", "name": "r",
                    "instances": [{
                        "attributes": {
                            "marked": { "deep": value }, "db_password": value, "plain": "p",
                        },
                        "sensitive_attributes": [[
                            { "type": "get_attr", "value": "marked" },
                            { "type": "get_attr", "value": "deep" },
                        ]],
                    }],
                }]),
            )
        };
        let none = content(json!({}), json!([]));
        for (before, after) in [
            (secret("hunter1", true), secret("hunter2", true)),
            (secret("hunter1", true), secret("hunter2", false)),
            (none, secret("hunter2", true)),
        ] {
            let diff = diff(&before, &after);
            assert!(!diff.outputs.is_empty() && !diff.resources.is_empty());
            let json = serde_json::to_string(&diff).unwrap();
            assert!(!json.contains("hunter"), "{json}");
        }
    }
}
