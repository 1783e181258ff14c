//! A case for each row of the table, with what os-release, `yum list available`
//! and `yum repolist all` print on such a host.

use os_release::OsRelease;

use super::*;
use crate::host::yum::{parse_offer, parse_repositories};

struct Host {
    os_release: &'static str,
    /// Standard error of `yum list available container-selinux`.
    said: &'static str,
    repolist: &'static str,
    yum: Yum,
}

/// yum 3 where nothing that is on has the package.
const NONE: &str = "Error: No matching Packages to list\n";

const CENTOS_7: &str = r#"NAME="CentOS Linux"
VERSION="7 (Core)"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="7"
PRETTY_NAME="CentOS Linux 7 (Core)""#;

const RHEL_7: &str = r#"NAME="Red Hat Enterprise Linux Server"
VERSION="7.9 (Maipo)"
ID="rhel"
ID_LIKE="fedora"
VERSION_ID="7.9"
PRETTY_NAME="Red Hat Enterprise Linux Server 7.9 (Maipo)""#;

const ORACLE_7: &str = r#"NAME="Oracle Linux Server"
ID="ol"
ID_LIKE="fedora"
VERSION_ID="7.9"
PRETTY_NAME="Oracle Linux Server 7.9""#;

const CENTOS_8: &str = r#"NAME="CentOS Linux"
VERSION="8"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="8"
PRETTY_NAME="CentOS Linux 8""#;

const RHEL_9: &str = r#"NAME="Red Hat Enterprise Linux"
ID="rhel"
ID_LIKE="fedora"
VERSION_ID="9.4"
PRETTY_NAME="Red Hat Enterprise Linux 9.4 (Plow)""#;

const AMAZON_2: &str = r#"NAME="Amazon Linux"
VERSION="2"
ID="amzn"
ID_LIKE="centos rhel fedora"
VERSION_ID="2"
PRETTY_NAME="Amazon Linux 2""#;

const AMAZON_2023: &str = r#"NAME="Amazon Linux"
VERSION="2023"
ID="amzn"
ID_LIKE="fedora"
VERSION_ID="2023"
PRETTY_NAME="Amazon Linux 2023""#;

const CENTOS_7_REPOLIST: &str = "\
Loaded plugins: fastestmirror
Loading mirror speeds from cached hostfile
repo id                        repo name                        status
C7.0.1406-base/x86_64          CentOS-7.0.1406 - Base           disabled
base/7/x86_64                  CentOS-7 - Base                  enabled: 10,072
base-debuginfo/x86_64          CentOS-7 - Debuginfo             disabled
centosplus/7/x86_64            CentOS-7 - Plus                  disabled
extras/7/x86_64                CentOS-7 - Extras                disabled
updates/7/x86_64               CentOS-7 - Updates               enabled:  5,803
repolist: 15,875
";

fn rhel_7_repolist(extras: &str) -> String {
    format!(
        "\
Loaded plugins: product-id, search-disabled-repos, subscription-manager
repo id                                            repo name              status
!rhel-7-server-rpms/7Server/x86_64                 Red Hat Enterprise L   enabled: 34,415
{extras}-debug-rpms/x86_64                         Red Hat Enterprise L   disabled
{extras}/7Server/x86_64                            Red Hat Enterprise L   disabled
rhel-7-server-optional-rpms/7Server/x86_64         Red Hat Enterprise L   disabled
repolist: 34,415
"
    )
}

fn found(host: &Host, has_config_manager: bool) -> Outcome {
    let os = Os::from(host.os_release.lines().map(str::to_owned).collect::<OsRelease>());
    let offer = parse_offer(PACKAGE, "", host.said);
    let repositories = parse_repositories(host.repolist);
    judge(&os, &offer, &repositories, Tools { yum: host.yum, has_config_manager })
}

fn fix(host: &Host) -> String {
    match found(host, true) {
        Outcome::Problem(_, mut fix) if fix.len() == 1 => fix.remove(0),
        other => panic!("no one command in {other:?} for {}", host.os_release),
    }
}

