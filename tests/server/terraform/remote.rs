//! Plans and applies on an agent, asked for on the command line.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdout, Command};

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
        if matches!(case.block, Block::Remote) {
            for (option, text) in [
                ("-out=saved", "Saving a generated plan is currently not supported"),
                ("-var=a=two", "variables are currently not supported"),
            ] {
                let refused = cli.fails(&["plan", option]).await;
                assert!(refused.contains(text), "{}: {refused}", case.name);
            }
        }
    }
    let runs = server.get("/runs").await;
    assert_eq!(runs["meta"]["pagination"]["total-count"], 0);
}

/// A command that waits for its plan, which stays in its queue without an agent.
struct Waiting {
    child: Child,
    output: ChildStdout,
    said: Vec<u8>,
}

impl Waiting {
    async fn start(mut command: Command) -> Self {
        let mut child = command.process_group(0).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let mut waiting = Self { child, output, said: Vec::new() };
        // Interrupted before it waits, it ends without canceling the run.
        waiting.until("Waiting for the plan to start").await;
        waiting
    }

    async fn until(&mut self, text: &str) {
        let reads = async {
            while !String::from_utf8_lossy(&self.said).contains(text) {
                let read = self.output.read_buf(&mut self.said).await.unwrap();
                assert_ne!(read, 0, "it ends before {text:?}: {}", self.text());
            }
        };
        let is_there = tokio::time::timeout(Duration::from_secs(60), reads).await.is_ok();
        assert!(is_there, "{text:?} does not come: {}", self.text());
    }

