//! Hooks of the agent, the environment and the workspace, around a real plan and apply.

use serde_json::json;

use crate::fleet::{Fleet, configuration};

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn hooks_run_around_the_steps_and_a_failed_one_fails_the_run() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    pool.variable("steps", "terraform", false, "1");
    fleet.install("");
    hook(
        &fleet,
        "pre-init",
        "echo TF_VAR_greeting=hooked >>$SCALR_ENV_FILE; echo word $SECRET_WORD",
    );
    fleet.shell("scalr-agent configure --hooks-dir=/etc/hooks --hook-timeout=3");
    fleet.shell("systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");

    pool.environment_hook(
        "policy",
        "terraform show -json /scalr/run/plan >/tmp/plan.json && echo policy of $SCALR_RUN_SOURCE",
        &["post-plan"],
    );
    pool.hooks(json!({
        "post-plan": "terraform show /scalr/run/plan >/dev/null && echo plan is readable",
        "post-apply": "echo $SCALR_TERRAFORM_OPERATION is done; exit 7",
    }));
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    let log = pool.log(&run, "plan");
    assert!(log.contains("Running the agent's pre-init hook\nword ***"), "{log}");
    let both = "Running the environment's post-plan hook \"policy\"\npolicy of api\n\
                Running the workspace's post-plan hook\nplan is readable";
    assert!(log.contains(both), "{log}");
    pool.apply(&run);
    pool.wait_for_status(&run, "errored");
    let log = pool.log(&run, "apply");
    assert!(log.contains("apply is done"), "{log}");
    let end = "Error: the workspace's post-apply hook ended with exit code 7. \
               The apply had ended, and its state is saved.";
    assert!(log.contains(end), "{log}");
    assert_eq!(pool.output("greeting"), json!("hooked, from a run's container"));

    pool.hooks(json!({"pre-plan": "while :; do :; done"}));
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "errored");
    let log = pool.log(&run, "plan");
    assert!(log.contains("the workspace's pre-plan hook took longer than 3 s"), "{log}");

    pool.hooks(json!({}));
    fleet.shell("chmod 0666 /etc/hooks/pre-init");
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "errored");
    let log = pool.log(&run, "plan");
    assert!(log.contains("/etc/hooks/pre-init can be written by others than root"), "{log}");
    assert_eq!(fleet.containers(), "", "a container is left");
}

/// Puts a hook of the agent into /etc/hooks.
fn hook(fleet: &Fleet, name: &str, text: &str) {
    fleet.put(&format!("/etc/hooks/{name}"), "0755", text.as_bytes());
}
