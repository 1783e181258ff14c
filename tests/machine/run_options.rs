//! What a run asks of Terraform beside its operation, as the real one does it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fleet::{Fleet, creating};
use crate::pool::{Pool, Run};

const TWO_AND_A_SECRET: &str = r#"
variable "size" {
  default = 1
}
variable "password" {
  sensitive = true
}
resource "terraform_data" "one" {
  input = var.size
}
resource "terraform_data" "two" {
  input = { size = var.size, password = var.password }
}
"#;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_does_what_its_options_say_and_its_plan_tells_it_without_secrets() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("--concurrency 2");
    fleet.wait_for_agent(&pool, "idle");
    let pool = pool.with_workspace("options", json!({"auto-apply": true}));
    pool.variable("password", "terraform", true, "hunter2-hunter2");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("main.tf"), TWO_AND_A_SECRET).expect("a file");
    let folder = folder.path();

    // A target leaves out the other one.
    let run = ended(&pool, folder, json!({"target-addrs": ["terraform_data.one"]}), "applied");
    assert_eq!((numbers(&pool, &run), pool.resources()), ([1, 0, 0, 0], 1));
    let run = ended(&pool, folder, json!({}), "applied");
    assert_eq!((numbers(&pool, &run), pool.resources()), ([1, 0, 0, 0], 2));

    // A variable of the run is not the next run's.
    let of_run = json!({"variables": [{"key": "size", "value": "2"}], "plan-only": true});
    let run = ended(&pool, folder, of_run, "planned_and_finished");
    assert_eq!(numbers(&pool, &run), [0, 2, 0, 0]);
    let (_, plan) = pool.plan(&run);
    let text = plan.to_string();
    assert!(!text.contains("hunter2"), "{plan:#}");
    assert_eq!(plan["variables"]["password"]["value"], "(sensitive value)", "{plan:#}");
    assert_eq!(plan["variables"]["size"]["value"], 2, "{plan:#}");
    ended(&pool, folder, json!({"auto-apply": false}), "planned_and_finished");

    let replace = json!({"replace-addrs": ["terraform_data.one"], "refresh": false});
    let run = ended(&pool, folder, replace, "applied");
    assert_eq!(numbers(&pool, &run), [1, 0, 1, 1]);
    let run = ended(&pool, folder, json!({"refresh-only": true}), "planned_and_finished");
    assert!(!pool.log(&run, "plan").contains("to add"), "{}", pool.log(&run, "plan"));
    ended(&pool, folder, json!({"allow-empty-apply": true}), "applied");
    assert!(!pool.is_locked(), "an apply without changes leaves the state as it was");

    runs_beside_an_apply(&pool, folder);
    applies_a_saved_plan(&pool, folder);

    let run = ended(&pool, folder, json!({"is-destroy": true}), "applied");
    assert_eq!((numbers(&pool, &run), pool.resources()), ([0, 0, 2, 0], 0));
}

fn ended(pool: &Pool<'_>, folder: &Path, attributes: Value, wanted: &str) -> Run {
    let run = pool.start_run_with(folder, attributes);
    pool.wait_for_ended(&run, wanted);
    run
}

/// Additions, changes, destructions and replacements.
fn numbers(pool: &Pool<'_>, run: &Run) -> [u64; 4] {
    let (attributes, _) = pool.plan(run);
    ["additions", "changes", "destructions", "replacements"].map(|name| {
        let number = attributes[format!("resource-{name}")].as_u64();
        number.unwrap_or_else(|| panic!("no {name}: {attributes:#}"))
    })
}

fn runs_beside_an_apply(pool: &Pool<'_>, folder: &Path) {
    let slow = slow_apply();
    let text = fs::read_to_string(slow.path().join("main.tf")).expect("a file");
    fs::write(slow.path().join("main.tf"), format!("{TWO_AND_A_SECRET}\n{text}")).expect("a file");
    let applying = pool.start_run(slow.path());
    pool.wait_for_status(&applying, "applying");
    ended(pool, folder, json!({"plan-only": true}), "planned_and_finished");
    assert_eq!(pool.status(&applying), "applying");
    pool.wait_for_ended(&applying, "applied");
}

fn slow_apply() -> TempDir {
    creating("slow", "sleep 30")
}

fn applies_a_saved_plan(pool: &Pool<'_>, folder: &Path) {
    let saved = pool.start_run_with(folder, json!({"save-plan": true}));
    pool.wait_for_status(&saved, "planned_and_saved");
    pool.apply(&saved);
    pool.wait_for_ended(&saved, "applied");
}
