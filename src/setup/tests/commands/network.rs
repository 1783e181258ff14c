//! `network`, in a network namespace of its own.

use std::process::Command;

/// Everything happens in a private network and mount namespace: neither the
/// host's firewall nor its /etc is touched.
const SCRIPT: &str = r#"
set -eu
mount --make-rprivate /
mount -t sysfs sysfs /sys
mkdir "$work/etc" "$work/state"
cp -R /etc/alternatives /etc/group /etc/passwd "$work/etc/"
echo nameserver 169.254.169.254 >"$work/etc/resolv.conf"
mount --bind "$work/etc" /etc
mount --bind "$work/state" /var/lib
ip link set lo up
# The settings of whoever runs the tests are not ours.
unset ${!SCALR_@}
rules() { iptables -S; iptables -t nat -S; ip6tables -S; }
verify() { "$setup" network verify "$@"; }
iptables -A FORWARD -j ACCEPT
rules >"$work/before"

# The first range is taken, so the second is chosen.
ip link add uplink type bridge
ip address add 10.213.70.3/24 dev uplink
ip link set uplink up
"$setup" network up
grep -q '"base": "10.187.64.0/20"' /etc/scalr-agent/docker.json
iptables -S FORWARD | sed -n 2p | grep -qx -- '-A FORWARD -j SCALR-AGENT'
iptables -S SCALR-AGENT | grep -q -- '-d 169.254.0.0/16 -i scalr-+ -j DROP'
iptables -S SCALR-AGENT | grep -q -- '-d 169.254.169.254/32 -i scalr-+ -p udp -m udp --dport 53 -j ACCEPT'
test "$(cat /proc/sys/net/ipv4/ip_forward)" = 1
rules >"$work/first"

# Again: the same; and the first place is taken back from whoever took it.
"$setup" network up
iptables -I FORWARD -s 192.0.2.0/24 -j ACCEPT
"$setup" network up
iptables -S FORWARD | sed -n 2p | grep -qx -- '-A FORWARD -j SCALR-AGENT'
iptables -D FORWARD -s 192.0.2.0/24 -j ACCEPT
rules | diff "$work/first" -

# A verification finds the same rules, and puts up those that are gone.
verify | grep -qx '{"result":"good"}'
for broken in 'iptables -F SCALR-AGENT' 'iptables -F' 'iptables -t nat -F' \
    'iptables -D INPUT -j SCALR-AGENT-INPUT' 'iptables -I SCALR-AGENT-INPUT -j RETURN' \
    'iptables -I INPUT -j ACCEPT' 'ip6tables -F' 'iptables -F FORWARD; iptables -F SCALR-AGENT; iptables -X SCALR-AGENT'; do
    eval "$broken"
    verify | grep -q '"result":"repaired"'
    iptables -D INPUT -j ACCEPT 2>/dev/null || :
    iptables -C FORWARD -j ACCEPT 2>/dev/null || iptables -A FORWARD -j ACCEPT
    rules | diff "$work/first" -
done
# `check` knows the rules that are gone from those that another one is asked before.
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "$work/active"
cat >"$work/active/systemctl" <<'END'
#!/bin/sh
for unit in scalr-docker scalr-agent-network; do printf 'Id=%s.service\nActiveState=active\n\n' "$unit"; done
END
chmod +x "$work/active/systemctl"
check() { PATH=$work/active:$PATH "$setup" check --only firewall-rules -v || :; }
check | grep -q "passed .*the rules of the runs' networks are up"
iptables -I FORWARD -s 192.0.2.0/24 -j ACCEPT
check | grep -q 'warning .*put a rule before those'
check | grep -q 'iptables -t filter -A FORWARD -s 192.0.2.0/24 -j ACCEPT'
iptables -F SCALR-AGENT-INPUT
check | grep -q 'FAILED .*has removed the rules'
iptables -D FORWARD -s 192.0.2.0/24 -j ACCEPT
verify | grep -q '"result":"repaired"'
rules | diff "$work/first" -

