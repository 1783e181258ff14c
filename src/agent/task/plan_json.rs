//! What Terraform says of a plan in JSON: counted, and masked before it leaves the host.
//!
//! Terraform marks what is sensitive in most places: `before_sensitive` and `after_sensitive`
//! in changes, `sensitive_values` in resources, `sensitive` in outputs and in the
//! configuration's variables. A provider may copy such a value to where no mark is, so each is
//! masked wherever it stands among the values. Only parts that are known are passed on. The configuration is
//! not: it has the literals of the code, without marks.
//!
//! A plan may be as large as a run wants it to be: one resource at a time is in memory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use struson::reader::{JsonReader, JsonStreamReader};
use struson::writer::{JsonStreamWriter, JsonWriter};

use protocol::PlanSummary;
use protocol::redact::Redactor;

/// What stands in a sensitive value's place, as in Terraform's own output.
const MASK: &str = "(sensitive value)";

/// The longest resource, in bytes.
const MAX_ITEM: u64 = 16 * 1024 * 1024;

/// The longest that all values that are marked as sensitive may be together, in bytes.
const MAX_MARKED: usize = 4 * 1024 * 1024;

const OTHER_FORM: &str = "a part of it has a form that is not known";

/// How many variables a configuration has at most.
const MAX_VARIABLES: usize = 100_000;

/// What can be known of a plan in constant memory.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) summary: PlanSummary,
    /// The variables of the configuration that it marks as sensitive.
    sensitive: BTreeSet<String>,
}

/// Reads a plan's JSON.
///
/// # Errors
/// It is not the JSON of a plan.
pub(super) fn survey(plan: impl Read) -> Result<Survey> {
    #[derive(Deserialize)]
    struct Plan {
        // Of every plan; other JSON has none.
        #[serde(rename = "format_version")]
        _format_version: String,
        #[serde(default)]
        resource_changes: Counted,
        #[serde(default)]
        resource_drift: Counted,
        #[serde(default)]
        output_changes: Counted,
        #[serde(default)]
        configuration: Configuration,
    }
    #[derive(Default, Deserialize)]
    struct Configuration {
        #[serde(default)]
        root_module: RootModule,
    }
    #[derive(Default, Deserialize)]
    struct RootModule {
        #[serde(default)]
        variables: BTreeMap<String, Variable>,
    }
    #[derive(Deserialize)]
    struct Variable {
        #[serde(default)]
        sensitive: bool,
    }
    let plan: Plan =
        serde_json::from_reader(BufReader::new(plan)).context("this is not the JSON of a plan")?;
    let variables = plan.configuration.root_module.variables;
    if variables.len() > MAX_VARIABLES {
        bail!("the configuration has more than {MAX_VARIABLES} variables");
    }
    let Counted { additions, changes, destructions, replacements, imports, .. } =
        plan.resource_changes;
    Ok(Survey {
        summary: PlanSummary {
            additions,
            changes,
            destructions,
            replacements,
            imports,
            drifted: plan.resource_drift.all,
            output_changes: plan.output_changes.all,
        },
        sensitive: variables
            .into_iter()
            .filter(|(_, variable)| variable.sensitive)
            .map(|(name, _)| name)
            .collect(),
    })
}

#[derive(Deserialize)]
struct Change {
    actions: Vec<String>,
    #[serde(default)]
    importing: Option<IgnoredAny>,
}

impl Change {
    fn has(&self, action: &str) -> bool {
        self.actions.iter().any(|one| one == action)
    }

    fn is_change(&self) -> bool {
        ["create", "update", "delete"].iter().any(|action| self.has(action))
    }
}

/// Changes of resources, a list, or of outputs, by name; counted as they are read. A replacement is an addition and a
/// destruction, too, as Terraform counts.
#[derive(Default)]
struct Counted {
    all: u32,
    additions: u32,
    changes: u32,
    destructions: u32,
    replacements: u32,
    imports: u32,
}

impl Counted {
    fn add(&mut self, change: &Change) {
        let (creates, deletes) = (change.has("create"), change.has("delete"));
        self.all += u32::from(change.is_change());
        self.additions += u32::from(creates);
        self.changes += u32::from(change.has("update"));
        self.destructions += u32::from(deletes);
        self.replacements += u32::from(creates && deletes);
        self.imports += u32::from(change.importing.is_some());
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Resource {
            change: Change,
        }
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Counted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("changes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Counted, A::Error> {
                let mut count = Counted::default();
                while let Some(Resource { change }) = list.next_element()? {
                    count.add(&change);
                }
                Ok(count)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counted, A::Error> {
                let mut count = Counted::default();
                while let Some((IgnoredAny, change)) = map.next_entry()? {
                    count.add(&change);
                }
                Ok(count)
            }
        }
        deserializer.deserialize_any(Count)
    }
}

