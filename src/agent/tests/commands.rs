//! `scalr-agent configure` and `status`, run as a person would on settings of
//! their own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_scalr-agent");

/// A directory with settings in `agent.toml`.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new(settings: &str) -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(host.file(), settings).unwrap();
        host
    }

    fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.path("agent.toml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn settings(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// The program with these arguments, and with no variable that sets
    /// something.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(self.file());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }
}

/// How the program ended and what it said.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

#[test]
fn an_output_that_cannot_be_written_fails_an_answer_and_no_change() {
    let host = Host::new("url = \"https://pools.example.com\"\ntoken = \"t\"\n");
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let ended = || Stdio::from(std::io::pipe().unwrap().1);
    for (output, of_status) in [(&full as &dyn Fn() -> Stdio, 1), (&ended, 0)] {
        let status = host.command(&["status"]).stdout(output()).output().unwrap();
        assert_eq!(status.status.code(), Some(of_status), "{status:?}");
        let why = "cannot write to standard output: No space left on device";
        let says_why = String::from_utf8_lossy(&status.stderr).contains(why);
        assert_eq!(says_why, of_status == 1, "{status:?}");

        let mut configure = host.command(&["configure", "--memory", "700"]);
        let changed = configure.stdout(output()).stderr(output()).status().unwrap();
        assert_eq!(changed.code(), Some(0));
        assert!(host.settings().contains("memory = 700"), "{}", host.settings());
        fs::write(host.file(), host.settings().replace("memory = 700\n", "")).unwrap();
    }
}

#[test]
fn the_vendors_lines_work_as_written() {
    let host = Host::empty();
    let ran = host
        .run(&[
            "configure",
            "--url=https://pools.example.com",
            "--token=hunter2",
            "--agent-name=one",
        ])
        .ends_with(0);
    assert!(ran.stderr.contains("--token-file"), "{ran:?}");
    assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    host.run(&["configure", "--user=root"]).ends_with(0);
    assert_eq!(
        host.settings(),
        "url = \"https://pools.example.com\"\ntoken = \"hunter2\"\nagent_name = \"one\"\n\
         user = \"root\"\n"
    );
    host.run(&["configure", "--user="]).ends_with(0);
    assert!(!host.settings().contains("user"), "{}", host.settings());
    let mode = fs::metadata(host.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0);
}

