//! Every SQL statement in the server's sources is prepared against the migrated
//! schema, also one that no other test executes.

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};
use syn::visit::{self, Visit};
use syn::{Expr, ExprCall, Lit};

use super::Store;

/// The functions of sqlx whose first argument is a statement.
const QUERIES: [&str; 3] = ["query", "query_as", "query_scalar"];

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("server.db")).await.unwrap();
    let mut db = store.read().await.unwrap();
    let mut statements = Statements::default();
    for file in sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let text = std::fs::read_to_string(&file).unwrap();
        statements.visit_file(&syn::parse_file(&text).unwrap());
    }
    assert!(statements.literal.len() > 60, "only {} were found", statements.literal.len());
    // `list` makes two of its arguments; the lists' own tests execute them.
    assert_eq!(statements.computed, 2, "a statement is written as a literal");
    for statement in statements.literal {
        let prepared = (&mut *db).prepare(AssertSqlSafe(statement.clone()).into_sql_str()).await;
        assert!(prepared.is_ok(), "{statement}\n{}", prepared.unwrap_err());
    }
}

#[derive(Default)]
struct Statements {
    literal: Vec<String>,
    computed: usize,
}

impl<'ast> Visit<'ast> for Statements {
    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if let Expr::Path(function) = &*call.func
            && let Some(name) = function.path.segments.last()
            && QUERIES.iter().any(|query| name.ident == query)
            && function.path.segments.first().is_some_and(|first| first.ident == "sqlx")
        {
            match call.args.first() {
                Some(Expr::Lit(argument)) => match &argument.lit {
                    Lit::Str(text) => self.literal.push(text.value()),
                    _ => self.computed += 1,
                },
                _ => self.computed += 1,
            }
        }
        visit::visit_expr_call(self, call);
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
