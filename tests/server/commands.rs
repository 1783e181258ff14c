//! The commands for people, against a real server: on its own host and from elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use protocol::Outcome;
use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Server, Site, program};

/// Calls a command on the server's own host, with `input` as its standard input.
async fn call(server: &Server, words: &[&str], input: &str) -> Output {
    let mut command = program();
    command.args(words).arg("--data").arg(&server.data).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses its options reads nothing.
    drop(stdin.write_all(input.as_bytes()).await);
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

/// What a command that has to succeed prints.
async fn said(server: &Server, words: &[&str]) -> String {
    let output = call(server, words, "").await;
    assert!(output.status.success(), "{words:?}: {}", error(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and error of a command that has to fail.
async fn refused(server: &Server, words: &[&str]) -> (Option<i32>, String) {
    let output = call(server, words, "").await;
    assert!(!output.status.success(), "{words:?} succeeded");
    (output.status.code(), error(&output))
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Creates a pool with a token, which it reads from its file.
async fn pool(server: &Server, folder: &Path) -> String {
    let file = folder.join("prod.token");
    said(server, &["pool", "create", "prod", "--token-output", file.to_str().unwrap()]).await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::read_to_string(file).unwrap().trim().to_owned()
}

fn configuration(folder: &Path) -> String {
    let path = folder.join("configuration");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("main.tf"), "output \"a\" {\n  value = 1\n}\n").unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_is_an_error_and_a_reader_that_is_gone_is_none() {
    let server = Server::start().await;
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let ended = || Stdio::from(std::io::pipe().unwrap().1);
    for (output, code) in [(&full as &dyn Fn() -> Stdio, 1), (&ended, 0)] {
        for words in [&["pool", "list"][..], &["admin-token", "list"]] {
            let mut command = program();
            command.args(words).arg("--data").arg(&server.data);
            let child = command.stdout(output()).stderr(Stdio::piped()).spawn().unwrap();
            let output = child.wait_with_output().await.unwrap();
            assert_eq!(output.status.code(), Some(code), "{words:?}: {}", error(&output));
            let why = "error: cannot write to standard output: No space left on device";
            assert_eq!(error(&output).starts_with(why), code == 1, "{}", error(&output));
        }
    }
}

#[tokio::test]
async fn a_pool_a_workspace_and_an_applied_run_take_no_token_on_the_servers_host() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = pool(&server, folder.path()).await;
    let site = Site {
        environment: String::new(),
        pool: String::new(),
        token_id: String::new(),
        token,
        workspace: String::new(),
    };
    let agent = server.agent(&site, "one").await;
    let shown = said(&server, &["pool", "show", "prod"]).await;
    assert!(shown.contains("idle") && shown.contains("one"), "{shown}");
    said(&server, &["workspace", "create", "network", "--pool", "prod"]).await;

    let configuration = configuration(folder.path());
    let words = ["run", "start", "--workspace", "network", "--apply", &configuration];
    let work = async {
        for (log, has_changes) in [("the plan's log\n", Some(true)), ("the apply's log\n", None)] {
            let job = agent.take().await;
            job.log(0, log).await;
            job.finish(Outcome::Finished, has_changes, log).await;
        }
    };
    let (output, ()) = tokio::join!(call(&server, &words, ""), work);
    assert!(output.status.success(), "{}", error(&output));
    let log = "the plan's log\nthe apply's log\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), log);
    let run = error(&output);
    let run = run.split_once("run-").unwrap().1.split(['.', ':']).next().unwrap();
    let run = format!("run-{run}");
    assert_eq!(server.run_status(&run).await, "applied");
    assert_eq!(said(&server, &["run", "log", &run]).await, log);
    assert!(said(&server, &["run", "show", &run]).await.contains("applied"));
}

#[tokio::test]
async fn a_planned_run_waits_for_an_answer_that_no_terminal_gives() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let configuration = configuration(folder.path());
    let words = ["run", "start", "--workspace", "main", &configuration];
    let plan = async {
        agent.take().await.finish(Outcome::Finished, Some(true), "").await;
    };
    let (output, ()) = tokio::join!(call(&server, &words, "yes\n"), plan);
    assert!(output.status.success(), "{}", error(&output));
    let said_next = error(&output);
    let apply = said_next.lines().find(|line| line.contains("run apply")).unwrap();
    let run = apply.split_whitespace().find(|word| word.starts_with("run-")).unwrap();
    assert_eq!(server.run_status(run).await, "planned");
    let (code, why) = {
        let words = ["run", "apply", run];
        let apply = async {
            let why = "cannot reach the provider";
            let job = agent.take().await;
            let failed = protocol::Finish {
                message: Some(why.to_owned()),
                ..job.ended(Outcome::Errored, None, "")
            };
            job.say_finish(&failed).await;
        };
        let (output, ()) = tokio::join!(refused(&server, &words), apply);
        output
    };
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("failed: ") && why.contains("cannot reach the provider"), "{why}");
}

#[tokio::test]
async fn a_run_may_create_its_workspace_only_in_a_named_pool() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    pool(&server, folder.path()).await;
    said(&server, &["pool", "create", "other"]).await;
    let configuration = configuration(folder.path());
    let start = ["run", "start", "--workspace", "hello", "--detach", &configuration];
    let (code, why) = refused(&server, &start).await;
    assert_eq!(code, Some(2));
    assert!(why.contains("there is no workspace hello"), "{why}");
    said(&server, &[&start[..], &["--pool", "prod"]].concat()).await;
    let listed = said(&server, &["workspace", "list", "--pool", "prod"]).await;
    assert!(listed.lines().count() == 2 && listed.contains("hello"), "{listed}");
    let (code, why) = refused(&server, &[&start[..], &["--pool", "other"]].concat()).await;
    assert_eq!(code, Some(2));
    assert!(why.contains("is not in the pool other"), "{why}");
}

#[tokio::test]
async fn what_was_mistyped_is_named_with_what_there_is_and_changes_nothing() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    pool(&server, folder.path()).await;
    said(&server, &["workspace", "create", "network", "--pool", "prod"]).await;
    let file = folder.path().join("prod.token");
    let file = file.to_str().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    for (words, expected) in [
        (&["pool", "show", "prdo"][..], "there is no pool prdo\nThe pools are: prod"),
        (&["pool", "create", "prod"], "with this name exists already"),
        (&["pool", "token", "prod", "--output", file], "exists already"),
        (&["pool", "token", "prod", "--output", "/nowhere/token"], "there is no folder /nowhere"),
        (&["pool", "create", "new", "--token-output", file], "exists already"),
        (&["workspace", "create", "a", "--pool", "prdo"], "there is no pool prdo"),
        (&["workspace", "create", "a", "--environment", "b"], "there is no environment b"),
        (&["run", "start", "--workspace", "network", "/nowhere"], "No such file"),
        (&["run", "start", "--workspace", "network", empty], "there is no .tf file"),
        (&["run", "start", "--workspace", "network", file], "not compressed with gzip"),
        (&["run", "start", "--workspace", "network"], "has no configuration yet"),
        (&["run", "show", "run-none"], "not found"),
        (&["variable", "set", "--workspace", "netwrk", "a", "b"], "The workspaces are: network"),
        (
            &["variable", "set", "--workspace", "network", "--sensitive", "a", "b"],
            "on a command line is seen",
        ),
    ] {
        let (code, why) = refused(&server, words).await;
        assert_eq!(code, Some(2), "{words:?}: {why}");
        assert!(why.contains(expected), "{words:?}: {why}");
    }
    for (path, count) in [("/agent-pools", 1), ("/workspaces", 1), ("/runs", 0), ("/vars", 0)] {
        let listed = server.get(path).await;
        assert_eq!(listed["data"].as_array().unwrap().len(), count, "{path}");
    }
    let pool = server.get("/agent-pools").await["data"][0]["id"].as_str().unwrap().to_owned();
    let tokens = server.get(&format!("/agent-pools/{pool}/access-tokens")).await;
    assert_eq!(tokens["data"].as_array().unwrap().len(), 1, "{tokens}");
}