#[test]
fn centos_7_with_extras_off() {
    let host =
        Host { os_release: CENTOS_7, said: NONE, repolist: CENTOS_7_REPOLIST, yum: Yum::Yum };
    assert_eq!(fix(&host), "yum-config-manager --enable extras");
    let Outcome::Problem(_, fix) = found(&host, false) else { panic!() };
    assert_eq!(fix, ["yum -y install yum-utils && yum-config-manager --enable extras"]);
}

#[test]
fn centos_7_whose_mirror_list_is_gone() {
    let said = "Could not retrieve mirrorlist http://mirrorlist.centos.org/?release=7&arch=x86_64\
                &repo=os&infra=stock error was\n14: curl#6 - \"Could not resolve host: \
                mirrorlist.centos.org; Unknown error\"\n\n\n Cannot find a valid baseurl for \
                repo: base/7/x86_64\n";
    let repolist = CENTOS_7_REPOLIST;
    let host = Host { os_release: CENTOS_7, said, repolist, yum: Yum::Yum };
    let Outcome::Problem(message, _) = found(&host, true) else { panic!() };
    assert!(message.contains("past its end of life"), "{message}");
    assert!(fix(&host).contains("vault.centos.org/7.9.2009"));
}

#[test]
fn the_vault_command_mends_the_file() {
    let os = |text: &str| Os::from(text.lines().map(str::to_owned).collect::<OsRelease>());
    for (release, before, after) in [
        (
            CENTOS_7,
            "mirrorlist=http://mirrorlist.centos.org/?release=$releasever&repo=os\n\
             #baseurl=http://mirror.centos.org/centos/$releasever/os/$basearch/\n",
            "#mirrorlist=http://mirrorlist.centos.org/?release=$releasever&repo=os\n\
             baseurl=http://vault.centos.org/7.9.2009/os/$basearch/\n",
        ),
        (
            CENTOS_8,
            "mirrorlist=http://mirrorlist.centos.org/?release=$releasever&repo=AppStream\n\
             #baseurl=http://mirror.centos.org/$contentdir/$releasever/AppStream/$basearch/os/\n",
            "#mirrorlist=http://mirrorlist.centos.org/?release=$releasever&repo=AppStream\n\
             baseurl=http://vault.centos.org/8.5.2111/AppStream/$basearch/os/\n",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("CentOS-Base.repo");
        std::fs::write(&file, before).unwrap();
        let here = directory.path().to_str().unwrap();
        let line = to_the_vault(&os(release)).replace("/etc/yum.repos.d", here);
        assert!(std::process::Command::new("sh").args(["-c", &line]).status().unwrap().success());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), after);
    }
}

#[test]
fn rhel_7_in_all_its_forms() {
    for (id, command) in [
        ("rhel-7-server-extras-rpms", "subscription-manager repos --enable="),
        ("rhel-7-for-power-le-extras-rpms", "subscription-manager repos --enable="),
        ("rhui-REGION-rhel-server-extras", "yum-config-manager --enable "),
        ("rhel-7-server-rhui-extras-rpms", "yum-config-manager --enable "),
        ("rhui-rhel-7-server-rhui-extras-rpms", "yum-config-manager --enable "),
        ("rhui-rhel-7-for-arm-64-extras-rhui-rpms", "yum-config-manager --enable "),
    ] {
        let repolist = rhel_7_repolist(id);
        let repolist = Box::leak(repolist.into_boxed_str());
        let host = Host { os_release: RHEL_7, said: NONE, repolist, yum: Yum::Yum };
        assert_eq!(fix(&host), format!("{command}{id}"));
    }
}

#[test]
fn rhel_7_without_a_subscription() {
    let repolist = "Loaded plugins: product-id, subscription-manager\nrepolist: 0\n";
    let host = Host { os_release: RHEL_7, said: NONE, repolist, yum: Yum::Yum };
    let Outcome::Problem(message, fix) = found(&host, true) else { panic!() };
    assert!(fix.is_empty() && message.contains("subscription-manager"), "{message}");
}

