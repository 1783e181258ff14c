//! The calls of an API. One is routed and described in the same place, so that the document of the
//! APIs has every call there is.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, Route, on};
use serde_json::{Value, json};
use tower::{Layer, Service};

use crate::app::App;

/// JSON Schema, made when the document is.
pub(in crate::api) type Schema = fn() -> Value;

/// The schema with this name among those of the document.
pub(in crate::api) fn schema_named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Calls, and what the document says of each.
#[derive(Default)]
pub(in crate::api) struct Calls {
    routes: Vec<(&'static str, MethodRouter<App>)>,
    described: Vec<Call>,
}

/// A call as the document has it.
#[derive(Clone)]
pub(in crate::api) struct Call {
    pub method: Method,
    /// Below the API's base, with its parameters in braces.
    pub path: String,
    pub about: About,
    /// Whether a token has to be sent.
    pub needs_token: bool,
}

/// What a call does, takes and answers. What is not said follows from its path, by the API's own
/// tables.
#[derive(Clone, Default)]
pub(in crate::api) struct About {
    pub summary: &'static str,
    /// What one has to know besides.
    pub details: Option<&'static str>,
    pub sent: Option<Sent>,
    pub answers: Vec<Answered>,
    /// The parameters of the query, what each may be, and whether it has to be there.
    pub parameters: Vec<(&'static str, Schema, bool)>,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(in crate::api) struct Sent {
    pub media_type: &'static str,
    pub is_required: bool,
    pub schema: Schema,
}

/// An answer to a call that did what it is for.
#[derive(Clone, Copy)]
pub(in crate::api) struct Answered {
    pub status: StatusCode,
    pub content: Content,
}

/// What an answer has in it.
#[derive(Clone, Copy)]
pub(in crate::api) enum Content {
    /// Nothing.
    Nothing,
    /// A page of resources of a type.
    Page(&'static str),
    /// A resource of a type.
    One(&'static str),
    /// Something else: its media type and its schema.
    Other(&'static str, Schema),
}

impl From<&'static str> for About {
    fn from(summary: &'static str) -> Self {
        Self { summary, ..Self::default() }
    }
}

impl About {
    /// Answers with a page of resources.
    pub(in crate::api) fn page(summary: &'static str, of: &'static str) -> Self {
        Self::from(summary).answers(StatusCode::OK, Content::Page(of))
    }

    /// Answers with a resource.
    pub(in crate::api) fn one(summary: &'static str, status: StatusCode, of: &'static str) -> Self {
        Self::from(summary).answers(status, Content::One(of))
    }

    /// Answers with a status alone.
    pub(in crate::api) fn nothing(summary: &'static str, status: StatusCode) -> Self {
        Self::from(summary).answers(status, Content::Nothing)
    }

    /// Says more.
    pub(in crate::api) fn details(mut self, details: &'static str) -> Self {
        self.details = Some(details);
        self
    }

    /// Takes a body, which may be left out unless `is_required`.
    pub(in crate::api) fn takes(
        mut self,
        media_type: &'static str,
        is_required: bool,
        schema: Schema,
    ) -> Self {
        self.sent = Some(Sent { media_type, is_required, schema });
        self
    }

    /// Answers so, among others.
    pub(in crate::api) fn answers(mut self, status: StatusCode, content: Content) -> Self {
        self.answers.push(Answered { status, content });
        self
    }

    /// Has a parameter in its query.
    pub(in crate::api) fn parameter(mut self, name: &'static str, schema: Schema) -> Self {
        self.parameters.push((name, schema, false));
        self
    }

    /// Has a parameter in its query that has to be there.
    pub(in crate::api) fn needs_parameter(mut self, name: &'static str, schema: Schema) -> Self {
        self.parameters.push((name, schema, true));
        self
    }
}

impl Calls {
    /// A call.
    pub(in crate::api) fn get<H: Handler<T, App>, T: 'static>(
        self,
        path: &'static str,
        about: impl Into<About>,
        handler: H,
    ) -> Self {
        self.add(Method::GET, MethodFilter::GET, path, about, handler)
    }

    /// A call.
    pub(in crate::api) fn post<H: Handler<T, App>, T: 'static>(
        self,
        path: &'static str,
        about: impl Into<About>,
        handler: H,
    ) -> Self {
        self.add(Method::POST, MethodFilter::POST, path, about, handler)
    }

