//! The secrets inside a structured secret: Terraform prints the strings of an object,
//! and of JSON that it decodes, each on a line of its own.

use hcl_edit::Number;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::repr::Formatted;
use hcl_edit::structure::Body;
use hcl_edit::template::{Element, HeredocTemplate, StringTemplate};
use hcl_edit::visit::Visit;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

/// Shorter strings are words like `admin` and `true`: they are not secrets by
/// themselves. In characters.
const SHORTEST: usize = 8;

/// The strings and numbers of an HCL or JSON value, however deep, but for the names of
/// attributes; also those of JSON in a string, and the passwords of URLs.
pub(super) fn inner_strings(value: &str) -> Vec<String> {
    let mut found = InnerStrings(Vec::new());
    found.look_inside(value);
    if let Ok(body) = format!("value = {value}\n").parse::<Body>() {
        found.visit_body(&body);
    }
    found.0.sort_unstable();
    found.0.dedup();
    found.0
}

/// The password of a URL, as it is written and as it is meant.
fn password(url: &Url) -> Vec<String> {
    let Some(password) = url.password() else { return Vec::new() };
    let meant = percent_decode_str(password).decode_utf8_lossy().into_owned();
    vec![password.to_owned(), meant]
}

struct InnerStrings(Vec<String>);

impl InnerStrings {
    fn add(&mut self, text: &str) {
        if text.chars().count() >= SHORTEST {
            self.0.push(text.to_owned());
        }
        self.look_inside(text);
    }

    fn look_inside(&mut self, text: &str) {
        if let Ok(value) = serde_json::from_str(text) {
            self.add_json(&value);
        }
        if let Ok(url) = Url::parse(text) {
            self.0.extend(password(&url));
        }
    }

    fn add_json(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text),
            Value::Number(number) => self.add_number(&number.to_string()),
            Value::Array(values) => values.iter().for_each(|value| self.add_json(value)),
            Value::Object(values) => values.values().for_each(|value| self.add_json(value)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn add_number(&mut self, number: &str) {
        if number.len() >= SHORTEST {
            self.0.push(number.to_owned());
        }
    }

    /// The strings that a template has between what can't be known before it is run.
    fn add_template<'a>(&mut self, elements: impl IntoIterator<Item = &'a Element>) {
        let mut text = String::new();
        for element in elements {
            let known = match element {
                Element::Literal(literal) => Some(literal.as_str()),
                Element::Interpolation(interpolation) => interpolation.expr.as_str(),
                Element::Directive(_) => None,
            };
            match known {
                Some(known) => text.push_str(known),
                None => self.add(&std::mem::take(&mut text)),
            }
        }
        self.add(&text);
    }
}

impl Visit for InnerStrings {
    fn visit_object_key(&mut self, _: &ObjectKey) {}

    fn visit_expr(&mut self, expression: &Expression) {
        match expression.as_str() {
            Some(text) => self.add(text),
            None => hcl_edit::visit::visit_expr(self, expression),
        }
    }

    fn visit_number(&mut self, number: &Formatted<Number>) {
        // As it is written: a large one loses digits as a number.
        match number.as_repr() {
            Some(written) => self.add_number(written),
            None => self.add_number(&number.to_string()),
        }
    }

    fn visit_string_template(&mut self, template: &StringTemplate) {
        self.add_template(template);
        hcl_edit::visit::visit_string_template(self, template);
    }

