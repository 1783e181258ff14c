use super::*;

/// What yum 3.4.3 printed, in `recorded`; nothing if there is no such file.
fn recorded(file: &str) -> String {
    let path = format!("{}/yum/recorded/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap_or_default()
}

fn recorded_offer(name: &str) -> Offer {
    let (stdout, stderr) =
        (recorded(&format!("{name}.stdout")), recorded(&format!("{name}.stderr")));
    assert!(!(stdout.is_empty() && stderr.is_empty()), "{name} is not recorded");
    parse_offer("container-selinux", &stdout, &stderr)
}

#[test]
fn yum_3_names_the_repository_that_offers_a_package() {
    let long_id = "a-very-long-repository-id-of-a-satellite-organization_Default_Organization_\
                   Extras_container_tools_x86_64_rpms";
    for (name, id) in [
        ("list-rhel-7-server-extras-rpms", "rhel-7-server-extras-rpms"),
        ("list-rhel-7-server-rhui-extras-rpms", "rhel-7-server-rhui-extras-rpms"),
        ("list-rhui-rhel-7-server-rhui-extras-rpms", "rhui-rhel-7-server-rhui-extras-rpms"),
        ("list-rhui-rhel-7-for-arm-64-extras-rhui-rpms", "rhui-rhel-7-for-arm-64-extras-rhui-rpms"),
        ("list-rhel-7-for-power-le-extras-rpms", "rhel-7-for-power-le-extras-rpms"),
        ("list-sl-extras", "sl-extras"),
        ("list-ol7_addons", "ol7_addons"),
        ("list-long-id", long_id),
        ("list-two-offer", long_id),
        // A long version: the row is wrapped.
        ("list-long-version", "thirdparty"),
        // A plugin prints a line before the rows.
        ("list-plugins-on", "extras"),
    ] {
        assert_eq!(recorded_offer(name), Offer::By(id.to_owned()), "{name}");
    }
}

#[test]
fn rows_wrapped_for_a_terminal_are_read_too() {
    let row = "Available Packages\r\ncontainer-selinux.noarch 2:2.119.2-1.module_el7.9.0\r\n      \
               rhui-rhel-7-server-rhui-extras-rpms\r\n";
    let offer = parse_offer("container-selinux", row, "");
    assert_eq!(offer, Offer::By("rhui-rhel-7-server-rhui-extras-rpms".to_owned()));
    let other = "Available Packages\ncontainer-selinux-extra.noarch 1 extras\n";
    assert_eq!(parse_offer("container-selinux", other, ""), Offer::Nowhere);
}

#[test]
fn a_package_that_nobody_offers_is_nowhere() {
    for name in ["list-container-selinux-off", "list-all-off", "list-plugins"] {
        assert_eq!(recorded_offer(name), Offer::Nowhere, "{name}");
    }
    // dnf 5
    let offer = parse_offer("container-selinux", "", "No matching packages to list\n");
    assert_eq!(offer, Offer::Nowhere);
}

#[test]
fn an_unreadable_repository_is_named_with_its_cause_and_without_the_advice() {
    let refused = "curl#7 - \"Failed to connect to 127.0.0.1 port 9 after 0 ms: Couldn't connect \
                   to server\"";
    let baseurl = format!(
        "http://127.0.0.1:9/repo/repodata/repomd.xml: [Errno 14] {refused}\n\
         failure: repodata/repomd.xml from thirdparty: [Errno 256] No more mirrors to try."
    );
    let mirrors = format!(
        "Could not retrieve mirrorlist http://127.0.0.1:9/mirrors error was\n14: {refused}\n\
         Cannot find a valid baseurl for repo: thirdparty"
    );
    let centos = "Could not retrieve mirrorlist \
                  http://mirrorlist.centos.org/?release=7&arch=x86_64&repo=os&infra=stock error \
                  was\n14: curl#6 - \"Could not resolve host: mirrorlist.centos.org\"\n\
                  Cannot find a valid baseurl for repo: base/7/x86_64";
    for (name, repository, why) in [
        ("broken-baseurl-list", "thirdparty", baseurl.as_str()),
        ("broken-mirrorlist-list", "thirdparty", &mirrors),
        ("list-lost-mirrors", "base", centos),
    ] {
        let expected =
            Offer::Unreadable { repository: Some(repository.to_owned()), why: why.to_owned() };
        assert_eq!(recorded_offer(name), expected, "{name}");
    }
    let dnf = "Error: Failed to download metadata for repo 'appstream': Cannot prepare internal \
               mirrorlist: No URLs in mirrorlist\n";
    let Offer::Unreadable { repository, .. } = parse_offer("container-selinux", "", dnf) else {
        panic!()
    };
    assert_eq!(repository.as_deref(), Some("appstream"));
}

#[test]
fn disabled_repositories_are_listed_by_id() {
    let ids = |file| parse_repositories(&recorded(file));
    assert_eq!(ids("repolist-disabled-dead-epel.stdout"), [""; 0]);
    assert_eq!(ids("repolist-disabled-dead-epel-2.stdout"), ["extras"]);
    let dnf = "repo id         repo name\nappstream       CentOS Linux 8 - AppStream\n";
    assert_eq!(parse_repositories(dnf), ["appstream"]);
    let marked = "repo id      repo name\n!extras/7/x86_64   Extras\n*sl-extras  SL\nrepolist: 0\n";
    assert_eq!(parse_repositories(marked), ["extras", "sl-extras"]);
}

#[test]
fn a_lock_is_recognized_by_the_code_of_dnf_and_the_text_of_yum_3() {
    for name in ["list-locked.stderr", "repolist-locked.stderr"] {
        assert!(reports_lock(1, &recorded(name)), "{name}");
    }
    assert!(reports_lock(200, ""));
    assert!(!reports_lock(1, &recorded("broken-baseurl-list.stderr")));
}

#[test]
fn an_installed_version_is_nothing_to_do() {
    // yum 3.4.3 and dnf 4 print the same last line for the file of an installed version.
    let fails = |text: &str| {
        let script = format!("echo '{text}' >&2; exit 1");
        Command::new("sh").args(["-c", &script]).run().unwrap_err()
    };
    assert!(has_nothing_to_do(&fails("Error: Nothing to do")));
    assert!(!has_nothing_to_do(&fails("Error: Package: scalr-agent-0.1.0-1.el7.x86_64")));
}

#[test]
fn a_repository_is_known_to_be_read_where_the_list_names_it() {
    let ours = "scalr-agent.x86_64  0.1.0-1  scalr-agent\n";
    let others = "scalr-agent.x86_64  9.9-1  vendor\nscalr-agent-tools.x86_64  1-1  scalr-agent\n";
    let is_listed = |list: &str| is_listed("scalr-agent", list, "scalr-agent");
    assert!(is_listed(ours) && is_listed(&format!("{others}{ours}")));
    assert!(!is_listed(others) && !is_listed(""));
}
