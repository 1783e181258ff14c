//! A resource as it comes in.

use axum::extract::{FromRequest, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::attributes::Kind;
use super::linkage::{Identifier, Linkage};
use crate::api::json_api::{ApiError, Data};
use protocol::limits::{MAX_IMAGE, MAX_NAME, MAX_TEXT};

/// A resource as it comes in. An empty body is a resource that says nothing.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Payload {
    #[serde(default)]
    attributes: Map<String, Value>,
    #[serde(default)]
    relationships: Map<String, Value>,
    /// What clients may leave out, and the path says anyway.
    #[serde(default, rename = "type")]
    _type: Option<String>,
    #[serde(default, rename = "id")]
    _id: Option<String>,
    /// Also so that no list is taken for an object.
    #[serde(flatten)]
    _others: Map<String, Value>,
    #[serde(skip)]
    tag_names: Option<Vec<String>>,
}

impl Payload {
    /// A resource with these attributes and relationships, not checked yet.
    pub(super) fn new(attributes: Map<String, Value>, relationships: Map<String, Value>) -> Self {
        Self { attributes, relationships, ..Self::default() }
    }

    /// A resource of a kind, as the server itself writes it.
    ///
    /// # Errors
    /// A name or a value that the kind does not have.
    pub(crate) fn of(
        kind: &str,
        attributes: Map<String, Value>,
        relationships: Map<String, Value>,
    ) -> Result<Self, ApiError> {
        let payload = Self::new(attributes, relationships);
        Kind::named(kind).map_or(Ok(()), |kind| payload.check(kind))?;
        Ok(payload)
    }

    /// The same, with the tags of these names and no others. A name that no tag has becomes a new
    /// one, together with what is tagged.
    pub(crate) fn tagged(mut self, names: Vec<String>) -> Self {
        self.tag_names = Some(names);
        self
    }

    /// The names of its tags, if it has no ids of them.
    pub(super) fn tag_names(&self) -> Option<&[String]> {
        self.tag_names.as_deref()
    }

    /// Checks that a resource of this kind may be written so.
    ///
    /// # Errors
    /// All names and values that this server does not have.
    pub(super) fn check(&self, kind: &Kind) -> Result<(), ApiError> {
        let attribute = |(name, value): (&String, &Value)| {
            kind.check_attribute(name, value)?;
            match name.as_str() {
                "image" => self.image().map(drop),
                name if kind.is_name(name) => self.name(name).map(drop),
                _ => Ok(()),
            }
        };
        let attributes = self.attributes.iter().map(attribute);
        let relationships = self.relationships.iter();
        let relationships = relationships.map(|(name, value)| kind.check_relationship(name, value));
        ApiError::any_of(attributes.chain(relationships).filter_map(Result::err))
    }