    /// A call.
    pub(in crate::api) fn put<H: Handler<T, App>, T: 'static>(
        self,
        path: &'static str,
        about: impl Into<About>,
        handler: H,
    ) -> Self {
        self.add(Method::PUT, MethodFilter::PUT, path, about, handler)
    }

    /// A call.
    pub(in crate::api) fn patch<H: Handler<T, App>, T: 'static>(
        self,
        path: &'static str,
        about: impl Into<About>,
        handler: H,
    ) -> Self {
        self.add(Method::PATCH, MethodFilter::PATCH, path, about, handler)
    }

    /// A call.
    pub(in crate::api) fn delete<H: Handler<T, App>, T: 'static>(
        self,
        path: &'static str,
        about: impl Into<About>,
        handler: H,
    ) -> Self {
        self.add(Method::DELETE, MethodFilter::DELETE, path, about, handler)
    }

    fn add<H: Handler<T, App>, T: 'static>(
        mut self,
        method: Method,
        filter: MethodFilter,
        path: &'static str,
        about: impl Into<About>,
        handler: H,
    ) -> Self {
        let about = about.into();
        self.routes.push((path, on(filter, handler)));
        self.described.push(Call { method, path: path.to_owned(), about, needs_token: true });
        self
    }

    /// These calls and others.
    pub(in crate::api) fn merge(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self.described.extend(other.described);
        self
    }

    /// The same calls, for anybody: their paths say who may make them, or nothing does.
    pub(in crate::api) fn without_token(mut self) -> Self {
        self.described.iter_mut().for_each(|call| call.needs_token = false);
        self
    }

    /// The same calls with a layer around each. It is not asked for methods that a path does not
    /// have.
    pub(in crate::api) fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        let layered =
            |(path, route): (_, MethodRouter<App>)| (path, route.route_layer(layer.clone()));
        self.routes = self.routes.into_iter().map(layered).collect();
        self
    }

    /// Their routes.
    pub(in crate::api) fn into_router(self) -> Router<App> {
        let routes = self.routes.into_iter();
        routes.fold(Router::new(), |router, (path, route)| router.route(path, route))
    }

    /// What the document says of them.
    pub(in crate::api) fn into_described(self) -> Vec<Call> {
        self.described
    }
}

/// A body of bytes.
pub(in crate::api) fn binary() -> Value {
    json!({ "type": "string", "format": "binary" })
}

/// A parameter that is `true` or `false`.
pub(in crate::api) fn flag() -> Value {
    json!({ "type": "boolean" })
}

/// A parameter that is a text.
pub(in crate::api) fn text() -> Value {
    json!({ "type": "string" })
}

/// A document whose `data` is an object that a schema describes further.
pub(in crate::api) fn document_of(mut data: Value) -> Value {
    data["type"] = "object".into();
    json!({ "type": "object", "required": ["data"], "properties": { "data": data } })
}

/// A document with one resource of a type of the pool API.
pub(in crate::api) fn document_with(name: &str) -> Value {
    json!({
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": schema_named(name),
            "included": { "type": "array", "items": { "type": "object" } },
        },
    })
}

/// A document with a page of resources.
pub(in crate::api) fn page_of(name: &str) -> Value {
    json!({
        "type": "object",
        "required": ["data", "meta"],
        "properties": {
            "data": { "type": "array", "items": schema_named(name) },
            "included": { "type": "array", "items": { "type": "object" } },
            "meta": schema_named("meta"),
        },
    })
}
