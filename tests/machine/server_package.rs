//! The server's package, on machines: installed, upgraded, removed.

use std::time::Duration;

use crate::lifecycle::package;
use crate::machine::{World, wait_for};

/// Settings as an administrator would make them.
const SETTINGS: &str =
    "SCALR_SERVER_URL=https://pools.test:8443\nSCALR_SERVER_TLS_SELF_SIGNED=true\n";

/// A call of the pool API by the machine's own administrator.
const API: &str = "curl --silent --fail --cacert /var/lib/scalr-server/tls/ca.pem \
    --resolve pools.test:8443:127.0.0.1 \
    --header \"Authorization: Bearer $(cat /var/lib/scalr-server/admin-token)\" \
    --header 'Content-Type: application/vnd.api+json' https://pools.test:8443/api/iacp/v3";

#[test]
#[ignore = "boots a machine: run scripts/test"]
fn the_server_lives_through_upgrade_and_removal_on_ubuntu_18_04() {
    let world = World::new();
    let machine = "ubuntu-18.04";
    world.boot(machine, &[]);
    let run = |line: &str| world.shell(machine, line);
    world.put(machine, "/root/server.deb", "0644", &built("deb"));
    let said = run("dpkg --install /root/server.deb 2>&1");
    assert!(said.contains("systemctl enable --now scalr-server"), "{said}");
    assert_eq!(run("systemctl is-active scalr-server || true"), "inactive");
    assert_eq!(run("dpkg --verify scalr-server"), "");

    wrongly_configured_it_does_not_start(&world, machine);
    configured_it_serves(&world, machine);

    // The same server under a newer version, whose settings come with another text.
    run("cd /root && dpkg-deb --raw-extract server.deb new && \
         sed -i 's/^Version: .*/Version: 99.0-1/' new/DEBIAN/control && \
         echo '# newer' >>new/etc/scalr-server/server.env && \
         dpkg-deb --root-owner-group --build new new.deb && \
         dpkg --force-confdef --force-confold --install new.deb 2>&1");
    it_went_on(&world, machine);
    assert_eq!(run("tail -n 1 /etc/scalr-server/server.env.dpkg-dist"), "# newer");

    run("dpkg --remove scalr-server 2>&1");
    removed_it_leaves_the_data(&world, machine);
    run("dpkg --purge scalr-server 2>&1");
    run(
        "! getent passwd scalr-server && [ ! -e /var/lib/scalr-server ] && [ ! -e /etc/scalr-server ]",
    );
}

#[test]
#[ignore = "boots a machine: run scripts/test"]
fn the_server_lives_through_upgrade_and_removal_on_centos_8() {
    let world = World::new();
    let machine = "centos-8";
    world.boot(machine, &[]);
    let run = |line: &str| world.shell(machine, line);
    world.put(machine, "/root/server.rpm", "0644", &built("rpm"));
    let said = run("rpm --install --nodeps /root/server.rpm 2>&1");
    assert!(said.contains("systemctl enable --now scalr-server"), "{said}");
    assert_eq!(run("systemctl is-active scalr-server || true"), "inactive");
    assert_eq!(run("rpm --verify --nodeps scalr-server"), "");

    wrongly_configured_it_does_not_start(&world, machine);
    configured_it_serves(&world, machine);
    // Over itself is an upgrade to the scriptlets.
    run("rpm --upgrade --nodeps --replacepkgs --replacefiles /root/server.rpm 2>&1");
    it_went_on(&world, machine);
    run("rpm --erase scalr-server 2>&1");
    removed_it_leaves_the_data(&world, machine);
    assert_eq!(run("cat /etc/scalr-server/server.env.rpmsave"), SETTINGS.trim());
}

/// `systemctl start` fails, and the journal has the name of what to set.
fn wrongly_configured_it_does_not_start(world: &World, machine: &str) {
    for (settings, cause) in [
        ("", "SCALR_SERVER_TLS_SELF_SIGNED=true"),
        (
            "SCALR_SERVER_URL=http://pools.test:8443\nSCALR_SERVER_TLS_SELF_SIGNED=true\n",
            "SCALR_SERVER_URL",
        ),
        (
            "SCALR_SERVER_TLS_SELF_SIGNED=true\nSCALR_SERVER_PACKAGES=/usr/share/doc\n",
            "SCALR_SERVER_PACKAGES",
        ),
    ] {
        world.feed(machine, "cat >/etc/scalr-server/server.env", settings.as_bytes());
        let started = world.try_shell(machine, "systemctl start scalr-server");
        assert!(!started.status.success(), "it started with {settings:?}");
        let journal = "journalctl --unit scalr-server --lines 20 --output cat";
        let journal = world.shell(machine, journal);
        assert!(journal.contains(cause), "{settings:?}: {journal}");
        assert_eq!(world.shell(machine, "systemctl is-active scalr-server || true"), "failed");
    }
}

fn configured_it_serves(world: &World, machine: &str) {
    world.feed(machine, "cat >/etc/scalr-server/server.env", SETTINGS.as_bytes());
    world.shell(machine, "systemctl enable --now scalr-server 2>&1");
    wait_for("the server to answer", Duration::from_secs(60), || {
        let answer = world.try_shell(machine, &format!("{API}/environments"));
        answer.status.success().then_some(())
    });
    let pool = r#"{"data":{"type":"agent-pools","attributes":{"name":"kept"}}}"#;
    world.feed(machine, &format!("{API}/agent-pools --data @-"), pool.as_bytes());
    // Nobody but the server reads what it keeps, and no log has the token.
    assert_eq!(
        world.shell(
            machine,
            "stat --format '%a %U' /var/lib/scalr-server /var/lib/scalr-server/admin-token"
        ),
        "750 scalr-server\n600 scalr-server"
    );
    world.shell(
        machine,
        "! journalctl --unit scalr-server | grep --fixed-strings --file /var/lib/scalr-server/admin-token",
    );
    // This systemd understands both drop-ins, and took them.
    let shown = world.shell(
        machine,
        "systemctl show --property=ProtectSystem,ProtectProc,NoNewPrivileges,User scalr-server",
    );
    for line in [
        "ProtectSystem=strict",
        "ProtectProc=invisible",
        "NoNewPrivileges=yes",
        "User=scalr-server",
    ] {
        assert!(shown.lines().any(|found| found == line), "{shown}");
    }
}

fn it_went_on(world: &World, machine: &str) {
    wait_for("the server to answer after its upgrade", Duration::from_secs(60), || {
        let answer = world.try_shell(machine, &format!("{API}/agent-pools"));
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        text.contains("\"kept\"").then_some(())
    });
    // What it was before is kept, and the settings are as they were.
    world.shell(machine, "[ -s /var/lib/scalr-server/before-upgrade.db ]");
    assert_eq!(world.shell(machine, "cat /etc/scalr-server/server.env"), SETTINGS.trim());
}

fn removed_it_leaves_the_data(world: &World, machine: &str) {
    world.shell(
        machine,
        "! systemctl is-active --quiet scalr-server && ! systemctl is-enabled --quiet scalr-server \
         && [ -s /var/lib/scalr-server/server.db ] && [ ! -e /etc/systemd/system/scalr-server.service.d ] \
         && [ ! -e /usr/bin/scalr-server ] && [ ! -e /usr/lib/scalr-server ]",
    );
}

fn built(kind: &str) -> Vec<u8> {
    std::fs::read(package("server", kind)).expect("the package can be read")
}
