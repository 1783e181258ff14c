//! What clients may ask of each type of resource when they read it: the one table from which
//! queries are checked, related resources are found and `docs/api.md` is made.

use std::collections::BTreeSet;
use std::slice;

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::agents::Status;
use super::attributes::Kind;
use crate::api::calls::schema_named;
use crate::api::value_type::ValueType::{
    self, Anything, Count, Flag, Map as MapOf, Number, Object, OneOf, OrNull, Text, Time,
};
use crate::api::value_type::properties;
use crate::store::{
    Sorts, access_token, account_hook, agent, agent_pool, configuration_version, environment,
    hook_link, run, run_event, run_schedule, state_version, tag, variable, webhook_delivery,
    webhook_integration, workspace,
};

/// A type of resource.
#[derive(Debug)]
pub(super) struct ResourceType {
    /// As it stands in paths and in `type`.
    pub name: &'static str,
    /// The attributes that answers have besides those that can be written, or that look
    /// otherwise in answers.
    pub answered: &'static [(&'static str, ValueType)],
    /// The relationships that can be included, and the type of what is there.
    pub related: &'static [(&'static str, &'static str)],
    /// What a list of it can be filtered by.
    pub filters: &'static [&'static str],
    /// Those of them that are true or false.
    pub flags: &'static [&'static str],
    /// What a list of it can be sorted by.
    pub sorts: Sorts,
    /// Where `query` looks for a text in a list of it; nowhere: there is no `query`.
    pub searched: &'static [&'static str],
}

/// What answers have of plans and applies.
const PHASE: &[(&str, ValueType)] = &[
    (
        "status",
        OneOf(|| {
            vec!["pending", "queued", "running", "finished", "errored", "canceled", "unreachable"]
        }),
    ),
    ("attempt", Count),
    ("has-changes", OrNull(&Flag)),
    ("error-message", OrNull(&Text)),
    ("exit-code", OrNull(&Number(i64::MIN, i64::MAX, "an exit code"))),
    ("oom-killed", OrNull(&Flag)),
    ("resource-additions", OrNull(&Count)),
    ("resource-changes", OrNull(&Count)),
    ("resource-destructions", OrNull(&Count)),
    ("resource-imports", OrNull(&Count)),
    ("resource-replacements", OrNull(&Count)),
    ("resource-drifts", OrNull(&Count)),
    ("output-changes", OrNull(&Count)),
    ("queued-at", OrNull(&Time)),
    ("started-at", OrNull(&Time)),
    ("finished-at", OrNull(&Time)),
];

/// What answers have of what happened to a run, comments among it.
const EVENT: &[(&str, ValueType)] = &[
    ("action", Text),
    ("body", OrNull(&Text)),
    ("actor", Object(&[("kind", Text), ("id", OrNull(&Text)), ("name", OrNull(&Text))])),
    ("created-at", Time),
];

