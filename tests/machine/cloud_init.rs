//! The example of user data, by a real cloud-init.

use crate::fleet::{Fleet, URL};

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn user_data_makes_an_agent_and_a_second_first_boot_changes_nothing() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    let file = tests::checkout("pkg/cloud-init/user-data.yaml");
    let user_data = std::fs::read_to_string(file)
        .expect("the example is there")
        .replace("https://pools.example.com", URL)
        .replace("content: TOKEN", &format!("content: {}", pool.token));
    fleet.put("/etc/cloud/cloud.cfg.d/99-test.cfg", "0644", NOT_HERE.as_bytes());
    fleet.put("/var/lib/cloud/seed/nocloud/user-data", "0600", user_data.as_bytes());
    fleet.shell("cloud-init schema --config-file /var/lib/cloud/seed/nocloud/user-data");

    first_boot(&fleet, "one");
    fleet.wait_for_agent(&pool, "idle");
    assert_eq!(
        fleet.shell("ls /run/scalr-agent-token /run/scalr-agent-install.sh 2>&1 | grep -c cannot"),
        "2"
    );

    let look = "systemctl show --property=MainPID scalr-agent scalr-docker; \
        sha256sum /etc/scalr-agent/* /etc/apt/sources.list.d/*";
    let before = fleet.shell(look);
    first_boot(&fleet, "two");
    assert_eq!(fleet.shell(look), before);
    let output = fleet.shell("cat /var/log/cloud-init-output.log");
    assert!(output.contains("nothing was changed"), "{output}");

    let token = &pool.token;
    assert!(!output.contains(token) && !fleet.shell("journalctl --no-pager").contains(token));
    assert_eq!(
        fleet.shell(&format!(
            "find /var/log /var/lib/cloud /etc /run -type f -perm /004 -exec grep -lF {token} {{}} +; true"
        )),
        ""
    );
}

/// A machine has its network, and neither ssh nor locales.
const NOT_HERE: &str = "network: {config: disabled}\nusers: []\nlocale: false\n\
    ssh_deletekeys: false\nssh_genkeytypes: []\n";

/// The stages of a boot, as their units run them, of a host called `instance`.
fn first_boot(fleet: &Fleet, instance: &str) {
    fleet.shell(&format!(
        "echo 'instance-id: {instance}' >/var/lib/cloud/seed/nocloud/meta-data && \
         rm -rf /run/cloud-init && mkdir -p /run/cloud-init && touch /run/cloud-init/enabled && \
         cloud-init init --local && cloud-init init && \
         cloud-init modules --mode=config && cloud-init modules --mode=final"
    ));
    assert_eq!(
        fleet.shell("python3 -c \"import json; print(json.load(open('/run/cloud-init/result.json'))['v1']['errors'])\""),
        "[]"
    );
}
