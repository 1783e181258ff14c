//! The query of a request, checked against the table of the types: which resources a list
//! has, and what is answered of them. One that can't be followed is refused, since the answer
//! would be one to a question that nobody asked.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::slice;

use axum::extract::{FromRequestParts, MatchedPath, Query, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use super::access::ReadOnly;
use super::included::{IncludePath, included};
use super::resource_types::{Answer, ResourceType};
use super::{BASE, attributes};
use crate::api::json_api::{ApiError, Document, MAX_PAGE};
use crate::app::App;
use crate::store::{Order, Page, Search, View};

/// Checks a request's query, and answers with what it asks for.
pub(super) async fn answer(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let shape = Asked::of(&parts)?.shape;
    let is_read_only = parts.extensions.get::<ReadOnly>().is_some();
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let Some(mut document) = response.extensions_mut().remove::<Document>() else {
        return Ok(response);
    };
    shape.include(&app, &mut document.body).await?;
    for resource in resources(&mut document.body) {
        attributes::complete(resource);
        if is_read_only {
            ReadOnly::apply(resource);
        }
        shape.trim(resource);
    }
    Ok(document.send())
}

/// Which resources a list has.
#[derive(Debug, Default)]
pub(super) struct ListQuery {
    /// Which page.
    pub page: Page,
    filters: BTreeMap<String, String>,
    order: Vec<Order>,
    search: Option<String>,
    searched: &'static [&'static str],
}

impl ListQuery {
    /// The value of `filter[name]`.
    pub(super) fn filter(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str)
    }

    /// Whether `text` has what is searched for, if anything is.
    pub(super) fn searches(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        self.search.as_ref().is_none_or(|search| text.contains(&search.to_ascii_lowercase()))
    }

    /// The rows that it asks for.
    pub(super) fn view(&self) -> View<'_> {
        let search = self.search.as_ref().map(|text| Search { columns: self.searched, text });
        View { page: self.page, order: &self.order, search }
    }
}

/// What is answered of each resource.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The related resources that are answered, too.
    pub include: Vec<IncludePath>,
    /// The only attributes and relationships of a type.
    fields: BTreeMap<String, HashSet<String>>,
}

impl Shape {
    async fn include(&self, app: &App, document: &mut Value) -> Result<(), ApiError> {
        if !self.include.is_empty() {
            document["included"] = included(app, &document["data"], &self.include).await?.into();
        }
        Ok(())
    }

    fn trim(&self, resource: &mut Value) {
        let fields = resource["type"].as_str().and_then(|name| self.fields.get(name));
        let Some(fields) = fields else { return };
        for part in ["attributes", "relationships"] {
            if let Some(part) = resource.get_mut(part).and_then(Value::as_object_mut) {
                part.retain(|name, _| fields.contains(name));
            }
        }
    }
}

/// Every resource in a document.
fn resources(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let parts = document.as_object_mut().into_iter().flatten();
    let parts = parts.filter(|(name, _)| ["data", "included"].contains(&name.as_str()));
    parts.flat_map(|(_, part)| match part {
        Value::Array(resources) => resources.as_mut_slice(),
        resource => slice::from_mut(resource),
    })
}

/// A whole query.
#[derive(Debug, Default)]
struct Asked {
    list: ListQuery,
    shape: Shape,
}

