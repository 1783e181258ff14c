//! The document of the APIs: OpenAPI 3.1, made of the calls as they are routed and of the tables
//! from which requests are checked.

use std::collections::BTreeSet;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::calls::{About, Answered, Call, Calls, Content, document_with, page_of, schema_named};
use super::json_api::MEDIA_TYPE;
use super::{pools, terraform};

/// Where it is on the server.
pub(crate) const PATH: &str = "/api/openapi.json";

/// One of the APIs.
pub(super) struct Api {
    /// What its groups of calls and its ids of operations begin with; nothing for the first.
    pub prefix: &'static str,
    /// Where its calls are.
    pub base: &'static str,
    pub calls: Vec<Call>,
    /// The name of a type of resource among the schemas.
    pub schema_name: fn(&str) -> String,
    /// Adds to what a call says of itself what follows from its path.
    pub complete: fn(&Call, &mut Details),
}

/// What a call takes and answers.
pub(super) struct Details {
    /// Those of its query.
    pub parameters: Vec<Value>,
    pub body: Option<Value>,
    pub answers: Vec<Answered>,
}

impl Details {
    fn of(about: &About) -> Self {
        let parameters = about.parameters.iter().map(|(name, schema, is_required)| {
            let mut parameter = parameter_in_query(name, schema());
            parameter["required"] = (*is_required).into();
            parameter
        });
        let body = about.sent.map(|sent| body(sent.media_type, sent.is_required, (sent.schema)()));
        Self { parameters: parameters.collect(), body, answers: about.answers.clone() }
    }
}

/// The body of a request.
pub(super) fn body(media_type: &str, is_required: bool, schema: Value) -> Value {
    json!({ "required": is_required, "content": { media_type: { "schema": schema } } })
}

/// The call that answers with the document, for anybody.
pub(super) fn calls() -> Calls {
    let about = About::from("Read this document").answers(
        axum::http::StatusCode::OK,
        Content::Other("application/json", || json!({ "type": "object" })),
    );
    Calls::default().get(PATH, about, read).without_token()
}

async fn read() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], document().to_string())
}

/// The document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    let mut groups = BTreeSet::new();
    let own = Api {
        prefix: "",
        base: "",
        calls: calls().into_described(),
        schema_name: str::to_owned,
        complete: |_, _| {},
    };
    let apis = [pools::described(), terraform::described(), terraform::described_services(), own];
    for api in &apis {
        for call in &api.calls {
            let group = group(api, call);
            let path = paths
                .entry(format!("{}{}", api.base, call.path))
                .or_insert_with(|| json!({ "parameters": path_parameters(&call.path) }));
            path[call.method.as_str().to_lowercase()] = operation(api, call, &group);
            groups.insert(group);
        }
    }
    let groups: Vec<Value> = groups.into_iter().map(|name| json!({ "name": name })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Agent pools",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The pool API and the API of Terraform's command line.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "tags": groups,
        "paths": paths,
        "components": {
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "An admin's token, or a run's while it goes on: it reads what \
                                belongs to the run.",
            } },
            "schemas": schemas(),
            "responses": {
                "refused": refusal("The request is refused; the errors say why."),
                "failed": refusal("The server failed; its log says why."),
            },
        },
    })
}

/// What a group of calls is called: the resources that their path begins with.
fn group(api: &Api, call: &Call) -> String {
    let first = call.path.split('/').nth(1).unwrap_or_default().trim_start_matches('.');
    format!("{}{first}", api.prefix)
}

fn operation(api: &Api, call: &Call, group: &str) -> Value {
    let about = &call.about;
    let mut details = Details::of(about);
    (api.complete)(call, &mut details);
    let Details { parameters, body, answers } = details;
    let mut operation = json!({
        "operationId": format!("{}{}", api.prefix, id_of(about.summary)),
        "summary": about.summary,
        "tags": [group],
        "responses": responses(api, &answers),
    });
    if let Some(text) = about.details {
        operation["description"] = text.into();
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    if !call.needs_token {
        operation["security"] = json!([]);
    }
    operation
}

/// `list-agent-pools` for "List agent pools".
fn id_of(summary: &str) -> String {
    let plain = summary.to_lowercase().replace('\'', "");
    plain.split(' ').collect::<Vec<_>>().join("-")
}

fn responses(api: &Api, answers: &[Answered]) -> Value {
    let mut responses = Map::new();
    for answered in answers {
        let name = |of: &str| (api.schema_name)(of);
        let (media_type, schema) = match answered.content {
            Content::Nothing => ("", None),
            Content::Page(of) => (MEDIA_TYPE, Some(page_of(&name(of)))),
            Content::One(of) => (MEDIA_TYPE, Some(document_with(&name(of)))),
            Content::Other(media_type, schema) => (media_type, Some(schema())),
        };
        let reason = answered.status.canonical_reason().unwrap_or_default();
        let mut response = json!({ "description": reason });
        if let Some(schema) = schema {
            response["content"] = json!({ media_type: { "schema": schema } });
        }
        responses.insert(answered.status.as_str().to_owned(), response);
    }
    for (statuses, name) in [("4XX", "refused"), ("5XX", "failed")] {
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        responses.insert(statuses.to_owned(), reference);
    }
    responses.into()
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = json!({ "type": "string", "minLength": 1 });
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    names.map(parameter).collect()
}

/// A parameter of the query.
pub(super) fn parameter_in_query(name: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "schema": schema })
}

