//! Workspaces with local execution: plans and applies run on the client's machine, and the
//! server keeps and locks the state.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::cli::{Cli, old_terraform, server};
use crate::harness::{Server, id, state};

/// Something without a provider.
const CONFIGURATION: &str = r#"
variable "steps" {
  default = 1
}

resource "terraform_data" "a" {
  count = var.steps
  input = "step ${count.index}"
}

output "steps" {
  value = var.steps
}

output "list" {
  value = { all = terraform_data.a[*].output }
}

output "secret" {
  value     = "hush"
  sensitive = true
}
"#;

/// A workspace with local execution.
async fn local_workspace(server: &Server, name: &str) -> String {
    let environment = server.get("/environments?filter[name]=default").await;
    let environment = id(&environment["data"][0]);
    let attributes = json!({ "name": name, "execution-mode": "local" });
    id(&server.create("/workspaces", attributes, &[("environment", &environment)]).await)
}

async fn terraform_api(
    server: &Server,
    method: Method,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    let request = server.http.request(method, format!("{}/api/v2{path}", server.url));
    let request = request.bearer_auth(&server.admin);
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn state_commands_work_on_a_workspace_with_local_execution() {
    let server = server().await;
    for backend in ["cloud", "remote"] {
        let name = format!("local-{backend}");
        let workspace = local_workspace(&server, &name).await;
        let cli = Cli::new(&server);
        match backend {
            "cloud" => cli.cloud(&format!("name = \"{name}\"")),
            _ => cli.remote(&format!("name = \"{name}\"")),
        }
        cli.write("main.tf", CONFIGURATION);
        cli.ok(&["init", "-input=false"]).await;
        let applied = cli.ok(&["apply", "-auto-approve", "-var=steps=2"]).await;
        assert!(applied.contains("Apply complete! Resources: 2 added"), "{applied}");
        let listed = cli.ok(&["state", "list"]).await;
        assert_eq!(listed.trim(), "terraform_data.a[0] terraform_data.a[1]");
        assert_eq!(cli.ok(&["output", "-raw", "steps"]).await.trim(), "2");
        assert_eq!(cli.ok(&["output", "-raw", "secret"]).await.trim(), "hush");
        let outputs = cli.ok(&["output"]).await;
        assert!(
            outputs.contains("secret = <sensitive>") && outputs.contains("step 1"),
            "{outputs}"
        );
        cli.ok(&["state", "mv", "terraform_data.a[1]", "terraform_data.b"]).await;
        cli.ok(&["state", "rm", "terraform_data.b"]).await;
        cli.ok(&["taint", "terraform_data.a[0]"]).await;
        cli.ok(&["untaint", "terraform_data.a[0]"]).await;
        let builtin = "terraform.io/builtin/terraform";
        let other = format!("{}/acme/other", cli.host);
        for (from, to) in [(builtin, other.as_str()), (&other, builtin)] {
            cli.ok(&["state", "replace-provider", "-auto-approve", from, to]).await;
            let pulled = cli.run(&["state", "pull"]).await.stdout;
            assert!(pulled.contains(&format!("[\\\"{to}\\\"]")), "{pulled}");
        }
        cli.write("more.tf", "resource \"terraform_data\" \"c\" {}\n");
        let imported = cli.ok(&["import", "terraform_data.c", "some-id"]).await;
        assert!(imported.contains("Import successful!"), "{imported}");
        assert!(cli.ok(&["state", "show", "terraform_data.c"]).await.contains("some-id"));
        cli.ok(&["state", "rm", "terraform_data.c"]).await;
        let said = cli.answering(&["console"], "terraform_data.a[0].output\n").await;
        assert_eq!((said.code, said.stdout.trim()), (Some(0), "\"step 0\""), "{said:?}");
        let shown = cli.ok(&["show"]).await;
        assert!(shown.contains("terraform_data.a[0]") && !shown.contains("a[1]:"), "{shown}");
        let pulled = cli.run(&["state", "pull"]).await.stdout;
        let pulled: Value = serde_json::from_str(&pulled).unwrap();
        let serial = pulled["serial"].as_u64().unwrap();
        let current = server.get(&format!("/workspaces/{workspace}/current-state-version")).await;
        assert_eq!(current["data"]["attributes"]["serial"], serial);

        let mut pushed = pulled.clone();
        pushed["outputs"]["steps"]["value"] = json!("7");
        let mut push = async |serial: u64, options: &[&str]| {
            pushed["serial"] = json!(serial);
            cli.write("other.tfstate", &pushed.to_string());
            cli.run(&[&["state", "push"], options, &["other.tfstate"]].concat()).await
        };
        let refused = push(serial - 1, &[]).await;
        assert!(refused.code == Some(1) && refused.text.contains("serial"), "{refused:?}");
        // The `cloud` block of Terraform 1.11 forgets to say that it is forced.
        let forced = push(serial - 1, &["-force"]).await;
        assert_eq!(forced.code == Some(0), backend == "remote", "{forced:?}");
        if backend == "cloud" {
            // It keeps its lock, so that nobody overwrites what it could not save.
            cli.ok(&["force-unlock", "-force", &format!("default/{name}")]).await;
        }
        let newer = push(serial + 9, &[]).await;
        assert_eq!(newer.code, Some(0), "{newer:?}");
        assert_eq!(cli.ok(&["output", "-raw", "steps"]).await.trim(), "7");
        cli.ok(&["destroy", "-auto-approve", "-var=steps=1"]).await;
        let shown = server.get(&format!("/workspaces/{workspace}")).await;
        assert_eq!(shown["data"]["attributes"]["locked"], false, "{shown}");
        assert_eq!(shown["data"]["attributes"]["has-resources"], false, "{shown}");
    }
}

/// The old Terraform knows no resource without a provider: it changes what is there.
#[tokio::test]
async fn an_old_terraform_changes_a_state_that_is_there() {
    let Some(program) = old_terraform() else { return };
    let server = server().await;
    local_workspace(&server, "old").await;
    let cli = Cli::new(&server).with_program(program);
    cli.remote("name = \"old\"");
    cli.write("main.tf", "output \"a\" {\n  value = 1\n}\n");
    cli.ok(&["init", "-input=false"]).await;
    let resource = |name: &str| {
        json!({
            "mode": "managed", "type": "null_resource", "name": name,
            "provider": "provider[\"registry.terraform.io/hashicorp/null\"]",
            "instances": [{ "schema_version": 0, "attributes": { "id": "1", "triggers": null } }],
        })
    };
    let pushed = json!({
        "version": 4, "terraform_version": "1.0.3", "serial": 4, "lineage": "l-1",
        "outputs": { "a": { "type": "number", "value": 1 } },
        "resources": [resource("one"), resource("two")],
    });
    cli.write("pushed.tfstate", &pushed.to_string());
    cli.ok(&["state", "push", "pushed.tfstate"]).await;
    let listed = cli.ok(&["state", "list"]).await;
    assert_eq!(listed.trim(), "null_resource.one null_resource.two");
    cli.ok(&["state", "mv", "null_resource.two", "null_resource.three"]).await;
    cli.ok(&["state", "rm", "null_resource.one"]).await;
    cli.ok(&["taint", "null_resource.three"]).await;
    cli.ok(&["untaint", "null_resource.three"]).await;
    let other = format!("{}/acme/null", cli.host);
    let replace = ["state", "replace-provider", "-auto-approve", "hashicorp/null", &other];
    cli.ok(&replace).await;
    let pulled: Value = serde_json::from_str(&cli.run(&["state", "pull"]).await.stdout).unwrap();
    assert_eq!(pulled["resources"][0]["name"], "three", "{pulled}");
    assert_eq!(pulled["resources"][0]["provider"], format!("provider[\"{other}\"]"), "{pulled}");
    let mut older = pulled;
    older["serial"] = json!(older["serial"].as_u64().unwrap() - 1);
    cli.write("older.tfstate", &older.to_string());
    let refused = cli.fails(&["state", "push", "older.tfstate"]).await;
    assert!(refused.contains("serial"), "{refused}");
    cli.ok(&["state", "push", "-force", "pushed.tfstate"]).await;
    assert_eq!(cli.ok(&["output", "a"]).await.trim(), "1");
    assert_eq!(cli.ok(&["workspace", "show"]).await.trim(), "default");
}

#[tokio::test]
async fn a_lock_says_who_holds_it_and_only_they_or_force_release_it() {
    let server = server().await;
    let workspace = local_workspace(&server, "locked").await;
    let cli = Cli::new(&server);
    cli.cloud("name = \"locked\"");
    cli.write("main.tf", CONFIGURATION);
    cli.ok(&["init", "-input=false"]).await;

    let another = server.create("/access-tokens", json!({ "name": "ci" }), &[]).await;
    let token = another["attributes"]["token"].as_str().unwrap();
    let action = async |action: &str, token: &str, body: Value| {
        let url = format!("{}/api/v2/workspaces/{workspace}/actions/{action}", server.url);
        let request = server.http.post(url).bearer_auth(token).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let reason = json!({ "reason": "a migration" });
    assert_eq!(action("lock", token, reason.clone()).await.0, StatusCode::OK);
    assert_eq!(action("lock", token, reason).await.0, StatusCode::CONFLICT);
    let shown = server.get(&format!("/workspaces/{workspace}")).await;
    let reason = shown["data"]["attributes"]["locked-reason"].as_str().unwrap();
    assert!(reason.starts_with("Locked by ci (at-") && reason.ends_with("a migration"), "{reason}");

    let refused = cli.fails(&["apply", "-auto-approve"]).await;
    assert!(refused.contains("Error acquiring the state lock"), "{refused}");
    assert!(refused.contains("default/locked"), "the id for force-unlock: {refused}");
    let (status, text) = action("unlock", &server.admin, Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(text.contains("is locked by User"), "{text}");
    let upload = json!({ "data": { "attributes": { "serial": 1, "md5": "" } } });
    let path = format!("/workspaces/{workspace}/state-versions");
    let (status, refused) = terraform_api(&server, Method::POST, &path, upload).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");

    cli.ok(&["force-unlock", "-force", "default/locked"]).await;
    cli.ok(&["apply", "-auto-approve"]).await;
    assert_eq!(action("unlock", &server.admin, Value::Null).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn workspaces_are_made_selected_listed_and_deleted_by_tags_and_by_prefix() {
    let server = server().await;
    for tags in ["tags = [\"app\", \"eu\"]", "tags = { team = \"web\" }"] {
        let cli = Cli::new(&server);
        cli.cloud(&format!("{tags}\n project = \"Default Project\""));
        cli.write("main.tf", CONFIGURATION);
        let made = cli.answering(&["init"], "one\n").await;
        assert_eq!(made.code, Some(0), "{}", made.text);
        cli.ok(&["workspace", "new", "two"]).await;
        local_workspace(&server, "without-tags").await;
        let listed = cli.ok(&["workspace", "list"]).await;
        assert_eq!(listed.trim(), "one * two");
        cli.ok(&["workspace", "select", "one"]).await;
        assert_eq!(cli.ok(&["workspace", "show"]).await.trim(), "one");
        for name in ["one", "two"] {
            let found = server.get(&format!("/workspaces?filter[name]={name}")).await;
            let path = format!("/workspaces/{}", id(&found["data"][0]));
            let local = json!({ "data": { "attributes": { "execution-mode": "local" } } });
            server.call(Method::PATCH, &path, local).await;
        }
        cli.ok(&["apply", "-auto-approve"]).await;
        cli.ok(&["workspace", "select", "two"]).await;
        let refused = cli.fails(&["workspace", "delete", "one"]).await;
        assert!(refused.contains("is not empty"), "{refused}");
        let refused = cli.fails(&["workspace", "delete", "-force", "one"]).await;
        assert!(refused.contains("deletion protection"), "{refused}");
        cli.ok(&["workspace", "select", "one"]).await;
        cli.ok(&["destroy", "-auto-approve"]).await;
        cli.ok(&["workspace", "select", "two"]).await;
        cli.ok(&["workspace", "delete", "one"]).await;
        let found = server.get("/workspaces?filter[name]=two").await;
        let path = format!("/workspaces/{}", id(&found["data"][0]));
        server.call(Method::DELETE, &path, Value::Null).await;
        let found = server.get("/workspaces?filter[name]=without-tags").await;
        let path = format!("/workspaces/{}", id(&found["data"][0]));
        server.call(Method::DELETE, &path, Value::Null).await;
    }
    let mut programs = vec![("terraform".into(), "app-")];
    programs.extend(old_terraform().map(|program| (program, "old-")));
    for (program, prefix) in programs {
        let cli = Cli::new(&server).with_program(program);
        cli.remote(&format!("prefix = \"{prefix}\""));
        cli.write("main.tf", "output \"a\" {\n  value = 1\n}\n");
        local_workspace(&server, &format!("{prefix}one")).await;
        local_workspace(&server, &format!("other-{prefix}x")).await;
        let made = cli.answering(&["init"], "1\n").await;
        assert_eq!(made.code, Some(0), "{}", made.text);
        cli.ok(&["workspace", "new", "two"]).await;
        assert_eq!(cli.ok(&["workspace", "list"]).await.trim(), "one * two");
        cli.ok(&["workspace", "select", "one"]).await;
        cli.ok(&["apply", "-auto-approve"]).await;
        assert_eq!(cli.ok(&["output", "a"]).await.trim(), "1");
        cli.ok(&["workspace", "delete", "two"]).await;
    }
}

#[tokio::test]
async fn a_workspace_with_resources_is_deleted_by_force_once_nothing_protects_it() {
    let server = server().await;
    let mut cases = vec![("terraform".into(), "cloud"), ("terraform".into(), "remote")];
    cases.extend(old_terraform().map(|program| (program, "old")));
    for (program, block) in cases {
        let cli = Cli::new(&server).with_program(program);
        let (one, two) = match block {
            "cloud" => ("forced-one".to_owned(), "forced-two".to_owned()),
            _ => ("one".to_owned(), "two".to_owned()),
        };
        let prefix = format!("{block}-");
        match block {
            "cloud" => cli.cloud("tags = [\"forced\"]"),
            _ => cli.remote(&format!("prefix = \"{prefix}\"")),
        }
        cli.write("main.tf", "output \"a\" {\n  value = 1\n}\n");
        if block == "cloud" {
            let made = cli.answering(&["init"], &format!("{one}\n")).await;
            assert_eq!(made.code, Some(0), "{}", made.text);
        } else {
            local_workspace(&server, &format!("{prefix}{one}")).await;
            let made = cli.answering(&["init"], "1\n").await;
            assert_eq!(made.code, Some(0), "{}", made.text);
        }
        cli.ok(&["workspace", "new", &two]).await;
        let full = if block == "cloud" { one.clone() } else { format!("{prefix}{one}") };
        let found = server.get(&format!("/workspaces?filter[name]={full}")).await;
        let workspace = id(&found["data"][0]);
        let path = format!("/workspaces/{workspace}");
        let content = json!({
            "version": 4, "terraform_version": "1.0.3", "serial": 4, "lineage": "l-1", "outputs": {},
            "resources": [{
                "mode": "managed", "type": "null_resource", "name": "one",
                "provider": "provider[\"registry.terraform.io/hashicorp/null\"]",
                "instances": [{ "schema_version": 0, "attributes": { "id": "1", "triggers": null } }],
            }],
        });
        let content = json!({ "state": base64(&content.to_string()) });
        server.create("/state-versions", content, &[("workspace", &workspace)]).await;

        let refused = cli.fails(&["workspace", "delete", &one]).await;
        assert!(refused.contains("is not empty") || refused.contains("resources"), "{refused}");
        let refused = cli.fails(&["workspace", "delete", "-force", &one]).await;
        assert!(refused.contains("deletion protection"), "{block}: {refused}");
        let unprotected =
            json!({ "data": { "attributes": { "deletion-protection-enabled": false } } });
        assert_eq!(server.call(Method::PATCH, &path, unprotected).await.0, StatusCode::OK);
        cli.ok(&["workspace", "delete", "-force", &one]).await;
        assert_eq!(server.call(Method::GET, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
        assert_eq!(cli.ok(&["workspace", "list"]).await.trim(), format!("* {two}"));
    }
}

#[tokio::test]
async fn an_unknown_project_is_refused_with_what_there_is() {
    let server = server().await;
    let cli = Cli::new(&server);
    cli.cloud("name = \"main\"\n project = \"other\"");
    let refused = cli.fails(&["init", "-input=false"]).await;
    assert!(refused.contains("An environment has one project, \"Default Project\""), "{refused}");
}

#[tokio::test]
async fn a_rollback_is_a_new_version_with_the_next_serial() {
    let server = server().await;
    let workspace = local_workspace(&server, "main").await;
    let mut versions = Vec::new();
    for serial in [1, 2] {
        let content = state(serial, json!({ "n": { "type": "number", "value": serial } }));
        let attributes = json!({ "state": base64(&content) });
        versions.push(id(&server
            .create("/state-versions", attributes, &[("workspace", &workspace)])
            .await));
    }
    let path = format!("/workspaces/{workspace}/state-versions");
    let to = |version: &str| {
        let version = json!({ "data": { "type": "state-versions", "id": version } });
        json!({ "data": { "relationships": { "rollback-state-version": version } } })
    };
    let (status, made) = terraform_api(&server, Method::PATCH, &path, to(&versions[0])).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["data"]["attributes"]["serial"], 3);
    let link = made["data"]["attributes"]["hosted-state-download-url"].as_str().unwrap();
    let answer = server.http.get(link).bearer_auth(&server.admin).send().await.unwrap();
    let content: Value = answer.json().await.unwrap();
    let mut wanted: Value =
        serde_json::from_str(&state(1, json!({ "n": { "type": "number", "value": 1 } }))).unwrap();
    wanted["serial"] = json!(3);
    assert_eq!(content, wanted);

    let other = local_workspace(&server, "other").await;
    let path = format!("/workspaces/{other}/state-versions");
    let (status, _) = terraform_api(&server, Method::PATCH, &path, to(&versions[0])).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "it is the state of another workspace");
}

#[tokio::test]
async fn an_announced_state_is_taken_only_as_announced_and_with_its_link() {
    let server = server().await;
    let workspace = local_workspace(&server, "main").await;
    let content = state(4, json!({}));
    let announce = async |serial: u32, md5: &str| {
        let attributes = json!({ "serial": serial, "md5": md5, "lineage": "l-1" });
        let path = format!("/workspaces/{workspace}/state-versions");
        let body = json!({ "data": { "attributes": attributes } });
        let (status, made) = terraform_api(&server, Method::POST, &path, body).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made["data"].clone()
    };
    let put = async |link: &str| {
        let answer = server.http.put(link).body(content.clone()).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let md5 = md5_of(&content);
    for (serial, md5) in [(5, md5.as_str()), (4, &"0".repeat(32))] {
        let announced = announce(serial, md5).await;
        let link = announced["attributes"]["hosted-state-upload-url"].as_str().unwrap();
        let (status, text) = put(link).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
    }
    let announced = announce(4, &md5).await;
    let link = announced["attributes"]["hosted-state-upload-url"].as_str().unwrap();
    let (_, signature) = link.rsplit_once('.').unwrap();
    let forged = link.replace(signature, &"0".repeat(signature.len()));
    assert_eq!(put(&forged).await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/state-versions").await["data"], json!([]), "nothing was kept");
    assert_eq!(put(link).await.0, StatusCode::OK);
    assert_eq!(put(link).await.0, StatusCode::OK, "a repeated upload is the same one");
    let path = format!("/state-versions/{}", id(&announced));
    let (_, read) = terraform_api(&server, Method::GET, &path, Value::Null).await;
    assert_eq!(read["data"]["attributes"]["status"], "finalized");
    assert_eq!(read["data"]["attributes"]["serial"], 4);
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}

fn md5_of(text: &str) -> String {
    use md5::Digest as _;
    hex::encode(md5::Md5::digest(text))
}
