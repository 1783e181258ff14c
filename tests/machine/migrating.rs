//! The commands of `docs/migrating.md`, run as they stand there.

use std::path::Path;

use crate::fleet::{Fleet, URL, refusal};
use crate::machine::wait_for;
use crate::pool::Pool;
use crate::proxy::Proxy;

/// The proxy, where a machine with a way to the server reaches it.
const PROXY: &str = "http://192.0.2.2:8888";

const DROP_IN: &str = "/etc/systemd/system/scalr-agent.service.d/proxy.conf";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn the_documented_lines_work_as_written_and_a_hand_written_proxy_stays() {
    the_documented_lines_work("ubuntu-18.04");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn the_documented_lines_work_with_yum() {
    the_documented_lines_work("centos-8");
}

fn the_documented_lines_work(flavour: &str) {
    let fleet = Fleet::boot(flavour, &[]);
    let pool = fleet.pool();
    let proxy = Proxy::start(&fleet, 8888, None);
    answer_yes(&fleet);
    fleet.shell(&commands("repository", &pool));

    let documented = commands("documented", &pool);
    fleet.shell(&if flavour.starts_with("centos") {
        documented.replace("apt install", "yum install")
    } else {
        documented
    });
    fleet.wait_for_agent(&pool, "idle");
    assert_eq!(fleet.shell("systemctl is-active scalr-agent scalr-docker"), "active\nactive");
    assert!(fleet.shell("cat /etc/scalr-agent/agent.toml").contains("user = \"root\""));
    wait_for_proxy(&proxy);

    let state = format!("stat --format='%n %i %Y' {DROP_IN}; sha256sum {DROP_IN}");
    let before = fleet.shell(&state);
    let shown = fleet.shell(&commands("shorter", &pool));
    assert!(shown.contains(PROXY), "{shown}");
    assert!(shown.contains("was written by hand; it is used as it is"), "{shown}");
    assert!(!shown.contains("scalr-docker does not use it"), "{shown}");
    assert_eq!(fleet.shell(&state), before);
    fleet.wait_for_agent(&pool, "idle");

    // The one line that no systemd takes, as the page says.
    let unit_named = "systemctl daemon-reload scalr-agent";
    refusal(&fleet.world.try_shell(&fleet.machine, unit_named));

    // What the page says besides.
    let agent = "systemctl show --property=MainPID scalr-agent";
    let running = fleet.shell(agent);
    fleet.shell("systemctl enable scalr-docker scalr-agent && systemctl reload scalr-agent");
    assert_eq!(fleet.shell(agent), running, "a reload is no restart");
    let with_password = PROXY.replace("://", "://robot:pa55word@");
    fleet.world.feed(
        &fleet.machine,
        "scalr-agent-setup proxy --force --http -",
        format!("{with_password}\n").as_bytes(),
    );
    assert!(!fleet.shell("systemctl show scalr-agent scalr-docker").contains("pa55word"));
    fleet.wait_for_agent(&pool, "idle");
    let tool = if flavour.starts_with("centos") { "yum" } else { "apt-get" };
    fleet.shell(&format!("{tool} remove -y scalr-agent && test -e {DROP_IN}"));
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_host_with_the_vendors_package_is_moved_by_the_documented_steps() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    let proxy = Proxy::start(&fleet, 8888, None);
    fleet.shell(VENDORS_PACKAGE);
    fleet.shell(&format!(
        "mkdir -p {} && printf '[Service]\\nEnvironment=\"HTTPS_PROXY={PROXY}\"\\n' >{DROP_IN}",
        Path::new(DROP_IN).parent().expect("a folder").display(),
    ));
    assert_eq!(fleet.shell("systemctl is-active scalr-agent"), "active");
    let before = fleet.shell(&format!("cat {DROP_IN}"));
    assert_eq!(
        fleet.shell("grep -ril scalr /etc/apt/sources.list.d /etc/yum.repos.d 2>/dev/null || true"),
        "/etc/apt/sources.list.d/scalr-agent.list",
    );

    fleet.shell(&commands("moving", &pool));
    fleet.wait_for_agent(&pool, "idle");
    wait_for_proxy(&proxy);
    assert_eq!(fleet.shell(&format!("cat {DROP_IN}")), before);
    assert_eq!(fleet.shell("ls /opt"), "");
    assert_eq!(
        fleet.shell("systemctl show --property=FragmentPath scalr-agent"),
        "FragmentPath=/lib/systemd/system/scalr-agent.service",
    );
}

/// A package as the vendor's: the same name, a higher version, its files below
/// `/opt/scalr-agent`, and a service that runs.
const VENDORS_PACKAGE: &str = r#"
root=$(mktemp -d) && cd "$root" && mkdir -p DEBIAN opt/scalr-agent/bin etc/systemd/system
printf '%s\n' 'Package: scalr-agent' 'Version: 9.0.0' 'Architecture: amd64' \
    'Maintainer: none <none@example.com>' 'Description: as the vendor packs it' >DEBIAN/control
printf '%s\n' '#!/bin/sh' 'exec sleep infinity' >opt/scalr-agent/bin/scalr-agent
chmod 0755 "$root" opt/scalr-agent/bin/scalr-agent
printf '%s\n' '[Service]' 'ExecStart=/opt/scalr-agent/bin/scalr-agent' \
    >etc/systemd/system/scalr-agent.service
dpkg-deb --build "$root" /tmp/vendors.deb && dpkg --install /tmp/vendors.deb
mkdir -p /opt/scalr-agent/var
echo 'deb [trusted=yes] file:/srv/scalr ./' >/etc/apt/sources.list.d/scalr-agent.list
systemctl daemon-reload && systemctl start scalr-agent
"#;

/// The commands of the page's blocks of that name, with this world's server,
/// proxy and token in place of the page's.
///
/// The shell stops at the first that fails.
fn commands(name: &str, pool: &Pool<'_>) -> String {
    let page = tests::checkout("docs/migrating.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let mut commands = String::from("set -e\n");
    let mut inside = false;
    for line in page.lines() {
        // A block in a list is indented, and so is a here-document's end.
        let text = line.strip_prefix("   ").unwrap_or(line);
        if text == format!("```sh {name}") {
            inside = true;
        } else if text == "```" {
            inside = false;
        } else if inside {
            commands += text;
            commands += "\n";
        }
    }
    assert!(commands.lines().count() > 1, "the page has a block {name}");
    commands
        .replace("https://pools.example.com", URL)
        .replace("http://proxy.example.com:3128", PROXY)
        .replace("--token=TOKEN", &format!("--token={}", pool.token))
        .replace("/root/pool-token", "/root/pool.token")
}

/// The page's lines are for people, who are asked whether to go on.
fn answer_yes(fleet: &Fleet) {
    fleet.shell(if fleet.machine.starts_with("centos") {
        "echo assumeyes=1 >>/etc/dnf/dnf.conf"
    } else {
        "echo 'APT::Get::Assume-Yes \"true\";' >/etc/apt/apt.conf.d/90yes"
    });
}

fn wait_for_proxy(proxy: &Proxy) {
    let limit = std::time::Duration::from_secs(60);
    wait_for("a connection through the proxy", limit, || {
        proxy.log().contains("CONNECT pools.test:8443").then_some(())
    });
}
