//! What clients may write of each kind of resource: the one table from which requests are
//! checked, answers are completed and `docs/api.md` is made.
//!
//! A name that is not in it is refused: a client must not believe that it was heard. Names
//! that existing clients write, and that mean something which this server does not have, are
//! accepted with the value that says what it does anyway.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::agent_pools::MAX_CONCURRENCY;
use super::webhook_integrations::{self, ATTEMPTS};
use crate::api::calls::schema_named;
use crate::api::json_api::ApiError;
use crate::api::value_type::ValueType::{
    self, Count, Flag, List, LongText, Name, Named, Number, Object, OneOf, OrNull, Text,
};
use crate::api::value_type::or_null;
use crate::args::TIMEOUTS;
use crate::store::run_schedule::ScheduleMode;
use protocol::Hook;

/// A kind of resource.
pub(super) struct Kind {
    /// As it stands in paths and in `type`.
    name: &'static str,
    /// The attributes that can be written. Null stands for the value that a new resource gets
    /// anyway; answers have it only where the type says so.
    attributes: &'static [(&'static str, ValueType)],
    /// The relationships that can be written, and whether they are to many.
    relationships: &'static [(&'static str, bool)],
    /// Those of both that a new resource has to have.
    required: &'static [&'static str],
    /// Attributes that cannot be changed, with their value in JSON; a name's further values
    /// are accepted, too, and mean the same here.
    fixed: &'static [(&'static str, &'static str)],
    /// Attributes that ask for something that this server does not do, and are not returned.
    unsupported: &'static [&'static str],
    /// Relationships with what this server does not have, and whether they are to many.
    unrelated: &'static [(&'static str, bool)],
}

/// The headers of a webhook.
const HEADERS: ValueType =
    List(&Object(&[("name", Text), ("value", OrNull(&Text)), ("sensitive", OrNull(&Flag))]));

/// The time limit of a plan or an apply.
const SECONDS: ValueType = Number(*TIMEOUTS.start() as i64, *TIMEOUTS.end() as i64, "seconds");

/// The same in minutes.
const MINUTES: ValueType = Number(1, *TIMEOUTS.end() as i64 / 60, "minutes");

/// How many runs a pool executes at once.
const RUNS: ValueType = within(&MAX_CONCURRENCY, "runs");

const fn within(range: &RangeInclusive<i64>, counted: &'static str) -> ValueType {
    Number(*range.start(), *range.end(), counted)
}