/// Writes a plan's JSON without what is sensitive: what Terraform marks, the values of the
/// variables `sensitive`, and what the `redactor` knows, wherever it stands.
///
/// # Errors
/// It is not the JSON of a plan, it does not mark what is sensitive, since Terraform is too
/// old, or one of its resources is too large.
pub(super) fn mask(
    mut plan: impl Read + Seek,
    to: impl Write,
    survey: &Survey,
    sensitive: &BTreeSet<String>,
    redactor: &Redactor,
) -> Result<()> {
    let is_sensitive = |name: &str| sensitive.contains(name) || survey.sensitive.contains(name);
    let mut pass = |to: &mut dyn Write, marked: &Marked| {
        plan.rewind()?;
        let left = Rc::new(Cell::new(MAX_ITEM));
        let bounded = Bounded { inner: BufReader::new(&mut plan), left: Rc::clone(&left) };
        let (reader, writer) = (JsonStreamReader::new(bounded), JsonStreamWriter::new(to));
        let mut masking = Masking { reader, writer, left, redactor, marked };
        masking.document(&is_sensitive)?;
        masking.writer.finish_document()?;
        anyhow::Ok(())
    };
    let cannot = "cannot mask the plan's JSON";
    let marked = Marked::default();
    pass(&mut io::sink(), &marked).context(cannot)?;
    let marked = marked.everywhere().context(cannot)?;
    let mut to = BufWriter::new(to);
    pass(&mut to, &marked).context(cannot)?;
    to.flush().context("cannot write the plan's JSON")
}

/// The values that are marked as sensitive: a first pass collects them, a second one masks
/// them wherever they stand.
#[derive(Default)]
struct Marked {
    values: RefCell<BTreeSet<String>>,
    redactor: Option<Redactor>,
}

impl Marked {
    fn everywhere(self) -> Result<Self> {
        let values = self.values.take();
        let bytes: usize = values.iter().map(String::len).sum();
        if bytes > MAX_MARKED {
            bail!("its sensitive values have more than {MAX_MARKED} bytes");
        }
        let redactor = Some(Redactor::new(values.iter().map(String::as_str)));
        Ok(Self { redactor, ..Self::default() })
    }

    /// Hides a value.
    fn hide(&self, value: &mut Value) {
        if self.redactor.is_none() {
            self.collect(value);
        }
        if !value.is_null() {
            *value = MASK.into();
        }
    }

    fn collect(&self, value: &Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => drop(self.values.borrow_mut().insert(number.to_string())),
            Value::String(text) => drop(self.values.borrow_mut().insert(text.clone())),
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.collect(field)),
        }
    }

    /// Masks what is marked elsewhere.
    fn redact(&self, value: &mut Value) {
        if let Some(redactor) = &self.redactor {
            redact(value, redactor, false);
        }
    }
}

/// A reader that ends with an error when an item is too long.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other(format!(
                "one of its parts has more than {MAX_ITEM} bytes"
            )));
        }
        let read = self.inner.read(buffer)?;
        self.left.set(self.left.get().saturating_sub(read as u64));
        Ok(read)
    }
}

struct Masking<'a, R: Read, W: Write> {
    reader: JsonStreamReader<Bounded<R>>,
    writer: JsonStreamWriter<W>,
    left: Rc<Cell<u64>>,
    redactor: &'a Redactor,
    marked: &'a Marked,
}

