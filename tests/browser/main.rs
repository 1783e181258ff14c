//! The pages in a real browser: each test starts a server and runs a script of this folder.

#[path = "../server/harness.rs"]
#[allow(dead_code, reason = "the tests of the server use the rest")]
mod harness;

use std::env;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use harness::{Server, program};

/// How long a script may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The folder that scripts/test has installed Playwright, axe and html-validate into.
const MODULES: &str = "SCALR_TEST_BROWSER";

#[tokio::test]
async fn a_pool_lives_from_sign_in_to_deletion() {
    run("journey.mjs").await;
}

#[tokio::test]
async fn a_run_is_followed_searched_and_approved() {
    run("run.mjs").await;
}

#[tokio::test]
async fn terraform_login_gets_its_code_from_the_browser() {
    run("login.mjs").await;
}

#[tokio::test]
async fn a_log_of_200_000_lines_opens_at_its_end_and_is_searched() {
    run("log.mjs").await;
}

#[tokio::test]
async fn every_page_is_accessible_light_and_fits_a_phone() {
    run("looks.mjs").await;
}

#[tokio::test]
async fn pages_work_with_the_keyboard_alone() {
    run("keyboard.mjs").await;
}

#[tokio::test]
async fn pages_work_without_scripts() {
    run("without_scripts.mjs").await;
}

#[tokio::test]
async fn texts_of_users_are_never_executed() {
    run("injection.mjs").await;
}

#[tokio::test]
async fn a_page_of_a_busy_pool_fetches_itself_once_a_second() {
    run("quiet.mjs").await;
}

#[tokio::test]
async fn an_open_page_recovers_from_a_restart_of_the_server() {
    run("restart.mjs").await;
}

/// Runs a script, and does what it asks for: it writes a line, and goes on when it reads one.
async fn run(script: &str) {
    let modules = env::var(MODULES).unwrap_or_else(|_| {
        panic!(
            "cannot run the tests in a browser: {MODULES} is not set\n\
             scripts/test installs Chromium, Playwright, axe and html-validate, and sets it to \
             their folder, ~/.cache/scalr-agent/browser"
        )
    });
    let mut server = Server::start().await;
    let output = program()
        .args(["sign-in-link", "--data"])
        .arg(&server.data)
        .output()
        .await
        .expect("sign-in-link runs");
    let link = String::from_utf8(output.stdout).expect("a link is text");
    let link = link.trim().strip_prefix("Sign in: ").expect("a link is printed");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser").join(script);
    let mut node = Command::new("node")
        .arg(&script)
        .envs([("SERVER", server.url.as_str()), ("TOKEN", &server.admin), ("LINK", link)])
        .env("DATA", &server.data)
        .env(MODULES, modules)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs: scripts/test installs it");
    let mut answers = node.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(node.stdout.take().expect("it is piped")).lines();
    let work = async {
        while let Some(line) = lines.next_line().await.expect("the script writes text") {
            match line.as_str() {
                "restart" => server.crash_and_restart().await,
                other => println!("{other}"),
            }
            answers.write_all(b"done\n").await.expect("the script reads");
        }
        node.wait().await.expect("the script ends")
    };
    let ended = tokio::time::timeout(PATIENCE, work).await.expect("the script takes too long");
    assert!(ended.success(), "{} failed; see above", script.display());
}
