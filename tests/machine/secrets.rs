//! Secrets: nobody but root sees the token or the proxy's password, during an
//! installation and after it.

use crate::fleet::{Fleet, URL};
use crate::proxy::Proxy;
use crate::watch::Watch;

const PROXY: &str = "http://robot:pa55word@proxy.test:8888\n";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn no_user_sees_the_token_or_the_proxys_password() {
    let fleet = Fleet::boot("ubuntu-18.04", &["--only-proxy"]);
    let pool = fleet.pool();
    let _proxy = Proxy::start(&fleet, 8888, Some(("robot", "pa55word")));
    let secrets = format!("{}\npa55word\n", pool.token);
    fleet.put("/root/secrets", "0600", secrets.as_bytes());
    let download = format!(
        "read -r https_proxy && export https_proxy && curl -fsSL {URL}/install.sh -o /root/install.sh"
    );
    fleet.world.feed(&fleet.machine, &download, PROXY.as_bytes());

    let watch = Watch::start(&fleet, "/root/secrets");
    fleet.world.feed(
        &fleet.machine,
        "sh /root/install.sh --token-file /root/pool.token --http-proxy - --verbose >/root/said 2>&1",
        PROXY.as_bytes(),
    );
    fleet.load_image();
    fleet.wait_for_agent(&pool, "idle");
    assert_eq!(watch.end(), "", "a secret was on a command line");
    the_agents_process_is_closed(&fleet);

    // What the commands that anybody may run show to root.
    fleet.shell(
        "systemctl show '*' >/root/shown; journalctl --no-pager >>/root/shown; \
         scalr-agent-setup status >>/root/shown; scalr-agent-setup proxy show >>/root/shown; \
         cat /root/said >>/root/shown",
    );
    let shown = "grep --text --count --fixed-strings --file=/root/secrets /root/shown";
    assert_eq!(fleet.shell(&format!("{shown} || :")), "0", "a secret shows");
    fleet.shell("cat /root/pool.token >>/root/shown");
    assert_eq!(fleet.shell(shown), "1", "this search finds what there is");

    assert_eq!(readable(&fleet), "");
    fleet.shell("umask 022 && cat /root/pool.token >/var/tmp/planted");
    assert_eq!(readable(&fleet), "/var/tmp/planted", "this search finds what there is");
}

/// Environment and memory of the agent's process are root's alone.
fn the_agents_process_is_closed(fleet: &Fleet) {
    let agent = fleet.shell("systemctl show --property=MainPID --value scalr-agent");
    let opened = |user: &str, file: &str| {
        fleet.shell(&format!(
            "user=$(id -u {user}) && setpriv --reuid=$user --regid=$user --clear-groups \
             sh -c 'exec 3</proc/{agent}/{file} && echo open' 2>/dev/null || :"
        ))
    };
    for file in ["environ", "mem", "maps"] {
        assert_eq!(opened("root", file), "open", "root and {file}");
        for user in ["scalr-agent", "scalr-run"] {
            assert_eq!(opened(user, file), "", "{user} and {file}");
        }
    }
}

/// The files with a secret that a normal user can read, those of /proc among them.
fn readable(fleet: &Fleet) -> String {
    // That user lists what it can read, and root searches that.
    fleet.shell(
        "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c ' \
         find / /dev/shm /run /tmp -xdev -type f -readable -size -20M -print0 2>/dev/null; \
         for file in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do \
         [ ! -r \"$file\" ] || printf \"%s\\0\" \"$file\"; done' | \
         xargs -0 grep --text --files-with-matches --no-messages --fixed-strings \
         --file=/root/secrets || :",
    )
}
