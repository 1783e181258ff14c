//! Plans and applies on an agent, asked for on the command line.

use std::ffi::OsString;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::agent;
use super::cli::{Cli, old_terraform, said, server};
use crate::harness::{Server, Site, id, related};

/// Outputs only, so that the old Terraform knows it, too.
const CONFIGURATION: &str =
    "variable \"a\" {\n  default = \"one\"\n}\n\noutput \"a\" {\n  value = var.a\n}\n";

/// How a workspace is named in a configuration.
#[derive(Clone, Copy, Debug)]
enum Block {
    Cloud,
    Remote,
}

struct Case {
    program: OsString,
    block: Block,
    name: &'static str,
}

fn cases() -> Vec<Case> {
    let new = |block, name| Case { program: "terraform".into(), block, name };
    let mut cases = vec![new(Block::Cloud, "cloud"), new(Block::Remote, "remote")];
    cases.extend(old_terraform().map(|program| Case {
        program,
        block: Block::Remote,
        name: "old",
    }));
    cases
}

/// The pool is the account's default one, so that it has the workspaces that Terraform makes.
pub(crate) async fn site(server: &Server) -> Site {
    let site = server.pool_and_workspace().await;
    let default = json!({ "data": { "attributes": { "default": true } } });
    let path = format!("/agent-pools/{}", site.pool);
    assert_eq!(server.call(Method::PATCH, &path, default).await.0, StatusCode::OK);
    site
}

async fn initialised(server: &Server, case: &Case) -> Cli {
    let cli = Cli::new(server).with_program(case.program.clone());
    let name = format!("name = \"{}\"", case.name);
    match case.block {
        Block::Cloud => cli.cloud(&name),
        Block::Remote => cli.remote(&name),
    }
    cli.write("main.tf", CONFIGURATION);
    cli.ok(&["init", "-input=false"]).await;
    cli
}

async fn workspace(server: &Server, name: &str) -> Value {
    server.get(&format!("/workspaces?filter[name]={name}")).await["data"][0].clone()
}

async fn latest_run(server: &Server, name: &str) -> Value {
    let workspace = id(&workspace(server, name).await);
    server.get(&format!("/runs?filter[workspace]={workspace}")).await["data"][0].clone()
}

