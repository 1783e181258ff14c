//! What answers have of each type of resource, for the document of the API.

use serde_json::{Value, json};

use crate::api::calls::schema_named;
use crate::api::value_type::ValueType::{
    self, Anything, Count, Flag, Map, OneOf, OrNull, Text, Time,
};
use crate::api::value_type::properties;

/// What stands before the names of these types among the document's schemas: the pool API has
/// types with the same names.
const PREFIX: &str = "terraform.";

/// A type of resource.
struct ResourceType {
    name: &'static str,
    attributes: &'static [(&'static str, ValueType)],
}

/// What answers have of plans and applies.
const PHASE: &[(&str, ValueType)] = &[
    ("resource-additions", OrNull(&Count)),
    ("resource-changes", OrNull(&Count)),
    ("resource-destructions", OrNull(&Count)),
    ("resource-imports", OrNull(&Count)),
    ("has-changes", Flag),
    ("status", OneOf(|| vec!["pending", "queued", "running", "finished", "errored", "canceled"])),
    ("status-timestamps", Map(&OrNull(&Time))),
    ("log-read-url", Text),
];

static TYPES: [ResourceType; 17] = [
    ResourceType { name: "applies", attributes: PHASE },
    ResourceType {
        name: "configuration-versions",
        attributes: &[
            ("auto-queue-runs", Flag),
            ("source", Text),
            ("speculative", Flag),
            ("status", OneOf(|| vec!["pending", "uploaded", "archived"])),
            ("upload-url", Text),
        ],
    },
    ResourceType { name: "entitlement-sets", attributes: &[] },
    ResourceType {
        name: "organization-capacity",
        attributes: &[("pending", Count), ("running", Count)],
    },
    ResourceType {
        name: "organizations",
        attributes: &[
            ("name", Text),
            ("external-id", Text),
            ("created-at", Time),
            ("default-execution-mode", Text),
            ("permissions", Map(&Flag)),
        ],
    },
    ResourceType { name: "plans", attributes: PHASE },
    ResourceType { name: "policy-checks", attributes: &[] },
    ResourceType {
        name: "projects",
        attributes: &[("name", Text), ("description", Text), ("permissions", Map(&Flag))],
    },
    ResourceType {
        name: "run-events",
        attributes: &[("action", Text), ("created-at", Time), ("description", OrNull(&Text))],
    },
    ResourceType {
        name: "runs",
        attributes: &[
            ("status", Text),
            ("source", Text),
            ("message", OrNull(&Text)),
            ("error-message", OrNull(&Text)),
            ("auto-apply", Flag),
            ("created-at", Time),
            ("has-changes", Flag),
            ("is-destroy", Flag),
            ("plan-only", Flag),
            ("save-plan", Flag),
            ("allow-empty-apply", Flag),
            ("refresh", Flag),
            ("refresh-only", Flag),
            ("target-addrs", ValueType::List(&Text)),
            ("replace-addrs", ValueType::List(&Text)),
            ("terraform-version", OrNull(&Text)),
            ("position-in-queue", Count),
            ("actions", Map(&Flag)),
            ("force-cancel-available-at", OrNull(&Time)),
            ("permissions", Map(&Flag)),
            ("status-timestamps", Map(&OrNull(&Time))),
        ],
    },
    ResourceType {
        name: "state-version-outputs",
        attributes: &[
            ("name", Text),
            ("sensitive", Flag),
            ("type", Text),
            ("detailed-type", Anything),
            ("value", Anything),
        ],
    },
    ResourceType {
        name: "state-versions",
        attributes: &[
            ("created-at", Time),
            ("hosted-state-download-url", Text),
            ("hosted-state-upload-url", Text),
            ("hosted-json-state-upload-url", Text),
            ("resources-processed", Flag),
            ("serial", Count),
            ("size", Count),
            ("status", OneOf(|| vec!["pending", "finalized"])),
            ("warning", OrNull(&Text)),
        ],
    },
    ResourceType { name: "tag-bindings", attributes: &[("key", Text), ("value", Text)] },
    ResourceType { name: "tags", attributes: &[("name", Text)] },
    ResourceType { name: "task-stages", attributes: &[] },
    ResourceType {
        name: "vars",
        attributes: &[
            ("key", Text),
            ("value", OrNull(&ValueType::LongText)),
            ("category", OneOf(|| vec!["terraform", "env"])),
            ("hcl", Flag),
            ("sensitive", Flag),
            ("description", OrNull(&Text)),
        ],
    },
    ResourceType {
        name: "workspaces",
        attributes: &[
            ("name", Text),
            ("auto-apply", Flag),
            ("allow-destroy-plan", Flag),
            ("created-at", Time),
            ("updated-at", Time),
            ("execution-mode", OneOf(|| vec!["remote", "local"])),
            ("operations", Flag),
            ("locked", Flag),
            ("locked-reason", OrNull(&Text)),
            ("resource-count", Count),
            ("speculative-enabled", Flag),
            ("structured-run-output-enabled", Flag),
            ("tag-names", ValueType::List(&Text)),
            ("terraform-version", Text),
            ("working-directory", OrNull(&Text)),
            ("permissions", Map(&Flag)),
        ],
    },
];

/// The name of a type among the document's schemas.
pub(super) fn schema_name(of_type: &str) -> String {
    format!("{PREFIX}{of_type}")
}

/// The types, by their names among the document's schemas.
pub(in crate::api) fn schemas() -> impl Iterator<Item = (String, Value)> {
    TYPES.iter().map(|found| (schema_name(found.name), found.schema()))
}

impl ResourceType {
    fn schema(&self) -> Value {
        // What an organization is entitled to is a list of flags.
        let others = if self.attributes.is_empty() { Flag.schema() } else { json!(false) };
        json!({
            "type": "object",
            "required": ["type", "id", "attributes"],
            "properties": {
                "type": { "const": self.name },
                "id": { "type": "string" },
                "attributes": {
                    "type": "object",
                    "properties": properties(self.attributes),
                    "additionalProperties": others,
                },
                "relationships": {
                    "type": "object",
                    "additionalProperties": schema_named("relationship"),
                },
            },
            "additionalProperties": false,
        })
    }
}