#[tokio::test]
async fn a_sensitive_value_comes_from_standard_input_and_stays_sensitive() {
    let server = Server::start().await;
    server.pool_and_workspace().await;
    let words = ["variable", "set", "--workspace", "main", "password"];
    let output = call(&server, &[&words[..], &["--sensitive"]].concat(), "hunter2\n").await;
    assert!(output.status.success(), "{}", error(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"));
    let attributes = async || {
        let listed = server.get("/vars?filter[key]=password").await;
        listed["data"][0]["attributes"].clone()
    };
    assert_eq!(attributes().await["sensitive"], true);
    let output = call(&server, &words, "changed").await;
    assert!(output.status.success(), "{}", error(&output));
    let changed = attributes().await;
    assert_eq!((&changed["sensitive"], &changed["value"]), (&true.into(), &Value::Null));
    // One of the environment with the same name is another variable.
    said(&server, &[&words[..], &["seen", "--category", "shell"]].concat()).await;
    assert_eq!(server.get("/vars").await["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn from_elsewhere_a_command_takes_url_token_and_authority() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("admin token");
    fs::write(&token, format!("{}\n", server.admin)).unwrap();
    let ca = server.data.join("tls/ca.pem");
    let remote = async |words: &[&str], token: &Path, ca: Option<&Path>| {
        let mut command = program();
        command.args(words).args(["--server", &server.url]).arg("--token-file").arg(token);
        if let Some(ca) = ca {
            command.arg("--ca-cert").arg(ca);
        }
        command.output().await.unwrap()
    };
    let output = remote(&["pool", "create", "a b"], &token, Some(&ca)).await;
    assert!(output.status.success(), "{}", error(&output));
    // The next command is for the same server, and a shell takes it as it is.
    let said = String::from_utf8(output.stdout).unwrap();
    let next = said.lines().last().unwrap();
    assert!(next.contains("pool token 'a b'") && next.contains(&server.url), "{next}");
    assert!(next.contains(&format!("'{}'", token.display())), "{next}");

    let configuration = configuration(folder.path());
    let start = ["run", "start", "--workspace", "w", "--pool", "a b", "--detach", &configuration];
    let output = remote(&start, &token, Some(&ca)).await;
    assert!(output.status.success(), "{}", error(&output));

    let output = remote(&["pool", "list"], &token, None).await;
    assert!(error(&output).contains("--ca-cert FILE"), "{}", error(&output));
    let wrong = folder.path().join("wrong");
    fs::write(&wrong, "at-1.2").unwrap();
    let output = remote(&["pool", "list"], &wrong, Some(&ca)).await;
    assert_eq!(output.status.code(), Some(7), "{}", error(&output));
    let mut plain = program();
    plain.args(["pool", "list", "--server", "http://pools.example.com", "--token-file"]);
    let output = plain.arg(&token).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("it is not encrypted"), "{}", error(&output));
    let output = program().args(["pool", "list", "--server", &server.url]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("--token-file FILE"), "{}", error(&output));
}

#[tokio::test]
async fn the_install_line_has_the_servers_authority_and_key() {
    let packages = tempfile::tempdir().unwrap();
    fs::write(packages.path().join("scalr-agent.asc"), "abc").unwrap();
    let server = Server::start_with(&["--packages", packages.path().to_str().unwrap()]).await;
    said(&server, &["pool", "create", "prod"]).await;
    let said = said(&server, &["pool", "token", "prod", "--print"]).await;
    let ca = server.http.get(format!("{}/ca.pem", server.url)).send().await.unwrap();
    let sum = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(ca.bytes().await.unwrap()));
    assert!(
        said.contains(&format!("echo '{sum}  /etc/scalr-server-ca.pem' | sha256sum")),
        "{said}"
    );
    // The SHA-256 of "abc" (FIPS 180-2, B.1).
    let key = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(said.contains(&format!("--key-fingerprint {key} ")), "{said}");
    assert!(said.contains(&format!("{}/install.sh", server.url)), "{said}");
}

#[tokio::test]
async fn without_a_server_in_the_folder_a_command_says_what_to_do() {
    let mut server = Server::start().await;
    assert_eq!(server.stop().await, Some(0));
    let (code, why) = refused(&server, &["pool", "list"]).await;
    assert_eq!(code, Some(1));
    assert!(why.contains("no server runs there") && why.contains("--server URL"), "{why}");
    server.crash_and_restart().await;
    said(&server, &["pool", "list"]).await;
    // Its socket was left behind, and is replaced.
    server.crash_and_restart().await;
    said(&server, &["pool", "list"]).await;
}

#[tokio::test]
async fn only_the_socket_of_the_host_needs_no_token() {
    let server = Server::start().await;
    let (status, _) = server.call_with("", Method::GET, "/server", Value::Null).await;
    assert_eq!(status, reqwest::StatusCode::UNAUTHORIZED);
    let socket = server.data.join("api.sock");
    assert_eq!(fs::metadata(socket).unwrap().permissions().mode() & 0o077, 0);
}