pub(super) static TYPES: [ResourceType; 21] = [
    ResourceType {
        name: "access-tokens",
        answered: &[
            ("created-at", Time),
            ("expires-at", OrNull(&Time)),
            ("is-expired", Flag),
            ("last-used-at", OrNull(&Time)),
            ("token", Text),
        ],
        related: &[("agent", "agents"), ("agent-pool", "agent-pools")],
        filters: &[],
        flags: &[],
        sorts: access_token::SORTS,
        searched: access_token::SEARCHED,
    },
    ResourceType {
        name: "accounts",
        answered: &[("name", Text), ("created-at", Time)],
        related: &[],
        filters: &["name"],
        flags: &[],
        // A server has one account.
        sorts: &[("name", "t.name")],
        searched: &["t.name"],
    },
    ResourceType {
        name: "agent-pools",
        answered: &[
            ("in-use", Flag),
            ("queue-depth", Count),
            ("oldest-wait-seconds", OrNull(&Count)),
            ("free-slots", Count),
            ("created-at", Time),
        ],
        related: &[
            ("account", "accounts"),
            ("agents", "agents"),
            ("default-environments", "environments"),
            ("environment", "environments"),
            ("environments", "environments"),
            ("workspaces", "workspaces"),
        ],
        filters: &[
            "account",
            "agent-pool",
            "environment",
            "in-use",
            "is-shared",
            "name",
            "vcs-enabled",
        ],
        flags: &["in-use", "is-shared", "vcs-enabled"],
        sorts: agent_pool::SORTS,
        searched: agent_pool::SEARCHED,
    },
    ResourceType {
        name: "agents",
        answered: &[
            ("name", Text),
            ("status", OneOf(|| Status::ALL.map(Status::name).to_vec())),
            ("error-message", OrNull(&Text)),
            ("draining-since", OrNull(&Time)),
            ("version", Text),
            ("os", Text),
            ("driver", Text),
            ("runtime", Text),
            ("cpu-platform", Text),
            ("concurrency", Count),
            ("host-memory-megabytes", OrNull(&Count)),
            ("run-memory-megabytes", OrNull(&Count)),
            ("upgrade-status", OneOf(|| vec!["none", "low", "medium", "high"])),
            ("created-at", Time),
            ("last-seen-at", Time),
        ],
        related: &[("pool", "agent-pools")],
        filters: &["agent", "agent-pool", "name"],
        flags: &[],
        sorts: agent::SORTS,
        searched: agent::SEARCHED,
    },
    ResourceType {
        name: "applies",
        answered: PHASE,
        related: &[("agent", "agents"), ("run", "runs")],
        filters: &[],
        flags: &[],
        sorts: &[],
        searched: &[],
    },
    ResourceType {
        name: "comments",
        answered: EVENT,
        related: &[("run", "runs")],
        filters: &[],
        flags: &[],
        sorts: run_event::SORTS,
        searched: run_event::SEARCHED,
    },
    ResourceType {
        name: "configuration-versions",
        answered: &[
            ("status", OneOf(|| vec!["pending", "uploaded", "removed"])),
            ("created-at", Time),
        ],
        related: &[("workspace", "workspaces")],
        filters: &["workspace"],
        flags: &[],
        sorts: configuration_version::SORTS,
        searched: configuration_version::SEARCHED,
    },
    ResourceType {
        name: "environments",
        answered: &[("created-at", Time)],
        related: &[
            ("account", "accounts"),
            ("default-workspace-agent-pool", "agent-pools"),
            ("tags", "tags"),
        ],
        filters: &["account", "environment", "name"],
        flags: &[],
        sorts: environment::SORTS,
        searched: environment::SEARCHED,
    },
    ResourceType {
        name: "hook-environment-links",
        answered: &[("created-at", Time)],
        related: &[("environment", "environments"), ("hook", "hooks")],
        filters: &["environment", "events", "hook", "hook-environment-link"],
        flags: &[],
        sorts: hook_link::SORTS,
        searched: hook_link::SEARCHED,
    },
    ResourceType {
        name: "hooks",
        answered: &[("created-at", Time)],
        related: &[("account", "accounts")],
        filters: &["account", "environment", "events", "hook", "name"],
        flags: &[],
        sorts: account_hook::SORTS,
        searched: account_hook::SEARCHED,
    },
    ResourceType {
        name: "plans",
        answered: PHASE,
        related: &[("agent", "agents"), ("run", "runs")],
        filters: &[],
        flags: &[],
        sorts: &[],
        searched: &[],
    },
    ResourceType {
        name: "run-events",
        answered: EVENT,
        related: &[("run", "runs")],
        filters: &[],
        flags: &[],
        sorts: run_event::SORTS,
        searched: run_event::SEARCHED,
    },
    ResourceType {
        name: "run-schedule-rules",
        answered: &[],
        related: &[("workspace", "workspaces")],
        filters: &["run-schedule-rule", "workspace"],
        flags: &[],
        sorts: run_schedule::SORTS,
        searched: run_schedule::SEARCHED,
    },
    ResourceType {
        name: "run-triggers",
        answered: &[("created-at", Time)],
        related: &[("downstream", "workspaces"), ("upstream", "workspaces")],
        filters: &[],
        flags: &[],
        sorts: &[],
        searched: &[],
    },
    ResourceType {
        name: "runs",
        answered: &[
            ("status", OneOf(run::Status::names)),
            ("source", OneOf(|| vec!["api", "cli", "ui", "schedule", "run-trigger"])),
            ("pending-reason", OrNull(&Text)),
            ("position-in-queue", OrNull(&Count)),
            ("has-changes", OrNull(&Flag)),
            ("error-message", OrNull(&Text)),
            ("created-at", Time),
            ("updated-at", Time),
            ("actions", MapOf(&Flag)),
            ("force-cancel-available-at", OrNull(&Time)),
        ],
        related: &[
            ("agent-pool", "agent-pools"),
            ("apply", "applies"),
            ("configuration-version", "configuration-versions"),
            ("plan", "plans"),
            ("workspace", "workspaces"),
        ],
        filters: &["run", "status", "workspace"],
        flags: &[],
        sorts: run::SORTS,
        searched: run::SEARCHED,
    },
    ResourceType {
        name: "state-versions",
        answered: &[
            ("sha256", Text),
            ("size", Count),
            ("resource-count", Count),
            ("created-at", Time),
            ("removed-at", OrNull(&Time)),
            ("warning", OrNull(&Text)),
        ],
        related: &[("run", "runs"), ("workspace", "workspaces")],
        filters: &["workspace"],
        flags: &[],
        sorts: state_version::SORTS,
        searched: state_version::SEARCHED,
    },
    ResourceType {
        name: "tags",
        answered: &[],
        related: &[("account", "accounts")],
        filters: &["account", "name", "tag"],
        flags: &[],
        sorts: tag::SORTS,
        searched: tag::SEARCHED,
    },
    ResourceType {
        name: "vars",
        answered: &[
            ("category", OneOf(|| vec!["terraform", "shell"])),
            ("created-at", Time),
            ("updated-at", Time),
        ],
        related: &[
            ("account", "accounts"),
            ("environment", "environments"),
            ("tag", "tags"),
            ("workspace", "workspaces"),
        ],
        filters: &["account", "category", "environment", "key", "tag", "var", "workspace"],
        flags: &[],
        sorts: variable::SORTS,
        searched: variable::SEARCHED,
    },
    ResourceType {
        name: "webhook-deliveries",
        answered: &[
            ("event", Text),
            ("run-status", Text),
            ("status", OneOf(|| vec!["pending", "delivered", "failed"])),
            ("attempts", Count),
            ("next-attempt-at", OrNull(&Time)),
            ("attempted-at", OrNull(&Time)),
            ("duration-milliseconds", OrNull(&Count)),
            ("answer-status", OrNull(&Count)),
            ("answer", OrNull(&Text)),
            ("created-at", Time),
        ],
        related: &[
            ("agent", "agents"),
            ("run", "runs"),
            ("webhook-integration", "webhook-integrations"),
        ],
        filters: &["agent", "run", "webhook-delivery", "webhook-integration"],
        flags: &[],
        sorts: webhook_delivery::SORTS,
        searched: webhook_delivery::SEARCHED,
    },
    ResourceType {
        name: "webhook-integrations",
        answered: &[("last-triggered-at", OrNull(&Time)), ("created-at", Time)],
        related: &[("account", "accounts"), ("environments", "environments")],
        filters: &["account", "enabled", "environment", "name", "webhook-integration"],
        flags: &["enabled"],
        sorts: webhook_integration::SORTS,
        searched: webhook_integration::SEARCHED,
    },
    ResourceType {
        name: "workspaces",
        answered: &[
            ("actions", MapOf(&Flag)),
            ("can-queue-destroy-plan", Flag),
            ("migration-environment", OrNull(&Anything)),
            ("permissions", MapOf(&Flag)),
            ("has-resources", Flag),
            ("locked", Flag),
            ("locked-reason", OrNull(&Text)),
            ("created-at", Time),
            ("updated-at", Time),
        ],
        related: &[
            ("agent-pool", "agent-pools"),
            ("configuration-version", "configuration-versions"),
            ("current-run", "runs"),
            ("environment", "environments"),
            ("latest-run", "runs"),
            ("tags", "tags"),
        ],
        filters: &["account", "agent-pool", "environment", "name", "workspace"],
        flags: &[],
        sorts: workspace::SORTS,
        searched: workspace::SEARCHED,
    },
];

