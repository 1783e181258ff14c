//! Providers from a mirror, and from what the agent keeps of them.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, URL, kit};
use crate::machine::wait_for;
use crate::pool::Pool;

/// Where the kit's provider is in a mirror.
const NULL: &str = "registry.terraform.io/hashicorp/null";
const PACKAGE: &str = "terraform-provider-null_2.1.2_linux_amd64.zip";

/// It tries to leave something for other runs.
const CONFIGURATION: &str = r#"
terraform {
  required_providers {
    null = {
      source = "hashicorp/null"
    }
  }
}

resource "null_resource" "greedy" {
  provisioner "local-exec" {
    command = <<-EOT
      for folder in /scalr/providers/*; do
        touch "$folder/left" && echo "left something in $folder"
        find "$folder" -type f -exec sh -c 'echo x >>"$1" && echo "changed $1"' sh {} ';'
      done
      mount -o remount,rw /scalr/providers/0 && echo remounted
      echo tried all
    EOT
  }
}
"#;

/// The volumes of providers.
const VOLUMES: &str = "volume ls --quiet --filter label=scalr.providers";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn providers_come_from_a_mirror_once_and_then_from_the_agent() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    let folder = tempfile::tempdir().expect("a work folder");
    fs::write(folder.path().join("main.tf"), CONFIGURATION).expect("it takes files");
    let package = serve_mirror(&fleet);
    fleet.serve_names();
    fleet.install("--concurrency 2");
    load_bare_image(&fleet);
    // Root in the container is the worst that a run can be.
    fleet.shell(&format!(
        "scalr-agent configure --user=root --image=scalr-run:bare \
             --provider-mirror={URL}/packages/mirror && systemctl restart scalr-agent"
    ));
    fleet.wait_for_agent(&pool, "idle");

    // Terraform gets it from the mirror, and so does the agent, for the next.
    let run = pool.start_run(folder.path());
    pool.wait_for_status(&run, "planned");
    wait_for("the agent to have the provider", Duration::from_secs(30), || {
        known(&fleet).contains("downloaded").then_some(())
    });
    let volumes = fleet.shell(&format!("{DOCKER} {VOLUMES}"));
    assert_eq!(volumes.lines().count(), 1, "{volumes}");

    // From here on the mirror has no more than its lists.
    fs::remove_file(package).expect("the package can be removed");
    pool.apply(&run);
    pool.wait_for_status(&run, "applied");
    let log = pool.log(&run, "apply");
    assert!(log.contains("tried all") && log.contains("Read-only file system"), "{log}");
    for harm in ["left something", "changed /", "remounted"] {
        // Terraform shows the command itself, too.
        assert!(!log.lines().any(|line| line.contains(&format!("(local-exec): {harm}"))), "{log}");
    }

    let other = pool.with_workspace("other", json!({"auto-apply": false}));
    let runs = [(&pool, pool.start_run(folder.path())), (&other, other.start_run(folder.path()))];
    for (pool, run) in &runs {
        // A workspace whose resources are there already has nothing to apply.
        wait_for("the run to be planned", Duration::from_secs(120), || {
            let status = pool.status(run);
            assert_ne!(status, "errored", "{}", pool.log(run, "plan"));
            status.starts_with("planned").then_some(())
        });
        let log = pool.log(run, "plan");
        assert!(log.contains("Installed hashicorp/null v2.1.2"), "{log}");
    }
    other.apply(&runs[1].1);
    other.wait_for_status(&runs[1].1, "applied");

    offline(&fleet, &pool, folder.path());
    assert_eq!(fleet.containers(), "", "a container is left");
}

/// With a folder as the mirror there is nothing else: what the agent had is gone.
fn offline(fleet: &Fleet, pool: &Pool<'_>, configuration: &std::path::Path) {
    let package = kit().join("mirror").join(NULL).join(PACKAGE);
    fleet.copy(&package, &format!("/srv/mirror/{NULL}/{PACKAGE}"), "0644");
    fleet.shell("scalr-agent configure --provider-mirror=/srv/mirror");
    fleet.shell("systemctl restart scalr-agent");
    fleet.wait_for_agent(pool, "idle");
    let fresh = pool.with_workspace("offline", json!({"auto-apply": false}));
    let run = fresh.start_run(configuration);
    fresh.wait_for_status(&run, "planned");
    fresh.apply(&run);
    fresh.wait_for_status(&run, "applied");
    let log = fresh.log(&run, "apply");
    assert!(log.contains("Read-only file system"), "{log}");
    wait_for("the agent to remove what it had before", Duration::from_secs(30), || {
        (!known(fleet).contains("downloaded")).then_some(())
    });
    let volumes = fleet.shell(&format!("{DOCKER} {VOLUMES}"));
    assert_eq!(volumes.lines().count(), 1, "{volumes}");

    // A folder that others can change is no mirror.
    fleet.shell("chmod 0777 /srv/mirror");
    let run = fresh.start_run(configuration);
    fresh.wait_for_ended(&run, "errored");
    let log = fresh.log(&run, "plan");
    assert!(log.contains("/srv/mirror can be written by others than root"), "{log}");
}

/// Has the server serve the kit's provider by the network mirror protocol; gives the
/// package's file.
fn serve_mirror(fleet: &Fleet) -> std::path::PathBuf {
    let folder = fleet.repository().join("mirror").join(NULL);
    fs::create_dir_all(&folder).expect("the work folder takes folders");
    let put = |name: &str, content: serde_json::Value| {
        fs::write(folder.join(name), content.to_string()).expect("the work folder takes files");
    };
    put("index.json", json!({"versions": {"2.1.2": {}}}));
    put("2.1.2.json", json!({"archives": {"linux_amd64": {"url": PACKAGE}}}));
    let package = folder.join(PACKAGE);
    fs::copy(kit().join("mirror").join(NULL).join(PACKAGE), &package).expect("it is in the kit");
    package
}

/// The runs' image, without providers of its own.
fn load_bare_image(fleet: &Fleet) {
    let image = fs::read(kit().join("run-image.tar")).expect("the kit has an image");
    let line = format!(
        "tar --delete --file=- ./usr/share/terraform 2>/dev/null | {DOCKER} import - scalr-run:bare"
    );
    fleet.world.feed(&fleet.machine, &line, &image);
}

/// What the agent has written down of its providers.
fn known(fleet: &Fleet) -> String {
    fleet.shell("cat /var/lib/scalr-agent/providers.json")
}
