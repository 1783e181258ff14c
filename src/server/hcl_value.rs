//! Values of Terraform variables that are written in HCL, checked when they are set.

use hcl_edit::expr::{Expression, ForExpr, FuncCall};
use hcl_edit::structure::{Body, Structure};
use hcl_edit::template::{Element, ForDirective, HeredocTemplate};
use hcl_edit::visit::{self, Visit};

/// Checks the value that an agent will write as `KEY = VALUE` into a `.tfvars` file.
///
/// # Errors
/// Why Terraform would refuse it, or read something else than one value.
pub(crate) fn check(key: &str, value: &str) -> Result<(), String> {
    if value.contains('\0') {
        return Err("The value takes no NUL characters.".to_owned());
    }
    // The very line: with a line break in it, a value could set another variable. The parser
    // refuses more than 64 levels of nesting.
    let body: Body =
        format!("{key} = {value}\n").parse().map_err(|error: hcl_edit::parser::Error| {
            format!(
                "The value is not an expression in HCL; a text has quotes: {} (line {}).",
                error.message(),
                error.location().line()
            )
        })?;
    let mut structures = body.iter();
    let (Some(Structure::Attribute(attribute)), None) = (structures.next(), structures.next())
    else {
        return Err("The value is more than one expression in HCL.".to_owned());
    };
    let mut found = Found::default();
    found.visit_expr(&attribute.value);
    found.refusal.map_or(Ok(()), Err)
}

/// What a `.tfvars` file cannot have in a value.
#[derive(Default)]
struct Found {
    refusal: Option<String>,
    /// How many `for` expressions are around, whose variables are names that can be used.
    loops: usize,
}

impl Visit for Found {
    fn visit_expr(&mut self, expression: &Expression) {
        if let Expression::Variable(name) = expression
            && self.loops == 0
        {
            self.refuse(format!(
                "The value refers to {}, which Terraform does not do in values of variables; a \
                 text has quotes.",
                name.as_str()
            ));
        }
        visit::visit_expr(self, expression);
    }

    fn visit_func_call(&mut self, call: &FuncCall) {
        self.refuse(format!(
            "The value calls the function {}, which Terraform does not do in values of variables.",
            call.name.name.as_str()
        ));
    }

    fn visit_for_expr(&mut self, expression: &ForExpr) {
        self.loops += 1;
        visit::visit_for_expr(self, expression);
        self.loops -= 1;
    }

    fn visit_for_directive(&mut self, directive: &ForDirective) {
        self.loops += 1;
        visit::visit_for_directive(self, directive);
        self.loops -= 1;
    }

    fn visit_heredoc_template(&mut self, heredoc: &HeredocTemplate) {
        // Terraform trims more kinds of blanks than this parser: for it the text may end here.
        let word = heredoc.delimiter.as_str();
        let literals = heredoc.template.iter().filter_map(Element::as_literal);
        if literals.flat_map(|literal| literal.lines()).any(|line| line.trim() == word) {
            self.refuse(format!("The text that ends at {word} has {word} alone on a line."));
        }
        visit::visit_heredoc_template(self, heredoc);
    }
}

impl Found {
    fn refuse(&mut self, why: String) {
        self.refusal.get_or_insert(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_expression_is_a_value() {
        for value in [
            "1",
            "-1.5e3",
            "true",
            "null",
            "\"text\"",
            "[]",
            "{}",
            "[1, \"b\", null,]",
            "[\n  1,\n  2\n]",
            "{ a = 1, \"b c\" = { d = [true] } }",
            "{\r\n  a = 1\r\n}",
            "\"\\u00fc $${x} %%{y} \\\"q\\\"\"",
            "\"\u{fc} \u{1f600}\"",
            "1 + 2",
            "true ? 1 : 2",
            "<<EOT\none\n  two\nEOT",
            "<<-EOT\n  one\n  EOT",
            "1 # why",
            "/* why */ 1",
            "[for n in [1, 2] : n + 1]",
            "\"%{ for n in [1] }${n}%{ endfor }\"",
            "(\n1\n)",
        ] {
            assert_eq!(check("size", value), Ok(()), "{value}");
        }
    }

    #[test]
    fn a_value_sets_no_other_variable() {
        for value in [
            "1\nother = 2",
            "1\r\nother = 2",
            "[\n1\n]\nother = [\n2\n]",
            "\"a\"\nother {\n}",
            "1 /*",
            "<<EOT\na\nEOT\nother = <<EOT\nb\nEOT",
            // Terraform ends the text at the line with the form feed.
            "<<EOT\na\n\u{c}EOT\nother = <<EOT\nb\nEOT",
            "<<EOT\na\n\u{a0}EOT\nother = <<EOT\nb\nEOT",
        ] {
            assert!(check("size", value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn what_terraform_refuses_in_a_value_is_refused_by_its_name() {
        for (value, why) in [
            ("", "not an expression"),
            (" \n", "not an expression"),
            ("\"a\0\"", "no NUL"),
            ("[1, 2", "not an expression"),
            ("1 2", "not an expression"),
            ("a = 1", "not an expression"),
            ("\"a", "not an expression"),
            ("eu-west-1", "refers to eu-west-1"),
            ("[var.zone]", "refers to var"),
            ("\"${name}\"", "refers to name"),
            ("{ a = file(\"/etc/passwd\") }", "function file"),
        ] {
            let refusal = check("size", value).unwrap_err();
            assert!(refusal.contains(why), "{value:?}: {refusal}");
        }
    }

    /// A parser that recurses as deep as its input says would end the server.
    #[test]
    fn a_deep_value_is_refused() {
        for open in ["[", "(", "{a=", "!", "-", "\"${", "f(", "a?", "[for a in ", "1+"] {
            assert!(check("size", &open.repeat(100_000)).is_err(), "{open}");
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check("size", &nested(50)), Ok(()));
        assert!(check("size", &nested(100_000)).unwrap_err().contains("nested levels"));
    }
}