/// What a call answers with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// A page of resources.
    Page(&'static ResourceType),
    /// One resource.
    One(&'static ResourceType),
    /// Something else, and the query parameters that the call has.
    Other(&'static [&'static str]),
}

impl Answer {
    /// What a call answers with; `route` is without the API's base.
    pub(super) fn of_call(method: &Method, route: &str) -> Self {
        match Self::of_route(route) {
            // What is made in a list is answered alone.
            Self::Page(made) if *method == Method::POST => Self::One(made),
            answer => answer,
        }
    }

    /// What a GET of a route answers with; `route` is without the API's base.
    fn of_route(route: &str) -> Self {
        let one = |name: &str| ResourceType::named(name).map(Self::One);
        let parts: Vec<&str> = route.split('/').skip(1).collect();
        let answer = match parts[..] {
            ["plans" | "applies", _, "output"] => return Self::Other(&["offset"]),
            ["workspaces", _, "remote-state-consumers"] => {
                ResourceType::named("workspaces").map(Self::Page)
            }
            ["workspaces", _, "current-state-version"] => one("state-versions"),
            [name, _, "actions", _] => one(name),
            [name, "{id}"] => one(name),
            [.., name] => ResourceType::named(name).map(Self::Page),
            [] => None,
        };
        answer.unwrap_or(Self::Other(&[]))
    }
}