impl<R: Read, W: Write> Masking<'_, R, W> {
    fn document(&mut self, is_sensitive: &dyn Fn(&str) -> bool) -> Result<()> {
        let marked = self.marked;
        self.object(|this, name| match name {
            "format_version"
            | "terraform_version"
            | "timestamp"
            | "errored"
            | "applyable"
            | "complete"
            | "relevant_attributes"
            | "checks" => this.item(name, |_| Ok(())),
            "variables" => this.map(name, |name, variable| {
                let value = variable.get_mut("value").context(OTHER_FORM)?;
                match is_sensitive(name) {
                    true => marked.hide(value),
                    false => marked.redact(value),
                }
                Ok(())
            }),
            "planned_values" => this.values(name),
            "prior_state" => {
                this.writer.name(name)?;
                this.object(|this, name| match name {
                    "values" => this.values(name),
                    _ => this.skip(),
                })
            }
            "resource_changes" | "resource_drift" => this.list(name, |resource| {
                keep_only(resource, &RESOURCE_CHANGE);
                mask_change(resource.get_mut("change").context(OTHER_FORM)?, marked)
            }),
            "output_changes" => this.map(name, |_, change| mask_change(change, marked)),
            _ => this.skip(),
        })
    }

    /// What outputs and resources have, or had.
    fn values(&mut self, name: &str) -> Result<()> {
        let marked = self.marked;
        self.writer.name(name)?;
        self.object(|this, name| match name {
            "outputs" => this.map(name, |_, output| {
                let is_shown = output.get("sensitive") == Some(&Value::Bool(false));
                match output.get_mut("value") {
                    Some(value) if is_shown => marked.redact(value),
                    Some(value) => marked.hide(value),
                    // It is known after the apply.
                    None => {}
                }
                Ok(())
            }),
            "root_module" => {
                this.writer.name(name)?;
                this.module()
            }
            _ => this.skip(),
        })
    }

    fn module(&mut self) -> Result<()> {
        let marked = self.marked;
        self.object(|this, name| match name {
            "address" => this.item(name, |_| Ok(())),
            "resources" => this.list(name, |resource| {
                keep_only(resource, &RESOURCE);
                mask_side(resource, "values", "sensitive_values", marked)
            }),
            "child_modules" => {
                this.writer.name(name)?;
                this.reader.begin_array()?;
                this.writer.begin_array()?;
                while this.reader.has_next()? {
                    this.module()?;
                }
                this.reader.end_array()?;
                Ok(this.writer.end_array()?)
            }
            _ => this.skip(),
        })
    }

    fn object(&mut self, mut each: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        self.reader.begin_object()?;
        self.writer.begin_object()?;
        while self.reader.has_next()? {
            self.left.set(MAX_ITEM);
            let name = self.reader.next_name_owned()?;
            each(self, &name)?;
        }
        self.reader.end_object()?;
        Ok(self.writer.end_object()?)
    }

    fn skip(&mut self) -> Result<()> {
        // It is not kept, however long it is.
        self.left.set(u64::MAX);
        Ok(self.reader.skip_value()?)
    }

    fn item(&mut self, name: &str, mask: impl FnOnce(&mut Value) -> Result<()>) -> Result<()> {
        self.writer.name(name)?;
        self.value(mask)
    }

    fn list(&mut self, name: &str, mask: impl Fn(&mut Value) -> Result<()>) -> Result<()> {
        self.writer.name(name)?;
        self.reader.begin_array()?;
        self.writer.begin_array()?;
        while self.reader.has_next()? {
            self.value(&mask)?;
        }
        self.reader.end_array()?;
        Ok(self.writer.end_array()?)
    }

    fn map(&mut self, name: &str, mask: impl Fn(&str, &mut Value) -> Result<()>) -> Result<()> {
        self.writer.name(name)?;
        self.object(|this, name| {
            let shown = this.redactor.another().mask(name);
            this.item(&shown, |value| mask(name, value))
        })
    }

    fn value(&mut self, mask: impl FnOnce(&mut Value) -> Result<()>) -> Result<()> {
        self.left.set(MAX_ITEM);
        let mut value: Value = self.reader.deserialize_next()?;
        mask(&mut value)?;
        redact(&mut value, self.redactor, true);
        self.writer.serialize_value(&value)?;
        Ok(())
    }
}

/// What is passed on of a changed resource.
const RESOURCE_CHANGE: [&str; 11] = [
    "address",
    "previous_address",
    "module_address",
    "mode",
    "type",
    "name",
    "index",
    "deposed",
    "provider_name",
    "action_reason",
    "change",
];

/// What is passed on of a change.
const CHANGE: [&str; 8] = [
    "actions",
    "before",
    "after",
    "after_unknown",
    "before_sensitive",
    "after_sensitive",
    "replace_paths",
    "importing",
];

/// What is passed on of a resource.
const RESOURCE: [&str; 10] = [
    "address",
    "mode",
    "type",
    "name",
    "index",
    "provider_name",
    "schema_version",
    "values",
    "sensitive_values",
    "depends_on",
];

fn keep_only(value: &mut Value, names: &[&str]) {
    if let Value::Object(fields) = value {
        fields.retain(|name, _| names.contains(&name.as_str()));
    }
}

