//! Tests of the entry point, with shells of this machine and a `terraform` that says
//! what it is called with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::log::end_mark::EndMark;
use protocol::{Category, Secret, Variable};

/// The shells that images call `/bin/sh`.
pub(super) const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];

/// A container's folder, with the entry point made to work there, and the program that the
/// workspace asks for.
struct Run(tempfile::TempDir, &'static str);

impl Run {
    /// Its `terraform` prints its command and WORD.
    fn new(hooks: &[(&str, &str)]) -> Self {
        let run = Self(tempfile::tempdir().unwrap(), "");
        for folder in ["bin", "work", "hooks/agent"] {
            fs::create_dir_all(run.path(folder)).unwrap();
        }
        run.terraform("echo \"terraform $1 WORD=$WORD\"");
        fs::write(run.path("work/main.tf"), "").unwrap();
        for (name, text) in hooks {
            fs::create_dir_all(run.path(&format!("hooks/{name}")).parent().unwrap()).unwrap();
            run.script(&format!("hooks/{name}"), text);
        }
        run.variables(&[("WORD", "as set")]);
        let script = include_str!("../../../templates/run/entrypoint.sh")
            .replace("/scalr/run", run.path("").to_str().unwrap())
            .replace("/scalr/work", run.path("work").to_str().unwrap());
        fs::write(run.path("entrypoint.sh"), script).unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.0.path().to_owned() } else { self.0.path().join(name) }
    }

    /// What `terraform` does with each command but `version`.
    fn terraform(&self, text: &str) {
        let version = "[ \"$1\" = version ] && echo Terraform v1.11.4 && exit";
        self.script("bin/terraform", &format!("#!/bin/sh\n{version}\n{text}\n"));
    }

    fn variables(&self, variables: &[(&str, &str)]) {
        let lines = variables.iter().map(|(name, value)| format!("variable {name} '{value}'\n"));
        fs::write(self.path("environment"), lines.collect::<String>()).unwrap();
    }

    fn script(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn start(&self, kind: &str) -> Child {
        self.start_in(&["/bin/sh"], kind, "work", "")
    }

    fn start_in(&self, shell: &[&str], kind: &str, folder: &str, version: &str) -> Child {
        self.start_with(shell, [kind, "apply"], folder, &[version])
    }

    /// `rest` is what follows the container's name.
    fn start_with(
        &self,
        shell: &[&str],
        kind_and_operation: [&str; 2],
        folder: &str,
        rest: &[&str],
    ) -> Child {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        // As in a container: a shell can't trap what it was started to ignore, as
        // everything in the background is.
        Command::new("env")
            .arg("--default-signal")
            .args(shell)
            .arg(self.path("entrypoint.sh"))
            .args(kind_and_operation)
            .arg(self.path(folder))
            .arg("task-1-1")
            .arg(self.1)
            .args(rest)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until a file is there that a hook or `terraform` makes where it works.
    /// Those that then go on do so until it is gone, at the latest with this folder.
    fn wait_for(&self, name: &str) {
        let since = Instant::now();
        while !self.path("work").join(name).exists() {
            assert!(since.elapsed() < Duration::from_secs(60), "{name} is not there");
            std::thread::yield_now();
        }
    }

    /// What it said, which has to be whole, and its lines of status.
    fn end(&self, child: Child) -> (String, String) {
        let output = child.wait_with_output().unwrap();
        let status = fs::read_to_string(self.path("status")).unwrap_or_default();
        let mut end = EndMark::new("task-1-1");
        let said = [end.push(&output.stdout), end.finish()].concat();
        assert!(end.is_seen(), "it has no end: {}", String::from_utf8_lossy(&said));
        (String::from_utf8(said).unwrap(), status)
    }
}

#[test]
fn the_flags_of_a_run_reach_terraform_plan_as_they_are_and_no_other_step() {
    let target = r#"-target=module.a["b c; $(id) 'd' \\ *"].e.f"#;
    let out = "-input=false -detailed-exitcode -out=RUN/plan";
    for (kind_and_operation, flags, step) in [
        (["plan", "apply"], &[][..], format!("plan {out}")),
        (["plan", "destroy"], &[], format!("plan {out} -destroy")),
        (["plan", "apply"], &["-refresh-only"], format!("plan {out} -refresh-only")),
        (["plan", "destroy"], &["-refresh=false"], format!("plan {out} -refresh=false -destroy")),
        (
            ["plan", "apply"],
            &[target, "-replace=a.b[0]"],
            format!("plan {out} {target} -replace=a.b[0]"),
        ),
        (["apply", "apply"], &[], "apply -input=false RUN/plan".to_owned()),
    ] {
        for shell in SHELLS {
            let run = Run::new(&[]);
            // A line for each word, so that none is two.
            run.terraform("printf '%s\\n' \"$@\" >\"$0.$1\"");
            let rest: Vec<&str> = [""].iter().chain(flags).copied().collect();
            let (said, status) = run.end(run.start_with(shell, kind_and_operation, "work", &rest));
            let [kind, _] = kind_and_operation;
            assert!(status.contains(&format!("{kind} 0")), "{shell:?}: {said}{status}");
            let words = fs::read_to_string(run.path(&format!("bin/terraform.{kind}"))).unwrap();
            let folder = run.path("").display().to_string();
            let words = words.trim_end().replace(&folder, "RUN");
            let count = 4 + flags.len() + usize::from(kind_and_operation[1] == "destroy");
            assert_eq!(words.lines().count(), if kind == "plan" { count } else { 3 }, "{words}");
            assert_eq!(words.replace('\n', " "), step, "{shell:?}");
            let init = fs::read_to_string(run.path("bin/terraform.init")).unwrap();
            assert_eq!(init, "init\n-input=false\n-reconfigure\n");
        }
    }
}

#[test]
fn a_plans_json_is_written_beside_it_and_not_into_the_log() {
    for shell in SHELLS {
        for (show, json) in [
            (
                "echo \"{\\\"args\\\": \\\"$* $TF_CLI_ARGS\\\"}\"; echo noise >&2",
                "{\"args\": \"show -no-color -json RUN/plan \"}\n",
            ),
            ("echo half; exit 1", ""),
        ] {
            let run = Run::new(&[("workspace/post-plan", "cat $SCALR_TEST_JSON")]);
            run.terraform(&format!("[ \"$1\" = show ] || exit 0\n{show}"));
            let path = run.path("plan.json").display().to_string();
            run.variables(&[("TF_CLI_ARGS", "-parallelism=1"), ("SCALR_TEST_JSON", &path)]);
            let (said, status) = run.end(run.start_in(shell, "plan", "work", ""));
            let folder = run.path("").display().to_string();
            let written = fs::read_to_string(&path).unwrap().replace(&folder, "RUN");
            assert_eq!(written, json, "{shell:?}");
            assert!(!said.contains("noise") && status.ends_with("plan 0\n"), "{said}{status}");
            assert_eq!(
                said.contains("show -no-color"),
                !json.is_empty(),
                "the hook has it: {said}"
            );
            let run = Run::new(&[]);
            run.end(run.start_in(shell, "apply", "work", ""));
            assert!(!run.path("plan.json").exists(), "it is a plan's");
        }
    }
}

#[test]
fn a_shell_with_a_clock_writes_down_how_long_each_command_takes() {
    let all = ["version", "init", "plan", "show"];
    // It is asked for its version only where that matters.
    for (shell, version, commands) in [
        (SHELLS[0], "1.11.4", &[][..]),
        (SHELLS[1], "1.11.4", &all),
        (SHELLS[2], "1.11.4", &all),
        (SHELLS[2], "", &all[1..]),
    ] {
        let run = Run::new(&[]);
        run.end(run.start_in(shell, "plan", "work", version));
        let times = fs::read_to_string(run.path("times")).unwrap_or_default();
        let words: Vec<Vec<&str>> = times.lines().map(|line| line.split(' ').collect()).collect();
        let named: Vec<&str> = words.iter().map(|words| words[0]).collect();
        assert_eq!(named, commands, "{shell:?}");
        let times: Vec<f64> =
            words.iter().flat_map(|words| &words[1..]).map(|time| time.parse().unwrap()).collect();
        assert!(times.len() == 2 * commands.len() && times.is_sorted(), "{shell:?}: {times:?}");
    }
}

#[test]
fn hooks_run_between_the_steps_and_pass_variables_on() {
    let run = Run::new(&[
        ("agent/pre-init", "echo 'WORD=it'\"'\"'s $HOME' >>\"$SCALR_ENV_FILE\""),
        ("agent/pre-plan", "echo agent; printf 'WORD=of the agent' >>$SCALR_ENV_FILE"),
        ("workspace/pre-plan", "#!/bin/sh\necho \"workspace $WORD\""),
        ("workspace/post-plan", "echo after the plan"),
        ("workspace/pre-apply", "echo never"),
    ]);
    let (said, status) = run.end(run.start("plan"));
    assert_eq!(
        said,
        "Running the agent's pre-init hook\nterraform init WORD=it's $HOME\n\
         Running the agent's pre-plan hook\nagent\n\
         Running the workspace's pre-plan hook\nworkspace of the agent\n\
         terraform plan WORD=of the agent\n\
         Running the workspace's post-plan hook\nafter the plan\n"
    );
    assert_eq!(status, "init 0\nplan 0\n");
}

#[test]
fn the_environments_hooks_run_in_their_order_between_the_agents_and_the_workspaces() {
    let run = Run::new(&[
        ("workspace/pre-plan", "echo workspace"),
        ("environment-10/pre-plan", "echo $WORD"),
        ("environment-10/name", "say \\n 'it'\n"),
        ("environment-02/pre-plan", "echo WORD=second >$SCALR_ENV_FILE"),
        ("environment-02/post-plan", "exit 4"),
        ("environment-02/name", "check\n"),
        ("agent/pre-plan", "echo agent"),
    ]);
    for shell in SHELLS {
        fs::remove_file(run.path("status")).ok();
        fs::remove_file(run.path("hook.environment")).ok();
        let (said, status) = run.end(run.start_in(shell, "plan", "work", ""));
        assert_eq!(
            said,
            "terraform init WORD=as set\n\
             Running the agent's pre-plan hook\nagent\n\
             Running the environment's pre-plan hook \"check\"\n\
             Running the environment's pre-plan hook \"say \\n 'it'\"\nsecond\n\
             Running the workspace's pre-plan hook\nworkspace\n\
             terraform plan WORD=second\n\
             Running the environment's post-plan hook \"check\"\n",
            "{shell:?}"
        );
        assert_eq!(status, "init 0\nplan 0\nenvironment-02:post-plan 4\n", "{shell:?}");
    }
}

#[test]
fn a_failed_hook_ends_the_task() {
    let run = Run::new(&[("workspace/pre-apply", "exit 3")]);
    let (said, status) = run.end(run.start("apply"));
    assert!(!said.contains("terraform apply"), "{said}");
    assert_eq!(status, "init 0\nworkspace:pre-apply 3\n");
    let run = Run::new(&[("agent/post-apply", "no-such-program")]);
    assert_eq!(run.end(run.start("apply")).1, "init 0\napply 0\nagent:post-apply 127\n");
    for line in ["word", "=x", "1A=x", "a-b=x", "$(id)=x"] {
        let run = Run::new(&[("agent/pre-init", &format!("echo '{line}' >$SCALR_ENV_FILE"))]);
        assert_eq!(run.end(run.start("plan")).1, "agent:pre-init environment\n", "{line}");
    }
}

#[test]
fn terraform_uses_the_cli_configuration_of_the_agent_unless_the_run_has_its_own() {
    // The agent's file, another file, and the file that Terraform's settings come from.
    for (agents, own, told) in [
        ("providers.tfrc", "work/main.tf", "providers.tfrc"),
        ("mirror.tfrc", "work/main.tf", "mirror.tfrc"),
        ("nothing", "work/main.tf", ""),
        ("providers.tfrc", "work/terraform.d/plugins/own", ""),
        ("providers.tfrc", "home/.terraform.d/plugins/own", ""),
        ("providers.tfrc", "home/.local/share/terraform/plugins/own", ""),
        ("mirror.tfrc", "work/terraform.d/plugins/own", "mirror.tfrc"),
        ("providers.tfrc", "home/.terraformrc", ""),
        ("mirror.tfrc", "home/.terraform.d/own.tfrc", ""),
        ("credentials.tfrc", "work/main.tf", "credentials.tfrc"),
        ("credentials.tfrc", "work/terraform.d/plugins/own", "credentials.tfrc"),
        ("credentials.tfrc", "home/.terraformrc", ""),
    ] {
        let run = Run::new(&[]);
        run.terraform("echo \"$1 ${TF_CLI_CONFIG_FILE##*/}\"");
        fs::create_dir_all(run.path(own).parent().unwrap()).unwrap();
        for file in [agents, own] {
            fs::write(run.path(file), "").unwrap();
        }
        let home = run.path("home");
        let mut variables = vec![("HOME", home.to_str().unwrap())];
        variables.extend(
            ["XDG_DATA_DIRS", "XDG_DATA_HOME", "TF_CLI_CONFIG_FILE"].map(|name| (name, "")),
        );
        run.variables(&variables);
        let (said, _) = run.end(run.start("plan"));
        assert_eq!(said, format!("init {told}\nplan {told}\n"), "{agents} {own}");
        variables.push(("TF_CLI_CONFIG_FILE", "/my/own"));
        run.variables(&variables);
        let (said, _) = run.end(run.start("plan"));
        assert_eq!(said, "init own\nplan own\n", "{agents} {own}");
    }
}

#[test]
fn plugins_of_the_configuration_keep_the_agents_providers_away_and_not_the_token() {
    let run = Run::new(&[]);
    run.terraform("echo \"$1 ${TF_CLI_CONFIG_FILE##*/}\"");
    fs::create_dir_all(run.path("work/terraform.d/plugins")).unwrap();
    for file in ["providers.tfrc", "credentials.tfrc"] {
        fs::write(run.path(file), "").unwrap();
    }
    let home = run.path("home");
    run.variables(&[
        ("HOME", home.to_str().unwrap()),
        ("XDG_DATA_DIRS", ""),
        ("XDG_DATA_HOME", ""),
        ("TF_CLI_CONFIG_FILE", ""),
    ]);
    let (said, _) = run.end(run.start("plan"));
    assert_eq!(said, "init credentials.tfrc\nplan credentials.tfrc\n");
}

#[test]
fn an_overdue_hook_is_ended_even_if_it_does_not_want_to() {
    let hook = "trap 'echo x >told' TERM; echo x >ready; while [ -e ready ]; do :; done";
    let run = Run::new(&[("agent/pre-init", hook)]);
    let child = run.start("plan");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    // Told once, it goes on.
    for sign in ["ready", "told"] {
        run.wait_for(sign);
        assert_eq!(fs::read_to_string(run.path("hook")).unwrap(), "agent pre-init\n", "{sign}");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    }
    assert_eq!(run.end(child).1, "agent:pre-init overdue\n");
}

#[test]
fn a_stop_ends_a_hook_and_what_was_not_checked_did_not_pass() {
    let run = Run::new(&[("agent/post-plan", "echo x >ready; while [ -e ready ]; do :; done")]);
    let child = run.start("plan");
    run.wait_for("ready");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(run.end(child).1, "init 0\nplan 0\nagent:post-plan 143\n");
}

#[test]
fn an_interrupted_run_says_why() {
    for notice in ["memory", "time"] {
        let run = Run::new(&[]);
        run.terraform("[ $1 = apply ] && { echo x >ready; while [ -e ready ]; do :; done; }; :");
        let child = run.start("apply");
        run.wait_for("ready");
        fs::write(run.path(notice), "Warning: it is interrupted now.\n").unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let (said, _) = run.end(child);
        assert!(said.contains("\nWarning: it is interrupted now.\n"), "{notice}: {said}");
    }
}

#[test]
fn a_run_that_lists_its_processes_does_not_say_its_last_line() {
    let run = Run::new(&[]);
    run.terraform("xargs -0 echo </proc/$PPID/cmdline");
    let (said, _) = run.end(run.start("plan"));
    assert_eq!(said.lines().filter(|line| line.contains("task-1-1")).count(), 2, "{said}");
}

#[test]
fn an_interrupt_that_is_said_twice_reaches_terraform_once() {
    let run = Run::new(&[]);
    // Not a shell: one in the background could not heed an interrupt.
    let terraform = r#"#!/usr/bin/perl
print "Terraform v1.11.4\n" if $ARGV[0] eq "version";
exit 0 if $ARGV[0] ne "apply";
sub note { open my $file, ">>", $_[0]; print $file "x" }
$SIG{INT} = sub { note("interrupts") };
$SIG{TERM} = sub { note("terminated") };
note("ready");
select undef, undef, undef, 0.01 until -e "end" or not -e "ready";
"#;
    run.script("bin/terraform", terraform);
    let child = run.start("apply");
    let signal = |signal| {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    };
    run.wait_for("ready");
    signal(nix::sys::signal::Signal::SIGINT);
    run.wait_for("interrupts");
    signal(nix::sys::signal::Signal::SIGINT);
    // Handed on after it, since shells take signals by their numbers.
    signal(nix::sys::signal::Signal::SIGTERM);
    run.wait_for("terminated");
    fs::write(run.path("work/end"), "").unwrap();
    assert_eq!(run.end(child).1, "init 0\napply 0\n");
    assert_eq!(fs::read_to_string(run.path("work/interrupts")).unwrap(), "x");
}

#[test]
fn variables_cannot_change_what_the_entry_point_does() {
    for shell in SHELLS {
        let run = Run::new(&[(
            "workspace/pre-init",
            "printf '_operation=destroy\\n_kind=none\\n_child=1\\nUID=7\\n' >$SCALR_ENV_FILE",
        )]);
        run.terraform("echo \"$* _operation=$_operation QUOTE=$QUOTE\"");
        run.variables(&[
            ("_operation", "destroy"),
            ("_kind", "apply"),
            ("_directory", "/"),
            ("_stopped", "1"),
            ("_version", "0.1.0"),
            ("IFS", "xyz/-="),
            ("PS4", "x"),
            ("ENV", "/etc/passwd"),
            ("UID", "0"),
            ("PPID", "1"),
            ("SHELLOPTS", "noexec"),
            ("RANDOM", "4"),
            ("QUOTE", "it'\\''s $HOME"),
        ]);
        let (said, status) = run.end(run.start_in(shell, "plan", "work", "1.11.4"));
        assert_eq!(status, "init 0\nplan 0\n", "{shell:?}: {said}");
        let plan = said.lines().find(|line| line.starts_with("plan ")).unwrap();
        assert!(!plan.contains("-destroy "), "{shell:?}: {plan}");
        assert!(plan.ends_with("_operation=destroy QUOTE=it's $HOME"), "{plan}");
        let ignored = said.contains("Ignoring the variable UID: this image's /bin/sh reserves");
        assert_eq!(ignored, shell[0] == "bash", "{shell:?}: {said}");
    }
}

#[test]
fn without_a_configuration_nothing_is_planned() {
    let of_override = "zz_override.tf";
    for (files, folder, expected) in [
        (&["README.md"][..], "work", "in the archive's top folder: it has no file"),
        (
            &["live/eu/main.tf"],
            "work/live",
            "in live: it has no file that ends in .tf or .tf.json. These folders have one: live/eu.",
        ),
        (
            &["live/eu/main.tf"],
            "work/live/typo",
            "in live/typo: the uploaded archive has no such folder. These folders have one: live/eu.",
        ),
        (&["live/main.tf"], "work/live/main.tf", "in live/main.tf: it is not a folder"),
        (&["live/override.tf", "live/b_override.tf.json", of_override], "work/live", "in live: it"),
        (&["live/terraform.tfvars", "live/x.tf.disabled", "live/.tf"], "work/live", "in live: it"),
        // Only OpenTofu reads these.
        (&["main.tofu", "more.tofu.json"], "work", "in the archive's top folder: it"),
        (&["main.tf/README.md"], "work", "in the archive's top folder: it"),
    ] {
        for shell in SHELLS {
            let run = Run::new(&[]);
            fs::remove_file(run.path("work/main.tf")).unwrap();
            for file in files {
                let file = run.path("work").join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, "").unwrap();
            }
            fs::write(run.path("override.tf"), "terraform {}").unwrap();
            let (said, status) = run.end(run.start_in(shell, "plan", folder, ""));
            let expected = format!("error no Terraform configuration {expected}");
            assert!(status.contains(&expected), "{shell:?} {files:?}: {status}");
            assert!(!said.contains("terraform init"), "{said}");
        }
    }
    // A hook may make it.
    let run = Run::new(&[("agent/pre-init", "mv main.md main.tf.json")]);
    fs::rename(run.path("work/main.tf"), run.path("work/main.md")).unwrap();
    assert_eq!(run.end(run.start("plan")).1, "init 0\nplan 0\n");
    // The image may have OpenTofu.
    let run = Run::new(&[]);
    run.script("bin/terraform", "#!/bin/sh\necho OpenTofu v1.9.0\n");
    fs::rename(run.path("work/main.tf"), run.path("work/main.tofu")).unwrap();
    assert_eq!(run.end(run.start("plan")).1, "init 0\nplan 0\n");
}

#[test]
fn an_image_with_tofu_alone_runs_that_and_the_log_says_so() {
    let tofu = "#!/bin/sh\n[ $1 = version ] && echo OpenTofu v1.9.0 || echo tofu $1\n";
    for shell in SHELLS {
        let run = Run::new(&[]);
        run.script("bin/tofu", tofu);
        // An image with both keeps its terraform.
        let (said, _) = run.end(run.start_in(shell, "plan", "work", ""));
        assert!(said.contains("terraform plan") && !said.contains("tofu"), "{shell:?} {said}");
        fs::remove_file(run.path("bin/terraform")).unwrap();
        fs::remove_file(run.path("status")).unwrap();
        let (said, status) = run.end(run.start_in(shell, "plan", "work", "1.9.0"));
        assert_eq!(status, "init 0\nplan 0\n", "{shell:?} {said}");
        let using = "Using tofu: this run's image has no program terraform\n";
        assert!(said.contains(using) && said.contains("tofu plan\n"), "{said}");
        assert_eq!(fs::read_to_string(run.path("plan.json")).unwrap(), "tofu show\n");
        let (_, status) = run.end(run.start_in(shell, "plan", "work", "1.8.0"));
        assert!(
            status.contains("has OpenTofu 1.9.0, and the workspace asks for 1.8.0"),
            "{status}"
        );
    }
}

#[test]
fn a_run_uses_the_program_of_its_platform_alone() {
    for (wanted, other) in [("tofu", "terraform"), ("terraform", "tofu")] {
        for shell in SHELLS {
            let mut run = Run::new(&[]);
            run.1 = wanted;
            for program in [wanted, other] {
                run.script(&format!("bin/{program}"), &format!("#!/bin/sh\necho {program} $1\n"));
            }
            let (said, status) = run.end(run.start_in(shell, "plan", "work", ""));
            assert_eq!(status, "init 0\nplan 0\n", "{shell:?} {said}");
            assert!(said.contains(&format!("{wanted} plan\n")), "{shell:?} {said}");
            assert!(!said.contains(other), "{shell:?} {said}");
            // The agent says which image that is.
            fs::remove_file(run.path(&format!("bin/{wanted}"))).unwrap();
            fs::remove_file(run.path("status")).unwrap();
            let (_, status) = run.end(run.start_in(shell, "plan", "work", ""));
            assert_eq!(status, "init 127\n", "{shell:?}");
        }
    }
}

#[test]
fn the_agents_files_are_read_after_all_others() {
    let own = [
        "a_override.tf",
        "zzz_override.tf.json",
        "{_override.tofu",
        "a.auto.tfvars",
        "zzz.auto.tfvars.json",
        "\u{fc}ber it's.auto.tfvars",
        "main.tf",
    ];
    for shell in SHELLS {
        let run = Run::new(&[]);
        for file in own {
            fs::write(run.path("work").join(file), "").unwrap();
        }
        let texts = r#"{"a": "\\ n  b"}"#;
        for (file, content) in [
            ("override.tf", "terraform {\n}\n"),
            ("variables.tfvars.json", texts),
            ("variables.tfvars", "b = [\n  1\n]\n"),
        ] {
            fs::write(run.path(file), content).unwrap();
        }
        run.terraform("mkdir -p ../seen; cp * ../seen");
        assert_eq!(run.end(run.start_in(shell, "plan", "work", "")).1, "init 0\nplan 0\n");
        let last = |suffixes: &[&str]| {
            let mut names = names(&run.path("seen"));
            names.retain(|name| suffixes.iter().any(|suffix| name.ends_with(suffix)));
            names.pop().unwrap()
        };
        let placed = last(&["_override.tf", "_override.tf.json", "_override.tofu"]);
        let content = |name: &str| fs::read_to_string(run.path("seen").join(name)).unwrap();
        assert_eq!(content(&placed), "terraform {\n}\n", "{shell:?} {placed}");
        let placed = last(&[".auto.tfvars", ".auto.tfvars.json"]);
        assert_eq!(content(&placed), "b = [\n  1\n]\n", "{shell:?} {placed}");
        let left = names(&run.path("work"));
        assert_eq!(left.len(), own.len(), "they are removed again: {left:?}");
    }
}

/// What Terraform makes of the variables of a run and of the same ones in a file of its user's,
/// with the files of the configuration that also set some.
#[test]
fn variables_have_the_values_that_the_cli_gives_them() {
    const OF_FILES: [(&str, &str); 3] = [
        ("terraform.tfvars", "tfvars = \"a\"\nauto = \"a\"\nrun = \"a\"\nrun_in_hcl = \"a\"\n"),
        ("a.auto.tfvars", "auto = \"b\"\nrun = \"b\"\n"),
        ("zz.auto.tfvars.json", "{\"run\": \"c\", \"run_in_hcl\": \"c\"}"),
    ];
    // The type, the value of the run's variable, and how it stands in a `.tfvars` file. Those
    // that have the same in both are HCL.
    let values = [
        ("string", "plain", "\"plain\""),
        ("string", r#"a "b" \ c\n"#, r#""a \"b\" \\ c\\n""#),
        ("string", "${x} %{y} #{z}", r#""$${x} %%{y} #{z}""#),
        ("string", "$${x}", r#""\u0024\u0024{x}""#),
        ("string", "one\n  two\r\n", r#""one\n  two\r\n""#),
        ("string", "ü 😀 \u{2028} \u{1}", r#""\u00fc \U0001f600 \u2028 \u0001""#),
        ("string", "", "\"\""),
        ("string", "null", "\"null\""),
        ("any", "[1]", "\"[1]\""),
        ("number", "007", "\"007\""),
        ("number", "12345678901234567890123", "12345678901234567890123"),
        ("bool", "true", "true"),
        ("any", "true", "true"),
        ("string", "true", "true"),
        ("number", "1e3", "1e3"),
        ("number", "-1.50", "-1.50"),
        ("number", "1 + 2", "1 + 2"),
        ("any", "null", "null"),
        ("string", "null", "null"),
        ("list(string)", "[\"a\", 1, true]", "[\"a\", 1, true]"),
        ("set(string)", "[\n  \"b\",\n  \"a\",\n  \"b\",\n]", "[\n  \"b\",\n  \"a\",\n  \"b\",\n]"),
        ("map(number)", "{ a = 1, \"b c\" : 2 }", "{ a = 1, \"b c\" : 2 }"),
        ("object({ a = number, b = optional(string) })", "{ a = \"1\" }", "{ a = \"1\" }"),
        ("any", "{ a = [1, { b = null }] }", "{ a = [1, { b = null }] }"),
        ("list(number)", "[for n in [1, 2] : n * 2]", "[for n in [1, 2] : n * 2]"),
        ("string", r#""$${x} \u00fc ${1 + 1}""#, r#""$${x} \u00fc ${1 + 1}""#),
        ("string", "<<EOT\none\n  $${two}\nEOT", "<<EOT\none\n  $${two}\nEOT"),
        ("string", "<<-EOT\n    one\n      two\n  EOT", "<<-EOT\n    one\n      two\n  EOT"),
        ("string", "\"a\" # why", "\"a\" # why"),
        ("list(any)", "[]", "[]"),
    ];
    let mut claimed = crate::task::tests::claimed();
    claimed.task.variables.clear();
    let mut configuration = String::new();
    let mut of_user = "run = \"run\"\nrun_in_hcl = \"run\"\n".to_owned();
    let mut declare = |name: &str, kind: &str, is_sensitive: bool| {
        configuration += &format!(
            "variable \"{name}\" {{\n  type = {kind}\n  sensitive = {is_sensitive}\n}}\n\
             output \"{name}\" {{\n  value = var.{name}\n  sensitive = true\n}}\n"
        );
    };
    let mut give = |key: &str, value: &str, hcl: bool, sensitive: bool| {
        let (key, value) = (key.to_owned(), Secret::new(value));
        let category = Category::Terraform;
        claimed.task.variables.push(Variable { key, value, category, hcl, sensitive });
    };
    for name in ["tfvars", "auto", "run", "run_in_hcl"] {
        declare(name, "string", false);
    }
    give("run", "run", false, false);
    give("run_in_hcl", "\"run\"", true, false);
    for (number, (kind, value, written)) in values.into_iter().enumerate() {
        let (name, is_sensitive) = (format!("v{number}"), number % 3 == 0);
        declare(&name, kind, is_sensitive);
        give(&name, value, value == written, is_sensitive);
        of_user += &format!("{name} = {written}\n");
    }

    let run = Run::new(&[]);
    let terraform = path_of("terraform");
    run.script("bin/terraform", &format!("#!/bin/sh\nexec '{}' \"$@\"\n", terraform.display()));
    run.variables(&[("CHECKPOINT_DISABLE", "1")]);
    let local = tempfile::tempdir().unwrap();
    for (name, content) in OF_FILES.into_iter().chain([("main.tf", configuration.as_str())]) {
        fs::write(run.path("work").join(name), content).unwrap();
        fs::write(local.path().join(name), content).unwrap();
    }
    fs::write(local.path().join("of-user"), of_user).unwrap();
    for (path, content) in super::environment::terraform(&claimed.task).unwrap() {
        fs::write(run.path(path.strip_prefix("/scalr/run/").unwrap()), content).unwrap();
    }
    let (said, status) = run.end(run.start("plan"));
    assert!(status.contains("plan 2"), "{said}{status}");
    let terraform = |arguments: &[&str]| {
        let mut command = Command::new(&terraform);
        command.args(arguments).current_dir(local.path()).env("CHECKPOINT_DISABLE", "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    terraform(&["init"]);
    terraform(&["plan", "-var-file=of-user", "-out=plan"]);
    let outputs = |plan: &[u8]| {
        let plan: serde_json::Value = serde_json::from_slice(plan).unwrap();
        plan["planned_values"]["outputs"].clone()
    };
    let expected = outputs(&terraform(&["show", "-json", "plan"]));
    let found = outputs(&fs::read(run.path("plan.json")).unwrap());
    assert_eq!(found.as_object().unwrap().len(), 4 + values.len());
    for (name, output) in expected.as_object().unwrap() {
        assert_eq!(found[name], *output, "{name}");
    }
    for (name, value) in [("tfvars", "a"), ("auto", "b"), ("run", "run"), ("run_in_hcl", "run")] {
        assert_eq!(found[name]["value"], value, "{name}");
    }
}

/// Where a program is on PATH.
fn path_of(program: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap();
    let mut paths = std::env::split_paths(&folders).map(|folder| folder.join(program));
    paths.find(|path| path.is_file()).unwrap_or_else(|| panic!("{program} is not on PATH"))
}

/// The names in a folder, as Terraform sorts them.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_image_has_the_version_that_the_workspace_asks_for() {
    for (says, version, expected) in [
        ("Terraform v1.11.4\non linux_amd64", "1.11.4", None),
        ("Terraform v1.11.4", "", None),
        (
            "Terraform v1.11.4",
            "1.5.7",
            Some("has Terraform 1.11.4, and the workspace asks for 1.5.7"),
        ),
        ("Terraform v1.11.40", "1.11.4", Some("has Terraform 1.11.40, and")),
        ("OpenTofu v1.9.0", "1.9.1", Some("has OpenTofu 1.9.0, and")),
        ("a wrapper\nTerraform v1.5.7", "1.5.7", None),
        ("a wrapper", "", None),
        ("a wrapper", "1.5.7", Some("has no known program")),
    ] {
        let run = Run::new(&[]);
        let script = format!("#!/bin/sh\n[ $1 != version ] || printf '{says}\n'");
        run.script("bin/terraform", &script);
        let (_, status) = run.end(run.start_in(&["/bin/sh"], "plan", "work", version));
        match expected {
            None => assert_eq!(status, "init 0\nplan 0\n", "{says} {version}"),
            Some(expected) => assert!(status.contains(expected), "{says} {version}: {status}"),
        }
    }
    for (version, expected) in [("", "init 127\n"), ("1.11.4", "version 127\n")] {
        let run = Run::new(&[]);
        fs::remove_file(run.path("bin/terraform")).unwrap();
        let (said, status) = run.end(run.start_in(&["/bin/sh"], "plan", "work", version));
        assert_eq!(status, expected);
        assert!(said.contains("not found"), "{said}");
    }
}

#[test]
fn flags_that_would_send_the_state_elsewhere_or_change_the_step_are_refused() {
    for (name, flags, refused) in [
        ("TF_CLI_ARGS_apply", "-state=/tmp/x", Some("TF_CLI_ARGS_apply has the flag -state,")),
        ("TF_CLI_ARGS_apply", "-parallelism=2 \"--state-out\" x", Some("-state-out")),
        ("TF_CLI_ARGS", "-state /tmp/x", Some("TF_CLI_ARGS has the flag -state,")),
        ("TF_CLI_ARGS_init", "-backend-config=path=/tmp/x", Some("-backend-config")),
        ("TF_CLI_ARGS_init", "-backend=false", Some("-backend,")),
        ("TF_CLI_ARGS_apply", "-destroy", Some("-destroy")),
        ("TF_CLI_ARGS_apply", "-help", Some("-help")),
        ("TF_CLI_ARGS_apply", "-parallelism=2 -lock=false", None),
        ("TF_CLI_ARGS_plan", "-destroy", None),
        ("TF_DATA_DIR", "/proc/data", Some("TF_DATA_DIR is /proc/data, where this run cannot")),
        ("TF_DATA_DIR", "data", None),
    ] {
        for shell in SHELLS {
            let run = Run::new(&[]);
            run.variables(&[(name, flags)]);
            let (said, status) = run.end(run.start_in(shell, "apply", "work", ""));
            match refused {
                Some(refused) => {
                    assert!(status.contains("error the variable "), "{flags}: {status}");
                    assert!(status.contains(refused), "{shell:?} {flags}: {status}");
                    assert!(!said.contains("terraform apply"), "{said}");
                }
                None => assert_eq!(status, "init 0\napply 0\n", "{name}={flags}"),
            }
        }
    }
    // A hook may set it.
    let run = Run::new(&[("agent/pre-plan", "echo TF_CLI_ARGS_plan=-destroy >$SCALR_ENV_FILE")]);
    assert!(run.end(run.start("plan")).1.contains("error the variable TF_CLI_ARGS_plan"));
}

#[test]
fn what_a_variable_cannot_do_here_is_said_once() {
    for shell in SHELLS {
        let run = Run::new(&[(
            "agent/pre-init",
            "mkdir .terraform && echo prod >.terraform/environment",
        )]);
        run.terraform("echo \"$1 $TF_WORKSPACE ${TF_PLUGIN_CACHE_DIR-none}\"");
        let cache = run.path("cache");
        run.variables(&[
            ("TF_WORKSPACE", "prod"),
            ("TF_PLUGIN_CACHE_DIR", "/proc/cache"),
            ("TF_CLI_ARGS_plan", "-parallelism=2"),
        ]);
        let (said, _) = run.end(run.start_in(shell, "plan", "work", ""));
        assert_eq!(
            said,
            "Running the agent's pre-init hook\n\
             Ignoring TF_WORKSPACE=prod: a run's state is that of its workspace on the server\n\
             Ignoring the selected Terraform workspace prod: a run's state is that of its workspace on the server\n\
             Ignoring TF_PLUGIN_CACHE_DIR=/proc/cache: this run cannot write there; it can below /tmp and /scalr/home\n\
             init default none\n\
             The variable TF_CLI_ARGS_plan adds to terraform plan: -parallelism=2\n\
             plan default none\n",
            "{shell:?}"
        );
        fs::remove_dir_all(run.path("work/.terraform")).unwrap();
        run.variables(&[("TF_PLUGIN_CACHE_DIR", cache.to_str().unwrap())]);
        let (said, _) = run.end(run.start_in(shell, "plan", "work", ""));
        assert!(said.ends_with(&format!("plan default {}\n", cache.display())), "{said}");
        assert!(cache.is_dir());
    }
}

#[test]
fn a_hook_that_initializes_another_backend_fails_the_run() {
    let hook = |path: &str| {
        format!("mkdir -p .terraform; echo '\"path\": \"{path}\",' >.terraform/terraform.tfstate")
    };
    let run = Run::new(&[("agent/pre-plan", &hook("/tmp/x"))]);
    let (said, status) = run.end(run.start("plan"));
    assert!(status.contains("error a hook has initialized another backend"), "{status}");
    assert!(!said.contains("terraform plan"), "{said}");
    let run = Run::new(&[]);
    let own = run.path("terraform.tfstate");
    run.script("hooks/agent/pre-plan", &hook(own.to_str().unwrap()));
    assert_eq!(run.end(run.start("plan")).1, "init 0\nplan 0\n");
}