#[test]
fn the_token_comes_from_a_file_or_standard_input() {
    let host = Host::empty();
    let file = host.path("token");
    fs::write(&file, "from-file\n").unwrap();
    let ran = host.run(&["configure", "--token-file", file.to_str().unwrap()]).ends_with(0);
    assert_eq!(host.settings(), "token = \"from-file\"\n");
    assert_eq!(ran.stderr, "");
    assert!(ran.stdout.contains("no url"), "{ran:?}");

    let mut command = host.command(&["configure", "--token-file=-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"from-stdin\n").unwrap();
    Ran::from(child.wait_with_output().unwrap()).ends_with(0);
    assert_eq!(host.settings(), "token = \"from-stdin\"\n");

    fs::write(&file, "\n").unwrap();
    host.run(&["configure", "--token-file", file.to_str().unwrap()]).ends_with(2);
    host.run(&["configure", "--token-file=x", "--token=y"]).ends_with(2);
    assert_eq!(host.settings(), "token = \"from-stdin\"\n");
}

#[test]
fn the_same_again_writes_nothing() {
    let host = Host::new("memory = 1024 # plenty\n");
    let before = fs::metadata(host.file()).unwrap().modified().unwrap();
    let ran = host.run(&["configure", "--memory=1024"]).ends_with(0);
    assert!(ran.stdout.starts_with("Unchanged: "), "{ran:?}");
    assert_eq!(fs::metadata(host.file()).unwrap().modified().unwrap(), before);
}

#[test]
fn settings_that_are_no_plain_file_are_named_or_taken_as_they_are_meant() {
    let host = Host::empty();
    let configure = || host.run(&["configure", "--memory=256"]);
    fs::create_dir(host.file()).unwrap();
    let ran = configure().ends_with(1);
    assert!(ran.stderr.contains("agent.toml: it is not a regular file"), "{ran:?}");
    fs::remove_dir(host.file()).unwrap();

    symlink("elsewhere.toml", host.file()).unwrap();
    let ran = configure().ends_with(1);
    assert!(ran.stderr.contains("a symbolic link to elsewhere.toml, which is not"), "{ran:?}");
    assert!(ran.stderr.contains("\nBring that file back, or remove the link"), "{ran:?}");
    assert!(host.file().is_symlink());

    let of_windows = "\u{feff}# ours\r\nmemory = 128\r\n";
    fs::write(host.path("elsewhere.toml"), of_windows).unwrap();
    let ran = configure().ends_with(0);
    assert!(ran.stdout.contains("no longer a link to elsewhere.toml, which stays"), "{ran:?}");
    assert_eq!(host.settings(), "# ours\nmemory = 256\n");
    assert_eq!(fs::read_to_string(host.path("elsewhere.toml")).unwrap(), of_windows);
}

#[test]
fn wrong_input_changes_nothing() {
    let old = "# ours\nconcurrency = 2\n";
    for (arguments, said) in [
        (&["--concurrency=many"][..], "--concurrency should be a whole number, not `many`"),
        (&["--memory=64", "--cpu=0"], "`cpu`: should be between"),
        (&["--memory=64", "--url=http://pools.example.com"], "`url`: has to be https://"),
        (&["--url="], "--url is empty"),
        (&["--token="], "--token is empty"),
        (&["--memory=64", "--unset=memory"], "--unset memory"),
        (&["--unset=colour"], "colour"),
        (&["--on-stop=explode"], "on_stop"),
        (&["--colour=red"], "--colour"),
        (&["--token-file=/no/such/token", "--memory=64"], "/no/such/token"),
    ] {
        let host = Host::new(old);
        let ran = host.run(&[&["configure"], arguments].concat());
        assert!(ran.code == Some(2) || ran.code == Some(1), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(said), "{arguments:?}: {ran:?}");
        assert_eq!(host.settings(), old, "{arguments:?}");
        let files = fs::read_dir(host.directory.path()).unwrap().count();
        assert_eq!(files, 1, "{arguments:?}");
    }
}

#[test]
fn without_an_option_it_says_which_there_are() {
    let host = Host::empty();
    let ran = host.run(&["configure"]).ends_with(2);
    for option in ["--url", "--token-file", "--agent-name", "--on-stop", "--unset"] {
        assert!(ran.stderr.contains(option), "{ran:?}");
    }
    assert!(!host.file().exists());
}

#[test]
fn a_flag_needs_no_value_and_unset_takes_either_spelling() {
    let host = Host::new("agent_name = \"one\"\ndrain_timeout = 5\n");
    host.run(&["configure", "--debug", "--unset=agent_name", "--unset", "drain-timeout"])
        .ends_with(0);
    assert_eq!(host.settings(), "debug = true\n");
    host.run(&["configure", "--debug=false"]).ends_with(0);
    assert_eq!(host.settings(), "debug = false\n");
}

#[test]
fn the_hosts_own_settings_are_roots() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = if users::get_effective_uid() == 0 {
        // Where anybody may run it, as the user nobody.
        let copy = directory.path().join("scalr-agent");
        // By another process: a child that another test has just forked would have the copy
        // open for writing, and it could not be started.
        assert!(Command::new("cp").arg(PROGRAM).arg(&copy).status().unwrap().success());
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(copy);
        command.uid(65534).gid(65534);
        command
    } else {
        Command::new(PROGRAM)
    };
    let ran = Ran::from(command.args(["configure", "--memory=64"]).output().unwrap());
    let ran = ran.ends_with(7);
    assert!(ran.stderr.contains("sudo"), "{ran:?}");
}

#[test]
fn help_fits_80_columns_and_has_examples() {
    let host = Host::empty();
    for command in [&[][..], &["configure"], &["run"], &["status"]] {
        let ran = host.run(&[command, &["--help"]].concat()).ends_with(0);
        assert!(ran.stdout.contains("Examples:"), "{ran:?}");
        let wide = ran.stdout.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{command:?}");
    }
}

#[test]
fn in_the_journal_an_error_has_its_priority() {
    let host = Host::empty();
    let log = fs::File::create(host.path("log")).unwrap();
    let metadata = log.metadata().unwrap();
    let status = host
        .command(&["run"])
        .env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()))
        .stderr(log)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
    let said = fs::read_to_string(host.path("log")).unwrap();
    assert!(said.starts_with("<3>error: not configured"), "{said}");
    let elsewhere =
        Ran::from(host.command(&["run"]).env("JOURNAL_STREAM", "1:2").output().unwrap());
    assert!(elsewhere.stderr.starts_with("error: "), "{elsewhere:?}");
}

