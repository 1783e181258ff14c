//! `/api-reference`: every call of the APIs, from their document.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::PageError;
use super::frame::Page;
use super::session::Session;
use crate::api::openapi;
use crate::app::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/api-reference", get(show))
}

#[derive(Serialize)]
struct Reference {
    document: &'static str,
    groups: Vec<Group>,
}

#[derive(Serialize)]
struct Group {
    name: String,
    operations: Vec<Operation>,
}

#[derive(Serialize)]
struct Operation {
    id: String,
    method: String,
    path: String,
    summary: String,
    details: Option<String>,
    needs_token: bool,
    parameters: Vec<Field>,
    media_type: Option<String>,
    body: Vec<Field>,
    answers: Vec<Answer>,
}

#[derive(Serialize)]
struct Field {
    name: String,
    kind: String,
    is_required: bool,
    description: String,
}

#[derive(Serialize)]
struct Answer {
    status: String,
    content: String,
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let page = Page {
        template: "api-reference.html",
        title: "API reference",
        section: "account",
        topics: &[],
    };
    let groups = groups(&openapi::document());
    page.show(&app, &session, &Reference { document: openapi::PATH, groups })
}

/// The groups in the order of the document, each with its calls.
fn groups(document: &Value) -> Vec<Group> {
    let mut groups: Vec<Group> = members(&document["tags"])
        .map(|tag| Group { name: text(&tag["name"]), operations: Vec::new() })
        .collect();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let Some(name) = operation["tags"][0].as_str() else { continue };
            if let Some(group) = groups.iter_mut().find(|group| group.name == name) {
                group.operations.push(render(method, path, item, operation));
            }
        }
    }
    groups
}

fn render(method: &str, path: &str, item: &Value, operation: &Value) -> Operation {
    let parameters = members(&item["parameters"]).chain(members(&operation["parameters"]));
    let parameters = parameters.map(|parameter| Field {
        name: text(&parameter["name"]),
        kind: kind(&parameter["schema"]),
        is_required: parameter["required"] == true,
        description: description(parameter),
    });
    let content = operation["requestBody"]["content"].as_object();
    let content = content.and_then(|content| content.iter().next());
    let mut body = Vec::new();
    if let Some((_, content)) = content {
        add_fields("", &content["schema"], &mut body);
    }
    let answers = operation["responses"].as_object().into_iter().flatten();
    Operation {
        id: text(&operation["operationId"]),
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(&operation["summary"]),
        details: operation["description"].as_str().map(str::to_owned),
        needs_token: operation.get("security").is_none(),
        parameters: parameters.collect(),
        media_type: content.map(|(media_type, _)| media_type.clone()),
        body,
        answers: answers.map(answer).collect(),
    }
}

/// The members of a body, those of objects in it under paths such as `data.attributes.name`.
fn add_fields(path: &str, schema: &Value, fields: &mut Vec<Field>) {
    let required = &schema["required"];
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let name = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if member["properties"].as_object().is_some_and(|inner| !inner.is_empty()) {
            add_fields(&name, member, fields);
            continue;
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        fields.push(Field {
            kind: kind(member),
            is_required: members(required).any(|required| required == last),
            description: description(member),
            name,
        });
    }
}

fn answer((status, answer): (&String, &Value)) -> Answer {
    let content = answer["content"].as_object().and_then(|content| content.iter().next());
    let content = match content {
        Some((_, content)) => {
            let data = &content["schema"]["properties"]["data"];
            match (name(data), name(&data["items"])) {
                (Some(one), _) => one.to_owned(),
                (_, Some(many)) => format!("a page of {many}"),
                _ => kind(&content["schema"]),
            }
        }
        None if answer.get("$ref").is_some() => "errors".to_owned(),
        None => "nothing".to_owned(),
    };
    Answer { status: status.clone(), content }
}

/// The name of the schema that is referred to.
fn name(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

/// What a value may be, in words.
fn kind(schema: &Value) -> String {
    if let Some(name) = name(schema) {
        return name.to_owned();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
    }
    let inner = |schema: &Value| match schema.as_object().is_some_and(Map::is_empty) {
        true => String::new(),
        false => format!(" of {}", kind(schema)),
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let bounds = match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) if *most != i64::MAX => format!(", {least} to {most}"),
        (Some(least), _) => format!(", from {least}"),
        _ => String::new(),
    };
    let items = schema.get("items").map(inner).unwrap_or_default();
    match types.is_empty() {
        true => "any value".to_owned(),
        false => format!("{}{items}{bounds}", types.join(" or ")),
    }
}

fn description(of: &Value) -> String {
    text(if of.get("description").is_some() {
        &of["description"]
    } else {
        &of["schema"]["description"]
    })
}

fn members(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::browser::Browser;
    use super::*;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn the_page_has_every_call_of_the_document() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let page = browser.page("/api-reference").await;
        let document = openapi::document();
        let groups = groups(&document);
        let operations: Vec<&Operation> =
            groups.iter().flat_map(|group| &group.operations).collect();
        let methods = ["get", "post", "put", "patch", "delete"];
        let paths = document["paths"].as_object().unwrap().values();
        let count: usize = paths
            .map(|item| methods.iter().filter(|method| item.get(**method).is_some()).count())
            .sum();
        assert_eq!(operations.len(), count);
        for operation in operations {
            assert!(page.contains(&format!("id=\"{}\"", operation.id)), "{}", operation.id);
        }
        let mut all = groups.iter().flat_map(|group| &group.operations);
        let create = all.find(|one| one.id == "create-a-workspace").unwrap();
        let field = |name: &str| create.body.iter().find(|field| field.name == name).unwrap();
        assert!(field("data.attributes.name").is_required);
        assert_eq!(field("data.relationships.environment").kind, "to-one");
        assert_eq!(field("data.attributes.auto-apply").kind, "boolean or null");
        assert_eq!(create.answers[0].content, "workspaces");
    }
}