fn mask_change(change: &mut Value, marked: &Marked) -> Result<()> {
    keep_only(change, &CHANGE);
    mask_side(change, "before", "before_sensitive", marked)?;
    mask_side(change, "after", "after_sensitive", marked)
}

fn mask_side(of: &mut Value, name: &str, marks: &str, marked: &Marked) -> Result<()> {
    let fields = of.as_object_mut().context(OTHER_FORM)?;
    let Some(mut value) = fields.remove(name) else { return Ok(()) };
    let marks = fields.get(marks).ok_or_else(|| {
        anyhow!("this version of Terraform does not mark what is sensitive in it")
    })?;
    mask_marked(&mut value, marks, marked);
    marked.redact(&mut value);
    fields.insert(name.to_owned(), value);
    Ok(())
}

/// Hides what is marked. A value whose marks have another form is hidden as a whole.
fn mask_marked(value: &mut Value, marks: &Value, marked: &Marked) {
    match (value, marks) {
        (_, Value::Null | Value::Bool(false)) => {}
        (Value::Object(value), Value::Object(marks)) => {
            for (name, marks) in marks {
                if let Some(value) = value.get_mut(name) {
                    mask_marked(value, marks, marked);
                }
            }
        }
        (Value::Array(value), Value::Array(marks)) if value.len() == marks.len() => {
            value
                .iter_mut()
                .zip(marks)
                .for_each(|(value, marks)| mask_marked(value, marks, marked));
        }
        (value, marks) if has_mark(marks) => marked.hide(value),
        _ => {}
    }
}

fn has_mark(marks: &Value) -> bool {
    match marks {
        Value::Bool(is_marked) => *is_marked,
        Value::Array(marks) => marks.iter().any(has_mark),
        Value::Object(marks) => marks.values().any(has_mark),
        Value::Null | Value::Number(_) | Value::String(_) => false,
    }
}

