//! `network`, in a network namespace of its own.

use std::io::{self, Write as _};
use std::process::Command;

/// Everything happens in a private network and mount namespace: neither the
/// host's firewall nor its /etc is touched.
const SCRIPT: &str = r#"
set -eu
mount --make-rprivate /
mount -t sysfs sysfs /sys
mkdir "$work/etc" "$work/state"
cp -R /etc/alternatives /etc/group /etc/passwd "$work/etc/"
mount --bind "$work/etc" /etc
mount --bind "$work/state" /var/lib
ip link set lo up
rules() { iptables -S; iptables -t nat -S; }
iptables -A FORWARD -j ACCEPT
rules >"$work/before"

# The first range is taken, so the second is chosen.
ip link add uplink type bridge
ip address add 10.213.70.3/24 dev uplink
ip link set uplink up
"$setup" network up
grep -q '"base": "10.187.64.0/20"' /etc/scalr-agent/docker.json
iptables -S FORWARD | sed -n 2p | grep -qx -- '-A FORWARD -j SCALR-AGENT'
iptables -S SCALR-AGENT | grep -q -- '-d 169.254.169.254/32 -j DROP'
test "$(cat /proc/sys/net/ipv4/ip_forward)" = 1
rules >"$work/first"

# Again: the same; and the first place is taken back from whoever took it.
"$setup" network up
iptables -I FORWARD -s 192.0.2.0/24 -j ACCEPT
"$setup" network up
iptables -S FORWARD | sed -n 2p | grep -qx -- '-A FORWARD -j SCALR-AGENT'
iptables -D FORWARD -s 192.0.2.0/24 -j ACCEPT
rules | diff "$work/first" -

# A route into the range stops it.
ip route add 10.187.65.0/24 dev uplink
if "$setup" network up 2>"$work/error"; then exit 1; fi
grep -q '10.187.65.0/24 (uplink)' "$work/error"
ip route del 10.187.65.0/24

# A slot's own network does not; while a run uses it, the rules stay.
ip link add br-0123456789ab type bridge
ip address add 10.187.64.1/28 dev br-0123456789ab
ip link set br-0123456789ab up
ip link add run type veth peer name run-inside
ip link set run master br-0123456789ab
"$setup" network up
"$setup" network down | grep -q 'a run still uses br-0123456789ab'
rules | diff "$work/first" -
ip link delete run
"$setup" network down
"$setup" network down
rules | diff "$work/before" -
"#;

#[test]
fn the_rules_are_put_up_and_taken_down() {
    if let Err(reason) = can_unshare() {
        // Not by a macro: their output is shown only for tests that fail.
        let line = format!("skipped network::the_rules_are_put_up_and_taken_down: {reason}\n");
        io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--net", "bash", "-c", SCRIPT])
        .env("work", work.path())
        .env("setup", env!("CARGO_BIN_EXE_scalr-agent-setup"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether namespaces can be made and iptables works in them.
fn can_unshare() -> Result<(), String> {
    let output = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-c", "iptables -t nat -S && ip link"])
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "needs root, iptables and ip: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}