#[test]
fn status_tells_where_each_setting_comes_from() {
    let host = Host::new(
        "url = \"https://pools.example.com\"\ntoken = \"hunter2\"\n\
         engine = \"unix:///no/such.sock\"\n",
    );
    let ran = Ran::from(
        host.command(&["status", "--format=json"])
            .env("SCALR_AGENT_CONCURRENCY", "3")
            .env("HTTPS_PROXY", "http://me:hunter2@proxy:3128")
            .output()
            .unwrap(),
    )
    .ends_with(0);
    assert!(!ran.stdout.contains("hunter2"), "{ran:?}");
    let status = ran.json();
    let setting = |name: &str| {
        let settings = status["settings"].as_array().unwrap();
        let one = settings.iter().find(|one| one["name"] == name).unwrap();
        (one["value"].clone(), one["source"].clone())
    };
    assert_eq!(setting("url"), ("https://pools.example.com/".into(), "file".into()));
    assert_eq!(setting("token"), ("***".into(), "file".into()));
    assert_eq!(setting("memory"), (512.into(), "default".into()));
    assert_eq!(
        setting("concurrency"),
        (3.into(), serde_json::json!({"environment": "SCALR_AGENT_CONCURRENCY"}))
    );
    assert_eq!(status["problem"], serde_json::Value::Null);
    assert_eq!(status["engine"]["answers"], false);
    assert_eq!(status["proxy"]["https_proxy"], "http://me:***@proxy:3128");
}

#[test]
fn status_of_settings_that_cannot_be_used_is_2() {
    let ran = Host::empty().run(&["status"]).ends_with(2);
    assert!(ran.stdout.contains("not usable: not configured: no url and no token"), "{ran:?}");
    let ran = Host::new("token = \"hunter2\"\nconcurency = 2\n").run(&["status"]).ends_with(2);
    assert!(ran.stdout.contains("did you mean `concurrency`?"), "{ran:?}");
    assert!(!ran.stdout.contains("hunter2"), "{ran:?}");
}

#[test]
fn reloads_in_quick_succession_do_not_end_the_agent() {
    let host = Host::empty();
    let settings = format!(
        "url = \"https://pools.example.com\"\ntoken = \"t\"\nengine = \"unix://{}\"\n",
        host.path("away.sock").display()
    );
    fs::write(host.file(), settings).unwrap();
    let log = fs::File::create(host.path("log")).unwrap();
    let mut agent =
        host.command(&["run"]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let starts = || {
        let log = fs::read_to_string(host.path("log")).unwrap();
        log.matches("waiting for it up to").count()
    };
    let begun = Instant::now();
    while starts() == 0 && begun.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(i32::try_from(agent.id()).unwrap());
    let begun = Instant::now();
    while starts() < 4 && begun.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(2));
        signal::kill(pid, Signal::SIGHUP).unwrap();
        assert_eq!(agent.try_wait().unwrap(), None, "{} starts", starts());
    }
    signal::kill(pid, Signal::SIGTERM).unwrap();
    agent.wait().unwrap();
    assert!(starts() >= 4, "it became the new program {} times", starts());
}

#[test]
fn status_tells_whether_the_engine_answers() {
    let host = Host::empty();
    let socket = host.path("engine.sock");
    let settings = format!(
        "url = \"https://pools.example.com\"\ntoken = \"t\"\nengine = \"unix://{}\"\n",
        socket.display()
    );
    fs::write(host.file(), settings).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || serve_version(&listener));
    let ran = host.run(&["status"]).ends_with(0);
    assert!(ran.stdout.contains("Engine    answers at unix:///"), "{ran:?}");
}

