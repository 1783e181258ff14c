//! Every SQL statement in the server's sources is prepared against the migrated
//! schema, also one that no other test executes.

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};
use syn::visit::{self, Visit};
use syn::{Expr, ExprCall, Ident, Lit, LitStr, Macro};

use super::Store;
use super::status_sets::{is_status, with_sets};

const VERBS: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let (store, _folder) = Store::temporary().await;
    let mut db = store.read().await.unwrap();
    for statement in found().statements {
        let prepared =
            (&mut *db).prepare(AssertSqlSafe(with_sets(&statement)).into_sql_str()).await;
        assert!(prepared.is_ok(), "{statement}\n{}", prepared.unwrap_err());
    }
}

#[test]
fn every_statement_is_a_literal_that_is_prepared_here() {
    let found = found();
    assert!(found.statements.len() > 60, "only {} were found", found.statements.len());
    // `list` makes two of its arguments and `of_any` one.
    assert_eq!(found.computed, 3, "a statement is not written as a literal");
    for text in found.literals {
        let is_prepared = found.statements.iter().any(|statement| statement.starts_with(&text));
        assert!(is_prepared, "this stands outside of the calls that are searched: {text}");
    }
}

#[test]
fn no_statement_lists_statuses_itself() {
    for statement in found().statements {
        for text in statement.split('\'').skip(1).step_by(2) {
            assert!(!is_status(text), "'{text}' in {statement}");
        }
    }
}

fn found() -> Found {
    let mut found = Found::default();
    for file in sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let text = std::fs::read_to_string(&file).unwrap();
        found.visit_file(&syn::parse_file(&text).unwrap());
    }
    found
}

#[derive(Default)]
struct Found {
    statements: Vec<String>,
    /// How many statements are not made of literals.
    computed: usize,
    /// Every text that looks like a statement, wherever it stands.
    literals: Vec<String>,
}

impl Found {
    /// Takes the statements that a call executes.
    fn take(&mut self, call: &ExprCall) {
        let Expr::Path(function) = &*call.func else { return };
        let path: Vec<&Ident> = function.path.segments.iter().map(|part| &part.ident).collect();
        let statements = match path[..] {
            [parent, name] if parent == "super" && name == "list" => {
                literal(call, 1).zip(literal(call, 2)).map(|(from, order)| {
                    let page = format!("SELECT t.* {from} ORDER BY {order} LIMIT 1 OFFSET 0");
                    vec![format!("SELECT COUNT(*) {from}"), page]
                })
            }
            [parent, name] if parent == "super" && name == "of_any" => literal(call, 1)
                .zip(literal(call, 3))
                .map(|(select, rest)| vec![format!("{select} IN ($1) {rest}")]),
            [.., name] if is_query(name) => literal(call, 0).map(|statement| vec![statement]),
            [builder, _] if builder == "QueryBuilder" => None,
            _ => return,
        };
        match statements {
            Some(statements) => self.statements.extend(statements),
            None => self.computed += 1,
        }
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        self.take(call);
        visit::visit_expr_call(self, call);
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        let text = text.value();
        let first = text.split_once(char::is_whitespace).map(|(word, _)| word);
        if first.is_some_and(|word| VERBS.contains(&word)) {
            self.literals.push(text);
        }
    }

    // A macro's arguments are no part of the syntax tree.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let is_query = call.path.segments.last().is_some_and(|name| is_query(&name.ident));
        if is_query || call.tokens.to_string().contains("sqlx") {
            self.computed += 1;
        }
    }
}

/// Whether a function or macro of this name takes a statement first.
fn is_query(name: &Ident) -> bool {
    let name = name.to_string();
    name.starts_with("query") || name == "raw_sql"
}

/// A text as it stands there, or in a call of [`super::status_sets::statement`].
fn literal(call: &ExprCall, argument: usize) -> Option<String> {
    match call.args.get(argument)? {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        Expr::Call(inner) => match &*inner.func {
            Expr::Path(function) if function.path.is_ident("statement") => literal(inner, 0),
            _ => None,
        },
        _ => None,
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