/// A parameter of the query with names between commas, each with something around it.
pub(super) fn names_parameter(
    name: &str,
    (before, names, after): (&str, &[&str], &str),
    description: &str,
) -> Value {
    let known = names.join("|");
    let pattern = format!("^,*({before}({known}){after}(,+|$))*$");
    let mut parameter = parameter_in_query(name, json!({ "type": "string", "pattern": pattern }));
    parameter["description"] = format!("{description} Names: {}.", names.join(", ")).into();
    parameter
}

/// The parameters of a list that say which page of it is asked for.
pub(super) fn page_parameters() -> Vec<Value> {
    let number = |description: &str| {
        json!({
            "type": "integer", "minimum": 1, "maximum": i64::MAX, "description": description,
        })
    };
    vec![
        parameter_in_query("page[number]", number("Which page, from 1.")),
        parameter_in_query("page[size]", number("How many resources it has: 20, at most 100.")),
    ]
}

fn refusal(description: &str) -> Value {
    let schema = schema_named("errors");
    json!({ "description": description, "content": { MEDIA_TYPE: { "schema": schema } } })
}

fn schemas() -> Map<String, Value> {
    let text = json!({ "type": "string" });
    let identifier = json!({
        "type": "object",
        "required": ["id"],
        "properties": { "type": text, "id": text },
    });
    let count = json!({ "type": "integer", "minimum": 0 });
    let page = json!({ "type": ["integer", "null"], "minimum": 1 });
    let to_many = json!({ "type": "array", "items": schema_named("identifier") });
    let linkage = |data: Value| json!({ "type": "object", "required": ["data"], "properties": { "data": data } });
    let or_none = json!({ "anyOf": [schema_named("identifier"), { "type": "null" }] });
    let any = json!({ "anyOf": [schema_named("identifier"), to_many, { "type": "null" }] });
    let common = [
        ("identifier", identifier),
        ("to-one", linkage(schema_named("identifier"))),
        ("to-one-or-none", linkage(or_none)),
        ("to-many", linkage(to_many)),
        ("relationship", linkage(any)),
        (
            "meta",
            json!({ "type": "object", "required": ["pagination"], "properties": { "pagination": {
                "type": "object",
                "required": ["current-page", "prev-page", "next-page", "total-pages", "total-count"],
                "properties": {
                    "current-page": { "type": "integer", "minimum": 1 },
                    "prev-page": page,
                    "next-page": page,
                    "total-pages": count,
                    "total-count": count,
                },
            } } }),
        ),
        (
            "errors",
            json!({ "type": "object", "required": ["errors"], "properties": { "errors": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["status", "title"],
                    "properties": {
                        "status": text,
                        "title": text,
                        "detail": text,
                        "source": { "type": "object", "properties": {
                            "pointer": text,
                            "parameter": text,
                        } },
                    },
                },
            } } }),
        ),
    ];
    let common = common.into_iter().map(|(name, schema)| (name.to_owned(), schema));
    common.chain(pools::schemas()).chain(terraform::schemas()).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};

    use super::*;
    use crate::in_process::InProcess;

    const METHODS: [Method; 5] =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

    /// Every operation, with its method and its path.
    fn operations(document: &Value) -> Vec<(Method, &str, &Value)> {
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in METHODS {
                if let Some(operation) = item.get(method.as_str().to_lowercase()) {
                    found.push((method, path.as_str(), operation));
                }
            }
        }
        found
    }

    /// Everything that the document refers to.
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn each_operation_says_what_it_does_and_answers_and_what_it_refers_to_is_there() {
        let document = document();
        let operations = operations(&document);
        assert!(operations.len() > 120, "{}", operations.len());
        let mut ids = BTreeSet::new();
        for (method, path, operation) in operations {
            let what = format!("{method} {path}: {operation}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}");
            let is_refused_always = operation["description"]
                .as_str()
                .is_some_and(|text| text.starts_with("It is always refused"));
            let answers = operation["responses"].as_object().unwrap();
            let succeeds = answers.keys().any(|status| status.starts_with('2'));
            assert_ne!(succeeds, is_refused_always, "{what}");
        }
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[tokio::test]
    async fn the_served_document_has_every_method_of_every_path_and_no_other() {
        let server = InProcess::new().await;
        let (status, body) = server.call(Method::GET, PATH, "", &[], "").await;
        assert_eq!(status, StatusCode::OK);
        let document: Value = serde_json::from_slice(&body).unwrap();
        let operations = operations(&document);
        let paths: BTreeSet<&str> = operations.iter().map(|(_, path, _)| *path).collect();
        for path in paths {
            for method in METHODS {
                let is_there = operations.iter().any(|(of, at, _)| (of, *at) == (&method, path));
                let (status, body) =
                    server.call(method.clone(), path, &server.admin, &[], "").await;
                let no_such_call = String::from_utf8_lossy(&body).contains(" in this API.");
                let is_refused = status == StatusCode::METHOD_NOT_ALLOWED || no_such_call;
                assert_eq!(is_refused, !is_there, "{method} {path}: {status}");
            }
        }
    }
}