    /// An attribute; none if it is missing or null.
    pub(crate) fn attribute<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        Ok(self.change(name)?.flatten())
    }

    /// An attribute that has to be there.
    pub(crate) fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, ApiError> {
        self.attribute(name)?.ok_or_else(|| ApiError::attribute(name, "This field is required."))
    }

    /// An attribute that clients know under two names.
    ///
    /// # Errors
    /// Both are there and differ.
    pub(super) fn either(&self, name: &str, other: &str) -> Result<Option<bool>, ApiError> {
        match (self.attribute(name)?, self.attribute(other)?) {
            (Some(one), Some(two)) if one != two => Err(ApiError::attribute(
                other,
                format!("This field is another name of {name}, which has another value."),
            )),
            (one, two) => Ok(one.or(two)),
        }
    }

    /// What to make of an attribute: nothing if it is missing, else its value
    /// or null.
    pub(crate) fn change<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<Option<T>>, ApiError> {
        let Some(value) = self.attributes.get(name) else { return Ok(None) };
        match serde_json::from_value(value.clone()) {
            Ok(value) => Ok(Some(value)),
            // The error may quote the value, which may be sensitive.
            Err(_) => Err(ApiError::attribute(name, "This field has a value of a wrong type.")),
        }
    }

    /// A name: printable, not empty, not long.
    pub(crate) fn name(&self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(text) = self.attribute::<String>(name)? else { return Ok(None) };
        let is_long = text.chars().nth(MAX_NAME).is_some();
        if text.trim() != text || text.is_empty() || is_long || text.chars().any(char::is_control) {
            let detail = format!(
                "This field takes 1 to {MAX_NAME} printable characters, without spaces at its ends."
            );
            return Err(ApiError::attribute(name, detail));
        }
        Ok(Some(text))
    }

    /// What to make of an optional text: nothing if it is missing, else its
    /// value; an empty one counts as null.
    pub(crate) fn text(&self, name: &str) -> Result<Option<Option<String>>, ApiError> {
        let text = self.change::<String>(name)?;
        if text.iter().flatten().any(|text| text.len() > MAX_TEXT) {
            let detail = format!("This field takes at most {MAX_TEXT} bytes.");
            return Err(ApiError::attribute(name, detail));
        }
        Ok(text.map(|text| text.filter(|text| !text.is_empty())))
    }

    /// What to make of the name of an image, which is optional.
    pub(crate) fn image(&self) -> Result<Option<Option<String>>, ApiError> {
        let image = self.text("image")?;
        if image.iter().flatten().any(|image| image.len() > MAX_IMAGE) {
            let detail = format!("This field takes at most {MAX_IMAGE} bytes.");
            return Err(ApiError::attribute("image", detail));
        }
        if let Some(Err(why)) = image.iter().flatten().next().map(|name| config::check_image(name))
        {
            return Err(ApiError::attribute("image", format!("This field {why}.")));
        }
        Ok(image)
    }

    /// The id in a to-one relationship: nothing if it is missing, else its
    /// id or null.
    pub(crate) fn to_one(&self, name: &str) -> Result<Option<Option<String>>, ApiError> {
        let Some(relationship) = self.relationships.get(name) else { return Ok(None) };
        let related: ToOne = serde_json::from_value(relationship.clone()).map_err(|_| {
            ApiError::relationship(name, "This is not a to-one relationship: {\"data\": {…}}.")
        })?;
        Ok(Some(related.data.map(|data| data.id)))
    }

    /// Checks a to-one relationship that stays as it is; clients send it all the same.
    ///
    /// # Errors
    /// It is to become another one.
    pub(super) fn unchanged(&self, name: &str, current: Option<&str>) -> Result<(), ApiError> {
        match self.to_one(name)? {
            Some(id) if id.as_deref() != current => Err(ApiError::relationship(
                name,
                format!("This relationship stays as it is: {}.", current.unwrap_or("null")),
            )),
            _ => Ok(()),
        }
    }

    /// The id in a to-one relationship that has to be there.
    pub(crate) fn required_to_one(&self, name: &str) -> Result<String, ApiError> {
        self.to_one(name)?
            .flatten()
            .ok_or_else(|| ApiError::relationship(name, "This relationship is required."))
    }

    /// The ids in a to-many relationship; none if it is missing.
    pub(crate) fn to_many(&self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let Some(relationship) = self.relationships.get(name) else { return Ok(None) };
        let Linkage(ids) = serde_json::from_value(relationship.clone()).map_err(|_| {
            ApiError::relationship(name, "This is not a to-many relationship: {\"data\": […]}.")
        })?;
        Ok(Some(ids))
    }
}

#[derive(Deserialize)]
struct ToOne {
    // Null, but not missing: that would remove what is there.
    #[serde(deserialize_with = "Option::deserialize")]
    data: Option<Identifier>,
}

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = Kind::of_path(request.uri().path());
        let Data(payload) = Data::<Self>::from_request(request, state).await?;
        kind.map_or(Ok(()), |kind| payload.check(kind))?;
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload(data: Value) -> Payload {
        serde_json::from_value(data).unwrap()
    }

    #[test]
    fn missing_null_and_given_differ() {
        let payload = payload(json!({ "attributes": { "a": null, "b": "x" } }));
        assert_eq!(payload.change::<String>("a").unwrap(), Some(None));
        assert_eq!(payload.change::<String>("b").unwrap(), Some(Some("x".to_owned())));
        assert_eq!(payload.change::<String>("c").unwrap(), None);
        assert!(payload.attribute::<bool>("b").is_err());
        assert!(payload.required::<String>("a").is_err());
    }

    #[test]
    fn a_list_is_no_resource() {
        for data in [json!([]), json!([{}, {}]), json!({ "attributes": [] })] {
            assert!(serde_json::from_value::<Payload>(data.clone()).is_err(), "{data}");
        }
        assert!(serde_json::from_value::<Payload>(json!({ "links": {} })).is_ok());
    }

    #[test]
    fn relationships_are_read() {
        let payload = payload(json!({ "relationships": {
            "one": { "data": { "type": "x", "id": "x-1" } },
            "none": { "data": null },
            "many": { "data": [{ "type": "x", "id": "x-1" }, { "type": "x", "id": "x-2" }] },
        } }));
        assert_eq!(payload.to_one("one").unwrap(), Some(Some("x-1".to_owned())));
        assert_eq!(payload.to_one("none").unwrap(), Some(None));
        assert_eq!(payload.to_one("missing").unwrap(), None);
        assert_eq!(payload.to_many("many").unwrap().unwrap(), ["x-1", "x-2"]);
        assert!(payload.to_many("one").is_err());
    }
}