    fn visit_heredoc_template(&mut self, heredoc: &HeredocTemplate) {
        self.add_template(&heredoc.template);
        hcl_edit::visit::visit_heredoc_template(self, heredoc);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use protocol::redact::Redactor;

    #[test]
    fn the_strings_of_a_value_are_found_and_the_names_of_its_attributes_are_not() {
        let json_in_hcl = r#"{ credentials = "{\"client_secret\":\"in-the-json\"}" }"#;
        let json_in_json = r#"{"credentials":"{\"client_secret\":\"in-the-json\"}"}"#;
        let json_found = ["in-the-json", r#"{"client_secret":"in-the-json"}"#];
        for (value, expected) in [
            (r#"{ user = "admin", password = "S3cret-pa55" }"#, &["S3cret-pa55"][..]),
            (r#"{ "a_long_name" : "S3cret-pa55" }"#, &["S3cret-pa55"]),
            (r#"{ (upper("x")) = "S3cret-pa55", is_on = true, }"#, &["S3cret-pa55"]),
            (r#"["first-one", { deep = [["second-one"]] }]"#, &["first-one", "second-one"]),
            ("{\n  # why\n  a = \"S3cret-pa55\" // this\n  b = null\n}", &["S3cret-pa55"]),
            ("<<EOT\nline one\n  line two\nEOT", &["line one\n  line two\n"]),
            ("{ a = <<-EOT\n    line one\n      line two\n  EOT\n}", &["line one\n  line two\n"]),
            ("{\r\n  a = <<EOT\r\nline one\r\nEOT\r\n}", &["line one\r\n"]),
            (r#"["an \"e\" \u00e9 \\ \t$${x} %%{y}", ]"#, &["an \"e\" é \\ \t${x} %{y}"]),
            (r#"{ a = "long-${"er"}-one ${n} the-other" }"#, &[" the-other", "long-er-one "]),
            (r#"[123456789, 1234567, "1234567", true]"#, &["123456789"]),
            ("[12345678901234567890123, ]", &["12345678901234567890123"]),
            (json_in_hcl, &json_found),
            (json_in_json, &json_found),
            (r#"{"private_key":"-----BEGIN-----\nabc\n"}"#, &["-----BEGIN-----\nabc\n"]),
            (r#"{"a_long_name": ["S3cret\/pa55", 12345678, true]}"#, &["12345678", "S3cret/pa55"]),
            ("postgres://app:pa%2F55@db/x", &["pa%2F55", "pa/55"]),
            (
                r#"{ url = "https://me:pass@db.test/x" }"#,
                &["https://me:pass@db.test/x", "pass", "pass"],
            ),
            ("correct horse battery staple", &[]),
            ("a plain text: { user = ", &[]),
            ("", &[]),
        ] {
            let mut expected = expected.to_vec();
            expected.dedup();
            assert_eq!(inner_strings(value), expected, "{value}");
        }
    }

    #[test]
    fn a_plan_shows_no_string_of_a_structured_secret_and_every_name() {
        let object = r#"{ user = "admin", password = "S3cret-pa55",
            list = ["first-of-list", { deep = "deep \"quoted\" é $${x}" }], text = <<EOT
line one of heredoc
  indented line two
EOT
}"#;
        let json = r#"{"type":"service_account","private_key":"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END PRIVATE KEY-----\n"}"#;
        let plan = include_str!("../../protocol/redact/corpus/plan.log");
        let secrets: Vec<String> = [object, json].into_iter().flat_map(inner_strings).collect();
        let masked = Redactor::new(secrets.iter().map(String::as_str)).mask(plan);
        for word in ["S3cret", "first-of", "quoted", "line one", "indented", "MIIE", "BEGIN"] {
            assert!(!masked.contains(word), "{word} in {masked}");
        }
        for word in ["password = \"***\"", "private_key = <<-EOT", "= \"admin\"", "correct horse"] {
            assert!(masked.contains(word), "{word} not in {masked}");
        }
        assert_eq!(masked.lines().count(), plan.lines().count());
    }

    #[test]
    fn a_value_made_to_be_slow_takes_no_time() {
        for (open, close) in [
            ("[", "]"),
            ("{a=", "}"),
            ("(", ")"),
            ("\"${", "}\""),
            ("<<A\n", "\nA\n"),
            ("!", ""),
            ("a?", ":b"),
            ("[for a in ", ": a]"),
            ("\"", "\\\""),
            ("1+", ""),
        ] {
            for depth in [20, 60, 20_000] {
                for close in ["", close] {
                    let value = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                    let started = Instant::now();
                    inner_strings(&value);
                    let took = started.elapsed();
                    assert!(took < Duration::from_secs(2), "{open}…{close} by {depth}: {took:?}");
                }
            }
        }
    }
}
