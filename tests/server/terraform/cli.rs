//! A `terraform` that is logged in to a test's server.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::Server;

/// How long a command may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A server that Terraform can name: its host is `localhost`.
pub(crate) async fn server() -> Server {
    Server::start_with(&["--tls-name", "localhost"]).await
}

/// The old Terraform, if the tests were given one.
pub(crate) fn old_terraform() -> Option<OsString> {
    let program = env::var_os("TERRAFORM_OLD");
    if program.is_none() {
        eprintln!("not run with an old Terraform: TERRAFORM_OLD names none");
    }
    program
}

/// A folder with a configuration, and the `terraform` that works in it.
pub(crate) struct Cli {
    program: OsString,
    pub(crate) host: String,
    ca: PathBuf,
    pub(crate) home: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub code: Option<i32>,
    /// Both streams, without colours.
    pub text: String,
    pub stdout: String,
}

impl Cli {
    /// One with an admin's token.
    pub(crate) fn new(server: &Server) -> Self {
        let cli = Self::without_token(server);
        let credentials =
            format!("credentials \"{}\" {{\n  token = \"{}\"\n}}\n", cli.host, server.admin);
        fs::write(cli.home.path().join("terraformrc"), credentials).unwrap();
        cli
    }

    pub(crate) fn without_token(server: &Server) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("work")).unwrap();
        fs::write(home.path().join("terraformrc"), "").unwrap();
        let port = server.url.rsplit(':').next().unwrap();
        Self {
            program: "terraform".into(),
            host: format!("localhost:{port}"),
            ca: server.data.join("tls/ca.pem"),
            home,
        }
    }

    pub(crate) fn with_program(mut self, program: OsString) -> Self {
        self.program = program;
        self
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// Writes a file of the configuration.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes a `cloud` block with these lines in its `workspaces`.
    pub(crate) fn cloud(&self, workspaces: &str) {
        self.write(
            "cloud.tf",
            &format!(
                "terraform {{\n  cloud {{\n    hostname = \"{}\"\n    organization = \"default\"\n    \
                 workspaces {{\n      {workspaces}\n    }}\n  }}\n}}\n",
                self.host
            ),
        );
    }

    /// Writes a `remote` backend with these lines in its `workspaces`.
    pub(crate) fn remote(&self, workspaces: &str) {
        self.write(
            "cloud.tf",
            &format!(
                "terraform {{\n  backend \"remote\" {{\n    hostname = \"{}\"\n    \
                 organization = \"default\"\n    workspaces {{\n      {workspaces}\n    }}\n  }}\n}}\n",
                self.host
            ),
        );
    }

    /// A command in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        self.prepare(&mut command);
        command
    }

    /// A command in the folder, on a terminal of its own.
    pub(crate) fn in_terminal(&self, arguments: &str) -> Command {
        let line = format!("{} {arguments}", self.program.display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .current_dir(self.folder())
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap())
            .env("HOME", self.home.path())
            .env("TF_CLI_CONFIG_FILE", self.home.path().join("terraformrc"))
            .env("SSL_CERT_FILE", &self.ca)
            .env("CHECKPOINT_DISABLE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }

    /// Runs a command.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments)).await
    }

    /// Runs a command, with this on its standard input.
    pub(crate) async fn answering(&self, arguments: &[&str], answer: &str) -> Said {
        let file = self.home.path().join("answer");
        fs::write(&file, answer).unwrap();
        let mut command = self.command(arguments);
        command.stdin(fs::File::open(file).unwrap());
        said(command).await
    }

    /// Runs a command that succeeds; its output.
    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments).await;
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.text);
        said.text
    }

    /// Runs a command that fails; its output.
    pub(crate) async fn fails(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments).await;
        assert_eq!(said.code, Some(1), "{arguments:?}: {}", said.text);
        said.text
    }
}

/// Whether Terraform says that a lock takes longer than 400 ms, as it does on a busy machine.
fn is_about_lock(line: &str) -> bool {
    line.trim_end().ends_with(" state lock. This may take a few moments...")
}

/// Runs a command to its end; what it says, but for how long it waited for locks.
pub(crate) async fn said(mut command: Command) -> Said {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let Output { status, stdout, stderr } = output.expect("terraform does not end").unwrap();
    let text = |bytes: &[u8]| {
        let plain = anstream::adapter::strip_str(&String::from_utf8_lossy(bytes)).to_string();
        plain.split_inclusive('\n').filter(|line| !is_about_lock(line)).collect::<String>()
    };
    // Terraform wraps its messages, and draws a line beside them.
    let joined = format!("{}\n{}", text(&stdout), text(&stderr)).replace('│', "");
    let text_of_both = joined.split_whitespace().collect::<Vec<_>>().join(" ");
    Said { code: status.code(), text: text_of_both, stdout: text(&stdout) }
}