/// Masks secrets in texts and numbers, and `in_names`.
fn redact(value: &mut Value, redactor: &Redactor, in_names: bool) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            let text = number.to_string();
            let masked = redactor.another().mask(&text);
            if masked != text {
                *value = masked.into();
            }
        }
        Value::String(text) => *text = redactor.another().mask(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, redactor, in_names)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|value| redact(value, redactor, in_names));
            if in_names {
                let entries = std::mem::take(fields).into_iter();
                *fields =
                    entries.map(|(name, value)| (redactor.another().mask(&name), value)).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of a configuration with a sensitive variable `password`, which is changed.
    const RECORDED: &str = include_str!("recorded/plan-1.11.4.json");

    fn masked(plan: &str, sensitive: &[&str], secrets: &[&str]) -> Result<Value> {
        let survey = survey(plan.as_bytes())?;
        let (mut out, redactor) = (Vec::new(), Redactor::new(secrets.iter().copied()));
        let sensitive = sensitive.iter().map(|&name| name.to_owned()).collect();
        mask(io::Cursor::new(plan), &mut out, &survey, &sensitive, &redactor)?;
        Ok(serde_json::from_slice(&out)?)
    }

    #[test]
    fn a_recorded_plan_is_counted_as_terraform_counts_it() {
        let summary = survey(RECORDED.as_bytes()).unwrap().summary;
        let expected = PlanSummary {
            additions: 1,
            changes: 2,
            destructions: 2,
            replacements: 1,
            imports: 0,
            drifted: 0,
            output_changes: 2,
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn nothing_that_terraform_marks_is_left_of_a_recorded_plan() {
        let plan = masked(RECORDED, &[], &[]).unwrap();
        let text = plan.to_string();
        for secret in ["hunter22", "hunter33", "5555", "4444"] {
            assert!(RECORDED.contains(secret) && !text.contains(secret), "{secret}: {plan:#}");
        }
        assert_eq!(plan["variables"]["password"]["value"], MASK);
        assert_eq!(plan["variables"]["size"]["value"], "5");
        assert_eq!(plan["planned_values"]["outputs"]["size"]["value"], 5);
        let kept = plan["resource_changes"].as_array().unwrap();
        let kept = kept.iter().find(|one| one["address"] == "terraform_data.kept").unwrap();
        let after = json!({ "size": 5, "password": MASK, "list": ["a", MASK] });
        assert_eq!(kept["change"]["after"]["input"], after);
        assert_eq!(plan["configuration"], Value::Null, "literals of the code have no marks");
    }

    #[test]
    fn the_runs_secrets_are_masked_wherever_they_stand_and_it_stays_json() {
        let plan = json!({
            "format_version": "1.2",
            "variables": { "api_key": { "value": "short" }, "12345678": { "value": 1 } },
            "relevant_attributes": [{ "resource": "a.b[\"12345678\"]" }],
            "resource_changes": [{ "address": "a.b", "change": {
                "actions": ["update"], "before": { "number": 12_345_678, "12345678": [] },
                "after": null, "before_sensitive": {}, "after_sensitive": false,
            } }],
        });
        let plan = masked(&plan.to_string(), &["api_key"], &["12345678"]).unwrap();
        assert!(!plan.to_string().contains("12345678"), "{plan:#}");
        assert_eq!(plan["variables"]["api_key"]["value"], MASK);
        assert_eq!(plan["resource_changes"][0]["change"]["before"]["number"], "***");
    }

    #[test]
    fn marks_of_another_form_hide_all_and_parts_that_are_not_known_are_left_out() {
        let plan = |marks: Value| {
            json!({
                "format_version": "1.2",
                "action_invocations": "secret",
                "resource_changes": [{ "address": "a.b", "config": "secret", "change": {
                    "actions": ["create"], "before": null, "before_sensitive": false,
                    "after": ["secret", "secret"], "after_sensitive": marks,
                    "generated_config": "secret",
                } }],
                "planned_values": { "outputs": { "a": { "value": "secret" } }, "more": "secret" },
            })
            .to_string()
        };
        for marks in [json!([true]), json!({ "a": true }), json!(true)] {
            let masked = masked(&plan(marks), &[], &[]).unwrap();
            assert!(!masked.to_string().contains("secret"), "{masked:#}");
        }
    }

    #[test]
    fn a_marked_value_is_masked_where_a_provider_has_copied_it_and_names_stay() {
        let plan = json!({
            "format_version": "1.2",
            "variables": { "given": { "value": "x-name-x" } },
            "resource_changes": [{ "address": "a.name", "name": "name", "change": {
                "actions": ["update"], "before": null, "before_sensitive": false,
                "after": { "name": "name", "copy": ["is name", 1234], "number": 1234 },
                "after_sensitive": { "name": true, "number": true },
            } }],
        });
        let plan = masked(&plan.to_string(), &[], &[]).unwrap();
        let resource = &plan["resource_changes"][0];
        assert_eq!((&resource["address"], &resource["name"]), (&json!("a.name"), &json!("name")));
        let after = json!({ "name": MASK, "copy": ["is ***", "***"], "number": MASK });
        assert_eq!(resource["change"]["after"], after);
        assert_eq!(plan["variables"]["given"]["value"], "x-***-x");
    }

    #[test]
    fn a_plan_without_marks_is_not_passed_on() {
        let plan = json!({
            "format_version": "0.1",
            "resource_changes": [{ "address": "a.b", "change": {
                "actions": ["create"], "before": null, "after": { "password": "secret" },
            } }],
        });
        let error = masked(&plan.to_string(), &[], &[]).unwrap_err();
        assert!(format!("{error:#}").contains("does not mark what is sensitive"), "{error:#}");
    }

    #[test]
    fn a_resource_that_does_not_fit_into_memory_is_refused_and_many_small_ones_are_not() {
        let resource = |length: usize| {
            let text = "x".repeat(length);
            format!(
                r#"{{"address":"a.b","change":{{"actions":["create"],"before":null,"after":"{text}","before_sensitive":false,"after_sensitive":false}}}}"#
            )
        };
        let plan = |resources: Vec<String>| {
            format!(r#"{{"format_version":"1.2","resource_changes":[{}]}}"#, resources.join(","))
        };
        let large = plan(vec![resource(20 * 1024 * 1024)]);
        assert_eq!(survey(large.as_bytes()).unwrap().summary.additions, 1);
        assert!(format!("{:#}", masked(&large, &[], &[]).unwrap_err()).contains("16777216 bytes"));
        let many = plan(vec![resource(1024 * 1024); 20]);
        assert_eq!(
            masked(&many, &[], &[]).unwrap()["resource_changes"].as_array().unwrap().len(),
            20
        );
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in ["", "[]", "{}", "{\"format_version\": 1}", &RECORDED[..RECORDED.len() / 2]] {
            assert!(survey(text.as_bytes()).is_err(), "{text}");
        }
    }
}