#[test]
fn oracle_linux_7() {
    let repolist = "\
repo id                     repo name                                   status
ol7_addons/x86_64           Oracle Linux 7Server Add ons (x86_64)       disabled
ol7_latest/x86_64           Oracle Linux 7Server Latest (x86_64)        enabled: 28,116
repolist: 28,116
";
    let host = Host { os_release: ORACLE_7, said: NONE, repolist, yum: Yum::Yum };
    assert_eq!(fix(&host), "yum-config-manager --enable ol7_addons");
}

#[test]
fn el_8_and_newer() {
    let centos_8 = "\
repo id              repo name                              status
appstream            CentOS Linux 8 - AppStream             disabled
appstream-source     CentOS Linux 8 - AppStream - Source    disabled
baseos               CentOS Linux 8 - BaseOS                enabled
";
    let rhel_9 = "\
repo id                                        repo name                          status
rhel-9-for-x86_64-appstream-debug-rpms         Red Hat Enterprise Linux 9 for     disabled
rhel-9-for-x86_64-appstream-rpms               Red Hat Enterprise Linux 9 for     disabled
rhel-9-for-x86_64-baseos-rpms                  Red Hat Enterprise Linux 9 for     enabled
";
    for (os_release, repolist, id) in
        [(CENTOS_8, centos_8, "appstream"), (RHEL_9, rhel_9, "rhel-9-for-x86_64-appstream-rpms")]
    {
        let host = Host { os_release, said: NONE, repolist, yum: Yum::Dnf };
        assert_eq!(fix(&host), format!("dnf config-manager --set-enabled {id}"));
        let host = Host { yum: Yum::Dnf5, ..host };
        assert_eq!(fix(&host), format!("dnf config-manager setopt {id}.enabled=1"));
    }
}

#[test]
fn centos_8_whose_mirror_list_is_gone() {
    let said = "Error: Failed to download metadata for repo 'appstream': Cannot prepare internal \
                mirrorlist: No URLs in mirrorlist\n";
    let host = Host { os_release: CENTOS_8, said, repolist: "", yum: Yum::Dnf };
    assert!(fix(&host).contains("vault.centos.org/8.5.2111"));
}

#[test]
fn amazon_linux() {
    let host = Host { os_release: AMAZON_2, said: NONE, repolist: "", yum: Yum::Yum };
    assert_eq!(fix(&host), "amazon-linux-extras enable selinux-ng");
    let os = Os::from(AMAZON_2023.lines().map(str::to_owned).collect::<OsRelease>());
    let stdout = "Available Packages\n\
                  container-selinux.noarch    4:2.233.0-1.amzn2023    amazonlinux\n";
    let offer = parse_offer(PACKAGE, stdout, "");
    let tools = Tools { yum: Yum::Dnf, has_config_manager: false };
    assert!(matches!(judge(&os, &offer, &[], tools), Outcome::Passed(_)));
}

#[test]
fn whatever_is_on_and_has_it_will_do() {
    let os = Os::from(RHEL_7.lines().map(str::to_owned).collect::<OsRelease>());
    let offer = Offer::By("our-own-mirror".to_owned());
    let tools = Tools { yum: Yum::Yum, has_config_manager: true };
    let Outcome::Passed(message) = judge(&os, &offer, &[], tools) else { panic!() };
    assert!(message.contains("our-own-mirror"));
}

#[test]
fn another_broken_repository_is_named() {
    let said =
        "Error: Failed to download metadata for repo 'our-own': Cannot download repomd.xml\n";
    let host = Host { os_release: RHEL_9, said, repolist: "", yum: Yum::Dnf };
    let Outcome::Problem(message, fix) = found(&host, true) else { panic!() };
    assert!(fix.is_empty() && message.contains("'our-own'"), "{message}");
}