# A proxy on this host stays open to runs, and a change of it is followed.
HTTPS_PROXY=http://10.213.70.3:3128 verify --from-environment | grep -q '"result":"repaired"'
iptables -S SCALR-AGENT-INPUT | grep -q -- '-d 10.213.70.3/32 -i scalr-+ -p tcp -m tcp --dport 3128 -j RETURN'
HTTPS_PROXY=http://10.213.70.3:3128 verify --from-environment | grep -qx '{"result":"good"}'
verify | grep -q '"result":"repaired"'
rules | diff "$work/first" -

# While rules are replaced, the old or the new ones are up; and what is interrupted after any call
# is put up by the next one.
mkdir "$work/watched"
export plain=$PATH work
cat >"$work/watched/iptables" <<'END'
#!/bin/sh
PATH=$plain
[ ! -s "$work/left" ] || {
    left=$(($(cat "$work/left") - 1))
    [ "$left" -gt 0 ] || exit 4
    echo "$left" >"$work/left"
    # After an earlier call, the rules were looked at when that was the last one.
    [ "$left" -eq 1 ] || exec iptables "$@"
}
iptables "$@" || exit
while read -r from rule; do
    chain=$(iptables -S "$from" | sed -n '2s/.* -j //p')
    iptables -S "$chain" | grep -q -- "$rule" || echo "$from has no $rule after: $*" >>"$work/unfenced"
done <<'RULES'
INPUT -i scalr-+ -j DROP
FORWARD -i scalr-+ -m conntrack --ctstate DNAT -j DROP
RULES
END
chmod +x "$work/watched/iptables"
proxied() { HTTPS_PROXY=http://10.213.70.3:3128 PATH=$work/watched:$PATH verify --from-environment; }
proxied | grep -q '"result":"repaired"'
PATH=$work/watched:$PATH verify | grep -q '"result":"repaired"'
rules | diff "$work/first" -
interrupted=0
for calls in $(seq 60); do
    echo "$calls" >"$work/left"
    if proxied >/dev/null 2>&1; then break; fi
    interrupted=$calls
    : >"$work/left"
    verify >/dev/null
    rules | diff "$work/first" -
done
test "$interrupted" -gt 20
: >"$work/left"
verify >/dev/null
rules | diff "$work/first" -
if [ -e "$work/unfenced" ]; then cat "$work/unfenced"; exit 1; fi

# What can't be put up is reported.
mkdir "$work/broken"
printf '#!/bin/sh\necho "no such table" >&2; exit 3\n' >"$work/broken/iptables"
chmod +x "$work/broken/iptables"
if PATH=$work/broken:$PATH verify >"$work/answer" 2>"$work/error"; then exit 1; fi
grep -q '"result":"failed","why":"cannot use iptables.*no such table' "$work/answer"

# On the host's own engine the rules only drop.
SCALR_AGENT_ENGINE=unix:///var/run/docker.sock verify --from-environment | grep -q '"result":"repaired"'
if iptables -S | grep SCALR-AGENT | grep -q ACCEPT; then exit 1; fi
verify | grep -q '"result":"repaired"'
rules | diff "$work/first" -

# A route into the range stops it.
ip route add 10.187.65.0/24 dev uplink
if "$setup" network up 2>"$work/error"; then exit 1; fi
grep -q '10.187.65.0/24 (uplink)' "$work/error"
ip route del 10.187.65.0/24

# A slot's own network does not; while a run uses it, the rules stay.
ip link add scalr-slot-0 type bridge
ip address add 10.187.64.1/28 dev scalr-slot-0
ip link set scalr-slot-0 up
ip link add run type veth peer name run-inside
ip link set run master scalr-slot-0
"$setup" network up
"$setup" network down | grep -q 'a run still uses scalr-slot-0'
rules | diff "$work/first" -
ip link delete run
"$setup" network down
"$setup" network down
rules | diff "$work/before" -
"#;

#[test]
#[ignore = "needs root and iptables: run scripts/test"]
fn the_rules_are_put_up_and_taken_down() {
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