impl Asked {
    fn of(parts: &Parts) -> Result<Self, ApiError> {
        let route = parts.extensions.get::<MatchedPath>();
        let Some(route) = route.and_then(|path| path.as_str().strip_prefix(BASE)) else {
            return Ok(Self::default());
        };
        let answer = Answer::of_call(&parts.method, route);
        let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)?;
        let mut asked = Self::default();
        let mut seen = HashSet::new();
        for (name, value) in query {
            if !seen.insert(name.clone()) {
                return Err(ApiError::parameter(&name, format!("{name} is there twice.")));
            }
            match answer {
                Answer::One(written)
                    if written.name == "vars" && name == "force" && parts.method != Method::GET =>
                {
                    check_flag(&name, &value)?;
                }
                _ => asked.read(answer, &name, value)?,
            }
        }
        Ok(asked)
    }

    fn read(&mut self, answer: Answer, name: &str, value: String) -> Result<(), ApiError> {
        let (word, argument) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((word, argument)) => (word, argument),
            None => (name, ""),
        };
        let list = &mut self.list;
        match (answer, word, argument) {
            (Answer::Other(parameters), ..) if parameters.contains(&name) => {}
            (Answer::Page(_), "page", "number") => list.page.number = positive(name, &value)?,
            (Answer::Page(_), "page", "size") => {
                list.page.size = positive(name, &value)?.min(MAX_PAGE);
            }
            (Answer::Page(listed), "filter", filter) if !filter.is_empty() => {
                check_filter(listed, name, filter, &value)?;
                list.filters.insert(filter.to_owned(), value);
            }
            (Answer::Page(listed), "sort", "") => list.order = order(listed, &value)?,
            (Answer::Page(listed), "query", "") if !listed.searched.is_empty() => {
                list.searched = listed.searched;
                list.search = Some(value).filter(|text| !text.is_empty());
            }
            (Answer::Page(answered) | Answer::One(answered), "include", "") => {
                let paths = value.split(',').filter(|path| !path.is_empty());
                // Each once: a path costs a query.
                let paths: BTreeSet<&str> = paths.collect();
                self.shape.include = paths
                    .into_iter()
                    .map(|path| IncludePath::read(answered, path))
                    .collect::<Result<_, _>>()?;
            }
            (Answer::Page(_) | Answer::One(_), "fields", of_type) if !of_type.is_empty() => {
                let fields = fields(name, of_type, &value)?;
                self.shape.fields.insert(of_type.to_owned(), fields);
            }
            _ => return Err(unknown(answer, name)),
        }
        Ok(())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Asked::of(parts)?.list)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Shape {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Asked::of(parts)?.shape)
    }
}

fn positive(name: &str, value: &str) -> Result<i64, ApiError> {
    let number = value.parse().ok().filter(|number| *number >= 1);
    number.ok_or_else(|| ApiError::parameter(name, format!("{name} takes a number from 1.")))
}

fn check_filter(
    listed: &ResourceType,
    name: &str,
    filter: &str,
    value: &str,
) -> Result<(), ApiError> {
    if !listed.filters.contains(&filter) {
        let known = listed.filters.join(", ");
        let detail = format!("There is no {name} here; there is: {known}.");
        return Err(ApiError::parameter(name, detail));
    }
    if listed.flags.contains(&filter) { check_flag(name, value) } else { Ok(()) }
}

fn check_flag(name: &str, value: &str) -> Result<(), ApiError> {
    match ["true", "false"].contains(&value) {
        true => Ok(()),
        false => Err(ApiError::parameter(name, format!("{name} takes true or false."))),
    }
}

/// The attributes and relationships that are asked for of a type.
fn fields(name: &str, of_type: &str, value: &str) -> Result<HashSet<String>, ApiError> {
    let Some(found) = ResourceType::named(of_type) else {
        let detail = format!("There is no type {of_type} of resources.");
        return Err(ApiError::parameter(name, detail));
    };
    let known = found.fields();
    let asked: HashSet<String> =
        value.split(',').filter(|field| !field.is_empty()).map(str::to_owned).collect();
    match asked.iter().find(|field| !known.contains(field.as_str())) {
        Some(unknown) => {
            let known: Vec<&str> = known.into_iter().collect();
            let known = known.join(", ");
            let detail = format!("{of_type} have no {unknown}; they have: {known}.");
            Err(ApiError::parameter(name, detail))
        }
        None => Ok(asked),
    }
}