#[test]
fn an_image_is_looked_up_before_it_is_configured() {
    let host = Host::empty();
    let socket = host.path("engine.sock");
    let settings = format!("engine = \"unix://{}\"\n", socket.display());
    fs::write(host.file(), &settings).unwrap();
    let configure = |image: &str| host.run(&["configure", &format!("--image={image}")]);

    let unknown = configure("run:1").ends_with(0);
    assert!(unknown.stderr.starts_with("warning: cannot check whether the image run:1 exists"));
    fs::write(host.file(), &settings).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || serve_images(&listener));
    for (image, why) in [
        ("missing:1", "manifest unknown"),
        ("denied:1", "either the image does not exist, or docker.io requires"),
    ] {
        let refused = configure(image).ends_with(1);
        assert!(refused.stderr.contains("agent.toml is not changed"), "{refused:?}");
        assert!(refused.stderr.contains(image) && refused.stderr.contains(why), "{refused:?}");
        assert_eq!(host.settings(), settings);
    }
    let away = configure("away:1").ends_with(0);
    assert!(away.stderr.contains("no such host"), "{away:?}");
    for image in ["here:1", "found:1", "missing/terraform:{version}"] {
        let accepted = configure(image).ends_with(0);
        assert_eq!(accepted.stderr, "", "{image}");
        assert!(host.settings().contains(image));
    }
}

#[test]
fn an_engine_that_runs_cannot_use_is_not_configured() {
    let host = Host::new("concurrency = 2\n");
    let socket = host.path("engine.sock");
    let address = format!("--engine=unix://{}", socket.display());
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let podman = include_str!("../../host/recorded/engines/podman-4.3.1-version.json");
            answer(stream.unwrap(), "200 OK", podman);
        }
    });
    let ran = host.run(&["configure", &address]).ends_with(2);
    assert!(ran.stderr.contains("it is Podman 4.3.1, not Docker"), "{ran:?}");
    assert!(ran.stderr.contains("is not changed"), "{ran:?}");
    assert_eq!(host.settings(), "concurrency = 2\n");
    // One that does not answer yet may be set up later.
    fs::remove_file(&socket).unwrap();
    host.run(&["configure", &address]).ends_with(0);
    assert!(host.settings().contains("engine ="), "{}", host.settings());
}

#[test]
fn status_does_not_wait_for_a_mute_engine_for_ever() {
    let host = Host::empty();
    let socket = host.path("engine.sock");
    let _mute = UnixListener::bind(&socket).unwrap();
    let settings = format!(
        "url = \"https://pools.example.com\"\ntoken = \"t\"\nengine = \"unix://{}\"\n",
        socket.display()
    );
    fs::write(host.file(), settings).unwrap();
    let ran = host.run(&["status"]).ends_with(0);
    assert!(ran.stdout.contains("no answer within 5 s"), "{ran:?}");
}

#[test]
fn status_shows_the_running_tasks_and_the_connection_to_the_server() {
    let host = Host::empty();
    let settings = format!(
        "url = \"https://pools.example.com\"\ntoken = \"t\"\nconcurrency = 2\ndata_dir = \"{}\"\n\
         engine = \"unix:///no/such.sock\"\n",
        host.directory.path().display()
    );
    fs::write(host.file(), settings).unwrap();
    let ran = host.run(&["status"]).ends_with(0);
    assert!(ran.stdout.contains("Server    the agent has not registered yet"), "{ran:?}");
    assert!(ran.stdout.contains("Tasks     0 of 2 slots busy"), "{ran:?}");

    let task = host.path("tasks/task-9-1");
    fs::create_dir_all(&task).unwrap();
    fs::create_dir(host.path("tasks/half-made")).unwrap();
    fs::write(task.join("journal"), TASK).unwrap();
    fs::write(host.path("connection.json"), CONNECTION).unwrap();
    let ran = host.run(&["status"]).ends_with(0);
    assert!(ran.stdout.contains("\n  slot 0  free\n  slot 1  "), "{ran:?}");
    let line = "slot 1  apply of run-7 in prod/network (task-9 attempt 1, container 0123456789ab)";
    assert!(ran.stdout.contains(line), "{ran:?}");
    assert!(ran.stdout.contains("Server    busy; agent-1 of apool-1; it last answered"), "{ran:?}");
    assert!(host.path("tasks/half-made").exists(), "a look changes nothing");

    let ran = host.run(&["status", "--format=json"]).ends_with(0);
    assert!(!ran.stdout.contains("hunter2"), "{ran:?}");
    let status = ran.json();
    assert_eq!(status["server"]["state"], "busy");
    assert!(status["server"]["answered_seconds_ago"].as_i64() > Some(0), "{status}");
    assert_eq!(
        status["tasks"]["running"],
        serde_json::json!([{
            "slot": 1, "task": "task-9", "attempt": 1, "kind": "apply", "run": "run-7",
            "workspace": "network", "environment": "prod", "container": "0123456789abcdef",
        }])
    );
    assert_eq!(status["tasks"]["free_slots"], serde_json::json!([0]));
}

