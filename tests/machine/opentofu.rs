//! A workspace of OpenTofu. No registry that the tests can reach has OpenTofu: Terraform under the
//! name `tofu` stands in for it.

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, IMAGE, configuration};

/// The image of runs with `tofu` in the place of `terraform`.
const WITH_TOFU: &str = "scalr-run:tofu";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_workspace_of_opentofu_runs_tofu_and_one_of_terraform_refuses_it() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("");
    fleet.shell(&format!(
        "{DOCKER} run --name tofu {IMAGE} sh -c \
             'terraform=$(command -v terraform) && mv $terraform ${{terraform%/*}}/tofu' && \
         {DOCKER} commit tofu {WITH_TOFU} && {DOCKER} rm tofu"
    ));
    fleet.wait_for_agent(&pool, "idle");

    let attributes = json!({"iac-platform": "opentofu", "image": WITH_TOFU});
    let pool = pool.with_workspace("tofu", attributes);
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    pool.wait_for_ended(&run, "applied");
    assert_eq!(pool.output("greeting"), json!("hello, from a run's container"));

    pool.patch_workspace(json!({"iac-platform": "terraform"}));
    let run = pool.start_run(&configuration());
    pool.wait_for_ended(&run, "errored");
    let log = pool.log(&run, "plan");
    assert!(log.contains(WITH_TOFU) && log.contains("has no `terraform` on its PATH"), "{log}");
}