/// `name,-created-at`: the first is what counts most, and `-` puts the greatest first.
fn order(listed: &ResourceType, value: &str) -> Result<Vec<Order>, ApiError> {
    let names = value.split(',').filter(|name| !name.is_empty());
    let order = |name: &str| -> Result<Order, ApiError> {
        let (name, descending) = match name.strip_prefix('-') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let found = listed.sorts.iter().find(|(sort, _)| *sort == name);
        let (_, expression) = found.ok_or_else(|| {
            let known: Vec<&str> = listed.sorts.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            let detail = format!(
                "A list of {} can't be sorted by {name}; it can be sorted by: {known}.",
                listed.name
            );
            ApiError::parameter("sort", detail)
        })?;
        Ok(Order { expression, descending })
    };
    let mut orders: Vec<Order> = Vec::new();
    for name in names {
        let order = order(name)?;
        // The first counts; SQLite takes no more than 2000.
        if !orders.iter().any(|other| other.expression == order.expression) {
            orders.push(order);
        }
    }
    Ok(orders)
}

fn unknown(answer: Answer, name: &str) -> ApiError {
    let known = match answer {
        Answer::Page(_) => "page[number], page[size], filter[…], sort, query, include, fields[…]",
        Answer::One(_) => "include, fields[…]",
        Answer::Other([]) => "none",
        Answer::Other(parameters) => return unknown_of(name, &parameters.join(", ")),
    };
    unknown_of(name, known)
}