static KINDS: [Kind; 16] = [
    Kind {
        name: "access-tokens",
        attributes: &[
            ("name", OrNull(&Text)),
            ("description", OrNull(&Text)),
            ("expires-in", OrNull(&Number(1, 52_560_000, "minutes"))),
            ("for-one-agent", Flag),
        ],
        relationships: &[],
        required: &[],
        fixed: &[],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "accounts",
        attributes: &[],
        relationships: &[],
        required: &[],
        fixed: &[("allowed-ips", "[]")],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "agent-pools",
        attributes: &[
            ("name", Name),
            ("default", Flag),
            ("is-shared", Flag),
            ("image", OrNull(&Text)),
            ("max-concurrency", OrNull(&RUNS)),
            ("webhook-enabled", Flag),
            ("webhook-headers", HEADERS),
            ("webhook-url", OrNull(&Text)),
        ],
        // A server has one account.
        relationships: &[
            ("account", false),
            ("environment", false),
            ("environments", true),
            ("workspaces", true),
        ],
        required: &["name"],
        fixed: &[("is-scalr-managed", "false"), ("vcs-enabled", "false")],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "comments",
        attributes: &[("body", OrNull(&Text))],
        relationships: &[],
        required: &["body"],
        fixed: &[],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "configuration-versions",
        attributes: &[("is-dry", Flag), ("speculative", Flag)],
        relationships: &[("workspace", false)],
        required: &["workspace"],
        fixed: &[("source", "\"api\"")],
        unsupported: &["auto-queue-runs"],
        unrelated: &[],
    },
    Kind {
        name: "environments",
        attributes: &[("name", Name)],
        relationships: &[
            ("account", false),
            ("default-workspace-agent-pool", false),
            ("tags", true),
        ],
        required: &["name"],
        fixed: &[
            ("is-federated-to-account", "false"),
            ("mask-sensitive-output", "true"),
            ("remote-backend", "true"),
            ("remote-backend-overridable", "false"),
            ("status", "\"Active\""),
        ],
        unsupported: &[],
        unrelated: &[
            ("created-by", false),
            ("default-provider-configurations", true),
            ("policy-groups", true),
            ("provider-configurations", true),
            ("storage-profile", false),
        ],
    },
    Kind {
        name: "hook-environment-links",
        attributes: &[("events", List(&OneOf(|| Hook::ALL.map(Hook::name).to_vec())))],
        relationships: &[("environment", false), ("hook", false)],
        required: &["events", "environment", "hook"],
        fixed: &[],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "hooks",
        attributes: &[
            ("description", OrNull(&Text)),
            ("interpreter", Text),
            ("name", Name),
            ("script", LongText),
        ],
        relationships: &[("account", false)],
        required: &["name", "interpreter", "script"],
        fixed: &[("scriptfile-path", "null"), ("vcs-repo", "null")],
        unsupported: &[],
        unrelated: &[("vcs-provider", false)],
    },
    Kind {
        name: "run-schedule-rules",
        attributes: &[
            ("schedule", Text),
            ("schedule-mode", OneOf(|| ScheduleMode::ALL.map(ScheduleMode::name).to_vec())),
        ],
        relationships: &[("workspace", false)],
        required: &["schedule", "schedule-mode", "workspace"],
        fixed: &[],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "run-triggers",
        attributes: &[],
        relationships: &[("downstream", false), ("upstream", false)],
        required: &["upstream", "downstream"],
        fixed: &[],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "runs",
        attributes: &[
            ("allow-empty-apply", Flag),
            ("auto-apply", Flag),
            ("is-destroy", Flag),
            ("is-dry", Flag),
            ("message", OrNull(&Text)),
            ("plan-only", Flag),
            ("refresh", Flag),
            ("refresh-only", Flag),
            ("replace-addrs", List(&Text)),
            ("save-plan", Flag),
            ("source", OneOf(|| vec!["api", "tfe-api", "cli", "ui"])),
            ("target-addrs", List(&Text)),
            ("terraform-version", OrNull(&Text)),
            ("variables", List(&Object(&[("key", Text), ("value", LongText)]))),
        ],
        relationships: &[("configuration-version", false), ("workspace", false)],
        required: &["workspace"],
        fixed: &[],
        unsupported: &[],
        unrelated: &[("cost-estimate", false), ("policy-checks", true), ("vcs-revision", false)],
    },
    Kind {
        name: "state-versions",
        attributes: &[
            ("force", Flag),
            ("lineage", OrNull(&Text)),
            ("md5", Text),
            ("serial", Count),
            ("state", LongText),
        ],
        relationships: &[("workspace", false)],
        required: &["state", "workspace"],
        fixed: &[],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "tags",
        attributes: &[("name", Name)],
        relationships: &[("account", false)],
        required: &["name"],
        fixed: &[],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "vars",
        attributes: &[
            ("category", OneOf(|| vec!["terraform", "shell", "env"])),
            ("description", OrNull(&Text)),
            ("final", Flag),
            ("hcl", Flag),
            ("key", Text),
            ("sensitive", Flag),
            ("value", OrNull(&LongText)),
        ],
        relationships: &[
            ("account", false),
            ("environment", false),
            ("tag", false),
            ("workspace", false),
        ],
        required: &["key", "category"],
        // Admins' tokens have no address.
        fixed: &[("updated-by-email", "null")],
        unsupported: &[],
        unrelated: &[("updated-by", false)],
    },
    Kind {
        name: "webhook-integrations",
        attributes: &[
            ("enabled", Flag),
            ("headers", HEADERS),
            ("is-shared", Flag),
            ("max-attempts", within(&ATTEMPTS, "attempts")),
            ("name", Name),
            ("secret-key", OrNull(&Text)),
            ("timeout", within(&webhook_integrations::TIMEOUTS, "seconds")),
            ("url", Text),
        ],
        relationships: &[("account", false), ("environments", true), ("events", true)],
        required: &["name", "url", "events"],
        fixed: &[("http-method", "\"POST\"")],
        unsupported: &[],
        unrelated: &[],
    },
    Kind {
        name: "workspaces",
        attributes: &[
            ("allow-other-terraform-version", Flag),
            ("apply-schedule", OrNull(&Text)),
            ("apply-timeout-seconds", OrNull(&SECONDS)),
            ("auto-apply", Flag),
            ("deletion-protection-enabled", Flag),
            ("destroy-schedule", OrNull(&Text)),
            ("execution-mode", OneOf(|| vec!["remote", "local"])),
            ("hooks", Named(|| Hook::ALL.map(Hook::name).to_vec(), &OrNull(&Text))),
            ("iac-platform", OneOf(|| vec!["terraform", "opentofu"])),
            ("image", OrNull(&Text)),
            ("name", Name),
            ("operations", Flag),
            ("plan-timeout-seconds", OrNull(&SECONDS)),
            ("remote-state-sharing", Flag),
            ("run-operation-timeout", OrNull(&MINUTES)),
            ("terraform-version", OrNull(&Text)),
            ("working-directory", OrNull(&Text)),
        ],
        relationships: &[("agent-pool", false), ("environment", false), ("tags", true)],
        required: &["name", "environment"],
        fixed: &[
            // What clients write who write nothing else, and what it amounts to.
            ("auto-queue-runs", "\"skip_first\""),
            ("auto-queue-runs", "\"never\""),
            ("environment-type", "\"unmapped\""),
            ("file-triggers-enabled", "false"),
            ("force-latest-run", "false"),
            ("remote-backend", "true"),
            ("terragrunt", "null"),
            ("var-files", "[]"),
            ("vcs-repo", "null"),
        ],
        // As one client spells `var-files` in changes.
        unsupported: &["var_files"],
        unrelated: &[
            ("created-by", false),
            ("module-version", false),
            ("ssh-key", false),
            ("vcs-provider", false),
        ],
    },
];

