//! `/api-reference`: every call of the APIs, from their document, and a page for each group of
//! calls.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::address::Path;
use super::error::PageError;
use super::frame::Page;
use super::session::Session;
use crate::api::openapi;
use crate::app::App;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api-reference", get(show))
        .route("/api-reference/{group}", get(show_group))
}

#[derive(Serialize)]
struct Reference {
    document: &'static str,
    groups: Vec<Group>,
}

#[derive(Serialize)]
struct Group {
    name: String,
    calls: Vec<Call>,
}

#[derive(Serialize)]
struct Call {
    id: String,
    method: String,
    path: String,
    summary: String,
    details: Option<String>,
    needs_token: bool,
    tables: Vec<Table>,
    answers: Vec<Answer>,
}

/// What a call takes in one place.
#[derive(Serialize)]
struct Table {
    title: String,
    fields: Vec<Field>,
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
    let groups = groups(&openapi::document());
    let page = Page {
        template: "api-reference.html",
        title: "API reference",
        section: "account",
        topics: &[],
    };
    page.show(&app, &session, &Reference { document: openapi::PATH, groups })
}

async fn show_group(
    State(app): State<App>,
    Path(name): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let found = groups(&openapi::document()).into_iter().find(|group| group.name == name);
    let group = found.ok_or(PageError::NotFound("group of calls"))?;
    let page = Page {
        template: "api-calls.html",
        title: &format!("{name} · API reference"),
        section: "account",
        topics: &[],
    };
    page.show(&app, &session, &json!({ "group": group }))
}

/// The groups in the order of the document, each with its calls.
fn groups(document: &Value) -> Vec<Group> {
    let mut groups: Vec<Group> = members(&document["tags"])
        .map(|tag| Group { name: text(&tag["name"]), calls: Vec::new() })
        .collect();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let Some(name) = operation["tags"][0].as_str() else { continue };
            if let Some(group) = groups.iter_mut().find(|group| group.name == name) {
                group.calls.push(call(method, path, item, operation));
            }
        }
    }
    groups
}

fn call(method: &str, path: &str, item: &Value, operation: &Value) -> Call {
    let parameters = members(&item["parameters"]).chain(members(&operation["parameters"]));
    let parameters = parameters.map(|parameter| Field {
        name: text(&parameter["name"]),
        kind: kind(&parameter["schema"]),
        is_required: parameter["required"] == true,
        description: description(parameter),
    });
    let mut tables = vec![Table { title: "Parameter".to_owned(), fields: parameters.collect() }];
    for (media_type, content) in
        operation["requestBody"]["content"].as_object().into_iter().flatten()
    {
        let mut fields = Vec::new();
        add_fields("", &content["schema"], &mut fields);
        if fields.is_empty() {
            fields.push(Field {
                name: "body".to_owned(),
                kind: kind(&content["schema"]),
                is_required: operation["requestBody"]["required"] == true,
                description: String::new(),
            });
        }
        tables.push(Table { title: format!("Body, {media_type}"), fields });
    }
    tables.retain(|table| !table.fields.is_empty());
    let answers = operation["responses"].as_object().into_iter().flatten();
    Call {
        id: text(&operation["operationId"]),
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(&operation["summary"]),
        details: operation["description"].as_str().map(str::to_owned),
        needs_token: operation.get("security").is_none(),
        tables,
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
    use axum::http::StatusCode;

    use super::super::browser::Browser;
    use super::*;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn the_pages_have_every_call_of_the_document() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let index = browser.page("/api-reference").await;
        let document = openapi::document();
        let groups = groups(&document);
        let paths = document["paths"].as_object().unwrap().values();
        let members = paths.flat_map(|item| item.as_object().unwrap().keys());
        let operations = members.filter(|name| *name != "parameters").count();
        assert_eq!(groups.iter().map(|group| group.calls.len()).sum::<usize>(), operations);
        for group in &groups {
            let page = browser.page(&format!("/api-reference/{}", group.name)).await;
            for call in &group.calls {
                assert!(index.contains(&format!("#{}\"", call.id)), "{}", call.id);
                assert!(page.contains(&format!("id=\"{}\"", call.id)), "{}", call.id);
                assert!(page.contains(&call.path), "{}", call.path);
            }
        }
        assert_eq!(browser.get("/api-reference/nothing").await.0, StatusCode::NOT_FOUND);

        let mut calls = groups.iter().flat_map(|group| &group.calls);
        let create = calls.find(|call| call.id == "create-a-workspace").unwrap();
        let body = &create.tables.last().unwrap().fields;
        let field = |name: &str| body.iter().find(|field| field.name == name).unwrap();
        assert!(field("data.attributes.name").is_required);
        assert_eq!(field("data.relationships.environment").kind, "to-one");
        assert_eq!(field("data.attributes.auto-apply").kind, "boolean or null");
        assert_eq!(create.answers[0].content, "workspaces");
    }
}
