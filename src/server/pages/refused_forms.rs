//! Every form of the pages, refused once: the error stands beside its field, and what was typed
//! stays, but for secrets.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::browser::Browser;
use crate::in_process::InProcess;

const SECRET: &str = "hunter2";

/// A form that is refused.
struct Refused<'a> {
    path: String,
    fields: Vec<(&'a str, &'a str)>,
    /// The id of the note with the error; none: it is about the whole form.
    note: Option<String>,
    /// What the page has to have: what was typed and chosen.
    kept: Vec<String>,
}

fn value(text: &str) -> String {
    format!("value=\"{text}\"")
}

fn chosen(id: &str) -> String {
    format!("value=\"{id}\" selected")
}

fn ticked(name: &str) -> String {
    format!("name=\"{name}\" checked")
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn each_form_that_is_refused_keeps_what_was_typed_and_names_the_field() {
    let server = InProcess::new().await;
    let browser = Browser::new(&server).await;
    let first = async |path: &str| {
        let listed = server.api(Method::GET, path, Value::Null).await;
        listed["data"][0]["id"].as_str().unwrap().to_owned()
    };
    let workspace = server.workspace.clone();
    let pool = first("/agent-pools").await;
    let environment = first("/environments").await;
    let tag = server.create("/tags", json!({ "name": "prod" }), &[]).await;
    let variable = json!({ "key": "plain", "value": "old", "category": "terraform" });
    let of_workspace = [("workspace", workspace.as_str())];
    let plain = server.create("/vars", variable, &of_workspace).await;
    let variable =
        json!({ "key": "secret", "value": SECRET, "category": "shell", "sensitive": true });
    let secret = server.create("/vars", variable, &of_workspace).await;
    let hook = json!({ "name": "policy", "interpreter": "sh", "script": "true" });
    let hook = server.create("/hooks", hook, &[]).await;
    let (_, run) = server.run().await;
    let of = |id: &str, name: &str| Some(format!("{name}-{id}-note"));
    let note = |name: &str| Some(format!("{name}-note"));
    let long = "x".repeat(70_000);

    let forms = [
        Refused {
            path: format!("/workspaces/{workspace}/variables"),
            fields: vec![
                ("key", "not a name"),
                ("category", "shell"),
                ("value", "typed <value>"),
                ("description", "typed description"),
            ],
            note: note("key"),
            kept: vec![
                value("not a name"),
                chosen("shell"),
                "typed &lt;value&gt;</textarea>".to_owned(),
                value("typed description"),
            ],
        },
        Refused {
            path: format!("/environments/{environment}/variables"),
            fields: vec![
                ("key", "not a name"),
                ("category", "terraform"),
                ("value", SECRET),
                ("sensitive", "on"),
                ("hcl", "on"),
                ("final", "on"),
                ("tag", &tag),
            ],
            note: note("key"),
            kept: vec![
                ticked("sensitive"),
                ticked("hcl"),
                ticked("final"),
                chosen(&tag),
                "Type it again".to_owned(),
            ],
        },
        Refused {
            path: "/account/variables".to_owned(),
            fields: vec![("key", "a"), ("category", "terraform"), ("value", "{"), ("hcl", "on")],
            note: note("value"),
            kept: vec![value("a"), "{</textarea>".to_owned(), ticked("hcl")],
        },
        Refused {
            path: format!("/workspaces/{workspace}/variables/{plain}"),
            fields: vec![
                ("key", "not a name"),
                ("value", "new value"),
                ("value-is-shown", "yes"),
                ("description", "typed"),
            ],
            note: of(&plain, "key"),
            kept: vec![
                value("not a name"),
                "new value</textarea>".to_owned(),
                value("typed"),
                format!("id=\"{plain}\" open"),
            ],
        },
        Refused {
            path: format!("/workspaces/{workspace}/variables/{secret}"),
            fields: vec![("key", "not a name"), ("value", SECRET), ("is-sensitive", "yes")],
            note: of(&secret, "key"),
            kept: vec![value("not a name"), "Type it again".to_owned()],
        },
        Refused {
            path: "/environments/new".to_owned(),
            fields: vec![("name", "x\ty"), ("default-pool", &pool), ("tags", "b, a")],
            note: note("name"),
            kept: vec![chosen(&pool), value("a, b")],
        },
        Refused {
            path: format!("/environments/{environment}"),
            fields: vec![("name", "typed"), ("default-pool", "apool-none"), ("tags", "a")],
            note: note("default-pool"),
            kept: vec![value("typed"), value("a")],
        },
        Refused {
            path: "/workspaces/new".to_owned(),
            fields: vec![("name", "main"), ("environment", &environment), ("agent-pool", &pool)],
            note: note("name"),
            kept: vec![value("main"), chosen(&environment), chosen(&pool)],
        },
        Refused {
            path: format!("/workspaces/{workspace}/settings"),
            fields: vec![
                ("name", "typed"),
                ("agent-pool", &pool),
                ("tags", "unused"),
                ("image", "registry/image"),
                ("plan-timeout-seconds", "soon"),
                ("pre-plan", "echo typed"),
                ("auto-apply", "on"),
            ],
            note: note("plan-timeout-seconds"),
            kept: vec![
                value("typed"),
                chosen(&pool),
                value("unused"),
                value("registry/image"),
                value("soon"),
                "echo typed</textarea>".to_owned(),
                ticked("auto-apply"),
            ],
        },
        Refused {
            path: "/pools/new".to_owned(),
            fields: vec![
                ("name", "typed"),
                ("image", "registry/image"),
                ("max-concurrency", "many"),
                ("header-name-0", "Authorization"),
                ("header-value-0", SECRET),
                ("header-sensitive-0", "on"),
            ],
            note: note("max-concurrency"),
            kept: vec![value("typed"), value("registry/image"), value("Authorization")],
        },
        Refused {
            path: format!("/pools/{pool}/edit"),
            fields: vec![("name", "typed"), ("sharing", "named"), ("image", "registry/image")],
            note: note("environments"),
            kept: vec![value("typed"), value("registry/image")],
        },
        Refused {
            path: format!("/pools/{pool}/tokens/new"),
            fields: vec![("name", "typed"), ("expires-in", "soon")],
            note: note("expires-in"),
            kept: vec![value("typed")],
        },
        Refused {
            path: format!("/pools/{pool}/register"),
            fields: vec![("way", "rpm"), ("name", "typed"), ("memory", "much")],
            note: note("memory"),
            kept: vec![value("typed"), value("much"), "value=\"rpm\" checked".to_owned()],
        },
        Refused {
            path: "/hooks/new".to_owned(),
            fields: vec![("name", "policy"), ("interpreter", "python3"), ("script", "print(1)")],
            note: note("name"),
            kept: vec![value("policy"), value("python3"), "print(1)</textarea>".to_owned()],
        },
        Refused {
            path: format!("/hooks/{hook}/edit"),
            fields: vec![("name", "typed"), ("interpreter", "two words"), ("script", "print(1)")],
            note: note("interpreter"),
            kept: vec![value("typed"), value("two words"), "print(1)</textarea>".to_owned()],
        },
        Refused {
            path: format!("/hooks/{hook}/links/new"),
            fields: vec![("environment", &environment)],
            note: note("events"),
            kept: vec![chosen(&environment)],
        },
        Refused {
            path: "/webhooks/new".to_owned(),
            fields: vec![
                ("name", "typed"),
                ("url", "ftp://example.com"),
                ("event", "run:errored"),
                ("secret-key", SECRET),
                ("timeout", "7"),
                ("max-attempts", "2"),
            ],
            note: note("url"),
            kept: vec![
                value("typed"),
                value("ftp://example.com"),
                "value=\"run:errored\" checked".to_owned(),
                value("7"),
                value("2"),
                "Type it again".to_owned(),
            ],
        },
        Refused {
            path: format!("/workspaces/{workspace}/runs"),
            fields: vec![("message", "typed"), ("plan-only", "on"), ("is-destroy", "on")],
            note: note("archive"),
            kept: vec![
                value("typed"),
                ticked("plan-only"),
                ticked("is-destroy"),
                "class=\"card start\" open".to_owned(),
            ],
        },
        Refused {
            path: format!("/runs/{run}/actions/apply"),
            fields: vec![("comment", "typed")],
            note: None,
            kept: vec![value("typed")],
        },
        Refused {
            path: format!("/runs/{run}/comments"),
            fields: vec![("comment", &long)],
            note: None,
            kept: vec![value(&long)],
        },
    ];
    for Refused { path, fields, note, kept } in forms {
        let (status, page) = browser.post(&path, &fields).await;
        let shown: String = page.chars().take(20_000).collect();
        let refused = [StatusCode::UNPROCESSABLE_ENTITY, StatusCode::CONFLICT];
        assert!(refused.contains(&status), "{path}: {status} {shown}");
        match note {
            Some(note) => {
                assert!(page.contains(&format!("aria-describedby=\"{note}\"")), "{path}: {shown}");
                assert!(page.contains(&format!("id=\"{note}\"><svg")), "{path}: {note}: {shown}");
            }
            None => assert!(page.contains("class=\"refusal\" role=\"alert\""), "{path}: {shown}"),
        }
        for kept in kept {
            assert!(page.contains(&kept), "{path}: {kept}: {shown}");
        }
        assert!(!page.contains(SECRET), "{path}: {shown}");
    }
    // An address that a refused form leaves in the browser is no page, and says so.
    let (status, page) = browser.get(&format!("/runs/{run}/comments")).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(page.contains("Not a page"), "{page}");
    // Nothing of what was refused is left.
    let tags = server.api(Method::GET, "/tags", Value::Null).await;
    assert_eq!(tags["data"].as_array().unwrap().len(), 1, "{tags}");
}

#[tokio::test]
async fn a_form_with_some_wrong_fields_names_all_of_them() {
    let server = InProcess::new().await;
    let browser = Browser::new(&server).await;
    for (path, fields, names) in [
        (
            format!("/workspaces/{}/settings", server.workspace),
            vec![
                ("name", "x\ty"),
                ("image", "no image"),
                ("plan-timeout-seconds", "soon"),
                ("apply-timeout-seconds", "1"),
            ],
            &["name", "image", "plan-timeout-seconds", "apply-timeout-seconds"][..],
        ),
        (
            "/pools/new".to_owned(),
            vec![("name", "x\ty"), ("image", "no image"), ("max-concurrency", "many")],
            &["name", "image", "max-concurrency"],
        ),
        (
            "/webhooks/new".to_owned(),
            vec![("name", "x\ty"), ("url", "https://a.b"), ("timeout", "x"), ("max-attempts", "x")],
            &["name", "timeout", "max-attempts"],
        ),
    ] {
        let (status, page) = browser.post(&path, &fields).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {page}");
        for name in names {
            assert!(page.contains(&format!("aria-describedby=\"{name}-note\"")), "{name}: {page}");
            assert!(page.contains(&format!("id=\"{name}-note\"><svg")), "{name}: {page}");
            assert!(page.contains(&format!("<a href=\"#{name}\">")), "{name}: {page}");
        }
        let said = format!("{} fields are refused", names.len());
        assert!(page.contains(&said), "{path}: {page}");
    }
    // The API has an error for each.
    let path = format!("/api/iacp/v3/workspaces/{}", server.workspace);
    let wrong = json!({ "image": "no image", "plan-timeout-seconds": 1, "colour": "red" });
    let body = json!({ "data": { "attributes": wrong } }).to_string();
    let (status, answer) = server.call(Method::PATCH, &path, &server.admin, &[], body).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let pointers: Vec<_> = answer["errors"].as_array().unwrap().iter().collect();
    assert_eq!(pointers.len(), 3, "{answer}");
}