/// What to send instead of a name that is not supported: a kind, a name of it, and what to do.
const INSTEAD: &[(&str, &str, &str)] = &[
    ("hooks", "scriptfile-path", SCRIPT),
    ("hooks", "vcs-provider", SCRIPT),
    ("hooks", "vcs-repo", SCRIPT),
];

const SCRIPT: &str = "Hooks come from no repository: send the text of the script as `script`.";

impl Kind {
    /// The kind that a request to this path writes: the last one that the path names.
    pub(super) fn of_path(path: &str) -> Option<&'static Self> {
        path.rsplit('/').find_map(Self::named)
    }

    pub(super) fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Whether it has this relationship with what this server does not have.
    pub(super) fn is_unrelated(&self, name: &str) -> bool {
        self.unrelated.iter().any(|(unrelated, _)| *unrelated == name)
    }

    /// Checks an attribute that a client writes.
    ///
    /// # Errors
    /// This server does not have it, or not with such a value.
    pub(super) fn check_attribute(&self, name: &str, value: &Value) -> Result<(), ApiError> {
        if let Some(of) = self.attribute(name) {
            return match value.is_null() || of.accepts(value) {
                true => Ok(()),
                false => {
                    Err(ApiError::attribute(name, format!("This field takes {}.", of.words())))
                }
            };
        }
        let accepted = self.values(name);
        if !accepted.is_empty() {
            let is_accepted = |one: &Value| value == one || asks_nothing(value, one);
            return match value.is_null() || accepted.iter().any(is_accepted) {
                true => Ok(()),
                false => {
                    let only = format!("the only value is {}.", accepted[0]);
                    let detail = format!("This server does not support it; {only}");
                    Err(ApiError::attribute(name, self.with_instead(name, detail)))
                }
            };
        }
        if self.unsupported.contains(&name) {
            return match asks_nothing(value, &Value::Null) {
                true => Ok(()),
                false => Err(ApiError::attribute(name, "This server does not support it.")),
            };
        }
        let known = listed(self.attributes.iter().map(|(name, _)| *name));
        Err(ApiError::attribute(
            name,
            format!("There is no field {name} that can be written; there are: {known}."),
        ))
    }

    /// The same of a relationship.
    ///
    /// # Errors
    /// As [`Kind::check_attribute`].
    pub(super) fn check_relationship(&self, name: &str, value: &Value) -> Result<(), ApiError> {
        if self.relationships.iter().any(|(known, _)| *known == name) {
            return Ok(());
        }
        if self.is_unrelated(name) {
            return match value.is_object() && asks_nothing(&value["data"], &Value::Null) {
                true => Ok(()),
                false => {
                    let detail = "This server does not support it.".to_owned();
                    Err(ApiError::relationship(name, self.with_instead(name, detail)))
                }
            };
        }
        let known = listed(self.relationships.iter().map(|(name, _)| *name));
        Err(ApiError::relationship(
            name,
            format!("There is no relationship {name} that can be written; there are: {known}."),
        ))
    }

    /// Why a name is refused, and what to send instead if there is anything.
    fn with_instead(&self, name: &str, why: String) -> String {
        let mut instead = INSTEAD.iter().filter(|(kind, of, _)| (*kind, *of) == (self.name, name));
        instead.next().map_or(why.clone(), |(.., instead)| format!("{why} {instead}"))
    }

    /// Whether an attribute takes names.
    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.attribute(name), Some(Name))
    }

    fn attribute(&self, name: &str) -> Option<&ValueType> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, of)| of)
    }

    /// Whether a new resource has to have anything.
    pub(super) fn needs_something(&self) -> bool {
        !self.required.is_empty()
    }

    /// A document with such a resource as clients write it, in JSON Schema.
    pub(super) fn schema_of_request(&self, is_new: bool) -> Value {
        let is_required = |name: &str| is_new && self.required.contains(&name);
        let asks_nothing = json!({ "enum": NOTHING.iter().map(json_of).collect::<Vec<_>>() });
        let of_attribute = |(name, of): &(&str, ValueType)| {
            let schema = if is_required(name) { of.schema() } else { or_null(of.schema()) };
            ((*name).to_owned(), schema)
        };
        let mut attributes: Map<String, Value> = self.attributes.iter().map(of_attribute).collect();
        for (name, _) in self.fixed {
            let mut values = self.values(name);
            let others = if is_nothing(&values[0]) { &NOTHING[..] } else { &["null"] };
            for other in others.iter().map(json_of) {
                if !values.contains(&other) {
                    values.push(other);
                }
            }
            attributes.insert((*name).to_owned(), json!({ "enum": values }));
        }
        for name in self.unsupported {
            attributes.insert((*name).to_owned(), asks_nothing.clone());
        }
        let of_relationship = |(name, is_to_many): &(&str, bool)| {
            let linkage = match (is_to_many, is_required(name)) {
                (true, _) => "to-many",
                (false, true) => "to-one",
                (false, false) => "to-one-or-none",
            };
            ((*name).to_owned(), schema_named(linkage))
        };
        let mut relationships: Map<String, Value> =
            self.relationships.iter().map(of_relationship).collect();
        for (name, _) in self.unrelated {
            let nothing = json!({ "properties": { "data": asks_nothing }, "type": "object" });
            relationships.insert((*name).to_owned(), nothing);
        }
        let part = |members: Map<String, Value>| {
            let needed = members.keys().filter(|name| is_required(name));
            let needed: Vec<&String> = needed.collect();
            json!({
                "type": "object",
                "required": needed,
                "properties": members,
                "additionalProperties": false,
            })
        };
        let parts = [("attributes", part(attributes)), ("relationships", part(relationships))];
        let is_needed = |schema: &Value| schema["required"] != json!([]);
        let needed = parts.iter().filter(|(_, schema)| is_needed(schema)).map(|(name, _)| *name);
        let needed: Vec<&str> = needed.collect();
        let [(_, attributes), (_, relationships)] = parts;
        json!({
            "type": "object",
            "required": ["data"],
            "properties": { "data": {
                "type": "object",
                "required": needed,
                "properties": {
                    "type": { "type": ["string", "null"], "examples": [self.name] },
                    "id": { "type": ["string", "null"] },
                    "attributes": attributes,
                    "relationships": relationships,
                },
            } },
        })
    }

    /// What answers have of the attributes in this table, in JSON Schema.
    pub(super) fn answered(&self) -> Map<String, Value> {
        let written = self.attributes.iter().map(|(name, of)| ((*name).to_owned(), of.schema()));
        let fixed = self.fixed.iter().map(|(name, _)| {
            ((*name).to_owned(), json!({ "const": self.values(name).swap_remove(0) }))
        });
        written.chain(fixed).collect()
    }

    /// The names of what answers have of it.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static str> {
        let attributes = self.attributes.iter().map(|(name, _)| *name);
        let fixed = self.fixed.iter().map(|(name, _)| *name);
        let relationships = self.relationships.iter().chain(self.unrelated).map(|(name, _)| *name);
        attributes.chain(fixed).chain(relationships)
    }

    /// Whether it has relationships of which answers say that there is nothing.
    pub(super) fn unrelated(&self) -> impl Iterator<Item = &'static str> {
        self.unrelated.iter().map(|(name, _)| *name)
    }

    /// The values of a fixed attribute, that of answers first.
    fn values(&self, name: &str) -> Vec<Value> {
        let named = self.fixed.iter().filter(|(fixed, _)| *fixed == name);
        named.map(|(_, value)| json_of(value)).collect()
    }
}