    /// Types on the terminal that the command has.
    async fn type_text(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    /// Presses Ctrl-C, and again when Terraform asks whether to cancel the run; how it ended.
    async fn interrupted_twice(mut self) -> (Option<i32>, String) {
        self.type_text("\x03").await;
        self.until("Do you want to cancel the remote operation?").await;
        self.type_text("\x03").await;
        self.end().await
    }

    /// Interrupts the command as a terminal does: the old Terraform is two processes.
    fn interrupt(&self) {
        let group = Pid::from_raw(self.child.id().unwrap().cast_signed());
        killpg(group, Signal::SIGINT).unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// Waits for its end; its exit code, and all it said.
    async fn end(mut self) -> (Option<i32>, String) {
        let rest = self.output.read_to_end(&mut self.said);
        let has_ended = tokio::time::timeout(Duration::from_secs(60), rest).await.is_ok();
        assert!(has_ended, "it does not end: {}", self.text());
        (self.child.wait().await.unwrap().code(), self.text())
    }
}

#[tokio::test]
async fn an_interrupted_command_cancels_its_run() {
    let server = server().await;
    let site = site(&server).await;
    let checks = cases().into_iter().map(|case| {
        let server = &server;
        async move {
            let cli = initialised(server, &case).await;
            let command = cli.command(&["apply", "-auto-approve"]);
            let waiting = Waiting::start(command).await;
            let status =
                async || latest_run(server, case.name).await["attributes"]["status"].clone();
            assert_eq!(status().await, "plan_queued", "{}", case.name);
            waiting.interrupt();
            let (code, text) = waiting.end().await;
            assert!(text.contains("cancelled"), "{}: {text}", case.name);
            // It takes the run's status before the cancel for its result.
            assert_eq!(code, Some(0), "{}: {text}", case.name);
            assert_eq!(status().await, "canceled", "{}", case.name);
        }
    });
    futures_util::future::join_all(checks).await;
    let _agent = agent::start(&server, &site, "one").await;
    initialised(&server, &cases()[0]).await.ok(&["plan"]).await;
}

#[tokio::test]
async fn an_interrupted_plan_ends_and_leaves_its_run() {
    let server = server().await;
    site(&server).await;
    let checks = cases().into_iter().map(|case| {
        let server = &server;
        async move {
            let cli = initialised(server, &case).await;
            let mut terminal = cli.in_terminal("plan");
            terminal.stdin(Stdio::piped());
            let mut waiting = Waiting::start(terminal).await;
            let (_, text) = match case.block {
                Block::Remote => waiting.interrupted_twice().await,
                // It does not ask about a plan.
                Block::Cloud => {
                    waiting.type_text("\x03").await;
                    waiting.end().await
                }
            };
            assert!(text.contains("Interrupt received"), "{}: {text}", case.name);
            let run = latest_run(server, case.name).await;
            assert_eq!(run["attributes"]["status"], "plan_queued", "{}", case.name);
        }
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn a_second_interrupt_ends_the_command_and_leaves_its_run() {
    let server = server().await;
    site(&server).await;
    let checks = cases().into_iter().map(|case| {
        let server = &server;
        async move {
            let cli = initialised(server, &case).await;
            // Only on a terminal, Terraform asks before it cancels.
            let mut terminal = cli.in_terminal("apply");
            terminal.stdin(Stdio::piped());
            let waiting = Waiting::start(terminal).await;
            let (code, text) = waiting.interrupted_twice().await;
            assert_ne!(code, Some(0), "{}: {text}", case.name);
            let run = latest_run(server, case.name).await;
            assert_eq!(run["attributes"]["status"], "plan_queued", "{}", case.name);
        }
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn a_second_interrupt_while_an_apply_waits_ends_the_command_and_leaves_its_run() {
    let server = server().await;
    let site = site(&server).await;
    for case in cases() {
        let cli = initialised(&server, &case).await;
        let agent = agent::start(&server, &site, case.name).await;
        let mut terminal = cli.in_terminal("apply");
        terminal.stdin(Stdio::piped());
        let mut waiting = Waiting::start(terminal).await;
        waiting.until("Enter a value:").await;
        drop(agent);
        waiting.type_text("yes\n").await;
        let run = format!("/runs/{}", id(&latest_run(&server, case.name).await));
        server.wait_for(&run, "status", "apply_queued").await;
        let (code, text) = waiting.interrupted_twice().await;
        assert_ne!(code, Some(0), "{}: {text}", case.name);
        assert_eq!(server.get(&run).await["data"]["attributes"]["status"], "apply_queued");
        server.call(Method::POST, &format!("{run}/actions/cancel"), json!({})).await;
    }
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
        // On a busy machine Terraform tells that it takes and releases the lock, on lines of their own.
        assert!(
            said.code == Some(0) && said.stdout.lines().any(|line| line == "\"A\""),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn ignored_files_stay_on_the_clients_machine() {
    let server = server().await;
    let site = site(&server).await;
    let _agent = agent::start(&server, &site, "one").await;
    for case in cases() {
        let cli = initialised(&server, &case).await;
        let output = |name: &str, file: &str| {
            format!("output \"{name}\" {{\n  value = fileexists(\"{file}\")\n}}\n")
        };
        cli.write("main.tf", &(output("sent", "kept") + &output("left_out", "secret/key")));
        for (name, content) in [("kept", "x"), ("secret/key", "x"), (".terraformignore", "secret/")]
        {
            cli.write(name, content);
        }
        let planned = cli.ok(&["plan"]).await;
        assert!(planned.contains("+ sent = true"), "{}: {planned}", case.name);
        assert!(planned.contains("+ left_out = false"), "{}: {planned}", case.name);
    }
}

#[tokio::test]
async fn a_lock_of_somebody_else_is_released_by_force() {
    let server = server().await;
    let site = site(&server).await;
    let _agent = agent::start(&server, &site, "one").await;
    let another = server.create("/access-tokens", json!({ "name": "ci" }), &[]).await;
    let another = another["attributes"]["token"].as_str().unwrap();
    for case in cases() {
        let cli = initialised(&server, &case).await;
        let found = workspace(&server, case.name).await;
        let url = format!("{}/api/v2/workspaces/{}/actions/lock", server.url, id(&found));
        let lock = server.http.post(url).bearer_auth(another).json(&json!({}));
        assert_eq!(lock.send().await.unwrap().status(), StatusCode::OK);
        cli.ok(&["force-unlock", "-force", &format!("default/{}", case.name)]).await;
        let locked = &workspace(&server, case.name).await["attributes"]["locked"];
        assert_eq!(*locked, false, "{}", case.name);
        cli.ok(&["apply", "-auto-approve"]).await;
    }
}

#[tokio::test]
async fn the_variable_of_the_workspace_selects_one_with_a_prefix() {
    let server = server().await;
    let site = site(&server).await;
    let _agent = agent::start(&server, &site, "one").await;
    for case in cases().into_iter().filter(|case| matches!(case.block, Block::Remote)) {
        let cli = Cli::new(&server).with_program(case.program.clone());
        cli.remote(&format!("prefix = \"{}-\"", case.name));
        cli.write("main.tf", CONFIGURATION);
        for name in ["eu", "us"] {
            let attributes = json!({ "name": format!("{}-{name}", case.name) });
            let related = [("environment", site.environment.as_str())];
            server.create("/workspaces", attributes, &related).await;
        }
        for arguments in [&["init", "-input=false"][..], &["apply", "-auto-approve"]] {
            let mut command = cli.command(arguments);
            command.env("TF_WORKSPACE", "us");
            let said = said(command).await;
            assert_eq!(said.code, Some(0), "{}: {}", case.name, said.text);
        }
        let run = latest_run(&server, &format!("{}-us", case.name)).await;
        assert_eq!(run["attributes"]["status"], "applied", "{}", case.name);
        let none = latest_run(&server, &format!("{}-eu", case.name)).await;
        assert_eq!(none, Value::Null, "{}", case.name);
    }
}

#[tokio::test]
async fn an_import_gets_the_workspaces_variables_and_needs_no_agent() {
    let server = server().await;
    site(&server).await;
    // The old Terraform has no resource without a provider.
    for case in &cases()[..2] {
        let cli = initialised(&server, case).await;
        let workspace = id(&workspace(&server, case.name).await);
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
    }
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
        for case in &cases() {
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
