//! What the document of the APIs says of this API's calls: what follows from their paths by the
//! tables from which requests are checked.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::attributes::Kind;
use super::resource_types::{Answer, ResourceType, TYPES};
use super::{BASE, calls};
use crate::api::calls::{Answered, Call, Content, schema_named};
use crate::api::json_api::MEDIA_TYPE;
use crate::api::openapi::{
    Api, Details, body, names_parameter, page_parameters, parameter_in_query,
};

/// This API.
pub(in crate::api) fn described() -> Api {
    Api {
        prefix: "",
        base: BASE,
        calls: calls().into_described(),
        schema_name: str::to_owned,
        complete,
    }
}

/// The types of resources.
pub(in crate::api) fn schemas() -> impl Iterator<Item = (String, Value)> {
    TYPES.iter().map(|found| (found.name.to_owned(), found.schema()))
}

fn complete(call: &Call, details: &mut Details) {
    let answer = Answer::of_call(&call.method, &call.path);
    if details.answers.is_empty() {
        let (status, content) = answer_of(call, answer);
        details.answers.push(Answered { status, content });
    }
    if details.body.is_none() {
        details.body = body_of(call);
    }
    let answers_resources =
        details.answers.iter().any(|one| matches!(one.content, Content::Page(_) | Content::One(_)));
    match answer {
        Answer::Page(listed) => {
            details.parameters.extend(page_parameters());
            details.parameters.extend(listed.list_parameters());
            details.parameters.extend(listed.shape_parameters());
        }
        Answer::One(answered) if answers_resources => {
            details.parameters.extend(answered.shape_parameters());
        }
        Answer::One(_) | Answer::Other(_) => {}
    }
}

fn answer_of(call: &Call, answer: Answer) -> (StatusCode, Content) {
    if call.path.contains("/relationships/") {
        return (StatusCode::NO_CONTENT, Content::Nothing);
    }
    let is_made = call.method == Method::POST && !call.path.contains("/actions/");
    let status = if is_made { StatusCode::CREATED } else { StatusCode::OK };
    match answer {
        Answer::Page(listed) => (status, Content::Page(listed.name)),
        Answer::One(answered) if call.method != Method::DELETE => {
            (status, Content::One(answered.name))
        }
        Answer::One(_) | Answer::Other(_) => (StatusCode::NO_CONTENT, Content::Nothing),
    }
}

fn body_of(call: &Call) -> Option<Value> {
    if call.path.contains("/relationships/") {
        return Some(body(MEDIA_TYPE, true, schema_named("to-many")));
    }
    let is_new = call.method == Method::POST;
    if call.path.contains("/actions/") || !(is_new || call.method == Method::PATCH) {
        return None;
    }
    let kind = Kind::of_path(&call.path)?;
    let is_required = is_new && kind.needs_something();
    Some(body(MEDIA_TYPE, is_required, kind.schema_of_request(is_new)))
}

impl ResourceType {
    /// What a list can be asked for.
    fn list_parameters(&self) -> Vec<Value> {
        let filter = |name: &&str| {
            let is_flag = self.flags.contains(name);
            let schema = json!({ "type": if is_flag { "boolean" } else { "string" } });
            parameter_in_query(&format!("filter[{name}]"), schema)
        };
        let mut parameters: Vec<Value> = self.filters.iter().map(filter).collect();
        let sorts: Vec<&str> = self.sorts.iter().map(|(name, _)| *name).collect();
        if !sorts.is_empty() {
            let names = ("-?", sorts.as_slice(), "");
            let description = "The first counts most; `-` puts the greatest value first.";
            parameters.push(names_parameter("sort", names, description));
        }
        if !self.searched.is_empty() {
            let mut query = parameter_in_query("query", json!({ "type": "string" }));
            query["description"] = "Only resources with this text in one of their columns.".into();
            parameters.push(query);
        }
        parameters
    }

    /// What can be said of the resources in an answer.
    fn shape_parameters(&self) -> Vec<Value> {
        let unrelated = Kind::named(self.name).into_iter().flat_map(Kind::unrelated);
        let related = self.related.iter().map(|(name, _)| *name).chain(unrelated);
        let related: Vec<&str> = related.collect();
        let mut parameters = Vec::new();
        if !related.is_empty() {
            let names = ("", related.as_slice(), "(\\.[a-z.-]+)?");
            let description = "Related resources that the answer has, too, with commas between \
                               them. `b.c` is `c` of the resource's `b`.";
            parameters.push(names_parameter("include", names, description));
        }
        let fields: Vec<&str> = self.fields().into_iter().collect();
        parameters.push(names_parameter(
            &format!("fields[{}]", self.name),
            ("", &fields, ""),
            "Only these attributes and relationships, with commas between them.",
        ));
        parameters
    }
}