fn unknown_of(name: &str, known: &str) -> ApiError {
    let detail = format!("There is no query parameter {name} here; there is: {known}.");
    ApiError::parameter(name, detail)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use super::super::resource_types::TYPES;
    use super::*;
    use crate::clock::Clock;
    use crate::in_process::InProcess;

    async fn get(server: &InProcess, path: &str) -> (StatusCode, Value) {
        let path = format!("{BASE}{path}");
        let (status, body) = server.call(Method::GET, &path, &server.admin, &[], "").await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The paths of all lists; some need the id of a pool or of a run.
    async fn lists(server: &InProcess) -> Vec<(&'static ResourceType, String)> {
        let (_, run) = server.run().await;
        let (_, pools) = get(server, "/agent-pools").await;
        let pool = pools["data"][0]["id"].as_str().unwrap();
        let listed = TYPES.iter().filter(|listed| !listed.searched.is_empty());
        let path = |name: &str| match name {
            "access-tokens" => format!("/agent-pools/{pool}/access-tokens"),
            "comments" | "run-events" => format!("/runs/{run}/{name}"),
            name => format!("/{name}"),
        };
        listed.map(|listed| (listed, path(listed.name))).collect()
    }

    async fn refused(server: &InProcess, path: &str, parameter: &str) {
        let (status, answer) = get(server, path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {answer}");
        let source = &answer["errors"][0]["source"];
        assert_eq!(source["parameter"], parameter, "{path}: {answer}");
    }

    #[tokio::test]
    async fn a_parameter_that_a_call_does_not_have_is_refused_by_name() {
        let server = InProcess::new().await;
        for (_, list) in lists(&server).await {
            for parameter in ["colour", "page", "page[from]", "filter", "filter[colour]", "sort[x]"]
            {
                refused(&server, &format!("{list}?{parameter}=1"), parameter).await;
            }
            refused(&server, &format!("{list}?sort=-colour"), "sort").await;
            refused(&server, &format!("{list}?include=colour"), "include").await;
            refused(&server, &format!("{list}?fields[colours]=name"), "fields[colours]").await;
            refused(&server, &format!("{list}?fields[runs]=status,colour"), "fields[runs]").await;
            refused(&server, &format!("{list}?page[size]=0"), "page[size]").await;
            refused(&server, &format!("{list}?sort=name&sort=name"), "sort").await;
        }
        let workspace = format!("/workspaces/{}", server.workspace);
        for parameter in ["colour", "page[size]", "filter[name]", "sort", "query"] {
            refused(&server, &format!("{workspace}?{parameter}=1"), parameter).await;
        }
        refused(&server, &format!("{workspace}?include=environment.colour"), "include").await;
        refused(&server, &format!("{workspace}/outputs?include=environment"), "include").await;
        refused(&server, "/agent-pools?filter[in-use]=yes", "filter[in-use]").await;
    }

    #[tokio::test]
    async fn a_list_is_sorted_by_each_of_its_sorts_in_both_directions() {
        let server = InProcess::new().await;
        for name in ["b", "a", "c"] {
            server.create("/agent-pools", json!({ "name": name }), &[]).await;
        }
        for (listed, list) in lists(&server).await {
            for (sort, _) in listed.sorts {
                for sort in [(*sort).to_owned(), format!("-{sort}"), format!("{sort},-{sort}")] {
                    let (status, answer) = get(&server, &format!("{list}?sort={sort}")).await;
                    assert_eq!(status, StatusCode::OK, "{list} {sort}: {answer}");
                }
            }
        }
        let often = "name,".repeat(5000);
        let (status, answer) = get(&server, &format!("/agent-pools?sort={often}")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let long = "_".repeat(30_000);
        let (status, answer) = get(&server, &format!("/agent-pools?query={long}")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let names = async |sort: &str| {
            let (_, answer) = get(&server, &format!("/agent-pools?sort={sort}")).await;
            let pools = answer["data"].as_array().unwrap().iter();
            let name = |pool: &Value| pool["attributes"]["name"].as_str().unwrap().to_owned();
            pools.map(name).collect::<Vec<_>>()
        };
        assert_eq!(names("name").await, ["a", "b", "c", "pool"]);
        assert_eq!(names("-name").await, ["pool", "c", "b", "a"]);
        // The first is linked to a workspace; the rest have the list's own order.
        assert_eq!(names("-in-use").await, ["pool", "a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_query_finds_a_text_literally_in_any_case() {
        let server = InProcess::new().await;
        for name in ["Eu_West", "euxwest", "50%"] {
            server.create("/agent-pools", json!({ "name": name }), &[]).await;
        }
        for (query, found) in
            [("EU_w", 1), ("eu", 2), ("%25", 1), ("'", 0), ("!", 0), ("", 4), ("apool-", 4)]
        {
            let (_, answer) = get(&server, &format!("/agent-pools?query={query}")).await;
            assert_eq!(answer["meta"]["pagination"]["total-count"], found, "{query}: {answer}");
        }
        for (_, list) in lists(&server).await {
            let (status, answer) = get(&server, &format!("{list}?query=nothing-has-this")).await;
            assert_eq!((status, &answer["data"]), (StatusCode::OK, &json!([])), "{list}");
        }
        let (_, found) = get(&server, "/agent-pools?filter[in-use]=true").await;
        assert_eq!(found["meta"]["pagination"]["total-count"], 1, "{found}");
        let (_, found) = get(&server, "/agent-pools?filter[in-use]=false&query=eu").await;
        assert_eq!(found["meta"]["pagination"]["total-count"], 2, "{found}");
    }

    #[tokio::test]
    async fn what_can_be_included_is_there_once_and_only_when_it_is_asked_for() {
        // A pool says for how long its oldest run waits.
        let server = InProcess::with_clock(Clock::standing()).await;
        let working = server.working().await;
        let state = json!({ "version": 4, "serial": 1, "lineage": "x" }).to_string();
        let path = format!("{}/tasks/{}/state?attempt=1", protocol::BASE, working.task);
        server.call(Method::PUT, &path, &working.task_token, &[], state).await;
        let variable = json!({ "key": "a", "value": "b", "category": "terraform" });
        server.create("/vars", variable, &[("workspace", &working.workspace)]).await;
        let run = get(&server, "/runs").await.1["data"][0].clone();
        let environment = get(&server, "/environments").await.1["data"][0].clone();
        let pool = &get(&server, "/agent-pools").await.1["data"][0]["id"];
        let link = json!({ "data": { "type": "agent-pools", "id": pool } });
        let link = json!({ "relationships": { "default-workspace-agent-pool": link } });
        let path = format!("/environments/{}", environment["id"].as_str().unwrap());
        server.api(Method::PATCH, &path, json!({ "data": link })).await;
        let phase = |name: &str| run["relationships"][name]["data"]["id"].as_str().unwrap();
        let mut paths = lists(&server).await;
        paths.push((ResourceType::named("plans").unwrap(), format!("/plans/{}", phase("plan"))));
        for (answered, path) in paths {
            let (_, plain) = get(&server, &path).await;
            assert!(plain.get("included").is_none(), "{path}: {plain}");
            for (name, related) in answered.related {
                let (status, answer) = get(&server, &format!("{path}?include={name},{name}")).await;
                assert_eq!(status, StatusCode::OK, "{path} {name}: {answer}");
                let included = answer["included"].as_array().unwrap();
                let linked: HashSet<String> = match &answer["data"] {
                    Value::Array(many) => many.as_slice(),
                    one => slice::from_ref(one),
                }
                .iter()
                .flat_map(|one| match &one["relationships"][name]["data"] {
                    Value::Array(many) => many.clone(),
                    Value::Null => Vec::new(),
                    one => vec![one.clone()],
                })
                .map(|linked| linked["id"].as_str().unwrap().to_owned())
                .collect();
                let ids: Vec<&str> =
                    included.iter().map(|one| one["id"].as_str().unwrap()).collect();
                assert_eq!(ids.len(), linked.len(), "{path} {name}: {ids:?} {linked:?}");
                assert!(ids.iter().all(|id| linked.contains(*id)), "{path} {name}: {ids:?}");
                assert!(included.iter().all(|one| one["type"] == *related), "{path} {name}");
                // A resource looks as it does in its own place.
                for one in included {
                    let own = format!("/{related}/{}", one["id"].as_str().unwrap());
                    assert_eq!(*one, get(&server, &own).await.1["data"], "{path} {name}");
                }
            }
        }
        let runs = format!("/runs?filter[workspace]={}", working.workspace);
        let (_, answer) = get(&server, &format!("{runs}&include=workspace.environment,plan")).await;
        let types: Vec<_> = answer["included"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["type"].as_str().unwrap())
            .collect();
        assert_eq!(types, ["environments", "plans", "workspaces"], "{answer}");
        // Not again what is in `data`.
        let own = format!("/workspaces/{}?include=agent-pool.workspaces", working.workspace);
        let (_, answer) = get(&server, &own).await;
        assert_eq!(answer["included"].as_array().unwrap().len(), 3, "{answer}");
        assert!(!answer["included"].to_string().contains(&format!(
            "\"id\":\"{}\",\"type\":\"workspaces\",\"attributes",
            working.workspace
        )));
        // What the server does not have is not there, and no error: clients ask for it.
        let (status, answer) = get(&server, "/workspaces?include=created-by,tags").await;
        assert_eq!((status, &answer["included"]), (StatusCode::OK, &json!([])), "{answer}");
    }

    #[tokio::test]
    async fn every_field_of_an_answer_can_be_asked_for() {
        let server = InProcess::new().await;
        for (listed, list) in lists(&server).await {
            let (_, answer) = get(&server, &list).await;
            let resource = &answer["data"][0];
            for part in ["attributes", "relationships"] {
                let names = resource[part].as_object().into_iter().flat_map(serde_json::Map::keys);
                for name in names {
                    let path = format!("{list}?fields[{}]={name}", listed.name);
                    let (status, answer) = get(&server, &path).await;
                    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
                    let part = answer["data"][0][part].as_object().unwrap();
                    assert!(part.len() == 1 && part.contains_key(name), "{path}: {answer}");
                }
            }
        }
    }

    #[tokio::test]
    async fn only_the_fields_that_are_asked_for_are_answered() {
        let server = InProcess::new().await;
        let path = format!("/workspaces/{}", server.workspace);
        let asked = "include=agent-pool&fields[workspaces]=name,agent-pool&fields[agent-pools]=";
        let (_, answer) = get(&server, &format!("{path}?{asked}")).await;
        let data = &answer["data"];
        assert_eq!(data["attributes"], json!({ "name": "main" }), "{answer}");
        let relationships = data["relationships"].as_object().unwrap();
        assert_eq!(relationships.keys().collect::<Vec<_>>(), ["agent-pool"], "{answer}");
        assert_eq!(answer["included"][0]["attributes"], json!({}), "{answer}");
        assert_eq!(answer["included"][0]["type"], "agent-pools", "{answer}");
    }
}