#[test]
fn status_tells_what_each_task_is_at() {
    let host = Host::empty();
    let settings = format!(
        "url = \"https://pools.example.com\"\ntoken = \"t\"\nconcurrency = 2\ndata_dir = \"{}\"\n\
         engine = \"unix:///no/such.sock\"\n",
        host.directory.path().display()
    );
    fs::write(host.file(), settings).unwrap();
    fs::create_dir_all(host.path("tasks/task-9-1")).unwrap();
    fs::write(host.path("tasks/task-9-1/journal"), TASK).unwrap();
    fs::write(host.path("progress.json"), PROGRESS).unwrap();
    let ran = host.run(&["status"]).ends_with(0);
    assert!(ran.stdout.contains("1 of 2 slots busy, as they were"), "{ran:?}");
    let line = "\n          running for 1m 30s, waiting for the server; 200 MB of memory; \
        log of 5000 bytes, 4000 of them with the server\n";
    assert!(ran.stdout.contains(line), "{ran:?}");

    let status = host.run(&["status", "--format=json"]).ends_with(0).json();
    let task = &status["tasks"]["running"][0];
    assert_eq!((&task["phase"], &task["phase_seconds"]), (&"running".into(), &90.into()));
    assert_eq!(task["waiting_for_server"], true);
    assert_eq!(task["log_bytes_acknowledged"], 4000);
    assert!(status["tasks"]["reported_seconds_ago"].as_i64() > Some(40), "{status}");

    // Of an earlier attempt, which says nothing of this one.
    fs::write(host.path("progress.json"), PROGRESS.replace("\"attempt\": 1", "\"attempt\": 0"))
        .unwrap();
    let ran = host.run(&["status"]).ends_with(0);
    assert!(ran.stdout.contains("container 0123456789ab)\nEngine"), "{ran:?}");
    fs::write(host.path("progress.json"), "{").unwrap();
    let ran = host.run(&["status"]).ends_with(0);
    assert!(ran.stdout.contains("Tasks     unknown: cannot understand"), "{ran:?}");
}

/// With the attempt of an earlier agent that no longer runs.
const PROGRESS: &str = r#"{"written_at": "2026-01-02T03:04:05Z", "tasks": [
    {"task": "task-8", "attempt": 1, "phase": "claimed", "since": "2026-01-02T03:02:35Z",
        "waiting_for_server": false, "memory_bytes": null, "log_bytes": 0,
        "log_bytes_acknowledged": null, "traceparent": null},
    {"task": "task-9", "attempt": 1, "phase": "running", "since": "2026-01-02T03:02:35Z",
        "waiting_for_server": true, "memory_bytes": 209715200, "log_bytes": 5000,
        "log_bytes_acknowledged": 4000, "traceparent": null}]}"#;

const CONNECTION: &str = r#"{"state": "busy", "agent_id": "agent-1", "pool_id": "apool-1",
    "message": null, "answered_at": "2026-01-02T03:04:05Z"}"#;