/// Those attributes of a kind that another API takes, too, in JSON Schema.
pub(in crate::api) fn schema_of_attributes(kind: &str, names: &[&str]) -> Value {
    let kind = Kind::named(kind).expect("the table has the kind");
    let of_name = |name: &&str| {
        (
            (*name).to_owned(),
            kind.attribute(name).map_or_else(|| json!({}), |of| or_null(of.schema())),
        )
    };
    names.iter().map(of_name).collect::<Map<_, _>>().into()
}

/// Adds to a resource what clients expect and this server does not have.
pub(super) fn complete(resource: &mut Value) {
    let Some(kind) = resource["type"].as_str().and_then(Kind::named) else { return };
    if let Some(attributes) = resource.get_mut("attributes").and_then(Value::as_object_mut) {
        for (name, _) in kind.fixed {
            attributes.entry(*name).or_insert_with(|| kind.values(name).swap_remove(0));
        }
    }
    let relationships = resource.get_mut("relationships").and_then(Value::as_object_mut);
    if let Some(relationships) = relationships {
        for (name, is_to_many) in kind.unrelated {
            let data = if *is_to_many { Value::Array(Vec::new()) } else { Value::Null };
            relationships.entry(*name).or_insert(json!({ "data": data }));
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Whether a value that is not supported asks for nothing, as a client's default does. To
/// switch something off that is always on is not nothing.
fn asks_nothing(value: &Value, only: &Value) -> bool {
    is_nothing(value) && is_nothing(only)
}

/// The values that ask for nothing, in JSON.
const NOTHING: [&str; 5] = ["null", "false", "\"\"", "[]", "{}"];

fn is_nothing(value: &Value) -> bool {
    NOTHING.iter().any(|nothing| json_of(nothing) == *value)
}

fn json_of(text: &&str) -> Value {
    serde_json::from_str(text).expect("the table has JSON")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use axum::http::{Method, StatusCode};
    use serde_json::json;

    use super::super::resource_types::TYPES;
    use super::*;
    use crate::in_process::InProcess;

    const BEGIN: &str =
        "<!-- from attributes.rs and resource_types.rs in src/server/api/pools -->\n";
    const END: &str = "<!-- end -->\n";

    /// The tables of the page: what is written, and what is asked for in reading.
    fn tables() -> String {
        let mut page = String::new();
        for listed in &TYPES {
            writeln!(page, "### {}\n", listed.name).unwrap();
            writeln!(page, "| what | names |\n|---|---|").unwrap();
            let mut row = |what: &str, names: Vec<String>| {
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                let names = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
                writeln!(page, "| {what} | {names} |").unwrap();
            };
            let plain = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            if let Some(kind) = Kind::named(listed.name) {
                let unrelated: Vec<&str> = kind.unrelated.iter().map(|(name, _)| *name).collect();
                let fixed = kind.fixed.iter().map(|(name, value)| format!("{name}: {value}"));
                row(
                    "attributes",
                    kind.attributes.iter().map(|(name, _)| (*name).to_owned()).collect(),
                );
                row(
                    "relationships",
                    kind.relationships.iter().map(|(name, _)| (*name).to_owned()).collect(),
                );
                row("attributes with one value", fixed.collect());
                row("attributes that are not supported", plain(kind.unsupported));
                row("relationships that are not supported", plain(&unrelated));
            }
            row("`include`", listed.related.iter().map(|(name, _)| (*name).to_owned()).collect());
            if !listed.searched.is_empty() {
                row("`filter[…]`", plain(listed.filters));
                row("`sort`", listed.sorts.iter().map(|(name, _)| (*name).to_owned()).collect());
                let column = |column: &&str| column.trim_start_matches("t.").to_owned();
                row("`query` looks in", listed.searched.iter().map(column).collect());
            }
            writeln!(page).unwrap();
        }
        page
    }

    /// `UPDATE_DOCS=1 cargo test -p server` writes them.
    #[test]
    fn the_page_of_the_api_has_the_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
        let page = std::fs::read_to_string(&file).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let wanted = format!("{before}{BEGIN}\n{}{END}{after}", tables());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &wanted).unwrap();
        } else {
            assert!(page == wanted, "docs/api.md is not that of the table: UPDATE_DOCS=1");
        }
    }

    #[test]
    fn a_path_names_the_kind_that_is_written() {
        for (path, kind) in [
            ("/api/iacp/v3/workspaces", Some("workspaces")),
            ("/api/iacp/v3/workspaces/ws-1", Some("workspaces")),
            ("/api/iacp/v3/agent-pools/apool-1/access-tokens", Some("access-tokens")),
            ("/api/iacp/v3/agents", None),
        ] {
            assert_eq!(Kind::of_path(path).map(|kind| kind.name), kind, "{path}");
        }
    }

    struct Site {
        server: InProcess,
        paths: Vec<(&'static Kind, Method, String)>,
    }

    /// A server, and each request that writes: to something that is there, or a new one.
    async fn site() -> Site {
        let server = InProcess::new().await;
        let first = async |list: &str| {
            let listed = server.api(Method::GET, &format!("/{list}"), Value::Null).await;
            listed["data"][0]["id"].as_str().unwrap().to_owned()
        };
        let workspace = server.workspace.clone();
        let related = [("workspace", workspace.as_str())];
        let variable = json!({ "key": "a", "value": "b", "category": "terraform" });
        server.create("/vars", variable, &related).await;
        let mut paths = Vec::new();
        for kind in &KINDS {
            let post = match kind.name {
                "comments" => Some("/runs/run-1/comments".to_owned()),
                // There is one from the start.
                "accounts" => None,
                name => Some(format!("/{name}")),
            };
            paths.extend(post.map(|path| (kind, Method::POST, path)));
            if ["access-tokens", "accounts", "agent-pools", "environments", "vars", "workspaces"]
                .contains(&kind.name)
            {
                let id = first(kind.name).await;
                paths.push((kind, Method::PATCH, format!("/{}/{id}", kind.name)));
            }
        }
        Site { server, paths }
    }

    impl Site {
        async fn write(
            &self,
            method: &Method,
            path: &str,
            attributes: Value,
            relationships: Value,
        ) -> (StatusCode, Value) {
            let data = json!({ "attributes": attributes, "relationships": relationships });
            let body = json!({ "data": data }).to_string();
            let path = format!("/api/iacp/v3{path}");
            let (status, answer) =
                self.server.call(method.clone(), &path, &self.server.admin, &[], body).await;
            (status, serde_json::from_slice(&answer).unwrap_or_default())
        }

        async fn refuses(
            &self,
            at: &(&Kind, Method, String),
            part: &str,
            name: &str,
            value: Value,
        ) {
            let (_, method, path) = at;
            let mut data = json!({ "attributes": {}, "relationships": {} });
            data[part][name] = value;
            let (attributes, relationships) =
                (data["attributes"].take(), data["relationships"].take());
            let (status, answer) = self.write(method, path, attributes, relationships).await;
            assert_eq!(
                status,
                StatusCode::UNPROCESSABLE_ENTITY,
                "{method} {path} {name}: {answer}"
            );
            let pointer = format!("/data/{part}/{name}");
            assert_eq!(answer["errors"][0]["source"]["pointer"], pointer, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_value_of_another_type_is_refused_by_name() {
        let site = site().await;
        for at in &site.paths {
            for (name, of) in at.0.attributes {
                let values =
                    [json!(true), json!("x"), json!(-1.5), json!([[1]]), json!({ "?": 1 })];
                for value in values.into_iter().filter(|value| !of.accepts(value)) {
                    site.refuses(at, "attributes", name, value).await;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_relationship_without_data_is_refused_and_changes_nothing() {
        let site = site().await;
        let path = format!("/workspaces/{}", site.server.workspace);
        let before = site.server.api(Method::GET, &path, Value::Null).await;
        for at in &site.paths {
            for (name, _) in at.0.relationships {
                if at.1 == Method::PATCH {
                    site.refuses(at, "relationships", name, json!({})).await;
                }
            }
            for (name, _) in at.0.unrelated {
                site.refuses(at, "relationships", name, json!("x")).await;
            }
        }
        assert_eq!(site.server.api(Method::GET, &path, Value::Null).await, before);
    }

    #[tokio::test]
    async fn a_resource_without_relationships_has_none_that_are_null() {
        let server = InProcess::new().await;
        let listed = server.api(Method::GET, "/accounts", Value::Null).await;
        assert!(listed["data"][0].get("relationships").is_none(), "{listed}");
    }

    #[tokio::test]
    async fn no_relationship_is_ignored_in_a_change() {
        let site = site().await;
        let mut accepted = Vec::new();
        for (kind, method, path) in site.paths.iter().filter(|at| at.1 == Method::PATCH) {
            for (name, _) in kind.relationships {
                let (status, _) = site.write(method, path, json!({}), json!({ *name: "x" })).await;
                if status != StatusCode::UNPROCESSABLE_ENTITY {
                    accepted.push(format!("{method} {path} {name}: {status}"));
                }
            }
        }
        assert!(accepted.is_empty(), "{accepted:#?}");
    }

    #[tokio::test]
    async fn no_attribute_takes_a_text_without_an_end_or_is_ignored_in_a_change() {
        let site = site().await;
        let (_, run) = site.server.run().await;
        let found = site.server.api(Method::GET, &format!("/runs/{run}"), Value::Null).await;
        let related = &found["data"]["relationships"];
        let like_the_run = json!({
            "workspace": related["workspace"],
            "configuration-version": related["configuration-version"],
        });
        let workspace = json!({ "workspace": related["workspace"] });
        let variable = json!({ "key": "k", "value": "v", "category": "terraform" });
        let mut requests = vec![
            ("comments", Method::POST, format!("/runs/{run}/comments"), json!({}), json!({})),
            ("runs", Method::POST, "/runs".to_owned(), json!({}), like_the_run),
            ("tags", Method::POST, "/tags".to_owned(), json!({}), json!({})),
            ("vars", Method::POST, "/vars".to_owned(), variable, workspace),
        ];
        for (kind, method, path) in site.paths.iter().filter(|at| at.1 == Method::PATCH) {
            requests.push((kind.name, method.clone(), path.clone(), json!({}), json!({})));
        }
        let mut accepted = Vec::new();
        let text = "x".repeat(900_000);
        for (kind, method, path, attributes, relationships) in requests {
            for (name, _) in Kind::named(kind).unwrap().attributes {
                // Values may be longer than this, and have a limit of their own.
                if (kind, *name) == ("vars", "value") {
                    continue;
                }
                for value in [json!(text), json!([text]), json!({ "pre-plan": text })] {
                    let mut attributes = attributes.clone();
                    attributes[*name] = value;
                    let related = relationships.clone();
                    let (status, answer) = site.write(&method, &path, attributes, related).await;
                    let pointer = &answer["errors"][0]["source"]["pointer"];
                    // Hooks and headers are named with their attribute.
                    let is_named = pointer
                        .as_str()
                        .is_some_and(|at| at.starts_with(&format!("/data/attributes/{name}")));
                    if status != StatusCode::UNPROCESSABLE_ENTITY || !is_named {
                        accepted.push(format!("{method} {path} {name}: {status} {pointer}"));
                    }
                }
            }
        }
        assert!(accepted.is_empty(), "{accepted:#?}");
    }

    #[tokio::test]
    async fn what_the_table_does_not_have_is_refused_by_name_in_each_request_that_writes() {
        let site = site().await;
        for at in &site.paths {
            site.refuses(at, "attributes", "colour", json!(null)).await;
            let related = json!({ "data": { "type": "x", "id": "x-1" } });
            site.refuses(at, "relationships", "owner", related.clone()).await;
            for name in at.0.unsupported {
                site.refuses(at, "attributes", name, json!("x")).await;
            }
            for (name, _) in at.0.fixed {
                site.refuses(at, "attributes", name, json!("another")).await;
            }
            for (name, is_to_many) in at.0.unrelated {
                let many = json!({ "data": [{ "type": "x", "id": "x-1" }] });
                let value = if *is_to_many { many } else { related.clone() };
                site.refuses(at, "relationships", name, value).await;
            }
        }
    }

    #[tokio::test]
    async fn what_a_client_reads_it_can_write_again_and_what_asks_nothing_is_accepted() {
        let site = site().await;
        for (kind, method, path) in &site.paths {
            if *method != Method::PATCH {
                continue;
            }
            let mut attributes = Map::new();
            let mut relationships = Map::new();
            let found = site.server.api(Method::GET, path, Value::Null).await;
            for (name, _) in kind.fixed {
                let value = &found["data"]["attributes"][*name];
                assert_eq!(*value, kind.values(name)[0], "{path} {name}");
                attributes.insert((*name).to_owned(), value.clone());
            }
            for name in kind.unsupported {
                attributes.insert((*name).to_owned(), json!([]));
            }
            for (name, _) in kind.unrelated {
                let value = &found["data"]["relationships"][*name];
                assert!(value.get("data").is_some(), "{path} {name}: {found}");
                relationships.insert((*name).to_owned(), value.clone());
            }
            let (attributes, relationships) = (attributes.into(), relationships.into());
            let (status, answer) = site.write(method, path, attributes, relationships).await;
            assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        }
    }

    #[tokio::test]
    async fn to_switch_off_what_is_always_on_is_refused() {
        let site = site().await;
        for at in site.paths.iter().filter(|(kind, ..)| kind.name == "environments") {
            site.refuses(at, "attributes", "mask-sensitive-output", json!(false)).await;
        }
    }

    #[tokio::test]
    async fn the_run_operation_timeout_is_the_limit_of_plan_and_apply_in_minutes() {
        let site = site().await;
        let path = format!("/workspaces/{}", site.server.workspace);
        let patch = async |attributes: Value| {
            let (status, answer) = site.write(&Method::PATCH, &path, attributes, json!({})).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            let attributes = &answer["data"]["attributes"];
            ["plan-timeout-seconds", "apply-timeout-seconds", "run-operation-timeout"]
                .map(|name| attributes[name].as_u64())
        };
        let minutes = |minutes: Value| json!({ "run-operation-timeout": minutes });
        assert_eq!(patch(minutes(json!(30))).await, [Some(1800), Some(1800), Some(30)]);
        assert_eq!(
            patch(json!({ "plan-timeout-seconds": 60 })).await,
            [Some(60), Some(1800), None]
        );
        assert_eq!(patch(json!({})).await, [Some(60), Some(1800), None]);
        assert_eq!(patch(minutes(Value::Null)).await, [None, None, None]);
        for bad in [json!(0), json!(10_081), json!("30"), json!(1.5)] {
            let at = Kind::named("workspaces").unwrap();
            let at = (at, Method::PATCH, path.clone());
            site.refuses(&at, "attributes", "run-operation-timeout", bad).await;
        }
    }
}
