//! The unmodified `terraform` command line, whose runs an agent on a booted machine does.
//!
//! `scripts/bench cli` is the same with more rounds.

use std::time::Instant;

use load::figures::{quantile, spread};

use crate::fleet::{DOCKER, Fleet, IMAGE, URL, setting};
use crate::machine::text;
use crate::pool::Pool;

/// How often a plan and an apply are timed: the variable that says so, and what holds without it.
const ROUNDS: (&str, u32) = ("SCALR_CLI_ROUNDS", 1);

/// Where the configuration is on the machine.
const FOLDER: &str = "/root/cli";

/// The provisioner's steps, and where they end.
const STEPS: &str = "for step in $(seq 60); do echo step $step of 60; sleep 1; done";

/// A configuration on a machine, in a workspace of the pool.
struct Cli<'a> {
    fleet: &'a Fleet,
}

impl<'a> Cli<'a> {
    /// The terraform of the runs' image, logged in as the admin.
    fn set_up(fleet: &'a Fleet) -> Self {
        fleet.shell(&format!(
            "{DOCKER} run --rm {IMAGE} sh -c 'cat \"$(command -v terraform)\"' \
             >/usr/local/bin/terraform && chmod 0755 /usr/local/bin/terraform && mkdir {FOLDER}"
        ));
        let host = URL.trim_start_matches("https://");
        let credentials =
            format!("credentials \"{host}\" {{\n  token = \"{}\"\n}}\n", fleet.admin_token());
        fleet.put("/root/.terraformrc", "0600", credentials.as_bytes());
        let cli = Self { fleet };
        cli.write(
            "cloud.tf",
            &format!(
                "terraform {{\n  cloud {{\n    hostname     = \"{host}\"\n    organization = \
                 \"default\"\n    workspaces {{\n      name = \"tests\"\n    }}\n  }}\n}}\n"
            ),
        );
        cli
    }

    fn write(&self, name: &str, content: &str) {
        self.fleet.put(&format!("{FOLDER}/{name}"), "0644", content.as_bytes());
    }

    /// One resource, whose creation runs `command`, and an output.
    fn create(&self, name: &str, command: &str) {
        self.write("main.tf", &creating(name, command));
    }

    /// A shell line in the configuration's folder that succeeds. A log has its colours also with
    /// `-no-color`: it arrives as it was written.
    fn ok(&self, line: &str) -> String {
        without_colours(&self.fleet.shell(&format!("cd {FOLDER} && {line}")))
    }
}

fn without_colours(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn creating(name: &str, command: &str) -> String {
    format!(
        "resource \"terraform_data\" \"{name}\" {{\n  input = \"made by {name}\"\n  provisioner \
         \"local-exec\" {{\n    command = \"{command}\"\n  }}\n}}\n\
         output \"made\" {{\n  value = terraform_data.{name}.output\n}}\n"
    )
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn terraform_plans_applies_stops_and_destroys_on_the_agent() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let cli = Cli::set_up(&fleet);

    cli.create("first", "echo making it");
    let initialized = cli.ok("terraform init -no-color");
    assert!(initialized.contains("successfully initialized"), "{initialized}");
    assert!(
        cli.ok("terraform plan -no-color").contains("Plan: 1 to add, 0 to change, 0 to destroy.")
    );
    assert_eq!(pool.newest_run()["status"], "planned_and_finished");
    let code = cli.ok("terraform plan -detailed-exitcode >/dev/null || echo $?");
    assert_eq!(code, "2", "there are changes");

    // Somebody says no, and then yes.
    let refused = cli.ok("! echo no | terraform apply -no-color 2>&1");
    assert!(refused.contains("Apply discarded."), "{refused}");
    assert_eq!(pool.newest_run()["status"], "discarded");
    let applied = cli.ok("echo yes | terraform apply -no-color");
    assert!(applied.contains("Apply complete! Resources: 1 added"), "{applied}");
    assert_eq!(pool.newest_run()["status"], "applied");
    assert_eq!(cli.ok("terraform output -raw made"), "made by first");
    assert_eq!(cli.ok("terraform state list"), "terraform_data.first");
    assert_eq!(pool.resources(), 1);

    stop_an_apply(&cli, &pool);

    cli.create("first", "echo making it");
    let destroyed = cli.ok("terraform destroy -no-color -auto-approve");
    assert!(destroyed.contains("0 added, 0 changed, 2 destroyed"), "{destroyed}");
    assert_eq!(pool.resources(), 0);

    time(&cli, setting(ROUNDS));
}

/// Ctrl-C in the middle of an apply: it is canceled on the agent, and the state has what was
/// made by then.
fn stop_an_apply(cli: &Cli<'_>, pool: &Pool<'_>) {
    cli.write(
        "main.tf",
        &format!("{}{}", creating("first", "true"), creating("second", STEPS))
            .replace("output \"made\" {\n  value = terraform_data.second.output\n}\n", ""),
    );
    let line = "set -m; terraform apply -no-color -auto-approve >/root/apply.log 2>&1 & job=$!; \
        until grep -q 'step 2 of' /root/apply.log; do \
            kill -0 $job || { cat /root/apply.log; exit 1; }; sleep 0.1; done; \
        kill -s INT $job; wait $job; :";
    // Its exit code says whether the run was canceled already when it looked.
    cli.ok(&format!("timeout 120 bash -c \"{}\"", line.replace('$', "\\$")));
    let said = cli.ok("cat /root/apply.log");
    assert!(said.contains("The remote operation was successfully cancelled."), "{said}");
    pool.wait_for_newest_run("canceled");
    assert!(!said.contains("step 60 of"), "{said}");
    assert_eq!(cli.ok("terraform state list"), "terraform_data.first\nterraform_data.second");
    assert!(!pool.is_locked());
    cli.fleet.wait_for_agent(pool, "idle");
    assert_eq!(cli.fleet.containers(), "");
}

/// Prints how long a plan and an apply take with a state on this machine and through the server,
/// on an idle agent.
fn time(cli: &Cli<'_>, rounds: u32) {
    let local = "/root/local";
    cli.fleet
        .shell(&format!("mkdir {local} && cd {local} && cp {FOLDER}/main.tf . && terraform init"));
    let seconds = |folder: &str, command: &str| {
        let begun = Instant::now();
        let output =
            cli.fleet.world.try_shell(&cli.fleet.machine, &format!("cd {folder} && {command}"));
        let said = without_colours(&text(&output));
        assert!(output.status.success(), "{said}");
        (begun.elapsed().as_secs_f64(), said)
    };
    let commands = [
        ("terraform version", "terraform version -no-color", "Terraform v"),
        ("terraform plan", "terraform plan -no-color", "1 to add"),
        ("terraform apply", "terraform apply -no-color -auto-approve", "1 added"),
    ];
    println!("seconds, minimum / median / maximum of {rounds} rounds");
    println!("| command | on this machine | through the server | more |\n|---|---|---|---|");
    for (name, command, says) in commands {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (folder, times) in [local, FOLDER].into_iter().zip(&mut times) {
                let (took, said) = seconds(folder, command);
                assert!(said.contains(says), "{said}");
                times.push(took);
                if name == "terraform apply" {
                    seconds(folder, "terraform destroy -auto-approve");
                }
            }
        }
        let [alone, through] = &times;
        let more = quantile(through, 0.5) - quantile(alone, 0.5);
        println!("| {name} | {} | {} | {more:.2} |", spread(alone), spread(through));
    }
}