const TASK: &str = r#"{"claimed": {"slot": 1, "claim": {"task_token": "hunter2", "task": {
    "id": "task-9", "attempt": 1, "kind": "apply",
    "run_id": "run-7", "run_source": "api", "operation": "apply",
    "workspace": {"id": "ws-1", "name": "network"},
    "environment": {"id": "env-1", "name": "prod"}, "terraform_version": null,
    "image": null, "working_directory": null,
    "variables": [{"key": "k", "value": "hunter2", "category": "shell", "hcl": false,
        "sensitive": true}]}}}}
{"container": {"id": "0123456789abcdef", "log_start": 0}}
{"finished": {"cut": "off"#;

#[test]
fn an_agent_whose_server_is_away_can_be_stopped() {
    let host = Host::empty();
    let socket = host.path("engine.sock");
    let settings = format!(
        "url = \"http://127.0.0.1:9\"\ntoken = \"t\"\nengine = \"unix://{}\"\n\
         data_dir = \"{}\"\n",
        socket.display(),
        host.path("data").display()
    );
    fs::write(host.file(), settings).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || serve_version(&listener));
    let mut agent = host.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    // Kept open: it goes on to write there.
    let mut log = BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("cannot register")));
    let away = host.run(&["status"]).ends_with(0);
    assert!(away.stdout.contains("Server    does not answer: cannot register"), "{away:?}");
    let pid = nix::unistd::Pid::from_raw(agent.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    // Not the code that it gives up with.
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

#[test]
fn an_agent_whose_name_is_taken_waits_for_it() {
    let host = Host::empty();
    let socket = host.path("engine.sock");
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!(
        "url = \"http://{}\"\ntoken = \"t\"\nengine = \"unix://{}\"\ndata_dir = \"{}\"\n",
        server.local_addr().unwrap(),
        socket.display(),
        host.path("data").display()
    );
    fs::write(host.file(), settings).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || serve_version(&listener));
    thread::spawn(move || {
        let problem = r#"{"error": "the name one is in use", "code": "name_taken"}"#;
        for stream in server.incoming() {
            answer(stream.unwrap(), "409 Conflict", problem);
        }
    });
    let mut agent = host.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok);
    for _ in 0..2 {
        assert!(log.any(|line| line.contains("trying again: the name one is in use")));
    }
    let refused = host.run(&["status"]).ends_with(0);
    let expected = "Server    refuses the agent: the name one is in use";
    assert!(refused.stdout.contains(expected), "{refused:?}");
    let pid = nix::unistd::Pid::from_raw(agent.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

#[test]
fn an_agent_whose_collector_is_mute_can_be_stopped() {
    let host = Host::empty();
    let socket = host.path("engine.sock");
    // It takes connections, and never answers.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!(
        "url = \"http://127.0.0.1:9\"\ntoken = \"t\"\nengine = \"unix://{}\"\n\
         data_dir = \"{}\"\ntelemetry_url = \"http://{}\"\n",
        socket.display(),
        host.path("data").display(),
        mute.local_addr().unwrap()
    );
    fs::write(host.file(), settings).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || serve_version(&listener));
    let mut agent = host.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("cannot register")));
    let begun = Instant::now();
    let pid = nix::unistd::Pid::from_raw(agent.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Answers every request as an engine answers `GET /version`.
fn serve_version(listener: &UnixListener) {
    for stream in listener.incoming() {
        let body = r#"{"Version":"18.09.0","ApiVersion":"1.39","MinAPIVersion":"1.12"}"#;
        answer(stream.unwrap(), "200 OK", body);
    }
}

/// Answers as an engine that has the image `here:1`, and whose registry has `found:1`.
fn serve_images(listener: &UnixListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let request = String::from_utf8(request).unwrap();
        let says = |text: &str| request.contains(text);
        let (status, body) = match () {
            () if says("/version") => {
                ("200 OK", r#"{"Version":"26.1.4","ApiVersion":"1.45","MinAPIVersion":"1.24"}"#)
            }
            () if says("/images/here:1/") => ("200 OK", r#"{"Id":"sha256:1"}"#),
            () if says("/images/") => ("404 Not Found", r#"{"message":"No such image"}"#),
            () if says("/found:1/") => (
                "200 OK",
                r#"{"Descriptor":{"mediaType":"m","digest":"d","size":1},"Platforms":[]}"#,
            ),
            () if says("/missing:1/") => ("404 Not Found", r#"{"message":"manifest unknown"}"#),
            () if says("/denied:1/") => {
                ("403 Forbidden", r#"{"message":"errors:\ndenied: requested access is denied"}"#)
            }
            () => ("500 Internal Server Error", r#"{"message":"dial tcp: no such host"}"#),
        };
        answer(stream, status, body);
    }
}

/// Reads a request and answers it.
fn answer(stream: impl Read + Write, status: &str, body: &str) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > "\r\n".len() {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    // A connection that is closed before all was read is reset.
    reader.read_exact(&mut vec![0; length]).unwrap();
    let mut stream = reader.into_inner();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}