impl ResourceType {
    /// A resource in an answer, in JSON Schema. Which of it an answer has is up to
    /// `fields[…]`.
    pub(super) fn schema(&self) -> Value {
        let kind = Kind::named(self.name);
        let mut attributes = kind.map_or_else(Map::new, Kind::answered);
        if let Value::Object(answered) = properties(self.answered) {
            attributes.extend(answered);
        }
        json!({
            "type": "object",
            "required": ["type", "id"],
            "properties": {
                "type": { "enum": self.types() },
                "id": { "type": "string" },
                "attributes": {
                    "type": "object",
                    "properties": attributes,
                    "additionalProperties": false,
                },
                "relationships": {
                    "type": "object",
                    "additionalProperties": schema_named("relationship"),
                },
                "links": { "type": "object", "additionalProperties": { "type": "string" } },
            },
            "additionalProperties": false,
        })
    }

    /// The names of its attributes and relationships.
    pub(super) fn fields(&self) -> BTreeSet<&'static str> {
        let answered = self.answered.iter().map(|(name, _)| *name);
        let related = self.related.iter().map(|(name, _)| *name);
        let of_kind = Kind::named(self.name).into_iter().flat_map(Kind::fields);
        answered.chain(related).chain(of_kind).collect()
    }

    /// The types of what a list of it has: comments are events, too.
    fn types(&self) -> &[&'static str] {
        match self.name {
            "run-events" => &["run-events", "comments"],
            _ => slice::from_ref(&self.name),
        }
    }

    pub(super) fn named(name: &str) -> Option<&'static Self> {
        TYPES.iter().find(|found| found.name == name)
    }

    /// The type of what a relationship leads to: none where that is something which this
    /// server does not have.
    ///
    /// # Errors
    /// It has no such relationship; those that it has.
    pub(super) fn related_by(&self, name: &str) -> Result<Option<&'static Self>, String> {
        if let Some((_, related)) = self.related.iter().find(|(related, _)| *related == name) {
            return Ok(Self::named(related));
        }
        match Kind::named(self.name).is_some_and(|kind| kind.is_unrelated(name)) {
            true => Ok(None),
            false => {
                let names: Vec<&str> = self.related.iter().map(|(name, _)| *name).collect();
                Err(names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_says_what_it_answers_with() {
        for (route, answer) in [
            ("/workspaces", "page of workspaces"),
            ("/workspaces/{id}", "workspaces"),
            ("/workspaces/{id}/actions/unlock", "workspaces"),
            ("/workspaces/{id}/current-state-version", "state-versions"),
            ("/workspaces/{id}/outputs", "[]"),
            ("/workspaces/{id}/remote-state-consumers", "page of workspaces"),
            ("/agent-pools/{id}/access-tokens", "page of access-tokens"),
            ("/plans/{id}/output", "[\"offset\"]"),
            ("/server", "[]"),
        ] {
            let found = match Answer::of_route(route) {
                Answer::Page(found) => format!("page of {}", found.name),
                Answer::One(found) => found.name.to_owned(),
                Answer::Other(parameters) => format!("{parameters:?}"),
            };
            assert_eq!(found, answer, "{route}");
        }
    }

    #[test]
    fn what_is_related_has_a_type_and_what_is_a_flag_is_a_filter() {
        for found in &TYPES {
            for (name, related) in found.related {
                assert!(ResourceType::named(related).is_some(), "{}: {name}", found.name);
            }
            assert!(found.flags.iter().all(|flag| found.filters.contains(flag)), "{found:?}");
        }
    }
}