#[tokio::test]
async fn plan_apply_and_destroy_show_the_agents_log_and_ask_before_they_change_anything() {
    let server = server().await;
    let site = site(&server).await;
    let _agents = [
        agent::start(&server, &site, "one").await,
        agent::start(&server, &site, "two").await,
        agent::start(&server, &site, "three").await,
    ];
    let checks = cases().into_iter().map(|case| {
        let server = &server;
        async move {
            let cli = initialised(server, &case).await;
            let status =
                async || latest_run(server, case.name).await["attributes"]["status"].clone();
            let planned = cli.ok(&["plan"]).await;
            assert!(planned.contains("+ a = \"one\""), "{planned}");
            assert_eq!(status().await, "planned_and_finished", "a plan alone is never applied");

            let said = cli.answering(&["apply"], "no\n").await;
            assert!(said.code == Some(1) && said.text.contains("Apply discarded"), "{said:?}");
            assert_eq!(status().await, "discarded");
            let said = cli.answering(&["apply"], "yes\n").await;
            assert_eq!(said.code, Some(0), "{}", said.text);
            assert!(said.text.contains("Apply complete!"), "{}", said.text);
            assert_eq!(status().await, "applied");
            assert_eq!(cli.ok(&["output", "a"]).await.trim(), "\"one\"");

            // The backend has no `-var`.
            cli.write("two.auto.tfvars", "a = \"two\"\n");
            let applied = cli.ok(&["apply", "-auto-approve"]).await;
            assert!(applied.contains("a = \"two\""), "{applied}");
            let destroyed = cli.ok(&["destroy", "-auto-approve"]).await;
            assert!(destroyed.contains("- a = \"two\""), "{destroyed}");
            assert_eq!(status().await, "applied");
            let locked = &workspace(server, case.name).await["attributes"]["locked"];
            assert_eq!(*locked, false);
        }
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn a_failed_plan_ends_the_command_with_the_agents_error() {
    let server = server().await;
    let site = site(&server).await;
    let _agent = agent::start(&server, &site, "one").await;
    let case = &cases()[0];
    let cli = initialised(&server, case).await;
    cli.write("main.tf", "output \"a\" {\n  value = file(\"missing\")\n}\n");
    let failed = cli.fails(&["plan"]).await;
    assert!(failed.contains("no file exists"), "{failed}");
    assert_eq!(latest_run(&server, case.name).await["attributes"]["status"], "errored");
}

#[tokio::test]
async fn options_that_runs_do_not_have_are_refused_by_terraform_itself() {
    let server = server().await;
    site(&server).await;
    for case in cases() {
        let cli = initialised(&server, &case).await;
        for command in [&["plan", "-parallelism=3"][..], &["apply", "-parallelism=3"]] {
            let refused = cli.fails(command).await;
            assert!(
                refused.contains("parallelism values are currently not supported"),
                "{}: {refused}",
                case.name
            );
        }
    }
    let runs = server.get("/runs").await;
    assert_eq!(runs["meta"]["pagination"]["total-count"], 0);
}

#[tokio::test]
async fn an_interrupted_command_cancels_its_run() {
    let server = server().await;
    let site = site(&server).await;
    let cli = initialised(&server, &cases()[0]).await;
    // Without an agent, the plan stays in its queue.
    let mut child = cli.command(&["apply", "-auto-approve"]).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut said = Vec::new();
    // Interrupted before it waits, it ends without canceling the run.
    let waits = async {
        while !String::from_utf8_lossy(&said).contains("Waiting for the plan to start") {
            assert_ne!(output.read_buf(&mut said).await.unwrap(), 0, "it ends before it waits");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap();
    assert_eq!(latest_run(&server, "cloud").await["attributes"]["status"], "plan_queued");
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    let rest = output.read_to_end(&mut said);
    tokio::time::timeout(Duration::from_secs(30), rest).await.unwrap().unwrap();
    child.wait().await.unwrap();
    let text = String::from_utf8_lossy(&said);
    assert!(text.contains("cancelled"), "{text}");
    assert_eq!(latest_run(&server, "cloud").await["attributes"]["status"], "canceled");
    let _agent = agent::start(&server, &site, "one").await;
    cli.ok(&["plan"]).await;
}

#[tokio::test]
async fn commands_that_read_a_state_work_on_a_workspace_with_remote_execution() {
    let server = server().await;
    let site = site(&server).await;
    let _agent = agent::start(&server, &site, "one").await;
    for case in cases() {
        let cli = initialised(&server, &case).await;
        let hush = "\noutput \"hush\" {\n  value     = \"s3cret\"\n  sensitive = true\n}\n";
        cli.write("main.tf", &format!("{CONFIGURATION}{hush}"));
        cli.ok(&["apply", "-auto-approve"]).await;
        let outputs: Value =
            serde_json::from_str(&cli.run(&["output", "-json"]).await.stdout).unwrap();
        assert_eq!(outputs["a"]["value"], "one", "{outputs}");
        assert_eq!(outputs["hush"]["value"], "s3cret", "{outputs}");
        let shown: Value = serde_json::from_str(&cli.run(&["show", "-json"]).await.stdout).unwrap();
        assert_eq!(shown["values"]["outputs"]["a"]["value"], "one", "{shown}");
        let said = cli.answering(&["console"], "upper(\"a\")\n").await;
        // On a busy machine Terraform tells that it releases the lock, on a line of its own.
        assert_eq!((said.code, said.stdout.lines().next()), (Some(0), Some("\"A\"")), "{said:?}");
    }
}

#[tokio::test]
async fn an_import_gets_the_workspaces_variables_and_needs_no_agent() {
    let server = server().await;
    site(&server).await;
    let cli = initialised(&server, &cases()[0]).await;
    let workspace = id(&workspace(&server, "cloud").await);
    for (key, sensitive) in [("plain", false), ("secret", true)] {
        let attributes = json!({
            "key": key, "value": "some-id", "category": "terraform", "sensitive": sensitive,
        });
        server.create("/vars", attributes, &[("workspace", &workspace)]).await;
    }
    cli.write(
        "main.tf",
        "variable \"plain\" {}\nvariable \"secret\" {}\nresource \"terraform_data\" \"a\" {\n  \
         input = [var.plain, var.secret]\n}\n",
    );
    let imported = cli.ok(&["import", "terraform_data.a", "some-id"]).await;
    assert!(imported.contains("Import successful!"), "{imported}");
    assert!(cli.ok(&["state", "show", "terraform_data.a"]).await.contains("some-id"));
    let shown = server.get(&format!("/workspaces/{workspace}")).await;
    assert_eq!(shown["data"]["attributes"]["locked"], false, "{shown}");
    let url = format!("{}/api/v2/workspaces/{workspace}/vars", server.url);
    let listed = server.http.get(url).bearer_auth(&server.admin).send().await.unwrap();
    let listed: Value = listed.json().await.unwrap();
    let values = [0, 1].map(|n| listed["data"][n]["attributes"]["value"].clone());
    assert_eq!(values, [json!("some-id"), Value::Null], "{listed}");
    let runs = server.get("/runs").await;
    assert_eq!(runs["meta"]["pagination"]["total-count"], 0);
}

mod full {
    use super::*;

    /// What needs a resource.
    const RESOURCES: &str = "variable \"a\" {\n  default = \"one\"\n}\n\nresource \"terraform_data\" \"a\" {\n  input = var.a\n}\n\nresource \"terraform_data\" \"b\" {\n  input = 1\n}\n";

    #[tokio::test]
    async fn a_runs_options_reach_the_plan() {
        let server = server().await;
        let site = site(&server).await;
        let _agent = agent::start(&server, &site, "one").await;
        for case in &cases()[..2] {
            let cli = initialised(&server, case).await;
            cli.write("main.tf", RESOURCES);
            cli.write("more.tfvars", "a = \"of a file\"\n");
            for (option, there, not_there) in [
                (
                    "-target=terraform_data.a",
                    "terraform_data.a will be created",
                    "terraform_data.b will",
                ),
                ("-var=a=of an option", "of an option", "\"one\""),
                ("-var-file=more.tfvars", "of a file", "\"one\""),
            ] {
                let planned = cli.run(&["plan", option]).await.text;
                if matches!(case.block, Block::Remote) && option.starts_with("-var") {
                    assert!(planned.contains("variables are currently not supported"), "{planned}");
                    continue;
                }
                assert!(planned.contains(there), "{option}: {planned}");
                assert!(!planned.contains(not_there), "{option}: {planned}");
            }
            cli.ok(&["apply", "-auto-approve"]).await;
            for (option, there) in [
                ("-replace=terraform_data.b", "terraform_data.b will be replaced"),
                ("-refresh-only", "No changes."),
                ("-refresh=false", "No changes."),
                ("-destroy", "2 to destroy"),
            ] {
                let planned = cli.ok(&["plan", option]).await;
                assert!(planned.contains(there), "{option}: {planned}");
            }
        }
    }

    #[tokio::test]
    async fn a_saved_plan_is_applied_once() {
        let server = server().await;
        let site = site(&server).await;
        let _agent = agent::start(&server, &site, "one").await;
        let cli = initialised(&server, &cases()[0]).await;
        cli.write("main.tf", RESOURCES);
        cli.ok(&["plan", "-out=saved"]).await;
        let shown: Value =
            serde_json::from_str(&cli.run(&["show", "-json", "saved"]).await.stdout).unwrap();
        let first = &shown["resource_changes"][0];
        assert_eq!(first["address"], "terraform_data.a", "{shown}");
        assert_eq!(first["change"]["actions"], json!(["create"]), "{shown}");
        let run = latest_run(&server, "cloud").await;
        let path = format!("{}/api/v2/plans/{}", server.url, related(&run, "plan"));
        let plan = server.http.get(path).bearer_auth(&server.admin).send().await.unwrap();
        let plan: Value = plan.json().await.unwrap();
        let plan = &plan["data"]["attributes"];
        let numbers = ["additions", "changes", "destructions"];
        let numbers = numbers.map(|name| plan[format!("resource-{name}")].as_u64());
        assert_eq!(numbers, [Some(2), Some(0), Some(0)], "{plan}");
        let status = async || latest_run(&server, "cloud").await["attributes"]["status"].clone();
        assert_eq!(status().await, "planned_and_saved");
        let said = cli.ok(&["apply", "saved"]).await;
        assert!(said.contains("Apply complete!"), "{said}");
        assert_eq!(status().await, "applied");
        cli.fails(&["apply", "saved"]).await;
    }

    #[tokio::test]
    async fn a_working_directory_and_ignored_files_are_terraforms() {
        let server = server().await;
        let site = site(&server).await;
        let _agent = agent::start(&server, &site, "one").await;
        let cli = initialised(&server, &cases()[0]).await;
        let path = format!("/workspaces/{}", id(&workspace(&server, "cloud").await));
        let directory = json!({ "data": { "attributes": { "working-directory": "live" } } });
        server.call(Method::PATCH, &path, directory).await;
        // The workspace's directory is the one that Terraform is called in.
        for (name, content) in [
            (
                "live/main.tf",
                "output \"up\" {\n  value = fileexists(\"../kept\")\n}\noutput \"left_out\" {\n  value = fileexists(\"../secret\")\n}\n",
            ),
            ("kept", "x"),
            ("secret", "x"),
            (".terraformignore", "secret\n"),
        ] {
            cli.write(name, content);
        }
        std::fs::rename(cli.folder().join("cloud.tf"), cli.folder().join("live/cloud.tf")).unwrap();
        std::fs::remove_file(cli.folder().join("main.tf")).unwrap();
        let mut planned = String::new();
        for arguments in [&["-chdir=live", "init", "-input=false"][..], &["-chdir=live", "plan"]] {
            let mut command = cli.command(arguments);
            command.env("TF_WORKSPACE", "cloud");
            let said = said(command).await;
            assert_eq!(said.code, Some(0), "{}", said.text);
            planned = said.text;
        }
        assert!(planned.contains("+ up = true"), "{planned}");
        assert!(planned.contains("+ left_out = false"), "{planned}");
    }
}
